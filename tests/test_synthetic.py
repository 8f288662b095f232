"""GPUs that exist only here: they answer to load, lock and limit as the real ones do."""

from typing import Any

import pytest

from collectors.synthetic import SyntheticCollector, SyntheticDevice, load_at
from polcad.curve import dynamic_frac
from polcad.errors import ConfigError
from polcad.model import FREE, Outcome, Role, Setpoint

FULL: dict[str, Any] = {"gpus": 2, "schedule": [(0.0, 1.0)], "noise_frac": 0.0, "name": "n1"}


def node(**options: Any) -> tuple[SyntheticCollector, SyntheticDevice]:
    collector = SyntheticCollector({**FULL, **options})
    return collector, SyntheticDevice({}, collector)


def power_w(collector: SyntheticCollector, t: float = 0.0) -> float:
    first = collector.read(t).gpus.power_w[0]
    assert first is not None
    return first


def test_a_full_load_draws_the_boards_maximum_and_none_its_idle_power() -> None:
    assert power_w(node()[0]) == 400.0
    assert power_w(node(schedule=[(0.0, 0.0)])[0]) == 68.0


@pytest.mark.parametrize("role", Role)
def test_a_lock_cuts_the_dynamic_power_by_the_curve_of_the_role(role: Role) -> None:
    collector, device = node(role=role)
    device.apply({collector.uuids[0]: Setpoint(1110 / 1410)})
    assert power_w(collector) == pytest.approx(68.0 + 332.0 * dynamic_frac(role, 1110 / 1410), abs=0.01)
    assert collector.read(0.0).gpus.power_w[1] == 400.0


def test_a_limit_is_not_passed() -> None:
    collector, device = node()
    device.apply({collector.uuids[0]: Setpoint(1.0, 0.5)})
    reading = collector.read(0.0)
    assert (reading.gpus.power_w[0], reading.gpus.enforced_w[0]) == (200.0, 200.0)


def test_what_is_in_force_is_free_until_something_is_set_and_on_the_grid_then() -> None:
    collector, device = node()
    assert device.in_force().clock_frac == (1.0, 1.0)
    device.apply({collector.uuids[1]: Setpoint(0.9)})
    force = device.in_force()
    assert force.uuid == collector.uuids
    assert force.clock_frac == (1.0, 1260 / 1410)
    assert set(force.outcome) == {Outcome.OK}


def test_less_than_the_board_can_do_is_clamped_and_said() -> None:
    collector, device = node()
    device.apply({collector.uuids[0]: Setpoint(0.01, 0.01)})
    force = device.in_force()
    assert (force.clock_frac[0], force.cap_frac[0]) == (210 / 1410, 0.25)
    assert force.outcome[0] is Outcome.CLAMPED
    assert "below the board's 210" in force.detail[0]
    assert "below the board's 100" in force.detail[0]
    device.apply({collector.uuids[0]: FREE})
    assert device.in_force().outcome[0] is Outcome.OK


def test_the_load_runs_straight_between_the_points_of_its_schedule() -> None:
    course = [(0.0, 0.2), (10.0, 0.6), (20.0, 0.6), (20.0, 0.1)]
    assert [round(load_at(course, s), 3) for s in (-1.0, 0.0, 5.0, 10.0, 15.0, 20.0, 99.0)] == [
        pytest.approx(value) for value in (0.2, 0.2, 0.4, 0.6, 0.6, 0.1, 0.1)
    ]


def test_two_runs_with_one_seed_and_the_same_times_read_the_same() -> None:
    runs = [[power_w(collector, t) for t in range(20)] for collector in (node(noise_frac=0.1)[0] for _ in range(2))]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1
    assert runs[0] != [power_w(node(noise_frac=0.1, seed="other")[0], 0.0)] * 20


@pytest.mark.parametrize(
    "options",
    [{"gpu": 8}, {"role": "cook"}, {"gpus": "many"}, {"schedule": [(0.0,)]}, {"board": {"watts": 1}}, {"schedule": 3}],
)
def test_an_option_that_means_nothing_is_a_configuration_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="collector synthetic"):
        SyntheticCollector({**FULL, **options})


def test_the_device_takes_its_own_collector_alone_and_no_options() -> None:
    with pytest.raises(ConfigError, match="it needs collector synthetic"):
        SyntheticDevice({}, object())  # type: ignore[arg-type]  # the mistake that is refused
    with pytest.raises(ConfigError, match="takes no options"):
        SyntheticDevice({"x": 1}, node()[0])
