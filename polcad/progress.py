"""A bar for long work, for people only: on stderr, and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how much of `total` is done; the function it gives takes what was done since the last call."""
    if not sys.stderr.isatty():
        yield lambda done: None  # noqa: ARG005  # nobody looks
        return
    from rich.console import Console  # noqa: PLC0415  # 60 ms that a program without a terminal need not wait
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)
