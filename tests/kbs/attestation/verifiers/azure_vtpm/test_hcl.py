"""The HCL report's octets: what parses, and that nothing else does."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.verifiers.azure_vtpm.hcl import ReportType, check_bound, parse_hcl_report
from kbs.client.attesters.azure_vtpm import bound, hcl_report
from kbs.errors import BindingMismatch, EvidenceMalformed, EvidenceRejected, EvidenceVersionUnsupported

DATA = b'{"keys":[]}'
REPORT = bytes(range(256)) * 4


def made(**changes: Any) -> bytes:
    return hcl_report(REPORT, DATA, **{"report_type": 4, **changes})


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tail", [None, b"", bytes(99)])
def test_it_is_taken_apart(version: int, tail: bytes | None) -> None:
    found = parse_hcl_report(made(version=version, tail=tail), ReportType.TDX)
    assert found.hardware_report == REPORT.ljust(1184, b"\0")
    assert found.variable_data == DATA
    assert found.report_data == hashlib.sha256(DATA).digest() + bytes(32)


@pytest.mark.parametrize("hash_type", [1, 2, 3])
def test_all_of_report_data_is_compared(hash_type: int) -> None:
    found = parse_hcl_report(made(hash_type=hash_type), ReportType.TDX)
    good = bound(DATA, hash_type)
    check_bound(found, good)
    for offset in range(64):
        wrong = bytearray(good)
        wrong[offset] ^= 0x80
        with pytest.raises(BindingMismatch):
            check_bound(found, bytes(wrong))
    for wrong_size in (good[:32], good[:63], good + b"\0", b""):
        with pytest.raises(BindingMismatch):
            check_bound(found, wrong_size)


MALFORMED: dict[str, dict[str, Any]] = {
    "magic": {"magic": b"HCLB"},
    "another request": {"request": 1},
    "an error": {"status": 1},
    "reserved": {"reserved": bytes(11) + b"\1"},
    "another TEE": {"report_type": 2},
    "no TEE": {"report_type": 0},
    "size one more": {"size": 1237 + len(DATA)},
    "size zero": {"size": 0},
    "runtime size": {"runtime_size": len(DATA)},
    "variable size overflows": {"variable_size": 0xFFFFFFFF},
    "variable size beyond the end": {"variable_size": 2600 - 1235},
    "variable size one less": {"variable_size": len(DATA) - 1},
    "octets behind the end": {"tail": b"\0\1"},
    "too long": {"tail": bytes(16 * 1024)},
}
UNKNOWN: dict[str, dict[str, Any]] = {
    "version 0": {"version": 0},
    "version 3": {"version": 3},
    "runtime version 2": {"runtime_version": 2},
    "hash 0": {"hash_type": 0},
    "hash 4": {"hash_type": 4},
    "hash of 32 bits": {"hash_type": 0xFFFFFFFF},
}


@pytest.mark.parametrize("changes", MALFORMED.values(), ids=MALFORMED)
def test_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_hcl_report(made(**changes), ReportType.TDX)


@pytest.mark.parametrize("changes", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        parse_hcl_report(made(**changes), ReportType.TDX)


@pytest.mark.parametrize("size", [0, 1, 31, 1216, 1235, 1236 + len(DATA) - 1])
def test_cut(size: int) -> None:
    with pytest.raises(EvidenceMalformed):
        parse_hcl_report(made()[:size], ReportType.TDX)


def test_sizes_must_all_agree() -> None:
    raw = bytearray(made())
    struct.pack_into("<I", raw, 1232, len(DATA) + 1)
    with pytest.raises(EvidenceMalformed):
        parse_hcl_report(bytes(raw), ReportType.TDX)


@given(st.binary(max_size=64) | st.binary(max_size=48).map(lambda tail: made()[:1236] + tail))
def test_any_octets_raise_nothing_else(raw: bytes) -> None:
    for kind in ReportType:
        try:
            found = parse_hcl_report(raw, kind)
        except EvidenceRejected:
            continue
        assert found.variable_data == raw[1236 : 1236 + len(DATA)]


@given(st.integers(0, 1235), st.integers(1, 255))
def test_any_change_of_the_frame_is_refused_or_changes_the_hardware_report(offset: int, change: int) -> None:
    raw = bytearray(made())
    raw[offset] ^= change
    try:
        found = parse_hcl_report(bytes(raw), ReportType.TDX)
    except EvidenceRejected:
        return
    is_version, is_hash = offset == 4, offset == 1228  # both have more than one right value
    assert is_version or is_hash or found.hardware_report != REPORT.ljust(1184, b"\0")
