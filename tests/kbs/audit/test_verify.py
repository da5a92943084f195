"""Offline verification: heads, older heads, and what is no tampering. Edits of lines: tests/attacks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.checkpoint import HeadSigner
from kbs.audit.events import AdminRead
from kbs.audit.lines import encode_event, encode_line, line_digest, timestamp
from kbs.audit.log import AuditLog
from kbs.audit.merkle import Frontier
from kbs.audit.verify import VerificationReport, verify

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
ORIGIN = "kbs.example/audit"


@pytest.fixture
def older(head_path: Path, path: Path, open_log: Callable[[], AuditLog]) -> Path:
    """A log of six lines whose head was copied away after three."""
    log = open_log()
    for number in range(6):
        log.append([AdminRead(decision=f"{number:032x}", actor="ann", what="policy")])
        if number == 2:
            copy = head_path.with_name("older")
            copy.write_bytes(head_path.read_bytes())
    log.close()
    return head_path.with_name("older")


def check(path: Path, head_path: Path, older: Path | None = None) -> VerificationReport:
    return verify(path, head_path, KEY.public_key(), origin=ORIGIN, older_head=older)


def codes(report: VerificationReport) -> list[tuple[int | None, str]]:
    assert report.ok is (not report.problems)
    return [(problem.line, problem.code) for problem in report.problems]


def rewritten(path: Path, keep: int) -> list[bytes]:
    """The log with every line from `keep` on made anew, chained as a good one."""
    lines = path.read_bytes().split(b"\n")[:-1]
    total, lines = len(lines), lines[:keep]
    for number in range(keep, total):
        body = encode_event(AdminRead(decision=f"{number:032x}", actor="eve", what="policy"))
        at = datetime(2026, 6, 15, 12, tzinfo=UTC)
        lines.append(encode_line(number, timestamp(at), body, line_digest(lines[-1]) if lines else "0" * 64))
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return lines


def test_a_good_log_verifies_against_both_heads(path: Path, head_path: Path, older: Path) -> None:
    report = check(path, head_path, older)
    assert codes(report) == []
    assert (report.lines, report.signed, report.notes) == (6, 6, ())


def test_an_empty_log_verifies(path: Path, head_path: Path, open_log: Callable[[], AuditLog]) -> None:
    open_log().close()
    assert check(path, head_path).ok


def test_a_log_in_use_verifies(path: Path, head_path: Path, open_log: Callable[[], AuditLog]) -> None:
    log = open_log()
    log.append([AdminRead(decision="0" * 32, actor="ann", what="policy")])
    assert check(path, head_path).ok
    log.append([AdminRead(decision="1" * 32, actor="ann", what="policy")])
    assert check(path, head_path).lines == 2


def test_half_a_line_after_a_crash_is_a_note(path: Path, head_path: Path, older: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"n":6')
    report = check(path, head_path)
    assert report.ok
    assert "half a line" in report.notes[0]


def test_missing_files_are_problems(path: Path, head_path: Path, older: Path, tmp_path: Path) -> None:
    assert codes(check(tmp_path / "none", head_path)) == [(None, "unreadable")]
    assert codes(check(path.parent, head_path)) == [(None, "unreadable")]
    assert codes(check(path, tmp_path / "none")) == [(None, "head_missing")]
    assert codes(check(path, head_path, tmp_path / "none")) == [(None, "head_missing")]


def test_a_bad_signature_is_named(path: Path, head_path: Path, older: Path) -> None:
    good = head_path.read_bytes()
    other = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
    lines = path.read_bytes().split(b"\n")[:-1]
    for note in (
        good.replace(b"\n6\n", b"\n5\n"),
        good[:-5] + b"AAA\n",
        HeadSigner(ORIGIN, other).sign(6, Frontier(lines).root()),
        HeadSigner("another/log", KEY).sign(6, Frontier(lines).root()),
    ):
        head_path.write_bytes(note)
        assert codes(check(path, head_path)) == [(None, "head_invalid")]
        assert check(path, head_path).signed is None


def test_a_wrong_root_is_named(path: Path, head_path: Path, older: Path) -> None:
    head_path.write_bytes(HeadSigner(ORIGIN, KEY).sign(6, b"\x00" * 32))
    assert codes(check(path, head_path)) == [(6, "root_mismatch")]


@pytest.mark.parametrize("keep", range(6))
def test_a_chain_made_anew_is_noticed_by_the_root(path: Path, head_path: Path, older: Path, keep: int) -> None:
    rewritten(path, keep)
    assert (6, "root_mismatch") in codes(check(path, head_path))
    assert ((3, "root_mismatch") in codes(check(path, head_path, older))) is (keep < 3)


def test_log_and_head_taken_back_together_are_noticed_by_an_older_head(
    path: Path, head_path: Path, older: Path
) -> None:
    lines = path.read_bytes().split(b"\n")[:2]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    head_path.write_bytes(HeadSigner(ORIGIN, KEY).sign(2, Frontier(lines).root()))
    assert check(path, head_path).ok  # nothing else can tell
    assert codes(check(path, head_path, older)) == [(None, "head_rolled_back"), (3, "cut")]


def test_a_forged_history_under_the_right_key_is_noticed_by_an_older_head(
    path: Path, head_path: Path, older: Path
) -> None:
    lines = rewritten(path, 1)
    head_path.write_bytes(HeadSigner(ORIGIN, KEY).sign(6, Frontier(lines).root()))
    assert check(path, head_path).ok
    assert codes(check(path, head_path, older)) == [(3, "root_mismatch")]
