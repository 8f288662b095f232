"""Python's cycle collector in a daemon that lives for months: always on, and with little to look through.

Cycles do arise: the MQTT client leaves one for every message that it receives at QoS 1. But a collection stands between
a message and its plan, for as long as it takes to look through what there is. So what is there when a daemon begins,
most of all its modules and its configuration, is set aside while it runs; and of its nodes' messages it keeps next to
nothing (`polcad.word`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 10_000  # from one collection to the next: what a tick of 10 000 nodes makes


@contextmanager
def little_to_collect() -> Iterator[None]:
    """Set aside all objects that there are, and collect among those that come; at the end among all again."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
