"""The demonstration is true, and a false one says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.differences import DIFFERENCES
from tests.demo.story import _explained
from tests.demo.terminal import DemoFailed, Terminal

ROOT = Path(__file__).parents[2]


@pytest.mark.server
@pytest.mark.enable_socket
def test_it_comes_out_as_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.findall(r"^(\d)/6 ", done.stdout, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    assert "✗" not in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("change", [{"seen": 0}, {"expected": 0}, {"rule": "x"}, {"claim": "sample.x"}])
@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: each.name)
def test_a_wrong_explanation_fails_it(difference, change, capsys) -> None:  # type: ignore[no-untyped-def]
    cause = {
        "where": "cpu0",
        **{name: getattr(difference, name) for name in ("claim", "seen", "expected", "reference", "rule")},
    }
    rules = {"resource policy": "x", "evidence policy of cpu0": "x", "reference values": "x"}
    with pytest.raises(DemoFailed, match="versions"):  # all else is right
        Terminal().check_all(_explained({"causes": [cause], "rules": rules}, difference, "x"))
    with pytest.raises(DemoFailed, match=r"seen|rule|claim"):
        Terminal().check_all(_explained({"causes": [{**cause, **change}], "rules": rules}, difference, "x"))
    assert "✗" in capsys.readouterr().out
