"""Fixtures of the attacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.world import Site, Worker, share_what_is_slow_to_make
from tests.fakes.broker import Edge


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    share_what_is_slow_to_make(monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh data directory; no worker runs yet."""
    made = Site(tmp_path)
    yield made
    made.stop()


@pytest.fixture(params=list(Edge))
def worker(request: pytest.FixtureRequest, site: Site) -> Worker:
    """One worker behind each edge, with a secret and the reference values that affirm the genuine chip."""
    found = site.worker(request.param)
    found.prepare()
    return found
