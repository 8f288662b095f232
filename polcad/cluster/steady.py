"""What instances under a steady load answer and draw: estimates for planners, for many clocks and loads at once.

Requests arrive at random (Poisson), or clumped; of a clump each instance has its share. Prompts go first; those that
wait go together, up to 2048 tokens (Splitwise), so a queue of short prompts is worked off faster than one by one. They
take a share of the time, iterations the rest. By Little's law the batch that a request meets is `rate x output_tokens x
iteration_s`, stretched by that share; as an iteration's time grows in a straight line with its batch, the batch is
solved at once. A first token waits in a queue with Poisson arrivals (Pollaczek-Khinchine, with an exponential tail),
for what is left of the iteration under way, and for its own prompt. The slowest hundredth meets a batch that is 2.33
standard deviations above its mean; how much longer its own prompt is than the mean, and how long it waits, add up as
independent deviations do. `tbt` is a request's own mean time between its tokens: prompts that come in between make it
longer, each with those that arrive meanwhile, and most so where an output is short.

The constants were fitted to the simulated instance, on both public traces: it serves most kinds of conversations as
well as is said here, within a quarter; of code, whose outputs are a few tokens, estimates are rougher, mostly careful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polcad.cluster.nouns import Demand, Shape, Slo
from polcad.cluster.profiles import Profile
from polcad.places import Flags, Floats

TOGETHER_TOKENS = 2048.0  # of prompts that run together

_P99 = 2.33  # standard deviations of a normal distribution
_FULLEST = 0.7  # of what is stable: beyond it, a load that varies more than Poisson's piles up (simulated)
_VARIATION = 0.3  # assumed: squared deviation of the lengths of one kind, over their squared mean
_LONGEST = 2.0  # assumed, where it is not known: times the mean, what the longest hundredth of a kind has
_SHORTEST = 0.2  # and the shortest tenth of its outputs
_QUEUE = 3.0  # prompts that go together: where more do, a queue is gone sooner than one by one (simulated)
_FEW = 0.01  # what happens to fewer arrivals is not in the slowest hundredth
_GRID = 65  # rates at which a capacity is sought, twice: to 1 part in 4 096


@dataclass(frozen=True, slots=True)
class Steady:
    """One instance under one load; latencies are infinite when it cannot keep up."""

    ttft_p50_s: float
    ttft_p99_s: float
    tbt_p50_s: float
    tbt_p99_s: float
    power_w: float  # mean
    utilisation: float  # of the highest load that it can keep up with; 1 and above: it cannot

    def keeps(self, slo: Slo, margin: float = 1.0) -> bool:
        """Whether the slowest hundredth is within so much of the objective."""
        return self.ttft_p99_s <= margin * slo.ttft_s and self.tbt_p99_s <= margin * slo.tbt_s


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Instances at several clocks (rows) under several loads (columns); latencies have the kinds as first axis."""

    ttft_p50_s: Floats
    ttft_p99_s: Floats
    tbt_p50_s: Floats
    tbt_p99_s: Floats
    power_w: Floats
    utilisation: Floats

    def keep(self, slos: Sequence[Slo], margin: float = 1.0) -> Flags:
        """Where each kind's slowest hundredth is within so much of its objective, and nothing is too full."""
        ttft_s, tbt_s = (np.array([getattr(slo, name) for slo in slos])[:, None, None] for name in ("ttft_s", "tbt_s"))
        late = (self.ttft_p99_s > margin * ttft_s) | (self.tbt_p99_s > margin * tbt_s)
        kept: Flags = ~late.any(axis=0) & (self.utilisation <= _FULLEST)
        return kept


