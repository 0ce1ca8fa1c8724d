"""Our histogram says just what prometheus-client's own would say of the same seconds."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from octollm.protocol.timings import Timings

BOUNDS = (0.001, 0.5, 1, 30)


def samples(registry: CollectorRegistry) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = (one for family in families for one in family.samples if not one.name.endswith("_created"))
    return {(one.name, tuple(sorted(one.labels.items())), one.value) for one in found}


@given(st.dictionaries(st.sampled_from(["tasks", "arm.judge"]), st.lists(st.sampled_from([0, 0.001, 0.25, 1.0, 64]))))
def test_it_shows_what_a_histogram_shows(seconds: dict[str, list[float]]):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    timings = Timings("t", "some time", BOUNDS, ours)
    histogram = Histogram("t", "some time", ("topic",), buckets=BOUNDS, registry=theirs)
    for topic, values in seconds.items():
        timing, child = timings.of(topic), histogram.labels(topic)
        for value in values:
            timing.observe(value)
            child.observe(value)
    assert samples(ours) == samples(theirs)
