"""What an instance of a model takes and draws, by tensor parallelism, clock and load.

An instance runs either a prompt (all its tokens at once) or an iteration that makes one token for each request of its
batch. Times at the maximum clock come from tables (prompts) and a straight fit (iterations); a clock stretches times
and lowers powers by the ratios of `polcad.curve`, or by the profile's own. Powers are of the whole instance: its GPUs,
and its share of the servers they sit in.

`LLAMA2_70B_H100`: times are medians of `splitwise` (Mutinifni/splitwise-sim, perf_model.csv, measured on H100; 32 768
tokens are 64 prompts of 512). There the H100's powers are missing, so prompts draw the A100's share of the board's
limit, and iterations at TP4 what the ML.ENERGY leaderboard measured for Llama-3.1-70B on four H100; the A100's ratios
between TP2, TP4 and TP8 carry it to the others (at TP4 both sources agree: .594 and .613 of the limit). Key-value
memory is 92 % of the boards' 80 GB less 140 GB of weights, at 327 680 B a token (80 layers, 8 key-value heads of 128,
two bytes). Hosts are those of `polcad.sim.profiles.DGX_H100`. `assumed` names what was not measured on this hardware.
"""

from __future__ import annotations

import itertools
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Annotated

from polcad.cluster.nouns import Demand, Shape, Slo
from polcad.cluster.table import noun_of
from polcad.curve import CLOCK_FRAC, POWER_FRAC, TIME_RATIO
from polcad.errors import ConfigError
from polcad.model import Range, Role

Positive = Annotated[float, Range(1e-12, 1e12)]
NotNegative = Annotated[float, Range(0.0, 1e12)]
Ratio = Annotated[float, Range(1e-3, 1e3)]


@dataclass(frozen=True, slots=True)
class Degree:
    """An instance over `tensor_parallel` GPUs at the maximum clock; powers are of one GPU."""

    tensor_parallel: Annotated[int, Range(1, 64)]
    prompt_tokens: tuple[Positive, ...]  # where the two tables below stand, ascending
    prompt_s: tuple[Positive, ...]
    prompt_w: tuple[Positive, ...]
    token_s: Positive  # an iteration, without its requests
    token_request_s: NotNegative  # what each request of the batch adds
    token_context_s: NotNegative  # what each 1000 tokens of context of all requests together add
    token_w: Positive  # in iterations of few requests
    token_rise_w: NotNegative  # what many requests add
    token_rise_requests: Positive  # 1 - 1/e of the rise is reached here
    kv_tokens: Positive  # that the key-value memory holds, of all requests together


@dataclass(frozen=True, slots=True)
class Response:
    """Ratios of time and of GPU power to those at the maximum clock, by clock, for batches of so many requests."""

    clock_frac: tuple[Annotated[float, Range(0.01, 1.0)], ...]  # ascending, up to 1
    time: tuple[Ratio, ...]
    power: tuple[Ratio, ...]
    batch: NotNegative = 0.0  # of iterations; between two responses it is a mix of both


def _measured(role: Role, batch: float = 0.0) -> Response:
    """The response that `polcad.curve` gives for a role."""
    return Response(CLOCK_FRAC, TIME_RATIO[role], POWER_FRAC[role], batch)


