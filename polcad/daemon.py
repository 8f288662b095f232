"""The daemon of one row: MQTT and time on one side, the controller on the other.

It ticks only while the broker is there: what it cannot hear it must not judge, and what it cannot say protects nobody;
the nodes' leases do that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from random import Random

from polcad import plugins, service
from polcad.backlog import Received
from polcad.broker_spec import BrokerSpec
from polcad.candidacy import contest_for, standing_down
from polcad.clock import SteadyClock
from polcad.complaints import Complaints
from polcad.config import Config, SiteSpec
from polcad.controller import Controller
from polcad.drive import drive
from polcad.errors import WireError
from polcad.garbage import little_to_collect
from polcad.hinting import Hinting, clock_under, hinting
from polcad.hints import TakenBack
from polcad.model import Budgets, Event, EventKind, Hint, Hold, Plan, PoolLoad, RowStatus, Telemetry
from polcad.mqtt import Link, Presence
from polcad.outlook import Foresight
from polcad.placings import Placings
from polcad.points import Points
from polcad.ports import Closable, Granted, Heard, Held, Input, Output, Placed, Policy, Rival, Sink, SinkSettings, Tick
from polcad.rank import epoch_at
from polcad.reaction import Reactions
from polcad.retiming import retimed
from polcad.school_process import ProcessSchool
from polcad.signing import Signer, Trust
from polcad.spec import GuardSpec, RowSpec
from polcad.standby import Contest, lock_of
from polcad.telling import Outlets, Telling
from polcad.web.board import Board
from polcad.web.metrics import Metrics
from polcad.web.server import serve
from polcad.wire import OF_POOLS, Address, Message, decode, encode, everywhere, forget

_LOG = logging.getLogger(__name__)
_LIVE_FOR_S = 10.0  # after its last word a daemon counts as gone
_LONGEST_TURN_S = 5.0  # of the loop, while the broker is gone: the service manager hears that often that it turns
_FLUSH_S = 0.005  # the longest that a plan keeps the next event waiting: a broker that takes none must not
_HEARD_BEFORE_PLACING_S = 1.0  # retained placements of a scheduler come first


class Daemon:
    """One row. `board` takes what the live page shows."""

    def __init__(  # noqa: PLR0913  # each is another part of the configuration
        self,
        site: SiteSpec,
        row: RowSpec,
        guard: GuardSpec,
        policy: Policy,
        broker: BrokerSpec,
        *,
        foresight: Foresight | None = None,
        hinting: Hinting | None = None,
        signer: Signer | None = None,
        trust: Trust | None = None,
        outlets: Outlets | None = None,
        shadow: bool = False,
        contest: Contest | None = None,
    ) -> None:
        self._clock = SteadyClock()
        self._row, self._guard = row, guard
        epoch = epoch_at(self._clock.now())
        self.controller = Controller(row, guard, policy, epoch, foresight=foresight, shadow=shadow)
        self._contest = contest
        if contest is not None:
            self.controller.wait()
        self._policy_name = plugins.name_of("polcad.policies", policy)
        self.reactions = Reactions()
        self.board = Board(site.name)
        outlets = outlets or Outlets()
        points = Points(site.name, row.name, shadow=shadow, told=self._clock.told)
        metrics = Metrics(row.name, outlets.window_s, self._clock.told)
        self.telling = Telling(points, metrics, outlets.sinks, self._clock.now, self.hints, contest)
        self._lag_s = 0.0  # of the last tick
        self._said: list[Output] = []  # by the controller, to the last event
        self._decide_s = 0.0  # that it took
        self._to = {kind: Address(site.name, row.name, kind) for kind in ("plan", "daemon", "event")}
        self._site = site.name
        self._placings = Placings(site.name, row)
        self._shadow, self._signer, self._trust = shadow, signer, trust
        self._hinting = None if shadow else hinting
        self._live_t = float("-inf")  # when a daemon that is no shadow last spoke for this row
        self._up_t: float | None = None
        self._complaints = Complaints(_LOG)
        gone = encode(self._to["daemon"], RowStatus(row.name, online=False, epoch=epoch))
        heard = ["telemetry", "placement", "hold", "daemon", *(("load", "hint") if self._hinting else ())]
        heard += ["budgets"] if row.fail_safe_budget_w is not None else []
        self._broker = broker
        self._presence = Presence(
            client_id=f"polcad-daemon-{row.name}-{uuid.uuid4().hex[:16]}",  # who guessed it could cut the daemon off
            subscriptions=tuple(everywhere(site.name, row.name, kind) for kind in heard),
            farewell=() if shadow else (gone,),
            will=None if shadow else gone,
        )
        self._link = self._linked(self._presence)

    def _linked(self, presence: Presence) -> Link:
        rng = Random()  # noqa: S311  # spreads retries
        return Link(self._broker, presence, self._clock.now, rng, on_change=self._note_link)

    async def run(self) -> None:
        """Until cancelled; OutrankedError when a newer daemon takes the row."""
        async with asyncio.TaskGroup() as tasks:
            if self._contest is not None:
                contest = tasks.create_task(self._contest.run(self._bid), name="lock")
                await self._wait(self._contest)
            link = tasks.create_task(self._link.run(), name="mqtt")
            hints = tasks.create_task(self._hint(), name="hints")
            await drive(self._events(), self, self)
            link.cancel()
            hints.cancel()
            if self._contest is not None:
                contest.cancel()

    def _bid(self) -> int | None:
        """The epoch that this daemon has, or would take; None while it can neither hear nor say anything."""
        return None if self._up_t is None else self.controller.epoch

    async def _wait(self, contest: Contest) -> None:
        """Hear the row that another daemon leads, and say nothing, not even a last will, until it is ours to lead."""
        self._link = self._linked(replace(self._presence, farewell=(), will=None))
        epoch = await contest.won_while(self._link.run(), drive(self._events(), self, self))
        self._link = self._linked(self._presence)
        self.controller.lead(epoch)
        await self.apply(Event(self._clock.now(), EventKind.TAKEOVER, "row", f"{contest.host} leads from now on"))

    def on(self, event: Input) -> list[Output]:
        """Let the controller decide."""
        start_s = time.perf_counter()
        self._said = self.controller.on(event)
        self._decide_s = time.perf_counter() - start_s
        return self._said

    def note(self, event: Input) -> None:
        """Watch how long it takes to come true, and tell of it: both once the plan that answers is on its way."""
        self.reactions.watch(event, self._said, self.controller.loose)
        if isinstance(event, Tick):
            self._show(event.t)
        elif isinstance(event, Heard):
            self._tell(event)

    def _tell(self, heard: Heard) -> None:
        """Tell a node's message, unless the row's own daemon does, or it is of more made-up nodes than are taken in."""
        node = heard.telemetry.node
        if self.controller.knows(node) and not self._overshadowed(heard.t):
            self.telling.heard(heard, self._placings.of(node))

    async def apply(self, output: Output) -> None:
        """Send a plan or an event."""
        self.telling.said(output)
        said = retimed(output, self._clock.told)
        if isinstance(said, Plan):
            self._link.send(self._on_the_wire(said))
            await self._link.flush(_FLUSH_S)
            return
        if not self._overshadowed(output.t):
            self._link.send(encode(self._to["event"], said))
        self.board.put_event(said)
        _LOG.info("%s", said)

    def _on_the_wire(self, plan: Plan) -> Message:
        """The plan, signed where that is asked for; nodes judge by its time how old a signed one is."""
        message = encode(self._to["plan"], plan)
        return message if self._signer is None else self._signer.signed(message)

    def status(self) -> RowStatus:
        """The row now, with what the link and the loop add to what the controller knows."""
        status = self.controller.status(self._clock.now())
        dropped = self._link.counters
        counters = {
            **status.counters,
            "refused_messages": self._complaints.total,
            "dropped_in": dropped.dropped_in,
            "dropped_out": dropped.dropped_out,
            "oversized": dropped.oversized,
            "reconnects": dropped.reconnects,
        }
        reaction_s = self.reactions.quantile_s(0.99)
        host = self._contest.host if self._contest else ""
        return replace(status, host=host, policy=self._policy_name, counters=counters, reaction_p99_s=reaction_s)

    def hints(self) -> tuple[Hint, ...]:
        """The hints of this daemon that hold now."""
        return self._hinting.desk.standing(self._clock.now()) if self._hinting else ()

    async def _hint(self) -> None:
        """Say how pools should be shaped, each period, while the broker is there."""
        if self._hinting is None:
            return
        while True:
            await self._link.wait_connected()
            t = self._clock.now()
            cap_clock_frac = clock_under(self.controller.strictest)
            clocks_frac = self.controller.pool_clocks_frac()
            for said in await self._hinting.step(t, self._row.budget_w, cap_clock_frac, clocks_frac):
                await (self.apply(said) if isinstance(said, Event) else self._keep_hint(said))
            await self._clock.sleep_until(t + self._hinting.period_s)

    async def _keep_hint(self, said: Hint | TakenBack) -> None:
        address = Address(self._site, "", "hint", pool=said.pool)
        if isinstance(said, Hint):
            self._link.send(encode(address, retimed(said, self._clock.told)))
        else:
            self._link.send(forget(address))

    def _show(self, t: float) -> None:
        status, nodes = self.status(), self.controller.nodes()
        said = retimed(status, self._clock.told)
        if self.controller.waits:  # of the row its leader tells
            self.board.put_nodes(said.t, nodes)
            return
        if not self._overshadowed(t):
            self._link.send(encode(self._to["daemon"], said))
        self.board.put_status(said)
        self.board.put_nodes(said.t, nodes)
        self.telling.ticked(status, nodes, self.reactions, self._lag_s, self._decide_s)

    def _overshadowed(self, t: float) -> bool:
        """Whether another daemon tells of the row: this one waits, or is a shadow, which says its plans alone."""
        return self.controller.waits or (self._shadow and t - self._live_t < _LIVE_FOR_S)

    def _note_link(self, up: bool) -> None:
        self._up_t = self._clock.now() if up else None
        self.telling.connected = up
        if up and self._hinting:
            self._hinting.desk.begin(self._clock.now())
        if not up:  # a broker that comes back may have kept nothing
            self._placings.forget()

    async def _events(self) -> AsyncIterator[Input]:
        """What arrives, as it arrives, and a tick each `tick_s` while the broker is there."""
        batches = aiter(self._link.batches())
        arriving = asyncio.ensure_future(anext(batches, None))
        next_t = self._clock.now()
        try:
            while True:
                if self._up_t is None:
                    self._turn("the broker is not reached")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LONGEST_TURN_S):
                            await self._link.wait_connected()
                    next_t = self._clock.now()
                    continue
                await asyncio.wait({arriving}, timeout=max(0.0, next_t - self._clock.now()))
                if arriving.done():
                    batch = arriving.result()
                    if batch is None:
                        return
                    for event in self._understood(batch):
                        yield event
                        self.note(event)
                    arriving = asyncio.ensure_future(anext(batches, None))
                now = self._clock.now()
                if now >= next_t:
                    self._lag_s, next_t = now - next_t, max(next_t + self._guard.tick_s, now)
                    self._place_listed(now)
                    tick = Tick(now)
                    yield tick
                    self.note(tick)
                    self._turn(self._stand)
        finally:
            arriving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await arriving

    @property
    def _stand(self) -> str:
        if self._contest is not None and self.controller.waits:
            return f"waits; {self._contest.leader or 'nobody'} leads"
        return f"plan {self.controller.epoch}/{self.controller.seq}"

    def _turn(self, status: str) -> None:
        """Tell those who watch that the loop turns."""
        service.alive(f"row {self._row.name}: {status}")
        self.telling.pulse.beat()

    def _understood(self, batch: list[Received]) -> Iterator[Input]:
        for received in batch:
            try:
                event = self._event(received)
            except WireError as error:
                self._complaints.add(received.message.topic, str(error), received.t)
            else:
                if event is not None:
                    yield event

    def _event(self, received: Received) -> Input | None:
        """What a message means to the controller; None when nothing."""
        t, waits = received.t, self.controller.waits
        address, noun = decode(received.message)
        if isinstance(noun, Telemetry):
            if received.message.retain:
                raise WireError(f"{address.topic}: telemetry is never retained; somebody planted this one")
            return Heard(t, noun, address.rack)
        if address.kind == "hold":
            return self._held(t, address.hold, noun)
        if isinstance(noun, Budgets):
            return self._granted(received, noun)
        if address.kind == "placement":
            return Placed(t, self._placings.take(address.node, noun))
        if self._hinting and address.kind in OF_POOLS:
            kept = retimed(noun, self._clock.own) if isinstance(noun, Hint) else noun
            self._hinting.take(received, address, kept)  # the row's safety has nothing to do with it
            if isinstance(noun, PoolLoad) and not self.controller.waits:
                self.telling.heard_load(t, noun)
        elif isinstance(noun, RowStatus) and not noun.shadow and (waits or noun.epoch != self.controller.epoch):
            if waits:
                self.board.put_status(noun)
            self._live_t = t if noun.online else float("-inf")
            return Rival(t, noun.epoch) if noun.online or not self.controller.begun else None
        return None

    def _held(self, t: float, name: str, said: Hold | None) -> Held:
        """An operator's hold; one that was taken back is over."""
        if said is None:
            return Held(t, name)
        return Held(t, name, said.scope, said.setpoint, self._clock.own(said.until_t))

    def _granted(self, received: Received, budgets: Budgets) -> Granted:
        """The site's word; WireError where it is kept from before, or by nobody who is trusted."""
        topic = received.message.topic
        if received.message.retain:
            raise WireError(f"{topic}: budgets are never retained; somebody planted these")
        if self._trust is not None:
            self._trust.check(topic, received.message.payload, budgets.t, time.time())
        return Granted(received.t, budgets)

    def _place_listed(self, now: float) -> None:
        """Say what the inventory says, where nobody else has: once retained words had the time to arrive.

        A shadow tells no node anything: what a node is placed as decides what the row's own plan sets on it.
        """
        silent = self._shadow or self.controller.waits
        if not silent and self._up_t is not None and now - self._up_t >= _HEARD_BEFORE_PLACING_S:
            for message in self._placings.missing():
                self._link.send(message)


