"""The nouns: what nodes say (`Telemetry`), what the daemon wants (`Plan`), and what it says of itself (`RowStatus`).

All are frozen, slotted and made of standard-library types. A number's name ends in its unit; fractions (`_frac`) are of
the board's maximum clock, the board's maximum power limit, or a domain's budget. `Range` states what a number may be;
the codec turns it into checks at the door, so inside the product every noun is already in range.

Time (`t`) is Unix time in seconds. Per-GPU quantities are columns: one tuple a quantity, one entry a GPU, all of the
length of `Gpus.uuid`; ``None`` means "not known", which is never zero.

A word of a newer version that an enumeration here lacks is taken for its `UNKNOWN`: what tightens most and is believed
least. So a plan whose reason is not known is followed, rather than its lease let end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Self

LENGTH_QUANTILES = (0.1, 0.2, 1 / 3, 0.5, 2 / 3, 0.8, 0.9, 0.99)  # at which `Lengths` are told
MAX_WEIGHTS = 1024  # instances of one pool that a hint weighs
MAX_ROWS = 1024  # of one site
MAX_GPUS = 64  # of one node; the longest column that is believed
GRID_STEP_FRAC = 0.012  # a clock snapped down to a board's grid is the clock asked for: 15 of 1410 MHz is .0106


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, both included."""

    ge: float
    le: float


@dataclass(frozen=True, slots=True)
class Text:
    """Bounds of a string: its greatest length and, where set, a regular expression it matches."""

    max_length: int
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """The greatest number of entries of a list or table."""

    max_items: int


NAME_PATTERN = r"^[a-z0-9_-]{1,64}$(?!\n)"  # in Python alone, $ also matches before a newline at the end
SCOPE_PATTERN = r"^(row|(rack|node)/[a-z0-9_-]+|gpu/.+)$(?!\n)"

Name = Annotated[str, Text(64, NAME_PATTERN)]  # NATS drops a client that uses a dot or a space in a topic
Uuid = Annotated[str, Text(96)]
Note = Annotated[str, Text(512)]
Seconds = Annotated[float, Range(0.0, 1e11)]
Frac = Annotated[float, Range(0.0, 1.0)]
Share = Annotated[float, Range(0.0, 1e6)]  # of a budget: may pass 1
Watts = Annotated[float, Range(0.0, 1e5)]  # of one GPU
HostWatts = Annotated[float, Range(0.0, 1e6)]  # of one server
DomainWatts = Annotated[float, Range(0.0, 1e10)]  # of a rack or a row
Megahertz = Annotated[float, Range(0.0, 1e5)]
Celsius = Annotated[float, Range(-100.0, 300.0)]
Joules = Annotated[float, Range(0.0, 1e15)]
Bits = Annotated[int, Range(0, 2**53)]
Count = Annotated[int, Range(0, 2**53)]
Tokens = Annotated[float, Range(0.0, 1e9)]  # of one prompt or output
PerSecond = Annotated[float, Range(0.0, 1e9)]


class _Open(StrEnum):
    """An enumeration that newer versions may add words to: one that is not known here is `UNKNOWN`."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        del value
        return cls["UNKNOWN"]


class Priority(_Open):
    """Whose requests a GPU serves: low is capped first."""

    HIGH = "high"
    LOW = "low"
    UNKNOWN = LOW


class Role(_Open):
    """What a GPU does most; it decides how its time and power answer to a clock (`polcad.curve`)."""

    PROMPT = "prompt"
    TOKEN = "token"  # noqa: S105  # of text, not a secret
    MIXED = "mixed"
    TRAINING = "training"
    UNKNOWN = MIXED


class PowerKind(_Open):
    """What `Gpus.power_w` is: the value of one moment, or the driver's average (1 s on most boards)."""

    INSTANT = "instant"
    AVERAGE = "average"
    UNKNOWN = AVERAGE


class Why(_Open):
    """What made a rule of a plan."""

    T1 = "t1"
    T2 = "t2"
    T2_HIGH = "t2_high"
    FORECAST = "forecast"
    BAND = "band"
    BRAKE = "brake"
    RESUME = "resume"
    OPERATOR = "operator"
    UNKNOWN = "unknown"


class LeaseState(_Open):
    """Whether a node follows a plan: none was ever heard, one is held, or it ran out."""

    NONE = "none"
    HELD = "held"
    EXPIRED = "expired"
    UNKNOWN = NONE


