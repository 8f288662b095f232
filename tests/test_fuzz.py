"""The fuzz targets on their seeds and on what was found by them, and any order of what a row and a node are told.

`make fuzz` (docs/fuzz.md) searches for more; what it finds is added to FOUND, as short as it can be.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings

from polcad.actuator_wire import Request
from polcad.cluster.nouns import Demand
from polcad.cluster.sorting import Sorter
from polcad.hints import HintDesk
from polcad.model import Event, EventKind, Hint, Plan
from polcad.spec import FAIL_SAFE, HintSpec
from polcad.wire import encode
from tests.fuzz.of_node import ORDERS, Orders, follow
from tests.fuzz.of_pools import POOLS, Told, hint
from tests.fuzz.of_row import MOVES, Moves, play
from tests.fuzz.table import TARGETS
from tests.pool_loads import Fixed, load, plan
from tests.test_wire import NOUNS

SMI, DMON, WATTAMETER, GPU_CSV, BMC = (bytes([place]) for place in range(5))
TRACE, PACKED_TRACE, INTENSITY, BOUNDS, BASELINE, PLAN, KEYS, PROFILE = (bytes([place]) for place in range(8))
N60 = b"a" * 60
DOMAIN = {"budget_w": 10.0, "power_w": 5.0, "demand_w": 6.0, "rules": [], "since_t": 1.0}


def said(kind: str, **fields: object) -> bytes:
    """A message of that kind which says so, as the target `screen` takes it."""
    content = json.loads(encode(*NOUNS[kind]).payload)
    return bytes([list(NOUNS).index(kind)]) + json.dumps({**content, **fields}).encode()


FOUND = {
    "more bits than a float holds": (
        "importer",
        SMI + b"timestamp, power.draw [W], clocks_throttle_reasons.active\n2026/01/02 03:04:05.0, 300, 0x" + b"f" * 400,
    ),
    "blanks in an IPMI time": (
        "importer",
        BMC + b"Instantaneous power reading: 8 Watts\nIPMI timestamp: x" + b" " * 60_000 + b"y\n",
    ),
    "a node's column of underscores": ("importer", BMC + b"time," + b"_" * 60_000 + b"y\n1,2\n"),
    "a column of brackets": ("importer", GPU_CSV + b"timestamp,power_w," + b"(" * 60_000 + b"y\n1,2,3\n"),
    "thousands of columns": ("importer", GPU_CSV + b"timestamp,power_w," + b"x," * 10_000 + b"y\n1,2,3\n"),
    "names that collide however they are told apart": (
        "importer",
        BMC + b"time,%s_watts,%s-2_watts,%s_watts\n1767323045,1,1,1\n" % (N60, N60, N60.upper()),
    ),
    "a trace packed badly": ("small_files", PACKED_TRACE + b"\x1f\x8b\x08\x00;" + b"\x0f" * 100),
    "a trace with a line too short": ("small_files", TRACE + b"ContextTokens,GeneratedTokens,TIMESTAMP\n1,2\n"),
    "a trace with a cell too long": (
        "small_files",
        TRACE + b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"1" * 200_000,
    ),
    "a day of a grid with a cell too long": ("small_files", INTENSITY + b"g_per_kwh\n" + b"1" * 200_000),
    "bounds nested deeply": ("small_files", BOUNDS + b"x = " + b"[" * 5000),
    "a baseline nested deeply": ("small_files", BASELINE + b"[" * 100_000),
    "keys that begin and do not end": ("small_files", KEYS + b"-----BEGIN PUBLIC KEY-----" * 20_000),
    "a block's head nested deeply": ("recording", b"\2\xff\xff\0\0" + b'{"x":' + b"[" * 65_530),
    "a setting whose name is not UTF-8": ("configuration", b"\0\0GUARD__TICK_\xb3=2.0\n"),
    "blanks before an unknown key": ("configuration", b"x = 1\ny = '''\n" + b" " * 3000 + b"\n'''\n\0"),
    "a counter that fell unseen": (
        "engine",
        b"vllm:generation_tokens_total 9\0vllm:num_requests_running 1\0vllm:generation_tokens_total 5\n",
    ),
    "gauges whose sum is infinite": (
        "engine",
        b'vllm:num_requests_running{a="b"} 1e308\nvllm:num_requests_running{a="c"} 1e308\n',
    ),
    "a profile nested deeply": ("small_files", PROFILE + b"x = " + b"[" * 5000),
    "a profile with a number beyond all": ("small_files", PROFILE + b"gpu_max_w = 0x" + b"f" * 9000),
    "a gauge beyond all counting": ("engine", b"vllm:num_requests_running 1e300\n"),
    "a line of sixty thousand labels": (
        "engine",
        b"vllm:x{%s} 1\n" % b",".join(b'a%d=""' % place for place in range(60_000)),
    ),
    "a number of points too long for a number": ("database", b"\x7a\0dropped=" + b"9" * 5000),
    "a threshold that speaks to the terminal": ("screen", said("daemon", thresholds={"\x1b[31m": 0.1})),
    "a threshold that is markup": ("screen", said("daemon", thresholds={"[/x]": 0.1})),
    "a rack that is markup": (
        "screen",
        said("daemon", domains=[{**DOMAIN, "scope": "[/x]"}]),
    ),
    "a rack that speaks to the terminal": ("screen", said("daemon", domains=[{**DOMAIN, "scope": "\x1b[31m"}])),
    "a hint that is markup": ("screen", said("hint", why="[/x]")),
}
QUICK = [name for name in TARGETS if name not in {"page", "row", "node", "pools"}]


@pytest.mark.parametrize("name", QUICK)
def test_a_target_takes_its_own_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


@pytest.mark.integration  # a server on a port
def test_the_page_takes_its_own_seeds() -> None:
    for seed in TARGETS["page"].seeds():
        TARGETS["page"].run(seed)


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once_is_mended(what: str) -> None:
    name, data = FOUND[what]
    TARGETS[name].run(data)


@settings(max_examples=10, deadline=None)
@given(MOVES)
def test_whatever_a_controller_is_told_its_words_can_be_carried_out_and_keep_the_row(moves: Moves) -> None:
    play(moves)


@pytest.mark.integration  # planning takes seconds
@settings(max_examples=30, deadline=None)
@given(POOLS)
def test_whatever_serving_instances_say_no_hint_is_said_that_the_wire_refuses(said: Told) -> None:
    hint(said)


def test_one_absurd_load_does_not_spoil_what_is_learned_of_lengths_for_ever() -> None:
    sorter = Sorter()
    absurd = replace(load(requests_per_s=5e-324), prompt_tokens_per_s=1e9, prompt=None)
    sorter.demand(0.0, [absurd], {})
    for day in range(1, 8):
        sorter.demand(day * 86_400.0, [load()], {})
    assert max(sorter.thresholds.prompt_tokens) < 1000.0


def test_a_plan_for_more_than_a_hint_can_say_holds_hints_back() -> None:
    much = replace(plan(), demand=Demand(1e6, 1e6, 1e6))
    desk = HintDesk(HintSpec(), "row", Fixed(), 64)
    desk.begin(0.0)
    desk.hear(1e3, load())
    desk.look(1e3)
    view = desk.question(1e3, 1e6, 1.0)
    assert view is not None
    assert [type(each) for each in desk.answer(view, [plan()])] == [Hint, Event]
    told = desk.answer(view, [much])
    assert [each.kind for each in told if isinstance(each, Event)] == [EventKind.HINTS_HELD]
    assert not [each for each in told if isinstance(each, Hint)]


@settings(max_examples=15, deadline=None)
@given(ORDERS)
def test_whatever_a_node_is_told_its_gpus_keep_within_bounds_and_never_loosen_in_silence(orders: Orders) -> None:
    follow(orders)


def test_the_longest_lease_is_told_though_a_difference_of_floats_passes_it() -> None:
    follow([0.05, 0.05, Request(Plan("row", 1, 1, 0.0, 3600.0, FAIL_SAFE), heard_s=1e10)])
