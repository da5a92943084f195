"""Containers: read strictly, and nothing but our own error comes out."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.event_log import runtime
from kbs.attestation.event_log.algorithms import ALGORITHMS, BY_BANK, SHA1, SHA256, SHA384, SM3
from kbs.attestation.event_log.model import MAX_EVENTS, MAX_SIZE
from kbs.attestation.event_log.records import is_crypto_agile, parse_crypto_agile, parse_sha1
from kbs.client.attesters.event_log import ACTION, NO_ACTION, LoggedEvent, SoftwareEventLog, digest
from kbs.errors import EventLogMalformed

EVENTS = st.lists(
    st.builds(
        LoggedEvent,
        register=st.integers(1, 0xFFFFFFFE),
        type=st.integers(0, 0xFFFFFFFF).filter(lambda kind: kind != NO_ACTION),
        data=st.binary(max_size=40),
        measured=st.binary(max_size=8),
    ),
    max_size=6,
)


def one_event(banks: tuple[str, ...] = ("sha384",), data: bytes = b"data") -> SoftwareEventLog:
    log = SoftwareEventLog(banks)
    log.measure(1, ACTION, data)
    return log


@given(events=EVENTS, banks=st.permutations(["sha1", "sha256", "sha384", "sha512", "sm3"]), end=st.sampled_from([0, 8]))
def test_what_is_written_is_read(events: list[LoggedEvent], banks: list[str], end: int) -> None:
    log = SoftwareEventLog(tuple(banks), events=events).to_bytes(b"\xff" * end)
    for algorithm in ALGORITHMS:
        parsed = parse_crypto_agile(log, algorithm)
        assert [(event.register, event.type, event.data) for event in parsed] == [
            (event.register, event.type, event.data) for event in events
        ]
        assert [event.digest for event in parsed] == [digest(algorithm.bank, event.measured) for event in events]


@given(events=EVENTS)
def test_what_is_written_is_read_of_the_old_format(events: list[LoggedEvent]) -> None:
    log = SoftwareEventLog(("sha1",), crypto_agile=False, events=[LoggedEvent(0, 8, b"v", b"v"), *events]).to_bytes(b"")
    assert [event.digest for event in parse_sha1(log)[1:]] == [digest("sha1", event.measured) for event in events]


@given(raw=st.binary(max_size=300))
def test_nothing_else_is_raised(raw: bytes) -> None:
    header = SoftwareEventLog(("sha256", "sm3")).to_bytes(b"")
    for log in (raw, header[:32] + raw, header + raw):
        for parse in (lambda log: parse_crypto_agile(log, SHA256), parse_sha1):
            with contextlib.suppress(EventLogMalformed):
                parse(log)


@given(cut=st.integers(0, 10_000))
@settings(max_examples=200)
def test_a_cut_log_is_refused_or_ends_between_entries(cut: int) -> None:
    log = SoftwareEventLog(("sha1", "sha256"))
    for number in range(5):
        log.measure(number, ACTION, b"x" * number)
    raw = log.to_bytes(b"")
    boundaries: set[int] = set()
    length = len(SoftwareEventLog(log.banks).to_bytes(b""))
    for event in log.events:
        boundaries.add(length)
        length += len(log.entry(event))
    cut %= len(raw)
    if cut in boundaries:
        assert len(parse_crypto_agile(raw[:cut], SHA256)) < 5
    else:
        with pytest.raises(EventLogMalformed):
            parse_crypto_agile(raw[:cut], SHA256)


def header(
    table: bytes,
    count: int,
    *,
    major: int = 2,
    vendor: bytes = b"\0",
    kind: int = NO_ACTION,
    pcr_digest: bytes = bytes(20),
) -> bytes:
    data = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, major, 0, 2, count) + table + vendor
    return struct.pack("<II20sI", 0, kind, pcr_digest, len(data)) + data


SHA384_ROW = struct.pack("<HH", 0xC, 48)


def test_the_header_of_the_attestation_agent() -> None:
    """69 bytes that announce SHA-384 and SM3; entries may then have one of them only."""
    log = SoftwareEventLog(("sha384",))
    log.runtime(4, "a", "b", "c")
    head = header(SHA384_ROW + struct.pack("<HH", 0x12, 32), 2)
    assert len(head) == 69
    assert len(parse_crypto_agile(head + log.entry(log.events[0]) + b"\xff" * 8, SHA384)) == 1


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (b"", "empty"),
        (b"\xff" * 8, "begin"),
        (bytes(64), "begin"),
        (header(SHA384_ROW, 1, kind=8), "begin"),
        (header(SHA384_ROW, 1, pcr_digest=b"\1" * 20), "begin"),
        (header(SHA384_ROW, 1, major=1), "version"),
        (header(SHA384_ROW, 1)[:-1], "inside"),
        (header(b"", 0), "inconsistent"),
        (header(SHA384_ROW, 2), "inconsistent"),
        (header(SHA384_ROW, 0xFFFFFFFF), "inconsistent"),
        (header(SHA384_ROW, 1, vendor=b""), "inconsistent"),
        (header(SHA384_ROW, 1, vendor=b"\2x"), "inconsistent"),
        (header(SHA384_ROW, 1, vendor=b"\0x"), "inconsistent"),
        (header(SHA384_ROW * 2, 2), "twice"),
        (header(struct.pack("<HH", 0xC, 32), 1), "size"),
        (header(struct.pack("<HHHH", 0xC, 48, 0x99, 0), 2), "size"),
        (header(struct.pack("<HHHH", 0xC, 48, 0x99, 129), 2), "size"),
        (header(struct.pack("<HH", 0xB, 32), 1), "announce"),
        (header(SHA384_ROW, 1) + b"\xff" * 7, "inside"),
        (header(SHA384_ROW, 1) + b"\xff" * 9 + b"\0", "behind its end"),
        (header(SHA384_ROW, 1) + bytes(8) + b"\1", "behind its end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_containers(log: bytes, says: str) -> None:
    with pytest.raises(EventLogMalformed, match=says):
        parse_crypto_agile(log, SHA384)


def test_an_algorithm_that_nobody_knows_is_stepped_over() -> None:
    head = header(struct.pack("<HHHH", 0x27, 32, 0xC, 48), 2)
    entry = struct.pack("<IIIH32sH48sI", 1, ACTION, 2, 0x27, b"\1" * 32, 0xC, b"\2" * 48, 1) + b"x"
    (event,) = parse_crypto_agile(head + entry, SHA384)
    assert event.digest == b"\2" * 48


def entry(*digests: tuple[int, bytes], kind: int = ACTION, count: int | None = None, size: int = 0) -> bytes:
    listed = b"".join(struct.pack("<H", number) + value for number, value in digests)
    return struct.pack("<III", 1, kind, len(digests) if count is None else count) + listed + struct.pack("<I", size)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (entry(), "without a digest"),
        (entry((0xB, bytes(32))), "without a digest"),
        (entry((0xC, bytes(48)), (0xC, bytes(48))), "twice"),
        (entry((0xC, bytes(48)), (0xD, bytes(64))), "not announced"),
        (entry((0xC, bytes(48)), (0xB, bytes(32)), (0xB, bytes(32))), "more digests"),
        (entry((0xC, bytes(48)), count=0xFFFFFFFF), "more digests"),
        (entry((0xC, bytes(48)), size=1), "inside"),
        (entry((0xC, bytes(48)), size=0xFFFFFFFF), "inside"),
        (entry((0xC, bytes(48)), (0xB, bytes(32)), size=1), "inside"),
        (entry((0xC, bytes(47) + b"\1"), (0xB, bytes(32)), kind=NO_ACTION), "EV_NO_ACTION"),
        (entry((0xC, bytes(48)), (0xB, b"\1" + bytes(31)), kind=NO_ACTION), "EV_NO_ACTION"),
        (entry((0xC, b"\1" * 48), kind=NO_ACTION), "EV_NO_ACTION"),
    ],
)
def test_wrong_entries(made: bytes, says: str) -> None:
    head = header(SHA384_ROW + struct.pack("<HH", 0xB, 32), 2)
    with pytest.raises(EventLogMalformed, match=says):
        parse_crypto_agile(head + made, SHA384)


def test_fewer_digests_and_another_order_are_read() -> None:
    head = header(SHA384_ROW + struct.pack("<HH", 0xB, 32), 2)
    for made in (entry((0xC, b"\1" * 48)), entry((0xB, bytes(32)), (0xC, b"\1" * 48))):
        (event,) = parse_crypto_agile(head + made, SHA384)
        assert event.digest == b"\1" * 48


def test_limits() -> None:
    log = SoftwareEventLog()
    log.events += [LoggedEvent(1, ACTION, b"", b"")] * MAX_EVENTS
    raw = log.to_bytes(b"")
    assert len(parse_crypto_agile(raw, SHA384)) == MAX_EVENTS
    with pytest.raises(EventLogMalformed, match="entries"):
        parse_crypto_agile(raw + log.entry(log.events[0]), SHA384)
    old = SoftwareEventLog(("sha1",), crypto_agile=False, events=log.events).to_bytes(b"")
    assert len(parse_sha1(old)) == MAX_EVENTS
    with pytest.raises(EventLogMalformed, match="entries"):
        parse_sha1(old + old[:32])
    padded = one_event().to_bytes(b"")
    padded += b"\xff" * (MAX_SIZE - len(padded))
    assert len(parse_crypto_agile(padded, SHA384)) == 1
    parsers: list[Callable[[bytes], object]] = [
        lambda log: parse_crypto_agile(log, SHA384),
        parse_sha1,
        lambda log: runtime.replay(log, {17: bytes(32)}, "sha256"),
    ]
    for parse in parsers:
        with pytest.raises(EventLogMalformed, match="longer"):
            parse(padded + b"\xff")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (b"\1" * 31, "inside"),
        (struct.pack("<II20sI", 1, ACTION, bytes(20), 1), "inside"),
        (struct.pack("<II20sI", 1, NO_ACTION, b"\1" * 20, 0), "EV_NO_ACTION"),
        (b"\xff" * 8 + b"\0", "behind its end"),
    ],
)
def test_wrong_entries_of_the_old_format(made: bytes, says: str) -> None:
    with pytest.raises(EventLogMalformed, match=says):
        parse_sha1(made)


def test_the_old_format_has_an_end_too() -> None:
    log = SoftwareEventLog(("sha1",), crypto_agile=False)
    log.measure(1, ACTION, b"x")
    assert len(parse_sha1(log.to_bytes(bytes(64)))) == 1
    assert not is_crypto_agile(log.to_bytes())


def test_algorithms_are_those_of_the_registry() -> None:
    assert {algorithm.bank: (algorithm.id, algorithm.size) for algorithm in ALGORITHMS} == {
        "sha1": (4, 20), "sha256": (0xB, 32), "sha384": (0xC, 48), "sha512": (0xD, 64), "sm3": (0x12, 32),
    }  # fmt: skip
    assert all(len(algorithm.hash(b"abc")) == algorithm.size for algorithm in ALGORITHMS)
    assert SHA1.hash(b"abc").hex().startswith("a9993e36")
    # GB/T 32905, appendix A
    assert SM3.hash(b"abc").hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    assert BY_BANK["sm3"] is SM3
