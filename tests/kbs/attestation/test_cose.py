"""Bounded CBOR and COSE_Sign1: what is taken, and everything that is not."""

from __future__ import annotations

import time
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.cose import (
    MAX_DEPTH,
    MAX_SIZE,
    Algorithm,
    decode,
    decode_first,
    read_key,
    read_point,
    read_sign1,
    verify_sign1,
)
from kbs.client.attesters.cca import cose_key, sign1
from kbs.errors import EvidenceMalformed, EvidenceRejected, EvidenceVersionUnsupported, SignatureInvalid

KEYS = {
    Algorithm.ES256: ec.derive_private_key(3, ec.SECP256R1()),
    Algorithm.ES384: ec.derive_private_key(3, ec.SECP384R1()),
    Algorithm.ES512: ec.derive_private_key(3, ec.SECP521R1()),
}
KEY = KEYS[Algorithm.ES384]
EVERY = pytest.mark.parametrize("algorithm", Algorithm)


def h(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


# --- CBOR ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0),
        ("1b ffff ffff ffff ffff", 2**64 - 1),
        ("3b 7fff ffff ffff ffff", -(2**63)),
        ("40", b""),
        ("63 e2 82 ac", "€"),
        ("f5", True),
        ("f6", None),
        ("82 01 a1 01 41 61", [1, {1: b"a"}]),
    ],
)
def test_plain_items(data: str, value: Any) -> None:
    assert decode(h(data)) == value


REFUSED = {
    "empty": "",
    "trailing": "00 00",
    "cut text": "63 61",
    "cut map": "a2 01 02",
    "reserved length": "1c",
    "break alone": "ff",
    "huge array": "9b ffff ffff ffff ffff",
    "huge string": "5b ffff ffff ffff ffff",
    "huge map": "bb 7fff ffff ffff ffff",
    "bad UTF-8": "62 c3 28",
    "bad simple": "f8 10",
    "indefinite array": "9f 01 ff",
    "indefinite map": "bf 01 02 ff",
    "indefinite text": "7f 61 61 ff",
    "duplicate key": "a2 01 02 01 03",
    "duplicate key in two spellings": "a2 01 02 18 01 03",
    "float": "f9 3c 00",
    "NaN": "fb 7ff8 0000 0000 0000",
    "undefined": "f7",
    "simple value": "e0",
    "float in a list": "81 f9 3c 00",
    "boolean key": "a1 f5 01",
    "null key": "a1 f6 01",
    "bytes key": "a1 41 61 01",
    "list key": "a1 82 01 02 03",
    "map key": "a1 a1 01 02 03",
    "float key": "a1 f9 3c 00 01",
    "date, tag 0": "c0 74 323031332d30332d32315432303a30343a30305a",
    "epoch, tag 1": "c1 1a 51 4b 67 b0",
    "bignum, tag 2": "c2 49 01 0000 0000 0000 0000",
    "negative bignum, tag 3": "c3 49 01 0000 0000 0000 0000",
    "decimal, tag 4": "c4 82 1b 7fff ffff ffff ffff 01",
    "bigfloat, tag 5": "c5 82 1b 7fff ffff ffff ffff 01",
    "string reference, tag 25": "d9 0100 82 41 61 d8 19 00",
    "shared, tag 28": "d8 1c 80",
    "cycle, tags 28 and 29": "d8 1c 81 d8 1d 00",
    "rational, tag 30": "d8 1e 82 01 03",
    "regular expression, tag 35": "d8 23 66 28612b292b24",
    "MIME, tag 36": "d8 24 61 61",
    "UUID, tag 37": "d8 25 50 00000000000000000000000000000000",
    "address, tag 52": "d8 34 44 7f000001",
    "set, tag 258": "d9 0102 81 01",
    "self-described, tag 55799": "d9 d9f7 00",
    "tag that nobody knows": "da 7fff ffff 00",
    "tag in a list": "81 c1 00",
    "tag in a map": "a1 01 c1 00",
    "tag as key": "a1 c1 00 01",
    "tag that is not expected": "d9 018f a0",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refused_items(data: str) -> None:
    with pytest.raises(EvidenceMalformed):
        decode(h(data))


@pytest.mark.parametrize("tag", [*range(64), 100, 256, 258, 260, 261, 1004, 43000, 55799])
@pytest.mark.parametrize("content", [0, "1", b"1", [1, 2], {1: 2}])
def test_every_tag_that_is_not_named_is_refused(tag: int, content: Any) -> None:
    """Also those to which cbor2 gives a meaning of its own."""
    data = cbor2.dumps(cbor2.CBORTag(tag, content))
    with pytest.raises(EvidenceMalformed):
        decode(data)
    with pytest.raises(EvidenceMalformed):
        decode(data, tags=frozenset({399}))


def test_named_tags_have_no_meaning_here() -> None:
    found = decode(h("d9018f a1 01 d2 80"), tags=frozenset({399, 18}))
    assert (found.tag, found.value[1].tag, list(found.value[1].value)) == (399, 18, [])


def test_indefinite_lengths_where_a_writer_makes_them() -> None:
    assert decode(h("bf 01 9f 02 ff ff"), allow_indefinite=True) == {1: [2]}
    with pytest.raises(EvidenceMalformed):
        decode(h("bf 01 02 01 03 ff"), allow_indefinite=True)


def test_nesting_is_bounded() -> None:
    assert decode(b"\x81" * MAX_DEPTH + b"\x00")
    for deep in (b"\x81" * (MAX_DEPTH + 1) + b"\x00", b"\x81" * 60_000 + b"\x80", b"\xa1\x01" * 30_000 + b"\xa0"):
        with pytest.raises(EvidenceMalformed):
            decode(deep)
    with pytest.raises(EvidenceMalformed):
        decode(b"\xd2" * 60_000 + b"\x00", tags=frozenset({18}))
    with pytest.raises(EvidenceMalformed):
        decode(b"\x9f" * 60_000, allow_indefinite=True)


def test_size_is_bounded() -> None:
    fitting = b"\x59" + (MAX_SIZE - 3).to_bytes(2, "big") + bytes(MAX_SIZE - 3)
    assert len(decode(fitting)) == MAX_SIZE - 3
    with pytest.raises(EvidenceMalformed):
        decode(b"\x5a" + (MAX_SIZE - 4).to_bytes(4, "big") + bytes(MAX_SIZE - 4))
    with pytest.raises(EvidenceMalformed):
        decode(fitting[:101], max_size=100)


def test_wide_items_are_quick() -> None:
    begin = time.thread_time()  # of the processor: other processes of the machine do not count
    assert len(decode(b"\x99\xf0\x00" + b"\x80" * 0xF000)) == 0xF000
    assert time.thread_time() - begin < 1


def test_the_first_item_alone() -> None:
    assert decode_first(h("82 01 02 ff ff")) == ([1, 2], 3)
    with pytest.raises(EvidenceMalformed):
        decode_first(h("ff"))


@given(st.binary(max_size=64))
def test_any_octets_raise_nothing_else(data: bytes) -> None:
    for indefinite in (False, True):
        try:
            decode(data, tags=frozenset({18, 399}), allow_indefinite=indefinite)
        except EvidenceRejected:
            continue


PLAIN = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 99) | st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_what_is_written_is_read(value: Any) -> None:
    assert decode(cbor2.dumps(value)) == value


