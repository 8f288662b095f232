"""The machines that Splitwise compares: a model over the eight GPUs of a DGX-A100 or a DGX-H100, perhaps under a cap.

Times are medians of `splitwise` (Mutinifni/splitwise-sim, perf_model.csv, TP8; 32 768 tokens are 64 prompts of 512), as
are the A100's powers (fractions of 400 W). There the H100's powers are missing: for Llama they are those of
`polcad.cluster.profiles`, for BLOOM prompts and iterations draw the A100's share of 700 W. What many requests add to an
iteration's power is .47 of it, as measured on the H100 (ML.ENERGY); at a batch of 16 that gives the A100's .45 and .66
of the limit (measured: .46 and .66). Memory: 92 % of the boards' 80 GB less the weights (140 and 352 GB), at 327 680 B
(Llama-2-70B) and 4 014 080 B (BLOOM-176B: 70 layers, 14 336 wide, keys and values of two bytes) a token.

What a machine counts in a budget and what it costs are the figures of the authors' scripts: an H100 against an A100
counts 44 to 24.8 in power and 4.76 to 2.21 in cost; a DGX-H100 whose GPUs are capped to half counts .7 of itself;
232 kW are 40 DGX-H100. A cap holds the clock at the highest at which the GPU's power is within it (`polcad.curve`,
measured on A100); a board's own limiter may be dearer than that where it cuts deep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polcad.cluster.nouns import Shape
from polcad.cluster.profiles import LLAMA2_70B_H100, Degree, Profile
from polcad.errors import ConfigError

H100_W = 5800.0  # that a DGX-H100 counts in a row's budget: 232 kW are 40 of them
A100_W = H100_W * 24.8 / 44
CAPPED_W = 0.7 * H100_W
H100_USD_H, A100_USD_H = 4.76, 2.21  # only their ratio means something

_TOKENS = (128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 32768.0)
_RISE, _RISE_REQUESTS = 0.47, 161.0
_A100_W, _H100_W = 400.0, 700.0


def _degree(
    prompt_ms: tuple[float, ...], prompt_frac: tuple[float, ...], token_ms: tuple[float, ...], w: tuple[float, float]
) -> Degree:
    """TP8; `token_ms`: an iteration, by request, by 1000 tokens of context; `w`: a GPU's limit, its power in one."""
    one_ms, request_ms, context_ms = token_ms
    return Degree(
        tensor_parallel=8,
        prompt_tokens=_TOKENS,
        prompt_s=tuple(ms / 1000 for ms in prompt_ms),
        prompt_w=tuple(w[0] * frac for frac in prompt_frac),
        token_s=one_ms / 1000,
        token_request_s=request_ms / 1000,
        token_context_s=context_ms / 1000,
        token_w=w[1],
        token_rise_w=_RISE * w[1],
        token_rise_requests=_RISE_REQUESTS,
        kv_tokens=1.37e6,
    )


_BLOOM_KV_TOKENS = 59e3
_BLOOM_FRAC = (0.691, 0.723, 0.876, 1.0, 1.0, 1.0, 1.0, 1.0)

