import pytest

from polcad.errors import ConfigError
from polcad.model import FREE, Setpoint
from policies.graded import Graded
from tests.views import HIGH, LOW, Class, view

MHZ = {mhz: Setpoint(mhz / 1410) for mhz in (1050, 1230, 1275, 1350)}
UNCAPPED = {LOW: FREE, HIGH: FREE}
T1 = {LOW: MHZ[1275], HIGH: MHZ[1350]}
T2 = {LOW: MHZ[1230], HIGH: MHZ[1350]}
T3 = {LOW: MHZ[1050], HIGH: MHZ[1275]}


@pytest.mark.parametrize(
    ("held", "used_frac", "then"),
    [
        (UNCAPPED, 0.80, UNCAPPED),
        (UNCAPPED, 0.81, T1),
        (UNCAPPED, 0.90, T2),
        (T1, 0.96, T3),
        (T3, 0.93, T3),
        (T3, 0.91, T2),
        (T2, 0.85, T1),
        (T1, 0.77, UNCAPPED),
    ],
)
def test_everybody_gives_a_little_before_anybody_gives_much(
    held: dict[Class, Setpoint], used_frac: float, then: dict[Class, Setpoint]
) -> None:
    assert Graded().desired(view(used_frac, held, t=100.0)).setpoints == then


@pytest.mark.parametrize(
    "options",
    [{"t1_frac": 0.9}, {"t3_frac": 0.85}, {"gap_frac": 0.85}, {"low_t2_clock_frac": 0.7}, {"high_clock_frac": 0.9}],
)
def test_thresholds_and_clocks_in_the_wrong_order_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Graded(**options)
