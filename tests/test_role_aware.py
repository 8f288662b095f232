"""Role-aware capping: who loses least is locked first, within low priority, then within high."""

from __future__ import annotations

import pytest

from polcad.controller import Controller
from polcad.errors import ConfigError
from polcad.model import FREE, Placement, Plan, Priority, Role, Setpoint
from polcad.ports import Heard, Tick
from polcad.simulate import SimulateOptions
from polcad.spec import NodeSpec, RowSpec
from polcad.testing import telemetry
from policies.role_aware import RoleAware
from tests.row_play import GUARD, T0
from tests.views import Class, view

LOW, HIGH = Priority.LOW, Priority.HIGH
INFERENCE = (Role.TOKEN, Role.MIXED, Role.PROMPT)
CLASSES = [(priority, role) for priority in (LOW, HIGH) for role in INFERENCE]
DEEP, MILD = Setpoint(1110 / 1410), Setpoint(1305 / 1410)


def locked(used_frac: float, held: dict[Class, Setpoint] | None = None, t: float = 1000.0) -> set[Class]:
    held = held or dict.fromkeys(CLASSES, FREE)
    wanted = RoleAware().desired(view(used_frac, held, t=t)).setpoints
    return {name for name, setpoint in wanted.items() if not setpoint.free}


def test_roles_go_from_who_loses_least_to_who_loses_most() -> None:
    assert RoleAware().order == (Role.TOKEN, Role.MIXED, Role.TRAINING, Role.PROMPT)


def test_token_servers_are_locked_first_then_mixed_then_prompt_servers() -> None:
    assert locked(0.79) == set()
    assert locked(0.81) == {(LOW, Role.TOKEN)}
    assert locked(0.84) == {(LOW, Role.TOKEN), (LOW, Role.MIXED)}
    assert locked(0.895) == {(LOW, role) for role in INFERENCE}


def test_the_high_priority_follows_in_the_same_order_one_role_each_time_the_last_lock_had_time_to_act() -> None:
    held = dict.fromkeys(CLASSES, FREE) | {(LOW, role): DEEP for role in INFERENCE}
    assert locked(0.95, held, t=0.0) == set(held) - {(HIGH, role) for role in INFERENCE}
    for role in INFERENCE:
        found = locked(0.95, held)
        assert found - {name for name, setpoint in held.items() if not setpoint.free} == {(HIGH, role)}
        held[HIGH, role] = MILD


def test_a_row_without_token_servers_is_not_stuck_before_the_high_priority() -> None:
    held = {(LOW, Role.MIXED): DEEP, (HIGH, Role.MIXED): FREE}
    assert locked(0.95, held) == set(held)


def test_prompt_servers_are_freed_first() -> None:
    held = dict.fromkeys(CLASSES, FREE) | {(LOW, role): DEEP for role in INFERENCE}
    assert locked(0.83, held) == {(LOW, Role.TOKEN), (LOW, Role.MIXED)}


@pytest.mark.parametrize(
    "options", [{"t1_frac": 0.9}, {"gap_frac": 0.85}, {"low_clock_frac": 0.95}, {"low_clock_frac": 0.0}]
)
def test_thresholds_and_clocks_in_the_wrong_order_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RoleAware(**options)


def test_the_controller_plans_for_token_servers_alone_when_that_is_enough() -> None:
    nodes = tuple(
        NodeSpec(f"{priority}-{role}", "rack", gpus=2, priority=priority, role=role) for priority, role in CLASSES
    )
    row = RowSpec("row", len(nodes) * 2 * 700.0, (), nodes)
    controller, plans = Controller(row, GUARD, RoleAware(), 1), []
    for node in nodes:
        controller.on(Heard(T0, telemetry(node.name, 0.81 * 700.0, gpus=2, seq=1, setpoint=FREE), "rack"))
    plans = [said for said in controller.on(Tick(T0)) if isinstance(said, Plan)]
    setpoints = {name: plans[-1].setpoint("rack", "-".join(name), "gpu", Placement(*name)) for name in CLASSES}
    assert {name for name, setpoint in setpoints.items() if not setpoint.free} == {(LOW, Role.TOKEN)}


def test_the_simulated_row_tells_the_policy_its_roles() -> None:
    roles = {pool.placement.role for pool in SimulateOptions(8, policy="role_aware").model().pools()}
    assert roles == {Role.TOKEN, Role.MIXED}
