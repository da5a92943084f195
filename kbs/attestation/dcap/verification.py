"""One quote against the pinned root, collateral and a moment in time. Numbers are those of verifiers 2.8.

What does not hang on the single quote (chain, collateral, quoting enclave, TCB levels) is established once and
remembered: the next quote of the platform costs one signature. Dates are compared on every use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha384
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.attestation.dcap.claims import lasting_claims
from kbs.attestation.dcap.collateral import QeIdentity, Signed, TcbInfo, read_qe_identity, read_tcb_info
from kbs.attestation.dcap.evaluation import Evaluation, check_qe, evaluate
from kbs.attestation.dcap.pck import (
    PckChain,
    bare,
    is_plain,
    issuer_of,
    key_of,
    load_pck_chain,
    read_platform,
    verify_pck_chain,
)
from kbs.attestation.dcap.quote import Quote, TdReport
from kbs.attestation.dcap.remembered import Remembered
from kbs.attestation.dcap.signatures import certified_key, check_quote_signature
from kbs.attestation.dcap.verdict import CollateralFacts, QuoteVerdict, Validity
from kbs.attestation.endorsements.intel import (
    ROOT_CRL,
    PckCa,
    items_from_bundle,
    pck_crl_name,
    qe_identity_name,
    tcb_name,
    unpack_list,
)
from kbs.attestation.model import EndorsementNeed, Endorsements, Json
from kbs.attestation.x509 import PathVerifier, RevocationList, read_revocation_list, serial_number
from kbs.errors import (
    ChainInvalid,
    EndorsementMissing,
    EvidenceMalformed,
    TcbMismatch,
)

_PLATFORMS: Final = 1024  # remembered; about 8 KiB each
_DOCUMENTS: Final = 256  # of each kind: platform families, lists, and their successors


@dataclass(frozen=True, slots=True)
class QuoteOptions:
    """What an operator may ask for.

    minimum_evaluation_number: TCB info and QE identity with a lower `tcbEvaluationDataNumber` are refused.
    """

    minimum_evaluation_number: int = 0


@dataclass(frozen=True, slots=True)
class _Established:
    """All that is true of a platform's next quote, too, but for dates."""

    key: ec.EllipticCurvePublicKey = field(repr=False)
    pck: PckChain
    evaluation: Evaluation
    facts: CollateralFacts
    is_revocation_checked: bool
    lasting_claims: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Lists:
    root: RevocationList | None
    pck: RevocationList | None


