"""The bounds that a node's owner sets on every plan: a device that takes nothing lower than they allow.

They stand in a file that only root may write, so that neither the daemon's plans nor a stolen agent can go below them.
A setpoint below a bound is raised to it and told as clamped, like one below the board's own range: a brake that is
refused as a whole would shed nothing.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from polcad.codec import convert
from polcad.errors import ConfigError
from polcad.model import Frac, InForce, Outcome, Setpoint
from polcad.ports import Device

_MAX_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Bounds:
    """The lowest that a plan may ask of a GPU, as fractions of the board's maxima; 0 leaves it to the board."""

    lowest_clock_frac: Frac = 0.0
    lowest_cap_frac: Frac = 0.0

    def within(self, asked: Setpoint) -> Setpoint:
        """The setpoint, raised where it is too low."""
        return Setpoint(max(asked.clock_frac, self.lowest_clock_frac), max(asked.cap_frac, self.lowest_cap_frac))


def read_bounds(path: Path, owner: int = 0) -> Bounds:
    """The bounds in a TOML file. ConfigError unless it and its folder belong to `owner` and nobody else may write."""
    try:
        for each in (path.parent, path):
            _check_owner(each, each.lstat(), owner)
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()), owner)
            return convert(tomllib.loads(file.read(_MAX_BYTES).decode()), Bounds)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}: the actuator needs its bounds") from None
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_owner(path: Path, found: os.stat_result, owner: int) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{path}: is a link: put the file itself here")
    if found.st_uid != owner:
        raise ConfigError(f"{path}: belongs to user {found.st_uid}: chown it to user {owner}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path}: others may write it (mode {stat.S_IMODE(found.st_mode):o}): chmod go-w {path}")


class BoundedDevice:
    """A `polcad.ports.Device` that keeps another within bounds."""

    def __init__(self, device: Device, bounds: Bounds) -> None:
        self._device, self._bounds = device, bounds
        self._raised: dict[str, str] = {}

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        """Hand on what is within the bounds, and the bound where it is not."""
        allowed = {uuid: self._bounds.within(asked) for uuid, asked in wanted.items()}
        for uuid, asked in wanted.items():
            self._raised[uuid] = "" if allowed[uuid] == asked else self._note(uuid, asked)
        self._device.apply(allowed)

    def in_force(self) -> InForce:
        """What the device says; clamped where it did well what the bounds had raised."""
        found = self._device.in_force()
        notes = [self._raised.get(uuid, "") for uuid in found.uuid]
        done = tuple(zip(found.uuid, found.outcome, found.detail or ("",) * len(notes), notes, strict=True))
        return replace(
            found,
            outcome=tuple(Outcome.CLAMPED if note and was is Outcome.OK else was for _, was, _, note in done),
            detail=tuple(note if note and was is Outcome.OK else detail for _, was, detail, note in done),
        )

    def _note(self, uuid: str, asked: Setpoint) -> str:
        low = self._bounds
        return (
            f"gpu {uuid}: clock_frac={asked.clock_frac:g}, cap_frac={asked.cap_frac:g} is below this node's bounds "
            f"{low.lowest_clock_frac:g}, {low.lowest_cap_frac:g}"
        )
