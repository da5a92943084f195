"""What an endorsement says about itself: kind, and the times between which it holds.

Read to choose between copies, to remember for as long as sensible, and to tell people. No signature is checked here and
nothing read here makes anything trusted; that is for endorsers and verifiers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509

from kbs import strict_json
from kbs.attestation.endorsements import amd, hygon, ibm, intel
from kbs.attestation.x509 import X509_ERRORS, load_certificate, load_certificates, load_crl
from kbs.errors import MalformedMessage, PayloadTooLarge

NO_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Of what names no end of its validity (the same moment as in RFC 5280 4.1.2.5)."""

MAX_ITEM: Final = 2 * 1024 * 1024  # bytes

_SIGNED: Final = re.compile(
    r'\{"(?P<outer>tcbInfo|enclaveIdentity)":(?P<inner>\{.*\}),"signature":"(?P<signature>[0-9A-Fa-f]{128})"\}\s*',
    re.DOTALL,
)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_LIMITS: Final = strict_json.Limits(size=MAX_ITEM, tokens=200_000)


@dataclass(frozen=True, slots=True)
class Contents:
    """kind: for people. issued_at: None when it does not say. valid_until: `NO_END` when it names no end."""

    kind: str
    issued_at: datetime | None
    valid_until: datetime

    def is_older_than(self, other: Contents) -> bool:
        """Issued before the other one. What does not say when it was issued is never older."""
        return None not in (self.issued_at, other.issued_at) and (self.issued_at or NO_END) < (
            other.issued_at or NO_END
        )


def is_name(name: str) -> bool:
    """Whether a text names an endorsement of a kind that is known here; such a text is safe in paths and addresses."""
    for parse in (amd.parse_name, intel.parse_name, hygon.parse_name, ibm.parse_name):
        try:
            parse(name)
        except ValueError:
            continue
        return True
    return False


def read_contents(name: str, data: bytes) -> Contents:
    """Read the times of an item.

    Args:
        name: an `EndorsementNeed.name`. data: the item under it.

    Raises:
        ValueError: a name of no known kind, or an item that is not of the kind that its name says.
    """
    if len(data) > MAX_ITEM:
        raise ValueError("too large for an endorsement")
    try:
        if name.startswith(amd.PREFIX):
            return _amd(amd.parse_name(name), data)
        if name.startswith(intel.PREFIX):
            return _intel(intel.parse_name(name), data)
        if name.startswith(hygon.PREFIX):
            return _hygon(hygon.parse_name(name), data)
        kind, _ = ibm.parse_name(name)
        if kind == "crl":
            return _list("IBM revocation list", data)
        return _certificate("IBM host-key document" if kind == "host-key" else "IBM certificate", data)
    except X509_ERRORS as err:
        raise ValueError(str(err) or "not an endorsement of the kind that its name says") from err


@dataclass(frozen=True, slots=True)
class SignedText:
    """A document of Intel's PCS in its parts. `inner`: the exact characters that `signature` (r ‖ s) is over."""

    outer: str
    inner: str
    signature: bytes


def split_document(body: str) -> SignedText:
    """Take a served document apart without changing a character.

    Raises:
        ValueError: not one document with one signature behind it.
    """
    match = _SIGNED.fullmatch(body)
    if match is None:
        raise ValueError("collateral: not a signed document")
    return SignedText(match["outer"], match["inner"], bytes.fromhex(match["signature"]))


def _read_document(text: SignedText) -> dict[str, Any]:
    try:
        inner: dict[str, Any] = strict_json.decode(text.inner.encode(), limits=_LIMITS)
    except (MalformedMessage, PayloadTooLarge) as err:
        raise ValueError("collateral: a document is not JSON") from err
    return inner


def _times(document: dict[str, Any]) -> tuple[datetime, datetime]:
    times = document.get("issueDate"), document.get("nextUpdate")
    if not all(isinstance(each, str) and _TIME.fullmatch(each) for each in times):
        raise ValueError("collateral: a document does not say its times")
    return datetime.fromisoformat(str(times[0])), datetime.fromisoformat(str(times[1]))


def _is_about(document: dict[str, Any], ref: intel.TcbRef | intel.QeIdentityRef) -> bool:
    """Whether a document is the one of that name: Intel signs those of all platforms alike."""
    is_tdx = ref.tee is intel.IntelTee.TDX
    if isinstance(ref, intel.QeIdentityRef):
        return document.get("id") == ("TD_QE" if is_tdx else "QE")
    fmspc = document.get("fmspc")
    return (
        document.get("id", "SGX") == ("TDX" if is_tdx else "SGX")  # version 2, for SGX only, does not say
        and isinstance(fmspc, str)
        and fmspc.lower() == ref.fmspc.hex()
    )


def _amd(ref: amd.AmdRef, data: bytes) -> Contents:
    if isinstance(ref, amd.CrlRef):
        return _list("AMD revocation list", data)
    return _certificate("AMD VCEK" if isinstance(ref, amd.VcekRef) else "AMD VLEK", data)


def _intel(ref: intel.IntelRef, data: bytes) -> Contents:
    if isinstance(ref, intel.RootCrlRef):
        return _list("Intel root CRL", data)
    if isinstance(ref, intel.PckCrlRef):
        signed = intel.unpack_list(data)
        return _within(_list("Intel PCK CRL", signed.crl), signed.issuer_chain)
    document = intel.unpack_document(data)
    text = split_document(document.body)
    wanted = "tcbInfo" if isinstance(ref, intel.TcbRef) else "enclaveIdentity"
    if text.outer != wanted:
        raise ValueError("collateral: a document of another kind")
    inner = _read_document(text)
    if not _is_about(inner, ref):
        raise ValueError("collateral: a document about another platform or TEE")
    issued_at, next_update = _times(inner)
    kind = "Intel TCB info" if isinstance(ref, intel.TcbRef) else "Intel QE identity"
    return _within(Contents(kind, issued_at, next_update), document.issuer_chain)


def _within(contents: Contents, issuer_chain: str) -> Contents:
    """No longer than the certificates of its signer."""
    ends = [each.not_valid_after_utc for each in load_certificates(issuer_chain.encode())]
    return Contents(contents.kind, contents.issued_at, min(contents.valid_until, *ends))


def _hygon(serial: str, data: bytes) -> Contents:
    del serial
    if len(data) != hygon.HSK_CEK_SIZE:
        raise ValueError("not a Hygon HSK and CEK")
    return Contents("Hygon HSK and CEK", None, NO_END)


def _certificate(kind: str, data: bytes) -> Contents:
    certificate = load_certificate(data)
    return Contents(kind, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _list(kind: str, data: bytes) -> Contents:
    crl: x509.CertificateRevocationList = load_crl(data)
    if crl.next_update_utc is None:
        raise ValueError("a revocation list that says no end of its validity")
    return Contents(kind, crl.last_update_utc, crl.next_update_utc)
