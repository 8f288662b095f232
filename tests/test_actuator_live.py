"""Agent and actuator as processes over the driver's fake, under a real daemon and broker: each may die at any time."""

import getpass
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polcad.model import Hold, LeaseState, Outcome, Setpoint, Telemetry
from polcad.testing_brokers import Broker
from polcad.wire import Address, encode
from tests.fake_nvml.control import FakeNvml
from tests.live_row import FAIL_SAFE, FREE_MHZ, LOW_T1, POLCAD, LiveRow, Program, Watch, clock_mhz
from tests.waiting import until

pytestmark = pytest.mark.integration
LOWEST_MHZ = 705


class SplitRow(LiveRow):
    """A live row whose node n2 has an actuator. Root must own the bounds, so these tests are run by root."""

    def write_config(self, **guard: object) -> None:
        super().write_config(**guard)
        self.bounds.write_text(f"lowest_clock_frac = {LOWEST_MHZ / FREE_MHZ}\nlowest_cap_frac = 0.5\n")
        drop_ins = self.folder / "n2.d"
        drop_ins.mkdir(exist_ok=True)
        (drop_ins / "actuator.toml").write_text(
            f'[actuator]\nsocket = "{self.folder}/n2.sock"\nuser = "{getpass.getuser()}"\nbounds = "{self.bounds}"\n'
            f'state_dir = "{self.folder}/actuator-n2"\n'
        )

    @property
    def bounds(self) -> Path:
        return self.folder / "bounds.toml"

    def actuator(self) -> Program:
        return self.start("actuator", "n2", self._nodes["n2"].env)

    def release(self) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [POLCAD, "actuator", "--release", "-c", self.folder / "n2.toml"]
        seen = {**os.environ, **self._nodes["n2"].env}
        return subprocess.run(command, env=seen, capture_output=True, text=True, check=False)

    def said(self, holds: Callable[[Telemetry], bool]) -> Telemetry:
        """What n2 says as soon as it is so."""
        heard: list[Telemetry] = []

        def look() -> bool:
            told = self.tap.telemetry("n2")
            heard[:] = [told] if told and holds(told) else []
            return bool(heard)

        until(look, 20.0)
        return heard[0]

    def outcomes(self) -> set[Outcome]:
        told = self.tap.telemetry("n2")
        return set(told.in_force.outcome) if told and told.in_force else set()

    def until_n2(self, mhz: int) -> None:
        until(lambda: self.clocks()["n2"] == {mhz}, 20.0)


@pytest.fixture
def row(
    tmp_path: Path, any_broker: Broker, fake_nvml_nodes: Callable[..., FakeNvml]
) -> Iterator[tuple[SplitRow, Program, dict[str, Program], Program]]:
    """The row at T1, with its actuator, agents and daemon."""
    assert os.getuid() == 0, "run this as root: the bounds of an actuator must belong to root"
    with SplitRow(tmp_path, any_broker, fake_nvml_nodes) as live:
        actuator = live.actuator()
        agents, daemon = live.start_all()
        live.load(0.8)
        live.until_clocks(FREE_MHZ, LOW_T1)
        yield live, actuator, agents, daemon


Parts = tuple[SplitRow, Program, dict[str, Program], Program]


def test_a_dead_agent_leaves_no_gpu_unguarded_and_a_new_one_goes_on_from_what_holds(row: Parts) -> None:
    live, _, agents, _ = row
    with Watch(live.boards["n2"].gpus) as watch:
        agents["n2"].kill()
        live.until_n2(FAIL_SAFE)
        until(lambda: len(watch.steps) >= 2)
        assert watch.loosened() == []
    live.agent("n2")
    live.until_n2(LOW_T1)
    assert live.said(lambda told: bool(told.plan and told.plan.lease is LeaseState.HELD)).in_force is not None


