"""How a GPU's power and time answer to its clock.

Ratios of power and of time at a clock to those at the maximum clock, measured on A100-SXM boards (maximum 1410 MHz) and
stored by fractions of it, so that another board's clocks fit the same axis:

- prompt: forward stages of GPT-3 175B and BLOOM 176B in the Perseus profiles (data/perseus);
- token, mixed, training: vLLM iterations of Llama-3.3-70B with at most 64, with 65-128 and with at least 192 tokens, in
  the BEAM profiles (data/beam).

Prompt below 900 MHz and everything below 510 MHz was not measured: there the curves run straight to .44 (training .40)
at 288 MHz, the range that an extrapolation gives, and time grows as one over the clock. For other boards than the A100
all of it is an assumption.

A GPU is an idle part that no clock changes and a dynamic part that does: power = idle + dynamic * ratio(clock).
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from polcad.model import Role

IDLE_SHARE = 0.20  # of full-load power: 70 W idle beside 350 W (A100), as in `GuardSpec.idle_frac`

CLOCK_FRAC = tuple(mhz / 1410 for mhz in (288, 510, 690, 900, 1050, 1110, 1200, 1275, 1305, 1350, 1410))
POWER_FRAC: dict[Role, tuple[float, ...]] = {
    Role.PROMPT: (0.44, 0.463, 0.481, 0.503, 0.568, 0.607, 0.708, 0.818, 0.878, 0.939, 1.0),
    Role.TOKEN: (0.44, 0.530, 0.590, 0.683, 0.721, 0.736, 0.791, 0.852, 0.879, 0.916, 1.0),
    Role.MIXED: (0.44, 0.486, 0.545, 0.629, 0.670, 0.701, 0.765, 0.833, 0.867, 0.908, 1.0),
    Role.TRAINING: (0.40, 0.425, 0.484, 0.556, 0.605, 0.637, 0.714, 0.796, 0.835, 0.895, 1.0),
}
TIME_RATIO: dict[Role, tuple[float, ...]] = {
    Role.PROMPT: (4.45, 2.54, 1.894, 1.463, 1.265, 1.200, 1.116, 1.055, 1.035, 1.011, 1.0),
    Role.TOKEN: (3.59, 2.026, 1.604, 1.198, 1.091, 1.070, 1.038, 1.022, 1.015, 1.006, 1.0),
    Role.MIXED: (3.96, 2.238, 1.712, 1.318, 1.165, 1.120, 1.076, 1.040, 1.032, 1.010, 1.0),
    Role.TRAINING: (4.17, 2.357, 1.805, 1.414, 1.238, 1.183, 1.111, 1.051, 1.032, 1.009, 1.0),
}
DYNAMIC_FRAC: dict[Role, tuple[float, ...]] = {
    role: tuple((power - IDLE_SHARE) / (1 - IDLE_SHARE) for power in powers) for role, powers in POWER_FRAC.items()
}
HIGHEST_FRAC = tuple(max(values) for values in zip(*DYNAMIC_FRAC.values(), strict=True))  # whatever a GPU does


def dynamic_frac(role: Role, clock_frac: float) -> float:
    """The share of its dynamic power that a GPU draws at `clock_frac` of its maximum clock (1 at the maximum)."""
    return _between(DYNAMIC_FRAC[role], clock_frac)


def power_frac(role: Role, clock_frac: float) -> float:
    """The share of its full power, idle part included, that a busy GPU draws at `clock_frac` of its maximum clock."""
    return _between(POWER_FRAC[role], clock_frac)


def time_ratio(role: Role, clock_frac: float) -> float:
    """How many times longer work takes at `clock_frac` of the maximum clock (1 at the maximum)."""
    return _between(TIME_RATIO[role], clock_frac)


def clock_within(power_frac: float) -> float:
    """The highest clock, of the maximum, at which no busy GPU draws more than this share of its full power."""
    places = zip(CLOCK_FRAC, zip(*POWER_FRAC.values(), strict=True), strict=True)
    points: list[tuple[float, float]] = [(max(powers), clock) for clock, powers in places]
    if power_frac <= points[0][0]:
        return points[0][1]
    for (low, slower), (high, faster) in pairwise(points):
        if power_frac <= high:
            return slower + (faster - slower) * (power_frac - low) / (high - low)
    return 1.0


def _between(values: tuple[float, ...], clock_frac: float) -> float:
    """`values` at `clock_frac`, straight between the points and level beyond them."""
    if clock_frac <= CLOCK_FRAC[0]:
        return values[0]
    if clock_frac >= 1.0:
        return 1.0
    right = bisect_right(CLOCK_FRAC, clock_frac)
    low, high = CLOCK_FRAC[right - 1], CLOCK_FRAC[right]
    return values[right - 1] + (values[right] - values[right - 1]) * (clock_frac - low) / (high - low)
