"""Where the programs of a row run: on this machine as it is, unless a case needs another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

LOOPBACK = "127.0.0.1"


class Place:
    """This machine as it is. Others say what stands before a program's command, in its environment, in its policy."""

    broker_conf: Sequence[str] = ()  # lines of the broker's configuration
    policy = ""  # of the daemon, in place of the row's, as TOML

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as half:  # built
            half.push(self._stack)
            self._build()
            half.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        """Make what is needed; what is to be undone goes on the stack."""

    def host(self, part: str) -> str:
        """Where a part reaches the broker."""
        del part
        return LOOPBACK

    def before(self, part: str) -> Sequence[str]:
        """What stands before a part's command."""
        del part
        return ()

    def env(self, part: str) -> Mapping[str, str]:
        """What is added to a part's environment."""
        del part
        return {}


def as_root(what: str) -> None:
    """RuntimeError unless this is root's process, for whom alone the kernel makes `what`."""
    if os.geteuid() != 0:
        raise RuntimeError(f"{what} need root: run this as root")
