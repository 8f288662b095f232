"""DynamoLLM's cluster level: how many instances of what shape serve each kind of request for the least energy.

A candidate is a whole number of instances of one shape for one pool, with the lowest-energy clock at which its share of
the load keeps the objectives (TTFT and TBT of the slowest hundredth). HiGHS picks one for every kind:

    minimise    sum of power, of GPUs left over in servers too + what changing costs
    so that     each kind is served by one pool, the GPUs suffice, and the row's power does

A pool may serve several kinds next to each other in size: an under-loaded one merges upwards into the next larger. The
cost of changing is that energy over `payback_frac` x (epoch - transition), so a change is made only if it pays back.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf

import numpy as np

from polcad.cluster.nouns import KINDS, Demand, Kind, Running, Shape, Slo, name_of
from polcad.cluster.profiles import Profile
from polcad.cluster.steady import Instance, highest_rate
from polcad.places import Floats

_COUNTS = 24  # instances tried at once, twice
_WIDEST = 4  # times the least instances that could be stable
_REL_GAP = 1e-3
_POWER_ROUNDING = 1e-5  # of the power: the solver's tolerance must not take the row above it
NO_SLO = Slo(inf, inf)  # of a kind that has no objective
_SOLVER_S = 2.0  # of the wall clock: a busy machine must not end it early; hundreds of servers take hundredths


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a sizing may use, and how careful it is."""

    gpus: int
    power_w: float  # inf: no bound
    clocks_frac: tuple[float, ...]
    tensor_parallels: tuple[int, ...]
    epoch_s: float
    payback_frac: float
    slo_margin: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What each kind asks for, and what is there."""

    demand: Mapping[Kind, Demand]
    slo: Mapping[Kind, Slo]
    pools: Mapping[str, Running] = field(default_factory=dict)
    blind: bool = False  # kinds are not told apart: all requests count as the mean one, with the mean objective

    def mix(self, kinds: Sequence[Kind]) -> tuple[list[Demand], list[Slo]]:
        """Of the kinds that have load: requests and objectives."""
        loaded = [kind for kind in kinds if kind in self.demand and self.demand[kind].requests_per_s > 0.0]
        mix, slos = [self.demand[kind] for kind in loaded], [self.slo.get(kind, NO_SLO) for kind in loaded]
        return _as_one(mix, slos) if self.blind and mix else (mix, slos)


def _as_one(mix: Sequence[Demand], slos: Sequence[Slo]) -> tuple[list[Demand], list[Slo]]:
    """The mean request, and the mean objective."""
    demand = together(mix)
    shares = [each.requests_per_s / demand.requests_per_s for each in mix]
    ttft_s, tbt_s = (
        sum(share * getattr(slo, name) for share, slo in zip(shares, slos, strict=True)) for name in ("ttft_s", "tbt_s")
    )
    return [demand], [Slo(ttft_s, tbt_s)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to serve some kinds."""

    kinds: tuple[Kind, ...]
    instances: int
    shape: Shape
    demand: Demand
    power_w: float  # of all instances, under `demand`
    change_w: float = 0.0  # what changing to it costs, spread over the time in which it must pay back

    @property
    def pool(self) -> str:
        """Merged pools go by their largest kind."""
        return name_of(self.kinds[-1])

    @property
    def gpus(self) -> int:
        """Of all instances."""
        return self.instances * self.shape.tensor_parallel


