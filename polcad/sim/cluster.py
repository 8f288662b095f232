"""A serving cluster in simulated time: requests, instances, and the planner that shapes them.

Every `TICK_S` the planner is shown the load of the last minute and the peak that is forecast, as it would be live, and
what it plans is carried out with all that this costs (`deployment`). Requests are served one by one (`serving`). Energy
is that of all servers that have an instance, GPUs of theirs in no instance included; a server that has none is given
back, and draws nothing. The same model and seed give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from polcad.cluster.classes import NoisyLengths
from polcad.cluster.nouns import KINDS, ClusterView, Demand, Kind, Length, Slo
from polcad.cluster.prediction import Prediction
from polcad.cluster.waiting import Rung
from polcad.sim.asking import CHUNK_S, Asked
from polcad.sim.cluster_model import TICK_S, ClusterModel, Span, objectives
from polcad.sim.cluster_result import PHASE_NAMES, UNUSED, ClusterResult, Told, latencies, mean_s, names, quantile_s
from polcad.sim.deployment import Deployment, slots_of
from polcad.sim.engines import Engines, kinds_of
from polcad.sim.members import members
from polcad.sim.metering import LoadMeter, ends_of, mean_demand, peak_demand
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints
from polcad.sim.rescuing import Rescuing
from polcad.sim.row import START_T
from polcad.sim.sampling import Sampling, Slowest
from polcad.sim.serving import WAITING_MOST

_MINUTE_TICKS = 12
_FIRST_S = 300.0  # the load that the cluster begins with is that of its first minutes
_MOST_TOLD = 300
_AGAIN_S = 1800.0  # before the same is told again


def simulate(model: ClusterModel, progress: Callable[[int], None] | None = None) -> ClusterResult:
    """Run it; `progress` is told the simulated seconds done since the last call."""
    return Cluster(model).run(progress or (lambda _: None))


class Cluster:
    """A model under way."""

    def __init__(self, model: ClusterModel) -> None:
        sample = model.source.sample()
        self._model, self._thresholds = model, model.source.thresholds
        longest = (float(np.quantile(sample.prompt, 0.99)), float(np.quantile(sample.output, 0.99)))
        plain = objectives(model.profile, self._thresholds, longest)
        self._slo = {k: Slo(model.slo_scale * s.ttft_s, model.slo_scale * s.tbt_s) for k, s in plain.items()}
        self._engines, self._deployment = self._built(model)
        self._lengths = NoisyLengths(model.accuracy, model.seed)
        self._ends = ends_of(sample, NoisyLengths(model.accuracy, model.seed).guess(kinds_of(sample, self._thresholds)))
        self._meter = LoadMeter(TICK_S, self._ends)
        parts = (self._engines, self._deployment, model.profile)
        unbounded = model.power_budget_w is None
        self._rescuing = None if model.rescue is None else Rescuing(model.rescue, *parts, clocks=unbounded)
        self._prediction = Prediction()
        self._known: dict[Kind, Demand] = {}  # the load, as last measured
        self._peak: dict[Kind, Demand] = {}
        self._measured_s = 0.0
        self._dropped = self._slow = 0
        self._said: dict[str, float] = {}  # what planners say, and when it was last told
        self._told: list[Told] = []
        self._slowest = Slowest(self._engines)
        self._samples = Sampling(self._engines, self._deployment, model.seconds, model.profile.unused_w)

    def _built(self, model: ClusterModel) -> tuple[Engines, Deployment]:
        """The servers, without an instance."""
        slots = slots_of(model.profile, model.servers)
        engines = Engines(model.profile, slots, self._slo, by_weight=model.in_turns)
        return engines, Deployment(engines, model.profile, model.servers, packs=not model.provisioned)

    def run(self, progress: Callable[[int], None]) -> ClusterResult:
        """To the end."""
        self._prepare()
        for tick in range(round(self._model.seconds / TICK_S)):
            if tick * TICK_S % CHUNK_S == 0:
                progress(round(min(CHUNK_S, self._model.seconds - tick * TICK_S)))
                self._take(round(tick * TICK_S // CHUNK_S))
            self._tick(tick)
        return self._result()

    def _prepare(self) -> None:
        """Let the prediction learn from the past, and begin as a cluster that has always been so."""
        model, first = self._model, self._chunk(0)
        early = first[0].arrive_s < _FIRST_S
        asked = Asked(*(column[early] for column in (first[0].arrive_s, first[0].prompt, first[0].output)))
        now = mean_demand(asked, first[1][1][early], min(_FIRST_S, model.seconds), self._ends)
        self._learn_history()
        self._prediction.observe(START_T - 60.0, now)
        self._known, self._peak = now, self._prediction.peak()
        if model.provisioned:
            self._peak = {kind: one.times(1.0 + model.margin_frac) for kind, one in self._highest().items()}
        self._plan(0.0, at_once=True)
        self._lengths = NoisyLengths(model.accuracy, model.seed)  # so that guesses begin with the run

    def _learn_history(self) -> None:
        history, sample = self._model.source.history(), self._model.source.sample()
        if not len(history):
            return
        lengths = mean_demand(sample, self._guess(kinds_of(sample, self._thresholds)), 1.0, self._ends)
        for minute, rates in enumerate((history @ self._taken_for()).tolist()):
            load = {kind: replace(lengths[kind], requests_per_s=rates[KINDS.index(kind)]) for kind in lengths}
            self._prediction.observe(START_T + 60.0 * (minute - len(history)), load)

    def _taken_for(self) -> Floats:
        """By true kind, the shares of what requests are taken for."""
        kinds, wrong = np.arange(len(KINDS)), (1.0 - self._model.accuracy) / (len(Length) - 1)
        same = kinds[:, None] // len(Length) == kinds // len(Length)  # the prompt is known
        shares: Floats = np.where(kinds[:, None] == kinds, self._model.accuracy, np.where(same, wrong, 0.0))
        return shares

    def _highest(self) -> dict[Kind, Demand]:
        """The highest load of each kind in the busiest hours."""
        chunks = [self._chunk(index) for index in self._model.source.busy()]
        columns = zip(*((asked.arrive_s, asked.prompt, asked.output, kinds[1]) for asked, kinds in chunks), strict=True)
        arrive_s, prompt, output, guesses = (np.concatenate(column) for column in columns)
        return peak_demand(Asked(arrive_s, prompt, output), guesses, _FIRST_S, self._ends)

    def _guess(self, kinds: Ints) -> Ints:
        return self._lengths.guess(kinds).astype(np.int64)

    def _chunk(self, index: int) -> tuple[Asked, Ints]:
        """Requests, and what they are and are taken for."""
        asked = self._model.source.chunk(index)
        kinds = kinds_of(asked, self._thresholds)
        return asked, np.stack([kinds, self._guess(kinds)])

    def _take(self, index: int) -> None:
        asked, kinds = self._chunk(index)
        self._engines.take(asked, kinds)
        self._meter.take(asked, kinds[1])

    def _tick(self, tick: int) -> None:
        t = tick * TICK_S
        if tick:
            self._measure(t, tick)
        self._fail(t)
        if tick:
            self._plan(t)
            self._weigh(t)
            self._help(t)
        self._engines.advance(t + TICK_S)
        self._tell_dropped(t + TICK_S)
        self._meter.tick()
        self._samples.tick(t + TICK_S)

    def _measure(self, t: float, tick: int) -> None:
        """What the planner may know: the load of the last minute, unless the metrics are stale."""
        stale = self._model.stale
        if stale is not None and stale.covers(t):
            if not stale.covers(t - TICK_S):
                self._tell(t, f"metrics are stale for {stale.length_s:.0f} s")
            return
        self._known, self._measured_s = self._meter.demand(), t
        self._slowest.look(t)
        if tick % _MINUTE_TICKS == 0:
            self._prediction.observe(START_T + t, self._known)
            if not self._model.provisioned:
                self._peak = self._prediction.peak()

    def _fail(self, t: float) -> None:
        lost, slow, cap = self._model.lost, self._model.slow, self._model.cap
        if _begins(lost, t):
            self._tell(t, self._deployment.lose(t))
        if _ends(lost, t):
            self._deployment.restore(t)
            self._tell(t, "the lost server is back, empty")
        if slow and _begins(slow.span, t):
            self._slow = self._deployment.busiest()
            self._tell(t, f"server {self._slow} runs at {slow.clock_frac:.0%} of its clock at most, and tells nobody")
        if cap and _begins(cap.span, t):
            self._tell(t, f"the row's plan locks clocks at {cap.clock_frac:.0%}")
        spans = [one.span for one in (slow, cap) if one]
        if any(_begins(span, t) or _ends(span, t) for span in spans):
            self._deployment.limit(t, self._limits_frac(t))

    def _limits_frac(self, t: float) -> dict[int, float]:
        """By server, how fast it may run."""
        slow, limits = self._model.slow, dict.fromkeys(range(self._model.servers), self._cap_frac(t))
        if slow and slow.span.covers(t):
            limits[self._slow] = min(limits[self._slow], slow.clock_frac)
        return limits

    def _cap_frac(self, t: float) -> float:
        cap = self._model.cap
        return cap.clock_frac if cap and cap.span.covers(t) else 1.0

    def _plan(self, t: float, *, at_once: bool = False) -> None:
        plans = self._model.planner(self._view(t))
        for plan in plans:
            text = f"{plan.pool}: {plan.instances} x TP{plan.shape.tensor_parallel}, {plan.why}"
            if t - self._said.get(text, -_AGAIN_S) >= _AGAIN_S:
                self._tell(t, text)
                self._said[text] = t
        self._deployment.apply(t, plans, at_once=at_once)

    def _weigh(self, t: float) -> None:
        """Renew the shares that requests are dealt by, as a router would that is hinted at; not on stale news."""
        weigher = self._model.weigher
        if weigher is None or self._measured_s < t:
            return
        seen = members(self._engines, self._deployment.shapes, self._known)
        self._engines.weigh({int(name): weight for name, weight in weigher(START_T + t, seen).items()})

    def _help(self, t: float) -> None:
        """Let instances rescue what would be late; it is told when that makes requests move or drops them."""
        if self._rescuing is None:
            return
        before = self._rescuing.done.copy()
        self._rescuing.tick(t)
        for rung, what in ((Rung.MOVE, "move to other instances"), (Rung.DROP, "are dropped, overdue")):
            if (count := self._rescuing.done[rung] - before[rung]) and t - self._said.get(rung, -_AGAIN_S) >= _AGAIN_S:
                self._said[rung] = t
                self._tell(t, f"{count} requests {what}; {self._rescuing.done[rung]} so far")

    def _view(self, t: float) -> ClusterView:
        model = self._model
        return ClusterView(
            t=START_T + t,
            gpus=self._deployment.gpus_there,
            demand=self._known,
            peak={kind: one.times(1.0 / model.surprise) for kind, one in self._peak.items()},
            slo=self._slo,
            pools=self._deployment.running(t),
            power_budget_w=model.power_budget_w,
            cap_clock_frac=self._cap_frac(t),
            slowest=self._slowest.known,
            measured_t=START_T + self._measured_s,
        )

    def _tell_dropped(self, t: float) -> None:
        """How many so far; at most each half hour."""
        dropped = self._engines.dropped - (self._rescuing.done[Rung.DROP] if self._rescuing else 0)
        if dropped > self._dropped and t - self._said.get("dropped", -_AGAIN_S) >= _AGAIN_S:
            self._dropped, self._said["dropped"] = dropped, t
            self._tell(t, f"{dropped} requests dropped so far: {WAITING_MOST} wait already where they would be served")

    def _tell(self, t: float, text: str) -> None:
        if len(self._told) < _MOST_TOLD:
            self._told.append(Told(t, text))

    def _result(self) -> ClusterResult:
        model, world, samples = self._model, self._engines.world, self._samples
        finished, missed = world.tally.finished, world.tally.dropped + self._overdue()
        counts, whole = (finished, world.tally.late, missed), world.whole.sum(axis=0)
        total = latencies(world.ttft.sum(axis=0), world.tbt.sum(axis=0), *(int(count.sum()) for count in counts))
        each = {
            name: latencies(world.ttft[place], world.tbt[place], *(int(count[place]) for count in counts))
            for place, name in enumerate(names())
        }
        return ClusterResult(
            system=model.system,
            servers=model.servers,
            seed=model.seed,
            length_s=float(model.seconds),
            requests=int(world.tally.arrived.sum()),
            finished=int(finished.sum()),
            under_way=self._engines.under_way,
            dropped=self._engines.dropped,
            energy_j={**dict(zip(PHASE_NAMES[1:], world.phase_j[1:].tolist(), strict=True)), UNUSED: samples.unused_j},
            hours_j=samples.hours_j(),
            gpu_s=samples.gpu_s,
            unused_s=samples.unused_s,
            gpus_alone_j=model.profile.gpus_alone_j(self._engines.energy_j(), samples.gpu_s)
            + samples.unused_s * model.profile.gpu_bare_w,
            instance_s=samples.instance_s,
            all=total,
            latency_mean_s=mean_s(whole),
            latency_p99_s=quantile_s(whole, 0.99) or 0.0,
            kinds=each,
            slo=dict(zip(names(), (self._slo[kind] for kind in KINDS), strict=True)),
            changes=dict(sorted(self._changes().items())),
            series=samples.series,
            told=tuple(self._told),
        )

    def _changes(self) -> Counter[str]:
        rescued = {} if self._rescuing is None else self._rescuing.done
        return self._deployment.changes + Counter({f"rescue: {rung}": count for rung, count in rescued.items()})

    def _overdue(self) -> Ints:
        """By kind, requests whose first token is already too late when the time is over."""
        world = self._engines.world
        used = np.ones(len(world.free), np.bool_)
        used[world.free[: world.free_count[0]]] = False
        waits = world.requests[used & np.isnan(world.requests.first_s)]
        too_late = self._model.seconds - waits.arrive_s > world.tally.ttft_slo_s[waits.kind]
        return np.bincount(waits.kind[too_late], minlength=len(KINDS)).astype(np.int64)


def _begins(span: Span | None, t: float) -> bool:
    """Whether a fault begins with the tick at `t`."""
    return span is not None and span.covers(t) and not span.covers(t - TICK_S)


def _ends(span: Span | None, t: float) -> bool:
    """Whether it is over with the tick at `t`."""
    return span is not None and span.covers(t - TICK_S) and not span.covers(t)
