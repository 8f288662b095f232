"""The hint desk: loads of serving pools come in, hints how to shape them go out. It knows nothing of MQTT, nor of time.

Each period `look` gives what is to be said of what has changed by itself, `question` what a policy is to see, and
`answer` turns its plans into hints. A hint is said again only when it changes, or when half of its life is over; what
is no longer planned is taken back. While any instance's load is stale, or instances may not have spoken yet, nothing
new is said, and hints that stand run out. So it is when a policy fails, or asks for more GPUs or power than there are:
the desk checks that itself. A pool that another row's daemon hints is left to it. Hints that the broker kept are this
desk's own if they bear its row's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from polcad.cluster.loads import Loads, Sight
from polcad.cluster.nouns import KINDS, ClusterView, Demand, Kind, Member, PoolPlan, Running, Shape, Slo
from polcad.cluster.ports import Estimating, HintPolicy
from polcad.cluster.prediction import Prediction
from polcad.cluster.sorting import Sorter, demand_of
from polcad.model import MAX_WEIGHTS, NAME_PATTERN, Event, EventKind, Hint, PoolLoad
from polcad.spec import HintSpec

_SLACK_FRAC = 1e-6  # of a bound, for sums of floats
_SHIFT_FRAC = 0.1  # of an even share: a weight that moved less is not worth a new hint
_NAMED = 3  # stale instances that are named where there are more
_NOTE = 512
_MOST_PER_S = 1e9  # of `model.Hint`


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A pool whose hint is to be removed."""

    pool: str


Said = Hint | TakenBack | Event


