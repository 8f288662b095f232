"""Who else on this host sets GPUs: two masters of one limit undo each other's work for ever."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from polcad.doctor.check import Check, State

_OTHERS = {  # by the kernel's name of the process, of at most 15 characters
    "nv-hostengine": "DCGM: leave `dcgmi config --set` and its policies alone, or stop it if nothing else needs it",
    "nvidia-powerd": "systemctl disable --now nvidia-powerd",
    "eard": "EAR: let it leave these GPUs alone, or stop it",
    "geopmd": "GEOPM: let it leave these GPUs alone, or stop it",
    "zeusd": "Zeus: let it leave these GPUs alone, or stop it",
}
_SETTING = {"agent", "actuator"}


class Processes:
    """What runs on this host, but for process `me`, as told under `proc`."""

    def __init__(self, proc: Path, me: int) -> None:
        self._running = dict(_processes(proc, me))

    def called(self, comm: str) -> bool:
        """Whether a process has this name."""
        return any(name == comm for name, _ in self._running.values())

    def polcad(self, part: str = "") -> list[int]:
        """The processes that are ``polcad PART``; of all parts that set GPUs where none is named."""
        parts = {part} if part else _SETTING
        return [pid for pid, (_, words) in self._running.items() if _is_polcad(words, parts)]


def check_processes(running: Processes) -> Iterator[Check]:
    """Other tools that set limits, and a second agent or actuator of polcad."""
    found = {comm: remedy for comm, remedy in _OTHERS.items() if running.called(comm)}
    for comm, remedy in found.items():
        yield Check("other setters", State.WARN, f"{comm} runs, and can set power limits and clocks", remedy)
    if not found:
        yield Check("other setters", State.OK, f"none of {', '.join(_OTHERS)} runs")
    for part in sorted(_SETTING):
        if len(pids := running.polcad(part)) > 1:
            detail = f"polcad {part} runs {len(pids)} times: processes {', '.join(map(str, pids))}"
            yield Check("second polcad", State.WARN, detail, f"stop all but one: systemctl status polcad-{part}")


def _processes(proc: Path, me: int) -> Iterator[tuple[int, tuple[str, list[str]]]]:
    """By process, its name and its words; what has ended meanwhile, or is hidden from us, is left out."""
    for folder in proc.iterdir():
        if folder.name.isdecimal() and int(folder.name) != me:
            with contextlib.suppress(OSError):
                comm = (folder / "comm").read_text("utf-8", "replace").strip()
                words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                yield int(folder.name), (comm, words)


def _is_polcad(words: list[str], parts: AbstractSet[str]) -> bool:
    """Whether this is ``polcad PART``, by whatever interpreter."""
    return any(Path(word).name == "polcad" and after in parts for word, after in itertools.pairwise(words))
