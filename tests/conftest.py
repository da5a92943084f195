"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.opa_binary import opa, opa_socket, pytest_terminal_summary

__all__ = ["opa", "opa_socket", "pytest_terminal_summary", "vectors"]

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture
def vectors() -> Path:
    """The folder of test vectors; each set in it says where it came from in SOURCE.md."""
    return VECTORS
