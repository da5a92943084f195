"""Runs at the start of every Python process that a test starts (PYTHONPATH), and in the tests' own.

wasmtime takes 0.1 to 0.4 s of CPU to compile a policy, and hundreds of brokers that tests start compile the same ones.
With the cache of wasmtime itself each is compiled once a run. The product has no such cache: who may write to it runs
code in the broker.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

VARIABLE = "TESTS_WASMTIME_CACHE"
"""Path of wasmtime's cache configuration; without it nothing is changed."""


def cache_modules(wasmtime: Any, configuration: str) -> None:
    """Every `Config` made from now on has the cache."""

    class CachingConfig(wasmtime.Config):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cache = configuration

    wasmtime.Config = CachingConfig


class _OnImport(importlib.abc.MetaPathFinder):
    """Waits for wasmtime to be imported, since most processes never do."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "wasmtime":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        if found is not None and found.loader is not None:
            execute = found.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                cache_modules(module, os.environ[VARIABLE])

            found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def begin(configuration: str) -> None:
    """Turn the cache on for this process and those it starts from now on."""
    os.environ[VARIABLE] = configuration
    if "wasmtime" in sys.modules:
        cache_modules(sys.modules["wasmtime"], configuration)
    else:
        sys.meta_path.insert(0, _OnImport())


if VARIABLE in os.environ:
    begin(os.environ[VARIABLE])
