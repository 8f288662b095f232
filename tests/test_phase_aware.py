import pytest

from polcad.errors import ConfigError
from polcad.model import FREE, Priority, Role, Setpoint
from polcad.simulate import SimulateOptions
from policies.phase_aware import PhaseAware
from tests.views import view

LOW_TOKEN, LOW_MIXED = (Priority.LOW, Role.TOKEN), (Priority.LOW, Role.MIXED)
HIGH_TOKEN, HIGH_MIXED = (Priority.HIGH, Role.TOKEN), (Priority.HIGH, Role.MIXED)
FREE_ROW = dict.fromkeys((LOW_TOKEN, LOW_MIXED, HIGH_TOKEN, HIGH_MIXED), FREE)
DEEP = Setpoint(1110 / 1410)


def test_token_heavy_servers_of_low_priority_are_locked_first() -> None:
    wanted = PhaseAware().desired(view(0.84, FREE_ROW, t=100.0)).setpoints
    assert wanted == {**FREE_ROW, LOW_TOKEN: Setpoint(1275 / 1410)}
    assert PhaseAware().desired(view(0.88, FREE_ROW, t=100.0)).setpoints == {**FREE_ROW, LOW_TOKEN: DEEP}


def test_high_priority_is_touched_only_once_the_low_one_had_time_to_act() -> None:
    held = {**FREE_ROW, LOW_TOKEN: DEEP, LOW_MIXED: DEEP}
    assert PhaseAware().desired(view(0.95, FREE_ROW, t=100.0)).setpoints == held
    wanted = PhaseAware().desired(view(0.95, held, t=1000.0)).setpoints
    assert wanted == {**held, HIGH_TOKEN: Setpoint(1305 / 1410)}


@pytest.mark.parametrize(
    "options", [{"t1_frac": 0.87}, {"deep_frac": 0.95}, {"gap_frac": 0.9}, {"deep_clock_frac": 0.95}]
)
def test_thresholds_and_clocks_in_the_wrong_order_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PhaseAware(**options)


def test_the_simulated_row_tells_the_policy_its_phases() -> None:
    roles = {pool.placement.role for pool in SimulateOptions(8, policy="phase_aware").model().pools()}
    assert roles == {Role.TOKEN, Role.MIXED}
    assert {pool.placement.role for pool in SimulateOptions(8).model().pools()} == {Role.MIXED}
