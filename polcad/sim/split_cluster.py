"""A serving cluster in Splitwise's pools: requests, measures and results are those of `polcad.sim.cluster`.

How many machines each pool has is sized once for the lengths of the requests (`polcad.cluster.split`); all stand from
the start, idle power included.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from polcad.cluster.machines import machines
from polcad.cluster.nouns import Demand
from polcad.cluster.profiles import isolated_slo
from polcad.cluster.split import Budget, Design, Pools, size
from polcad.errors import ConfigError
from polcad.sim.cluster import Cluster
from polcad.sim.cluster_model import ClusterModel
from polcad.sim.cluster_result import ClusterResult
from polcad.sim.deployment import Deployment
from polcad.sim.engines import Engines
from polcad.sim.split_engines import SplitEngines

_REFERENCE = machines("llama2-70b")["a"]  # slowdowns are not told here, but the engines count them


def simulate_split(model: ClusterModel, progress: Callable[[int], None] | None = None) -> ClusterResult:
    """Run it; ConfigError where it has no design, or too few servers for both pools."""
    return SplitCluster(model).run(progress or (lambda _: None))


def sized(model: ClusterModel, design: Design) -> Pools:
    """The pools of the model's servers that serve most requests as long as its own, within five times alone."""
    sample = model.source.sample()
    demand = Demand(1.0, float(np.mean(sample.prompt)), float(np.mean(sample.output)))
    return size(design, demand, isolated_slo(model.profile, demand), Budget(machines=model.servers)).pools


class SplitCluster(Cluster):
    """A model with a design, under way."""

    _split: SplitEngines

    def _built(self, model: ClusterModel) -> tuple[Engines, Deployment]:
        if model.design is None:
            raise ConfigError(f"system {model.system}: it has no design of prompt and token machines")
        self._pools = sized(model, model.design)
        self._split = SplitEngines(model.design, self._pools, self._slo, _REFERENCE)
        return self._split, Standing(self._split, model)

    def _prepare(self) -> None:
        pools = self._pools
        self._tell(0.0, f"{pools.prompt} prompt, {pools.token} token and {pools.mixed} mixed machines")

    def _measure(self, t: float, tick: int) -> None:
        """Nothing is planned, so nothing needs to be known."""

    def _plan(self, t: float, *, at_once: bool = False) -> None:
        """Tell who moved to the mixed pool, or back; the machines do so by themselves."""
        del at_once
        moved, changes = dict(zip(_MOVES, self._split.moved, strict=True)), self._deployment.changes
        news = [f"{count - changes[what]} x {what}" for what, count in moved.items() if count > changes[what]]
        changes.update({what: count - changes[what] for what, count in moved.items()})
        if news:
            self._tell(t, f"{', '.join(news)}; {self._split.now_mixed} are there now")


_MOVES = ("a prompt machine helps with tokens", "a token machine helps with prompts")


class Standing(Deployment):
    """Machines that are there from the start, and stay."""

    def __init__(self, engines: SplitEngines, model: ClusterModel) -> None:
        super().__init__(engines, model.profile, model.servers)
        self._standing = engines

    @property
    def gpus(self) -> int:
        """Of all machines."""
        return self._standing.gpus

    @property
    def instances(self) -> int:
        """One a machine."""
        return len(self._standing.split.pool)
