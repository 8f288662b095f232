"""The clusters that Splitwise (arXiv 2311.18677) compares, to be simulated: Llama-2-70B on DGX-A100 and DGX-H100.

Their machines stand; nothing is replanned. The first letter names the prompt machines, the second the token machines;
those of HHcap are capped to half of their power. The baselines do both on every machine, by continuous batching.
"""

from __future__ import annotations

from typing import ClassVar

from polcad.cluster.nouns import ClusterView, PoolPlan
from polcad.cluster.profiles import Profile
from polcad.cluster.split import Design, design


class SplitwiseSystem:
    """A cluster whose machines stand."""

    design: ClassVar[Design]
    provisioned: ClassVar[bool] = False  # its size is the servers that there are, not one for the highest load

    def __init__(self, profile: Profile) -> None:
        del profile  # its machines have their own

    def decide(self, view: ClusterView) -> tuple[PoolPlan, ...]:
        """Nothing is replanned."""
        del view
        return ()


class SplitwiseAA(SplitwiseSystem):
    """Both pools of A100."""

    design = design("splitwise-aa")


class SplitwiseHH(SplitwiseSystem):
    """Both pools of H100."""

    design = design("splitwise-hh")


class SplitwiseHA(SplitwiseSystem):
    """Prompts on H100, tokens on A100."""

    design = design("splitwise-ha")


class SplitwiseHHcap(SplitwiseSystem):
    """Both pools of H100, the token machines capped to half."""

    design = design("splitwise-hhcap")


class BaselineA100(SplitwiseSystem):
    """A100 that do both."""

    design = design("baseline-a100")


class BaselineH100(SplitwiseSystem):
    """H100 that do both."""

    design = design("baseline-h100")
