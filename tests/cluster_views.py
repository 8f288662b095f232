"""Clusters to plan for: nine kinds of request, of lengths as in the Azure conversation trace."""

from __future__ import annotations

from typing import Any

from polcad.cluster.nouns import KINDS, ClusterView, Demand, Kind, Length
from polcad.cluster.profiles import LLAMA2_70B_H100, isolated_slo

_PROMPTS = {Length.SHORT: 200.0, Length.MEDIUM: 700.0, Length.LONG: 2200.0}
_OUTPUTS = {Length.SHORT: 40.0, Length.MEDIUM: 180.0, Length.LONG: 430.0}


def demand_of(requests_per_s: float) -> dict[Kind, Demand]:
    """Alike for all kinds, so many together."""
    return {kind: Demand(requests_per_s / len(KINDS), _PROMPTS[kind[0]], _OUTPUTS[kind[1]]) for kind in KINDS}


SLO = {  # of requests twice as long as the mean
    kind: isolated_slo(LLAMA2_70B_H100, Demand(0.0, 2 * each.prompt_tokens, 2 * each.output_tokens))
    for kind, each in demand_of(1.0).items()
}


def view_of(now: float, peak: float, gpus: int = 4000, **others: Any) -> ClusterView:
    """A cluster under `now` requests a second, with a peak of `peak` ahead."""
    others = {"t": 0.0, "slo": SLO, **others}
    return ClusterView(gpus=gpus, demand=demand_of(now), peak=demand_of(peak), **others)
