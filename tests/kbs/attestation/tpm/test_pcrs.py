"""PCR values against a quote: the selection counts, and not only the digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from kbs.attestation.tpm.pcrs import check_init_data, check_pcrs, extend
from kbs.attestation.tpm.quote import Quote, parse_quote
from kbs.attestation.tpm.wire import HashAlgorithm
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import EvidenceMalformed, InitDataMismatch, SignatureInvalid

SHA256 = HashAlgorithm.SHA256
TPM = SoftwareTpm(scheme="ecdsa")
VALUES = TPM.bank.values


def quoted(values: Sequence[bytes] = VALUES, **changes: object) -> Quote:
    return parse_quote(TPM.quote(bytes(32), values, **changes)[0])  # type: ignore[arg-type]


def test_values_by_number() -> None:
    assert check_pcrs(quoted(), VALUES, SHA256) == dict(enumerate(VALUES))
    assert check_pcrs(quoted(signing_hash="sha384"), VALUES, HashAlgorithm.SHA384)[7] == VALUES[7]


def test_values_of_the_field(vectors: Path) -> None:
    quote = parse_quote((vectors / "tpm/keylime/quote.out").read_bytes())
    dump = (vectors / "tpm/keylime/quotepcr.out").read_bytes()
    values = [dump[place + 2 : place + 34] for place in range(len(dump) - 34) if dump[place : place + 2] == b"\x20\0"]
    assert set(check_pcrs(quote, values[:3], SHA256, pcrs=(15, 16, 22))) == {15, 16, 22}


@pytest.mark.parametrize(
    "selections",
    [
        [("sha1", range(24))],
        [("sha384", range(24))],
        [("sha256", range(23))],
        [("sha256", range(24)), ("sha1", range(24))],
        [("sha256", range(12)), ("sha256", range(12, 24))],
        [("sha256", [])],
        [],
    ],
)
def test_another_selection_is_refused(selections: list[tuple[str, Sequence[int]]]) -> None:
    """The digest over the listed values is right in all of them."""
    with pytest.raises(EvidenceMalformed, match="another bank or other PCRs"):
        check_pcrs(quoted(selections=selections), VALUES, SHA256)


def test_a_resettable_pcr_cannot_stand_for_another() -> None:
    """The guest quotes {0-7, 16} and hopes that position 8 is taken for PCR 8."""
    values = [*VALUES[:8], extend(bytes(32), hashlib.sha256(b"init data").digest())]
    quote = quoted(values, selections=[("sha256", [*range(8), 16])])
    with pytest.raises(EvidenceMalformed):
        check_pcrs(quote, values, SHA256)
    with pytest.raises(EvidenceMalformed):
        check_pcrs(quote, values, SHA256, pcrs=tuple(range(9)))


@pytest.mark.parametrize(
    "listed",
    [
        VALUES[:23],
        [*VALUES, b""],
        [VALUES[0] + VALUES[1][:1], VALUES[1][1:], *VALUES[2:]],  # cut elsewhere, the same octets in all
        [b"".join(VALUES), *[b""] * 23],
    ],
)
def test_values_of_another_size_are_refused(listed: list[bytes]) -> None:
    with pytest.raises(EvidenceMalformed, match="another length"):
        check_pcrs(quoted(), listed, SHA256)


def test_other_values_are_refused() -> None:
    swapped = [VALUES[1], VALUES[0], *VALUES[2:]]
    changed = [*VALUES[:23], b"\1" + bytes(31)]
    for listed in (swapped, changed):
        with pytest.raises(SignatureInvalid):
            check_pcrs(quoted(), listed, SHA256)
    with pytest.raises(SignatureInvalid):
        check_pcrs(quoted(), VALUES, HashAlgorithm.SHA512)


def test_init_data_is_extended_once_from_zero() -> None:
    digest = hashlib.sha256(b"init data").digest()
    once = hashlib.sha256(bytes(32) + digest).digest()
    check_init_data(once, digest)
    assert extend(bytes(32), digest) == once
    for value in (bytes(32), digest, extend(once, digest), b""):
        with pytest.raises(InitDataMismatch):
            check_init_data(value, digest)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 48, 64])
def test_init_data_of_another_size_is_refused(size: int) -> None:
    digest = bytes(size)
    with pytest.raises(InitDataMismatch):
        check_init_data(hashlib.sha256(bytes(32) + digest).digest(), digest)
