"""The actuator, in this process over GPUs that exist only here, on a real Unix socket."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from polcad.actuator import _PERIOD_S, Actuator, believer, listening_at, users_of
from polcad.actuator_client import ActuatorClient
from polcad.actuator_wire import ANSWERS, MAX_FRAME_BYTES, Answer, Request, framed, receive
from polcad.agent import Agent, unknown
from polcad.alone import alone
from polcad.broker_spec import BrokerSpec
from polcad.config import ActuatorSpec, AgentSpec, Config
from polcad.devices.bounded import BoundedDevice, Bounds, read_bounds
from polcad.errors import ConfigError, DeviceError, UnavailableError, WireError
from polcad.follower import Follower, Memory, build_collector, build_device, rest
from polcad.model import (
    InForce,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Placement,
    Plan,
    Priority,
    Rule,
    Setpoint,
    Why,
)
from polcad.pki import make_plan_key
from polcad.ports import Collector, Device
from polcad.signing import SigningSpec
from polcad.testing_brokers import free_port
from polcad.wire import Address, encode
from tests.waiting import eventually

LOW, SAFE = Setpoint(0.8), Setpoint(0.7)
PLAN = Plan("row", 5, 1, 0.0, 60.0, SAFE, (Rule("row", LOW, Why.T1, Priority.LOW),))
ME = frozenset({os.getuid()})
NO_BOUNDS = Bounds()


class Hands:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.t = 1000.0

    def __call__(self) -> float:
        return self.t


class SlowBoard:
    """A device that answers only while it may."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.answers = threading.Event()
        self.answers.set()
        self.fails = 0  # so many times

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        if self.fails:
            self.fails -= 1
            raise DeviceError("the driver is away")
        self._device.apply(wanted)

    def in_force(self) -> InForce:
        assert self.answers.wait(10.0)
        return self._device.in_force()


@dataclass
class Node:
    """One actuator, its GPUs and its clock, and a client that may be asked."""

    folder: Path
    follower: Follower
    gpus: Collector
    board: SlowBoard
    clock: Hands
    client: ActuatorClient

    @property
    def socket(self) -> Path:
        return self.folder / "a.sock"

    def clocks(self) -> set[float]:
        return {round(each.clock_frac, 1) for each in self.gpus.in_force.values()}  # type: ignore[attr-defined]


def spec_of(folder: Path) -> AgentSpec:
    return AgentSpec(
        node="n1",
        state_dir=str(folder),
        collector="synthetic",
        collector_options={"gpus": 2, "noise_frac": 0.0},
        device="synthetic",
        period_s=0.05,
    )


@asynccontextmanager
async def actuator(
    folder: Path,
    users: frozenset[int] = ME,
    bounds: Bounds = NO_BOUNDS,
    clock: Hands | None = None,
    believe: Callable[[bytes], Plan] | None = None,
    fails: int = 0,
) -> AsyncIterator[Node]:
    """A running actuator."""
    spec, clock = spec_of(folder), clock or Hands()
    gpus = build_collector(spec)
    board = SlowBoard(build_device(spec, gpus))
    board.fails = fails
    follower = Follower(spec, BoundedDevice(board, bounds), clock)
    client = ActuatorClient(str(folder / "a.sock"), 5.0, clock)
    with listening_at(folder / "a.sock") as listening:
        running = asyncio.create_task(Actuator(follower, users, clock, believe).run(listening))
        try:
            yield Node(folder, follower, gpus, board, clock, client)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await client.close()


def settled_clocks(force: InForce) -> set[float | None]:
    return {clock and round(clock, 1) for clock in force.clock_frac}


def test_a_lease_that_ended_while_gpus_were_set_is_not_waited_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            assert node.follower.remaining_s() <= 0.0
            async with asyncio.timeout(10.0):
                await rest(node.follower, 3600.0, Obedience(lease=LeaseState.HELD))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await rest(node.follower, 3600.0, Obedience(lease=LeaseState.EXPIRED))

    asyncio.run(scenario())


