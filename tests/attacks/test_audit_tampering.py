"""Somebody with write access to the audit log edits it (P-AUD-2): verification names the line and what was done."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.events import ReleaseGranted
from kbs.audit.lines import encode_event, encode_line, line_digest, timestamp
from kbs.audit.log import AuditLog
from kbs.audit.verify import verify
from kbs.errors import AuditUnavailable

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
COUNT = 8

Lines = list[bytes]


def granted(number: int, path: str = "default/key/one") -> ReleaseGranted:
    return ReleaseGranted(decision=f"{number:032x}", plugin="resource", path=path, policy="p" * 64, key="k" * 43)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    path, head_path = tmp_path / "audit" / "log", tmp_path / "heads" / "head"
    log = AuditLog(path, head_path, KEY, origin="kbs", clock=lambda: NOW)
    log.append([granted(number) for number in range(COUNT)])
    log.close()
    return path, head_path


def edited(line: bytes) -> bytes:
    return line.replace(b"default/key/one", b"default/key/two")


def renumbered(line: bytes, n: int) -> bytes:
    return re.sub(rb'"n":\d+', b'"n":%d' % n, line, count=1)


def forged(n: int, lines: Lines) -> bytes:
    """A record of something that never happened, chained to line `n` (from 0)."""
    return encode_line(
        n, timestamp(NOW), encode_event(granted(99, "forged")), line_digest(lines[n - 1]) if n else "0" * 64
    )


def at(k: int, line: bytes, lines: Lines) -> Lines:
    return [*lines[:k], line, *lines[k + 1 :]]


# name → (edit of line k, counted from 0; its code; first bad line, counted from 1)
ATTACKS: dict[str, tuple[Callable[[int, Lines], Lines], str, Callable[[int], int]]] = {
    "edit": (lambda k, ls: at(k, edited(ls[k]), ls), "edited", lambda k: k + 1),
    "edit the number": (lambda k, ls: at(k, renumbered(ls[k], 77), ls), "edited", lambda k: k + 1),
    "edit the link": (lambda k, ls: at(k, ls[k][:-10] + b"ffffffff" + ls[k][-2:], ls), "edited", lambda k: k + 1),
    "no JSON": (lambda k, ls: at(k, ls[k][1:], ls), "edited", lambda k: k + 1),
    "blank": (lambda k, ls: at(k, b"", ls), "edited", lambda k: k + 1),
    "an array": (lambda k, ls: at(k, b"[]", ls), "edited", lambda k: k + 1),
    "add a space": (lambda k, ls: at(k, ls[k].replace(b",", b", ", 1), ls), "edited", lambda k: k + 1),
    "delete": (lambda k, ls: ls[:k] + ls[k + 1 :], "deleted", lambda k: k + 1),
    "delete two": (lambda k, ls: ls[:k] + ls[k + 2 :], "deleted", lambda k: k + 1),
    "swap": (lambda k, ls: [*ls[:k], ls[k + 1], ls[k], *ls[k + 2 :]], "reordered", lambda k: k + 1),
    "move to the end": (lambda k, ls: [*ls[:k], *ls[k + 1 :], ls[k]], "reordered", lambda k: k + 1),
    "insert": (lambda k, ls: [*ls[:k], forged(k, ls), *ls[k:]], "inserted", lambda k: k + 1),
    "insert junk": (lambda k, ls: [*ls[:k], b"junk", *ls[k:]], "inserted", lambda k: k + 1),
    "insert a blank": (lambda k, ls: [*ls[:k], b"", *ls[k:]], "inserted", lambda k: k + 1),
    "repeat": (lambda k, ls: [*ls[: k + 1], ls[k], *ls[k + 1 :]], "inserted", lambda k: k + 2),
}


@pytest.mark.parametrize("k", [0, 1, 3, COUNT - 3])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_edit_is_named(files: tuple[Path, Path], name: str, k: int) -> None:
    path, head_path = files
    attack, code, line = ATTACKS[name]
    lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"".join(found + b"\n" for found in attack(k, lines)))
    report = verify(path, head_path, KEY.public_key())
    assert not report.ok
    assert (report.problems[0].line, report.problems[0].code) == (line(k), code)
    assert str(line(k)) in report.problems[0].text
    with pytest.raises(AuditUnavailable):
        AuditLog(path, head_path, KEY, origin="kbs", clock=lambda: NOW)


def test_an_edit_of_the_last_line_is_named(files: tuple[Path, Path]) -> None:
    path, head_path = files
    lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"".join(line + b"\n" for line in at(COUNT - 1, edited(lines[-1]), lines)))
    problem = verify(path, head_path, KEY.public_key()).problems[0]
    assert (problem.line, problem.code) == (COUNT, "root_mismatch")


@pytest.mark.parametrize("kept", range(COUNT))
@pytest.mark.parametrize("half", [0, 40])
def test_a_cut_tail_is_named(files: tuple[Path, Path], kept: int, half: int) -> None:
    """Whole lines gone, also where the cut goes through a line and looks like a crash."""
    path, head_path = files
    lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"".join(line + b"\n" for line in lines[:kept]) + lines[kept][:half])
    problem = verify(path, head_path, KEY.public_key()).problems[0]
    assert (problem.line, problem.code) == (kept + 1, "cut")
    with pytest.raises(AuditUnavailable):
        AuditLog(path, head_path, KEY, origin="kbs", clock=lambda: NOW)


def test_every_flipped_octet_is_noticed(files: tuple[Path, Path]) -> None:
    path, head_path = files
    whole = path.read_bytes()
    for position in range(0, len(whole), 13):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert not verify(path, head_path, KEY.public_key()).ok
    path.write_bytes(whole)
    assert verify(path, head_path, KEY.public_key()).ok
