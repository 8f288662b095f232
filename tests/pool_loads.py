"""Loads of pools and a policy for them, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from polcad.cluster.nouns import KINDS, ClusterView, Demand, PoolPlan, Running, Shape
from polcad.model import LENGTH_QUANTILES, Lengths, PoolLoad


def lengths(shortest: float, longest: float) -> Lengths:
    """Lengths that are spread evenly from one to the other."""
    return Lengths((shortest + longest) / 2, tuple(shortest + q * (longest - shortest) for q in LENGTH_QUANTILES))


def load(  # a builder: a test names the one or two that it is about
    instance: str = "sm-0",
    requests_per_s: float = 2.0,
    *,
    pool: str = "sm",
    tensor_parallel: int = 4,
    prompt: Lengths | None = None,
    output: Lengths | None = None,
) -> PoolLoad:
    """A load that tells all that is planned by."""
    prompt, output = prompt or lengths(0.0, 300.0), output or lengths(100.0, 300.0)
    return PoolLoad(
        pool,
        instance,
        0.0,
        tensor_parallel,
        60.0,
        requests_per_s,
        requests_per_s * prompt.mean,
        requests_per_s * output.mean,
        running=4,
        waiting=0,
        kv_use_frac=0.2,
        prompt=prompt,
        output=output,
    )


class Fixed:
    """A hint policy that answers what it is told to, and remembers what it saw."""

    def __init__(self, *plans: PoolPlan) -> None:
        self.plans: Sequence[PoolPlan] = plans
        self.seen: list[ClusterView] = []
        self.error: Exception | None = None

    def hints(self, view: ClusterView) -> Sequence[PoolPlan]:
        """The plans."""
        self.seen.append(view)
        if self.error:
            raise self.error
        return self.plans

    def draws_w(self, running: Running, demand: Demand) -> float | None:
        """A kilowatt an instance, and one a request each second."""
        return 1000.0 * (running.instances + demand.requests_per_s)


def plan(  # as above
    instances: int = 2,
    *,
    pool: str = "sm",
    tensor_parallel: int = 4,
    clock_frac: float = 0.8,
    power_w: float = 5000.0,
    why: str = "new epoch",
) -> PoolPlan:
    """What a policy says of one pool."""
    shape, demand = Shape(tensor_parallel, clock_frac), Demand(3.0, 150.0, 200.0)
    return PoolPlan(pool, (KINDS[1],), instances, shape, demand, power_w, why, now_w=power_w / 2)
