"""The row's power meter: it reads every few seconds, not exactly, and sometimes not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from polcad.errors import ConfigError
from polcad.sim.profiles import Floats, Known


@dataclass(frozen=True, slots=True)
class Meter:
    """A reading is the mean of its period; `period_s` is a whole number of steps."""

    period_s: Annotated[float, Known("s", "POLCA's row manager, as remembered from the paper")] = 2.0
    noise_frac: Annotated[float, Known("standard deviation", "assumed: a meter of class 0.5")] = 0.005
    dropout_frac: Annotated[float, Known("of readings", "assumed")] = 0.001

    def __post_init__(self) -> None:
        """Refuse a meter that cannot be."""
        if self.period_s < 1 or self.period_s != int(self.period_s):
            raise ConfigError(f"meter: period_s={self.period_s} must be a whole number of seconds, at least 1")
        if not (0 <= self.noise_frac < 1 and 0 <= self.dropout_frac <= 1):
            raise ConfigError(f"meter: noise_frac={self.noise_frac} and dropout_frac={self.dropout_frac} are fractions")

    def factors(self, readings: int, random: np.random.Generator) -> Floats:
        """What so many readings make of one watt; NaN where there is none."""
        factors = np.maximum(random.normal(1.0, self.noise_frac, readings), 0.0)
        factors[random.random(readings) < self.dropout_frac] = np.nan
        return factors