class HintDesk:
    """The hints of one row's daemon; `t` is the daemon's time."""

    def __init__(self, spec: HintSpec, row: str, policy: HintPolicy, gpus: int) -> None:
        self._spec, self._row, self._policy = spec, row, policy
        self._gpus = gpus
        self._loads, self._sorter = Loads(spec), Sorter()
        self._prediction = Prediction(ahead_s=spec.horizon_s)
        self._standing: dict[str, Hint] = {}
        self._kept: set[str] = set()  # pools whose hint the broker is known to keep
        self._kinds: dict[str, tuple[Kind, ...]] = {}  # by pool, of the last plans
        self._listens_t: float | None = None  # since when all that is said is heard
        self._seen = Sight((), (), {}, None)
        self._held = False  # it was told that nothing new is said

    def begin(self, t: float) -> None:
        """From now on all that is said is heard; before, some was lost, and the broker may have forgotten hints."""
        self._listens_t = t
        self._kept.clear()

    def hear(self, t: float, load: PoolLoad) -> None:
        """Take what an instance says; WireError when there are too many of them."""
        self._loads.hear(t, load)

    def learn(self, pool: str, hint: Hint | None) -> None:
        """What the broker keeps for a pool."""
        if hint is not None:
            self._standing[pool] = hint
            self._kept.add(pool)
        else:
            self._standing.pop(pool, None)

    def standing(self, t: float) -> tuple[Hint, ...]:
        """The hints of this row that hold at `t`, by pool."""
        return tuple(hint for hint in self._mine() if hint.expires_t > t)

    def look(self, t: float) -> list[Said]:
        """Look at the pools; what is to be said of hints that ran out, and of loads that are not to be planned by."""
        self._seen = self._loads.look(t)
        gone = [hint for hint in self._mine() if hint.expires_t <= t]
        doubt = self._doubt(t)
        return [*self._take_back(t, gone, "it ran out"), *(self.hold(t, doubt) if doubt else [])]

    def question(
        self, t: float, power_budget_w: float, cap_clock_frac: float, clocks_frac: Mapping[str, float] | None = None
    ) -> ClusterView | None:
        """What the policy is to see after a `look`; None while there is nothing, or nothing sure, to plan by.

        `clocks_frac`: by pool, the clock in force, where it is known.
        """
        seen = self._seen
        if not seen.loads or self._doubt(t):
            return None
        demand = self._sorter.demand(t, seen.loads, self._kinds)
        self._prediction.observe(t, demand)
        peak = self._prediction.peak()
        own_w, slo = self._spec.power_budget_w, _objectives(self._spec, peak)
        return ClusterView(
            t=t,
            gpus=self._gpus,
            demand=demand,
            peak=peak,
            slo=slo,
            pools=_at_clocks(seen.running, clocks_frac or {}),
            power_budget_w=power_budget_w if own_w is None else own_w,
            cap_clock_frac=cap_clock_frac,
            late=_late(seen.loads, slo, self._kinds),
            slowest=_slowest(seen.loads, self._kinds),
            measured_t=seen.measured_t,
            members=_members(seen.loads),
        )

    def answer(self, view: ClusterView, plans: Sequence[PoolPlan]) -> list[Said]:
        """What is to be said now that the policy has answered."""
        if excess := _excess(view, plans):
            return [*self.hold(view.t, excess)]
        out: list[Said] = [*self._resume(view.t)]
        self._kinds = {plan.pool: plan.kinds for plan in plans}
        for plan in plans:
            out += self._say(view, plan)
        return [*out, *self._take_back(view.t, [hint for hint in self._mine() if hint.pool not in self._kinds], "")]

    def hold(self, t: float, why: str) -> list[Event]:
        """Say nothing new, because of `why`; it is told once, where hints stand."""
        if self._held or not (standing := self.standing(t)):
            return []
        self._held = True
        left_s = min(hint.expires_t for hint in standing) - t
        said = f"{why}: hints that stand are not renewed, and run out from {left_s:.0f} s on"
        return [Event(t, EventKind.HINTS_HELD, "row", said[:_NOTE])]

    def _resume(self, t: float) -> list[Event]:
        held, self._held = self._held, False
        return [Event(t, EventKind.HINTS_RESUMED, "row")] if held else []

    def _mine(self) -> list[Hint]:
        return sorted((hint for hint in self._standing.values() if hint.row == self._row), key=lambda hint: hint.pool)

    def stale(self) -> str:
        """Whose news is missing, as last looked at; "" where nobody's is."""
        stale = self._seen.stale
        more = f" and {len(stale) - _NAMED} more" if len(stale) > _NAMED else ""
        return f"no news of {', '.join(stale[:_NAMED])}{more} for {self._spec.stale_after_s:g} s" if stale else ""

    def _doubt(self, t: float) -> str:
        """Why the loads are not to be planned by; "" when they are."""
        heard_all = self._listens_t is not None and t - self._listens_t >= self._spec.stale_after_s
        return self.stale() or ("" if heard_all else "instances may not have spoken yet")

    def _say(self, view: ClusterView, plan: PoolPlan) -> list[Said]:
        """The pool's hint, where it is news."""
        before = self._standing.get(plan.pool)
        if before is not None and before.expires_t <= view.t:
            before = None
        if before is not None and before.row != self._row:
            return []
        hint = self._hint(view, plan)
        young = before is not None and view.t < (before.t + before.expires_t) / 2
        if before is not None and young and _same(before, hint) and plan.pool in self._kept:
            return []
        self._standing[plan.pool] = hint
        self._kept.add(plan.pool)
        return [hint] if before is not None and _counts(before) == _counts(hint) else [hint, _event(hint, before)]

    def _take_back(self, t: float, gone: Iterable[Hint], why: str) -> list[Said]:
        out: list[Said] = []
        for hint in gone:
            del self._standing[hint.pool]
            what = why or "its pool is no longer planned"
            out += [TakenBack(hint.pool), Event(t, EventKind.HINT_END, f"pool/{hint.pool}", what)]
        return out

    def _hint(self, view: ClusterView, plan: PoolPlan) -> Hint:
        requests_per_s, tokens_per_s = _rates_per_s(plan.demand)
        return Hint(
            pool=plan.pool,
            row=self._row,
            t=view.t,
            expires_t=view.t + self._spec.life_s,
            instances=plan.instances,
            tensor_parallel=plan.shape.tensor_parallel,
            clock_frac=plan.shape.clock_frac,
            horizon_s=self._spec.horizon_s,
            requests_per_s=requests_per_s,
            tokens_per_s=tokens_per_s,
            power_w=plan.power_w,
            saves_w=self._saves_w(view, plan),
            weights=dict(plan.weights) if len(plan.weights) <= MAX_WEIGHTS else {},
            why=plan.why[:_NOTE],
        )

    def _saves_w(self, view: ClusterView, plan: PoolPlan) -> float | None:
        """Under the load now, against the pool as it is; None where one of the two is not known."""
        running, policy = view.pools.get(plan.pool), self._policy
        if running is None or not running.instances or plan.now_w <= 0.0 or not isinstance(policy, Estimating):
            return None
        as_is_w = policy.draws_w(running, demand_of([load for load in self._seen.loads if load.pool == plan.pool]))
        return None if as_is_w is None else as_is_w - plan.now_w


def _excess(view: ClusterView, plans: Sequence[PoolPlan]) -> str:
    """What of the plans cannot be; "" where all can."""
    gpus = sum(plan.instances * plan.shape.tensor_parallel for plan in plans)
    power_w = sum(plan.power_w for plan in plans)
    if unfit := [plan.pool for plan in plans if not re.match(NAME_PATTERN, plan.pool)]:
        return f"the policy calls a pool {unfit[0]!r}, which is no name for a topic"
    if unfit := [plan.pool for plan in plans if not _are_shares(plan.weights)]:
        return f"what the policy weighs instances of {unfit[0]} by are no shares"
    if wild := [plan for plan in plans if not 0.0 <= max(_rates_per_s(plan.demand)) <= _MOST_PER_S]:
        rate = max(_rates_per_s(wild[0].demand))
        return f"the policy expects {rate:g} requests or tokens a second of {wild[0].pool!r}, more than a hint can say"
    if gpus > view.gpus:
        return f"the policy asks for {gpus} GPUs of {view.gpus}"
    if view.power_budget_w is not None and power_w > view.power_budget_w * (1 + _SLACK_FRAC):
        return f"the policy asks for {power_w:.0f} W of {view.power_budget_w:.0f}"
    return ""


