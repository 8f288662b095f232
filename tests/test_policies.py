from dataclasses import replace

import pytest

from polcad.errors import ConfigError
from polcad.model import FREE, Priority, Role, Setpoint, Why
from polcad.ports import ClassView, Desire
from polcad.spec import BRAKE, FAIL_SAFE
from policies.baselines import NoCap, OneThresholdAll, OneThresholdLow
from policies.polca import Polca
from policies.three_band import ThreeBand
from tests.views import BUDGET_W, HIGH, LOW, Class, view

MHZ = {mhz: Setpoint(mhz / 1410) for mhz in (1110, 1275, 1305)}
T1 = {LOW: MHZ[1275], HIGH: FREE}
T2 = {LOW: MHZ[1110], HIGH: FREE}
T2_HIGH = {LOW: MHZ[1110], HIGH: MHZ[1305]}
UNCAPPED = {LOW: FREE, HIGH: FREE}


@pytest.mark.parametrize(
    ("held", "used_frac", "then"),
    [
        (UNCAPPED, 0.80, UNCAPPED),
        (UNCAPPED, 0.801, T1),
        (UNCAPPED, 0.89, T1),
        (UNCAPPED, 0.891, T2),
        (T1, 0.76, T1),
        (T1, 0.75, T1),
        (T1, 0.749, UNCAPPED),
        (T1, 0.891, T2),
        (T2, 0.891, T2_HIGH),
        (T2, 0.84, T2),
        (T2, 0.839, T1),
        (T2_HIGH, 0.95, T2_HIGH),
        (T2_HIGH, 0.84, T2_HIGH),
        (T2_HIGH, 0.839, T2),
    ],
)
def test_polca_follows_the_table_of_the_paper(
    held: dict[Class, Setpoint],
    used_frac: float,
    then: dict[Class, Setpoint],
) -> None:
    assert Polca().desired(view(used_frac, held, t=100.0)).setpoints == then


def test_polca_locks_the_high_priority_only_after_the_latency() -> None:
    assert Polca().desired(view(0.95, T2, t=1.9)).setpoints == T2
    assert Polca().desired(view(0.95, T2, t=2.0)).setpoints == T2_HIGH
    assert Polca().desired(view(0.95, UNCAPPED, t=1000.0)).setpoints == T2


def test_polca_tells_why_each_priority_is_locked() -> None:
    assert Polca().desired(view(0.95, T2, t=9.0)).why == {LOW: Why.T2, HIGH: Why.T2_HIGH}
    assert Polca().desired(view(0.85)).why[LOW] is Why.T1


@pytest.mark.parametrize("held", [BRAKE, FAIL_SAFE, Setpoint(0.5, 0.5)])
def test_polca_comes_back_from_stricter_than_its_ladder_by_its_strictest_rung(held: Setpoint) -> None:
    desire = Polca().desired(view(0.3, {LOW: held, HIGH: held}, t=100.0))
    assert desire.setpoints == T2_HIGH


@pytest.mark.parametrize(("held", "ceiling_frac"), [(T1, 0.79), (T2, 0.88), (T2_HIGH, 0.88)])
def test_polca_loosens_to_a_point_below_the_threshold_that_would_undo_it(
    held: dict[Class, Setpoint],
    ceiling_frac: float,
) -> None:
    assert Polca().desired(view(0.1, held, t=100.0)).ceiling_frac == pytest.approx(ceiling_frac)


def test_polca_knows_its_rung_from_clocks_that_a_board_snapped_to_its_grid() -> None:
    snapped = {LOW: Setpoint(1785 / 1980), HIGH: FREE}  # 1275 of 1410 on an H100's grid
    assert Polca().desired(view(0.76, snapped, t=100.0)).setpoints == T1


def test_no_cap_leaves_everything_free_at_any_power() -> None:
    assert NoCap().desired(view(1.4)).setpoints == UNCAPPED
    assert NoCap().thresholds == {}


