"""Feeding forecasters, and seeing what came of their bounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from polcad.ports import Forecaster, Learner
from polcad.school import Classroom

Floats = NDArray[np.float64]
HORIZONS_S, QUANTILES, STEP_S = (1.0, 40.0, 300.0), (0.5, 0.99), 2.0
Q = 0.99


def made(kind: type[Any], domains: int, step_s: float = STEP_S, horizons_s: Sequence[float] = HORIZONS_S) -> Forecaster:
    forecaster: Forecaster = kind(domains=domains, step_s=step_s, horizons_s=horizons_s, quantiles=QUANTILES)
    return forecaster


def fed(
    forecaster: Forecaster, demand_w: Floats, horizon_s: float, *, step_s: float = STEP_S, taught: bool = False
) -> Floats:
    """The bounds given after each step of `demand_w` (steps, domains), from time 0 on."""
    steady, bounds_w = np.ones(demand_w.shape[1], dtype=np.bool_), []
    for step, now_w in enumerate(demand_w):
        forecaster.observe(step * step_s, now_w, steady)
        if taught:
            teach(forecaster, step * step_s)
        bounds_w.append(forecaster.upper(horizon_s, Q))
    return np.array(bounds_w)


def teach(forecaster: Forecaster, t: float) -> None:
    """Hold the lesson that is due, if one is."""
    if isinstance(forecaster, Learner) and (lesson := forecaster.lesson(t)):
        school = Classroom()
        school.begin(lesson)
        for result in school.ended() or ():
            forecaster.learn(result)
        assert not school.failed


def peaks(demand_w: Floats, steps: int) -> Floats:
    """The largest of the `steps` after each step: as many rows less than `demand_w`."""
    ahead: Floats = sliding_window_view(demand_w[1:], steps, axis=0).max(axis=-1)
    return ahead


def noise(steps: int, domains: int, seed: int = 0, lasting: float = 0.0) -> Floats:
    """Stationary demand around 50 kW with a deviation of 2 kW, of which a share lasts from each step to the next."""
    noise: Floats = np.random.default_rng(seed).standard_normal((steps, domains))
    for step in range(1, steps):
        noise[step] = lasting * noise[step - 1] + (1.0 - lasting**2) ** 0.5 * noise[step]
    return 50_000.0 + 2_000.0 * noise
