"""A document that a real enclave made, under AWS's real root."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import nitro
from kbs.client.attesters.nitro import SoftwareNitro
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    EndorsementExpired,
    EvidenceMalformed,
    EvidenceRejected,
    InitDataMismatch,
)
from kbs.protocol.tee import Tee

DOCUMENT = (Path(__file__).parents[4] / "vectors" / "nitro" / "enclave.cbor").read_bytes()
AT = datetime(2025, 12, 25, 14, tzinfo=UTC)
LEAF = (datetime(2025, 12, 25, 13, 15, 34, tzinfo=UTC), datetime(2025, 12, 25, 16, 15, 37, tzinfo=UTC))
ALL_DAY: dict[str, Any] = {"nitro_max_age_seconds": 10_800}


def verify(
    body: Any = DOCUMENT, binding: Binding | None = None, at: datetime = AT, anchors: Any = None, **options: Any
) -> dict[str, Any]:
    verifier = nitro.build(VerifierOptions(options, anchors))
    (found,) = verifier.verify(Evidence(Tee.NITRO, body), Endorsements(), binding or Binding(None), at)
    return dict(found.claims)


def test_the_document() -> None:
    claims = verify()
    assert claims == verify({"document": base64.b64encode(DOCUMENT).decode()})
    assert claims["document"] == "enclave"
    assert claims["module_id"] == "i-0827e799ec9232d44-enc019b55a68bd2ed4b"
    assert claims["timestamp"] == "2025-12-25T13:15:37.578Z"
    assert claims["pcr0"].startswith("5cb702954321826d")
    assert claims["pcr4"].startswith("7b3574ad9b7e88ec")
    assert [claims[f"pcr{index}"] for index in (3, *range(5, 16))] == ["00" * 48] * 12
    assert "pcr16" not in claims
    assert claims["debug"] is False
    assert (claims["binding"], claims["revocation"]) == ("not_checked", "not_applicable")
    assert claims["init_data"] == "00" * 64
    assert "report_data" not in claims
    assert "public_key" not in claims


def test_it_binds_no_challenge() -> None:
    """It has no nonce, and user data of zeros, which is no digest."""
    for other in (bytes(64), b"", b"x" * 48):
        with pytest.raises(BindingMismatch):
            verify(binding=Binding(other))
        with pytest.raises(InitDataMismatch):
            verify(binding=Binding(None, other))


def test_validity_of_its_certificate() -> None:
    second = timedelta(seconds=1)
    for moment in LEAF:
        assert verify(at=moment, **ALL_DAY)
    for moment in (LEAF[0] - second, LEAF[1] + second, AT + timedelta(days=30), AT.replace(year=2049)):
        with pytest.raises(EndorsementExpired):
            verify(at=moment, **ALL_DAY)


def test_age() -> None:
    made = datetime(2025, 12, 25, 13, 15, 37, 578_000, tzinfo=UTC)
    assert verify(at=made + timedelta(hours=1))
    with pytest.raises(EndorsementExpired):
        verify(at=made + timedelta(hours=1, milliseconds=1))
    assert verify(at=made + timedelta(seconds=5), nitro_max_age_seconds=5)
    with pytest.raises(EndorsementExpired):
        verify(at=made + timedelta(seconds=5, milliseconds=1), nitro_max_age_seconds=5)


def test_another_root() -> None:
    with pytest.raises(ChainInvalid):
        verify(anchors=SoftwareNitro().anchors)


def test_bytes_behind_it() -> None:
    with pytest.raises(EvidenceMalformed):
        verify(DOCUMENT + bytes(151))
    assert verify(DOCUMENT + bytes(151), allow_trailing_bytes=True) == verify()
    with pytest.raises(EvidenceMalformed):
        verify(bytes(4) + DOCUMENT, allow_trailing_bytes=True)
    with pytest.raises(EvidenceMalformed):  # of raw documents only
        verify({"document": base64.b64encode(DOCUMENT + b"\0").decode()}, allow_trailing_bytes=True)


def test_inside_a_file_of_dstack() -> None:
    """As the document's publisher keeps it: two octets of kind, a compact length, the document, things of its own."""
    length = (len(DOCUMENT) << 2 | 1).to_bytes(2, "little")
    assert verify(b"\0\2" + length + DOCUMENT + bytes(151)) == verify()
    for bad in (
        b"\0\2",
        b"\0\2" + length + DOCUMENT[:-1],
        b"\0\3" + length + DOCUMENT,
        b"\0\2" + (len(DOCUMENT) << 2 | 2).to_bytes(2, "little") + DOCUMENT,
        b"\0\2" + ((len(DOCUMENT) - 1) << 2 | 1).to_bytes(2, "little") + DOCUMENT,
        b"\0\2\1\0",
    ):
        with pytest.raises(EvidenceMalformed):
            verify(bad)


def test_every_octet_counts() -> None:
    verifier = nitro.build(VerifierOptions())
    for offset in range(0, len(DOCUMENT), 3):
        mutated = bytearray(DOCUMENT)
        mutated[offset] ^= 1 << offset % 8
        with pytest.raises(EvidenceRejected) as refusal:
            verifier.verify(Evidence(Tee.NITRO, bytes(mutated)), Endorsements(), Binding(None), AT)
        assert refusal.type is not EvidenceRejected
