"""Hints as Prometheus gauges, for scalers that ask Prometheus: KEDA, or an HPA through its adapter (docs/hints.md).

A hint that has expired is told no more, so a scaler that would follow it finds nothing, and falls back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from polcad.model import Hint

_LABELS = ("row", "pool")
WEIGHT = "weight_ratio"  # the only one that has an instance too
GAUGES: dict[str, tuple[str, Callable[[Hint], float | None]]] = {
    "instances": ("Instances that the pool should have.", lambda hint: hint.instances),
    "tensor_parallel": ("GPUs that each instance should run over.", lambda hint: hint.tensor_parallel),
    "clock_ratio": ("Clock that its GPUs should run at, of their maximum.", lambda hint: hint.clock_frac),
    "requests_per_second": ("Requests a second expected at the peak of the horizon.", lambda hint: hint.requests_per_s),
    "tokens_per_second": ("Tokens a second, of prompts and outputs, expected then.", lambda hint: hint.tokens_per_s),
    "power_watts": ("Power of the pool expected then, servers included.", lambda hint: hint.power_w),
    "saves_watts": ("Power saved by following the hint, where it is known.", lambda hint: hint.saves_w),
    "timestamp_seconds": ("When the hint was said, Unix time.", lambda hint: hint.t),
    "expires_timestamp_seconds": ("When the hint ends, Unix time.", lambda hint: hint.expires_t),
}


class Metrics(Collector):
    """What a scrape finds; `hints` gives those that hold now."""

    def __init__(self, hints: Callable[[], Sequence[Hint]]) -> None:
        self._hints = hints
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Every metric now."""
        yield InfoMetricFamily("polcad_build", "The version of polcad.", value={"version": version("polcad")})
        hints = self._hints()
        for name, (help_text, value_of) in GAUGES.items():
            family = GaugeMetricFamily(f"polcad_hint_{name}", help_text, labels=_LABELS)
            for hint in hints:
                if (value := value_of(hint)) is not None:
                    family.add_metric((hint.row, hint.pool), value)
            yield family
        yield _weights(hints)

    def answer(self, accept: str) -> tuple[bytes, str]:
        """The text of a scrape, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _weights(hints: Sequence[Hint]) -> Metric:
    family = GaugeMetricFamily(
        f"polcad_hint_{WEIGHT}",
        "Share of the pool's requests that an instance should be given.",
        labels=(*_LABELS, "instance"),
    )
    for hint in hints:
        for instance, share in hint.weights.items():
            family.add_metric((hint.row, hint.pool, instance), share)
    return family