# --- COSE ------------------------------------------------------------------------------------------------------------


@EVERY
def test_messages_of_every_algorithm(algorithm: Algorithm) -> None:
    message = read_sign1(sign1({1: 2}, key=KEYS[algorithm]))
    assert message.algorithm is algorithm
    assert decode(message.payload) == {1: 2}
    verify_sign1(message, KEYS[algorithm].public_key())


@EVERY
def test_another_key_is_refused(algorithm: Algorithm) -> None:
    message = read_sign1(sign1({1: 2}, key=KEYS[algorithm]))
    for key in (ec.derive_private_key(4, KEYS[algorithm].curve), *KEYS.values()):
        if key is not KEYS[algorithm]:
            with pytest.raises(SignatureInvalid):
                verify_sign1(message, key.public_key())


@EVERY
def test_every_octet_of_the_signature_counts(algorithm: Algorithm) -> None:
    width = (KEYS[algorithm].curve.key_size + 7) // 8
    for offset in range(2 * width):
        with pytest.raises(SignatureInvalid):
            verify_sign1(read_sign1(sign1(b"x", key=KEYS[algorithm], flip=offset)), KEYS[algorithm].public_key())


@pytest.mark.parametrize("size", [0, 1, 64, 95, 97, 104, 132])
def test_signatures_of_another_length_are_refused(size: int) -> None:
    header = cbor2.dumps({1: -35})
    with pytest.raises(SignatureInvalid):
        verify_sign1(read_sign1(cbor2.dumps([header, {}, b"x", bytes(size)])), KEY.public_key())
    with pytest.raises(SignatureInvalid):  # r and s zero
        verify_sign1(read_sign1(cbor2.dumps([header, {}, b"x", bytes(96)])), KEY.public_key())


@pytest.mark.parametrize("other", [a for a in Algorithm if a is not Algorithm.ES384])
def test_the_algorithm_fits_the_curve(other: Algorithm) -> None:
    """ES256 with a P-384 key, the signature made that way, would be a downgrade of the hash."""
    with pytest.raises(SignatureInvalid):
        verify_sign1(read_sign1(sign1(b"x", key=KEY, algorithm=other)), KEY.public_key())


@pytest.mark.parametrize("algorithm", [0, 1, 5, -8, -37, -47, -65535, -257, "ES384", b"\x26", [], {}, True])
def test_other_algorithms_are_refused(algorithm: Any) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        read_sign1(sign1(b"x", key=KEY, protected={1: algorithm}))


