"""Every target of bytes: what takes an input, and the inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzz import of_answers, of_files, of_node, of_pools, of_row, of_screen, of_wire


class Target(NamedTuple):
    """`run` raises for an input that finds something; `seeds` are made by the product itself where it can."""

    what: str  # is changed
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]


def _drawn(strategy: SearchStrategy[Any], play: Callable[[Any], None]) -> Callable[[bytes], object]:
    """A target that hypothesis makes what `play` takes of its bytes for."""

    @settings(database=None, deadline=None)
    @given(strategy)
    def property_of(value: Any) -> None:
        play(value)

    return property_of.hypothesis.fuzz_one_input  # type: ignore[attr-defined,no-any-return]  # hypothesis puts it there


def _noise() -> Iterator[bytes]:
    random = Random(7)  # noqa: S311  # the same each time
    return (random.randbytes(length) for length in (256, 1024, 4096, 8192))


TARGETS = {
    "wire": Target("payloads of every kind, and topics", of_wire.wire, of_wire.wire_seeds),
    "intake": Target("the broker's MQTT stream, cut anywhere", of_wire.intake, of_wire.intake_seeds),
    "frames": Target("frames between agent and actuator", of_wire.frames, of_wire.frames_seeds),
    "signed": Target("signed plans: only what was signed is followed", of_wire.signed, of_wire.signed_seeds),
    "recording": Target(
        "recordings, and their blocks under checksums that hold", of_files.recording, of_files.recording_seeds
    ),
    "importer": Target("logs of every format, plain and packed", of_files.importer, of_files.importer_seeds),
    "configuration": Target("TOML, a drop-in, the environment", of_files.configuration, of_files.configuration_seeds),
    "small_files": Target(
        "traces, carbon, profiles, bounds, baseline, kept plan, keys", of_files.small_files, of_files.small_files_seeds
    ),
    "engine": Target("scrapes of a vLLM engine, one after the other", of_answers.engine, of_answers.engine_seeds),
    "database": Target("answers of InfluxDB to a write", of_answers.database, of_answers.database_seeds),
    "page": Target("requests to the page, its stream and metrics", of_answers.page, of_answers.page_seeds),
    "screen": Target("messages, as a terminal shows them", of_screen.screen, of_screen.screen_seeds),
    "row": Target("what a controller is told", _drawn(of_row.MOVES, of_row.play), _noise),
    "pools": Target("what serving instances say, for hints", _drawn(of_pools.POOLS, of_pools.hint), _noise),
    "node": Target("what an actuator is handed", _drawn(of_node.ORDERS, of_node.follow), _noise),
}
