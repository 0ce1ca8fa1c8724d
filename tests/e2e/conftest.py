"""One running stack for the tests that only use it; those that break something start their own."""

from collections.abc import Iterator

import pytest

from tests.helpers.programs import Up, up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`octollm up`, as a user starts it."""
    with up(tmp_path_factory.mktemp("up")) as running:
        yield running