class Outcome(_Open):
    """How the last setpoint went on one GPU, as read back."""

    OK = "ok"
    CLAMPED = "clamped"  # wanted less than the board can do; the board's bound is in force
    OVERRIDDEN = "overridden"  # set without error, but something else holds another value
    FAILED = "failed"  # the driver refused or did not answer
    DENIED = "denied"  # the driver refused for want of privilege
    UNMANAGED = "unmanaged"  # nothing is set on this GPU: dry run, or a board that cannot be set
    UNKNOWN = FAILED


class EventKind(_Open):
    """What an `Event` tells."""

    TIGHTEN = "tighten"
    LOOSEN = "loosen"
    BRAKE = "brake"
    BRAKE_RELEASE = "brake_release"
    STALE = "stale"
    FRESH = "fresh"
    SENSOR_FAULT = "sensor_fault"
    SENSOR_OK = "sensor_ok"
    NOT_OBEYED = "not_obeyed"
    OBEYED = "obeyed"
    UNLISTED = "unlisted"
    MISPLACED = "misplaced"
    STRAYED = "strayed"
    DUPLICATE_NAME = "duplicate_name"
    RESUME = "resume"
    HOLD = "hold"
    HOLD_END = "hold_end"
    FORECAST_OK = "forecast_ok"
    FORECAST_DOUBTED = "forecast_doubted"
    HINT = "hint"
    HINT_END = "hint_end"
    HINTS_HELD = "hints_held"
    HINTS_RESUMED = "hints_resumed"
    TAKEOVER = "takeover"
    BUDGET = "budget"
    CLOCK = "clock"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Setpoint:
    """How fast a GPU may run: a clock lock and a power limit, as fractions of the board's maxima; 1 is free."""

    clock_frac: Frac = 1.0
    cap_frac: Frac = 1.0

    @property
    def free(self) -> bool:
        """Whether this binds nothing."""
        return self.clock_frac >= 1.0 and self.cap_frac >= 1.0

    def strictest(self, other: Setpoint) -> Setpoint:
        """The lower of both in each quantity."""
        return Setpoint(min(self.clock_frac, other.clock_frac), min(self.cap_frac, other.cap_frac))

    def covers(self, other: Setpoint) -> bool:
        """Whether this is as strict as `other`, but for a step of the clock grid."""
        return self.clock_frac <= other.clock_frac + GRID_STEP_FRAC and self.cap_frac <= other.cap_frac + GRID_STEP_FRAC


FREE = Setpoint()


@dataclass(frozen=True, slots=True)
class Placement:
    """What runs on a GPU. What nobody placed is low priority and mixed: it is capped first."""

    priority: Priority = Priority.LOW
    role: Role = Role.MIXED
    pool: Annotated[str, Text(64)] = ""
    model: Annotated[str, Text(128)] = ""


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """The placement of a node's GPUs: a default, and exceptions by UUID."""

    node: Name
    default: Placement = Placement()
    gpus: Annotated[Mapping[str, Placement], Items(MAX_GPUS)] = field(default_factory=dict)
    source: Annotated[str, Text(64)] = "inventory"

    def of(self, uuid: str) -> Placement:
        """The placement of one GPU."""
        return self.gpus.get(uuid, self.default)


@dataclass(frozen=True, slots=True)
class Gpus:
    """One reading of a node's GPUs, in columns."""

    uuid: Annotated[tuple[Uuid, ...], Items(MAX_GPUS)]
    power_w: Annotated[tuple[Watts | None, ...], Items(MAX_GPUS)]
    max_w: Annotated[tuple[Watts | None, ...], Items(MAX_GPUS)]  # the highest limit the board takes
    min_w: Annotated[tuple[Watts | None, ...], Items(MAX_GPUS)] = ()  # the lowest
    average_w: Annotated[tuple[Watts | None, ...], Items(MAX_GPUS)] = ()
    energy_j: Annotated[tuple[Joules | None, ...], Items(MAX_GPUS)] = ()  # since the driver was loaded
    util_frac: Annotated[tuple[Frac | None, ...], Items(MAX_GPUS)] = ()
    memory_frac: Annotated[tuple[Frac | None, ...], Items(MAX_GPUS)] = ()  # of the board's memory, in use
    sm_mhz: Annotated[tuple[Megahertz | None, ...], Items(MAX_GPUS)] = ()
    max_mhz: Annotated[tuple[Megahertz | None, ...], Items(MAX_GPUS)] = ()
    temp_c: Annotated[tuple[Celsius | None, ...], Items(MAX_GPUS)] = ()
    throttle: Annotated[tuple[Bits | None, ...], Items(MAX_GPUS)] = ()  # NVML's clocks event reasons
    limit_w: Annotated[tuple[Watts | None, ...], Items(MAX_GPUS)] = ()  # requested
    enforced_w: Annotated[tuple[Watts | None, ...], Items(MAX_GPUS)] = ()  # in force: the lowest of all sources
    fault: Annotated[tuple[Note | None, ...], Items(MAX_GPUS)] = ()  # why a reading is missing; () where none is


