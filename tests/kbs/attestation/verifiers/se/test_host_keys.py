"""Host-key documents: IBM's own test certificates, and a make-believe IBM that gets things wrong."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.verifiers.se.arcb import public_host_key_hash
from kbs.attestation.verifiers.se.host_keys import HostKeyDocuments, UsableHostKeys
from kbs.attestation.verifiers.se.names import is_signing_service
from kbs.attestation.x509 import load_certificate
from kbs.client.attesters.se import SoftwareSe, Validities, host_subject, service_subject
from kbs.client.attesters.test_root import TestRoot

CERTIFICATES = Path(__file__).parents[4] / "vectors" / "se" / "cert"
AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WINDOW = (AT - timedelta(days=1), AT + timedelta(days=1))
PAST = (AT - timedelta(days=9), AT - SECOND)
FUTURE = (AT + SECOND, AT + timedelta(days=9))
LISTS = ("root_ca.crl", "inter_ca.crl", "ibm.crl")


def published(
    document: str,
    *,
    certificates: Iterable[str] = ("ibm.crt", "inter_ca.crt"),
    lists: Iterable[str] = LISTS,
    root: str = "root_ca.crt",
    at: datetime = AT,
    **more: Any,
) -> UsableHostKeys:
    return HostKeyDocuments(
        [(document, load_certificate((CERTIFICATES / document).read_bytes()))],
        roots=[load_certificate((CERTIFICATES / root).read_bytes())],
        certificates=[load_certificate((CERTIFICATES / name).read_bytes()) for name in certificates],
        lists=[(CERTIFICATES / name).read_bytes() for name in lists],
        **more,
    ).usable(at)


def made(machine: SoftwareSe, *, at: datetime = AT, **changes: Any) -> UsableHostKeys:
    """What is usable of a machine's own files, with parts of them replaced."""
    lists = [data for name, data in machine.files().items() if name.startswith("crls/")]
    given: dict[str, Any] = {
        "documents": [("HKD", load_certificate(changes.pop("document", machine.host_key_document())))],
        "roots": [load_certificate(machine.certificate("root"))],
        "certificates": [load_certificate(machine.certificate(role)) for role in ("service", "intermediate")],
        "lists": lists,
    }
    given |= changes
    return HostKeyDocuments(given.pop("documents"), **given).usable(at)


def refusal(found: UsableHostKeys) -> str:
    """Why the only document is not used."""
    assert found.keys == ()
    (reason,) = found.refused
    return reason


def test_ibms_test_document_is_used() -> None:
    found = published("host.crt")
    (key,) = found.keys
    certificate = load_certificate((CERTIFICATES / "host.crt").read_bytes())
    public_key = certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert key.hash == public_host_key_hash(public_key)
    assert (found.refused, found.is_revocation_checked) == ((), True)


@pytest.mark.parametrize(
    ("document", "changes", "why"),
    [
        ("host_rev.crt", {}, "has revoked"),
        ("host_crt_expired.crt", {}, "outside its validity"),
        ("host_invalid_signing_key.crt", {}, "no certificate of IBM's host-key signing service"),
        ("host.crt", {"certificates": ["ibm_rev.crt", "inter_ca.crt"]}, "has revoked"),
        ("host.crt", {"certificates": ["ibm.crt"]}, "does not lead to a pinned root"),
        ("host.crt", {"certificates": ["inter_ca.crt"]}, "no certificate of IBM's host-key signing service"),
        ("host.crt", {"certificates": ["ibm.crt", "inter_ca.crt"], "root": "host_rev.crt"}, "pinned root"),
        ("host.crt", {"lists": ["root_ca.crl", "inter_ca.crl"]}, "no revocation list of `IBM Z Host Key Signing Serv"),
        ("host.crt", {"lists": ["root_ca.crl", "ibm.crl"]}, "no revocation list of"),
        ("host.crt", {"lists": ["inter_ca.crl", "ibm.crl"]}, "no revocation list of"),
        ("host.crt", {"lists": ["root_ca.crl", "inter_ca.crl", "ibm_wrong_issuer.crl"]}, "no revocation list of"),
        ("host.crt", {"lists": ["root_ca.crl", "inter_ca.crl", "ibm_outdated_early.crl"]}, "revocation list of"),
        ("inter_ca.crt", {}, "CA"),
        ("ibm.crt", {}, "key"),
    ],
)
def test_what_is_wrong_with_ibms_other_test_documents(document: str, changes: dict[str, Any], why: str) -> None:
    assert why in refusal(published(document, **changes))


def test_a_revoked_edition_of_the_service_beside_a_good_one_of_the_same_key() -> None:
    for certificates in (["ibm_rev.crt", "ibm.crt", "inter_ca.crt"], ["ibm.crt", "ibm_rev.crt", "inter_ca.crt"]):
        assert published("host.crt", certificates=certificates).keys
        assert "has revoked" in refusal(published("host_rev.crt", certificates=certificates))


def test_a_stale_list_beside_a_current_one() -> None:
    """The current one serves; what the stale one names stays revoked."""
    assert published("host.crt", lists=(*LISTS, "ibm_outdated_early.crl")).keys
    assert "has revoked" in refusal(published("host_rev.crt", lists=(*LISTS, "ibm_outdated_early.crl")))


def test_missing_lists_when_that_is_allowed() -> None:
    found = published("host.crt", lists=(), allow_unchecked_revocation=True)
    assert found.keys
    assert not found.is_revocation_checked
    partly = published("host.crt", lists=LISTS[1:], allow_unchecked_revocation=True)
    assert partly.keys
    assert not partly.is_revocation_checked
    assert published("host.crt", allow_unchecked_revocation=True).is_revocation_checked


