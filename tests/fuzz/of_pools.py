"""Any sequence of what serving instances may say of themselves, and what must hold of the hints that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from polcad.cluster.nouns import ClusterView
from polcad.cluster.ports import HintPolicy
from polcad.errors import PolcadError, WireError
from polcad.hints import HintDesk, Said, TakenBack
from polcad.model import LENGTH_QUANTILES, Event, Lengths, PoolLoad
from polcad.spec import HintSpec
from polcad.wire import Address, decode, encode
from policies.dynamo_hints import DynamoHints
from policies.router import RouterHints
from policies.splitwise import SplitwiseHints

_T0 = 1.8e9
_SPEC = HintSpec(name="any", stale_after_s=10.0, gone_after_s=30.0)
_POLICIES = (DynamoHints, lambda: DynamoHints(pools="one"), SplitwiseHints, RouterHints)
_RATES = st.sampled_from((None, 0.0, 1e-9, 0.5, 2.0, 40.0, 1e9)) | st.floats(0.0, 100.0)
_TOKENS = st.sampled_from((0.0, 1.0, 300.0, 5000.0, 1e9)) | st.floats(0.0, 8192.0)
_COUNTS = st.sampled_from((None, 0, 1, 12, 500, 2**53))
_SECONDS = st.sampled_from((None, 0.0, 0.05, 3.0, 1e11))
_LENGTHS = st.none() | st.builds(
    Lengths, _TOKENS, st.lists(st.none() | _TOKENS, max_size=len(LENGTH_QUANTILES)).map(tuple)
)
LOADS = st.builds(
    PoolLoad,
    pool=st.sampled_from(("ss", "sm", "ll", "pool", "prompt", "token", "x")),
    instance=st.sampled_from(("a", "b")),
    t=st.just(_T0),
    tensor_parallel=st.sampled_from((1, 2, 4, 8, 3, 1024)),
    requests_per_s=_RATES,
    prompt_tokens_per_s=_RATES,
    output_tokens_per_s=_RATES,
    running=_COUNTS,
    waiting=_COUNTS,
    kv_use_frac=st.none() | st.floats(0.0, 1.0),
    ttft_p99_s=_SECONDS,
    tbt_p50_s=_SECONDS,
    tbt_p99_s=_SECONDS,
    prompt=_LENGTHS,
    output=_LENGTHS,
    ended=st.sampled_from((False, False, False, True)),
)
_STEPS_S = st.sampled_from((0.0, 1.0, 5.0, 400.0, 2000.0, -3.0))
Told = tuple[Callable[[], HintPolicy], int, float, Sequence[tuple[float, Sequence[PoolLoad]]]]
POOLS: st.SearchStrategy[Told] = st.tuples(
    st.sampled_from(_POLICIES),
    st.sampled_from((0, 8, 64, 1024)),
    st.sampled_from((0.0, 5e3, 6e4, 1e10)),
    st.lists(st.tuples(_STEPS_S, st.lists(LOADS, max_size=3)), min_size=3, max_size=12),
)


def hint(said: Told) -> None:
    """Let a desk hear all of it, and its policy think each time: what it says, the wire takes."""
    made, gpus, budget_w, steps = said
    policy = made()
    desk, t = HintDesk(_SPEC, "row", policy, gpus), _T0
    desk.begin(t - _SPEC.stale_after_s)
    for step_s, loads in steps:
        t += step_s
        for load in loads:
            _hear(desk, t, load)
        out = desk.look(t)
        view = desk.question(t, budget_w, 1.0, {"sm": 0.5})
        if view is not None:
            out += _answered(desk, policy, view)
        for each in out:
            kind = "event" if isinstance(each, Event) else "hint"
            if not isinstance(each, TakenBack):
                address = Address("site", "row", kind, pool=each.pool if kind == "hint" else "")  # type: ignore[union-attr]
                assert decode(encode(address, each))[1] == each


def _answered(desk: HintDesk, policy: HintPolicy, view: ClusterView) -> Sequence[Said]:
    try:
        with np.errstate(all="ignore"):  # rates that nothing can serve: the planner finds so by an infinity
            return desk.answer(view, policy.hints(view))
    except PolcadError as error:
        return desk.hold(view.t, str(error))


def _hear(desk: HintDesk, t: float, load: PoolLoad) -> None:
    address = Address("site", "", "load", pool=load.pool, instance=load.instance)
    try:
        desk.hear(t, decode(encode(address, replace(load, t=t)))[1])
    except WireError:
        return