class Instance:
    """An instance of one tensor parallelism, at the clocks of interest."""

    def __init__(self, profile: Profile, tensor_parallel: int, clocks_frac: Sequence[float]) -> None:
        self._profile, self._degree = profile, profile.degree(tensor_parallel)
        self._idle_w = profile.idle_w(Shape(tensor_parallel))
        response = profile.prompt_response
        self._prompt_time, self._prompt_power = (
            np.interp(clocks_frac, response.clock_frac, ratios)[:, None] for ratios in (response.time, response.power)
        )
        self._batches = [each.batch for each in profile.token_responses]
        self._token_time, self._token_power = (
            np.array([np.interp(clocks_frac, each.clock_frac, getattr(each, name)) for each in profile.token_responses])
            for name in ("time", "power")
        )

    def under(self, mix: Sequence[Demand], rates: Floats) -> Outcomes:
        """At each clock (rows), under each rate (requests a second in all, columns) of requests mixed as in `mix`."""
        load = _Load.of(mix)
        prompt_s = self._prompts_s(load.prompt_tokens)
        own_s = np.minimum(prompt_s, load.prompt_tokens[:, None, None] / TOGETHER_TOKENS * self._prompts_s(_TOGETHER))
        mean_s, together_s = load.mean(prompt_s), load.mean(own_s)
        square_s2 = (1.0 + _VARIATION) * load.mean(prompt_s**2)
        work = rates * together_s
        queue = np.clip(1.0 / np.maximum(1.0 - work, 1e-9), 1.0, load.together)
        prompts = np.minimum(rates * (mean_s + (queue - 1.0) * together_s) / queue, 1.0)
        one_s, added_s, batch, use = self._batch(load, rates, prompts)
        clump = 1.0 + (load.clump - 1.0) * np.minimum(rates / load.rate, 1.0)
        worst = batch + _P99 * np.sqrt(clump * batch)
        held = load.context * (batch + _P99 * np.sqrt((clump + _VARIATION) * batch))
        full = np.maximum(worst / self._profile.batch_max, np.maximum(held, load.longest) / self._degree.kv_tokens)
        use = np.maximum(np.maximum(use, full), work)
        iteration_s = one_s + added_s * batch
        decoding = (1.0 - prompts) * -np.expm1(-batch)
        idle = np.maximum(1.0 - work, 1e-9)
        alike = 1.0 - np.clip(load.long_prompt_tokens / load.prompt_tokens - 1.0, 0.0, 1.0)[:, None, None]
        tail = 1.0 - alike * 0.5 * idle  # queues of prompts that are alike seldom grow long (M/D/1)
        waits_s = tail * 0.5 * square_s2 / mean_s / idle * min(1.0, _QUEUE / load.together)
        waits_s = waits_s + 0.5 * (clump - 1.0) * together_s / idle
        busy_s, busy_s2 = mean_s / idle, square_s2 / idle**3  # a prompt, and those that arrive meanwhile
        stall_s = _stall_s(rates * iteration_s, load.short_output_tokens, busy_s, busy_s2, clump)
        over = np.where(use < 1.0, 0.0, np.inf)
        wait_s = [waits_s * np.log(np.maximum(prompts / slower, 1.0)) for slower in (0.5, _FEW)]
        return Outcomes(
            ttft_p50_s=over + prompt_s + wait_s[0] + 0.5 * decoding * iteration_s,
            ttft_p99_s=over
            + prompt_s
            + np.hypot(self._prompts_s(load.long_prompt_tokens) - prompt_s, wait_s[1])
            + (decoding > _FEW) * iteration_s,
            tbt_p50_s=over + np.broadcast_to(iteration_s / np.maximum(1.0 - prompts, 1e-9), stall_s.shape),
            tbt_p99_s=over + one_s + added_s * worst + stall_s,
            power_w=self._power_w(load, prompt_s, np.broadcast_to(prompts, batch.shape), decoding, batch),
            utilisation=use,
        )

    def _prompts_s(self, tokens: Floats) -> Floats:
        full_s = np.array([self._profile.prompt_s(Shape(self._degree.tensor_parallel), each) for each in tokens])
        times_s: Floats = full_s[:, None, None] * self._prompt_time
        return times_s

    def _batch(self, load: _Load, rates: Floats, prompts: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """An iteration of one request, what each more adds (s), the batch met, and the use of all the time."""
        degree = self._degree
        added_full_s = degree.token_request_s + degree.token_context_s * load.context / 1000
        batch = np.zeros((len(self._prompt_time), len(rates)))
        for _ in range(3):  # the clock's ratio depends on the batch, weakly
            ratio = self._blend(self._token_time, 1.0 + batch)
            added_s = ratio * added_full_s
            one_s = ratio * degree.token_s + added_s
            use = prompts + rates * load.outputs * added_s
            batch = np.minimum(rates * load.outputs * one_s / np.maximum(1.0 - use, 1e-9), self._profile.batch_max)
        return one_s, added_s, batch, use

    def _blend(self, ratios: Floats, batch: Floats) -> Floats:
        """`ratios` (a row a response, a column a clock) at each batch (a row a clock)."""
        place = np.interp(batch, self._batches, np.arange(len(self._batches)))
        left = np.minimum(place.astype(np.intp), max(len(self._batches) - 2, 0))
        right, rows = np.minimum(left + 1, len(self._batches) - 1), np.arange(len(batch))[:, None]
        blended: Floats = ratios[left, rows] + (place - left) * (ratios[right, rows] - ratios[left, rows])
        return blended

    def _power_w(self, load: _Load, prompt_s: Floats, prompts: Floats, decoding: Floats, batch: Floats) -> Floats:
        degree = self._degree
        full_w = np.interp(load.prompt_tokens, degree.prompt_tokens, degree.prompt_w)[:, None, None]
        prompt_w = load.mean(prompt_s * self._instance_w(full_w * self._prompt_power)) / load.mean(prompt_s)
        served = np.where(batch > 0.0, batch / np.maximum(-np.expm1(-batch), 1e-12), 1.0)  # none runs empty
        token_w = degree.token_w - degree.token_rise_w * np.expm1(-served / degree.token_rise_requests)
        token_w = self._instance_w(token_w * self._blend(self._token_power, served))
        power_w: Floats = prompts * prompt_w + decoding * token_w + (1.0 - prompts - decoding) * self._idle_w
        return power_w

    def _instance_w(self, gpu_w: Floats) -> Floats:
        profile = self._profile
        gpu_w = np.clip(gpu_w, profile.gpu_idle_w, profile.gpu_max_w)
        busy = (gpu_w - profile.gpu_idle_w) / (profile.gpu_max_w - profile.gpu_idle_w)
        power_w: Floats = self._degree.tensor_parallel * (gpu_w + profile.host_idle_w + busy * profile.host_load_w)
        return power_w


_TOGETHER = np.array([TOGETHER_TOKENS])


def _stall_s(per_token: Floats, outputs: Floats, busy_s: Floats, busy_s2: Floats, clump: Floats) -> Floats:
    """What prompts add to each gap between the tokens of an unlucky output, s.

    `per_token`: how often a prompt comes during an iteration. Few stalls have the tail of one, many a normal's.
    """
    gaps = np.maximum(outputs - 1.0, 1.0)[:, None, None]
    count = per_token * gaps
    many_s = count * busy_s + _P99 * np.sqrt(count * clump * busy_s2)
    few_s = busy_s2 / busy_s * np.log(np.maximum(-np.expm1(-count) / _FEW, 1.0))
    stalled_s: Floats = np.maximum(many_s, few_s) / gaps
    return stalled_s


@dataclass(frozen=True, slots=True)
class _Load:
    """A mix of kinds: arrays have one entry a kind."""

    rate: float  # requests a second of all instances
    clump: float
    share: Floats  # of the requests
    prompt_tokens: Floats
    output_tokens: Floats
    long_prompt_tokens: Floats
    short_output_tokens: Floats
    outputs: float  # mean of all
    context: float  # of a request while it makes tokens, mean over them
    together: float  # requests whose prompts may run together
    longest: float  # tokens of the longest requests

    @classmethod
    def of(cls, mix: Sequence[Demand]) -> _Load:
        rates = np.array([each.requests_per_s for each in mix])
        share = rates / rates.sum() if rates.sum() > 0.0 else np.full(len(mix), 1.0 / len(mix))
        prompts = np.array([max(each.prompt_tokens, 1.0) for each in mix])
        outputs = np.array([max(each.output_tokens, 1.0) for each in mix])
        longest = np.array([each.long_prompt_tokens or _LONGEST * each.prompt_tokens for each in mix])
        shortest = np.array([each.short_output_tokens or _SHORTEST * each.output_tokens for each in mix])
        mean = float(share @ outputs)
        context = float(share @ (outputs * (prompts + 0.5 * outputs))) / mean
        queue = max(1.0, TOGETHER_TOKENS / float(share @ prompts))
        longest, shortest = np.maximum(longest, 1.0), np.maximum(shortest, 1.0)
        rate, clump = max(float(rates.sum()), 1e-9), 1.0 + sum(each.clump - 1.0 for each in mix)
        return cls(
            rate,
            clump,
            share,
            prompts,
            outputs,
            longest,
            shortest,
            mean,
            context,
            queue,
            _LONGEST * float((prompts + outputs).max()),
        )

    def mean(self, values: Floats) -> Floats:
        """Over requests, of an array whose first axis is that of the kinds."""
        averaged: Floats = (self.share @ values.reshape(len(values), -1)).reshape(values.shape[1:])
        return averaged


def steady(profile: Profile, shape: Shape, demand: Demand) -> Steady:
    """One instance under `demand` (all of it: its own share of the pool's)."""
    outcomes = Instance(profile, shape.tensor_parallel, (shape.clock_frac,)).under(
        (demand,), np.array([demand.requests_per_s])
    )
    return Steady(*(float(getattr(outcomes, name).flat[0]) for name in Steady.__slots__))


def capacity(profile: Profile, shape: Shape, demand: Demand, slo: Slo, margin: float = 1.0) -> float:
    """The most requests a second of `demand`'s lengths that one instance answers within the objective; 0: none."""
    instance = Instance(profile, shape.tensor_parallel, (shape.clock_frac,))
    low, high = 0.0, highest_rate(profile, shape.tensor_parallel, (demand,))
    for _ in range(2):
        rates = np.linspace(low, high, _GRID)[1:]
        kept = instance.under((demand,), rates).keep((slo,), margin)[0]
        best = int(kept.nonzero()[0].max(initial=-1)) if kept.any() else -1
        low, high = (float(rates[best]) if best >= 0 else low), float(rates[min(best + 1, len(rates) - 1)])
    return low


def highest_rate(profile: Profile, tensor_parallel: int, mix: Sequence[Demand]) -> float:
    """Requests a second that would take all of an instance's time at the maximum clock, prompts and batches full."""
    load, degree = _Load.of(mix), profile.degree(tensor_parallel)
    shape = Shape(tensor_parallel)
    most_s = profile.prompt_s(shape, TOGETHER_TOKENS) / TOGETHER_TOKENS
    prompts_s = sum(
        share * min(profile.prompt_s(shape, tokens), most_s * tokens)
        for share, tokens in zip(load.share, load.prompt_tokens, strict=True)
    )
    added_s = degree.token_request_s + degree.token_context_s * load.context / 1000
    return float(1.0 / (prompts_s + load.outputs * added_s))
