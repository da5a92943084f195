"""TCB info and QE identity count as Intel's only byte for byte, and only by the right signer."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.dcap import pinned_root
from kbs.attestation.dcap.collateral import QeIdentity, TcbInfo, read_qe_identity, read_tcb_info
from kbs.attestation.dcap.levels import TcbStatus
from kbs.attestation.endorsements.intel import IntelTee, SignedDocument, pack_document
from kbs.attestation.x509 import PathVerifier
from kbs.client.attesters.intel import VALIDITY, IntelValidities, SoftwareIntel, raw_signature
from kbs.errors import ChainInvalid, EndorsementExpired
from tests.kbs.attestation.dcap.quotes import TIMES, VECTORS, collateral, time_of

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
INTEL = SoftwareIntel()
GOOD = INTEL.collateral("TDX")
OUTER = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}
READ: dict[str, Callable[[bytes, PathVerifier, datetime], TcbInfo | QeIdentity]] = {
    "tcb_info": read_tcb_info,
    "qe_identity": read_qe_identity,
}


def paths(root: x509.Certificate | None = None) -> PathVerifier:
    return PathVerifier((root or INTEL.root_certificate,), max_length=3)


def packed(bundle: dict[str, Any], name: str, body: str | None = None) -> bytes:
    whole = f'{{"{OUTER[name]}":{bundle[name]},"signature":"{bundle[f"{name}_signature"]}"}}'
    return pack_document(SignedDocument(bundle[f"{name}_issuer_chain"], whole if body is None else body))


def read(name: str, bundle: dict[str, Any], *, body: str | None = None, at: datetime = AT) -> TcbInfo | QeIdentity:
    return READ[name](packed(bundle, name, body), paths(), at)


def signed(name: str, text: str) -> dict[str, Any]:
    return INTEL.collateral("TDX", tcb_info=text) if name == "tcb_info" else INTEL.collateral("TDX", qe_identity=text)


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOOD[name])
    return found


@pytest.mark.parametrize("name", READ)
def test_good_documents(name: str) -> None:
    found = read(name, GOOD)
    assert found.tee is IntelTee.TDX
    assert found.signed.evaluation_number == 20
    assert (found.signed.issue_date, found.signed.next_update) == VALIDITY
    assert found.levels[0].status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize("name", READ)
def test_a_document_for_sgx_says_so(name: str) -> None:
    assert read(name, INTEL.collateral("SGX")).tee is IntelTee.SGX


@pytest.mark.parametrize("name", READ)
def test_space_around_the_signed_object_does_not_matter(name: str) -> None:
    body = f'\n{{ "signature" : "{GOOD[f"{name}_signature"].upper()}",\t"{OUTER[name]}" : {GOOD[name]} }} '
    assert read(name, GOOD, body=body) == read(name, GOOD)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    "edit",
    [
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(json.loads(text), indent=1),
        lambda text: text.replace("UpToDate", "Uptodate"),
        lambda text: text.replace("OutOfDate", "UpToDate", 1),
        lambda text: text[:-1] + ' ,"more":1}',
        lambda text: text[:-1] + " }",
        lambda text: text.replace(":20", ":21"),
        lambda text: text.replace('"version"', '"\\u0076ersion"'),  # the same JSON in other bytes
    ],
    ids=["spaces", "lines", "status", "level", "member", "space", "number", "escape"],
)
def test_any_other_bytes_are_refused(name: str, edit: Callable[[str], str]) -> None:
    edited = edit(GOOD[name])
    assert edited != GOOD[name]
    with pytest.raises(ChainInvalid, match="signature"):
        read(name, GOOD | {name: edited})


@pytest.mark.parametrize("name", READ)
def test_two_readings_are_refused(name: str) -> None:
    """What one parser takes for the signed object must be what the other reads."""
    good, signature = GOOD[name], GOOD[f"{name}_signature"]
    forged = good.replace("OutOfDate", "UpToDate")
    outer = OUTER[name]
    for body in (
        f'{{"{outer}":{forged},"{outer}":{good},"signature":"{signature}"}}',
        f'{{"{outer}":{good},"{outer}":{forged},"signature":"{signature}"}}',
        f'{{"{outer}":{good},"signature":"{signature}","signature":"{signature}"}}',
        f'{{"{outer}":{good},"signature":"{signature}","x":{{}}}}',
        f'{{"\\u{ord(outer[0]):04x}{outer[1:]}":{forged},"{outer}":{good},"signature":"{signature}"}}',
        f'{{"{outer}":{good},"signature":"{signature}"}}{{}}',
        f'[{{"{outer}":{good},"signature":"{signature}"}}]',
        f'{{"{outer}":{good}}}',
        f'{{"{outer}":{good},"signature":"{signature[:-2]}"}}',
        f'{{"{outer}":{good},"signature":"{signature}00"}}',
        f'{{"{outer}":{good},"signature":"{"00" * 64}"}}',
        f'{{"{outer}":{good},"signature":null}}',
        "",
        "null",
    ):
        with pytest.raises(ChainInvalid):
            read(name, GOOD, body=body)


@pytest.mark.parametrize("name", READ)
def test_a_repeated_member_inside_is_refused_although_signed(name: str) -> None:
    text = GOOD[name][:-1] + ',"version":2}'
    with pytest.raises(ChainInvalid, match="parse"):
        read(name, signed(name, text))


@pytest.mark.parametrize("name", READ)
def test_the_role_of_the_signer(name: str) -> None:
    """A PCK key ends at the same root, and must not write its own TCB info."""
    leaf = INTEL.pck_certificate()
    pck = INTEL.collateral("TDX", signer=INTEL.keys["pck"], signer_chain=INTEL.pck_chain(leaf))
    with pytest.raises(ChainInvalid, match="not signed by a TCB signing certificate"):
        read(name, pck)
    for changes in (
        {"issuer": "platform"},  # by the name of its role, but not from the root itself
        {"issuer": "root", "is_ca": 0},
        {"issuer": "root", "signer": INTEL.keys["platform"]},
    ):
        certificate = INTEL.certificate("tcb", VALIDITY, **changes)
        chain = [certificate, INTEL.ca_certificate, INTEL.root_certificate]
        with pytest.raises(ChainInvalid):
            read(name, INTEL.collateral("TDX", signer_chain=chain))
    with pytest.raises(ChainInvalid, match="signature"):
        read(name, INTEL.collateral("TDX", signer=INTEL.keys["pck"]))
    with pytest.raises(ChainInvalid):
        read(name, SoftwareIntel().collateral("TDX"))
    with pytest.raises(ChainInvalid):
        read(name, INTEL.collateral("TDX", signer_chain=[INTEL.tcb_certificate] * 2))


@pytest.mark.parametrize("name", READ)
def test_the_signer_has_a_p256_key(name: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = INTEL.certificate("tcb", VALIDITY, issuer="root", key=key)
    bundle = INTEL.collateral("TDX", signer_chain=[certificate])
    with pytest.raises(ChainInvalid, match="P-256"):
        read(name, bundle)


@pytest.mark.parametrize("name", READ)
def test_an_expired_signer_is_refused(name: str) -> None:
    past = (VALIDITY[0], AT - timedelta(seconds=1))
    intel = SoftwareIntel(INTEL.root, validities=IntelValidities(tcb_signing=past))
    with pytest.raises(EndorsementExpired):
        read(name, intel.collateral("TDX"))


BAD_MEMBERS: dict[str, list[dict[str, Any]]] = {
    "tcb_info": [
        {"id": "TD"}, {"id": None}, {"version": 2}, {"version": 4}, {"version": "3"}, {"tcbType": 1}, {"fmspc": "00"},
        {"fmspc": "zz" * 6}, {"fmspc": "00a06f000000\n"}, {"pceId": "000"}, {"issueDate": "2020-01-01"},
        {"issueDate": "2020-01-01T00:00:00"}, {"nextUpdate": 5}, {"tcbEvaluationDataNumber": -1},
        {"tcbEvaluationDataNumber": "20"}, {"tcbEvaluationDataNumber": 2**70}, {"tcbLevels": None}, {"tcbLevels": {}},
        {"tcbLevels": [{}]}, {"tdxModule": {}}, {"tdxModuleIdentities": [{"id": "TDX_1"}]},
    ],
    "qe_identity": [
        {"id": "QVE"}, {"version": 1}, {"version": 3}, {"miscselect": "0"}, {"miscselectMask": ""},
        {"attributes": "00"}, {"attributesMask": "gg" * 16}, {"mrsigner": "00" * 31}, {"isvprodid": 65536},
        {"isvprodid": True}, {"tcbLevels": [{"tcb": {"isvsvn": 1}, "tcbStatus": "UpToDate"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, changes in BAD_MEMBERS.items() for change in changes], ids=str
)
def test_documents_of_another_form_are_refused_although_signed(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ChainInvalid, match="parse"):
        read(name, signed(name, json.dumps(document(name) | change)))


def _level(**changes: Any) -> dict[str, Any]:
    level: dict[str, Any] = document("tcb_info")["tcbLevels"][0]
    level["tcb"] |= changes.pop("tcb", {})
    return level | changes


@pytest.mark.parametrize(
    "level",
    [
        _level(tcbStatus="Fine"), _level(tcbStatus=0), _level(tcbDate="2025"), _level(advisoryIDs="X"),
        _level(advisoryIDs=["a b"]), _level(advisoryIDs=["x" * 65]), _level(tcb={"pcesvn": -1}),
        _level(tcb={"sgxtcbcomponents": [{"svn": 1}] * 15}), _level(tcb={"sgxtcbcomponents": [{"svn": 1}] * 17}),
        _level(tcb={"sgxtcbcomponents": [{"svn": 256}] * 16}), _level(tcb={"sgxtcbcomponents": [{}] * 16}),
        _level(tcb={"tdxtcbcomponents": [{"svn": 1}] * 15}), _level(tcb={"tdxtcbcomponents": None}),
    ],
    ids=str,
)  # fmt: skip
def test_levels_of_another_form_are_refused_although_signed(level: dict[str, Any]) -> None:
    with pytest.raises(ChainInvalid):
        read("tcb_info", INTEL.collateral("TDX", tcb_info={"tcbLevels": [level]}))


def test_statuses_of_platforms_are_none_of_modules_and_enclaves() -> None:
    levels = document("qe_identity")["tcbLevels"]
    levels[0]["tcbStatus"] = "SWHardeningNeeded"
    with pytest.raises(ChainInvalid):
        read("qe_identity", INTEL.collateral("TDX", qe_identity={"tcbLevels": levels}))


def test_two_identities_of_one_module_are_refused() -> None:
    identities = document("tcb_info")["tdxModuleIdentities"]
    with pytest.raises(ChainInvalid, match="two identities"):
        read("tcb_info", INTEL.collateral("TDX", tcb_info={"tdxModuleIdentities": identities * 2}))


@pytest.mark.parametrize("name", READ)
@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_item_raises_nothing_else(name: str, data: bytes) -> None:
    for item in (data, pack_document(SignedDocument(GOOD[f"{name}_issuer_chain"], data.decode("latin-1")))):
        with pytest.raises(ChainInvalid):
            READ[name](item, paths(), AT)


@pytest.mark.parametrize("name", TIMES)
def test_real_documents_stand_in_our_order(name: str) -> None:
    """Sorting the levels changes nothing that Intel publishes."""
    bundle = collateral(name)
    info = read_tcb_info(packed(bundle, "tcb_info"), paths(pinned_root()), time_of(name))
    published = [
        tuple(component["svn"] for component in level["tcb"]["sgxtcbcomponents"])
        for level in json.loads(bundle["tcb_info"])["tcbLevels"]
    ]
    assert [level.sgx for level in info.levels] == published
    identity = read_qe_identity(packed(bundle, "qe_identity"), paths(pinned_root()), time_of(name))
    svns = [level["tcb"]["isvsvn"] for level in json.loads(bundle["qe_identity"])["tcbLevels"]]
    assert [level.isv_svn for level in identity.levels] == svns


SERVED = {  # answers of Intel's service in June 2025: which reader, member of the file
    "tdx_tcb_info": ("tcb_info", "tcb_info_json"),
    "tdx_qe_identity": ("qe_identity", "enclave_identity_json"),
    "sgx_qe_identity": ("qe_identity", "enclave_identity_json"),
}


@pytest.mark.parametrize("name", SERVED)
def test_answers_of_the_service(name: str) -> None:
    reader, member = SERVED[name]
    answer = json.loads((VECTORS / f"tdx/pcs-responses/{name}.json").read_text())
    item = pack_document(SignedDocument(answer["issuer_chain"], answer[member]))
    at = datetime(2025, 6, 11, 12, tzinfo=UTC)
    found = READ[reader](item, paths(pinned_root()), at)
    assert found.tee == name[:3]
    assert found.signed.issue_date <= at <= found.signed.next_update


def test_tcb_info_of_version_2_is_not_read() -> None:
    """An answer of the retired API v3, signed well: it has no id, so it could stand for another TEE."""
    answer = json.loads((VECTORS / "tdx/pcs-responses/sgx_tcb_info_v3.json").read_text())
    item = pack_document(SignedDocument(answer["issuer_chain"], answer["tcb_info_json"]))
    with pytest.raises(ChainInvalid, match="parse"):
        read_tcb_info(item, paths(pinned_root()), datetime(2025, 6, 11, 12, tzinfo=UTC))


def test_an_identity_of_2020_and_its_corrupt_copy() -> None:
    """The edition of the signer's certificate that was valid then has the same key as today's."""
    chain = collateral("tdx/automata_v4_00806f")["qe_identity_issuer_chain"]
    at = datetime(2020, 5, 27, 12, tzinfo=UTC)
    good, corrupt = (
        pack_document(SignedDocument(chain, (VECTORS / f"sgx/{name}.json").read_text()))
        for name in ("qe3_identity_2020", "corrupt_qe3_identity")
    )
    found = read_qe_identity(good, paths(pinned_root()), at)
    assert found.signed.evaluation_number == 8
    assert found.signed.next_update == datetime(2020, 6, 11, 11, 17, 45, tzinfo=UTC)
    with pytest.raises(ChainInvalid, match="signature"):
        read_qe_identity(corrupt, paths(pinned_root()), at)


def test_a_signature_of_the_attester_is_one() -> None:
    """The tests above say nothing if everything were refused."""
    text = GOOD["tcb_info"]
    again = raw_signature(INTEL.keys["tcb"], text.encode()).hex()
    assert read("tcb_info", GOOD | {"tcb_info_signature": again}) == read("tcb_info", GOOD)
