"""The seams: what polcad asks of a collector, a device, a policy, a forecaster, an actuator, a sink and a clock.

One or two methods each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from polcad.model import (
    Budgets,
    Event,
    InForce,
    NodePlacement,
    Outlook,
    Plan,
    PoolLoad,
    Priority,
    Reading,
    Role,
    RowStatus,
    Setpoint,
    Telemetry,
    Why,
)

if TYPE_CHECKING:  # an agent has no numpy
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come to look at the whole row."""

    t: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A telemetry message, and when it arrived by the daemon's clock."""

    t: float
    telemetry: Telemetry
    rack: str = "rack"


@dataclass(frozen=True, slots=True)
class Placed:
    """A node's placement, said by the inventory or the scheduler."""

    t: float
    placement: NodePlacement


@dataclass(frozen=True, slots=True)
class Held:
    """An operator's hold; `hold` is None when the operator released it."""

    t: float
    name: str
    scope: str = "row"
    setpoint: Setpoint | None = None
    until_t: float = 0.0


@dataclass(frozen=True, slots=True)
class Rival:
    """Another daemon speaks, or spoke last, for this row."""

    t: float
    epoch: int


@dataclass(frozen=True, slots=True)
class Granted:
    """The site level says what its rows may draw."""

    t: float
    budgets: Budgets


@dataclass(frozen=True, slots=True)
class RowSaid:
    """A row's daemon tells the site level of its row."""

    t: float
    status: RowStatus


Input = Tick | Heard | Placed | Held | Rival | Granted
Output = Plan | Event
SiteInput = Tick | RowSaid | Rival
SiteOutput = Budgets | Event


class Collector(Protocol):
    """Reads one node's GPUs. Made from its options, to which the agent adds `deadline_s`: how long a GPU may take."""

    def read(self, t: float) -> Reading:
        """The reading at `t`. Blocks no longer than its deadline; a GPU that fails is missing, not an exception."""
        ...


class LoadCollector(Protocol):
    """Reads one serving instance. Made from its options.

    To them its program adds `pool`, `instance` and `tensor_parallel`, which the load repeats, `url`, where the engine
    answers, and `deadline_s`, how long it may take.
    """

    def read(self, t: float) -> PoolLoad:
        """The load at `t`; an engine that cannot be read is a `fault` of the load, not an exception."""
        ...


@runtime_checkable
class Closable(Protocol):
    """A collector that has something to leave in order."""

    def close(self) -> None:
        """Leave it."""
        ...


class Device(Protocol):
    """Sets one node's GPUs. A GPU is named by UUID.

    Made from its options, to which the agent adds `state_dir` (a folder that survives it), and the node's collector.
    """

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        """Bring every named GPU to its setpoint, clamped to the board's range; never raises for one GPU."""
        ...

    def in_force(self) -> InForce:
        """What holds now, as read back, and how the last setpoints went."""
        ...


@runtime_checkable
class Releasable(Protocol):
    """A device that leaves traces on its GPUs."""

    def release(self) -> None:
        """Bring every GPU back to what it was when it was first seen."""
        ...


class GpuSession(Protocol):
    """Calls into a GPU driver, one lane a GPU, so that one that hangs does not silence the others.

    An NVML collector owns one and lends it to the device of the same node as its attribute `session`.
    """

    def call(self, work: Mapping[str, Callable[[object], T]]) -> Mapping[str, T | Exception]:
        """Run ``work[uuid](handle)`` for each GPU in parallel; a missed deadline or an error is the GPU's value."""
        ...

    def uuids(self) -> tuple[str, ...]:
        """Every GPU seen since the start, in the order of the telemetry's columns; it never shrinks."""
        ...

    def generation(self) -> int:
        """Grows by one each time the driver was initialised: clock locks and limits of before are gone."""
        ...


@dataclass(frozen=True, slots=True)
class ClassView:
    """The GPUs of one priority and role in a domain, summed."""

    gpus: int
    power_w: float  # counted
    demand_w: float  # uncapped, estimated
    idle_w: float  # the part of both that no clock changes
    max_w: float  # sum of the boards' highest limits


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees of one domain at one tick."""

    t: float
    budget_w: float
    power_w: float
    host_w: float  # the part of `power_w` that no GPU setting moves
    classes: Mapping[tuple[Priority, Role], ClassView]
    held: Mapping[tuple[Priority, Role], Setpoint]  # what stands for each class now
    since_t: float  # since when
    latency_s: float  # how long a setting takes to act
    outlook: Outlook | None = None  # None: nothing forecasts

    @property
    def used_frac(self) -> float:
        """Power as a fraction of the budget."""
        return self.power_w / self.budget_w


@dataclass(frozen=True, slots=True)
class Desire:
    """What a policy wants of each class.

    `ceiling_frac` is the highest projected use (of the budget) at which the guard may loosen to it: a policy names the
    threshold that would make it tighten again.
    """

    setpoints: Mapping[tuple[Priority, Role], Setpoint]
    why: Mapping[tuple[Priority, Role], Why]
    ceiling_frac: float


class Policy(Protocol):
    """Decides what one domain should take; stateless, since `View.held` says where the domain stands."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Fractions of the budget, by name, whose crossing is worth deciding at once."""
        ...

    def desired(self, view: View) -> Desire:
        """What every class of `view.classes` should take now."""
        ...


