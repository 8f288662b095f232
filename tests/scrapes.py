"""What tests need of metrics: a daemon's telling without its daemon, and the samples of a scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from polcad.model import Hint
from polcad.points import Points
from polcad.ports import Sink
from polcad.telling import Telling
from polcad.web.metrics import Metrics

Labels = tuple[tuple[str, str], ...]


def telling_of(
    hints: Callable[[], Sequence[Hint]] = tuple,
    *,
    sinks: Mapping[str, Sink] | None = None,
    now: Callable[[], float] = time.time,
    window_s: float = 60.0,
) -> Telling:
    """What a daemon of the row named row tells."""
    return Telling(Points("site", "row"), Metrics("row", window_s), sinks or {}, now, hints)


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """Every sample of a scrape, by name and sorted labels."""
    families = text_string_to_metric_families(text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for one in families for each in one.samples}
