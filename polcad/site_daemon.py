"""The daemon of a site: MQTT and time on one side, the controller of the site on the other.

It holds no GPU and hears no node: each row's daemon tells it of its row once a tick, and it answers all of them with
one message. It speaks only while the broker is there; what it cannot say protects nobody, and rows' leases do that.
Where it has a standby, one of the two leads (`polcad.standby`), as of a row's daemons.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from dataclasses import replace
from random import Random

from polcad import service
from polcad.backlog import Received
from polcad.broker_spec import BrokerSpec
from polcad.candidacy import contest_for, standing_down
from polcad.clock import SteadyClock
from polcad.complaints import Complaints
from polcad.config import Config
from polcad.errors import WireError
from polcad.model import Budgets, Event, EventKind, RowStatus, SiteStatus
from polcad.mqtt import Link, Presence
from polcad.ports import Rival, RowSaid, SiteInput, SiteOutput, Tick
from polcad.rank import epoch_at
from polcad.retiming import retimed
from polcad.signing import Signer
from polcad.site_controller import SiteController
from polcad.site_vitals import SiteVitals
from polcad.spec import SiteSpec
from polcad.standby import Contest, lock_of
from polcad.web.vitals import exposed
from polcad.wire import OF_SITE, Address, decode, encode, everywhere

_LOG = logging.getLogger(__name__)
_LONGEST_TURN_S = 5.0  # of the loop, while the broker is gone: the service manager hears that often that it turns


class SiteDaemon:
    """One site."""

    def __init__(
        self,
        site: SiteSpec,
        budget_w: float,
        broker: BrokerSpec,
        signer: Signer | None = None,
        contest: Contest | None = None,
    ) -> None:
        self._clock = SteadyClock()
        self._site, self._broker, self._signer, self._contest = site, broker, signer, contest
        epoch = epoch_at(self._clock.now())
        self.controller = SiteController(site, budget_w, epoch)
        if contest is not None:
            self.controller.wait()
        self.vitals = SiteVitals(site.name, self._clock.now, contest)
        self._to = {kind: Address(site.name, "", kind) for kind in OF_SITE}
        self._complaints = Complaints(_LOG)
        gone = encode(self._to["site"], SiteStatus(site.name, online=False, epoch=epoch))
        self._presence = Presence(
            client_id=f"polcad-site-{site.name}-{uuid.uuid4().hex[:16]}",
            subscriptions=(self._to["site"], *(everywhere(site.name, row.name, "daemon") for row in site.rows)),
            farewell=(gone,),
            will=gone,
        )
        self._link = self._linked(self._presence)

    def _linked(self, presence: Presence) -> Link:
        rng = Random()  # noqa: S311  # spreads retries
        return Link(self._broker, presence, self._clock.now, rng, on_change=self._note_link)

    async def run(self) -> None:
        """Until cancelled; OutrankedError when a newer daemon takes the site."""
        async with asyncio.TaskGroup() as tasks:
            if self._contest is not None:
                tasks.create_task(self._contest.run(self._bid), name="lock")
                await self._wait(self._contest)
            for name, work in (("mqtt", self._link.run()), ("hear", self._hear()), ("tick", self._tick())):
                tasks.create_task(work, name=name)

    def _bid(self) -> int | None:
        """The epoch that this daemon has, or would take; None while it can neither hear nor say anything."""
        return self.controller.epoch if self._link.connected else None

    async def _wait(self, contest: Contest) -> None:
        """Hear the rows that another daemon leads, and say nothing, not even a last will, until they are ours."""
        self._link = self._linked(replace(self._presence, farewell=(), will=None))
        epoch = await contest.won_while(self._link.run(), self._hear(), self._tick())
        self._link = self._linked(self._presence)
        self.controller.lead(epoch)
        self._say(Event(self._clock.now(), EventKind.TAKEOVER, "site", f"{contest.host} leads from now on"))

    def _note_link(self, up: bool) -> None:
        self.vitals.connected = up

    async def _hear(self) -> None:
        async for batch in self._link.batches():
            for received in batch:
                try:
                    event = self._event(received)
                except WireError as error:
                    self._complaints.add(received.message.topic, str(error), received.t)
                else:
                    self._take(event)

    def _event(self, received: Received) -> SiteInput | None:
        """What a message means to the controller; None when nothing."""
        _, noun = decode(received.message)
        if isinstance(noun, RowStatus):
            return RowSaid(received.t, noun)
        if isinstance(noun, SiteStatus) and noun.epoch != self.controller.epoch:
            return Rival(received.t, noun.epoch) if noun.online or not self.controller.begun else None
        return None

    async def _tick(self) -> None:
        """A tick each `tick_s` while the broker is there."""
        while True:
            if not self._link.connected:
                self._turn("the broker is not reached")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LONGEST_TURN_S):
                        await self._link.wait_connected()
                continue
            t = self._clock.now()
            self._take(Tick(t))
            if not self.controller.waits:
                self._show(t)
            self._turn(self._stand)
            await self._clock.sleep_until(t + self._site.tick_s)

    def _take(self, event: SiteInput | None) -> None:
        for said in self.controller.on(event) if event is not None else ():
            self._say(said)

    def _say(self, said: SiteOutput) -> None:
        noun = retimed(said, self._clock.told)
        if isinstance(noun, Budgets):
            message = encode(self._to["budgets"], noun)
            self._link.send(message if self._signer is None else self._signer.signed(message))
            return
        self._link.send(encode(self._to["site_event"], noun))
        self.vitals.note_event(noun)
        _LOG.info("%s", noun)

    def _show(self, t: float) -> None:
        status = self.controller.status(t)
        counters = {
            **status.counters,
            "refused_messages": self._complaints.total,
            "reconnects": self._link.counters.reconnects,
        }
        host = self._contest.host if self._contest else ""
        status = replace(retimed(status, self._clock.told), host=host, counters=counters)
        self._link.send(encode(self._to["site"], status))
        self.vitals.ticked(t, status)

    @property
    def _stand(self) -> str:
        if self._contest is not None and self.controller.waits:
            return f"waits; {self._contest.leader or 'nobody'} leads"
        return f"budgets {self.controller.epoch}/{self.controller.seq}"

    def _turn(self, status: str) -> None:
        """Tell those who watch that the loop turns."""
        service.alive(f"site {self._site.name}: {status}")
        self.vitals.pulse.beat()


def usable(config: Config) -> Config:
    """The same configuration, for this program; ConfigError when something that it names cannot be used."""
    config.the_site()
    config.broker.check()
    config.standby.check()
    config.signing.signer()
    return config


async def run(config: Config) -> None:
    """The daemon that a configuration describes, until cancelled.

    ConfigError, UnavailableError, OutrankedError; StandDownError instead of it where another start makes a standby.
    """
    site, budget_w = config.the_site()
    contest = contest_for(config, lock_of(site.name), site.lease_s)
    daemon = SiteDaemon(site, budget_w, config.broker, config.signing.signer(), contest)
    async with exposed(daemon.vitals, config.web, "web") as url:
        _LOG.info("site %s: metrics are at %smetrics", site.name, url)
        with standing_down(config):
            await daemon.run()
