"""From sweeps to `Telemetry` as a bare meter would have sent it: no plan, nothing in force, the log's own times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain, count

from polcad.importers.log import Log, Sample
from polcad.importers.sweep import Sweep
from polcad.model import Gpus, PowerKind, Reading, Telemetry
from polcad.wire import Address, Message, encode

_STEM = 59  # characters of a name that leave room for a number below 10 000 in the 64 of `model.Name`
_GAP_PERIODS = 3  # as many as the guard waits before a node is stale
_OPTIONAL = tuple(item.name for item in fields(Gpus) if item.default == () and item.name != "fault")
_NO_POWER = "no power in the log that can be used"


class Meters:
    """The nodes of one log, and what was counted of them."""

    def __init__(self, log: Log, period_s: float) -> None:
        self.samples = 0
        self.count = 0
        self.gaps = 0
        self._log, self._period_s = log, period_s
        self._nodes: dict[str, _Meter] = {}
        self._names: set[str] = set()

    @property
    def nodes(self) -> int:
        """How many nodes sent something."""
        return len(self._nodes)

    @property
    def gpus(self) -> int:
        """How many GPUs they have."""
        return sum(len(meter.max_w) for meter in self._nodes.values())

    def messages(self, sweep: Sweep) -> Iterator[tuple[float, Message]]:
        """What the nodes of a sweep say, in the order of their times."""
        nodes: dict[str, dict[str, Sample]] = {}
        for (node, gpu), sample in sweep.items():
            nodes.setdefault(node, {})[gpu] = sample
        for node, samples in nodes.items():
            first = next(iter(samples.values()))
            if set(samples) == {""} and "host_power_w" not in first.values:
                continue  # a message without any power would say that the node lives and draws nothing
            yield first.t, self._message(self._meter(node), first, samples)

    def _meter(self, node: str) -> _Meter:
        if node not in self._nodes:
            name = sanitised(node or self._log.options.node or self._log.path.name.split(".", 1)[0])
            self._nodes[node] = _Meter(self._unlike_others(name), self._log.options.gpu_max_w)
        return self._nodes[node]

    def _unlike_others(self, name: str) -> str:
        """The name, or one made of it that no other node has."""
        free = chain([name], (f"{name[:_STEM]}-{number}" for number in count(len(self._names))))
        found = next(each for each in free if each not in self._names)
        self._names.add(found)
        return found

    def _message(self, meter: _Meter, first: Sample, samples: dict[str, Sample]) -> Message:
        self._tell_gap(meter, first)
        self._tell_missing(meter, first, samples)
        meter.last_t = first.t
        telemetry = meter.telemetry(first, samples, self._period_s)
        self.count += 1
        powers = (*telemetry.reading.gpus.power_w, telemetry.reading.host_power_w)
        self.samples += sum(power_w is not None for power_w in powers)
        return encode(Address("import", self._log.options.row, "telemetry", "rack", meter.name), telemetry)

    def _tell_gap(self, meter: _Meter, first: Sample) -> None:
        silent_s = first.t - meter.last_t if meter.last_t is not None else 0.0
        if silent_s > _GAP_PERIODS * self._period_s:
            self.gaps += 1
            periods = silent_s / self._period_s
            self._log.note(first.line, f"{meter.name}: a gap of {silent_s:.1f} s ({periods:.1f} periods) ends here")

    def _tell_missing(self, meter: _Meter, first: Sample, samples: dict[str, Sample]) -> None:
        missing = meter.max_w.keys() - samples.keys()
        for gpu in sorted(missing - meter.missing):
            self._log.note(first.line, f"{meter.name}: {gpu} is missing from here on")
        meter.missing = missing


class _Meter:
    """One node of a log."""

    def __init__(self, name: str, gpu_max_w: float | None) -> None:
        self.name = name
        self.seq = 0
        self.last_t: float | None = None
        self.max_w: dict[str, float | None] = {}  # by GPU, in the order they were first seen
        self.missing: set[str] = set()
        self._gpu_max_w = gpu_max_w

    def telemetry(self, first: Sample, samples: dict[str, Sample], period_s: float) -> Telemetry:
        host = samples.get("")
        for gpu, sample in samples.items():
            if gpu:
                self.max_w[gpu] = sample.values.get("max_w", self.max_w.get(gpu, self._gpu_max_w))
        reading = Reading(
            gpus=self._gpus([samples.get(gpu) for gpu in self.max_w]),
            kind=first.kind if not host else PowerKind.INSTANT,
            host_power_w=host.values.get("host_power_w") if host else None,
        )
        self.seq += 1
        return Telemetry(self.name, "import", self.seq - 1, first.t, period_s, reading)

    def _gpus(self, samples: list[Sample | None]) -> Gpus:
        """The columns; a GPU that this sweep lacks stays, with nothing known."""
        values = [sample.values if sample else {} for sample in samples]
        power_w = tuple(one.get("power_w") for one in values)
        optional = {
            name: tuple(one.get(name) for one in values) for name in _OPTIONAL if any(name in one for one in values)
        }
        if "throttle" in optional:
            optional["throttle"] = tuple(None if bits is None else int(bits) for bits in optional["throttle"])
        fault = tuple(_NO_POWER if one is None else None for one in power_w) if None in power_w else ()
        return Gpus(tuple(self.max_w), power_w, tuple(self.max_w.values()), fault=fault, **optional)  # type: ignore[arg-type]  # columns by name, each checked against its range


def sanitised(name: str) -> str:
    """A name that the wire takes: lower case, letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")[:64] or "node"
