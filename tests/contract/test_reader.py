"""FastStream reads by one private method, which `consumer/reader.py` overrides; another version may do otherwise. That
it is
really called is what every integration test with a consumer shows.
"""

import inspect
from importlib.metadata import version

from faststream.redis import RedisBroker, StreamSub
from faststream.redis.subscriber.usecases.stream_subscriber import StreamBatchSubscriber

from octollm.consumer import reader


def test_the_version_is_the_one_that_was_read():
    assert version("faststream") == "0.7.8"


def test_ours_takes_what_faststream_calls_with():
    theirs = inspect.signature(StreamBatchSubscriber._xreadgroup)
    ours = inspect.signature(reader._Subscriber._xreadgroup)
    assert list(ours.parameters) == list(theirs.parameters) == ["self", "count", "block", "noack"]


def test_a_batch_stream_makes_what_ours_can_stand_in_for():
    stream = StreamSub("s", group="g", consumer="c", batch=True, max_records=1, last_id=">")
    made = RedisBroker().subscriber(stream=stream)
    assert type(made) is StreamBatchSubscriber
    made.__class__ = reader._Subscriber
    assert made.stream_sub.consumer == "c"
