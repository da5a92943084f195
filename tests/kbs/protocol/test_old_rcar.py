"""Attestations before protocol 0.4.0: what decodes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.errors import MalformedMessage, PayloadTooLarge, UnsupportedVersion
from kbs.protocol.old_rcar import OldAttestation, decode_0_1_0, decode_0_1_1, decode_0_2_0
from kbs.protocol.tee_key import TeeKey

RSA = TeeKeyPair.generate(KeyKind.RSA1_5).public
OAEP = TeeKeyPair.generate(KeyKind.RSA_OAEP_256).public
EC = TeeKeyPair.generate().public
EVIDENCE = {"svn": "1", "report_data": ""}
DECODERS = {"0.1.0": decode_0_1_0, "0.1.1": decode_0_1_1, "0.2.0": decode_0_2_0}
Decoder = Callable[[bytes], OldAttestation]


def attestation(version: str, **changes: Any) -> bytes:
    evidence: Any = json.dumps(EVIDENCE) if version == "0.1.0" else EVIDENCE
    return json.dumps({"tee-pubkey": dict(key_of(version).members), "tee-evidence": evidence, **changes}).encode()


def key_of(version: str) -> TeeKey:
    return EC if version == "0.2.0" else RSA


@pytest.mark.parametrize("version", DECODERS)
def test_what_each_version_sends(version: str) -> None:
    found = DECODERS[version](attestation(version, more=1))
    assert (found.tee_key, found.primary_evidence) == (key_of(version), EVIDENCE)
    assert (found.nonce, found.init_data, found.additional) == (None, None, ())
    assert "report_data" not in repr(found)


@pytest.mark.parametrize("evidence", [None, "text", "", 1, True, [], {}, [{}]], ids=json.dumps)
def test_evidence_is_opaque_from_0_1_1_on(evidence: Any) -> None:
    for version in ("0.1.1", "0.2.0"):
        body = attestation(version, **{"tee-evidence": evidence})
        assert DECODERS[version](body).primary_evidence == evidence


@pytest.mark.parametrize(
    "evidence", [None, EVIDENCE, [], 1, "", "{", "{}{}", '{"a":1,"a":2}', "NaN", "\ufeff{}"], ids=repr
)
def test_evidence_of_0_1_0_is_json_in_a_string(evidence: Any) -> None:
    with pytest.raises(MalformedMessage):
        decode_0_1_0(attestation("0.1.0", **{"tee-evidence": evidence}))


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1"])
@pytest.mark.parametrize("key", [EC, OAEP], ids=["EC", "RSA-OAEP-256"])
def test_guests_of_0_1_have_keys_for_rsa1_5(version: str, key: Any) -> None:
    with pytest.raises(MalformedMessage, match="RSA1_5 only"):
        DECODERS[version](attestation(version, **{"tee-pubkey": dict(key.members)}))


def test_guests_of_0_2_0_have_the_keys_of_today() -> None:
    for key in (EC, OAEP):
        assert decode_0_2_0(attestation("0.2.0", **{"tee-pubkey": dict(key.members)})).tee_key == key
    with pytest.raises(MalformedMessage, match="no keys with alg RSA1_5"):
        decode_0_2_0(attestation("0.2.0", **{"tee-pubkey": dict(RSA.members)}))


@pytest.mark.parametrize("version", DECODERS)
@pytest.mark.parametrize("data", [None, {}, {"nonce": "x"}, 1], ids=json.dumps)
def test_a_body_that_says_two_things_is_refused(version: str, data: Any) -> None:
    with pytest.raises(UnsupportedVersion, match=r"of protocol 0\.4\.0"):
        DECODERS[version](attestation(version, **{"runtime-data": data}))


@pytest.mark.parametrize("version", DECODERS)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"x"', b"{}", b"{", b'{"tee-evidence":"{}"}', b'{"tee-pubkey":{},"tee-evidence":"{}"}',
        b'{"tee-pubkey":null,"tee-evidence":"{}"}', b'{"tee-evidence":"{}","tee-evidence":"{}"}',
        b"\xef\xbb\xbf" + attestation("0.1.0"), attestation("0.1.0")[:-1], attestation("0.1.0") + b"{}",
    ],
    ids=range(13),
)  # fmt: skip
def test_malformed_attestations(version: str, body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        DECODERS[version](body)


@pytest.mark.parametrize("version", DECODERS)
def test_a_key_without_evidence_is_no_attestation(version: str) -> None:
    with pytest.raises(MalformedMessage, match="tee-evidence is missing"):
        DECODERS[version](json.dumps({"tee-pubkey": dict(key_of(version).members)}).encode())


@pytest.mark.parametrize("version", DECODERS)
def test_keys_are_as_strict_as_today(version: str) -> None:
    name = "x" if version == "0.2.0" else "n"
    for text in ("", "AQAB=", "AQ", "\u0000", None, 3):
        with pytest.raises(MalformedMessage):
            DECODERS[version](attestation(version, **{"tee-pubkey": {**key_of(version).members, name: text}}))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nothing_else_is_raised(body: bytes) -> None:
    for decoder in DECODERS.values():
        with pytest.raises(MalformedMessage):
            decoder(body)


@pytest.mark.parametrize("version", DECODERS)
def test_the_limits_are_those_of_every_body(version: str) -> None:
    with pytest.raises(PayloadTooLarge):
        DECODERS[version](b" " * (2 << 20) + attestation(version))
    deep = "[" * 65 + "]" * 65
    with pytest.raises(MalformedMessage):
        DECODERS[version](attestation(version, **{"tee-evidence": deep if version == "0.1.0" else json.loads(deep)}))
