"""What a router may know of the instances of a simulated cluster: what engines tell, and predicted output lengths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polcad.cluster.nouns import KINDS, Demand, Kind, Member, Shape
from polcad.sim.engines import Engines
from polcad.sim.profiles import Floats
from polcad.sim.serving import Records


def members(engines: Engines, shapes: Mapping[int, Shape], demand: Mapping[Kind, Demand]) -> list[Member]:
    """The instances in these slots; `demand` knows the mean lengths of requests that are taken for each kind."""
    known = [demand.get(kind, Demand()) for kind in KINDS]
    rates = np.array([each.requests_per_s for each in known])
    lengths = np.array([(each.prompt_tokens, each.output_tokens) for each in known])
    mean = rates @ lengths / max(float(rates.sum()), 1e-9)
    return [_member(engines, slot, shape, lengths, mean) for slot, shape in shapes.items()]


def _member(engines: Engines, slot: int, shape: Shape, lengths: Floats, mean: Floats) -> Member:
    world = engines.world
    one, speeds = world.instances[slot], world.speeds
    active, inside = int(one.active), int(one.active + one.reading)
    held: Records = world.requests[world.member[slot, :inside]]  # type: ignore[assignment]  # numpy keeps the kind
    made = held.output[:active] - (world.ends_at[slot, :active] - one.iteration)
    used = float(held.prompt[:active].sum() + made.sum() + one.reading_tokens)
    prompt, output = lengths[held.guess].mean(axis=0) if inside else mean
    each_s = speeds.token_s[one.row, active] + speeds.context_s[one.row, active] * one.context
    return Member(
        name=str(slot),
        shape=shape,
        running=inside,
        waiting=int(one.waiting),
        kv_use_frac=min(1.0, used / float(speeds.kv_tokens[one.row])),
        prompt_tokens=max(1.0, float(prompt)),
        output_tokens=max(1.0, float(output)),
        tbt_s=float(each_s) if active else None,
    )
