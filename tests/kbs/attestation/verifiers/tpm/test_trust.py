"""Trust in attestation keys: enrolment, certificates, revocation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import tpm
from kbs.attestation.verifiers.tpm import trust as tpm_trust
from kbs.attestation.x509 import load_certificate
from kbs.client.attesters.test_root import TestRoot
from kbs.client.attesters.tpm import SoftwareTpm, _b64, _usage, spki
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    EndorsementExpired,
    EndorsementRevoked,
    EvidenceMalformed,
    EvidenceRejected,
    SignatureInvalid,
    SignerNotTrusted,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
REPORT_DATA = bytes(range(48))


def certified(**arguments: Any) -> SoftwareTpm:
    return SoftwareTpm(scheme="ecdsa", certified=True, **arguments)


def verify(
    attester: SoftwareTpm,
    anchors: dict[str, Any] | None = None,
    at: datetime = AT,
    waived: bool = False,
    **changes: Any,
) -> Any:
    options = {"allow_unchecked_revocation": ["tpm"]} if waived else {}
    verifier = tpm.build(VerifierOptions(options, attester.anchors if anchors is None else anchors))
    body = attester.evidence(REPORT_DATA, **changes)
    (found,) = verifier.verify(Evidence(Tee.TPM, body), Endorsements(), Binding(REPORT_DATA), at)
    return found.claims


def test_an_enrolled_key() -> None:
    claims = verify(SoftwareTpm())
    assert claims["ak_enrolled"] is True
    assert "ak_certificate" not in claims
    assert claims["revocation"] == "not_applicable"


def test_enrolment_comes_before_certificates() -> None:
    """Whatever certificates an enrolled key brings along are not looked at, and not claimed."""
    attester = certified()
    anchors = {"trusted_aks": [_b64(spki(attester.ak.public_key()))]}
    assert "ak_certificate" not in verify(attester, anchors, chain=[certified(root=TestRoot(label="x")).certificate()])


def test_a_stranger_is_refused() -> None:
    stranger = SoftwareTpm(TestRoot(label="stranger"))
    with pytest.raises(SignerNotTrusted, match="not enrolled"):
        verify(stranger, SoftwareTpm().anchors)
    with pytest.raises(SignerNotTrusted):
        verify(stranger, certified().anchors)


def test_a_strangers_quote_under_an_enrolled_name_is_refused() -> None:
    stranger, enrolled = SoftwareTpm(TestRoot(label="stranger")), SoftwareTpm()
    with pytest.raises(SignatureInvalid):
        verify(stranger, enrolled.anchors, ak=spki(enrolled.ak.public_key()))


def test_a_certified_key() -> None:
    attester = certified()
    claims = verify(attester)
    assert claims["ak_enrolled"] is False
    assert claims["revocation"] == "checked"
    assert claims["ak_certificate"]["common_name"] == "tpm-0001"
    assert claims["ak_certificate"]["serial_number"] == "2001"
    assert verify(SoftwareTpm(certified=True))["signature"] == "RSASSA-SHA256"


def test_microsofts_purpose_and_none_are_fine() -> None:
    attester = certified()
    for purposes in (("1.3.6.1.4.1.311.21.36",), ("2.23.133.8.1", "2.23.133.8.3"), None):
        assert verify(attester, chain=[attester.certificate(purposes=purposes), *attester.chain()[1:]])


@pytest.mark.parametrize(
    "changes",
    [
        {"usage": _usage(key_encipherment=True)},
        {"usage": _usage(digital_signature=True, key_encipherment=True)},
        {"usage": _usage(digital_signature=True, key_cert_sign=True)},
        {"without_usage": True},
        {"is_ca": True},
        {"purposes": ("2.23.133.8.1",)},
        {"purposes": ("1.3.6.1.5.5.7.3.1",)},
        {"key": ec.derive_private_key(9, ec.SECP256R1()).public_key()},
    ],
    ids=[
        "endorsement key",
        "decrypts too",
        "authority's usage",
        "no usage",
        "authority",
        "EK purpose",
        "web",
        "other key",
    ],
)
def test_certificates_of_something_else(changes: dict[str, Any]) -> None:
    attester = certified()
    with pytest.raises(ChainInvalid):
        verify(attester, chain=[attester.certificate(**changes), *attester.chain()[1:]])


def chains(attester: SoftwareTpm) -> dict[str, Sequence[bytes]]:
    leaf, intermediate = attester.chain()
    foreign = certified(root=TestRoot(label="another vendor"))
    root = attester.ca("root").public_bytes(Encoding.DER)
    own = foreign.root.rsa("tpm-ca-intermediate")
    return {
        "no intermediate": [leaf],
        "another vendor's": [attester.certificate(issuer_key=own), foreign.chain()[1]],
        "another's signature": [attester.certificate(issuer_key=own), intermediate],
        "root as intermediate": [leaf, root],
        "a root of its own": [
            attester.certificate(issuer_key=own), foreign.chain()[1], foreign.ca("root").public_bytes(Encoding.DER)
        ],
    }  # fmt: skip


@pytest.mark.parametrize("which", chains(certified()))
def test_chains_that_lead_nowhere(which: str) -> None:
    attester = certified()
    with pytest.raises(SignerNotTrusted, match="no trusted root"):
        verify(attester, chain=chains(attester)[which])


@pytest.mark.parametrize("part", ["leaf", "all"])
def test_validity_of_certificates(part: str) -> None:
    window = (AT - DAY, AT + DAY)
    attester = certified(root=TestRoot(), validity=window) if part == "all" else certified()
    anchors = {"ak_roots": attester.anchors["ak_roots"]}
    chain = [attester.certificate(validity=window), *attester.chain()[1:]]
    for moment in window:
        assert verify(attester, anchors, moment, chain=chain)
    for moment in (window[0] - timedelta(seconds=1), window[1] + timedelta(seconds=1)):
        with pytest.raises(EndorsementExpired):
            verify(attester, anchors, moment, chain=chain)


def test_zeros_behind_a_certificate_fill_its_index() -> None:
    attester = certified()
    leaf, intermediate = attester.chain()
    for size in (1, 700):
        assert verify(attester, chain=[leaf + bytes(size), intermediate]) == verify(attester)
    for tail in (b"\1", b"\0\1", leaf):
        with pytest.raises(EvidenceMalformed):
            verify(attester, chain=[leaf + tail, intermediate])
    for junk in (b"AAA", b"\x30\x82\xff\xff", b"\x30\x82"):
        with pytest.raises(EvidenceMalformed):
            verify(attester, chain=[leaf, junk])


def with_lists(attester: SoftwareTpm, *lists: bytes) -> dict[str, Any]:
    return {"ak_roots": attester.anchors["ak_roots"], "ak_crls": [_b64(each) for each in lists]}


def test_revoked_keys_and_authorities() -> None:
    attester = certified()
    for lists in (
        (attester.crl("intermediate", [0x2001]), attester.crl("root")),
        (attester.crl("intermediate", [0x2001]),),
        (attester.crl("root", [0x1001]),),
    ):
        with pytest.raises(EndorsementRevoked):
            verify(attester, with_lists(attester, *lists))
    others = attester.crl("intermediate", [0x2002])
    assert verify(attester, with_lists(attester, others, attester.crl("root")))["revocation"] == "checked"


def test_stale_lists_are_refused() -> None:
    attester = certified()
    window = (AT - DAY, AT + DAY)
    anchors = with_lists(attester, attester.crl("intermediate", validity=window), attester.crl("root"))
    assert verify(attester, anchors, window[1])
    for moment in (window[0] - timedelta(seconds=1), window[1] + timedelta(seconds=1)):
        with pytest.raises(EndorsementExpired):
            verify(attester, anchors, moment)


def test_a_list_that_another_key_signed_is_refused() -> None:
    attester, foreign = certified(), certified(root=TestRoot(label="another vendor"))
    with pytest.raises(ChainInvalid):
        verify(attester, with_lists(attester, foreign.crl("intermediate")))


def test_revocation_that_nobody_could_check_is_a_claim() -> None:
    attester = certified()
    for lists in ((), (attester.crl("root"),), (attester.crl("intermediate"),)):
        claims = verify(attester, with_lists(attester, *lists))
        assert claims["revocation"] == "not_checked"
        assert "revocation_waived" not in claims
    assert verify(attester, with_lists(attester), waived=True)["revocation_waived"] is True
    assert verify(attester, waived=True)["revocation"] == "checked"


def test_remembered_chains_are_compared_with_the_time() -> None:
    """One verifier, the same evidence, two moments."""
    window = (AT - DAY, AT + DAY)
    attester = certified(root=TestRoot(), validity=window)
    verifier = tpm.build(VerifierOptions({}, attester.anchors))
    evidence = Evidence(Tee.TPM, attester.evidence(REPORT_DATA))
    for _ in range(2):
        assert verifier.verify(evidence, Endorsements(), Binding(REPORT_DATA), AT)
        with pytest.raises(EndorsementExpired):
            verifier.verify(evidence, Endorsements(), Binding(REPORT_DATA), AT + 2 * DAY)


def test_chains_of_others_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates and quotes of the past are no secret; with what may stand beside them nobody drives out others."""
    monkeypatch.setattr(tpm_trust, "_MAX_CHAINS", 2)
    loaded: list[bytes] = []

    def load(data: bytes) -> x509.Certificate:
        loaded.append(data)
        return load_certificate(data)

    monkeypatch.setattr(tpm_trust, "load_certificate", load)
    attester = certified()
    verifier = tpm.build(VerifierOptions({}, attester.anchors))
    evidence = Evidence(Tee.TPM, attester.evidence(REPORT_DATA))
    assert verifier.verify(evidence, Endorsements(), Binding(REPORT_DATA), AT)
    leaf, *above = attester.chain()
    for number in range(1, 4):
        replayed = Evidence(Tee.TPM, attester.evidence(REPORT_DATA, chain=[leaf, *above, *above[:1] * number]))
        with pytest.raises(BindingMismatch):
            verifier.verify(replayed, Endorsements(), Binding(bytes(48)), AT)
    loaded.clear()
    padded = Evidence(Tee.TPM, attester.evidence(REPORT_DATA, chain=[leaf + bytes(9), *above]))
    for each in (evidence, padded):
        assert verifier.verify(each, Endorsements(), Binding(REPORT_DATA), AT)
    assert not loaded


