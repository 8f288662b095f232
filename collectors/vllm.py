"""One vLLM engine's load, read from its Prometheus endpoint.

Gauges are of the moment; rates, times and lengths are what counters and histograms grew by over the last `window_s`, or
since the first reading while that is shorter. Some metrics had other names in other versions: the first that is there
counts. With data parallelism an engine tells each metric several times: counts add up, of the KV cache's use the mean
is taken.

Nothing is made up. What is not told, not yet known or not finite is None, and `PoolLoad.fault` says why; what nothing
was observed of in the window is None too. A restart of the engine begins anew. An engine that answers but has not moved
while requests are in it tells nothing that is true now.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from collectors.increase import Increase, Series, restarted
from collectors.scrape import Endpoint, Sample, Samples
from polcad.errors import ConfigError, UnavailableError
from polcad.model import LENGTH_QUANTILES, Lengths, PoolLoad

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV_USE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # a fraction, whatever its name; since 0.10, before
ENDED = "vllm:request_success_total"  # for any reason, an abort too
PROMPT_TOKENS, OUTPUT_TOKENS = "vllm:prompt_tokens_total", "vllm:generation_tokens_total"
TTFT = "vllm:time_to_first_token_seconds"
TBT = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")  # since 0.11, before
PROMPT_LENGTH, OUTPUT_LENGTH = "vllm:request_prompt_tokens", "vllm:request_generation_tokens"
_HISTOGRAMS = (TTFT, *TBT, PROMPT_LENGTH, OUTPUT_LENGTH)
_GROWING = (
    ENDED,
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    *(f"{name}_{part}" for name in _HISTOGRAMS for part in ("bucket", "sum", "count")),
)
_STARTED = "process_start_time_seconds"
_LEAST_S = 0.05  # between two readings that are to make a rate
_MOST_COUNT, _MOST_PER_S, _MOST_TOKENS, _MOST_S = 2.0**53, 1e9, 1e9, 1e11  # of `PoolLoad`: beyond is not believed
_NEARLY = 0.98  # a reading that came a little early is still a window ago
_KNOWN = {"pool", "instance", "tensor_parallel", "url", "deadline_s", "window_s", "model"}


@dataclass(frozen=True, slots=True)
class _Look:
    """What one scrape told, and when it came."""

    t: float
    growing: Series
    started: float | None
    inside: float | None  # requests that run or wait


class VllmCollector:
    """One engine (a `polcad.ports.LoadCollector`).

    Options: `pool`, `instance`, `tensor_parallel` (1), which the load repeats; `url`; `deadline_s` (2) for an answer;
    `window_s` (60); `model`, the one served name to count ("", all). Raises ConfigError for others and bad ones.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        if unknown := sorted(options.keys() - _KNOWN):
            raise ConfigError(f"collector vllm: unknown option {unknown[0]}; known: {', '.join(sorted(_KNOWN))}")
        if missing := sorted({"pool", "instance", "url"} - options.keys()):
            raise ConfigError(f"collector vllm: {missing[0]} is missing")
        self._endpoint = Endpoint(str(options["url"]), _seconds(options, "deadline_s", 2.0))
        self._window_s = _seconds(options, "window_s", 60.0)
        self._model = str(options.get("model", ""))
        self._nobody = PoolLoad(options["pool"], options["instance"], 0.0, options.get("tensor_parallel", 1))
        self._looks: deque[_Look] = deque()

    def read(self, t: float) -> PoolLoad:
        """The load at `t`; never raises for an engine that cannot be read."""
        begun_s = time.monotonic()
        try:
            samples = self._endpoint.samples()
        except UnavailableError as error:
            return self._fault(t, str(error))
        samples = _of_model(samples, self._model)
        if not any(name.startswith("vllm:") for name in samples):
            what = f"of model {self._model!r}" if self._model else "of vLLM"
            return self._fault(t, f"{self._endpoint.url}: there is no metric {what} in what it tells")
        if (oldest_t := _oldest_t(samples)) is not None and t - oldest_t > self._window_s:
            return self._fault(t, f"{self._endpoint.url}: its samples are {t - oldest_t:.0f} s old")
        return self._load(t, samples, t + time.monotonic() - begun_s)

    def _fault(self, t: float, why: str) -> PoolLoad:
        """Nothing is known; counters of before the silence stay comparable."""
        return replace(self._nobody, t=t, fault=why[:512])

    def _load(self, t: float, samples: Samples, came_t: float) -> PoolLoad:
        now = _look(samples, came_t)
        moment = _moment(replace(self._nobody, t=t), samples)
        notes = _missing(samples)
        if self._looks and self._anew(now):
            self._looks.clear()
            notes.append("its counters begin anew: rates come with the next reading")
        elif not self._looks:
            notes.append("the first reading: rates come with the next")
        self._looks.append(now)
        while len(self._looks) > 1 and self._window_ago(self._looks[1], now):
            self._looks.popleft()
        first = self._looks[0]
        if now.t - first.t < _LEAST_S:
            return replace(moment, fault="; ".join(notes or ["too soon after the last reading for rates"])[:512])
        increase = Increase(first.growing, now.growing)
        if self._stuck(increase, first, now):
            return self._fault(t, f"no token in {now.t - first.t:.0f} s although requests are there: the engine hangs")
        notes += _beyond(increase)
        return replace(_over(moment, increase, first, now), fault="; ".join(notes)[:512])

    def _anew(self, now: _Look) -> bool:
        before = self._looks[-1]
        return before.started != now.started or now.t <= before.t or restarted(before.growing, now.growing)

    def _window_ago(self, look: _Look, now: _Look) -> bool:
        return now.t - look.t >= _NEARLY * self._window_s

    def _stuck(self, increase: Increase, first: _Look, now: _Look) -> bool:
        """Whether requests were inside all the while, for a whole window, and nothing came of them."""
        waited = self._window_ago(first, now) and all(look.inside for look in self._looks)
        return waited and increase.total(PROMPT_TOKENS) == 0.0 == increase.total(OUTPUT_TOKENS)