def test_a_dead_actuator_is_told_and_a_new_one_is_never_looser_and_follows_again(row: Parts) -> None:
    live, actuator, _, _ = row
    with Watch(live.boards["n2"].gpus) as watch:
        actuator.kill()
        told = live.said(lambda told: bool(told.in_force and set(told.in_force.outcome) == {Outcome.FAILED}))
        assert told.plan is None
        assert told.in_force is not None
        assert "is polcad-actuator running?" in told.in_force.detail[0]
        assert all(power_w is not None for power_w in told.reading.gpus.power_w)
        live.actuator()
        live.said(lambda told: bool(told.plan and told.plan.lease is LeaseState.HELD))
        live.until_n2(LOW_T1)
    assert all(step.after <= LOW_T1 for step in watch.steps)


def test_an_actuator_that_stands_still_does_not_silence_the_agent_and_goes_on_when_it_moves(row: Parts) -> None:
    live, actuator, _, _ = row
    actuator.process.send_signal(signal.SIGSTOP)
    try:
        told = live.said(lambda told: bool(told.in_force and set(told.in_force.outcome) == {Outcome.FAILED}))
        assert told.in_force is not None
        assert "no answer within" in told.in_force.detail[0]
    finally:
        actuator.process.send_signal(signal.SIGCONT)
    live.said(lambda told: bool(told.plan and told.plan.lease is LeaseState.HELD))
    live.until_n2(LOW_T1)


def test_a_board_whose_driver_call_hangs_is_told_and_the_other_follows(row: Parts) -> None:
    live, _, agents, _ = row
    live.boards["n2"].gpus[0].hang()
    until(lambda: live.outcomes() == {Outcome.OK, Outcome.FAILED}, 20.0)
    agents["n2"].kill()
    until(lambda: clock_mhz(live.boards["n2"].gpus[1]) == FAIL_SAFE, 20.0)
    live.boards["n2"].gpus[0].well()
    live.until_n2(FAIL_SAFE)


def test_agent_and_actuator_started_anew_in_silence_are_at_the_fail_safe(row: Parts) -> None:
    live, actuator, agents, daemon = row
    daemon.kill()
    live.until_n2(FAIL_SAFE)
    with Watch(live.boards["n2"].gpus) as watch:
        agents["n2"].kill()
        assert actuator.stop() == 0
        live.actuator()
        live.agent("n2")
        live.said(lambda told: bool(told.plan and told.plan.lease is LeaseState.EXPIRED and told.seq > 1))
    assert watch.steps == []


def test_no_plan_goes_below_the_bounds_of_the_node_and_release_gives_all_back(row: Parts) -> None:
    live, actuator, agents, _ = row
    hold = Hold("low", "node/n2", Setpoint(0.01, 0.01), time.time() + 60.0)
    live.tap.send(encode(Address("site", "row", "hold", hold="low"), hold))
    until(lambda: live.outcomes() == {Outcome.CLAMPED}, 20.0)
    assert {(gpu.lock_mhz, gpu.limit_w) for gpu in live.boards["n2"].gpus} == {(LOWEST_MHZ, 200.0)}
    live.bounds.write_text("lowest_clok_frac = 0.5\n")
    actuator.process.send_signal(signal.SIGHUP)
    until(lambda: "the configuration stays as it was" in actuator.log.read_text(), 20.0)
    live.bounds.write_text(f"lowest_clock_frac = {LOW_T1 / FREE_MHZ}\n")
    actuator.process.send_signal(signal.SIGHUP)
    live.until_n2(LOW_T1)
    agents["n2"].stop()
    early = live.release()
    assert (early.returncode, "another agent or actuator sets these GPUs" in early.stderr) == (69, True)
    actuator.stop()
    assert live.release().stdout.count("as found") == 2
    assert {(gpu.lock_mhz, gpu.limit_w) for gpu in live.boards["n2"].gpus} == {(0, 400.0)}


def test_an_actuator_that_may_not_trust_its_bounds_does_not_start(row: Parts) -> None:
    live, actuator, _, _ = row
    actuator.stop()
    live.bounds.chmod(0o666)
    refused = live.actuator()
    assert refused.process.wait(10.0) == 78
    assert "others may write it" in refused.log.read_text()