def test_a_plan_handed_over_is_set_and_told_with_the_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            await node.client.offer(PLAN, node.clock.t)
            assert node.client.wake.is_set()
            followed = await node.client.settle()
            assert settled_clocks(followed.in_force) == {0.8}
            assert followed.obedience is not None
            assert (followed.obedience.epoch, followed.obedience.lease) == (5, LeaseState.HELD)
            assert node.client.remaining_s() == 60.0
            await node.client.place(NodePlacement("n1"))
            await node.client.offer(replace(PLAN, seq=2), node.clock.t)
            assert not node.client.wake.is_set()  # the same again is no reason to touch a GPU

    asyncio.run(scenario())


def test_a_plan_that_waited_at_the_agent_has_a_shorter_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            await node.client.offer(PLAN, node.clock.t - 50.0)
            assert node.client.remaining_s() == pytest.approx(10.0)
            await node.client.offer(replace(PLAN, seq=2), node.clock.t + 50.0)
            assert node.client.remaining_s() == pytest.approx(60.0)  # a clock that lies lengthens nothing

    asyncio.run(scenario())


def test_a_plan_that_waits_behind_a_slow_board_has_a_shorter_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            node.board.answers.clear()
            settling = asyncio.create_task(node.client.settle())
            await eventually(node.client._turn.locked)
            offering = asyncio.create_task(node.client.offer(PLAN, node.clock.t))
            await asyncio.sleep(0)  # it waits for its turn
            node.clock.t += 50.0
            node.board.answers.set()
            await asyncio.gather(settling, offering)
            assert node.follower.remaining_s() == pytest.approx(10.0)

    asyncio.run(scenario())


def test_when_the_agent_is_gone_the_fail_safe_comes_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            await node.client.offer(replace(PLAN, lease_s=0.1), node.clock.t)
            await eventually(lambda: node.clocks() == {0.8})
            await node.client.close()
            node.clock.t += 0.2
            await eventually(lambda: node.clocks() == {0.7})

    asyncio.run(scenario())


def test_an_actuator_that_starts_in_silence_takes_the_fail_safe_of_the_plan_it_kept(tmp_path: Path) -> None:
    Memory(spec_of(tmp_path).plan_path).keep(replace(PLAN, rules=()))

    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            await eventually(lambda: node.clocks() == {0.7})

    asyncio.run(scenario())


def test_an_actuator_whose_driver_was_away_sets_its_gpus_soon_after_though_nobody_asks(tmp_path: Path) -> None:
    Memory(spec_of(tmp_path).plan_path).keep(replace(PLAN, rules=()))

    async def scenario() -> None:
        async with actuator(tmp_path, fails=1) as node:
            await eventually(lambda: node.clocks() == {0.7}, _PERIOD_S / 2)  # sooner than the usual pace

    asyncio.run(scenario())


def test_an_older_plan_is_refused_with_the_reason_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            await node.client.offer(PLAN, node.clock.t)
            with pytest.raises(WireError, match="not newer"):
                await node.client.offer(replace(PLAN, epoch=4), node.clock.t)
            followed = await node.client.settle()
            assert followed.obedience is not None
            assert followed.obedience.refused == 1

    asyncio.run(scenario())


def test_an_actuator_that_is_new_learns_the_placement_with_the_next_plan(tmp_path: Path) -> None:
    high = NodePlacement("n1", Placement(Priority.HIGH))

    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            client = node.client
            await client.place(high)
        with pytest.raises(UnavailableError, match=r"a\.sock.*is polcad-actuator running"):
            await client.settle()
        async with actuator(tmp_path) as node:
            await client.offer(PLAN, node.clock.t)
            assert settled_clocks((await client.settle()).in_force) == {1.0}
            await client.close()

    asyncio.run(scenario())