@pytest.mark.parametrize(
    "changes",
    [
        {"protected": {2: [1]}},
        {"protected": {2: []}},
        {"protected": {1: None}},
        {"unprotected": {2: [1]}},
        {"unprotected": {1: -35}},
        {"unprotected": {4: b"kid"}, "protected": {4: b"kid"}},
        {"unprotected": []},
        {"unprotected": b""},
        {"detached": True},
    ],
)
def test_headers_and_payload(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        read_sign1(sign1(b"x", key=KEY, **changes))


def test_headers_that_change_nothing() -> None:
    message = read_sign1(sign1(b"x", key=KEY, protected={4: b"kid", "own": 1}, unprotected={5: b"iv"}))
    verify_sign1(message, KEY.public_key())


@pytest.mark.parametrize(
    "message",
    [
        {},
        [],
        0,
        [b"", {}, b"x"],
        [cbor2.dumps({1: -35}), {}, b"x", bytes(96), 0],
        [{1: -35}, {}, b"x", bytes(96)],
        ["", {}, b"x", bytes(96)],
        [b"", {}, b"x", bytes(96)],
        [b"\xa0", {}, b"x", bytes(96)],
        [b"\x80", {}, b"x", bytes(96)],
        [cbor2.dumps({1: -35}) + b"\0", {}, b"x", bytes(96)],
        [b"\xa2\x01\x38\x22\x01\x38\x22", {}, b"x", bytes(96)],
        [b"\xbf\x01\x38\x22\xff", {}, b"x", bytes(96)],
        [cbor2.dumps({1: -35}), {}, "x", bytes(96)],
        [cbor2.dumps({1: -35}), {}, b"x", [bytes(96)]],
        cbor2.CBORTag(98, []),
    ],
)
def test_what_is_no_message(message: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        read_sign1(cbor2.dumps(message))


def test_tags_of_messages() -> None:
    tagged, plain = sign1(b"x", key=KEY), sign1(b"x", key=KEY, tag=None)
    for message, allowed in ((tagged, (True, None)), (plain, (False, None))):
        for wanted in (True, False, None):
            if wanted in allowed:
                verify_sign1(read_sign1(message, tagged=wanted), KEY.public_key())
            else:
                with pytest.raises(EvidenceMalformed):
                    read_sign1(message, tagged=wanted)
    with pytest.raises(EvidenceMalformed):
        read_sign1(sign1(b"x", key=KEY, tag=17))
    with pytest.raises(EvidenceMalformed):
        read_sign1(b"\xd2" + tagged)


def test_bytes_behind_a_message() -> None:
    message = sign1(b"x", key=KEY)
    with pytest.raises(EvidenceMalformed):
        read_sign1(message + b"\0")
    verify_sign1(read_sign1(message + b"\xff", allow_trailing_bytes=True), KEY.public_key())


# --- keys ------------------------------------------------------------------------------------------------------------


@EVERY
def test_keys_of_every_curve(algorithm: Algorithm) -> None:
    expected = KEYS[algorithm].public_key()
    assert read_key(cose_key(KEYS[algorithm])) == expected
    members = {**cbor2.loads(cose_key(KEYS[algorithm])), 2: b"kid", 3: int(algorithm), 4: [2]}
    assert read_key(cbor2.dumps(members)) == expected


P384 = dict(cbor2.loads(cose_key(KEY)))


@pytest.mark.parametrize(
    "changes",
    [
        {1: 1},
        {1: 4},
        {1: "EC2"},
        {3: -7},
        {3: "ES384"},
        {-1: 1},
        {-1: 4},
        {-1: 8},
        {-1: "P-384"},
        {-1: [2]},
        {-2: P384[-2][1:]},
        {-2: b"\0" + P384[-2]},
        {-2: bytes(48)},
        {-2: 5},
        {-3: True},
        {-3: b""},
        {-3: P384[-2]},
        {-3: b"\xff" * 48},
        {-4: b"private"},
        {"x": 1},
    ],
)
def test_other_keys_are_refused(changes: dict[Any, Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        read_key(cbor2.dumps({**P384, **changes}))


@pytest.mark.parametrize("missing", P384)
def test_every_member_of_a_key_is_needed(missing: int) -> None:
    with pytest.raises(EvidenceMalformed):
        read_key(cbor2.dumps({name: value for name, value in P384.items() if name != missing}))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xa0", b"\x00", b"\xff"])
def test_what_is_no_key(data: bytes) -> None:
    with pytest.raises(EvidenceMalformed):
        read_key(data)


def test_points() -> None:
    point = b"\x04" + P384[-2] + P384[-3]
    assert read_point(Algorithm.ES384, point) == KEY.public_key()
    compressed = bytes([2 + P384[-3][-1] % 2]) + P384[-2]
    for other in (b"", b"\0", b"\x04", point[:-1], point + b"\0", b"\x06" + point[1:], compressed, b"\x04" + bytes(96)):
        with pytest.raises(EvidenceMalformed):
            read_point(Algorithm.ES384, other)
    with pytest.raises(EvidenceMalformed):
        read_point(Algorithm.ES256, point)
