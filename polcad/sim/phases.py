"""Which workloads make tokens most of the time: what a policy that looks at roles must be told."""

from __future__ import annotations

from dataclasses import replace

from polcad.model import Role
from polcad.sim.profiles import Hardware
from polcad.sim.requests import Load, Workload, mean_service_s
from polcad.sim.row import RowModel

_LOOK = ("phase_aware", "role_aware")  # policies that do
_PROMPT_SHARE = 0.25  # of a busy server's time; below it the server counts as token-heavy


def with_phases(load: Load, hardware: Hardware) -> Load:
    """The same load, each workload's servers marked as token-heavy or mixed by what they spend their time on."""
    return replace(load, mix=tuple(replace(each, role=_role(each, hardware)) for each in load.mix))


def told_phases(model: RowModel, policy: str) -> RowModel:
    """The row, with its phases told to policies (by name) that look at them; a trace's are not known."""
    if policy not in _LOOK or not isinstance(model.source, Load):
        return model
    return replace(model, source=with_phases(model.source, model.hardware))


def _role(workload: Workload, hardware: Hardware) -> Role:
    prompts_only = replace(workload, output_tokens=(1, 1))
    share = mean_service_s(prompts_only, hardware) / mean_service_s(workload, hardware)
    return Role.TOKEN if share < _PROMPT_SHARE else Role.MIXED
