from dataclasses import replace

import pytest

from polcad.errors import ConfigError
from polcad.model import FREE, Outlook, Setpoint, Why
from polcad.ports import View
from policies.polca import Polca
from policies.predictive import Predictive
from tests.views import BUDGET_W, HIGH, LOW, Class, view

MHZ = {mhz: Setpoint(mhz / 1410) for mhz in (1110, 1275, 1305)}
FREE_ROW: dict[Class, Setpoint] = {LOW: FREE, HIGH: FREE}
T1 = {LOW: MHZ[1275], HIGH: FREE}
T2 = {LOW: MHZ[1110], HIGH: FREE}
T2_HIGH = {LOW: MHZ[1110], HIGH: MHZ[1305]}

AHEAD = Predictive(limit_frac=0.97)


def foreseen(
    used_frac: float,
    upper_frac: float,
    hold_frac: float,
    held: dict[Class, Setpoint] = FREE_ROW,
    doubt: str = "",
) -> View:
    seen = view(used_frac, held, t=100.0)
    outlook = Outlook(0.99, 40.0, upper_frac * BUDGET_W, 300.0, hold_frac * BUDGET_W, doubt=doubt)
    return replace(seen, outlook=outlook)


@pytest.mark.parametrize(
    ("upper_frac", "then"), [(0.96, FREE_ROW), (0.98, T1), (1.06, T2), (1.2, T2_HIGH), (2.0, T2_HIGH)]
)
def test_the_mildest_rung_is_taken_under_which_the_bound_fits(upper_frac: float, then: dict[Class, Setpoint]) -> None:
    desire = AHEAD.desired(foreseen(0.9, upper_frac, upper_frac))
    assert desire.setpoints == then
    assert set(desire.why.values()) <= {Why.FORECAST}


def test_a_row_above_every_threshold_of_polca_stays_free_while_its_bound_fits() -> None:
    assert Polca().desired(view(0.9, t=100.0)).setpoints != FREE_ROW
    assert AHEAD.desired(foreseen(0.9, 0.95, 0.96)).setpoints == FREE_ROW


def test_a_lock_is_left_only_when_the_longer_bound_fits_too() -> None:
    assert AHEAD.desired(foreseen(0.8, 0.90, 0.99, T1)).setpoints == T1
    assert AHEAD.desired(foreseen(0.8, 0.90, 0.955, T1)).setpoints == FREE_ROW


def test_several_rungs_are_left_at_once_where_the_longer_bound_fits() -> None:
    assert AHEAD.desired(foreseen(0.6, 0.65, 0.7, T2_HIGH)).setpoints == FREE_ROW


def test_what_is_measured_above_the_limit_goes_a_rung_up_whatever_is_foreseen() -> None:
    assert AHEAD.desired(foreseen(0.98, 0.5, 0.5)).setpoints == T1


@pytest.mark.parametrize("used_frac", [0.7, 0.81, 0.9])
def test_without_an_outlook_or_with_one_in_doubt_it_is_polca(used_frac: float) -> None:
    plain = Polca().desired(view(used_frac, t=100.0))
    assert AHEAD.desired(view(used_frac, t=100.0)) == plain
    assert AHEAD.desired(foreseen(used_frac, 0.1, 0.1, doubt="cold")) == plain


def test_from_a_brake_it_comes_back_by_the_strictest_rung() -> None:
    braked = {LOW: Setpoint(0.2), HIGH: Setpoint(0.2)}
    assert AHEAD.desired(foreseen(0.4, 0.5, 0.5, braked)).setpoints == T2_HIGH


@pytest.mark.parametrize("options", [{"ladder": "none"}, {"limit_frac": 1.0}, {"limit_frac": 0.0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Predictive(**options)  # type: ignore[arg-type]  # wrong on purpose