_OPTIONAL_COLUMNS = tuple(item.name for item in fields(Gpus))[3:]
_optional_columns = attrgetter(*_OPTIONAL_COLUMNS)  # all at once: asked of every message


@dataclass(frozen=True, slots=True)
class Reading:
    """What a collector returns: its node's GPUs, and the whole server's power where it is measured."""

    gpus: Gpus
    kind: PowerKind = PowerKind.INSTANT
    host_power_w: HostWatts | None = None  # of the whole server, GPUs included


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds on a node's GPUs, as read back from the device: columns in the order of `uuid`.

    On the wire `uuid` is left out, for the order is that of the reading beside it.
    """

    uuid: Annotated[tuple[Uuid, ...], Items(MAX_GPUS)] = ()
    clock_frac: Annotated[tuple[Frac | None, ...], Items(MAX_GPUS)] = ()  # the lock; 1 is no lock, None is not known
    cap_frac: Annotated[tuple[Frac | None, ...], Items(MAX_GPUS)] = ()  # enforced limit; 1 is the limit found at start
    outcome: Annotated[tuple[Outcome, ...], Items(MAX_GPUS)] = ()
    detail: Annotated[tuple[Note, ...], Items(MAX_GPUS)] = ()  # "" where all is well; () where it is everywhere


@dataclass(frozen=True, slots=True)
class Obedience:
    """The plan that a node follows."""

    epoch: Count = 0
    seq: Count = 0
    lease: LeaseState = LeaseState.NONE
    refused: Count = 0  # plans not accepted since the agent started


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One message of a node. `boot_id` names this run of the agent; `seq` counts within it."""

    node: Name
    boot_id: Annotated[str, Text(64)]
    seq: Count
    t: Seconds  # by the node's clock; the daemon trusts its own arrival time
    period_s: Annotated[float, Range(0.001, 3600.0)]
    reading: Reading
    in_force: InForce | None = None
    plan: Obedience | None = None  # None: nothing here follows plans (an imported log, a bare meter)
    dropped: Count = 0  # messages this agent threw away unsent since it started

    def ragged(self) -> str | None:
        """The name of a column that has not one entry a GPU, if any; a column not measured is empty."""
        gpus, force = self.reading.gpus, self.in_force
        n = len(gpus.uuid)
        if len(gpus.power_w) != n or len(gpus.max_w) != n:
            return "power_w or max_w"
        columns = _optional_columns(gpus)
        if not set(map(len, columns)) <= {0, n}:
            return next(
                name for name, column in zip(_OPTIONAL_COLUMNS, columns, strict=True) if len(column) not in {0, n}
            )
        if force is not None and not (
            (not force.uuid or force.uuid == gpus.uuid)
            and n == len(force.clock_frac) == len(force.cap_frac) == len(force.outcome)
            and len(force.detail) in {0, n}
        ):
            return "in_force"
        return None


@dataclass(frozen=True, slots=True)
class NodeState:
    """The retained word of an agent about itself; the broker says "offline" for it when it is gone."""

    node: Name
    online: bool
    boot_id: Annotated[str, Text(64)] = ""
    version: Annotated[str, Text(64)] = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One clause of a plan: GPUs in `scope` of this priority and role (None: any) take at most `setpoint`.

    `scope` is ``row``, ``rack/NAME``, ``node/NAME`` or ``gpu/UUID``.
    """

    scope: Annotated[str, Text(128, SCOPE_PATTERN)]
    setpoint: Setpoint
    why: Why
    priority: Priority | None = None
    role: Role | None = None

    def matches(self, rack: str, node: str, uuid: str, placement: Placement) -> bool:
        """Whether the rule speaks of this GPU."""
        return (
            (self.priority is None or self.priority == placement.priority)
            and (self.role is None or self.role == placement.role)
            and self.scope in {"row", f"rack/{rack}", f"node/{node}", f"gpu/{uuid}"}
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the daemon wants of a row now. Where rules meet, the strictest wins; what none names is free."""

    row: Name
    epoch: Count
    seq: Count
    t: Seconds
    lease_s: Annotated[float, Range(0.1, 3600.0)]
    fail_safe: Setpoint
    rules: Annotated[tuple[Rule, ...], Items(4096)] = ()
    shadow: bool = False  # published for comparison: nobody applies it

    @property
    def brake(self) -> bool:
        """Whether any rule brakes."""
        return any(rule.why is Why.BRAKE for rule in self.rules)

    def setpoint(self, rack: str, node: str, uuid: str, placement: Placement) -> Setpoint:
        """What one GPU is to take."""
        setpoint = FREE
        for rule in self.rules:
            if rule.matches(rack, node, uuid, placement):
                setpoint = setpoint.strictest(rule.setpoint)
        return setpoint


