"""The log reader: registers of real machines, and logs that lie."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.compute import ccel
from rvps.errors import ArtifactUnusable
from tests.rvps.compute.images import log_entry, log_header

LOGS = Path(__file__).parents[2] / "vectors/eventlog"
LIVE = gzip.decompress((LOGS / "live_b0c06f.ccel.gz").read_bytes())
SEPARATOR = log_entry(1, 4, bytes(4))


def test_a_real_log_leads_to_the_registers_of_its_quote() -> None:
    quoted = json.loads((LOGS / "live_b0c06f.rtmrs.json").read_text())
    registers = ccel.replay(ccel.read(LIVE))
    assert [registers[number].hex() for number in ccel.REGISTERS] == quoted


def test_another_boot_leads_elsewhere() -> None:
    other = gzip.decompress((LOGS / "live_b0c06f.wrong.ccel.gz").read_bytes())
    assert ccel.replay(ccel.read(other)) != ccel.replay(ccel.read(LIVE))


def test_no_action_is_no_measurement() -> None:
    plain = ccel.read(log_header() + SEPARATOR)
    assert ccel.read(log_header() + log_entry(0, 3, b"x", bytes(48)) + SEPARATOR) == plain


@pytest.mark.parametrize("end", [b"", bytes(8), b"\xff" * 8, b"\xff" * 4096], ids=("none", "zeros", "ones", "padded"))
def test_ends(end: bytes) -> None:
    assert len(ccel.read(log_header() + SEPARATOR + end)) == 1


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (b"", "cut"),
        (LIVE[:40], "Specification ID"),
        (b"\0" * 100, "Specification ID"),
        (log_header([(4, 20)]) + SEPARATOR, "no SHA-384"),
        (log_header([(0x0C, 20)]) + SEPARATOR, "no SHA-384"),
        (log_header([]) + SEPARATOR, "no algorithm"),
        (log_header([(0x0C, 48)] * 9) + SEPARATOR, "no algorithm"),
        (log_header(), "no measured event"),
        (log_header() + SEPARATOR[:-1], "cut"),
        (log_header() + SEPARATOR[:20], "cut"),
        (log_header() + SEPARATOR[:9], "cut"),
        (log_header() + log_entry(0, 4, bytes(4)), "register"),
        (log_header() + log_entry(5, 4, bytes(4)), "register"),
        (log_header() + SEPARATOR.replace(b"\x0c\0", b"\x0b\0", 1), "unannounced"),
        (log_header() + SEPARATOR + b"\xff" * 8 + SEPARATOR, "behind its end"),
        (bytes((4 << 20) + 1), "more than 4 MiB"),
        (log_header() + SEPARATOR * 10_001, "more than 10000"),
    ],
    ids=(
        "empty", "cut-header", "zeros", "sha1", "short-digest", "none", "many", "nothing", "cut-data", "cut-digest",
        "cut-head", "register-0", "register-5", "algorithm", "behind", "huge", "events",
    ),
)  # fmt: skip
def test_logs_that_lie_are_refused(log: bytes, reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        ccel.read(log)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 600))
def test_no_bytes_break_the_reader(noise: bytes, at: int) -> None:
    log = log_header() + SEPARATOR * 8
    with contextlib.suppress(ArtifactUnusable):
        ccel.read(log[:at] + noise + log[at + len(noise) :])