@runtime_checkable
class Foresighted(Protocol):
    """A policy that does better with an outlook than without."""

    @property
    def looks_ahead(self) -> bool:
        """True."""
        ...


class Forecaster(Protocol):
    """Bounds the coming peaks of several domains at once; arrays have one entry a domain, watts.

    Made with `domains` (how many), `step_s` (between two observations), `horizons_s` and `quantiles` (all that will be
    asked for), and its own options by name.
    """

    def observe(self, t: float, demand_w: NDArray[np.float64], steady: NDArray[np.bool_]) -> None:
        """One step of uncapped demand. NaN: not known. Not `steady`: estimated while settings change, or under a brake.

        Nothing is learned about a bound from a time that includes an unknown or an unsteady step, or a gap: a step that
        comes much later than `step_s` after the last.
        """
        ...

    def upper(self, horizon_s: float, q: float) -> NDArray[np.float64]:
        """What the largest demand of the next `horizon_s` stays below with probability `q`; NaN while not known.

        A horizon below one step speaks of the next step. Raises ValueError for what was not announced.
        """
        ...


class ForecasterMaker(Protocol):
    """Makes a forecaster: its class, or what holds its class and options."""

    def __call__(
        self, *, domains: int, step_s: float, horizons_s: tuple[float, ...], quantiles: tuple[float, ...]
    ) -> Forecaster:
        """A fresh forecaster, as `Forecaster` tells; ConfigError for what it cannot do."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A forecaster whose fit takes longer than a tick has: it gives the work away, and takes the result later.

    A lesson is a call without arguments that can be pickled (`functools.partial` of a module's function over arrays).
    """

    def lesson(self, t: float) -> Callable[[], Any] | None:
        """The work, when a fit is due at `t`; asked once a step, and not while a lesson is under way."""
        ...

    def learn(self, result: Any) -> None:
        """Take what the lesson gave."""
        ...


class School(Protocol):
    """Where lessons are held, one at a time: at once in a replay or a simulation, in a process beside a live daemon."""

    def begin(self, lesson: Callable[[], Any]) -> None:
        """Start; never blocks a live tick, never raises for a lesson that fails. Not to be called while one is on."""
        ...

    def ended(self) -> tuple[Any, ...] | None:
        """None while nothing is to be told; once when a lesson has ended: (what it gave,), or () if it failed."""
        ...


class Actuator(Protocol):
    """Carries what the controller says to where it acts."""

    async def apply(self, output: Output) -> None:
        """Send it, or queue it; what never arrives is made up for by the next tick, and by the nodes' leases."""
        ...


class Point(NamedTuple):
    """A row of a table of `polcad.measurements`: tags and fields that are known, and Unix time."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: Mapping[str, float | str]
    t: float


@dataclass(slots=True)
class SinkCounts:
    """What became of a sink's points since it was opened."""

    written: int = 0
    dropped: int = 0  # because too many waited
    refused: int = 0  # by the other side, for good
    retries: int = 0  # writes that failed, to be tried again
    waiting: int = 0


class Sink(Protocol):
    """Takes points to where they are kept. Close it if it is `Closable`."""

    def put(self, points: Sequence[Point]) -> None:
        """Take points, at once: it never blocks and never raises, but drops the oldest and counts them."""
        ...

    def counts(self) -> SinkCounts:
        """What became of them so far."""
        ...


class SinkSettings(Protocol):
    """What an operator says of a sink: a frozen dataclass whose fields have defaults, found in `polcad.sinks`."""

    def open(self) -> Sink:
        """The sink, at work; ConfigError for what the operator must mend."""
        ...


class Clock(Protocol):
    """Time that never jumps: Unix seconds anchored once, advanced by a monotonic clock."""

    def now(self) -> float:
        """The time."""
        ...

    async def sleep_until(self, t: float) -> None:
        """Return at `t` or later."""
        ...
