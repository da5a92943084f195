"""What reaches a terminal, and files that hold secrets."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.cli.output import done, fail, print_table, printable, printable_code, show_code, to_seconds, write_private


@given(st.text())
def test_nothing_that_steers_a_terminal_passes(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()
    assert all(a == b or not b.isprintable() for a, b in zip(shown, text, strict=True))


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[", "a\\", "\\[red]", "\x1b[2J"])
def test_markup_of_others_is_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", text), [(text, None)])
    done("set", text)
    fail(text, hint=text)
    found = capsys.readouterr()
    assert found.out.count(printable(text)) >= 2
    assert found.err.count(printable(text)) == 2
    assert "\x1b" not in found.out + found.err


HIDING = "allow if false\r\x1b[1A\x1b[2Kallow := true \u202e# \u200b\n\tx\n"


def test_a_reviewer_on_a_terminal_sees_what_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = printable_code(HIDING)
    assert shown == "allow if false\ufffd\ufffd[1A\ufffd[2Kallow := true \ufffd# \ufffd\n\tx\n"
    show_code(HIDING)
    assert capsys.readouterr().out == HIDING  # into a file: the exact text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    show_code(HIDING)
    assert capsys.readouterr().out == shown


def test_long_cells_are_whole_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("x" * 500, "y" * 500)])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_times() -> None:
    assert to_seconds("2026-11-21T10:56:14.590918+00:00") == "2026-11-21 10:56:14"
    assert to_seconds(None) == ""


def test_private_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    old = os.umask(0)
    try:
        write_private(path, b"one")
        write_private(path, b"two")
    finally:
        os.umask(old)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write_private(path, b"through")
    reader.join(5)
    assert found == [b"through"]
    assert path.is_fifo()
