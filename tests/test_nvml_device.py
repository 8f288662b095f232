from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.nvml import NvmlCollector
from polcad.devices.nvml import NvmlDevice
from polcad.errors import ConfigError
from polcad.model import FREE, InForce, Outcome, Reading, Setpoint
from tests.fake_nvml.control import NO_PERMISSION, FakeNode
from tests.waiting import until

pytestmark = pytest.mark.integration

T1 = Setpoint(clock_frac=1275 / 1410)
HALF = Setpoint(clock_frac=0.5, cap_frac=0.5)
INVALID_ARGUMENT = 2


class Hands:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.t = 0.0

    def __call__(self) -> float:
        return self.t


class Bench:
    """A fake node, the real collector, and as many devices, one after another, as a test wants."""

    def __init__(self, node: FakeNode, state_dir: Path) -> None:
        self.node, self.state_dir, self.monotonic = node, state_dir, Hands()
        self.collector = NvmlCollector({"deadline_s": 0.2})
        self.device = NvmlDevice({"state_dir": state_dir}, self.collector, self.monotonic)

    def apply(self, setpoint: Setpoint) -> InForce:
        self.device.apply(dict.fromkeys(self.node.uuids, setpoint))
        return self.device.in_force()

    def restart(self) -> None:
        self.collector.close()
        self.collector = NvmlCollector({"deadline_s": 0.2})
        self.device = NvmlDevice({"state_dir": self.state_dir}, self.collector, self.monotonic)

    def later(self, seconds: float = 1.5) -> InForce:
        self.monotonic.t += seconds
        return self.device.in_force()


class Meter:
    """A collector of another kind."""

    def read(self, t: float) -> Reading:
        raise AssertionError(t)


