"""How small a margin could have been: bounds fitted in hindsight on the very hours that judge them.

    python scripts/forecast_ceiling.py RECORDING… [--horizon 40] [--quantile .99]

`persistence` is the quantile of the rises above the present; `features` a quantile regression of them on what the
default forecaster sees. Both know the future, so no forecaster with the same features can promise less. Mean bound less
demand, W, of the row, after the first tenth.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from statsmodels.regression.quantile_regression import QuantReg  # type: ignore[import-untyped]  # it has no stubs

from polcad.demand import Demand, recorded
from polcad.forecast.coming import steps_of
from polcad.forecast.features import COUNT, Features
from polcad.forecast.peaks import BLOCK_S
from polcad.judging import coming_peaks
from polcad.places import Floats

WARMUP, SLOPES_AT, ROWS = 0.1, (0.9, 0.99), 6000


def main() -> None:
    """Print a line a recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--horizon", type=float, default=40.0)
    parser.add_argument("--quantile", type=float, default=0.99)
    args = parser.parse_args()
    for path in args.recordings:
        persistence_w, features_w = ceiling(recorded(path), args.horizon, args.quantile)
        saved = 1 - features_w / persistence_w
        print(f"{path.name}: persistence {persistence_w:.0f} W, features {features_w:.0f} W, {saved:.0%} less")


def ceiling(demand: Demand, horizon_s: float, q: float) -> tuple[float, float]:
    """The two margins, W."""
    row_w = demand.demand_w[:, 0]
    rises_w = coming_peaks(row_w, steps_of(horizon_s, demand.step_s)) - row_w
    judged = np.isfinite(rises_w) & (np.arange(len(rises_w)) >= WARMUP * len(rises_w))
    rise_w, seen_w = rises_w[judged], _seen(demand)[judged]
    with_one = np.column_stack([np.full(len(seen_w), rise_w.std()), seen_w]) / rise_w.std()
    return float(np.quantile(rise_w, q)), min(_margin_w(rise_w, with_one, slope_q, q) for slope_q in SLOPES_AT)


def _margin_w(rise_w: Floats, features: Floats, slope_q: float, q: float) -> float:
    """Of slopes fitted at one quantile, lifted until the share `q` of the bounds holds."""
    some = slice(None, None, max(1, len(rise_w) // ROWS))
    with warnings.catch_warnings():  # that the last digits have not settled does not matter
        warnings.simplefilter("ignore")
        slopes = QuantReg(rise_w[some], features[some]).fit(q=slope_q, max_iter=300).params
    bound_w = features @ slopes
    return float((bound_w + np.quantile(rise_w - bound_w, q)).mean())


def _seen(demand: Demand) -> Floats:
    features, block = Features(1, demand.step_s), max(1, round(BLOCK_S / demand.step_s))
    seen_w = np.empty((len(demand.t), COUNT))
    for step, t in enumerate(demand.t.tolist()):
        now_w = demand.demand_w[step, :1]
        known = np.isfinite(now_w)
        features.observe(np.nan_to_num(now_w), known, known)
        if step % block == block - 1:
            features.end_block(t)
        seen_w[step] = features.values_w[:, 0]
    return seen_w


if __name__ == "__main__":
    main()
