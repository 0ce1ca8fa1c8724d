"""Which priority is read first; `executor-rs/src/source/mod.rs` has the same numbers."""

from octollm.consumer.reader import first_stream


def test_each_stream_is_read_first_now_and_then():
    assert [first_stream(read, 3) for read in range(8)] == [0, 0, 0, 1, 0, 0, 0, 2]
    assert {first_stream(read, 1) for read in range(8)} == {0}