_TOKEN_RESPONSES = (_measured(Role.TOKEN, 64), _measured(Role.MIXED, 96), _measured(Role.TRAINING, 192))


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one kind of GPU. Powers of the fields are of one GPU or its share of the server, W."""

    name: str
    gpu_max_w: Positive  # the board's highest power limit
    gpu_idle_w: NotNegative  # with a loaded model and no request
    host_idle_w: NotNegative  # a GPU's share of its server's other parts, idle
    host_load_w: NotNegative  # what that share adds when the GPU draws `gpu_max_w`
    degrees: tuple[Degree, ...]
    max_mhz: Positive = 1980.0
    clocks_mhz: tuple[Positive, ...] = (800.0, 1000.0, 1200.0, 1400.0, 1600.0, 1800.0, 1980.0)  # worth choosing among
    batch_max: Annotated[int, Range(1, 100_000)] = 256  # requests that are served together
    start_s: NotNegative = 420.0  # a new instance: 6 to 8 minutes (DynamoLLM)
    reshape_s: NotNegative = 0.1  # other tensor parallelism: 50 to 100 ms optimised, 1 to 2 minutes naive (DynamoLLM)
    clock_s: NotNegative = 0.08  # another clock: 50 to 80 ms (DynamoLLM)
    gpu_bare_w: NotNegative = 72.0  # a GPU without a model, in a server where others have one
    server_gpus: Annotated[int, Range(1, 64)] = 8
    prompt_response: Response = field(default_factory=lambda: _measured(Role.PROMPT))
    token_responses: tuple[Response, ...] = _TOKEN_RESPONSES
    hypothetical: str = ""  # what was changed to ask what would be
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse tables that do not fit together."""
        for degree in self.degrees:
            columns = {len(degree.prompt_tokens), len(degree.prompt_s), len(degree.prompt_w)}
            _ascending(f"{self.name}: prompt_tokens of TP{degree.tensor_parallel}", degree.prompt_tokens, columns)
        for response in (self.prompt_response, *self.token_responses):
            columns = {len(response.clock_frac), len(response.time), len(response.power)}
            _ascending(f"{self.name}: clock_frac of a response", response.clock_frac, columns)
        _ascending(f"{self.name}: tensor_parallel", self.tensor_parallels, {len(self.degrees)})
        _ascending(f"{self.name}: clocks_mhz", self.clocks_mhz, {len(self.clocks_mhz)})
        if self.clocks_mhz[-1] > self.max_mhz:
            raise ConfigError(f"{self.name}: clocks_mhz {self.clocks_mhz[-1]:g} is above max_mhz={self.max_mhz:g}")
        if self.gpu_idle_w >= self.gpu_max_w:
            raise ConfigError(f"{self.name}: gpu_idle_w={self.gpu_idle_w:g} must be below gpu_max_w={self.gpu_max_w:g}")

    @classmethod
    def read(cls, path: Path) -> Profile:
        """The profile in a TOML file with this class's fields as keys, or ConfigError."""
        try:
            with path.open("rb") as file:
                return noun_of(cls, tomllib.load(file), f"profile {path}")
        except (OSError, ValueError, OverflowError, RecursionError) as error:  # no TOML, or a number of too many digits
            raise ConfigError(f"profile {path}: {error}") from error

    @property
    def tensor_parallels(self) -> tuple[int, ...]:
        """The degrees it is known for, ascending."""
        return tuple(degree.tensor_parallel for degree in self.degrees)

    @property
    def clocks_frac(self) -> tuple[float, ...]:
        """The clocks to choose among, as fractions of the maximum, ascending."""
        return tuple(mhz / self.max_mhz for mhz in self.clocks_mhz)

    def degree(self, tensor_parallel: int) -> Degree:
        """What is known of one degree of parallelism; ConfigError where nothing is."""
        for degree in self.degrees:
            if degree.tensor_parallel == tensor_parallel:
                return degree
        raise ConfigError(f"{self.name}: tensor_parallel={tensor_parallel} is not among {self.tensor_parallels}")

    def prompt_s(self, shape: Shape, tokens: float) -> float:
        """How long prompts of so many tokens together take, s."""
        degree = self.degree(shape.tensor_parallel)
        ratio = _at(self.prompt_response.clock_frac, self.prompt_response.time, shape.clock_frac)
        return ratio * _at(degree.prompt_tokens, degree.prompt_s, tokens, beyond=True)

    def token_s(self, shape: Shape, batch: float, context_tokens: float) -> float:
        """How long one iteration over a batch takes, with so many tokens of context of all its requests together, s."""
        degree = self.degree(shape.tensor_parallel)
        full_s = degree.token_s + degree.token_request_s * batch + degree.token_context_s * context_tokens / 1000
        return self.token_ratio(shape.clock_frac, batch)[0] * full_s

    def token_ratio(self, clock_frac: float, batch: float) -> tuple[float, float]:
        """How a clock changes the time and the GPU power of iterations over a batch, against the maximum clock."""
        batches = [response.batch for response in self.token_responses]
        times, powers = zip(
            *(
                (_at(one.clock_frac, one.time, clock_frac), _at(one.clock_frac, one.power, clock_frac))
                for one in self.token_responses
            ),
            strict=True,
        )
        return _at(batches, times, batch), _at(batches, powers, batch)

    def prompt_w(self, shape: Shape, tokens: float) -> float:
        """What the instance draws in a prompt of so many tokens, W."""
        degree = self.degree(shape.tensor_parallel)
        ratio = _at(self.prompt_response.clock_frac, self.prompt_response.power, shape.clock_frac)
        return self._instance_w(degree, ratio * _at(degree.prompt_tokens, degree.prompt_w, tokens))

    def token_w(self, shape: Shape, batch: float) -> float:
        """What the instance draws in iterations over a batch, W."""
        degree = self.degree(shape.tensor_parallel)
        full_w = degree.token_w + degree.token_rise_w * (1 - exp(-batch / degree.token_rise_requests))
        return self._instance_w(degree, self.token_ratio(shape.clock_frac, batch)[1] * full_w)

    def idle_w(self, shape: Shape) -> float:
        """What the instance draws without a request, at any clock, W."""
        return shape.tensor_parallel * (self.gpu_idle_w + self.host_idle_w)

    @property
    def unused_w(self) -> float:
        """What a GPU without a model draws in a server that is on, with its share of the server, W."""
        return self.gpu_bare_w + self.host_idle_w

    def gpus_alone_j(self, energy_j: float, gpu_s: float) -> float:
        """Of what instances drew while they had GPUs for `gpu_s`: the GPUs' part, without their servers', J."""
        per_w = self.host_load_w / (self.gpu_max_w - self.gpu_idle_w)  # of the host, for each watt of the GPU
        return (energy_j - gpu_s * (self.host_idle_w - per_w * self.gpu_idle_w)) / (1.0 + per_w)

    def kv_tokens(self, tensor_parallel: int) -> float:
        """How many tokens of context it holds, of all requests together."""
        return self.degree(tensor_parallel).kv_tokens

    def compressed(self, kv_ratio: float = 1.5, time_ratio: float = 1.02) -> Profile:
        """What compressed memory would give (Buddy Compression, 1903.02596): more room, slower. Hypothetical."""
        degrees = tuple(
            replace(
                one,
                kv_tokens=kv_ratio * one.kv_tokens,
                prompt_s=tuple(time_ratio * prompt_s for prompt_s in one.prompt_s),
                token_s=time_ratio * one.token_s,
                token_request_s=time_ratio * one.token_request_s,
                token_context_s=time_ratio * one.token_context_s,
            )
            for one in self.degrees
        )
        said = f"hypothetical: key-value memory x{kv_ratio:g}, times x{time_ratio:g}"
        return replace(self, degrees=degrees, hypothetical=self._supposing(said))

    def quicker(self, ratio: float = 0.63) -> Profile:
        """What a faster way to act would give (kernel bypass, median -37 %, 2403.03377). Hypothetical."""
        said = f"hypothetical: clocks and shapes change in x{ratio:g} of the time"
        quick_s = {name: ratio * getattr(self, name) for name in ("clock_s", "reshape_s")}
        return replace(self, **quick_s, hypothetical=self._supposing(said))

    def _supposing(self, said: str) -> str:
        return "; ".join(each for each in (self.hypothetical, said) if each)

    def _instance_w(self, degree: Degree, gpu_w: float) -> float:
        gpu_w = min(max(gpu_w, self.gpu_idle_w), self.gpu_max_w)
        busy = (gpu_w - self.gpu_idle_w) / (self.gpu_max_w - self.gpu_idle_w)
        return degree.tensor_parallel * (gpu_w + self.host_idle_w + busy * self.host_load_w)