def _rates_per_s(demand: Demand) -> tuple[float, float]:
    """Requests and tokens a second."""
    return demand.requests_per_s, demand.requests_per_s * (demand.prompt_tokens + demand.output_tokens)


def _are_shares(weights: Mapping[str, float]) -> bool:
    return all(re.match(NAME_PATTERN, name) and 0.0 <= share <= 1.0 for name, share in weights.items())


def _members(loads: Iterable[PoolLoad]) -> dict[str, list[Member]]:
    """The instances by pool, where all of a pool tell what they have in hand: who is left out would be starved."""
    pools: dict[str, list[PoolLoad]] = {}
    for load in loads:
        pools.setdefault(load.pool, []).append(load)
    found = {pool: [_member(load, demand_of(own)) for load in own] for pool, own in pools.items()}
    return {pool: [each for each in own if each is not None] for pool, own in found.items() if None not in own}


def _member(load: PoolLoad, pool: Demand) -> Member | None:
    """One instance; one that has no requests of its own counts with the lengths that its pool's have."""
    if load.running is None or load.waiting is None or load.kv_use_frac is None:
        return None
    own = demand_of([load]) if load.requests_per_s else pool
    return Member(
        name=load.instance,
        shape=Shape(load.tensor_parallel),
        running=load.running,
        waiting=load.waiting,
        kv_use_frac=load.kv_use_frac,
        prompt_tokens=max(own.prompt_tokens, 1.0),
        output_tokens=max(own.output_tokens, 1.0),
        tbt_s=load.tbt_p50_s,
        requests_per_s=load.requests_per_s or 0.0,
    )


def _objectives(spec: HintSpec, asked: Mapping[Kind, Demand]) -> dict[Kind, Slo]:
    """Of each kind, by its mean prompt: what counts as short or long differs from site to site."""
    kilotokens = {kind: asked[kind].prompt_tokens / 1000 if kind in asked else 0.0 for kind in KINDS}
    return {kind: Slo(max(spec.ttft_s, spec.ttft_per_kilotoken_s * kilotokens[kind]), spec.tbt_s) for kind in KINDS}


def _at_clocks(pools: Mapping[str, Running], clocks_frac: Mapping[str, float]) -> dict[str, Running]:
    """The pools at the clocks in force; at the highest where none is known."""
    return {
        name: replace(pool, shape=replace(pool.shape, clock_frac=clocks_frac.get(name, 1.0)))
        for name, pool in pools.items()
    }


def _late(loads: Sequence[PoolLoad], slo: Mapping[Kind, Slo], kinds_of: Mapping[str, Sequence[Kind]]) -> frozenset[str]:
    """The pools in which an instance's first tokens take longer than for any of its kinds they may."""
    most_s = {load.pool: max(slo[kind].ttft_s for kind in kinds_of.get(load.pool) or KINDS) for load in loads}
    return frozenset(load.pool for load in loads if (load.ttft_p99_s or 0.0) > most_s[load.pool])


def _slowest(loads: Sequence[PoolLoad], kinds_of: Mapping[str, Sequence[Kind]]) -> dict[Kind, Slo]:
    """What the slowest hundredth takes, by kind: that of the slowest instance of its pool; of pools that tell it."""
    found: dict[Kind, Slo] = {}
    for pool in {load.pool for load in loads}:
        own = [(load.ttft_p99_s, load.tbt_p99_s) for load in loads if load.pool == pool]
        ttft_s, tbt_s = ([each for each in column if each is not None] for column in zip(*own, strict=True))
        if len(ttft_s) == len(tbt_s) == len(own):
            found |= dict.fromkeys(kinds_of.get(pool, ()), Slo(max(ttft_s), max(tbt_s)))
    return found


def _counts(hint: Hint) -> tuple[int, int]:
    return hint.instances, hint.tensor_parallel


def _same(one: Hint, other: Hint) -> bool:
    """Whether whoever follows one follows the other."""
    same_pool = (_counts(one), one.clock_frac) == (_counts(other), other.clock_frac)
    return same_pool and _alike(one.weights, other.weights)


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether requests dealt by one set of shares go about where the other sends them."""
    moved = _SHIFT_FRAC / max(len(one), 1)
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) <= moved for name in one)


def _event(hint: Hint, before: Hint | None) -> Event:
    was = f", before {_shape(before)}" if before is not None else ""
    what = f"{_shape(hint)}{was}{f': {hint.why}' if hint.why else ''}"
    return Event(hint.t, EventKind.HINT, f"pool/{hint.pool}", what[:_NOTE])


def _shape(hint: Hint) -> str:
    return f"{hint.instances} x {hint.tensor_parallel} GPUs at {100 * hint.clock_frac:.0f} % of the clock"
