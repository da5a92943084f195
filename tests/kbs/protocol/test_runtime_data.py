"""Canonical runtime data and digests, bit for bit."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kbs import strict_json
from kbs.client.old_guests import GENERATIONS
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.errors import MalformedMessage
from kbs.protocol.rcar import decode_attestation
from kbs.protocol.runtime_data import (
    HashAlgorithm,
    concatenated_digest,
    device_runtime_data,
    digest,
    hash_for,
    primary_runtime_data,
)
from kbs.protocol.tee import Tee
from kbs.protocol.tee_key import KeyAlgorithm, TeeKey, parse_tee_key


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_canonical_forms_and_digests(vectors: Path) -> None:
    document = load(vectors / "kbs/runtime-data-vectors.json")
    assert len(document["cases"]) == 4
    for case in document["cases"]:
        key = parse_tee_key(case["tee_pubkey"])
        primary = primary_runtime_data(case["nonce"], key, case["additional_evidence"])
        device = device_runtime_data(case["nonce"], key)
        assert strict_json.canonical(primary).decode() == case["primary_runtime_data_canonical"]
        assert strict_json.canonical(device).decode() == case["device_runtime_data_canonical"]
        assert hash_for(Tee(case["tee"])) in case["digests"]
        for name, expected in case["digests"].items():
            assert digest(primary, HashAlgorithm(name)).hex() == expected["primary"]
            assert digest(device, HashAlgorithm(name)).hex() == expected["device"]
    for case in document["generic"]:
        assert strict_json.canonical(case["input"]).decode() == case["canonical"]
        assert digest(case["input"], HashAlgorithm.SHA384).hex() == case["sha384"]


def test_a_recorded_attestation_binds_what_its_evidence_says(vectors: Path) -> None:
    case = next(c for c in load(vectors / "kbs/runtime-data-vectors.json")["cases"] if "attest_body" in c)
    message = decode_attestation(strict_json.encode(case["attest_body"]))
    primary = primary_runtime_data(message.nonce, message.tee_key, message.additional_evidence)
    device = device_runtime_data(message.nonce, message.tee_key)
    [(tee, evidence)] = message.additional
    assert tee is Tee.SAMPLE_DEVICE
    for runtime_data, body in ((primary, message.primary_evidence), (device, evidence)):
        assert base64.b64decode(body["report_data"]) == digest(runtime_data, HashAlgorithm.SHA384)


def test_guest_vectors(vectors: Path) -> None:
    document = load(vectors / "rcar/guest-rcar-vectors.json")
    key = parse_tee_key(document["tee_pubkey"])
    expected = [
        (device_runtime_data(document["nonce"], key), document["device_report_data"]),
        *(
            (primary_runtime_data(document["nonce"], key, case["additional_evidence"]), case)
            for case in document["primary_report_data"]
        ),
    ]
    assert len(expected) == 3
    for runtime_data, case in expected:
        assert strict_json.canonical(runtime_data).decode() == case["canonical_json"]
        for algorithm in HashAlgorithm:
            assert digest(runtime_data, algorithm).hex() == case[algorithm.value]
    sample = base64.b64decode(document["sample_evidence_for_sha384_and_no_devices"]["report_data"])
    assert sample == digest(primary_runtime_data(document["nonce"], key, ""), HashAlgorithm.SHA384)


def test_canonicalisation_vectors(vectors: Path) -> None:
    cases = load(vectors / "kbs/runtime-data-canonicalisation.json")
    assert len(cases) == 5
    for case in cases:
        canonical = strict_json.canonical(case["structured"])
        assert canonical.decode() == case["canonical_utf8"]
        for algorithm in HashAlgorithm:
            assert digest(case["structured"], algorithm).hex() == case["digest_hex"][algorithm.value]
            assert hashlib.new(algorithm.value, canonical).hexdigest() == case["digest_hex"][algorithm.value]


@pytest.mark.parametrize("tee", Tee)
def test_se_alone_takes_sha512(tee: Tee) -> None:
    assert hash_for(tee) == ("sha512" if tee == "se" else "sha384")


def test_members_the_guest_added_to_its_key_are_not_hashed(vectors: Path) -> None:
    case = load(vectors / "kbs/runtime-data-vectors.json")["cases"][0]
    key = parse_tee_key({**case["tee_pubkey"], "kid": "x", "use": "enc"})
    assert (
        strict_json.canonical(device_runtime_data(case["nonce"], key)).decode()
        == (case["device_runtime_data_canonical"])
    )


def test_what_guests_before_0_4_0_hash(vectors: Path) -> None:
    document = load(vectors / "rcar/guest-rcar-vectors.json")
    cases = document["legacy_report_data"]
    assert [(case["release"], case["version"]) for case in cases] == [
        ("<=0.8", "0.1.0"), ("0.9", "0.1.0"), ("0.10-0.11", "0.1.1"), ("0.12-0.13", "0.2.0"),
    ]  # fmt: skip
    for case in cases:
        key = key_as_sent(case["tee_pubkey"])
        if case["release"] == "<=0.8":
            assert concatenated_digest(document["nonce"], key).hex() == case["sha384"]
            continue
        bound = device_runtime_data(document["nonce"], key)
        assert strict_json.canonical(bound).decode() == case["hash_input"]
        for algorithm in HashAlgorithm:
            if algorithm.value in case:
                assert digest(bound, algorithm).hex() == case[algorithm.value]


def test_the_software_guests_hash_the_same(vectors: Path) -> None:
    document = load(vectors / "rcar/guest-rcar-vectors.json")
    for case, name in zip(document["legacy_report_data"], GENERATIONS, strict=True):
        extra = "" if case["version"] == "0.1.0" else {"selected-hash-algorithm": "SHA384"}
        made = GENERATIONS[name].report_data(document["nonce"], case["tee_pubkey"], extra)
        assert (GENERATIONS[name].version, made.hex()) == (case["version"], case["sha384"])


def key_as_sent(jwk: dict[str, str]) -> TeeKey:
    """The RSA keys of these vectors are none (their modulus is even), and so no parser takes them."""
    if jwk["kty"] == "EC":
        return parse_tee_key(jwk)
    with pytest.raises(MalformedMessage, match="even"):
        parse_tee_key(jwk)
    return TeeKey(dict(sorted(jwk.items())), KeyAlgorithm.RSA1_5, TeeKeyPair.generate(KeyKind.RSA1_5).public.public_key)
