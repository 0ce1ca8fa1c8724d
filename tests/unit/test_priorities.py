"""Which priority is asked first. The same numbers stand in `executor-rs/src/worker/priority_reader.rs`."""

from octollm.consumer.reader import first_asked


def test_each_stream_comes_first_now_and_then():
    assert [first_asked(look, 3) for look in range(8)] == [0, 0, 0, 1, 0, 0, 0, 2]
    assert {first_asked(look, 1) for look in range(8)} == {0}
