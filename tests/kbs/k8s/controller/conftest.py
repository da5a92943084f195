"""A bench for each test."""

from __future__ import annotations

import pytest

from tests.kbs.k8s.controller.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