LLAMA2_70B_A100 = Profile(
    name="llama2-70b-a100",
    gpu_max_w=_A100_W,
    gpu_idle_w=68.0,
    host_idle_w=119.5,
    host_load_w=191.0,
    max_mhz=1410.0,
    clocks_mhz=(800.0, 900.0, 1000.0, 1100.0, 1200.0, 1300.0, 1410.0),
    degrees=(
        _degree(
            (65.3, 66.8, 93.0, 160.9, 282.7, 708.4, 1781.0, 7554.0),
            (0.460, 0.658, 0.749, 0.754, 0.954, 0.987, 0.974, 0.974),
            (44.2, 0.232, 0.323),
            (_A100_W, 0.43 * _A100_W),
        ),
    ),
    assumed=("token_rise_w", "kv_tokens", "batch_max", "host_idle_w", "host_load_w"),
)
BLOOM_176B_A100 = replace(
    LLAMA2_70B_A100,
    name="bloom-176b-a100",
    degrees=(
        replace(
            _degree(
                (79.7, 99.2, 174.4, 287.5, 536.1, 1332.6, 3591.5, 11251.8),
                _BLOOM_FRAC,
                (48.1, 0.531, 0.345),
                (_A100_W, 0.63 * _A100_W),
            ),
            kv_tokens=_BLOOM_KV_TOKENS,
        ),
    ),
)
BLOOM_176B_H100 = replace(
    LLAMA2_70B_H100,
    name="bloom-176b-h100",
    degrees=(
        replace(
            _degree(
                (48.3, 51.2, 76.1, 132.2, 252.0, 649.6, 1411.6, 4996.5),
                _BLOOM_FRAC,
                (35.5, 0.315, 0.193),
                (_H100_W, 0.63 * _H100_W),
            ),
            kv_tokens=_BLOOM_KV_TOKENS,
        ),
    ),
    assumed=(*LLAMA2_70B_H100.assumed, "token_w"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A server that holds one instance, over as many GPUs as its profile knows at most. ConfigError for a cap of 0."""

    profile: Profile
    budget_w: float  # what it counts in a row's budget
    usd_h: float
    cap_frac: float = 1.0  # of the GPUs' highest power limit
    clock_frac: float = 1.0  # a lock in force: it runs no faster

    def __post_init__(self) -> None:
        """Refuse a cap that is none."""
        if not 0.0 < self.cap_frac <= 1.0:
            raise ConfigError(f"cap_frac={self.cap_frac:g} must be above 0 and at most 1")

    @property
    def tensor_parallel(self) -> int:
        """GPUs of the instance."""
        return self.profile.tensor_parallels[-1]

    @property
    def shape(self) -> Shape:
        """Of the instance, at the highest clock that it may have."""
        return Shape(self.tensor_parallel, self.clock_frac)

    @property
    def kv_tokens(self) -> float:
        """Tokens of context that it holds."""
        return self.profile.kv_tokens(self.tensor_parallel)

    @property
    def idle_w(self) -> float:
        """What it draws without a request, W."""
        return self.profile.idle_w(self.shape)

    def prompt_s(self, tokens: float) -> float:
        """How long prompts of so many tokens together take, s."""
        return self.profile.prompt_s(self._prompt_shape(tokens), tokens)

    def prompt_w(self, tokens: float) -> float:
        """What the server draws meanwhile, W."""
        return self.profile.prompt_w(self._prompt_shape(tokens), tokens)

    def token_s(self, batch: float, context_tokens: float) -> float:
        """How long an iteration over a batch takes, with so many tokens of context of all requests together, s."""
        return self.profile.token_s(self._token_shape(batch), batch, context_tokens)

    def token_w(self, batch: float) -> float:
        """What the server draws meanwhile, W."""
        return self.profile.token_w(self._token_shape(batch), batch)

    def _prompt_shape(self, tokens: float) -> Shape:
        degree, response = self.profile.degree(self.tensor_parallel), self.profile.prompt_response
        full_w = float(np.interp(tokens, degree.prompt_tokens, degree.prompt_w))
        return self.shape if full_w <= self._cap_w else self._within(full_w, response.clock_frac, response.power)

    def _token_shape(self, batch: float) -> Shape:
        profile, degree = self.profile, self.profile.degree(self.tensor_parallel)
        full_w = degree.token_w - degree.token_rise_w * float(np.expm1(-batch / degree.token_rise_requests))
        if full_w <= self._cap_w:
            return self.shape
        clocks_frac = profile.token_responses[0].clock_frac
        return self._within(full_w, clocks_frac, [profile.token_ratio(clock, batch)[1] for clock in clocks_frac])

    @property
    def _cap_w(self) -> float:
        return self.cap_frac * self.profile.gpu_max_w

    def _within(self, full_w: float, clocks_frac: Sequence[float], power: Sequence[float]) -> Shape:
        """The highest clock at which what draws `full_w` at the highest is within the cap; the lowest where none is."""
        within = float(np.interp(self._cap_w / full_w, power, clocks_frac))
        return Shape(self.tensor_parallel, min(within, self.clock_frac))


MODELS = {
    "llama2-70b": (LLAMA2_70B_A100, LLAMA2_70B_H100),
    "bloom-176b": (BLOOM_176B_A100, BLOOM_176B_H100),
}


def machines(model: str) -> dict[str, Machine]:
    """A DGX-A100 ("a"), a DGX-H100 ("h"), and one capped to half ("cap"); ConfigError for a model not known."""
    if model not in MODELS:
        raise ConfigError(f"model {model!r} is none of {', '.join(MODELS)}")
    a100, h100 = MODELS[model]
    return {
        "a": Machine(a100, A100_W, A100_USD_H),
        "h": Machine(h100, H100_W, H100_USD_H),
        "cap": Machine(h100, CAPPED_W, H100_USD_H, cap_frac=0.5),
    }
