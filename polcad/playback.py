"""A recording as the events a controller takes, in recorded time.

Telemetry and placements become `Heard` and `Placed` at the time they arrived, and a `Tick` falls every `tick_s` of
recorded time, through gaps too, so that silence grows stale as it did. What the recorded row's own daemon said is left
out, and so is each node's word about the plan it followed: this is an open loop, where nobody obeys what is decided
now. What was in force stays, since demand is estimated from it. A recorder's clock that jumped (back, or by more than a
day) does not jump here: time goes on from where it was, and the jump is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from polcad.errors import RecordingError, WireError
from polcad.model import NodePlacement, Reading, Telemetry
from polcad.ports import Heard, Input, Placed, Tick
from polcad.recording import Recording, read
from polcad.wire import Address, decode

_GAP_PERIODS = 3  # as many as the guard waits before a node is stale
_BACK_S = 1.0  # a step back this long is a clock that was set; a shorter one is jitter
_AHEAD_S = 86_400.0


class Playback:
    """One row of a recording, and what was counted while it played. Powers in W, counted by node as last known."""

    def __init__(self, recording: Recording, row: str | None, tick_s: float) -> None:
        self._recording, self._any_row, self._tick_s = recording, row is None, tick_s
        self.row = row or _first_row(recording)
        self.samples = 0  # readings of power
        self.telemetry = 0  # messages
        self.gaps = 0  # silences of a node longer than three of its periods
        self.refused = 0  # messages that cannot be believed
        self.peak_w = 0.0
        self.played_s = 0.0
        self._time = _Time()
        self._nodes: dict[str, _Node] = {}
        self._placements: dict[str, NodePlacement] = {}
        self._row_w = 0.0

    @property
    def nodes(self) -> int:
        """How many nodes were heard."""
        return len(self._nodes)

    @property
    def gpus(self) -> int:
        """How many GPUs they have, as last heard."""
        return sum(node.gpus for node in self._nodes.values())

    @property
    def jumps(self) -> int:
        """How often the recorder's clock jumped."""
        return self._time.jumps

    def events(self) -> Iterator[Input]:
        """All events, in the order of their times; to be taken once."""
        start_t = t = None
        ticks = 1
        for recorded_t, address, noun in self._believed():
            t = self._time.of(recorded_t)
            start_t = t if start_t is None else start_t
            while start_t + ticks * self._tick_s <= t:
                yield Tick(start_t + ticks * self._tick_s)
                ticks += 1
            if isinstance(noun, Telemetry):
                yield from self._hear(t, address, noun)
            else:
                yield from self._place(t, noun)
        if start_t is not None and t is not None:
            self.played_s = t - start_t
            yield Tick(start_t + ticks * self._tick_s)

    def _believed(self) -> Iterator[tuple[float, Address, Any]]:
        """Telemetry and placements of the row."""
        for t, message in self._recording:
            try:
                address, noun = decode(message)
            except WireError:
                self.refused += 1
                continue
            if noun is not None and address.kind in {"telemetry", "placement"} and self._is_of_row(address):
                yield t, address, noun

    def _is_of_row(self, address: Address) -> bool:
        if address.row != self.row and self._any_row:
            rows = f"{self.row} and {address.row}"
            raise RecordingError(f"{self._recording.path}: it holds the rows {rows}: name one with --row")
        return address.row == self.row

    def _hear(self, t: float, address: Address, telemetry: Telemetry) -> Iterator[Input]:
        node = self._nodes.get(telemetry.node)
        new = node is None
        if node is None:
            node = self._nodes[telemetry.node] = _Node()
        self.telemetry += 1
        self.gaps += node.is_gap(t, telemetry.period_s)
        self.samples += sum(power_w is not None for power_w in _powers(telemetry.reading))
        self._row_w += node.take(t, telemetry.reading)
        self.peak_w = max(self.peak_w, self._row_w)
        yield Heard(t, replace(telemetry, plan=None), address.rack)
        if new and telemetry.node in self._placements:
            yield Placed(t, self._placements[telemetry.node])

    def _place(self, t: float, placement: NodePlacement) -> Iterator[Input]:
        """A placement counts from the first word of its node, which may come later: it was retained."""
        self._placements[placement.node] = placement
        if placement.node in self._nodes:
            yield Placed(t, placement)


class _Time:
    """Recorded time without the jumps of the recorder's clock."""

    def __init__(self) -> None:
        self.jumps = 0
        self._shift_s = 0.0
        self._last_t: float | None = None

    def of(self, recorded_t: float) -> float:
        t = recorded_t + self._shift_s
        last_t = t if self._last_t is None else self._last_t
        if not -_BACK_S <= t - last_t <= _AHEAD_S:
            self.jumps += 1
            self._shift_s = last_t - recorded_t
            t = last_t
        self._last_t = max(t, last_t)
        return self._last_t


class _Node:
    """What was last known of one node."""

    def __init__(self) -> None:
        self.gpus = 0
        self._t: float | None = None
        self._power_w = 0.0

    def is_gap(self, t: float, period_s: float) -> bool:
        return self._t is not None and t - self._t > _GAP_PERIODS * period_s

    def take(self, t: float, reading: Reading) -> float:
        """Take a reading; by how many watts the node's power changed. It stands where part of it is not known."""
        self._t, self.gpus = t, len(reading.gpus.uuid)
        powers = (reading.host_power_w,) if reading.host_power_w is not None else reading.gpus.power_w
        known = [power_w for power_w in powers if power_w is not None]
        if len(known) < len(powers) or not powers:
            return 0.0
        before, self._power_w = self._power_w, sum(known)
        return self._power_w - before


def _powers(reading: Reading) -> tuple[float | None, ...]:
    return (*reading.gpus.power_w, reading.host_power_w)


def _first_row(recording: Recording) -> str:
    for _, message in recording:
        try:
            address, noun = decode(message)
        except WireError:
            continue
        if isinstance(noun, Telemetry):
            return address.row
    raise RecordingError(f"{recording.path}: it holds no telemetry; {recording.loss or 'nothing was lost on reading'}")


def node_readings(path: Path, row: str | None = None) -> dict[str, list[tuple[float, Reading]]]:
    """Every node's readings with the recorded times they arrived at (s), as `collectors.replay` takes them.

    The whole recording is held in memory. Raises RecordingError for no recording, or one of several rows and no `row`.
    """
    playback = Playback(read(path), row, tick_s=60.0)
    readings: dict[str, list[tuple[float, Reading]]] = {}
    for event in playback.events():
        if isinstance(event, Heard):
            readings.setdefault(event.telemetry.node, []).append((event.t, event.telemetry.reading))
    return readings