def _look(samples: Samples, t: float) -> _Look:
    growing = {
        name: {sample.labels: sample.value if sample.value >= 0.0 else math.nan for sample in samples[name]}
        for name in _GROWING
        if name in samples
    }
    running, waiting = _sum(samples, RUNNING), _sum(samples, WAITING)
    inside = None if running is None or waiting is None else running + waiting
    return _Look(t, growing, _sum(samples, _STARTED), inside)


def _moment(load: PoolLoad, samples: Samples) -> PoolLoad:
    """What the gauges tell."""
    running, waiting = _sum(samples, RUNNING), _sum(samples, WAITING)
    uses = [sample.value for sample in samples.get(_first_of(KV_USE, samples), ())]
    use_frac = sum(uses) / len(uses) if uses else math.nan
    return replace(
        load,
        running=None if running is None else int(running),
        waiting=None if waiting is None else int(waiting),
        kv_use_frac=use_frac if 0.0 <= use_frac <= 1.0 else None,
    )


def _over(load: PoolLoad, increase: Increase, first: _Look, now: _Look) -> PoolLoad:
    """What grew between two looks. Requests that came are those that ended, and the change of those inside."""
    over_s = now.t - first.t
    ended = increase.total(ENDED)
    came = None if ended is None or first.inside is None or now.inside is None else ended + now.inside - first.inside
    tbt = next((name for name in TBT if increase.buckets(name)), TBT[0])
    return replace(
        load,
        over_s=over_s,
        requests_per_s=None if came is None else _within(max(0.0, came) / over_s, _MOST_PER_S),
        prompt_tokens_per_s=_rate(increase, PROMPT_TOKENS, over_s),
        output_tokens_per_s=_rate(increase, OUTPUT_TOKENS, over_s),
        ttft_p50_s=_within(increase.quantile(TTFT, 0.5), _MOST_S),
        ttft_p99_s=_within(increase.quantile(TTFT, 0.99), _MOST_S),
        tbt_p50_s=_within(increase.quantile(tbt, 0.5), _MOST_S),
        tbt_p99_s=_within(increase.quantile(tbt, 0.99), _MOST_S),
        prompt=_lengths(increase, PROMPT_LENGTH),
        output=_lengths(increase, OUTPUT_LENGTH),
    )


def _rate(increase: Increase, name: str, over_s: float) -> float | None:
    total = increase.total(name)
    return None if total is None else _within(total / over_s, _MOST_PER_S)


def _within(value: float | None, most: float) -> float | None:
    return value if value is not None and value <= most else None


def _lengths(increase: Increase, name: str) -> Lengths | None:
    mean = _within(increase.mean(name), _MOST_TOKENS)
    if mean is None:
        return None
    return Lengths(mean, tuple(_within(increase.quantile(name, q), _MOST_TOKENS) for q in LENGTH_QUANTILES))


def _missing(samples: Samples) -> list[str]:
    """Which metrics are not told, or make no sense: another version, or another engine."""
    histograms = (TTFT, PROMPT_LENGTH, OUTPUT_LENGTH)
    wanted = [RUNNING, WAITING, ENDED, PROMPT_TOKENS, OUTPUT_TOKENS, *(f"{name}_bucket" for name in histograms)]
    wanted += [_first_of(KV_USE, samples), _first_of(tuple(f"{name}_bucket" for name in TBT), samples)]
    absent = [name.removesuffix("_bucket") for name in wanted if _sum(samples, name) is None]
    return [f"it does not tell {', '.join(absent)}"] if absent else []


def _beyond(increase: Increase) -> list[str]:
    """Histograms whose 99th percentile lies past their last finite bucket: as slow as cannot be told."""
    past = [
        name
        for name in (TTFT, *TBT)
        if (buckets := increase.buckets(name)) and buckets[-1][1] > 0 and increase.quantile(name, 0.99) is None
    ]
    return [f"the 99th percentile of {', '.join(past)} lies beyond the last bucket"] if past else []


def _of_model(samples: Samples, model: str) -> Samples:
    """The samples that speak of a model; those without a model's name are the process's."""
    if not model:
        return samples
    kept = {
        name: [each for each in found if each.label("model_name") in {"", model}] for name, found in samples.items()
    }
    return {name: found for name, found in kept.items() if found}


def _oldest_t(samples: Samples) -> float | None:
    """The oldest time that any sample of the engine bears; most endpoints tell none."""
    return min((each.t for name in _GROWING for each in samples.get(name, ()) if each.t is not None), default=None)


def _sum(samples: Samples, name: str) -> float | None:
    values = [sample.value for sample in samples.get(name, ())]
    return sum(values) if values and all(0.0 <= value <= _MOST_COUNT / len(values) for value in values) else None


def _first_of(names: tuple[str, ...], samples: Mapping[str, list[Sample]]) -> str:
    return next((name for name in names if name in samples), names[0])


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= 3600.0:  # noqa: PLR2004  # an hour
        raise ConfigError(f"collector vllm: {name}={value!r} is not a number of seconds above 0, up to 3600")
    return float(value)
