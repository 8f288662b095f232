"""What an agent shows machines where it is asked to listen: its GPUs as metrics, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from polcad.agent_facts import AgentFacts
from polcad.config import AgentSpec
from polcad.measurements import THROTTLE
from polcad.model import Gpus, InForce, LeaseState, Telemetry
from polcad.web.book import Book
from polcad.web.families import SPANS
from polcad.web.vitals import exposed
from polcad.web.window import Parts, Window, spans

__all__ = ["AgentVitals", "exposed"]

_PERIODS = 3  # without a reading, and telemetry is not fresh
_LEAST_S = 5.0
_CYCLE = "cycle"
_HERTZ = 1e6  # of a megahertz
_COLUMNS: dict[str, tuple[str, float]] = {  # of Gpus, with what a base unit is
    "power_watts": ("power_w", 1.0),
    "utilization_ratio": ("util_frac", 1.0),
    "memory_used_ratio": ("memory_frac", 1.0),
    "sm_clock_hertz": ("sm_mhz", _HERTZ),
    "max_clock_hertz": ("max_mhz", _HERTZ),
    "temperature_celsius": ("temp_c", 1.0),
    "limit_max_watts": ("max_w", 1.0),
    "limit_requested_watts": ("limit_w", 1.0),
    "limit_enforced_watts": ("enforced_w", 1.0),
    "energy_joules_total": ("energy_j", 1.0),
}


@dataclass(frozen=True, slots=True)
class AgentScene:
    """All that one scrape tells, taken at one moment."""

    node: tuple[str, str, str]  # row, rack, name
    facts: AgentFacts
    ready: bool
    window_s: float
    gpus_w: Parts[str]
    cycles_s: Parts[str]

    def laid_out(self) -> Book:
        """The metrics."""
        book, facts = Book(), self.facts
        book.add("polcad_broker_up", (), facts.connected)
        book.add("polcad_ready", (), self.ready)
        book.add("polcad_window_seconds", (), self.window_s)
        book.add_each("agent_", self.node, _of_agent(facts))
        for _, _, most_s in spans(self.cycles_s).values():
            book.add("polcad_agent_cycle_max_seconds", self.node, most_s)
        if facts.last is not None:
            self._add_reading(book, facts.last)
        return book

    def _add_reading(self, book: Book, said: Telemetry) -> None:
        gpus, in_window = said.reading.gpus, spans(self.gpus_w)
        book.add("polcad_node_server_watts", self.node, said.reading.host_power_w)
        for place, uuid in enumerate(gpus.uuid):
            labels = (*self.node, str(place), uuid)
            book.add_each("gpu_", labels, _of_gpu(gpus, place))
            for span, value in zip(SPANS, in_window.get(uuid, ()), strict=False):
                book.add(f"polcad_gpu_power_{span}_watts", labels, value)
            if gpus.throttle and (bits := gpus.throttle[place]) is not None:
                for reason, bit in THROTTLE.items():
                    book.add("polcad_gpu_throttled", (*labels, reason), bool(bits & bit))
            if said.in_force is not None:
                _add_in_force(book, labels, said.in_force, place)
        lease = said.plan.lease if said.plan else LeaseState.NONE
        for state in LeaseState:
            book.add("polcad_agent_lease", (*self.node, state.value), state is lease)
        book.add("polcad_agent_plans_refused_total", self.node, said.plan.refused if said.plan else None)


class AgentVitals:
    """What is watched of one agent, which tells it each of its messages."""

    def __init__(self, spec: AgentSpec, window_s: float, facts: Callable[[], AgentFacts]) -> None:
        self._spec, self._window_s, self._facts = spec, window_s, facts
        self._gpus_w: Window[str] = Window(window_s)
        self._cycles_s: Window[str] = Window(window_s)

    def told(self, said: Telemetry, cycle_s: float) -> None:
        """Take a message that goes out, and how long its cycle took."""
        gpus = said.reading.gpus
        powers = zip(gpus.uuid, gpus.power_w, strict=True)
        self._gpus_w.add(said.t, {uuid: power_w for uuid, power_w in powers if power_w is not None})
        self._cycles_s.add(said.t, {_CYCLE: cycle_s})

    def scene(self) -> AgentScene:
        """What a scrape tells now."""
        node = (self._spec.row, self._spec.rack, self._spec.node_name)
        ready = not self.unready()
        return AgentScene(node, self._facts(), ready, self._window_s, self._gpus_w.parts(), self._cycles_s.parts())

    def stalled(self) -> str:
        """Why the agent's loop counts as standing still; "" while it turns."""
        return self._facts().stalled

    def unready(self) -> list[str]:
        """Why the agent cannot do its work; empty while it can."""
        facts = self._facts()
        return [why for why in ("" if facts.connected else "the broker is not reached", self._blind(facts)) if why]

    def _blind(self, facts: AgentFacts) -> str:
        if facts.last is None:
            return "the GPUs have not been read yet"
        if facts.last_age_s > max(_LEAST_S, _PERIODS * self._spec.period_s):
            return f"the GPUs were last read {facts.last_age_s:.0f} s ago"
        powers = facts.last.reading.gpus.power_w
        return "" if any(power_w is not None for power_w in powers) else f"none of {len(powers)} GPUs can be read"


def _of_agent(facts: AgentFacts) -> Iterator[tuple[str, float | None]]:
    yield "reading_timestamp_seconds", facts.last.t if facts.last else None
    yield "cycles_total", facts.last.seq if facts.last else 0
    yield "complaints_total", facts.complaints
    yield "dropped_messages_total", facts.dropped
    yield "broker_reconnects_total", facts.reconnects
    yield "lease_left_seconds", facts.lease_left_s
    yield "plan_age_seconds", facts.plan_age_s


def _of_gpu(gpus: Gpus, place: int) -> Iterator[tuple[str, float | None]]:
    for name, (column, unit) in _COLUMNS.items():
        values = getattr(gpus, column)
        if values and values[place] is not None:
            yield name, values[place] * unit
    yield "fault", bool(gpus.fault and gpus.fault[place])


def _add_in_force(book: Book, labels: tuple[str, ...], force: InForce, place: int) -> None:
    book.add("polcad_gpu_clock_ratio", labels, force.clock_frac[place])
    book.add("polcad_gpu_cap_ratio", labels, force.cap_frac[place])
    book.add("polcad_gpu_setpoint", (*labels, force.outcome[place].value), 1)
