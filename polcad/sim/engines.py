"""The serving kernel behind a few methods: slots that instances are put into, started, set, drained and emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from polcad.cluster.classes import Thresholds
from polcad.cluster.nouns import KINDS, Kind, Shape, Slo
from polcad.cluster.profiles import Profile
from polcad.sim import serving
from polcad.sim.asking import Asked
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints
from polcad.sim.speeds import Speeds, SpeedTable

_REQUESTS = 4096  # slots at first
LOBBY = -1  # where requests wait while nobody serves


class Engines:
    """Up to `slots` instances of one profile. Times of one method never lie before those of an earlier one.

    `by_weight`: requests are dealt in turns, by the weights that `weigh` sets (else evenly), not to who has least work.
    """

    def __init__(self, profile: Profile, slots: int, slo: Mapping[Kind, Slo], *, by_weight: bool = False) -> None:
        self.table = SpeedTable(profile)
        self.world = _world(self.table.speeds, slots + 1, profile.batch_max, slo)._replace(by_weight=by_weight)
        self._lobby = slots
        self._moving: tuple[Asked, Ints, int] | None = None
        self.deal({(): (LOBBY,)})

    def take(self, asked: Asked, kinds: Ints) -> None:
        """The arrivals that the next calls of `advance` will serve; `kinds`: true, and taken for, in two rows."""
        self._moving = (asked, kinds, 0)
        self._make_room(len(asked.arrive_s))

    def advance(self, end_s: float) -> None:
        """Serve up to `end_s`."""
        asked, kinds, first = self._moving or (_NOTHING, np.zeros((2, 0), np.int64), 0)
        last = int(np.searchsorted(asked.arrive_s, end_s))
        lengths = np.stack([asked.prompt, asked.output])
        self._serve(end_s, first, last, (asked.arrive_s, lengths, kinds))
        self._moving = (asked, kinds, last)

    def _serve(self, end_s: float, first: int, last: int, columns: tuple[Floats, Floats, Ints]) -> None:
        serving.advance(end_s, first, last, *columns, self.world)

    def start(self, r: int, t: float, shape: Shape, ready_s: float) -> None:
        """Put an instance into an empty slot; it serves from `ready_s`, and draws power from `t`."""
        one, row = self.world.instances[r], self._row(shape)
        one.since_s = one.paid_s = one.until_s = t
        one.phase, one.weight, one.credit = serving.IDLE, 1.0, 0.0
        serving.retime(r, t, row, ready_s, self.world)

    def weigh(self, weights: Mapping[int, float]) -> None:
        """The shares of the requests that instances are dealt from now on, where `by_weight`."""
        for r, weight in weights.items():
            self.world.instances[r].weight = weight

    def retime(self, r: int, t: float, shape: Shape, stands_s: float) -> None:
        """Set another shape of the same parallelism; the instance stands still for `stands_s`."""
        ready_s = max(t + stands_s, float(self.world.instances[r].ready_s))
        serving.retime(r, t, self._row(shape), ready_s, self.world)

    def deal(self, pools: Mapping[tuple[Kind, ...], Sequence[int]]) -> None:
        """Who serves the kinds from now on; kinds that are not named, and pools without anybody, go to the lobby."""
        groups = [[self._lobby]] + [[self._lobby if r == LOBBY else r for r in slots] for slots in pools.values()]
        start = np.cumsum([0, *map(len, groups)])
        pool_of = np.zeros(len(KINDS), np.int64)
        for place, kinds in enumerate(pools):
            pool_of[[KINDS.index(kind) for kind in kinds]] = place + 1
        members = np.array([r for group in groups for r in group], np.int64)
        self.world = self.world._replace(start=start.astype(np.int64), members=members, pool_of=pool_of)

    def drain(self, r: int, t: float) -> None:
        """Deal anew what waits at an instance that `deal` no longer names."""
        serving.evict(r, t, False, True, self.world)  # numba takes no keywords

    def empty(self, r: int, t: float, kept: bool) -> None:
        """Deal anew all that an instance has, and switch it off; `kept`: its memory comes along."""
        serving.evict(r, t, True, kept, self.world)
        one = self.world.instances[r]
        one.phase, one.power_w, one.until_s, one.ready_s = serving.OFF, 0.0, np.inf, 0.0

    def leave_lobby(self, t: float) -> None:
        """Deal what waited while nobody served."""
        if self.world.instances[self._lobby].waiting:
            serving.evict(self._lobby, t, False, True, self.world)

    def crowded(self, tokens: float) -> list[int]:
        """Who has more than so many tokens of prompts waiting."""
        waits = self.world.instances.waiting_tokens[self.world.members] > tokens
        return sorted(set(self.world.members[waits].tolist()) - {self._lobby})

    def idlest(self, n: int) -> list[int]:
        """So many of those who serve, those with least to read first."""
        members = np.array(sorted(set(self.world.members.tolist()) - {self._lobby}), np.int64)
        instances = self.world.instances
        work = instances.waiting_tokens[members] + instances.reading_tokens[members]
        idlest: list[int] = members[np.argsort(work, kind="stable")[:n]].tolist()
        return idlest

    def waiting(self, r: int) -> list[int]:
        """The requests that wait at an instance, by their slots, in order."""
        found, q = list[int](), int(self.world.instances[r].first)
        for _ in range(int(self.world.instances[r].waiting)):
            found.append(q)
            q = int(self.world.requests[q].next)
        return found

    def queue(self, r: int, t: float) -> tuple[Floats, Floats, float]:
        """Of those that wait: s left to the objective of their first token, and tokens; when the first may begin, s."""
        one = self.world.instances[r]
        waits: serving.Records = self.world.requests[self.waiting(r)]  # type: ignore[assignment]  # numpy keeps the kind
        left_s = waits.arrive_s + self.world.tally.ttft_slo_s[waits.guess] - t
        busy_s = max(0.0, float(one.until_s) - t) if one.phase == serving.PROMPT else 0.0
        return np.where(np.isnan(waits.first_s), left_s, np.inf), waits.to_read.astype(np.float64), busy_s

    def requeue(self, r: int, waiting: Sequence[int]) -> None:
        """Only these wait at an instance, in this order."""
        one, requests = self.world.instances[r], self.world.requests
        for q, behind in pairwise([*waiting, -1]):
            requests[q].next = behind
        one.first, one.last = (waiting[0], waiting[-1]) if waiting else (-1, -1)
        one.waiting, one.waiting_tokens = len(waiting), float(requests.to_read[list(waiting)].sum())

    def enqueue(self, r: int, q: int, t: float) -> None:
        """Let a request wait at an instance."""
        serving.run(r, t, self.world)
        serving.enqueue(r, q, t, self.world)

    def drop(self, q: int) -> None:
        """Forget a request that waits nowhere."""
        self.world.tally.dropped[self.world.requests[q].kind] += 1
        serving.let_go(q, self.world)

    def busy(self, r: int) -> bool:
        """Whether an instance has any request."""
        one = self.world.instances[r]
        return bool(one.active + one.reading + one.waiting)

    @property
    def under_way(self) -> int:
        """Requests that have arrived and not ended."""
        return len(self.world.free) - int(self.world.free_count[0])

    @property
    def dropped(self) -> int:
        """Requests that nobody had room for."""
        return int(self.world.tally.dropped.sum())

    def energy_j(self) -> float:
        """What all drew so far."""
        return float(self.world.phase_j.sum())

    def _row(self, shape: Shape) -> int:
        row = self.table.row(shape)
        if self.world.speeds is not self.table.speeds:
            self.world = self.world._replace(speeds=self.table.speeds)
        return row

    def _make_room(self, requests: int) -> None:
        """Double the slots of requests until so many are free."""
        while (free := int(self.world.free_count[0])) < requests:
            slots = len(self.world.free)
            self.world = self.world._replace(
                requests=np.concatenate([self.world.requests, _records(serving.REQUEST, slots)]).view(np.recarray),
                free=np.concatenate([self.world.free[:free], np.arange(slots, 2 * slots), self.world.free[free:]]),
                free_count=np.array([free + slots], np.int64),
            )


_NOTHING = Asked(np.zeros(0), np.zeros(0), np.zeros(0))


def kinds_of(asked: Asked, thresholds: Thresholds) -> Ints:
    """The true kind of each request."""
    return thresholds.places(asked.prompt, asked.output).astype(np.int64)


def _world(speeds: Speeds, slots: int, batch_max: int, slo: Mapping[Kind, Slo]) -> serving.World:
    """Nobody serves, nothing was asked."""
    instances, tally = _records(serving.INSTANCE, slots), _records(serving.TALLY, len(KINDS))
    instances.phase, instances.until_s, instances.next_end = serving.OFF, np.inf, np.inf
    tally.ttft_slo_s = [slo[kind].ttft_s for kind in KINDS]
    tally.tbt_slo_s = [slo[kind].tbt_s for kind in KINDS]
    return serving.World(
        speeds=speeds,
        instances=instances,
        member=np.full((slots, batch_max), -1, np.int64),
        ends_at=np.full((slots, batch_max), np.inf),
        requests=_records(serving.REQUEST, _REQUESTS),
        free=np.arange(_REQUESTS, dtype=np.int64),
        free_count=np.array([_REQUESTS], np.int64),
        start=np.zeros(2, np.int64),
        members=np.zeros(1, np.int64),
        pool_of=np.zeros(len(KINDS), np.int64),
        by_weight=False,
        tally=tally,
        ttft=np.zeros((len(KINDS), serving.BINS), np.int64),
        tbt=np.zeros((len(KINDS), serving.BINS), np.int64),
        whole=np.zeros((len(KINDS), serving.BINS), np.int64),
        phase_j=np.zeros(serving.PHASES),
    )


def _records(kind: np.dtype[Any], n: int) -> serving.Records:
    return np.zeros(n, kind).view(np.recarray)