def isolated_slo(profile: Profile, demand: Demand, factor: float = 5.0) -> Slo:
    """What a request alone takes on the largest instance at the maximum clock, `factor` times (DynamoLLM: 5)."""
    shape = Shape(profile.tensor_parallels[-1])
    ttft_s = profile.prompt_s(shape, demand.prompt_tokens)
    return Slo(factor * ttft_s, factor * profile.token_s(shape, 1, demand.prompt_tokens + demand.output_tokens))


def _at(
    places: tuple[float, ...] | list[float], values: tuple[float, ...], at: float, *, beyond: bool = False
) -> float:
    """`values` at `at`, straight between the places; level outside, or going on at the last slope above."""
    if at <= places[0] or len(places) == 1:
        return values[0]
    right = bisect_right(places, at)
    if right >= len(places):
        if not beyond:
            return values[-1]
        right = len(places) - 1
    low, high = places[right - 1], places[right]
    return values[right - 1] + (values[right] - values[right - 1]) * (at - low) / (high - low)


def _ascending(what: str, values: tuple[float, ...], lengths: set[int]) -> None:
    if lengths != {len(values)} or any(low >= high for low, high in itertools.pairwise(values)):
        raise ConfigError(f"{what}: {values} must ascend, with one entry in each table beside it")