def test_a_stranger_is_told_so_and_hung_up_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path, users=frozenset({os.getuid() + 1})) as node:
            with pytest.raises((WireError, UnavailableError), match=r"may not speak|actuator"):
                await node.client.offer(PLAN, node.clock.t)
            reader, writer = await asyncio.open_unix_connection(node.socket)
            assert f"user {os.getuid()} may not speak" in (await receive(reader, ANSWERS)).refusal
            assert await reader.read() == b""
            writer.close()
            obedience = (await node.follower.settle()).obedience
            assert obedience is not None
            assert obedience.lease is LeaseState.NONE

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\xff\xff\xff\xff", "bytes are more than"),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "bytes are more than"),
        (b"\0\0\0\1{", "not a Request"),
        (b"\0\0\0\x10" + b'{"heard_s":-1.0}', "heard_s"),
        (b"\0\0\0\x10" + b'{"settle": "no"}', "settle"),
    ],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(tmp_path: Path, sent: bytes, said: str) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            reader, writer = await asyncio.open_unix_connection(node.socket)
            writer.write(sent)
            assert said in (await receive(reader, ANSWERS)).refusal
            assert await reader.read() == b""
            writer.close()
            await node.client.offer(PLAN, node.clock.t)

    asyncio.run(scenario())


def test_connections_are_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with actuator(tmp_path) as node:
            open_ones = [await asyncio.open_unix_connection(node.socket) for _ in range(8)]
            for reader, writer in open_ones:
                writer.write(framed(Request()))
                assert (await receive(reader, ANSWERS)).refusal == ""
            reader, ninth = await asyncio.open_unix_connection(node.socket)
            assert "connections are open" in (await receive(reader, ANSWERS)).refusal
            for writer in (ninth, *(writer for _, writer in open_ones)):
                writer.close()

    asyncio.run(scenario())


def test_an_answer_that_does_not_come_in_time_is_an_error_and_the_next_question_is_asked_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        asked, ended = [], []

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.read(4096))
            if len(asked) > 1:
                writer.write(framed(Answer(in_force=InForce())))
            await reader.read()
            writer.close()
            ended.append(writer)

        async with await asyncio.start_unix_server(slow, tmp_path / "a.sock"):
            client = ActuatorClient(str(tmp_path / "a.sock"), 0.1)
            with pytest.raises(UnavailableError, match=r"no answer within 0\.1 s"):
                await client.settle()
            assert (await client.settle()).in_force == InForce()
            await client.close()
            await eventually(lambda: len(ended) == 2)

    asyncio.run(scenario())


