"""Rows under a site, on simulated time: the real leases and site controller, and a network that may do harm."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from polcad.budget_lease import BudgetLease
from polcad.errors import OutrankedError
from polcad.model import Budgets, ClassStatus, DomainStatus, Event, Priority, Role, RowStatus, Setpoint
from polcad.ports import RowSaid, SiteOutput, Tick
from polcad.site_controller import SiteController
from polcad.spec import SiteRowSpec, SiteSpec

T0 = 1_760_000_000.0
EPOCH = int(T0 * 1e6)
LOCKED_FRAC = 0.89  # of its budget: what a row comes down to
FREE_FRAC = 0.75  # of its budget: with less it holds nothing
IDLE_FRAC = 0.2  # of what a row asks for, that no setting moves


@dataclass
class PlayedRow:
    """A row that draws what it asks for, or as much of its budget as its locks leave it where that is less."""

    name: str
    own_w: float
    fail_safe_w: float
    demand_w: float
    high_frac: float = 0.0  # of what can be moved, of the high priority
    obeys: bool = True
    follows: bool = True
    epoch: int = 1
    seq: int = 0
    lease: BudgetLease = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start its daemon anew: it remembers nothing."""
        self.epoch, self.seq = self.epoch + 1, 0
        self.lease = BudgetLease(self.name, self.own_w, self.fail_safe_w)

    def budget_w(self, t: float) -> float:
        return self.lease.budget_w(t) if self.follows else self.own_w

    def power_w(self, t: float) -> float:
        return min(self.demand_w, LOCKED_FRAC * self.budget_w(t)) if self.obeys else self.demand_w

    def say(self, t: float) -> RowStatus:
        self.seq += 1
        moved_w = (1 - IDLE_FRAC) * self.demand_w
        parts = {Priority.HIGH: self.high_frac, Priority.LOW: 1 - self.high_frac}
        return RowStatus(
            self.name,
            online=True,
            epoch=self.epoch,
            seq=self.seq,
            t=t,
            thresholds={"t1": 0.8, "t2": 0.89, "brake": 1.0},
            domains=(DomainStatus("row", self.budget_w(t), self.power_w(t), self.demand_w, (), t),),
            classes=tuple(
                ClassStatus(priority, Role.MIXED, 8, 0.0, Setpoint(), 8, part * moved_w, 0.0)
                for priority, part in parts.items()
            ),
            allowance=self.lease.allowance(t) if self.follows else None,
        )


@dataclass
class SitePlay:
    """A site and its rows; messages wait in `coming` (to rows, in order) and `going` until they are delivered."""

    budget_w: float
    rows: Mapping[str, PlayedRow]
    peak_s: float = 300.0
    site: SiteSpec = field(init=False)
    t: float = T0
    log: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        specs = tuple(SiteRowSpec(row.name, row.fail_safe_w) for row in self.rows.values())
        self.site = SiteSpec("site", self.budget_w, specs, peak_s=self.peak_s)
        self.epoch = EPOCH
        self.going: list[RowStatus] = []
        self.coming: dict[str, deque[tuple[float, Budgets]]] = {name: deque() for name in self.rows}
        self.last: Budgets | None = None
        self.start()

    def start(self) -> None:
        """Start the site's daemon anew."""
        self.epoch += 1
        self.controller = SiteController(self.site, self.budget_w, self.epoch)

    def tick(self) -> None:
        self._send(self.controller.on(Tick(self.t)))

    def hear(self, status: RowStatus) -> None:
        self._send(self.controller.on(RowSaid(self.t, status)))

    def _send(self, said: list[SiteOutput]) -> None:
        for each in said:
            if isinstance(each, Event):
                self.log.append(each)
                continue
            self.last = each
            for queue in self.coming.values():
                queue.append((self.t, each))

    def deliver(self, name: str) -> None:
        """Bring a row the oldest message on its way that is no older than a lease."""
        queue = self.coming[name]
        while queue:
            sent_t, budgets = queue.popleft()
            if self.t - sent_t < self.site.lease_s:
                self.rows[name].lease.offer(budgets, self.t)
                return

    def second(self, *, deaf: frozenset[str] = frozenset(), mute: frozenset[str] = frozenset()) -> None:
        """A second in which all is well but for some rows: they speak, the site ticks when it should, they hear."""
        self.t += 1.0
        for name, row in self.rows.items():
            if name not in mute:
                self.hear(row.say(self.t))
        if int(self.t - T0) % int(self.site.tick_s) == 0:
            self.tick()
        for name, queue in self.coming.items():
            if name in deaf:
                queue.clear()
            while queue:
                self.deliver(name)

    def run(self, seconds: int, *, deaf: frozenset[str] = frozenset(), mute: frozenset[str] = frozenset()) -> None:
        for _ in range(seconds):
            self.second(deaf=deaf, mute=mute)
            assert self.granted_w() <= self.budget_w * (1 + 1e-9)

    def granted_w(self) -> float:
        """All that rows believe they may draw."""
        return sum(row.budget_w(self.t) for row in self.rows.values())

    def power_w(self) -> float:
        return sum(row.power_w(self.t) for row in self.rows.values())

    def budget_of(self, name: str) -> float:
        return self.rows[name].budget_w(self.t)


