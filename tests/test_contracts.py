"""What every policy must keep to, whoever wrote it: all entry points of `polcad.policies`."""

from importlib.metadata import entry_points

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.codec import convert
from polcad.errors import ConfigError
from polcad.guard import projected_w
from polcad.model import FREE, Priority, Role, Setpoint
from polcad.ports import Policy
from polcad.spec import BRAKE
from tests.views import Class, view

POLICIES = {entry.name: entry.load() for entry in entry_points(group="polcad.policies")}
CLASSES = [(priority, role) for priority in Priority for role in Role]

every_policy = pytest.mark.parametrize("name", sorted(POLICIES))
held_setpoints = st.sampled_from([FREE, Setpoint(0.9), Setpoint(0.787), Setpoint(1.0, 0.6), BRAKE])
held_classes = st.dictionaries(st.sampled_from(CLASSES), held_setpoints, max_size=len(CLASSES))


def made(name: str) -> Policy:
    policy: Policy = POLICIES[name]()
    return policy


def test_the_policies_that_we_ship_are_found_by_name() -> None:
    assert {"polca", "no_cap", "one_threshold_low", "one_threshold_all", "three_band"} <= set(POLICIES)


@every_policy
def test_thresholds_are_within_the_budget(name: str) -> None:
    thresholds = made(name).thresholds
    assert all(0.1 < value <= 1.0 for value in thresholds.values())
    assert list(thresholds.values()) == sorted(thresholds.values())


@every_policy
@settings(max_examples=30, deadline=None)
@given(held=held_classes, used_frac=st.floats(0.0, 2.0), stood_s=st.floats(0.0, 100.0))
def test_every_class_is_decided_with_a_reason_and_a_ceiling(
    name: str, held: dict[Class, Setpoint], used_frac: float, stood_s: float
) -> None:
    desire = made(name).desired(view(used_frac, held, t=stood_s))
    assert set(desire.setpoints) == set(held)
    assert all(0.0 < each.clock_frac <= 1.0 and 0.0 < each.cap_frac <= 1.0 for each in desire.setpoints.values())
    assert {each for each, setpoint in desire.setpoints.items() if not setpoint.free} <= set(desire.why)
    assert 0.0 < desire.ceiling_frac <= 1.0


@every_policy
@settings(max_examples=30, deadline=None)
@given(held=held_classes, one=st.floats(0.0, 1.6), other=st.floats(0.0, 1.6), stood_s=st.floats(0.0, 100.0))
def test_more_power_is_never_answered_with_looser_setpoints(
    name: str, held: dict[Class, Setpoint], one: float, other: float, stood_s: float
) -> None:
    """Measured by the power that the strictest of wanted and held allows, since that is what the guard tightens to."""
    less, more = sorted((one, other))
    seen = view(more, held, t=stood_s, demand_frac=1.0)

    def allowed_w(used_frac: float) -> float:
        wanted = made(name).desired(view(used_frac, held, t=stood_s)).setpoints
        return projected_w(seen, {each: held[each].strictest(setpoint) for each, setpoint in wanted.items()})

    assert allowed_w(more) <= allowed_w(less) + 1e-6


@every_policy
def test_options_are_read_from_configuration_and_strangers_among_them_refused(name: str) -> None:
    assert convert({}, POLICIES[name]) == made(name)
    with pytest.raises(msgspec.ValidationError, match="treshold"):
        convert({"treshold": 0.8}, POLICIES[name])


@every_policy
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "high", None, 1e9])
def test_options_that_mean_nothing_are_refused(name: str, value: object) -> None:
    for option in msgspec.inspect.type_info(POLICIES[name]).fields:  # type: ignore[attr-defined]  # a dataclass
        with pytest.raises((msgspec.ValidationError, ConfigError)):
            convert({option.name: value}, POLICIES[name])