@dataclass(frozen=True, slots=True)
class Hold:
    """An operator's order: GPUs in `scope` take at most `setpoint` until `until_t`. It can only tighten."""

    name: Name
    scope: Annotated[str, Text(128, SCOPE_PATTERN)]
    setpoint: Setpoint
    until_t: Seconds
    by: Annotated[str, Text(64)] = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, told once: a transition, a fault, an override."""

    t: Seconds
    kind: EventKind
    scope: Annotated[str, Text(128)]
    detail: Note = ""
    power_w: DomainWatts | None = None
    budget_w: DomainWatts | None = None

    def __str__(self) -> str:
        """A line of log, without its time."""
        power = f" at {self.power_w:.0f} W of {self.budget_w:.0f} W" if self.power_w and self.budget_w else ""
        return f"{self.scope}: {self.kind.value}{power}{': ' if self.detail else ''}{self.detail}"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of one domain's uncapped demand: bounds on the largest within a time, each to hold with `q`."""

    q: Share
    horizon_s: Seconds  # the actuation latency
    upper_w: DomainWatts  # within `horizon_s`
    hold_s: Seconds
    hold_w: DomainWatts  # within `hold_s`, for which a loosening should last
    coverage: Share | None = None  # of the bounds within `horizon_s` whose time ended in the last hour, those that held
    error_frac: Share | None = None  # mean of |median forecast - peak| / peak within `horizon_s`, last hour
    doubt: Note = ""  # why the bounds are not to be used; "" when they are


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """A row or rack at one moment."""

    scope: Annotated[str, Text(128)]
    budget_w: DomainWatts
    power_w: DomainWatts  # counted: measured, and the worst case of what is stale
    demand_w: DomainWatts  # what it would draw uncapped (estimated)
    rules: Annotated[tuple[Rule, ...], Items(256)]
    since_t: Seconds  # since when these rules stand; 0: from the start, but for holds
    waiting: Note = ""  # why it is not loosened now, "" where nothing is to loosen
    outlook: Outlook | None = None  # None: nothing forecasts, or it knows too little yet


@dataclass(frozen=True, slots=True)
class ClassStatus:
    """The GPUs of one priority and role in the row."""

    priority: Priority
    role: Role
    gpus: Count
    power_w: DomainWatts
    setpoint: Setpoint  # wanted by the row's plan
    obeying: Count  # GPUs whose reported setpoint is no looser
    demand_w: DomainWatts = 0.0  # what they would draw uncapped (estimated)
    idle_w: DomainWatts = 0.0  # the part of it that no clock changes


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a row may draw, where a site level is above it; `epoch` and `seq` are of the last `Budgets` it took."""

    budget_w: DomainWatts  # in force
    own_w: DomainWatts  # its configuration's: never more
    fail_safe_w: DomainWatts  # it falls to no more than this when the site falls silent
    epoch: Count = 0
    seq: Count = 0
    lease: LeaseState = LeaseState.NONE


@dataclass(frozen=True, slots=True)
class RowStatus:
    """What the daemon says of its row each tick, retained."""

    row: Name
    online: bool
    epoch: Count
    seq: Count = 0
    t: Seconds = 0.0
    host: Annotated[str, Text(64)] = ""  # that leads; "" where no other could
    policy: Annotated[str, Text(64)] = ""
    shadow: bool = False
    thresholds: Annotated[Mapping[str, Share], Items(16)] = field(default_factory=dict)
    domains: Annotated[tuple[DomainStatus, ...], Items(4096)] = ()
    classes: Annotated[tuple[ClassStatus, ...], Items(64)] = ()
    nodes: Count = 0
    nodes_stale: Count = 0
    gpus: Count = 0
    peak_frac: Share = 0.0  # the highest use since the daemon started
    over_budget_s: Seconds = 0.0  # since the daemon started
    reaction_p99_s: Seconds | None = None  # from the sample that tightened a plan to the last read-back
    counters: Annotated[Mapping[str, Count], Items(256)] = field(default_factory=dict)
    allowance: Allowance | None = None  # None: no site level is above this row


@dataclass(frozen=True, slots=True)
class RowBudget:
    """What one row may draw now, and what it falls to when the lease ends."""

    row: Name
    budget_w: DomainWatts
    fail_safe_w: DomainWatts


@dataclass(frozen=True, slots=True)
class Budgets:
    """All that the site level wants of a site now. A row that is not named keeps what it has, until its lease ends."""

    site: Name
    epoch: Count
    seq: Count
    t: Seconds
    lease_s: Annotated[float, Range(0.1, 3600.0)]
    rows: Annotated[tuple[RowBudget, ...], Items(MAX_ROWS)] = ()


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One row as the site level sees it."""

    row: Name
    budget_w: DomainWatts  # granted
    reserved_w: DomainWatts  # the most it may draw by any word that may still hold there: given to nobody else
    fail_safe_w: DomainWatts
    power_w: DomainWatts = 0.0  # as last told
    demand_w: DomainWatts = 0.0  # uncapped, as last told
    wants_w: DomainWatts = 0.0  # the budget with which its recent peak of demand would be left alone
    note: Note = ""  # why its budget is not moved; "" when it may be


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """What the site level says of itself each tick, retained."""

    site: Name
    online: bool
    epoch: Count
    seq: Count = 0
    t: Seconds = 0.0
    budget_w: DomainWatts = 0.0
    power_w: DomainWatts = 0.0  # counted: measured, and what is reserved for a row that is silent
    over: bool = False  # budgets are cut without regard to what rows draw
    rows: Annotated[tuple[SiteRow, ...], Items(MAX_ROWS)] = ()
    counters: Annotated[Mapping[str, Count], Items(256)] = field(default_factory=dict)
    host: Annotated[str, Text(64)] = ""  # that leads; "" where no other could


