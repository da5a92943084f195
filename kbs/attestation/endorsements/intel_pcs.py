"""Intel collateral: from Intel's Provisioning Certification Service (PCS), or a cache that speaks like it.

Such caches are PCCS and Azure's THIM. Only answers under the pinned root are handed on, so that nothing else is ever
remembered; a verifier checks them again.

Sources: Intel PCS API v4; Intel PCCS design guide; verifiers 2.7.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.contents import read_contents, split_document
from kbs.attestation.endorsements.intel import (
    IntelRef,
    IntelTee,
    PckCrlRef,
    QeIdentityRef,
    RootCrlRef,
    SignedDocument,
    SignedList,
    TcbRef,
    TcbUpdate,
    pack_document,
    pack_list,
    parse_name,
)
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.x509 import (
    X509_ERRORS,
    common_name,
    is_issued_by,
    load_certificates,
    load_crl,
    read_revocation_list,
)
from kbs.errors import ChainInvalid, EndorsementsUnavailable

if TYPE_CHECKING:
    from kbs.attestation.endorsements.https import Answer

PCS_URL: Final = "https://api.trustedservices.intel.com"
ROOT_CRL_URL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"  # named in the root itself
_REFRESH: Final = timedelta(hours=6)  # Intel's items say 30 days; what was revoked since should not wait as long
_SOON: Final = timedelta(minutes=5)
_TCB_SIGNER: Final = "Intel SGX TCB Signing"
_PCK_CA: Final = {"platform": "Intel SGX PCK Platform CA", "processor": "Intel SGX PCK Processor CA"}
_API: Final = re.compile(r"/+(?:sgx|tdx)/certification/v[34]/*$")
_CHAIN_HEADERS: Final = {
    "tcb": ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"),  # the second: API v3, which some caches still say
    "qe": ("sgx-enclave-identity-issuer-chain",),
    "crl": ("sgx-pck-crl-issuer-chain",),
}
_HEX: Final = re.compile(rb"[0-9A-Fa-f\s]+")


class PcsFetcher(Protocol):
    """`HttpsFetcher`, or a fake."""

    def fetch(self, url: str) -> Answer | None:
        """A 200 answer, or None when there is no such thing. Raises `EndorsementsUnavailable`."""


def base_of(url: str) -> str:
    """A service's address without the path of the API, which the field's settings often carry."""
    return _API.sub("", url).rstrip("/")


def is_intels(url: str) -> bool:
    """Whether an address is that of Intel's own service."""
    return base_of(url) == PCS_URL


class IntelPcs:
    """Asks one service, by its base address."""

    def __init__(
        self, fetcher: PcsFetcher, root: x509.Certificate, base_url: str = PCS_URL, update: TcbUpdate = TcbUpdate.EARLY
    ) -> None:
        """Take the ports.

        Args:
            root: trusted; answers of other roots are refused.
            base_url: HTTPS, with or without `/sgx/certification/v4/`.
            update: which edition of TCB info and identities to ask for.
        """
        self._fetcher = fetcher
        self._root = root
        self._base = base_of(base_url)
        self._update = update

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:
        """See `Endorser`."""
        try:
            ref = parse_name(name)
        except ValueError:
            return None
        answer = self._fetcher.fetch(self.address(ref))
        if answer is None:
            return None
        try:
            item = self._item(ref, answer)
            contents = read_contents(name, item)
            if previous is not None and contents.is_older_than(read_contents(name, previous)):
                raise EndorsementsUnavailable("a vendor service answered an older item than before")
        except (ChainInvalid, *X509_ERRORS) as err:
            raise EndorsementsUnavailable("a vendor service answered something else", operator_detail=str(err)) from err
        end = contents.valid_until
        return Obtained(item, refresh_at=min(at + _REFRESH, max(end, at + _SOON)), valid_until=end)

    def address(self, ref: IntelRef) -> str:
        """The whole URL of an item. Every part is a setting or has been read from a checked name."""
        if isinstance(ref, TcbRef):
            return f"{self._api(ref.tee)}/tcb?fmspc={ref.fmspc.hex()}&update={self._update}"
        if isinstance(ref, QeIdentityRef):
            return f"{self._api(ref.tee)}/qe/identity?update={self._update}"
        if isinstance(ref, PckCrlRef):
            return f"{self._api(IntelTee.SGX)}/pckcrl?ca={ref.ca}&encoding=der"
        # Intel serves the list where its root certificate says; caches serve it beside the rest.
        return ROOT_CRL_URL if is_intels(self._base) else f"{self._api(IntelTee.SGX)}/rootcacrl"

    def _api(self, tee: IntelTee) -> str:
        return f"{self._base}/{tee}/certification/v4"

    def _item(self, ref: IntelRef, answer: Answer) -> bytes:
        """The item, its signatures checked.

        Raises:
            ChainInvalid, ValueError: it is not what was asked for.
        """
        if isinstance(ref, RootCrlRef):
            crl = _der(answer.body)
            read_revocation_list(crl, self._root)
            return crl
        if isinstance(ref, PckCrlRef):
            signed = SignedList(_chain(answer, "crl"), _der(answer.body))
            read_revocation_list(signed.crl, self._signer(signed.issuer_chain, _PCK_CA[ref.ca]))
            return pack_list(signed)
        document = SignedDocument(
            _chain(answer, "tcb" if isinstance(ref, TcbRef) else "qe"), answer.body.decode("utf-8")
        )
        _check_signature(document, self._signer(document.issuer_chain, _TCB_SIGNER))
        return pack_document(document)

    def _signer(self, issuer_chain: str, name: str) -> x509.Certificate:
        """The first certificate, if it has that role and the root issued it."""
        signer = load_certificates(issuer_chain.encode())[0]
        if common_name(signer.subject) != name or not is_issued_by(signer, self._root):
            raise ChainInvalid("the signer of an item is not Intel's")
        return signer


def _chain(answer: Answer, kind: str) -> str:
    found = [answer.headers[name] for name in _CHAIN_HEADERS[kind] if name in answer.headers]
    if not found:
        raise ValueError("an answer without its issuer chain")
    return unquote(found[0], errors="strict")


def _der(body: bytes) -> bytes:
    """A list in DER. Caches answer in hex or PEM where Intel answers in DER."""
    if _HEX.fullmatch(body):
        body = bytes.fromhex(body.decode("ascii"))
    return load_crl(body).public_bytes(Encoding.DER)


def _check_signature(document: SignedDocument, signer: x509.Certificate) -> None:
    text = split_document(document.body)
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ChainInvalid("the signer of a document has an unusable key")
    r, s = int.from_bytes(text.signature[:32]), int.from_bytes(text.signature[32:])
    try:
        key.verify(encode_dss_signature(r, s), text.inner.encode(), ec.ECDSA(SHA256()))
    except InvalidSignature as err:
        raise ChainInvalid("the signature of a document does not verify") from err
