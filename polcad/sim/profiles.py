"""Hardware profiles: what a server of eight GPUs takes and draws in each phase of a request.

A request is a prompt phase (all its input at once; one request at a time, the others of the server wait) and a token
phase (all requests of the server together, one token each an iteration). Every figure carries its unit and source;
`assumed` marks what was not measured for that hardware. Data files are named as in the public collections they come
from: `splitwise` is Mutinifni/splitwise-sim's perf_model.csv, `mlenergy` the ML.ENERGY leaderboard. The response to
clocks is `polcad.curve`. How the figures were fitted, and how well they hold on data they were not fitted to, is in
docs/simulation.md; `scripts/calibrate_sim.py` makes them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from polcad.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Known:
    """Where a parameter comes from."""

    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """A server of `gpus` boards that holds one instance of a model. Tables run over `prompt_tokens`."""

    name: str
    gpu_max_w: Annotated[float, Known("W", "the board's highest power limit")]
    gpu_idle_w: Annotated[float, Known("W", "a GPU with a loaded model and no request; A100 63-73 W, H100 119-126 W")]
    provisioned_w: Annotated[float, Known("W", "a server's share of the row's budget: its nameplate")]
    host_idle_w: Annotated[float, Known("W", "an idle server's power less its idle GPUs'")]
    host_load_w: Annotated[float, Known("W", "what full load adds beside the GPUs; fitted to POLCA's 79 % peak")]
    max_mhz: Annotated[float, Known("MHz", "the board's highest SM clock")]
    prompt_tokens: Annotated[tuple[float, ...], Known("tokens", "splitwise: BLOOM-176B TP8, batch 1")]
    prompt_s: Annotated[tuple[float, ...], Known("s", "splitwise: median prompt time")]
    prompt_frac: Annotated[tuple[float, ...], Known("of gpu_max_w", "splitwise: peak power")]
    token_s: Annotated[float, Known("s", "splitwise: one iteration, without its requests")]
    token_request_s: Annotated[float, Known("s a request", "splitwise: each request in the iteration adds this")]
    token_context_s: Annotated[float, Known("s a 1000 tokens", "splitwise: each 1000 tokens of context add this")]
    token_frac: Annotated[float, Known("of gpu_max_w", "splitwise: decode power with few requests")]
    token_rise_frac: Annotated[float, Known("of gpu_max_w", "decode power added by many requests")]
    token_rise_requests: Annotated[float, Known("requests", "1 - 1/e of the rise is reached here")]
    gpus: Annotated[int, Known("boards", "DGX")] = 8
    batch_max: Annotated[int, Known("requests", "assumed: what one instance serves together")] = 16
    host_s: Annotated[float, Known("s", "assumed: how fast fans and supplies follow the load")] = 300.0
    limit_lag_s: Annotated[float, Known("s", "assumed: how long a burst escapes a power limit (under 1 s)")] = 0.5
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a server that cannot be."""
        if not 0 < self.gpu_idle_w < self.gpu_max_w:
            raise ConfigError(f"{self.name}: gpu_idle_w={self.gpu_idle_w} must be above 0 and below gpu_max_w")
        if self.batch_max < 1:
            raise ConfigError(f"{self.name}: batch_max={self.batch_max} must be at least 1")

    def hungrier(self, frac: float) -> Hardware:
        """The same, with phases of work that draw so much more."""
        return replace(
            self,
            prompt_frac=tuple((1 + frac) * share for share in self.prompt_frac),
            token_frac=(1 + frac) * self.token_frac,
            token_rise_frac=(1 + frac) * self.token_rise_frac,
        )

    @property
    def idle_w(self) -> float:
        """What the idle server draws, W."""
        return self.gpus * self.gpu_idle_w + self.host_idle_w

    def prompt_time_s(self, tokens: Floats) -> Floats:
        """How long prompts of so many tokens take at the maximum clock, s: straight between the points in log-log."""
        known, times = np.log(self.prompt_tokens), np.log(self.prompt_s)
        asked = np.log(np.maximum(tokens, 1.0))
        beyond = np.maximum(asked - known[-1], 0.0) * (times[-1] - times[-2]) / (known[-1] - known[-2])
        result: Floats = np.exp(np.interp(asked, known, times) + beyond)
        return result

    def prompt_power_w(self, tokens: Floats) -> Floats:
        """What the server's GPUs draw in a prompt of so many tokens, W."""
        asked = np.log(np.maximum(tokens, 1.0))
        result: Floats = self.gpus * self.gpu_max_w * np.interp(asked, np.log(self.prompt_tokens), self.prompt_frac)
        return result

    def token_time_s(self, requests: float, context_tokens: float) -> float:
        """How long an iteration takes over so many requests with so much context together, s."""
        return self.token_s + self.token_request_s * requests + self.token_context_s * context_tokens / 1000

    def token_power_w(self, requests: Floats) -> Floats:
        """What the server's GPUs draw while they make tokens for so many requests, W."""
        rise = self.token_rise_frac * (1 - np.exp(-requests / self.token_rise_requests))
        result: Floats = self.gpus * self.gpu_max_w * (self.token_frac + rise)
        return result

    def service_s(self, prompt_tokens: Floats, output_tokens: Floats) -> Floats:
        """The share of a full server's time that a request takes, s: its prompt, and its part of the iterations."""
        context = self.batch_max * prompt_tokens
        iteration_s = self.token_s + self.token_request_s * self.batch_max + self.token_context_s * context / 1000
        result: Floats = self.prompt_time_s(prompt_tokens) + output_tokens * iteration_s / self.batch_max
        return result