def usable(config: Config) -> Config:
    """The same configuration, for a daemon; ConfigError when a file or a database that it names cannot be used."""
    config.the_row()
    config.broker.check()
    config.standby.check()
    config.signing.signer()
    _trust(config)
    with _opened(config.sinks):
        return config


async def run(config: Config, *, shadow: bool = False) -> None:
    """The daemon that a configuration describes, with its page, until cancelled.

    ConfigError, UnavailableError, OutrankedError; StandDownError instead of it where another start makes a standby.
    """
    row, policy = config.the_row()
    with _foresight(config) as foresight, _opened(config.sinks) as sinks:
        daemon = Daemon(
            config.site,
            row,
            config.guard,
            policy,
            config.broker,
            foresight=foresight,
            hinting=None if config.hint_policy is None else hinting(config.hints, row, config.hint_policy()),
            signer=config.signing.signer(),
            trust=_trust(config),
            outlets=Outlets(sinks, config.web.window_s),
            shadow=shadow,
            contest=None if shadow else contest_for(config, lock_of(config.site.name, row.name), config.guard.lease_s),
        )
        async with serve(daemon.board, config.web, daemon.telling) as url:
            _LOG.info("row %s: the page is at %s", row.name, url)
            with standing_down(config), little_to_collect():
                await daemon.run()


def _trust(config: Config) -> Trust | None:
    """Whom budgets must be signed by, for a row under a site."""
    row, _ = config.the_row()
    return None if row.fail_safe_budget_w is None else config.signing.trust()


@contextlib.contextmanager
def _opened(settings: Mapping[str, SinkSettings]) -> Iterator[Mapping[str, Sink]]:
    """The sinks that the configuration names, closed at the end; ConfigError for one that cannot begin."""
    with contextlib.ExitStack() as stack:
        sinks = {}
        for name, each in settings.items():
            sink = sinks[name] = each.open()
            if isinstance(sink, Closable):
                stack.callback(sink.close)
        yield sinks


@contextlib.contextmanager
def _foresight(config: Config) -> Iterator[Foresight | None]:
    """What the configuration says of forecasting; lessons are held in a process beside this one."""
    if config.forecaster is None:
        yield None
        return
    with contextlib.closing(ProcessSchool()) as school:
        yield Foresight(config.forecaster, school, config.forecast.hold_s, config.forecast.q)
