"""A broker per edge: shared by tests that leave it as it is, or fresh for tests that change or break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.broker import BrokerUnderTest, Edge
from tests.fakes.shared_modules import shared_modules

__all__ = ["shared_modules"]


@pytest.fixture(params=list(Edge))
def edge(request: pytest.FixtureRequest) -> Edge:
    """Each edge in turn."""
    found: Edge = request.param
    return found


def _furnished(data: Path, edge: Edge) -> BrokerUnderTest:
    made = BrokerUnderTest(data, edge)
    made.put_secret()
    made.approve_sample()
    made.use_policy("sample-demo")
    return made


@pytest.fixture
def broker(tmp_path: Path, edge: Edge, shared_modules: None) -> Iterator[BrokerUnderTest]:
    """A fresh broker in memory, with one secret, the policy of the demo, and reference values of the software TEE."""
    made = _furnished(tmp_path / "data", edge)
    yield made
    made.close()


@pytest.fixture(scope="module", params=list(Edge))
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_modules: None
) -> Iterator[BrokerUnderTest]:
    """The same for all tests that leave it as it is."""
    made = _furnished(tmp_path_factory.mktemp("broker") / "data", request.param)
    yield made
    made.close()
