"""A Prometheus histogram that is cheap to fill for each message.

The one of prometheus-client takes two locks for that.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry


class Timing:
    """The durations of one topic. One thread fills it; others may read it, and miss the newest value."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return (upper bound, cumulative count) pairs up to `+Inf`, and the sum of all seconds."""
        found, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found, self._sum


class Timings(Collector):
    """The histograms of all topics under one metric name."""

    def __init__(self, name: str, about: str, bounds: Sequence[float], registry: CollectorRegistry = REGISTRY) -> None:
        self._name = name
        self._about = about
        self._bounds = tuple(float(bound) for bound in bounds)
        self._of: dict[str, Timing] = {}
        registry.register(self)

    def of(self, topic: str) -> Timing:
        """Return the histogram of a topic; keep it, to fill it without a look-up."""
        return self._of.setdefault(topic, Timing(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric family for the registry."""
        family = HistogramMetricFamily(self._name, self._about, labels=("topic",))
        for topic, timing in sorted(self._of.copy().items()):
            buckets, total = timing.buckets()
            family.add_metric([topic], buckets, total)
        yield family