_TOKENS = (128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)

DGX_A100 = Hardware(
    name="dgx-a100",
    gpu_max_w=400.0,
    gpu_idle_w=68.0,
    provisioned_w=6500.0,
    host_idle_w=956.0,
    host_load_w=1530.0,
    max_mhz=1410.0,
    prompt_tokens=_TOKENS,
    prompt_s=(0.0833, 0.0992, 0.1741, 0.2878, 0.5394, 1.348, 3.443),
    prompt_frac=(0.691, 0.723, 0.876, 1.006, 1.017, 1.017, 1.025),
    token_s=0.0477,
    token_request_s=0.00035,
    token_context_s=0.00045,
    token_frac=0.630,
    token_rise_frac=0.045,
    token_rise_requests=16.0,
)

# H100: the curves of `polcad.curve` are assumed too; token power is of Llama 70B (mlenergy), prompt power the A100's.
DGX_H100 = Hardware(
    name="dgx-h100",
    gpu_max_w=700.0,
    gpu_idle_w=122.0,
    provisioned_w=10200.0,
    host_idle_w=1824.0,
    host_load_w=2100.0,
    max_mhz=1980.0,
    prompt_tokens=_TOKENS,
    prompt_s=(0.0481, 0.0515, 0.0771, 0.1331, 0.2512, 0.6734, 1.5354),
    prompt_frac=(0.691, 0.723, 0.876, 1.0, 1.0, 1.0, 1.0),
    token_s=0.0350,
    token_request_s=0.00032,
    token_context_s=0.00028,
    token_frac=0.614,
    token_rise_frac=0.296,
    token_rise_requests=125.0,
    assumed=("prompt_frac", "host_load_w", "token_frac", "token_rise_frac", "token_rise_requests"),
)

PROFILES = {hardware.name: hardware for hardware in (DGX_A100, DGX_H100)}


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """One line of a table of parameters."""

    name: str
    value: object
    unit: str
    source: str
    assumed: bool


def parameters(noun: Any) -> Iterator[ParameterRow]:
    """Every parameter of a profile, load, meter or path: name, value, unit, source, and whether it is assumed."""
    hints = get_type_hints(type(noun), include_extras=True)
    guessed = getattr(noun, "assumed", ())
    for item in fields(noun):
        known = next((part for part in get_args(hints[item.name]) if isinstance(part, Known)), None)
        if known is not None:
            assumed = item.name in guessed or known.source.startswith("assumed")
            yield ParameterRow(item.name, getattr(noun, item.name), known.unit, known.source, assumed)
