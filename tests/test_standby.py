"""Who may lead a row: the contest over a store in memory, and a controller that waits."""

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from polcad.cli import exit_code
from polcad.controller import Controller
from polcad.errors import ConfigError, OutrankedError, StandDownError, UnavailableError
from polcad.model import FREE, EventKind, LeaseState, Obedience, Plan, RowStatus, Setpoint
from polcad.ports import Heard, Rival, Tick
from polcad.spec import FAIL_SAFE
from polcad.standby import LOOKS, Claim, Contest, Entry
from polcad.standby_spec import StandbySpec
from polcad.terminal import summary
from polcad.testing import ManualClock, telemetry
from tests.row_play import GUARD, T0, controller_of, events, plans, row_spec

ABSURD = int((T0 + 10 * 86_400) * 1e6)


@dataclass
class MemoryStore:
    """A store for contestants of one process; `away` is why it does not answer."""

    entry: Entry | None = None
    away: str = ""
    clock: ManualClock = field(default_factory=ManualClock)

    async def read(self) -> Entry | None:
        if self.away:
            raise UnavailableError(self.away)
        return self.entry

    async def write(self, claim: Claim, revision: int) -> int | None:
        if self.away:
            raise UnavailableError(self.away)
        if revision != (self.entry.revision if self.entry else 0):
            return None
        self.entry = Entry(claim, revision + 1)
        return revision + 1

    async def close(self) -> None:
        pass


def contestant(store: MemoryStore, host: str) -> Contest:
    return Contest(store, host, float(LOOKS), store.clock.now)


def looks(contest: Contest, times: int = 1, epoch: int | None = 100) -> None:
    store = contest._store
    assert isinstance(store, MemoryStore)
    for _ in range(times):
        asyncio.run(contest._turn(lambda: epoch))
        store.clock.advance(1.0)  # of LOOKS, the time to live


def won_by(host: str, store: MemoryStore, epoch: int = 100) -> Contest:
    contest = contestant(store, host)
    looks(contest, LOOKS + 1, epoch)
    assert contest.leads
    return contest


def test_a_lock_that_nobody_ever_held_is_taken_after_as_long_as_one_that_was_lost() -> None:
    contest = contestant(MemoryStore(), "a")
    looks(contest, LOOKS)
    assert not contest.leads
    looks(contest)
    assert contest.leads


def test_nobody_takes_the_lock_of_a_holder_that_keeps_it() -> None:
    store = MemoryStore()
    holder, waiter = won_by("a", store), contestant(store, "b")
    for _ in range(5 * LOOKS):
        looks(holder)
        looks(waiter)
    assert not waiter.leads
    assert waiter.leader == "a"


def test_the_lock_of_a_silent_holder_is_taken_with_a_greater_epoch_though_the_takers_clock_is_behind() -> None:
    store = MemoryStore()
    won_by("a", store, epoch=5000)
    taker = won_by("b", store, epoch=100)
    assert asyncio.run(taker.won()) == 5001


def test_a_lock_that_was_given_up_is_taken_at_once_and_hands_the_epoch_on() -> None:
    store = MemoryStore()
    asyncio.run(won_by("a", store, epoch=5000)._leave())
    taker = contestant(store, "b")
    looks(taker)
    assert asyncio.run(taker.won()) == 5001


def test_a_waiter_that_stood_still_for_long_waits_on_since_it_has_not_looked() -> None:
    store = MemoryStore()
    holder, waiter = won_by("a", store), contestant(store, "b")
    looks(waiter, LOOKS)
    looks(holder)  # the waiter stands still; it finds another revision when it goes on
    looks(waiter, LOOKS)
    assert not waiter.leads


def test_a_long_time_between_two_looks_counts_for_little_and_a_busy_machine_needs_fewer_looks() -> None:
    store = MemoryStore()
    won_by("a", store)
    waiter = contestant(store, "b")
    looks(waiter)
    for _ in range(3):
        store.clock.advance(1000.0)
        looks(waiter)
        assert not waiter.leads
    store.clock.advance(1000.0)
    looks(waiter)
    assert waiter.leads


def test_an_engine_that_comes_back_gives_its_holder_as_long_as_those_who_wait() -> None:
    store = MemoryStore()
    holder, waiter = won_by("a", store), contestant(store, "b")
    looks(waiter, LOOKS)
    store.away = "gone"
    looks(waiter, 3 * LOOKS)
    assert waiter.trouble == "gone"
    store.away = ""
    looks(waiter, LOOKS - 1)
    assert not waiter.leads
    looks(holder)
    looks(waiter, LOOKS)
    assert not waiter.leads


def test_an_engine_that_is_away_makes_nobody_a_leader_and_takes_no_row_away() -> None:
    store = MemoryStore()
    holder, waiter = won_by("a", store), contestant(store, "b")
    store.away = "gone"
    looks(holder, 3 * LOOKS)
    looks(waiter, 3 * LOOKS)
    assert holder.leads
    assert not waiter.leads


def test_who_could_not_lead_takes_no_lock_and_a_holder_that_cannot_lets_it_run_out() -> None:
    store = MemoryStore()
    deaf = contestant(store, "a")
    looks(deaf, 2 * LOOKS, None)
    assert not deaf.leads
    holder, waiter = won_by("b", store), contestant(store, "c")
    for _ in range(LOOKS + 1):
        looks(holder, epoch=None)
        looks(waiter)
    assert waiter.leads


def test_of_two_takers_one_wins() -> None:
    store = MemoryStore()
    won_by("a", store)
    takers = [contestant(store, name) for name in "bc"]
    for _ in range(2 * LOOKS):
        for taker in takers:
            looks(taker)
    assert [taker.leads for taker in takers] == [True, False]


