"""Enrolment: every form a key may have in the settings, and a clear no to everything else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.attestation.model import VerifierOptions
from kbs.attestation.verifiers import tpm
from kbs.attestation.verifiers.tpm.anchors import read_anchors, read_options
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import ConfigInvalid

VECTORS = Path(__file__).parents[4] / "vectors"
KEYLIME = VECTORS / "tpm/keylime"


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def test_a_key_in_every_form_is_one_key() -> None:
    pem = (KEYLIME / "akpub.pem").read_text()
    public = (KEYLIME / "ak.pub").read_bytes()
    der = "".join(line for line in pem.splitlines() if not line.startswith("-----"))
    wrapped = "\n".join(pem.splitlines()[1:-1])
    for text in (pem, der, wrapped, b64(public), b64(public[2:]), f"\n{pem}"):
        assert list(read_anchors({"trusted_aks": [text]}).enrolled) == [base64.b64decode(der)]
    assert len(read_anchors({"trusted_aks": [pem, der]}).enrolled) == 1


def test_an_endorsement_key_is_refused_by_its_attributes() -> None:
    with pytest.raises(ConfigInvalid, match=r"trusted_aks\[0\]: attestation key lacks attributes: sign"):
        read_anchors({"trusted_aks": [b64((KEYLIME / "ek.pub").read_bytes())]})


@pytest.mark.parametrize("anchors", [None, {}, {"trusted_aks": []}, {"ak_roots": [], "ak_crls": []}])
def test_nobody_enrolled_is_said_at_the_start(anchors: Any) -> None:
    with pytest.raises(ConfigInvalid, match=r"no attestation key is enrolled.*attestation\.anchors\.tpm"):
        tpm.build(VerifierOptions(anchors=anchors))


ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()


@pytest.mark.parametrize(
    ("anchors", "why"),
    [
        ([], "not a JSON object"),
        ({"trusted_ak": []}, "unknown"),
        ({"trusted_aks": "MIIB"}, "not a list of texts"),
        ({"trusted_aks": [1]}, "not a list of texts"),
        ({"trusted_aks": {"a": "b"}}, "not a list of texts"),
        ({"trusted_aks": ["not base64!"]}, r"trusted_aks\[0\] is no public key"),
        ({"trusted_aks": [""]}, r"trusted_aks\[0\]"),
        ({"trusted_aks": ["ünicode"]}, r"trusted_aks\[0\]"),
        ({"trusted_aks": ["-----BEGIN ünicode"]}, r"trusted_aks\[0\]"),
        ({"trusted_aks": ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]}, r"trusted_aks\[0\]"),
        ({"trusted_aks": [b64(b"\x30\x00")]}, r"trusted_aks\[0\]"),
        (
            {"trusted_aks": [ED25519.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()]},
            "neither RSA nor on a NIST curve",
        ),
        ({"ak_roots": ["AAAA"]}, r"ak_roots\[0\] is no certificate"),
        ({"ak_roots": ["-----BEGIN CERTIFICATE-----"]}, r"ak_roots\[0\] is no certificate"),
        ({"ak_crls": ["AAAA"]}, r"ak_crls\[0\] is no revocation list|no attestation key"),
    ],
)
def test_what_cannot_be_used_is_named(anchors: Any, why: str) -> None:
    with pytest.raises(ConfigInvalid, match=why):
        read_anchors(anchors)


def test_lists_and_roots_in_pem_or_base64() -> None:
    attester = SoftwareTpm(scheme="ecdsa", certified=True)
    pem = attester.ca("root").public_bytes(Encoding.PEM).decode()
    assert read_anchors({"ak_roots": [pem + pem]}).roots == (attester.ca("root"),) * 2
    found = read_anchors(attester.anchors)
    assert len(found.crls) == 2
    with pytest.raises(ConfigInvalid, match=r"ak_crls\[0\]"):
        read_anchors({**attester.anchors, "ak_crls": [pem]})


def test_two_lists_of_one_authority_are_refused() -> None:
    """Else the one that is given last counts, whatever the other one says has been revoked."""
    attester = SoftwareTpm(scheme="ecdsa", certified=True)
    lists = [b64(attester.crl("root", [0x1001])), b64(attester.crl("root"))]
    for both in (lists, lists[::-1]):
        with pytest.raises(ConfigInvalid, match=r"ak_crls\[1\] is a second revocation list"):
            read_anchors({**attester.anchors, "ak_crls": both})
    assert read_anchors({**attester.anchors, "ak_crls": lists[:1] * 2}).crls


def test_google_clouds_authorities_load() -> None:
    root = (VECTORS / "tpm/gcp_ek_ak_ca_root.pem").read_text()
    (found,) = read_anchors({"ak_roots": [root]}).roots
    assert "EK/AK CA Root" in found.subject.rfc4514_string()


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1},
        {"allow_unchecked_revocation": "tpm"},
        {"allow_unchecked_revocation": [1]},
        {"allow_unchecked_revocation": ["tmp"]},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    assert read_options({}) is False
    assert read_options({"allow_unchecked_revocation": ["snp"]}) is False
    assert read_options({"allow_unchecked_revocation": ["snp", "tpm"]}) is True
    with pytest.raises(ConfigInvalid):
        read_options(options)


def test_the_anchors_of_the_case_files(vectors: Path) -> None:
    case = json.loads((vectors / "tpm/synthetic/ok.json").read_text())
    assert len(read_anchors(case["anchors"]).enrolled) == 1