@dataclass(frozen=True, slots=True)
class NodeColumns:
    """The nodes of a row at one moment: columns of one length, one entry a node, for those who draw them."""

    name: tuple[str, ...]
    rack: tuple[str, ...]
    power_w: tuple[HostWatts | None, ...]  # of its GPUs together, as last heard; None: never heard
    max_w: tuple[HostWatts, ...]  # sum of its boards' highest limits
    priority: tuple[Priority | None, ...]  # None: GPUs of both, or not known
    stale: tuple[bool, ...]
    clock_frac: tuple[Frac | None, ...]  # the strictest lock in force on any of its GPUs, as reported
    cap_frac: tuple[Frac | None, ...]  # the strictest limit in force
    fault: tuple[Note, ...]  # what is wrong, in words; "" where all is well


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the prompts or outputs of some requests are, tokens; `at` has one entry for each of LENGTH_QUANTILES."""

    mean: Tokens
    at: Annotated[tuple[Tokens | None, ...], Items(len(LENGTH_QUANTILES))]  # None: longer than the engine counts


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What one serving instance of a pool does, as its engine tells; None is not known.

    Rates, times and lengths are of the last `over_s`; the rest is of the moment `t`.
    """

    pool: Name
    instance: Name
    t: Seconds
    tensor_parallel: Annotated[int, Range(1, 1024)] = 1  # GPUs that the instance runs over
    over_s: Seconds | None = None
    requests_per_s: PerSecond | None = None  # that came
    prompt_tokens_per_s: PerSecond | None = None
    output_tokens_per_s: PerSecond | None = None
    running: Count | None = None
    waiting: Count | None = None
    kv_use_frac: Frac | None = None
    ttft_p50_s: Seconds | None = None  # to the first token
    ttft_p99_s: Seconds | None = None
    tbt_p50_s: Seconds | None = None  # between two tokens
    tbt_p99_s: Seconds | None = None
    prompt: Lengths | None = None
    output: Lengths | None = None
    fault: Note = ""  # why something is missing; "" where nothing is
    ended: bool = False  # the instance was taken out of its pool: it counts no more


@dataclass(frozen=True, slots=True)
class Hint:
    """How a pool should be shaped, retained; an orchestrator may follow it until it expires."""

    pool: Name
    row: Name  # whose daemon says it
    t: Seconds
    expires_t: Seconds
    instances: Count
    tensor_parallel: Annotated[int, Range(1, 1024)]  # GPUs of one instance
    clock_frac: Frac  # of the GPUs' maximum clock
    horizon_s: Seconds  # the time it was sized for, from `t`
    requests_per_s: PerSecond  # expected at the peak of that time
    tokens_per_s: PerSecond  # prompts and outputs together
    power_w: DomainWatts  # expected of the pool then, servers included
    saves_w: Annotated[float, Range(-1e10, 1e10)] | None = None  # against the pool as it is; None: not known
    weights: Annotated[Mapping[Name, Frac], Items(MAX_WEIGHTS)] = field(
        default_factory=dict
    )  # of requests, by instance
    why: Note = ""
