"""One quote, all of its collateral, one moment."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.dcap import (
    QuoteOptions,
    QuoteVerdict,
    QuoteVerifier,
    collateral_claims,
    parse_quote,
    pinned_root,
    root_from_anchors,
)
from kbs.attestation.dcap import verification as module
from kbs.attestation.dcap.pck import key_of
from kbs.attestation.dcap.remembered import Remembered
from kbs.attestation.dcap.signatures import certified_key, check_quote_signature
from kbs.attestation.endorsements.intel import ROOT_CRL, pck_crl_name
from kbs.attestation.model import Endorsements
from kbs.client.attesters.intel import VALIDITY, IntelValidities, point
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    ChainInvalid,
    ConfigInvalid,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementRevoked,
    EvidenceMalformed,
    EvidenceRejected,
    SignatureInvalid,
    SignerNotTrusted,
    TcbMismatch,
)
from tests.kbs.attestation.dcap.quotes import VECTORS

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = b"n" * 48
SECOND = timedelta(seconds=1)
ROOT = TestRoot()
TD = SoftwareTdx(ROOT)
QUOTES = QuoteVerifier(TD.intel.root_certificate)
BUNDLE = TD.intel.collateral("TDX")
ANY = QuoteOptions()


def verify(
    raw: bytes | None = None,
    bundle: dict[str, Any] | None = None,
    *,
    at: datetime = AT,
    quotes: QuoteVerifier = QUOTES,
    options: QuoteOptions = ANY,
) -> QuoteVerdict:
    quote = parse_quote(TD.quote(NONCE) if raw is None else raw)
    given = quotes.endorsements_from(quote, {"collateral": BUNDLE if bundle is None else bundle})
    return quotes.verify(quote, given, options, at)


def claims(verdict: QuoteVerdict, at: datetime = AT, *, waive: bool = False) -> dict[str, Any]:
    return collateral_claims(verdict, at, waive_revocation=waive)


OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"signer": OTHER_KEY}, SignatureInvalid),
        ({"qe_signer": OTHER_KEY}, SignatureInvalid),
        ({"qe_signer": TD.intel.keys["attestation"]}, SignatureInvalid),
        ({"qe": {"report_data": bytes(64)}}, SignatureInvalid),
        ({"auth_data": b"", "qe": {}}, None),  # no authentication data is as good as any
        ({"auth_data": bytes(1000)}, None),
        ({"qe": {"flags": 0x13}}, SignerNotTrusted),
        ({"qe": {"isv_svn": 5}}, None),
        ({"qe": {"isv_svn": 1}}, TcbMismatch),
        ({"qe": {"reserved1": b"\1" * 12}}, EvidenceMalformed),
        ({"platform": Platform(fmspc=bytes(6))}, EndorsementMissing),
        ({"platform": Platform(pce_id=b"\1\0")}, TcbMismatch),
        ({"platform": Platform(pce_svn=4)}, TcbMismatch),
        ({"chain": b"x"}, ChainInvalid),
        ({"chain": [TD.intel.pck_certificate(signer=OTHER_KEY), TD.intel.ca_certificate]}, ChainInvalid),
        ({"fields": {"mrsigner_seam": b"\1" * 48}}, TcbMismatch),
        ({"flip": 60}, SignatureInvalid),  # TEE_TCB_SVN
        ({"flip": 600}, SignatureInvalid),  # report data
        ({"flip": 30}, SignatureInvalid),  # user data
        ({"flip": 640}, SignatureInvalid),  # the signature
        ({"flip": 710}, SignatureInvalid),  # the attestation key
    ],
)
def test_quotes_that_are_wrong(changes: dict[str, Any], error: type[EvidenceRejected] | None) -> None:
    quote = parse_quote(TD.quote(NONCE, **changes))
    given = Endorsements(dict(GIVEN.items))
    if error is None:
        assert QUOTES.verify(quote, given, ANY, AT).quote is quote
        return
    for _ in range(2):  # the second time out of memory, if anything was remembered
        with pytest.raises(error) as refused:
            QUOTES.verify(quote, given, ANY, AT)
        assert type(refused.value) is error


GIVEN = QUOTES.endorsements_from(parse_quote(TD.quote(NONCE)), BUNDLE)


@pytest.mark.parametrize("place", range(32, 64))
def test_all_of_the_qe_report_data_counts(place: int) -> None:
    """Behind the digest there must be zeros."""
    good = parse_quote(TD.quote(NONCE))
    report_data = bytearray(good.qe_report[320:384])
    report_data[place] = 1
    with pytest.raises(SignatureInvalid, match="vouch"):
        verify(TD.quote(NONCE, qe={"report_data": bytes(report_data)}))


def test_parts_of_two_good_quotes_make_no_third() -> None:
    """Every platform vouches for its own attestation key only."""
    other = SoftwareTdx(TestRoot())
    one, two = TD.quote(NONCE), other.quote(b"m" * 48)
    for cut in (632, 636, 636 + 64, 636 + 128, 636 + 128 + 6, 636 + 128 + 6 + 384, 636 + 128 + 6 + 384 + 64):
        for mixed in (one[:cut] + two[cut:], two[:cut] + one[cut:]):
            with pytest.raises(EvidenceRejected):
                verify(mixed)


def test_an_attestation_key_off_the_curve() -> None:
    """The platform signs what its quoting enclave says, but the enclave could be made to say anything."""
    good = TD.quote(NONCE, qe={"report_data": hashlib.sha256(b"\1" * 64 + bytes(range(32))).digest().ljust(64, b"\0")})
    forged = good.replace(point(TD.intel.keys["attestation"]), b"\1" * 64)
    assert forged != good
    with pytest.raises(SignatureInvalid, match="no point"):
        verify(forged)


@pytest.mark.parametrize(
    ("revoked", "error"),
    [
        (["pck"], EndorsementRevoked),
        (["platform"], EndorsementRevoked),
        (["tcb"], EndorsementRevoked),
        (["root"], EndorsementRevoked),
        ([], None),
    ],
)
def test_revocation(revoked: list[str], error: type[EvidenceRejected] | None) -> None:
    bundle = TD.intel.collateral("TDX", revoked=revoked)
    if error is None:
        assert verify(bundle=bundle).is_revocation_checked
        return
    with pytest.raises(error):
        verify(bundle=bundle)


def test_each_list_names_its_own_certificates_only() -> None:
    """A PCK serial on the root's list, or a CA's on the PCK list, says nothing."""
    root_list = TD.intel.crl("root", VALIDITY, ["pck"]).hex()
    pck_list = TD.intel.crl("platform", VALIDITY, ["platform", "tcb"]).hex()
    assert verify(bundle=BUNDLE | {"root_ca_crl": root_list, "pck_crl": pck_list}).is_revocation_checked


@pytest.mark.parametrize("missing", [("root_ca_crl",), ("pck_crl",), ("root_ca_crl", "pck_crl")])
def test_an_absent_list_is_told(missing: tuple[str, ...]) -> None:
    verdict = verify(bundle={name: value for name, value in BUNDLE.items() if name not in missing})
    assert not verdict.is_revocation_checked
    assert claims(verdict)["revocation"] == "not_checked"
    assert "revocation_waived" not in claims(verdict)
    assert claims(verdict, waive=True)["revocation_waived"] is True
    assert ("pck_crl_num" in claims(verdict)) is ("pck_crl" not in missing)
    assert ("root_ca_crl_num" in claims(verdict)) is ("root_ca_crl" not in missing)
    assert "revocation_waived" not in claims(verify(), waive=True)


def test_the_one_list_at_hand_is_looked_at() -> None:
    bundle = TD.intel.collateral("TDX", revoked=["pck"], root_ca_crl=None)
    with pytest.raises(EndorsementRevoked):
        verify(bundle=bundle)
    bundle = TD.intel.collateral("TDX", revoked=["tcb"], pck_crl=None)
    with pytest.raises(EndorsementRevoked):
        verify(bundle=bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"root_ca_crl": TD.intel.crl("root", VALIDITY, signer="platform").hex()},
        {"root_ca_crl": TD.intel.crl("platform", VALIDITY).hex()},
        {"root_ca_crl": "00"},
        {"root_ca_crl": ""},
        {"pck_crl": TD.intel.crl("processor", VALIDITY).hex()},
        {"pck_crl": TD.intel.crl("platform", VALIDITY, signer="root").hex()},
        {"pck_crl": "3000"},
    ],
    ids=range(7),
)
def test_lists_that_are_wrong(change: dict[str, str]) -> None:
    with pytest.raises(ChainInvalid):
        verify(bundle=BUNDLE | change)


def test_lists_that_are_no_items() -> None:
    quote = parse_quote(TD.quote(NONCE))
    for item in (b"", b"{}", b"\xff", b'{"issuer_chain":"","crl":"!"}'):
        with pytest.raises(ChainInvalid):
            QUOTES.verify(quote, Endorsements({**GIVEN.items, pck_crl_name(verify().pck.ca): item}), ANY, AT)
    assert ROOT_CRL in GIVEN.items


WINDOW = (AT - timedelta(days=1), AT + timedelta(days=1))


@pytest.mark.parametrize("part", [field.name for field in fields(IntelValidities)])
@pytest.mark.parametrize("is_known", [False, True])
def test_one_second_past_each_validity(part: str, is_known: bool) -> None:
    """Also when everything was verified and remembered at a better time."""
    td = SoftwareTdx(validities=replace(IntelValidities(), **{part: WINDOW}))
    quotes = QuoteVerifier(td.intel.root_certificate)
    raw, bundle = td.quote(NONCE), td.intel.collateral("TDX")
    for moment in WINDOW if is_known else ():
        verify(raw, bundle, at=moment, quotes=quotes)
    for moment in (WINDOW[0] - SECOND, WINDOW[1] + SECOND):
        with pytest.raises(EndorsementExpired):
            verify(raw, bundle, at=moment, quotes=quotes)
    verify(raw, bundle, at=AT, quotes=quotes)


def test_collateral_of_the_other_tee_is_refused() -> None:
    for bundle in (
        TD.intel.collateral("TDX", tcb_info=TD.intel.tcb_info("SGX")),
        TD.intel.collateral("TDX", qe_identity=TD.intel.qe_identity("SGX")),
    ):
        with pytest.raises(ChainInvalid, match="another TEE"):
            verify(bundle=bundle)


@pytest.mark.parametrize("missing", ["tcb_info", "qe_identity"])
def test_missing_collateral(missing: str) -> None:
    with pytest.raises(EndorsementMissing):
        verify(bundle={name: value for name, value in BUNDLE.items() if name != missing})


@pytest.mark.parametrize("minimum", [0, 20, 21])
@pytest.mark.parametrize("older", [None, "tcb_info", "qe_identity"])
def test_the_minimum_evaluation_number_holds_for_both(minimum: int, older: str | None) -> None:
    changes: dict[str, Any] = {} if older is None else {older: {"tcbEvaluationDataNumber": 17}}
    bundle = TD.intel.collateral("TDX", **changes)
    if minimum <= (20 if older is None else 0):
        verify(bundle=bundle, options=QuoteOptions(minimum))
        return
    with pytest.raises(TcbMismatch, match="below the minimum"):
        verify(bundle=bundle, options=QuoteOptions(minimum))


def test_claims_of_a_good_quote() -> None:
    found = claims(verify())
    assert found == {
        "tcb_status": "UpToDate", "tcb_date": "2025-05-14T00:00:00Z", "advisory_ids": [], "tcb_out_of_date_days": 0,
        "platform_tcb_status": "UpToDate", "qe_tcb_status": "UpToDate", "tdx_module_tcb_status": "UpToDate",
        "collateral_expiration_status": "0", "tcb_eval_num": 20, "qe_tcb_eval_num": 20, "root_ca_crl_num": 1,
        "pck_crl_num": 1, "earliest_issue_date": "2020-01-01T00:00:00Z", "latest_issue_date": "2020-01-01T00:00:00Z",
        "earliest_expiration_date": "2049-01-01T00:00:00Z", "root_key_id": found["root_key_id"],
        "fmspc": "20a06f000000", "pce_id": "0000", "sgx_type": "Scalable", "revocation": "checked",
        "platform_provider_id": bytes(range(16)).hex(), "platform_instance_id": bytes(range(31, 15, -1)).hex(),
        "is_dynamic_platform": True, "is_cached_keys": False, "is_smt_enabled": True,
    }  # fmt: skip
    assert len(found["root_key_id"]) == 96


def test_the_running_module_has_claims_of_its_own() -> None:
    raw = TD.quote(NONCE, version=5, fields={"tee_tcb_svn": bytes((4, 1, 5)) + bytes(13)})
    found = claims(verify(raw))
    assert (found["tcb_status"], found["tdx_module_tcb_status"]) == ("TDRelaunchAdvised", "OutOfDate")
    assert (found["tcb_status_current"], found["advisory_ids_current"]) == ("UpToDate", [])
    assert found["tcb_date_current"] == "2025-05-14T00:00:00Z"


@pytest.mark.parametrize(
    ("after", "days"), [(timedelta(), 1), (SECOND, 1), (timedelta(days=1), 1), (timedelta(days=1, seconds=1), 2)]
)
def test_days_out_of_date_are_days_begun(after: timedelta, days: int) -> None:
    since = datetime(2025, 5, 14, tzinfo=UTC)
    found = claims(verify(TD.quote(NONCE, qe={"isv_svn": 5}), at=since + after), since + after)
    assert found["tcb_out_of_date_since"] == "2025-05-14T00:00:00Z"
    assert found["tcb_out_of_date_days"] == days


def test_days_out_of_date_are_never_none_for_what_is() -> None:
    before = datetime(2024, 5, 14, tzinfo=UTC)
    assert claims(verify(TD.quote(NONCE, qe={"isv_svn": 5}), at=before), before)["tcb_out_of_date_days"] == 1


def test_the_second_quote_of_a_platform_costs_one_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    quotes = QuoteVerifier(TD.intel.root_certificate)
    checked: list[str] = []

    def counted(name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def count(*arguments: Any) -> Any:
            checked.append(name)
            return original(*arguments)

        monkeypatch.setattr(module, name, count)

    for name in ("certified_key", "check_quote_signature", "read_tcb_info", "read_qe_identity", "verify_pck_chain",
                 "read_revocation_list", "evaluate"):  # fmt: skip
        counted(name)
    certified: dict[str, Any] = {"chain": TD.intel.pck_chain(), "qe_signer": TD.intel.keys["pck"]}
    first = TD.quote(NONCE, **certified)
    verify(first, quotes=quotes)
    assert len(checked) == 8
    checked.clear()
    # Another challenge, the same certification of the attestation key.
    body = TD.quote(b"m" * 48, **certified)[:636]
    signature = TD.intel.quote("TDX", 4, body[48:632])[636:700]
    verify(body + signature + first[700:], quotes=quotes)
    assert checked == ["check_quote_signature"]
    # Another TCB of the same platform is evaluated, and not signed for.
    checked.clear()
    with pytest.raises(SignatureInvalid):
        verify(first[:48] + bytes((4,)) + first[49:], quotes=quotes)
    assert "evaluate" in checked
    checked.clear()
    with pytest.raises(SignatureInvalid):
        verify(first[:48] + bytes((4,)) + first[49:], quotes=quotes)
    assert "evaluate" in checked, "what is not signed is not remembered"


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def test_one_platform_in_many_spellings_is_remembered_once() -> None:
    """Nobody signs the text of the chain: one genuine quote must not push all other platforms out of the memory."""
    quotes = QuoteVerifier(TD.intel.root_certificate)
    chain = TD.intel.pck_chain()
    good = pem(*chain)
    certified: dict[str, Any] = {"qe_signer": TD.intel.keys["pck"]}
    raw = TD.quote(NONCE, **certified, chain=good)
    stranger = SoftwareTdx(TestRoot()).intel.root_certificate
    spellings = [
        good, good + b"\0", good + b"\n \0\0", good.replace(b"\n", b"\r\n"), good.replace(b"\n", b"\r\n") + b"\r\n\0",
        good.replace(b"MII", b"M\nII"), good.replace(b"-----\n-----", b"-----\n \n-----"), pem(chain[0], chain[1]),
        pem(*chain[::-1]), pem(*chain, chain[1]), pem(*chain, *chain[1:] * 3), pem(*chain, stranger),
        pem(stranger, *chain), pem(chain[0], chain[1], stranger),
    ]  # fmt: skip
    at = raw.index(good) - 4  # the length of the chain
    outer = 632 + 4 + 128 + 2
    for text in spellings:
        made = bytearray(raw[:at] + len(text).to_bytes(4, "little") + text)
        for place in (632, outer):
            size = int.from_bytes(made[place : place + 4], "little") + len(text) - len(good)
            made[place : place + 4] = size.to_bytes(4, "little")
        for _ in range(2):
            assert verify(bytes(made), quotes=quotes).evaluation.verdict.status == "UpToDate"
    assert len(quotes._established._values) == 1
    plain = {good.rstrip(), pem(chain[0], chain[1]).rstrip(), pem(*chain[::-1]).rstrip()}
    assert set(quotes._chains._values) == plain


def test_nobody_is_asked_about_a_platform_that_a_stranger_invented() -> None:
    """A PCK certificate of his own making would name any platform that the vendor then is asked about."""
    stranger = SoftwareTdx(TestRoot())
    for chain in (
        stranger.intel.pck_chain(),
        [stranger.intel.pck_certificate(), TD.intel.ca_certificate, TD.intel.root_certificate],
        [TD.intel.pck_certificate(Platform(fmspc=bytes(6)), signer=OTHER_KEY), *TD.intel.pck_chain()[1:]],
    ):
        quote = parse_quote(TD.quote(NONCE, chain=chain))
        with pytest.raises(ChainInvalid, match="pinned root"):
            QUOTES.needs(quote)
        with pytest.raises(ChainInvalid, match="pinned root"):
            QUOTES.endorsements_from(quote, BUNDLE)
    expired = SoftwareTdx(TD.intel.root, validities=IntelValidities(pck=(WINDOW[0], WINDOW[0])))
    assert len(QUOTES.needs(parse_quote(expired.quote(NONCE)))) == 4, "dates are for the moment of verification"


def test_memory_is_bounded() -> None:
    memory: Remembered[int, str] = Remembered(2)
    for number in (1, 2):
        memory.put(number, str(number))
    assert memory.get(1) == "1"
    memory.put(3, "3")
    assert (memory.get(1), memory.get(2), memory.get(3)) == ("1", None, "3")


@pytest.mark.parametrize("name", ["fortanix_chain_order", "fortanix_corrupted"])
def test_signatures_of_real_quotes_without_collateral(name: str) -> None:
    """One of the two has a flipped byte."""
    quote = parse_quote((VECTORS / f"sgx/{name}.bin").read_bytes())
    quotes = QuoteVerifier(pinned_root())
    pck_key = key_of(quotes._chain(quote, datetime(2023, 6, 15, 12, tzinfo=UTC)).path.leaf)
    if name == "fortanix_chain_order":
        check_quote_signature(quote, certified_key(quote, pck_key)[0])
        return
    with pytest.raises(SignatureInvalid):
        check_quote_signature(quote, certified_key(quote, pck_key)[0])


def test_bundles_by_hand() -> None:
    quote = parse_quote(TD.quote(NONCE))
    assert QUOTES.endorsements_from(quote, BUNDLE) == QUOTES.endorsements_from(quote, {"collateral": BUNDLE})
    assert QUOTES.endorsements_from(quote, {}).items == {}
    broken: list[dict[str, Any]] = [{"collateral": []}, {"root_ca_crl": "x"}, {"tcb_info": "{}"}, {"pck_crl": 1}]
    for bundle in broken:
        with pytest.raises(EvidenceMalformed):
            QUOTES.endorsements_from(quote, bundle)


@pytest.mark.parametrize(
    "anchors",
    [
        {}, {"trust_anchor_der": 1}, {"trust_anchor_der": "!"}, {"trust_anchor_der": "AAAA"},
        {"trust_anchor_der": TD.anchors["trust_anchor_der"], "more": ""}, {"ark": ""},
    ],
    ids=range(6),
)  # fmt: skip
def test_anchors_that_are_none(anchors: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        root_from_anchors(anchors, "tdx")


def test_an_anchor_is_a_self_signed_ca() -> None:
    p384 = TD.intel.certificate(
        "root", VALIDITY, issuer="root", is_ca=1, key=(key := ec.generate_private_key(ec.SECP384R1())), signer=key
    )
    for certificate in (TD.intel.ca_certificate, TD.intel.tcb_certificate, p384):
        encoded = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        with pytest.raises(ConfigInvalid):
            root_from_anchors({"trust_anchor_der": encoded}, "tdx")
    assert root_from_anchors(TD.anchors, "tdx") == TD.intel.root_certificate


def test_enclaves_go_the_same_way() -> None:
    sgx = SoftwareSgx()
    quotes = QuoteVerifier(sgx.intel.root_certificate)
    verdict = verify(sgx.quote(NONCE), sgx.intel.collateral("SGX"), quotes=quotes)
    found = claims(verdict)
    assert found["tcb_status"] == "UpToDate"
    assert not found.keys() & {"tdx_module_tcb_status", "platform_instance_id", "tcb_status_current"}
