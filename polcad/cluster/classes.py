"""Which of the nine kinds a request is: by thresholds on its prompt and its output, and by a guess of the output.

DynamoLLM's published mix comes from the tertiles of each trace, so the thresholds are by default those of the last
requests; fixed ones are an option. A prompt's length is known on arrival, an output's is not: a simulation guesses it
with a given accuracy (81 % right in DynamoLLM), a live system takes what prompts of that class came to of late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polcad.cluster.nouns import KINDS, Kind, Length
from polcad.errors import ConfigError
from polcad.places import Floats, Indices

LENGTHS = tuple(Length)

Bounds = tuple[float, float]  # tokens: up to the first a length is short, up to the second medium


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where short ends and long begins; by default the tertiles of the Azure conversation trace of 2023."""

    prompt_tokens: Bounds = (409.0, 1107.0)
    output_tokens: Bounds = (94.0, 357.0)

    def __post_init__(self) -> None:
        """Refuse bounds in the wrong order."""
        for name in ("prompt_tokens", "output_tokens"):
            low, high = getattr(self, name)
            if not 0.0 <= low <= high:
                raise ConfigError(f"{name}: {low:g} and {high:g} must be two thresholds from the lower to the higher")

    def kind(self, prompt_tokens: float, output_tokens: float) -> Kind:
        """The kind of one request."""
        prompt, output = length(prompt_tokens, self.prompt_tokens), length(output_tokens, self.output_tokens)
        return LENGTHS[prompt], LENGTHS[output]

    def places(self, prompt_tokens: Floats, output_tokens: Floats) -> Indices:
        """The kinds of many requests, as places in `KINDS`."""
        prompts = np.searchsorted(self.prompt_tokens, prompt_tokens, side="left")
        outputs = np.searchsorted(self.output_tokens, output_tokens, side="left")
        placed: Indices = (prompts * len(LENGTHS) + outputs).astype(np.intp)
        return placed


def length(tokens: float, bounds: Bounds) -> int:
    """The place in `LENGTHS` of so many tokens."""
    return int(tokens > bounds[0]) + int(tokens > bounds[1])


class RollingTertiles:
    """Thresholds that cut the last `requests` in thirds, looked at anew every `every_s`."""

    def __init__(self, requests: int = 4096, every_s: float = 60.0, first: Thresholds = Thresholds()) -> None:
        self._seen = np.full((requests, 2), np.nan)
        self._count, self._every_s, self._look_t = 0, every_s, float("-inf")
        self._thresholds = first

    @property
    def thresholds(self) -> Thresholds:
        """Those in use; the first ones until thirty requests have ended."""
        return self._thresholds

    def observe(self, t: float, prompt_tokens: float, output_tokens: float) -> None:
        """Take a request that has ended."""
        self._seen[self._count % len(self._seen)] = prompt_tokens, output_tokens
        self._count += 1
        if t >= self._look_t + self._every_s and self._count >= _LEAST:
            self._look_t = t
            thirds = np.quantile(self._seen[: self._count], (1 / 3, 2 / 3), axis=0)
            self._thresholds = Thresholds(*((float(low), float(high)) for low, high in thirds.T))


_LEAST = 30  # requests: of fewer, thirds are a matter of luck


class NoisyLengths:
    """For simulations: guesses of output lengths of which a share `right_frac` is right, the others any other."""

    def __init__(self, right_frac: float = 0.81, seed: int = 1) -> None:
        if not 0.0 <= right_frac <= 1.0:
            raise ConfigError(f"right_frac={right_frac} must be between 0 and 1")
        self._right_frac, self._draws = right_frac, np.random.default_rng(seed)

    def guess(self, places: NDArray[np.intp]) -> Indices:
        """The kinds as guessed, for true kinds (places in `KINDS`): the prompt is known, the output guessed."""
        wrong = self._draws.random(len(places)) >= self._right_frac
        shift = np.where(wrong, self._draws.integers(1, len(LENGTHS), len(places)), 0)
        prompts, outputs = np.divmod(places, len(LENGTHS))
        guessed: Indices = prompts * len(LENGTHS) + (outputs + shift) % len(LENGTHS)
        return guessed


class PastMix:
    """For live systems: what the outputs of a prompt class came to of late; the last thousand requests weigh most."""

    def __init__(self, requests: float = 1000.0) -> None:
        self._weights = np.ones((len(LENGTHS), len(LENGTHS)))  # before anything is known, each is as likely
        self._kept = 1.0 - 1.0 / requests

    def learn(self, kind: Kind) -> None:
        """Take a request that has ended."""
        row = LENGTHS.index(kind[0])
        self._weights[row] *= self._kept
        self._weights[row, LENGTHS.index(kind[1])] += 1.0

    def shares(self, prompt: Length) -> Mapping[Kind, float]:
        """How likely each kind is for a prompt of this length."""
        weights = self._weights[LENGTHS.index(prompt)]
        likely = (weights / weights.sum()).tolist()
        return {kind: likely[LENGTHS.index(kind[1])] for kind in KINDS if kind[0] is prompt}