_TOKENS = (128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 32768.0)
_MAX_W = 700.0

LLAMA2_70B_H100 = Profile(
    name="llama2-70b-h100",
    gpu_max_w=_MAX_W,
    gpu_idle_w=122.0,
    host_idle_w=228.0,
    host_load_w=262.0,
    degrees=(
        Degree(
            tensor_parallel=2,
            prompt_tokens=_TOKENS,
            prompt_s=(0.0483, 0.0518, 0.0838, 0.1580, 0.3103, 0.6427, 1.3398, 4.8),
            prompt_w=(_MAX_W,) * 8,
            token_s=0.0369,
            token_request_s=0.00040,
            token_context_s=0.00008,
            token_w=531.0,
            token_rise_w=169.0,
            token_rise_requests=161.0,
            kv_tokens=22e3,
        ),
        Degree(
            tensor_parallel=4,
            prompt_tokens=_TOKENS,
            prompt_s=(0.0491, 0.0510, 0.0596, 0.1056, 0.2007, 0.4635, 0.9536, 3.520),
            prompt_w=tuple(_MAX_W * frac for frac in (0.642, 0.813, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
            token_s=0.0288,
            token_request_s=0.00029,
            token_context_s=0.00010,
            token_w=429.0,
            token_rise_w=201.0,
            token_rise_requests=161.0,
            kv_tokens=471e3,
        ),
        Degree(
            tensor_parallel=8,
            prompt_tokens=_TOKENS,
            prompt_s=(0.0516, 0.0517, 0.0534, 0.0779, 0.1368, 0.3903, 0.8449, 2.936),
            prompt_w=tuple(_MAX_W * frac for frac in (0.460, 0.658, 0.749, 0.754, 0.954, 0.987, 0.987, 0.995)),
            token_s=0.0300,
            token_request_s=0.00023,
            token_context_s=0.000145,
            token_w=314.0,
            token_rise_w=147.0,
            token_rise_requests=161.0,
            kv_tokens=1.37e6,
        ),
    ),
    assumed=(
        "prompt_w",
        "token_w of TP2 and TP8",
        "token_rise_w of TP2 and TP8",
        "prompt_s of TP2 at 32768 tokens",
        "kv_tokens",
        "batch_max",
        "host_idle_w",
        "host_load_w",
        "prompt_response",
        "token_responses",
    ),
)