class Sizing:
    """Candidates of one profile within bounds, and the choice among them."""

    def __init__(self, profile: Profile, bounds: Bounds) -> None:
        self._profile, self._bounds = profile, bounds
        self._instances = {tp: Instance(profile, tp, bounds.clocks_frac) for tp in bounds.tensor_parallels}

    def attainable(self, asked: Asked) -> tuple[dict[Kind, Slo], list[Kind]]:
        """The objectives, eased for kinds that no instance keeps at a fifth of its load; and which those are."""
        slo, eased = {kind: asked.slo.get(kind, NO_SLO) for kind in KINDS}, list[Kind]()
        margin = self._bounds.slo_margin
        for kind, demand in asked.demand.items():
            outcomes = [
                instance.under((demand,), np.array([_FIFTH * highest_rate(self._profile, tp, (demand,))]))
                for tp, instance in self._instances.items()
            ]
            if not any(one.keep((slo[kind],), margin).any() for one in outcomes):
                ttft_s, tbt_s = (min(float(getattr(o, n).min()) for o in outcomes) for n in ("ttft_p99_s", "tbt_p99_s"))
                slo[kind] = Slo(max(slo[kind].ttft_s, 2 * ttft_s), max(slo[kind].tbt_s, 2 * tbt_s))
                eased.append(kind)
        return slo, eased

    def choose(
        self, asked: Asked, groups: Sequence[tuple[Kind, ...]], merge_gpus: int | None
    ) -> list[Candidate] | None:
        """One candidate for every kind, of the least energy; None where GPUs or power do not suffice.

        `groups`: the sets of kinds that may have a pool; those that need no more than `merge_gpus` (None: none) may
        also merge upwards.
        """
        ways = {kinds: self.candidates(asked, kinds) for kinds in groups}
        if merge_gpus is not None:
            small = {kinds[0] for kinds in groups if any(way.gpus <= merge_gpus for way in ways[kinds])}
            ways |= {kinds: self.candidates(asked, kinds) for kinds in _merged(small)}
        candidates = [way for kinds in ways for way in ways[kinds]]
        chosen = _solve(candidates, self._bounds, self._profile)
        return None if chosen is None else [candidates[place] for place in chosen]

    def candidates(self, asked: Asked, kinds: tuple[Kind, ...]) -> list[Candidate]:
        """The ways to serve these kinds that keep their objectives; none that needs more GPUs and more power."""
        mix, slos = asked.mix(kinds)
        found = [each for tp in self._instances for each in self._of_shape(kinds, mix, slos, tp)]
        costed = [self._with_change(each, asked.pools) for each in found]
        return list(_undominated(costed, self._profile.unused_w))

    def with_gpus(self, asked: Asked, kinds: tuple[Kind, ...], gpus: int, least: int) -> list[Candidate]:
        """The ways to serve these kinds with no more GPUs and no fewer instances; none for nothing."""
        mix, slos = asked.mix(kinds)
        return [
            each
            for tp in self._instances
            if mix
            for each in self._evaluate(kinds, mix, slos, tp, _counts(least, gpus // tp))
        ]

    def _of_shape(
        self, kinds: tuple[Kind, ...], mix: list[Demand], slos: list[Slo], tensor_parallel: int
    ) -> list[Candidate]:
        most = self._bounds.gpus // tensor_parallel
        rate = sum(each.requests_per_s for each in mix)
        least = max(1, ceil(rate / highest_rate(self._profile, tensor_parallel, mix))) if mix else 1
        if least > most:
            return []
        counts = _counts(least, min(most, _WIDEST * least + _COUNTS))
        found = self._evaluate(kinds, mix, slos, tensor_parallel, counts)
        if not mix or not found or found[0].instances == counts[0]:
            return found
        before = int(counts[counts < found[0].instances].max())  # the fewest that suffice lie between
        between = _counts(before + 1, found[0].instances - 1)
        return self._evaluate(kinds, mix, slos, tensor_parallel, between) + found

    def _evaluate(
        self, kinds: tuple[Kind, ...], mix: list[Demand], slos: list[Slo], tensor_parallel: int, counts: Floats
    ) -> list[Candidate]:
        """For each number of instances the clock of least power that keeps the objectives, if one does."""
        demand = together(mix)
        if not mix:
            shape = Shape(tensor_parallel, self._bounds.clocks_frac[-1])
            return [Candidate(kinds, 1, shape, demand, self._profile.idle_w(shape))]
        if not len(counts):
            return []
        outcomes = self._instances[tensor_parallel].under(mix, demand.requests_per_s / counts)
        kept_w = np.where(outcomes.keep(slos, self._bounds.slo_margin), outcomes.power_w, inf)
        clock, least_w = kept_w.argmin(axis=0), kept_w.min(axis=0)
        return [
            Candidate(
                kinds,
                int(counts[n]),
                Shape(tensor_parallel, self._bounds.clocks_frac[int(clock[n])]),
                demand,
                float(counts[n] * least_w[n]),
            )
            for n in np.isfinite(least_w).nonzero()[0]
        ]

    def _with_change(self, each: Candidate, pools: Mapping[str, Running]) -> Candidate:
        """The same, with what it costs to come from what runs now; nothing while nothing runs."""
        if not pools:
            return each
        now = [pools[name] for kind in each.kinds if (name := name_of(kind)) in pools]
        return replace(each, change_w=change_w(self._profile, now, each, self._bounds))


_FIFTH = 0.2  # of the highest load: an objective kept below that alone would cost five times the instances


def _merged(small: Container[Kind]) -> list[tuple[Kind, ...]]:
    """Two kinds and more, next to each other in size, of which all but the largest are small."""
    return [
        KINDS[first : last + 1]
        for last in range(1, len(KINDS))
        for first in range(last)
        if all(kind in small for kind in KINDS[first:last])
    ]


def together(mix: Sequence[Demand]) -> Demand:
    """Several kinds as one."""
    total = Demand()
    for each in mix:
        total = total.plus(each)
    return total


def change_w(profile: Profile, now: Sequence[Running], to: Candidate, bounds: Bounds) -> float:
    """What a change draws without serving, spread over the time in which it must pay back, W.

    GPUs that are added draw their idle power while they start, those with another parallelism while they are reshaped.
    """
    there = sum((one.instances + one.starting) * one.shape.tensor_parallel for one in now)
    alike = sum(
        (one.instances + one.starting) * one.shape.tensor_parallel
        for one in now
        if one.shape.tensor_parallel == to.shape.tensor_parallel
    )
    added, reshaped = max(0, to.gpus - there), max(0, min(to.gpus, there) - alike)
    lasts_s = profile.start_s if added else profile.reshape_s if reshaped else 0.0
    gpu_w = profile.idle_w(to.shape) / to.shape.tensor_parallel
    change_j = gpu_w * (added * profile.start_s + reshaped * profile.reshape_s)
    return change_j / (bounds.payback_frac * max(bounds.epoch_s - lasts_s, 1.0))


def _counts(least: int, most: int) -> Floats:
    """Whole numbers from `least` to `most`: all where they are few, else evenly by ratio."""
    if most < least:
        return np.empty(0)
    if most - least < _COUNTS:
        return np.arange(least, most + 1, dtype=np.float64)
    return np.unique(np.round(np.geomspace(least, most, _COUNTS)))


def _undominated(candidates: Sequence[Candidate], unused_w: float) -> Iterator[Candidate]:
    """Those that no other beats in GPUs, power and cost alike: by rising GPUs, power or cost must fall.

    A GPU that is used saves `unused_w` that it may draw else, so costs are counted above that.
    """
    least_w = least_cost_w = inf
    for each in sorted(candidates, key=lambda one: (one.gpus, one.power_w + one.change_w)):
        cost_w = each.power_w + each.change_w - unused_w * each.gpus
        if each.power_w < least_w or cost_w < least_cost_w:
            least_w, least_cost_w = min(least_w, each.power_w), min(least_cost_w, cost_w)
            yield each


def _solve(candidates: Sequence[Candidate], bounds: Bounds, profile: Profile) -> list[int] | None:
    """The places of the candidates of least power and cost that serve each kind once; None where none fit.

    Servers are the last unknown: as many as hold all GPUs, and those of them that are not used draw power too.
    """
    from scipy.optimize import Bounds as Limits  # type: ignore[import-untyped]  # noqa: PLC0415  # no stubs; 0.3 s
    from scipy.optimize import LinearConstraint, milp  # noqa: PLC0415
    from scipy.sparse import csr_array  # type: ignore[import-untyped]  # noqa: PLC0415

    served = np.array([[kind in each.kinds for each in candidates] for kind in KINDS], dtype=float)
    if not candidates or not served.any(axis=1).all():
        return None
    served = np.column_stack([served, np.zeros(len(KINDS))])
    gpus = np.array([*(each.gpus for each in candidates), 0.0])
    spare = np.array([*-gpus[:-1], profile.server_gpus])  # GPUs that servers have beside those of candidates
    power_w = np.array([*(each.power_w for each in candidates), 0.0]) + profile.unused_w * spare
    change_w = np.array([*(each.change_w for each in candidates), 0.0])
    most = np.array([bounds.gpus, bounds.power_w])
    scale = np.where(np.isfinite(most), 1.0 / np.maximum(most, 1.0), 0.0)  # both to 1: the solver's tolerances
    servers = float(gpus.sum() / profile.server_gpus + 1)
    solved = milp(
        (power_w + change_w) / 1000.0,
        integrality=np.ones(len(gpus)),
        bounds=Limits(0, [*np.ones(len(candidates)), servers]),
        constraints=[
            LinearConstraint(csr_array(served), 1, 1),
            LinearConstraint(csr_array(np.array([gpus, power_w]) * scale[:, None]), -inf, [1.0, 1.0 - _POWER_ROUNDING]),
            LinearConstraint(csr_array(spare[None, :]), 0, inf),
        ],
        options={"mip_rel_gap": _REL_GAP, "time_limit": _SOLVER_S},
    )
    return None if solved.x is None else [int(place) for place in np.flatnonzero(solved.x[:-1] > 0.5)]  # noqa: PLR2004  # whole, but for rounding
