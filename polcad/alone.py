"""One program alone sets a node's GPUs: an agent without an actuator, an actuator, or either's `--release`."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from polcad.errors import ConfigError, UnavailableError


@contextlib.contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Nobody else sets these GPUs meanwhile; UnavailableError when somebody does, ConfigError for a bad folder.

    The folder itself is what is locked: nothing is written for it, so that a disk that is full, or read-only, keeps
    nobody from guarding the GPUs.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"state_dir={str(state_dir)!r} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(
                f"another agent or actuator sets these GPUs already: it holds {state_dir}: stop it first"
            ) from None
        yield
    finally:
        os.close(folder)