def test_one_threshold_locks_the_low_priority_or_all_and_frees_them_a_gap_lower() -> None:
    lock = MHZ[1110]
    for policy, locked in ((OneThresholdLow(), {LOW: lock, HIGH: FREE}), (OneThresholdAll(), {LOW: lock, HIGH: lock})):
        assert policy.desired(view(0.89)).setpoints == UNCAPPED
        assert policy.desired(view(0.891)).setpoints == locked
        assert policy.desired(view(0.85, locked)).setpoints == locked
        assert policy.desired(view(0.839, locked)).setpoints == UNCAPPED


def cut(used_frac: float, **held: Setpoint) -> Desire:
    return ThreeBand().desired(view(used_frac, {LOW: held.get("low", FREE), HIGH: held.get("high", FREE)}))


def test_three_band_cuts_the_low_priority_down_to_the_target() -> None:
    desire = cut(1.0)
    low_max_w = 1.2 * BUDGET_W / 2
    assert desire.setpoints[LOW].cap_frac * low_max_w == pytest.approx(5000.0 - 500.0)  # all of 100 % to 95 %
    assert desire.setpoints[HIGH] == FREE


def test_three_band_cuts_the_high_priority_only_for_what_the_low_one_cannot_shed() -> None:
    policy = ThreeBand(target_frac=0.55, uncap_frac=0.5, floor_frac=0.5)
    desire = policy.desired(view(1.0))
    low, high = desire.setpoints[LOW], desire.setpoints[HIGH]
    assert low.cap_frac == pytest.approx(0.5)  # the floor: 3000 of 6000 W, 2000 shed
    assert high.cap_frac * 6000.0 == pytest.approx(3000.0)  # 2500 more are asked, 2000 can be had


def test_three_band_never_limits_a_class_below_its_floor_however_little_it_draws() -> None:
    idle = (Priority.LOW, Role.TOKEN)
    seen = view(1.0, {LOW: FREE, HIGH: FREE, idle: FREE})
    seen = replace(seen, classes={**seen.classes, idle: ClassView(10, 100.0, 100.0, 100.0, 4000.0)})
    desire = ThreeBand().desired(seen)
    assert desire.setpoints[LOW].cap_frac < 1.0
    assert desire.setpoints[idle].cap_frac == 0.5


def test_three_band_stays_between_its_bands_and_lets_go_below() -> None:
    capped = Setpoint(1.0, 0.7)
    assert cut(0.98, low=capped).setpoints == {LOW: capped, HIGH: FREE}
    assert cut(0.90, low=capped).setpoints == {LOW: capped, HIGH: FREE}
    assert cut(0.89, low=capped).setpoints == UNCAPPED
    assert cut(0.99).setpoints[LOW].cap_frac < 1.0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Polca(t1_frac=0.9, t2_frac=0.9), "t2_frac=0.9 must be above t1_frac=0.9"),
        (lambda: Polca(t1_frac=0.04), "gap_frac=0.05 must be below t1_frac=0.04"),
        (lambda: Polca(low_t1_clock_frac=0.7), "low_t2_clock_frac=0.787 must not be above"),
        (lambda: OneThresholdLow(threshold_frac=0.05), "gap_frac=0.05 must be below"),
        (lambda: OneThresholdAll(threshold_frac=0.0), "gap_frac=0.05 must be below"),
        (lambda: ThreeBand(target_frac=0.99), "must hold"),
        (lambda: ThreeBand(uncap_frac=0.96), "must hold"),
    ],
)
def test_options_in_the_wrong_order_are_refused(make: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()  # type: ignore[operator]  # each makes a policy


def test_policies_work_on_a_domain_without_gpus() -> None:
    for policy in (Polca(), NoCap(), OneThresholdAll(), ThreeBand()):
        assert policy.desired(view(1.2, {})).setpoints == {}


def test_polca_locks_every_role_of_the_low_priority() -> None:
    held = {(LOW[0], role): FREE for role in Role}
    assert set(Polca().desired(view(0.85, held)).setpoints.values()) == {MHZ[1275]}
