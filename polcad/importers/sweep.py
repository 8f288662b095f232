"""From single samples to one message a node a period, and what is not believed on the way.

A sweep holds one sample of each GPU: it ends where a GPU comes round again. Power is set aside (it becomes "not known",
never zero) where it is zero, out of range, above twice the board's limit, or a glitch: one reading wide, between two of
the same GPU that deny it. Gaps stay gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from statistics import median
from typing import Annotated, get_args, get_origin, get_type_hints

from polcad.importers.log import Log, Sample
from polcad.model import MAX_GPUS, Gpus, Range

Key = tuple[str, str]  # node, GPU
Sweep = dict[Key, Sample]

_MAX_NODES = 4096
_DEEP_FRAC = 0.1  # of both neighbours: no board idles so low against its busy power
_FALSE_FRAC = 0.5  # of both neighbours, where at the same time …
_FALSE_CLOCK = 1.5  # … the SM clock is this many times that of both: less power at a higher clock
_SPIKE = 2.0  # of a board's limit, for the length of a reading
_PERIOD_SWEEPS = 1000  # from which the period is estimated


def _range_of(hint: object) -> Range | None:
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, Range):
                return note
    return next((found for arg in get_args(hint) if (found := _range_of(arg))), None)


RANGES = {name: found for name, hint in get_type_hints(Gpus, include_extras=True).items() if (found := _range_of(hint))}
RANGES["host_power_w"] = Range(0.0, 1e6)


def sweeps(log: Log, samples: Iterable[Sample]) -> Iterator[Sweep]:
    """The samples in sweeps, with what is impossible in itself already set aside. Time never runs backwards in them."""
    sweep: Sweep = {}
    known: dict[str, set[str]] = {}
    last_t = 0.0
    for sample in samples:
        if not _room(log, sample, known):
            continue
        if sample.t < last_t:
            log.aside(sample.line, sample.gpu or sample.node, "time runs backwards here")
            continue
        key = sample.node, sample.gpu
        if key in sweep:
            yield sweep
            sweep = {}
        last_t = sample.t
        sweep[key] = _possible(log, sample)
    if sweep:
        yield sweep


def _room(log: Log, sample: Sample, known: dict[str, set[str]]) -> bool:
    gpus = known.setdefault(sample.node, set()) if len(known) < _MAX_NODES else known.get(sample.node)
    if gpus is None or (len(gpus) >= MAX_GPUS and sample.gpu not in gpus):
        log.aside(sample.line, sample.gpu or sample.node, f"more than {MAX_GPUS} GPUs or {_MAX_NODES} nodes")
        return False
    gpus.add(sample.gpu)
    return True


def _possible(log: Log, sample: Sample) -> Sample:
    """The sample without the values that cannot be; a missing power is told."""
    for name, value in list(sample.values.items()):
        bounds = RANGES[name]
        if not bounds.ge <= value <= bounds.le:
            _drop(log, sample, name, "out of range")
    limit_w = max(sample.values.get("max_w", 0.0), log.options.gpu_max_w or 0.0)
    for name in ("power_w", "average_w", "host_power_w"):
        power_w = sample.values.get(name)
        if power_w == 0.0:
            _drop(log, sample, name, "a sensor's zero")
        elif power_w and limit_w and power_w > _SPIKE * limit_w:
            _drop(log, sample, name, f"above twice the limit of {limit_w:g} W")
    return sample


def _drop(log: Log, sample: Sample, name: str, why: str) -> None:
    value = sample.values.pop(name)
    log.aside(sample.line, f"{sample.gpu or sample.node} {name}={value:g}".strip(), why)


def without_glitches(log: Log, source: Iterable[Sweep]) -> Iterator[Sweep]:
    """The same sweeps; a reading that both its neighbours deny has lost its power."""
    before: Sweep = {}
    for sweep, after in pairwise(chain(source, [{}])):
        for key, sample in sweep.items():
            if "power_w" in sample.values:
                if _is_glitch(sample, before.get(key), after.get(key)):
                    _drop(log, sample, "power_w", "a glitch: the readings before and after deny it")
                else:
                    before[key] = sample
        yield sweep


def _is_glitch(sample: Sample, before: Sample | None, after: Sample | None) -> bool:
    if before is None or after is None or "power_w" not in after.values:
        return False
    neighbours = (before, after)
    power_w = sample.values["power_w"]
    lowest_w = min(one.values["power_w"] for one in neighbours)
    clocks = [one.values.get("sm_mhz", float("inf")) for one in neighbours]
    faster = sample.values.get("sm_mhz", 0.0) > _FALSE_CLOCK * max(clocks)
    return power_w < _DEEP_FRAC * lowest_w or (faster and power_w < _FALSE_FRAC * lowest_w)


def with_period(source: Iterator[Sweep], default_s: float) -> tuple[float, Iterator[Sweep]]:
    """The median spacing of the first sweeps, and all of them again."""
    first = list(islice(source, _PERIOD_SWEEPS))
    starts = [next(iter(sweep.values())).t for sweep in first]
    spacings = [after - before for before, after in pairwise(starts) if after > before]
    period_s = min(max(round(median(spacings), 4), 0.001), 3600.0) if spacings else default_s
    return period_s, chain(first, source)