class QuoteVerifier:
    """Verifies quotes of SGX enclaves and TDs under one root. Threads may share it.

    Trusted: `root`. Not trusted: quotes and endorsements, both checked in full.
    """

    def __init__(self, root: x509.Certificate) -> None:
        self._root = root
        self._root_key_id = sha384(key_of(root).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)).digest()
        self._paths = PathVerifier((root,), max_length=3)
        self._chains: Remembered[bytes, PckChain] = Remembered(_PLATFORMS)
        self._tcb_infos: Remembered[bytes, TcbInfo] = Remembered(_DOCUMENTS)
        self._identities: Remembered[bytes, QeIdentity] = Remembered(_DOCUMENTS)
        self._lists: Remembered[tuple[bytes, bytes], RevocationList] = Remembered(_DOCUMENTS)
        self._established: Remembered[tuple[object, ...], _Established] = Remembered(_PLATFORMS)

    def needs(self, quote: Quote) -> Sequence[EndorsementNeed]:
        """TCB info, QE identity and both revocation lists, for the platform that the quote is of.

        Raises:
            ChainInvalid: the quote carries no PCK certificate under the root.
        """
        fmspc, ca = self._platform(quote)
        return [
            EndorsementNeed(tcb_name(quote.tee, fmspc), required=True),
            EndorsementNeed(qe_identity_name(quote.tee), required=True),
            EndorsementNeed(pck_crl_name(ca), required=False),
            EndorsementNeed(ROOT_CRL, required=False),
        ]

    def endorsements_from(self, quote: Quote, given: Mapping[str, Json]) -> Endorsements:
        """A collateral bundle given by hand: see `items_from_bundle`; with or without an outer member `collateral`.

        Raises:
            ChainInvalid: the quote carries no PCK certificate under the root.
            EvidenceMalformed: the bundle is not one.
        """
        bundle = given.get("collateral", given)
        if not isinstance(bundle, Mapping):
            raise EvidenceMalformed("given collateral is not an object")
        fmspc, ca = self._platform(quote)
        try:
            return Endorsements(items_from_bundle(bundle, quote.tee, fmspc, ca))
        except ValueError as err:
            raise EvidenceMalformed("given collateral is not a bundle of Intel's") from err

    def verify(self, quote: Quote, endorsements: Endorsements, options: QuoteOptions, at: datetime) -> QuoteVerdict:
        """Steps 3 to 18 as of `at`.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        chain = self._chain(quote, at)
        tcb_item, qe_item, pck_crl, root_crl = _items(quote, chain, endorsements)
        key = (quote.tee, chain.identity, *_certified(quote), tcb_item, qe_item, pck_crl, root_crl, _tcb_of(quote))
        found = self._established.get(key)
        established = found
        if established is None:
            lists = _Lists(self._root_list(root_crl), self._pck_list(pck_crl, chain))
            established = self._establish(quote, chain, tcb_item, qe_item, lists, at)
        established.facts.check(at)
        facts = established.facts
        if min(facts.tcb_evaluation_number, facts.qe_evaluation_number) < options.minimum_evaluation_number:
            raise TcbMismatch("TCB info or QE identity is of an edition below the minimum")
        # 9.
        check_quote_signature(quote, established.key)
        if found is None:  # not before: what is not signed could fill the memory
            self._established.put(key, established)
        return QuoteVerdict(
            quote=quote,
            pck=chain,
            evaluation=established.evaluation,
            facts=facts,
            is_revocation_checked=established.is_revocation_checked,
            lasting_claims=established.lasting_claims,
        )

    def _platform(self, quote: Quote) -> tuple[bytes, PckCa]:
        """FMSPC and PCK CA of a PCK certificate under the root, valid or not."""
        known = self._chains.get(bare(quote.pck_chain))
        if known is not None:
            return known.platform.fmspc, known.ca
        leaf, others = load_pck_chain(quote.pck_chain)
        # Nobody is asked for the collateral of a platform that a stranger invented.
        self._paths.find(leaf, others)
        return read_platform(leaf).fmspc, issuer_of(leaf)

    def _chain(self, quote: Quote, at: datetime) -> PckChain:
        """Step 3, without revocation."""
        text = bare(quote.pck_chain)
        chain = self._chains.get(text)
        if chain is None:
            chain = verify_pck_chain(quote.pck_chain, self._paths, at)
            if is_plain(text, chain):
                self._chains.put(text, chain)
        chain.path.check_dates(at)
        return chain

    def _establish(
        self, quote: Quote, chain: PckChain, tcb_item: bytes, qe_item: bytes, lists: _Lists, at: datetime
    ) -> _Established:
        # 5, 6.
        info = self._tcb_infos.get(tcb_item)
        if info is None:
            info = read_tcb_info(tcb_item, self._paths, at)
            self._tcb_infos.put(tcb_item, info)
        identity = self._identities.get(qe_item)
        if identity is None:
            identity = read_qe_identity(qe_item, self._paths, at)
            self._identities.put(qe_item, identity)
        if info.tee is not quote.tee or identity.tee is not quote.tee:
            raise ChainInvalid("TCB info or QE identity is for another TEE")
        # 4.
        _check_revocation(chain, (info.signed, identity.signed), lists, at)
        # 7, 8.
        key, qe_report = certified_key(quote, chain.key)
        # 10 to 18.
        evaluation = evaluate(chain.platform, quote.body, info, check_qe(qe_report, identity))
        validities = tuple(_validities(chain, info.signed, identity.signed, lists))
        facts = CollateralFacts(
            validities=validities,
            earliest_issue=min(each.not_before for each in validities),
            latest_issue=max(each.not_before for each in validities),
            earliest_expiration=min(each.not_after for each in validities),
            tcb_evaluation_number=info.signed.evaluation_number,
            qe_evaluation_number=identity.signed.evaluation_number,
            root_key_id=self._root_key_id,
            root_crl_number=None if lists.root is None else lists.root.number,
            pck_crl_number=None if lists.pck is None else lists.pck.number,
        )
        is_checked = lists.root is not None and lists.pck is not None
        lasting = lasting_claims(chain.platform, evaluation, facts, is_revocation_checked=is_checked)
        return _Established(key, chain, evaluation, facts, is_checked, lasting)

    def _root_list(self, data: bytes | None) -> RevocationList | None:
        return None if data is None else self._list(data, self._root)

    def _pck_list(self, item: bytes | None, chain: PckChain) -> RevocationList | None:
        """The list of the CA that issued the leaf. The chain that came beside the list is not looked at."""
        if item is None:
            return None
        try:
            data = unpack_list(item).crl
        except ValueError as err:
            raise ChainInvalid("PCK revocation list does not parse") from err
        return self._list(data, chain.path.issuer)

    def _list(self, data: bytes, issuer: x509.Certificate) -> RevocationList:
        key = (data, issuer.public_bytes(Encoding.DER))
        found = self._lists.get(key)
        if found is None:
            found = read_revocation_list(data, issuer)
            self._lists.put(key, found)
        return found


def _items(
    quote: Quote, chain: PckChain, endorsements: Endorsements
) -> tuple[bytes, bytes, bytes | None, bytes | None]:
    """TCB info, QE identity, PCK list, root list."""
    items = endorsements.items
    tcb = items.get(tcb_name(quote.tee, chain.platform.fmspc))
    qe = items.get(qe_identity_name(quote.tee))
    if tcb is None or qe is None:
        raise EndorsementMissing(f"{'TCB info' if tcb is None else 'QE identity'} for the platform is missing")
    return tcb, qe, items.get(pck_crl_name(chain.ca)), items.get(ROOT_CRL)


def _certified(quote: Quote) -> tuple[bytes, ...]:
    """What certifies the attestation key, without the text of the chain, which nobody signs."""
    return quote.attestation_key, quote.qe_report, quote.qe_signature, quote.qe_auth_data


def _tcb_of(quote: Quote) -> tuple[bytes | None, ...]:
    """What of a body has a part in its TCB level."""
    body = quote.body
    if not isinstance(body, TdReport):
        return ()
    return body.tee_tcb_svn, body.tee_tcb_svn2, body.mrsigner_seam, body.seam_attributes


def _check_revocation(chain: PckChain, documents: Sequence[Signed], lists: _Lists, at: datetime) -> None:
    """Step 4.

    Raises:
        EndorsementExpired: a list is not current. EndorsementRevoked: a certificate is on it.
    """
    if lists.root is not None:
        # The root among them: a vendor has no other way to say that it lost its key.
        issued_by_root = [*chain.path.certificates[1:], *(each.path.leaf for each in documents)]
        lists.root.check([serial_number(each) for each in issued_by_root], at)
    if lists.pck is not None:
        lists.pck.check([serial_number(chain.path.leaf)], at)


def _validities(chain: PckChain, tcb: Signed, qe: Signed, lists: _Lists) -> Iterator[Validity]:
    for name, path in (
        ("PCK certificate chain", chain.path),
        ("signer of the TCB info", tcb.path),
        ("signer of the QE identity", qe.path),
    ):
        for each in path.certificates:
            yield Validity(name, each.not_valid_before_utc, each.not_valid_after_utc)
    yield Validity("TCB info", tcb.issue_date, tcb.next_update)
    yield Validity("QE identity", qe.issue_date, qe.next_update)
    for name, found in (("root revocation list", lists.root), ("PCK revocation list", lists.pck)):
        if found is not None:
            yield Validity(name, found.this_update, found.next_update)
