"""One running broker for the tests of a module that leave it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.running_broker import RunningBroker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One for the module."""
    running = RunningBroker(tmp_path_factory.mktemp("server") / "data")
    yield running
    running.stop()