def test_certificates_in_which_a_bit_is_changed() -> None:
    """Refused for a cause of its own, whichever octet it is."""
    attester = certified()
    verifier = tpm.build(VerifierOptions({}, attester.anchors))
    body = attester.evidence(REPORT_DATA)
    leaf = attester.chain()[0]
    for place in range(len(leaf)):
        changed = copy.deepcopy(body)
        changed["ak_certificate"] = _b64(leaf[:place] + bytes((leaf[place] ^ 1 << place % 8,)) + leaf[place + 1 :])
        with pytest.raises(EvidenceRejected) as refused:
            verifier.verify(Evidence(Tee.TPM, changed), Endorsements(), Binding(REPORT_DATA), AT)
        assert type(refused.value) is not EvidenceRejected


def test_the_published_intermediate_of_google_cloud_signs_keys_only(vectors: Any) -> None:
    """It leads to the published root, and is no attestation key's certificate itself."""
    root = (vectors / "tpm/gcp_ek_ak_ca_root.pem").read_text()
    intermediate = x509.load_pem_x509_certificate((vectors / "tpm/gcp_ek_ak_ca_intermediate_v3.pem").read_bytes())
    key: Any = intermediate.public_key()
    chain = [intermediate.public_bytes(Encoding.DER)]
    with pytest.raises(ChainInvalid, match="signs and nothing else"):
        verify(SoftwareTpm(), {"ak_roots": [root]}, ak=spki(key), chain=chain)
