"""Plays a controller against the closed-loop row, second by second."""

from collections.abc import Callable
from dataclasses import dataclass, field

from polcad.controller import Controller
from polcad.model import Event, EventKind, Plan, Priority, Role, Setpoint
from polcad.ports import Input, Output, Tick
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.testing import LoopRow
from policies.polca import Polca

T0 = 1_760_000_000.0
LOW_T1, LOW_T2, HIGH_T2 = Setpoint(1275 / 1410), Setpoint(1110 / 1410), Setpoint(1305 / 1410)
GUARD = GuardSpec()


def row_spec(nodes: int = 4, budget_frac: float = 0.85, racks: tuple[RackSpec, ...] = ()) -> RowSpec:
    """Nodes n0, n1 … of two GPUs, by turns of low and high priority; the budget is a part of their boards' maximum."""
    names = [rack.name for rack in racks] or ["rack"]
    specs = tuple(
        NodeSpec(
            f"n{i}",
            names[i * len(names) // nodes],
            gpus=2,
            priority=Priority.HIGH if i % 2 else Priority.LOW,
            role=Role.MIXED,
        )
        for i in range(nodes)
    )
    return RowSpec("row", budget_frac * nodes * 2 * 700.0, racks, specs)


def controller_of(row: RowSpec, guard: GuardSpec = GUARD, epoch: int = 1, *, shadow: bool = False) -> Controller:
    return Controller(row, guard, Polca(), epoch, shadow=shadow)


@dataclass
class Play:
    """The row and its controller; `log` holds what was said, with the time."""

    spec: RowSpec
    guard: GuardSpec = GUARD
    t: float = T0
    log: list[tuple[float, Output]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.row = LoopRow(self.spec)
        self.controller = controller_of(self.spec, self.guard)

    def on(self, event: Input) -> list[Output]:
        said = self.controller.on(event)
        for output in said:
            self.log.append((event.t, output))
            if isinstance(output, Plan):
                self.row.take(output, event.t)
        return said

    def second(self) -> None:
        """Every node speaks, then the controller ticks; the nodes act at once."""
        self.t += 1.0
        self.row.act(self.t)
        for heard in self.row.speak(self.t):
            self.on(heard)
        self.on(Tick(self.t))

    def run(self, seconds: int, load_frac: float | None = None, check: Callable[[], None] = lambda: None) -> None:
        if load_frac is not None:
            self.row.load(load_frac)
        for _ in range(seconds):
            self.second()
            check()

    def kinds(self) -> list[EventKind]:
        return [output.kind for _, output in self.log if isinstance(output, Event)]

    def held(self, node: str) -> Setpoint:
        return next(iter(self.row.nodes[node].setpoint.values()))

    def used_frac(self) -> float:
        return self.row.power_w() / self.spec.budget_w


def events(said: list[Output], kind: EventKind | None = None) -> list[Event]:
    return [output for output in said if isinstance(output, Event) and kind in {None, output.kind}]


def plans(said: list[Output]) -> list[Plan]:
    return [output for output in said if isinstance(output, Plan)]