def test_lists_at_hand_count_whatever_is_allowed() -> None:
    assert "has revoked" in refusal(published("host_rev.crt", lists=["ibm.crl"], allow_unchecked_revocation=True))
    early = published("host.crt", lists=["ibm_outdated_early.crl"], allow_unchecked_revocation=True)
    assert "outside its validity" in refusal(early)


def test_make_believe_ibm_with_the_names_of_real_lists() -> None:
    found = made(SoftwareSe())
    assert found.keys
    assert found.is_revocation_checked


@pytest.mark.parametrize("part", ["root", "intermediate", "service", "host_key", "lists"])
def test_one_second_past_each_validity(part: str) -> None:
    machine = SoftwareSe(validities=Validities(**{part: WINDOW}))
    for moment in WINDOW:
        assert made(machine, at=moment).keys
    for moment in (WINDOW[0] - SECOND, WINDOW[1] + SECOND):
        assert "outside its validity" in refusal(made(machine, at=moment))


@pytest.mark.parametrize("role", ["host", "service", "intermediate"])
def test_revoked_at_each_level(role: str) -> None:
    assert "has revoked" in refusal(made(SoftwareSe(revoked=[role])))


@pytest.mark.parametrize("role", ["root", "intermediate", "service"])
def test_no_list_of_each_level(role: str) -> None:
    assert "no revocation list" in refusal(made(SoftwareSe(without_lists=[role])))


@pytest.mark.parametrize("validity", [PAST, FUTURE], ids=["stale", "not yet"])
@pytest.mark.parametrize("role", ["root", "intermediate", "service"])
def test_a_list_that_is_not_current_at_each_level(role: str, validity: tuple[datetime, datetime]) -> None:
    machine = SoftwareSe(without_lists=[role])
    others = [data for name, data in machine.files().items() if name.startswith("crls/")]
    lists = [*others, machine.revocation_list(role, validity=validity)]
    assert "outside its validity" in refusal(made(machine, lists=lists))


@pytest.mark.parametrize("role", ["root", "intermediate", "service"])
def test_a_list_that_somebody_else_signed(role: str) -> None:
    machine = SoftwareSe(without_lists=[role])
    others = [data for name, data in machine.files().items() if name.startswith("crls/")]
    forged = machine.revocation_list(role, signer=TestRoot(label="other").rsa("forger"))
    assert "no revocation list" in refusal(made(machine, lists=[*others, forged]))


def test_a_document_that_somebody_else_signed() -> None:
    machine = SoftwareSe()
    forged = machine.host_key_document(signer=TestRoot(label="other").rsa("forger"))
    assert "no certificate of IBM's" in refusal(made(machine, document=forged))


def test_a_document_that_the_ca_signed_itself() -> None:
    """Another customer of DigiCert's CA is not IBM, and the CA's own signature is not the service's."""
    machine = SoftwareSe()
    root = TestRoot()
    forged = machine.host_key_document(signer=root.rsa("se-intermediate"), issuer=service_subject())
    assert "no certificate of IBM's" in refusal(made(machine, document=forged))


@pytest.mark.parametrize(
    "name",
    [
        service_subject(unit="Key Signing Service Invalid"),
        service_subject(locality="Hannover"),
        host_subject(),
        x509.Name([*service_subject(), x509.NameAttribute(x509.NameOID.COMMON_NAME, "more")]),
        x509.Name([*service_subject(), x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, "1")]),
        x509.Name(list(service_subject())[1:]),
        x509.Name([]),
    ],
)
def test_another_customer_of_the_same_ca_is_not_the_signing_service(name: x509.Name) -> None:
    assert not is_signing_service(name)
    assert "no certificate of IBM's" in refusal(made(SoftwareSe(service_name=name)))


def test_the_signing_service_in_either_place_and_any_order() -> None:
    for subject in (
        service_subject(),
        service_subject(locality="Armonk"),
        x509.Name(reversed(list(service_subject()))),
    ):
        assert is_signing_service(subject)
        assert made(SoftwareSe(service_name=subject)).keys


def test_a_document_that_names_another_issuer() -> None:
    machine = SoftwareSe(document_issuer=host_subject())
    assert "no certificate of IBM's" in refusal(made(machine))


def test_what_no_host_key_is() -> None:
    machine = SoftwareSe()
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    ca = x509.BasicConstraints(ca=True, path_length=None)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for extensions, why in (
        ([(usage, True)], "not for key agreement"),
        ([(ca, True)], "certificate of a CA"),
        ([(unknown, True)], "1.2.3.4"),
    ):
        document = machine.host_key_document(extensions=extensions)
        assert why in refusal(made(machine, document=document))
    assert made(machine, document=machine.host_key_document(extensions=[(unknown, False)])).keys
    assert "P-521" in refusal(made(SoftwareSe(host_curve=ec.SECP384R1())))


def test_good_documents_are_used_beside_bad_ones_and_each_key_once() -> None:
    root = TestRoot()
    good, expired = SoftwareSe(root), SoftwareSe(root, machine="two", validities=Validities(host_key=PAST))
    documents = [
        ("good", load_certificate(good.host_key_document())),
        ("expired", load_certificate(expired.host_key_document())),
        ("again", load_certificate(good.host_key_document(serial=77))),
    ]
    found = made(good, documents=documents)
    assert [key.hash for key in found.keys] == [good.phkh]
    assert [each.partition(":")[0] for each in found.refused] == ["expired"]