@pytest.fixture
def bench(gpus_here: FakeNode, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(gpus_here, tmp_path / "state")
    yield bench
    for gpu in gpus_here.gpus:
        gpu.well()
    bench.collector.close()


def test_at_the_start_limits_are_free_and_locks_unknown(bench: Bench) -> None:
    in_force = bench.device.in_force()
    assert in_force.uuid == bench.node.uuids
    assert set(in_force.clock_frac) == {None}
    assert set(in_force.cap_frac) == {1.0}
    assert set(in_force.outcome) == {Outcome.OK}
    assert bench.node.gpus[0].writes == (0, 0, 0)


def test_a_setpoint_is_set_on_every_gpu_and_power_answers(bench: Bench) -> None:
    bench.node.load(1.0)
    in_force = bench.apply(Setpoint(1275 / 1410, 0.5))
    assert set(in_force.clock_frac) == {1275 / 1410}
    assert set(in_force.cap_frac) == {0.5}
    assert set(in_force.outcome) == {Outcome.OK}
    assert {gpu.lock_mhz for gpu in bench.node.gpus} == {1275}
    assert {gpu.limit_w for gpu in bench.node.gpus} == {200.0}
    assert all(power_w is not None and power_w <= 200.0 for power_w in bench.collector.read(0.0).gpus.power_w)


def test_only_changes_are_written(bench: Bench) -> None:
    for _ in range(3):
        bench.apply(HALF)
    assert {gpu.writes for gpu in bench.node.gpus} == {(1, 0, 1)}
    for _ in range(3):
        bench.apply(Setpoint(HALF.clock_frac, 0.6))
    assert {gpu.writes for gpu in bench.node.gpus} == {(1, 0, 2)}
    for _ in range(3):
        bench.apply(FREE)
    assert {gpu.writes for gpu in bench.node.gpus} == {(1, 1, 3)}


def test_gpus_take_different_setpoints(bench: Bench) -> None:
    first, second, *others = bench.node.uuids
    bench.device.apply({first: HALF, second: T1})
    in_force = bench.device.in_force()
    assert in_force.clock_frac[:3] == (705 / 1410, 1275 / 1410, None)
    assert len(others) == 6


def test_below_the_range_the_bound_is_in_force_and_told(bench: Bench) -> None:
    in_force = bench.apply(Setpoint(cap_frac=0.225))
    assert set(in_force.cap_frac) == {0.25}
    assert set(in_force.outcome) == {Outcome.CLAMPED}
    assert in_force.detail[0] == f"gpu {bench.node.uuids[0]}: cap_w=90.0 is below the board's 100.0"


def test_release_restores_what_was_found(bench: Bench) -> None:
    bench.node.gpus[0].limit_w = 350
    bench.apply(HALF)
    bench.device.release()
    assert [gpu.limit_w for gpu in bench.node.gpus[:2]] == [350, 400]
    assert {gpu.lock_mhz for gpu in bench.node.gpus} == {0}
    assert set(bench.device.in_force().clock_frac) == {1.0}


def test_what_was_found_and_the_lock_survive_a_restart(bench: Bench) -> None:
    bench.node.gpus[0].limit_w = 350
    bench.apply(HALF)
    bench.restart()
    in_force = bench.device.in_force()
    assert set(in_force.clock_frac) == {705 / 1410}
    assert set(in_force.cap_frac) == {0.5}
    bench.device.release()
    assert [gpu.limit_w for gpu in bench.node.gpus[:2]] == [350, 400]
    bench.node.gpus[0].limit_w = 320  # an operator's new limit, once nothing of ours is kept
    bench.restart()
    assert bench.apply(FREE).outcome[0] is Outcome.OK
    assert bench.node.gpus[0].limit_w == 320


def test_a_restarted_agent_writes_its_lock_again(bench: Bench) -> None:
    bench.apply(T1)
    bench.restart()
    bench.node.reload_driver()
    bench.collector.read(0.0)
    bench.apply(T1)
    assert {gpu.lock_mhz for gpu in bench.node.gpus} == {1275}


def test_denied_settings_are_told_and_tried_again(bench: Bench) -> None:
    gpu = bench.node.gpus[0]
    gpu.fail_writes(NO_PERMISSION)
    in_force = bench.apply(T1)
    assert in_force.outcome[:2] == (Outcome.DENIED, Outcome.OK)
    assert "run the agent as root" in in_force.detail[0]
    assert in_force.clock_frac[0] is None
    assert gpu.refused == 1
    gpu.well()
    in_force = bench.apply(T1)
    assert (in_force.outcome[0], in_force.clock_frac[0], gpu.lock_mhz) == (Outcome.OK, 1275 / 1410, 1275)


def test_where_the_lock_is_refused_the_limit_is_asked_for_all_the_same(bench: Bench) -> None:
    gpu = bench.node.gpus[0]
    gpu.fail_writes(NO_PERMISSION)
    assert bench.apply(HALF).outcome[0] is Outcome.DENIED
    assert gpu.refused == 2


def test_a_refused_setting_fails_that_gpu_alone_and_is_tried_again(bench: Bench) -> None:
    gpu = bench.node.gpus[5]
    bench.apply(T1)
    gpu.fail_writes(INVALID_ARGUMENT)
    in_force = bench.apply(HALF)
    assert [n for n, outcome in enumerate(in_force.outcome) if outcome is Outcome.FAILED] == [5]
    assert in_force.clock_frac[5] is None
    gpu.well()
    assert bench.apply(HALF).outcome[5] is Outcome.OK
    assert gpu.lock_mhz == 705


def test_a_reset_that_is_not_supported_is_a_lock_of_the_whole_range(bench: Bench) -> None:
    bench.apply(T1)
    bench.node.gpus[0].refuse_reset()
    in_force = bench.apply(FREE)
    assert bench.node.gpus[0].lock_mhz == 1410
    assert (in_force.clock_frac[0], in_force.outcome[0]) == (1.0, Outcome.OK)


def test_an_ignored_lock_is_found_out_and_written_again(bench: Bench) -> None:
    bench.node.load(1.0)
    gpu = bench.node.gpus[0]
    gpu.ignore_lock()
    in_force = bench.apply(T1)
    assert in_force.outcome[0] is Outcome.OK  # it may still take a moment
    in_force = bench.later()
    assert (in_force.outcome[0], in_force.clock_frac[0]) == (Outcome.OVERRIDDEN, 1.0)
    assert in_force.detail[0] == f"gpu {bench.node.uuids[0]}: sm_mhz=1410 is above the lock of 1275"
    assert in_force.outcome[1:] == (Outcome.OK,) * 7
    assert bench.apply(T1).outcome[0] is Outcome.OVERRIDDEN  # written again, not yet seen to hold
    assert [other.writes[0] for other in bench.node.gpus[:2]] == [2, 1]
    gpu.well()
    assert bench.later().outcome[0] is Outcome.OK
    bench.apply(T1)
    assert gpu.writes[0] == 2


def test_an_ignored_lock_is_found_out_though_it_is_changed_all_the_time_and_so_is_its_end(bench: Bench) -> None:
    bench.node.load(1.0)
    gpu = bench.node.gpus[0]
    gpu.ignore_lock()
    for setpoint in (T1, Setpoint(clock_frac=0.5), T1):  # as a brake and its release do
        bench.monotonic.t += 0.6
        in_force = bench.apply(setpoint)
    assert [outcome is Outcome.OVERRIDDEN for outcome in in_force.outcome[:2]] == [True, False]
    gpu.well()
    bench.monotonic.t += 0.1
    assert bench.apply(T1).outcome[0] is Outcome.OK


def test_a_lower_limit_held_from_outside_is_in_force_and_told(bench: Bench) -> None:
    bench.apply(Setpoint(cap_frac=0.75))
    bench.node.gpus[0].hold_limit(250)
    in_force = bench.device.in_force()
    assert (in_force.outcome[0], in_force.cap_frac[0]) == (Outcome.OVERRIDDEN, 0.625)
    assert in_force.detail[0] == f"gpu {bench.node.uuids[0]}: enforced_w=250.0 is held from outside, not our 300.0"


def test_a_limit_that_another_tool_raised_is_told_and_set_again(bench: Bench) -> None:
    bench.apply(Setpoint(cap_frac=0.5))
    bench.node.gpus[0].limit_w = 400
    in_force = bench.device.in_force()
    assert (in_force.outcome[0], in_force.cap_frac[0]) == (Outcome.OVERRIDDEN, 1.0)
    in_force = bench.apply(Setpoint(cap_frac=0.5))
    assert (in_force.outcome[0], in_force.cap_frac[0], bench.node.gpus[0].limit_w) == (Outcome.OK, 0.5, 200.0)


def test_a_reload_loses_the_settings_and_the_next_apply_sets_them(bench: Bench) -> None:
    bench.apply(HALF)
    bench.node.reload_driver()
    bench.collector.read(0.0)  # UNINITIALIZED
    bench.collector.read(0.0)  # starts anew
    in_force = bench.device.in_force()
    assert set(in_force.clock_frac) == {None}
    assert set(in_force.cap_frac) == {1.0}
    in_force = bench.apply(HALF)
    assert set(in_force.clock_frac) == {705 / 1410}
    assert set(in_force.cap_frac) == {0.5}
    assert {gpu.lock_mhz for gpu in bench.node.gpus} == {705}


def test_a_hanging_gpu_does_not_keep_the_others_from_their_setpoint(bench: Bench) -> None:
    bench.device.in_force()
    bench.node.gpus[2].hang()
    in_force = bench.apply(T1)
    assert [n for n, outcome in enumerate(in_force.outcome) if outcome is not Outcome.OK] == [2]
    assert {gpu.lock_mhz for gpu in bench.node.gpus} == {0, 1275}
    bench.node.gpus[2].well()
    until(lambda: bench.apply(T1).outcome[2] is Outcome.OK)
    assert bench.node.gpus[2].lock_mhz == 1275


def test_a_gpu_that_hangs_at_the_start_is_learnt_later(gpus_here: FakeNode, tmp_path: Path) -> None:
    bench = Bench(gpus_here, tmp_path / "state")
    gpus_here.gpus[0].hang()
    in_force = bench.apply(HALF)
    assert (in_force.outcome[0], in_force.clock_frac[0], in_force.cap_frac[0]) == (Outcome.FAILED, None, None)
    gpus_here.gpus[0].well()
    until(lambda: bench.apply(HALF).outcome[0] is Outcome.OK)
    bench.device.release()
    assert {gpu.limit_w for gpu in gpus_here.gpus} == {400.0}
    bench.collector.close()


def test_a_handle_that_names_another_gpu_is_not_written(bench: Bench) -> None:
    first = bench.node.uuids[0]
    bench.device.in_force()
    bench.node.gpus[0].uuid = "GPU-another"
    bench.device.apply({first: T1})
    in_force = bench.device.in_force()
    assert in_force.outcome[0] is Outcome.FAILED
    assert "now names GPU-another: nothing was set" in in_force.detail[0]
    assert bench.node.gpus[0].writes == (0, 0, 0)


def test_a_setpoint_for_a_gpu_that_is_not_here_changes_nothing(bench: Bench) -> None:
    inits = bench.node.inits
    bench.device.apply({bench.node.uuids[0]: T1, "GPU-nobody": T1})
    in_force = bench.device.in_force()
    assert in_force.uuid == bench.node.uuids
    assert in_force.clock_frac[:2] == (1275 / 1410, None)
    assert bench.node.inits == inits


@pytest.mark.parametrize("options", [{}, {"state_dir": ""}, {"state_dir": 3}, {"state_dir": "state", "clock": 1}])
def test_bad_options_are_refused(bench: Bench, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="device nvml: "):
        NvmlDevice(options, bench.collector)


def test_a_collector_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it needs collector nvml, not Meter"):
        NvmlDevice({"state_dir": tmp_path}, Meter())