def test_a_leader_whose_lock_another_took_and_gave_up_holds_it_again() -> None:
    store = MemoryStore()
    holder = won_by("a", store)
    asyncio.run(won_by("b", store)._leave())
    looks(holder)
    assert store.entry is not None
    assert store.entry.claim.host == "a"


def test_who_leaves_gives_up_its_own_lock_alone() -> None:
    store = MemoryStore()
    first = won_by("a", store)
    won_by("b", store)
    asyncio.run(first._leave())
    assert store.entry is not None
    assert store.entry.claim.host == "b"


class Deaf(MemoryStore):
    """A store whose client loses a cancellation, as `asyncio.wait_for` does before Python 3.12."""

    async def read(self) -> Entry | None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.0)
        return await super().read()


def test_a_cancellation_that_the_engines_client_loses_ends_the_contest_all_the_same() -> None:
    async def scenario() -> None:
        contest = Contest(Deaf(), "a", 0.01)
        running = asyncio.create_task(contest.run(lambda: 1))
        await asyncio.sleep(0.0)  # it asks the store
        running.cancel()
        async with asyncio.timeout(10.0):
            await asyncio.wait({running})
        assert running.cancelled()

    asyncio.run(scenario())


# --- the controller that waits --------------------------------------------------------------------------------------


def hear(controller: Controller, t: float, seq: int, setpoint: Setpoint, epoch: int = 7) -> None:
    for node in controller._row.nodes:
        said = telemetry(
            node.name, 300.0, gpus=2, seq=seq, setpoint=setpoint, plan=Obedience(epoch, seq, LeaseState.HELD)
        )
        assert controller.on(Heard(t, said, node.rack)) == []


def waiting() -> Controller:
    controller = controller_of(row_spec())
    controller.wait()
    return controller


def test_a_controller_that_waits_says_nothing_and_then_holds_what_nodes_report_after_it_leads() -> None:
    controller = waiting()
    for step in range(20):
        hear(controller, T0 + step, step + 1, FREE)
        assert controller.on(Tick(T0 + step)) == []
    controller.lead(8)
    assert plans(controller.on(Tick(T0 + 20.0))) == []
    hear(controller, T0 + 20.5, 30, FAIL_SAFE)  # they fell to it after they last spoke
    said = controller.on(Tick(T0 + 21.0))
    assert EventKind.RESUME in {event.kind for event in events(said)}
    (plan,) = plans(said)
    assert plan.epoch >= 8
    assert {rule.setpoint for rule in plan.rules} == {FAIL_SAFE}


def test_a_node_that_is_silent_already_is_not_waited_for() -> None:
    controller = waiting()
    hear(controller, T0, 1, FREE)
    nodes = controller._row.nodes
    seq, t = 1, T0
    while t < T0 + 2 * GUARD.stale_after_s:
        t, seq = t + 1.0, seq + 1
        for node in nodes[1:]:
            controller.on(Heard(t, telemetry(node.name, 300.0, gpus=2, seq=seq, setpoint=FREE), node.rack))
        controller.on(Tick(t))
    controller.lead(8)
    for node in nodes[1:]:
        controller.on(Heard(t + 0.5, telemetry(node.name, 300.0, gpus=2, seq=seq + 1, setpoint=FREE), node.rack))
    assert plans(controller.on(Tick(t + 1.0)))


def test_a_controller_that_waits_outranks_every_epoch_it_hears_of_but_an_absurd_one() -> None:
    controller = waiting()
    own = controller.epoch
    controller.on(Rival(T0, own + 500))
    controller.on(Rival(T0, own + 501))  # the same as its own by now: still to be outranked
    hear(controller, T0, 1, FREE, own + 600)
    controller.on(Rival(T0, ABSURD))
    assert controller.epoch == own + 601
    controller.lead(own)
    assert controller.epoch == own + 601


def test_a_lock_that_names_an_absurd_epoch_is_outranked_for_nodes_follow_the_greatest() -> None:
    controller = waiting()
    controller.lead(ABSURD)
    hear(controller, T0, 1, FREE)
    (plan,) = [each for each in controller.on(Tick(T0)) if isinstance(each, Plan)]
    assert plan.epoch == ABSURD


@pytest.mark.parametrize("program", ["daemon", "site"])
def test_systemd_starts_an_outranked_daemon_again_only_where_it_would_wait(program: str) -> None:
    unit = (Path(__file__).parents[1] / "systemd" / f"polcad-{program}.service").read_text().splitlines()
    stays_down = next(line for line in unit if line.startswith("RestartPreventExitStatus=")).partition("=")[2].split()
    assert "Restart=always" in unit
    assert "LoadCredential=polcad-nats-password" in unit
    assert str(exit_code(OutrankedError("x"))) in stays_down
    assert str(exit_code(StandDownError("x"))) not in stays_down


def test_the_status_names_the_host_that_leads_where_there_is_a_standby() -> None:
    told = StringIO()
    console = Console(width=120, file=told)
    for host in ("", "a-host"):
        console.print(summary(RowStatus("row", online=True, epoch=1, host=host), age_s=0.0))
    assert told.getvalue().count("led by") == 1
    assert "led by a-host" in told.getvalue()


# --- the settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("mqtt://host", "nats://host"),
        ("host:4222", "nats://host"),
        ("nats://host:70000", "servers"),
        ("nats://user:secret@host", "no user or password in the URL"),
        ("nats://host/path", "nats://host"),
    ],
)
def test_a_server_that_is_none_is_refused_without_showing_a_secret(server: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        StandbySpec(servers=("tls://good:4222", server))
    assert "secret" not in str(refused.value)


def test_a_password_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"standby\.password_file='/nowhere' cannot be read"):
        StandbySpec(password_file="/nowhere").check()  # noqa: S106  # a path
    assert StandbySpec().password(os.environ) is None