def played(budget_w: float, *, peak_s: float = 300.0, **rows: PlayedRow) -> SitePlay:
    return SitePlay(budget_w, rows, peak_s)


@dataclass
class TwoDaemons:
    """A site that one daemon leads while another waits; each second both speak, who is first as it comes."""

    play: SitePlay
    standby: SiteController = field(init=False)
    daemons: list[SiteController] = field(init=False)  # that live, in the order in which they speak

    def __post_init__(self) -> None:
        self.standby = SiteController(self.play.site, self.play.budget_w, 1)  # its clock is behind
        self.standby.wait()
        self.daemons = [self.play.controller, self.standby]
        self._going: dict[SiteController, list[tuple[float, Budgets]]] = {daemon: [] for daemon in self.daemons}

    @property
    def leader(self) -> SiteController:
        """The daemon that led first."""
        return self.play.controller

    def take_over(self) -> None:
        """Give the standby the lock."""
        self.standby.lead(self.leader.epoch + 1)

    def run(
        self,
        seconds: int,
        apart: Mapping[SiteController, frozenset[str]] | None = None,
        late_s: Mapping[SiteController, int] | None = None,
    ) -> None:
        """Let time pass; `apart`: rows and a daemon that do not hear each other, `late_s`: how late rows hear one."""
        for _ in range(seconds):
            self.play.t += 1.0
            said = {name: row.say(self.play.t) for name, row in self.play.rows.items()}
            for daemon in self.daemons.copy():
                away = (apart or {}).get(daemon, frozenset())
                self._let_speak(daemon, {name: status for name, status in said.items() if name not in away})
                self._deliver(daemon, said.keys() - away, (late_s or {}).get(daemon, 0))
                assert self.play.granted_w() <= self.play.budget_w * (1 + 1e-9)

    def _let_speak(self, daemon: SiteController, said: Mapping[str, RowStatus]) -> None:
        out: list[SiteOutput] = []
        try:
            for status in said.values():
                out += daemon.on(RowSaid(self.play.t, status))
        except OutrankedError:
            self.daemons.remove(daemon)
            return
        if int(self.play.t - T0) % int(self.play.site.tick_s) == 0:
            out += daemon.on(Tick(self.play.t))
        self._going[daemon] += [(self.play.t, each) for each in out if isinstance(each, Budgets)]

    def _deliver(self, daemon: SiteController, to: Collection[str], late_s: int) -> None:
        due = [(t, budgets) for t, budgets in self._going[daemon] if t + late_s <= self.play.t]
        self._going[daemon] = [each for each in self._going[daemon] if each not in due]
        for _, budgets in due:
            for name in to:
                self.play.rows[name].lease.offer(budgets, self.play.t)
