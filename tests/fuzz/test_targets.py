"""Fuzz targets stand the seeds they start from, and simple damage to them; none has been forgotten."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.__main__ import FOLDER, NAMES, main

SOME = 8  # seeds of each target


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name: str) -> None:
    target: Any = importlib.import_module(f"tests.fuzz.{name}")
    seeds = list(target.seeds())
    assert seeds
    for seed in seeds[:: len(seeds) // SOME + 1]:
        for data in (seed, seed[:-1], seed[: len(seed) // 2], seed + b"\xff", seed[1:], b""):
            target.check(data)


def test_every_module_is_a_target_or_known_not_to_be() -> None:
    for name in NAMES:
        text = (FOLDER / f"{name}.py").read_text()
        assert re.search(r"^def check\(data: bytes\) -> None:$", text, re.MULTILINE), name
        assert re.search(r"^def seeds\(\) -> Iterator\[bytes\]:$", text, re.MULTILINE), name


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["tests.fuzz", "no-such-target"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "no-such-target" in capsys.readouterr().err


def test_the_make_target_runs_them() -> None:
    makefile = (Path(FOLDER).parents[1] / "Makefile").read_text()
    assert "-m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60)" in makefile