def test_an_agent_whose_actuator_is_gone_goes_on_telling(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    agent = Agent(
        spec,
        "site",
        BrokerSpec(port=free_port()),
        build_collector(spec),
        ActuatorClient(str(tmp_path / "no.sock"), 1.0),
    )

    async def scenario() -> None:
        running = asyncio.create_task(agent.run())
        await eventually(lambda: agent._seq > 2)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(scenario())


def test_what_nobody_can_tell_is_a_failure_of_every_gpu() -> None:
    told = unknown(("a", "b"), "x" * 600)
    assert told.outcome == (Outcome.FAILED, Outcome.FAILED)
    assert told.clock_frac == (None, None)
    assert {len(detail) for detail in told.detail} == {512}


# --- bounds -----------------------------------------------------------------------------------------------------------


def bounds_file(folder: Path) -> Path:
    path = folder / "bounds.toml"
    path.write_text("lowest_clock_frac = 0.5\nlowest_cap_frac = 0.6\n")
    path.chmod(0o644)
    folder.chmod(0o755)
    return path


def test_a_plan_below_the_bounds_is_raised_to_them_and_told_as_clamped(tmp_path: Path) -> None:
    deep = replace(PLAN, rules=(Rule("row", Setpoint(0.1, 0.1), Why.BRAKE),))

    async def scenario() -> None:
        async with actuator(tmp_path, bounds=Bounds(0.5, 0.6)) as node:
            await node.client.offer(deep, node.clock.t)
            force = (await node.client.settle()).in_force
            assert set(force.outcome) == {Outcome.CLAMPED}
            assert "below this node's bounds 0.5, 0.6" in force.detail[0]
            assert settled_clocks(force) == {0.5}
            await node.client.offer(replace(PLAN, seq=2), node.clock.t)
            assert set((await node.client.settle()).in_force.outcome) == {Outcome.OK}

    asyncio.run(scenario())


def test_bounds_are_read_from_a_file_that_nobody_else_may_write(tmp_path: Path) -> None:
    assert read_bounds(bounds_file(tmp_path), os.getuid()) == Bounds(0.5, 0.6)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o664), "others may write"),
        (lambda path: path.parent.chmod(0o777), "others may write"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.rename(path.with_name("b")).parent.joinpath("bounds.toml").symlink_to("b"), "is a link"),
        (lambda path: path.write_text("lowest_clock_frac = 1.5"), "lowest_clock_frac"),
        (lambda path: path.write_text("lowest_clock = 0.5"), "lowest_clock"),
        (lambda path: path.write_text("]"), "bounds.toml"),
        (lambda path: path.write_bytes(b"\xff"), "bounds.toml"),
    ],
)
def test_bounds_that_cannot_be_trusted_stop_the_start(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    path = bounds_file(tmp_path)
    spoil(path)
    with pytest.raises(ConfigError, match=said):
        read_bounds(path, os.getuid())


def test_bounds_of_another_owner_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"belongs to user {os.getuid()}: chown"):
        read_bounds(bounds_file(tmp_path), os.getuid() + 1)


# --- one of it, and who may speak -------------------------------------------------------------------------------------


def test_a_second_actuator_over_the_same_state_does_not_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        alone(state),
        pytest.raises(UnavailableError, match="another agent or actuator"),
        alone(state),
    ):
        raise AssertionError
    with alone(state):
        pass


def test_a_socket_left_by_a_crash_is_replaced_and_only_owner_and_group_may_use_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening_at(path):
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()
    with pytest.raises(ConfigError, match=r"actuator\.socket"), listening_at(tmp_path / "no" / "a.sock"):
        raise AssertionError


def test_root_and_the_named_user_may_speak() -> None:
    assert users_of(ActuatorSpec(user="daemon")) == {0, 1}
    with pytest.raises(ConfigError, match="no such user"):
        users_of(ActuatorSpec(user="nobody-here"))


def test_where_plans_are_signed_a_stolen_agent_can_hand_over_nothing_of_its_own(tmp_path: Path) -> None:
    private, public = make_plan_key(tmp_path / "pki", "row")
    config = Config(agent=spec_of(tmp_path), signing=SigningSpec(str(private), str(public)))
    signer, believe = config.signing.signer(), believer(config)
    assert signer is not None
    now = replace(PLAN, t=time.time())
    signed = signer.signed(encode(Address("site", "row", "plan"), now)).payload

    async def scenario() -> None:
        async with actuator(tmp_path, believe=believe) as node:
            forged = signed.replace(b'"seq":1', b'"seq":7')
            old = signer.signed(encode(Address("site", "row", "plan"), replace(PLAN, t=time.time() - 999.0))).payload
            for payload, reason in (
                (b"", "do not agree whether plans are signed"),
                (forged, "no key that is trusted"),
                (old, "replayed, or a clock is wrong"),
            ):
                with pytest.raises(WireError, match=reason):
                    await node.client.offer(replace(now, seq=7), node.clock.t, payload)
            assert node.client.remaining_s() == 0.0
            await node.client.offer(now, node.clock.t, signed)
            await eventually(lambda: node.clocks() == {0.8})
            assert node.client.remaining_s() == 60.0

    asyncio.run(scenario())


def test_without_keys_an_actuator_takes_plans_as_they_are() -> None:
    assert believer(Config()) is None
