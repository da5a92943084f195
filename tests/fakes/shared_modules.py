"""Compiled policies shared by all brokers of a test run: compiling one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from kbs.policy import compile as policy_compile
from kbs.policy import wasm
from kbs.policy.wasm_instance import WasmModule, new_engine

_ENGINE = cache(new_engine)


@cache
def _module(text: bytes) -> WasmModule:
    return WasmModule(_ENGINE(), text)


@pytest.fixture(scope="module")
def shared_modules() -> Iterator[None]:
    """One engine and one module per policy text, instead of one per broker.

    For one test module at a time: elsewhere engines are closed, and nobody may close the shared one.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (wasm, policy_compile):
            patch.setattr(module, "new_engine", lambda **_: _ENGINE())
            patch.setattr(module, "WasmModule", lambda _, text: _module(text))
        yield
