"""What an instance under a steady load answers and draws: an estimate for planners, from means alone.

Requests arrive at random (Poisson). Prompts go first, so they take the share `prompts = rate x prompt_s` of the time,
and iterations the rest. By Little's law the batch that a request meets is `rate x output_tokens x iteration_s`,
stretched by that share; an iteration's time grows in a straight line with the batch, so the batch is solved at once.
Waiting for the first token is that of a queue with exponential service, and what is left of the iteration under way;
the slowest hundredth meets a batch and prompts in its way 2.33 standard deviations above their means. `tbt` is a
request's own mean time between its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, sqrt

from polcad.cluster.nouns import Demand, Shape, Slo
from polcad.cluster.profiles import Profile

_P99 = 2.33  # standard deviations of a normal distribution
_FULLEST = 0.95  # of what is stable: beyond it, no estimate from means holds
_HALVINGS = 14  # of the range in which a capacity is sought: to 1 part in 16 000


@dataclass(frozen=True, slots=True)
class Steady:
    """An instance under a load; latencies are infinite when it cannot keep up."""

    ttft_p50_s: float
    ttft_p99_s: float
    tbt_p50_s: float
    tbt_p99_s: float
    power_w: float  # mean
    utilisation: float  # of the highest load that it can keep up with; 1 and above: it cannot

    def keeps(self, slo: Slo, margin: float = 1.0) -> bool:
        """Whether the slowest hundredth is within so much of the objective."""
        return self.ttft_p99_s <= margin * slo.ttft_s and self.tbt_p99_s <= margin * slo.tbt_s


def steady(profile: Profile, shape: Shape, demand: Demand) -> Steady:
    """The instance under `demand` (all of it: its own share of the pool's)."""
    rate, outputs = demand.requests_per_s, max(demand.output_tokens, 1.0)
    context = demand.prompt_tokens + outputs / 2
    prompt_s = profile.prompt_s(shape, demand.prompt_tokens)
    prompts = rate * prompt_s
    one_s, added_s = _iteration(profile, shape, context, 1.0)
    for _ in range(2):  # the clock's ratio and the batch depend on each other, weakly
        free = 1.0 - prompts - rate * outputs * added_s
        batch = rate * outputs * one_s / free if free > 0.0 else inf
        one_s, added_s = _iteration(profile, shape, context, min(1.0 + batch, profile.batch_max))
    room = min(profile.batch_max, profile.kv_tokens(shape.tensor_parallel) / (demand.prompt_tokens + outputs))
    worst = batch + _P99 * sqrt(batch)
    use = max(1.0 - free, worst / room)
    if use >= 1.0:
        full_w = max(profile.prompt_w(shape, demand.prompt_tokens), profile.token_w(shape, profile.batch_max))
        return Steady(inf, inf, inf, inf, full_w, use)
    iteration_s = one_s + added_s * batch
    lasts_s = outputs * iteration_s / (1.0 - prompts)
    met = rate * lasts_s
    in_way_s = (met + _P99 * sqrt(met)) * prompt_s / outputs
    queue_s = prompt_s / (1.0 - prompts)
    decoding = (1.0 - prompts) * (1.0 - exp(-batch))
    return Steady(
        ttft_p50_s=prompt_s + _waits(prompts, 0.5, queue_s) + 0.5 * decoding * iteration_s,
        ttft_p99_s=prompt_s + _waits(prompts, 0.01, queue_s) + (1.0 if decoding > _FEW else 0.0) * iteration_s,
        tbt_p50_s=iteration_s / (1.0 - prompts),
        tbt_p99_s=one_s + added_s * worst + in_way_s,
        power_w=_power_w(profile, shape, demand.prompt_tokens, prompts, decoding, batch),
        utilisation=use,
    )


def capacity(profile: Profile, shape: Shape, demand: Demand, slo: Slo, margin: float = 1.0) -> float:
    """The most requests a second of `demand`'s lengths that one instance answers within the objective; 0: none."""
    low, high = 0.0, _highest(profile, shape, demand)
    if not _answers(profile, shape, demand, high / 2**_HALVINGS).keeps(slo, margin):
        return 0.0
    for _ in range(_HALVINGS):
        rate = 0.5 * (low + high)
        now = _answers(profile, shape, demand, rate)
        low, high = (rate, high) if now.utilisation <= _FULLEST and now.keeps(slo, margin) else (low, rate)
    return low


_FEW = 0.01  # of the arrivals: what happens less often is not in the slowest hundredth


def _answers(profile: Profile, shape: Shape, demand: Demand, rate: float) -> Steady:
    return steady(profile, shape, Demand(rate, demand.prompt_tokens, demand.output_tokens))


def _highest(profile: Profile, shape: Shape, demand: Demand) -> float:
    """Requests a second that would take all its time, with the largest batch."""
    outputs = max(demand.output_tokens, 1.0)
    _, added_s = _iteration(profile, shape, demand.prompt_tokens + outputs / 2, profile.batch_max)
    return 1.0 / (profile.prompt_s(shape, demand.prompt_tokens) + outputs * added_s)


def _iteration(profile: Profile, shape: Shape, context: float, batch: float) -> tuple[float, float]:
    """An iteration over one request, and what each further one adds, s: straight, at the clock's ratio of `batch`."""
    degree = profile.degree(shape.tensor_parallel)
    ratio = profile.token_ratio(shape.clock_frac, batch)[0]
    added_s = ratio * (degree.token_request_s + degree.token_context_s * context / 1000)
    return ratio * degree.token_s + added_s, added_s


def _waits(busy: float, slower: float, queue_s: float) -> float:
    """How long the share `slower` of arrivals waits at least, where a share `busy` of them waits at all, s."""
    return queue_s * log(busy / slower) if busy > slower else 0.0


def _power_w(profile: Profile, shape: Shape, tokens: float, prompts: float, decoding: float, batch: float) -> float:
    served = batch / (1.0 - exp(-batch)) if batch > 0.0 else 1.0  # by an iteration: none runs empty
    return (
        prompts * profile.prompt_w(shape, tokens)
        + decoding * profile.token_w(shape, served)
        + (1.0 - prompts - decoding) * profile.idle_w(shape)
    )
