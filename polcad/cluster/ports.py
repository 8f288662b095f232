"""The seams of scaling hints: what the daemon asks of a policy that plans pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from polcad.cluster.nouns import ClusterView, Demand, PoolPlan, Running


class HintPolicy(Protocol):
    """Decides how serving pools should be shaped. Made with its options by name, each of which has a default."""

    def hints(self, view: ClusterView) -> Sequence[PoolPlan]:
        """What each pool should be now; a pool that is not named is to be left as it is. Asked every few seconds.

        Together the plans pass neither the view's GPUs nor its power. It may take a second: the daemon asks it in a
        thread, one call at a time.
        """
        ...


@runtime_checkable
class Estimating(Protocol):
    """A policy that can tell what its hints would save."""

    def draws_w(self, running: Running, demand: Demand) -> float | None:
        """What a pool as it is draws under `demand`, servers included, W; None where it cannot tell."""
        ...
