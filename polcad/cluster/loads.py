"""What the instances of a site's pools said last, and how much of that is still worth believing.

An instance is *fresh* when its engine told its rates within `stale_after_s`; *stale* when it has not since, and counts
what it told last; *gone* after `gone_after_s`, or when it says that it ended. One that speaks without ever having told
a rate is *starting*: its model is being loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from polcad.cluster.nouns import Running, Shape
from polcad.errors import WireError
from polcad.model import PoolLoad
from polcad.spec import HintSpec

MAX_INSTANCES = 4096  # names made up by a flood must not grow without end


@dataclass(slots=True)
class _Instance:
    heard_t: float
    told_t: float = float("-inf")  # when it last told its rates
    load: PoolLoad | None = None  # the last that told them
    tensor_parallel: int = 1


@dataclass(frozen=True, slots=True)
class Sight:
    """The pools at one moment."""

    loads: tuple[PoolLoad, ...]  # of fresh and stale instances, as last told
    stale: tuple[str, ...]  # POOL/INSTANCE
    running: Mapping[str, Running]
    measured_t: float | None  # when the oldest of `loads` arrived; None: there is none


class Loads:
    """The instances of all pools; times are the daemon's, of arrival."""

    def __init__(self, spec: HintSpec) -> None:
        self._spec = spec
        self._instances: dict[tuple[str, str], _Instance] = {}

    def hear(self, t: float, load: PoolLoad) -> None:
        """Take a message; WireError when there are too many instances already."""
        key = (load.pool, load.instance)
        if load.ended:
            self._instances.pop(key, None)
            return
        if key not in self._instances and len(self._instances) >= MAX_INSTANCES:
            raise WireError(f"instance {load.pool}/{load.instance}: more than {MAX_INSTANCES} instances are not kept")
        known = self._instances.setdefault(key, _Instance(t))
        known.heard_t, known.tensor_parallel = t, load.tensor_parallel
        if tells(load):
            known.told_t, known.load = t, _with_lengths(load, known.load)

    def look(self, t: float) -> Sight:
        """All that is known at `t`; what is gone is forgotten."""
        self._forget(t)
        told = {key: known for key, known in self._instances.items() if known.load is not None}
        stale = (key for key, known in told.items() if t - known.told_t > self._spec.stale_after_s)
        return Sight(
            loads=tuple(known.load for known in told.values() if known.load is not None),
            stale=tuple(sorted("/".join(key) for key in stale)),
            running=_running(self._instances),
            measured_t=min((known.told_t for known in told.values()), default=None),
        )

    def _forget(self, t: float) -> None:
        for key, known in list(self._instances.items()):
            if t - known.heard_t > self._spec.gone_after_s:
                del self._instances[key]
            elif t - known.told_t > self._spec.gone_after_s:
                known.load = None  # it answers no more, though what stands beside it still speaks


def tells(load: PoolLoad) -> bool:
    """Whether a load tells enough to plan by."""
    return None not in {load.requests_per_s, load.prompt_tokens_per_s, load.output_tokens_per_s}


def _with_lengths(load: PoolLoad, before: PoolLoad | None) -> PoolLoad:
    """While no request ends, lengths are those of the last that did."""
    if before is None:
        return load
    return replace(load, prompt=load.prompt or before.prompt, output=load.output or before.output)


def _running(instances: Mapping[tuple[str, str], _Instance]) -> dict[str, Running]:
    pools: dict[str, list[_Instance]] = {}
    for (pool, _), known in instances.items():
        pools.setdefault(pool, []).append(known)
    return {pool: _as_one(members) for pool, members in sorted(pools.items())}


def _as_one(members: Iterable[_Instance]) -> Running:
    """A pool in one shape: the most common one, where it is being changed."""
    shapes = Counter(member.tensor_parallel for member in members)
    serving = sum(member.load is not None for member in members)
    return Running(serving, Shape(shapes.most_common(1)[0][0]), shapes.total() - serving)
