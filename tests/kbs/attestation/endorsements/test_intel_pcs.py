"""Intel collateral over the whole machinery: what is asked, what is taken, and what never is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from kbs.attestation.endorsements import EndorsementService, endorsement_service
from kbs.attestation.endorsements.contents import read_contents
from kbs.attestation.endorsements.intel import (
    IntelTee,
    PckCa,
    SignedDocument,
    SignedList,
    items_from_bundle,
    pack_document,
    pack_list,
    parse_name,
    tcb_name,
    unpack_document,
    unpack_list,
)
from kbs.attestation.endorsements.intel_pcs import base_of
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import tdx
from kbs.client.attesters.intel import IntelValidities, SoftwareIntel
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.config import EndorsementSettings
from kbs.errors import ConfigInvalid, EndorsementsUnavailable
from kbs.protocol.tee import Tee
from tests.fakes.vendors import FakeVendors, document

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = b"\1" * 48
VECTORS = Path(__file__).parents[3] / "vectors" / "tdx"
PCS = "https://api.trustedservices.intel.com"


@cache
def attester() -> SoftwareTdx:
    return SoftwareTdx()


@cache
def evidence() -> Evidence:
    return Evidence(Tee.TDX, attester().evidence(NONCE))


def vendors(**changes: Any) -> FakeVendors:
    return FakeVendors(intel=attester().intel, **changes)


def service(
    fake: FakeVendors, folder: Path, *, clock: Callable[[], datetime] = lambda: NOW, **settings: Any
) -> EndorsementService:
    return endorsement_service(
        EndorsementSettings(cache=folder / "cache", **settings), folder, clock, client=fake.client(), roots=fake.roots
    )


def needs() -> list[EndorsementNeed]:
    return list(tdx.build(VerifierOptions(anchors=attester().anchors)).needs(evidence()))


def names() -> list[str]:
    return [need.name for need in needs()]


def test_a_quote_is_verified_with_what_intel_serves(tmp_path: Path) -> None:
    fake = vendors()
    found = service(fake, tmp_path).fetch(needs())
    verifier = tdx.build(VerifierOptions(anchors=attester().anchors))
    (claims,) = verifier.verify(evidence(), found, Binding(NONCE), NOW)
    assert (claims.claims["tcb_status"], claims.claims["revocation"]) == ("UpToDate", "checked")
    fmspc = attester().intel.platform.fmspc.hex()
    assert sorted(fake.asked) == [
        f"{PCS}/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        f"{PCS}/tdx/certification/v4/qe/identity?update=early",
        f"{PCS}/tdx/certification/v4/tcb?fmspc={fmspc}&update=early",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    ]


@pytest.mark.parametrize("base", ["https://pccs.local:8081", "https://pccs.local:8081/sgx/certification/v4/"])
def test_a_pccs_is_asked_for_everything(base: str, tmp_path: Path) -> None:
    fake = vendors()
    found = service(fake, tmp_path, intel_urls=(base,), tcb_update="standard").fetch(needs())
    assert set(found.items) == set(names())
    assert all(url.startswith("https://pccs.local:8081/") for url in fake.asked)
    assert "https://pccs.local:8081/sgx/certification/v4/rootcacrl" in fake.asked
    assert sum("update=standard" in url for url in fake.asked) == 2


def test_services_are_asked_in_the_order_of_the_setting(tmp_path: Path) -> None:
    fake = vendors()
    fake.changed["pccs.local"] = lambda: httpx.Response(503)
    settings: dict[str, Any] = {
        "intel_urls": ("https://pccs.local", PCS),
        "azure_url": "https://global.acccache.azure.net",
    }
    fake.changed["azure"] = lambda: httpx.Response(404)
    found = service(fake, tmp_path, **settings).fetch(needs()[:1])
    assert set(found.items) == {names()[0]}
    hosts = [httpx.URL(url).host for url in fake.asked]
    assert hosts == ["global.acccache.azure.net", "pccs.local", "pccs.local", "api.trustedservices.intel.com"]


def test_editions_do_not_mix(tmp_path: Path) -> None:
    fake = vendors()
    service(fake, tmp_path).fetch(needs()[:1])
    service(fake, tmp_path, tcb_update="standard").fetch(needs()[:1])
    assert [url.rpartition("=")[2] for url in fake.asked] == ["early", "standard"]


def test_the_base_of_an_address() -> None:
    for text in ("", "/", "/sgx/certification/v4", "/sgx/certification/v4/", "/tdx/certification/v3/"):
        assert base_of(f"https://host{text}") == "https://host"
    assert base_of("https://host/mirror/sgx/certification/v4/") == "https://host/mirror"


# --- what is taken ---------------------------------------------------------------------------------------------------


def other() -> SoftwareIntel:
    return SoftwareIntel(TestRoot(label="other"))


def _changed_document(**changes: Any) -> httpx.Response:
    return document(attester().intel.collateral("TDX", **changes), "tcb_info")


def _edited(old: bytes, new: bytes) -> httpx.Response:
    answer = _changed_document()
    assert old in answer.content
    return httpx.Response(200, headers=answer.headers, content=answer.content.replace(old, new))


def _with_chain(chain: str) -> httpx.Response:
    answer = _changed_document()
    return httpx.Response(200, headers={"TCB-Info-Issuer-Chain": chain}, content=answer.content)


WRONG_TCB: dict[str, Callable[[], httpx.Response]] = {
    "another root's": lambda: document(other().collateral("TDX"), "tcb_info"),
    "signed by a PCK CA": lambda: _changed_document(
        signer=attester().intel.keys["platform"], signer_chain=[attester().intel.ca_certificate]
    ),
    "edited": lambda: _edited(b'"UpToDate"', b'"uptodate"'),
    "with a space": lambda: _edited(b'{"tcbInfo":{', b'{"tcbInfo":{ '),
    "signature first": lambda: httpx.Response(200, headers=_changed_document().headers, content=b'{"signature":""}'),
    "an identity": lambda: httpx.Response(
        200,
        headers=_changed_document().headers,
        content=document(attester().intel.collateral("TDX"), "qe_identity").content,
    ),
    "of another platform": lambda: _changed_document(tcb_info={"fmspc": "00906ed50000"}),
    "of no platform": lambda: _changed_document(tcb_info={"fmspc": None}),
    "of SGX": lambda: document(attester().intel.collateral("SGX"), "tcb_info"),
    "no chain": lambda: httpx.Response(200, content=_changed_document().content),
    "a broken chain": lambda: _with_chain("%2D%2D%2D"),
    "a chain that is not text": lambda: _with_chain("%FF%FE"),
    "no times": lambda: _changed_document(tcb_info='{"id":"TDX"}'),
    "not JSON": lambda: _changed_document(tcb_info="{x}"),
    "not text": lambda: httpx.Response(200, headers=_changed_document().headers, content=b"\xff\xfe"),
    "empty": lambda: httpx.Response(200, headers=_changed_document().headers, content=b""),
    "a page": lambda: httpx.Response(200, text="<html>please log in</html>"),
    "a redirect": lambda: httpx.Response(302, headers={"Location": "https://evil.example/"}),
    "a large header": lambda: _with_chain("x" * 70_000),
    "too large": lambda: httpx.Response(200, content=bytes(2 * 1024 * 1024 + 1)),
    "an error": lambda: httpx.Response(500),
}


@pytest.mark.parametrize("answer", WRONG_TCB.values(), ids=WRONG_TCB)
def test_other_answers_are_no_tcb_info_and_are_not_remembered(
    answer: Callable[[], httpx.Response], tmp_path: Path
) -> None:
    fake = vendors()
    fake.changed["/tcb?"] = answer
    with pytest.raises(EndorsementsUnavailable):
        service(fake, tmp_path).fetch(needs())
    assert not list((tmp_path / "cache").glob("*.endorsement"))
    assert all("evil" not in url for url in fake.asked)


def test_an_identity_of_the_other_enclave_is_refused(tmp_path: Path) -> None:
    fake = vendors()
    fake.changed["/tdx/certification/v4/qe/identity"] = lambda: document(
        attester().intel.collateral("SGX"), "qe_identity"
    )
    with pytest.raises(EndorsementsUnavailable):
        service(fake, tmp_path).fetch([EndorsementNeed("intel/qe-identity/tdx", required=True)])
    assert service(fake, tmp_path).fetch([EndorsementNeed("intel/qe-identity/sgx", required=True)]).items


WRONG_CRL: dict[str, Callable[[], httpx.Response]] = {
    "another root's": lambda: httpx.Response(200, content=bytes.fromhex(other().collateral("TDX")["root_ca_crl"])),
    "a PCK list": lambda: httpx.Response(200, content=bytes.fromhex(attester().intel.collateral("TDX")["pck_crl"])),
    "half of it": lambda: httpx.Response(
        200, content=bytes.fromhex(attester().intel.collateral("TDX")["root_ca_crl"])[:90]
    ),
    "odd hex": lambda: httpx.Response(200, content=b"308"),
}


@pytest.mark.parametrize("answer", WRONG_CRL.values(), ids=WRONG_CRL)
def test_other_answers_are_no_root_list(answer: Callable[[], httpx.Response], tmp_path: Path) -> None:
    fake = vendors()
    fake.changed["IntelSGXRootCA"] = answer
    with pytest.raises(EndorsementsUnavailable):
        service(fake, tmp_path).fetch([EndorsementNeed("intel/root-crl", required=True)])


def test_a_pck_list_of_the_other_ca_is_refused(tmp_path: Path) -> None:
    fake = vendors()
    intel = SoftwareIntel(attester().intel.root, ca="processor")
    bundle = intel.collateral("TDX")
    fake.changed["pckcrl"] = lambda: httpx.Response(
        200,
        headers={"SGX-PCK-CRL-Issuer-Chain": quote(bundle["pck_crl_issuer_chain"])},
        content=bytes.fromhex(bundle["pck_crl"]),
    )
    with pytest.raises(EndorsementsUnavailable):
        service(fake, tmp_path).fetch([EndorsementNeed("intel/pck-crl/platform", required=True)])
    found = service(fake, tmp_path).fetch([EndorsementNeed("intel/pck-crl/processor", required=True)])
    assert unpack_list(found.items["intel/pck-crl/processor"]).crl.hex() == bundle["pck_crl"]


def test_an_older_one_than_before_is_not_taken(tmp_path: Path) -> None:
    fake = vendors()
    clock = [NOW]
    under = service(fake, tmp_path, clock=lambda: clock[0])
    dates = {"issueDate": "2026-06-01T00:00:00Z", "nextUpdate": "2026-07-01T00:00:00Z"}
    fake.changed["/tcb?"] = lambda: _changed_document(tcb_info=dates)
    first = under.fetch(needs()[:1])
    clock[0] += timedelta(hours=7)  # to be asked for anew
    fake.changed["/tcb?"] = lambda: _changed_document(tcb_info=dates | {"issueDate": "2026-05-31T00:00:00Z"})
    assert under.fetch(needs()[:1]) == first
    fake.changed["/tcb?"] = lambda: _changed_document(tcb_info=dates | {"issueDate": "2026-06-02T00:00:00Z"})
    clock[0] += timedelta(minutes=2)
    assert under.fetch(needs()[:1]) != first


def test_an_absent_platform_is_absent(tmp_path: Path) -> None:
    name = tcb_name(IntelTee.TDX, bytes(6))
    assert service(vendors(), tmp_path).fetch([EndorsementNeed(name, required=True)]).items == {}


@pytest.mark.parametrize(
    ("file", "name", "header", "member"),
    [
        ("tdx_tcb_info", "intel/tcb/tdx/{fmspc}", "TCB-Info-Issuer-Chain", "tcb_info_json"),
        ("sgx_tcb_info_v3", "intel/tcb/sgx/{fmspc}", "SGX-TCB-Info-Issuer-Chain", "tcb_info_json"),
        ("tdx_qe_identity", "intel/qe-identity/tdx", "SGX-Enclave-Identity-Issuer-Chain", "enclave_identity_json"),
        ("sgx_qe_identity", "intel/qe-identity/sgx", "SGX-Enclave-Identity-Issuer-Chain", "enclave_identity_json"),
        ("pck_crl_platform", "intel/pck-crl/platform", "SGX-PCK-CRL-Issuer-Chain", "crl_data"),
        ("pck_crl_processor", "intel/pck-crl/processor", "SGX-PCK-CRL-Issuer-Chain", "crl_data"),
    ],
)
def test_real_answers_are_taken_under_intels_root(
    file: str, name: str, header: str, member: str, tmp_path: Path
) -> None:
    captured = json.loads((VECTORS / "pcs-responses" / f"{file}.json").read_text())
    body = captured[member]
    if "{fmspc}" in name:
        name = name.format(fmspc=json.loads(body)["tcbInfo"]["fmspc"].lower())
    fake = FakeVendors()
    fake.changed["https://"] = lambda: httpx.Response(
        200, headers={header: quote(captured["issuer_chain"])}, content=body.encode()
    )
    at = datetime(2025, 6, 11, 12, tzinfo=UTC)
    item = service(fake, tmp_path, clock=lambda: at).fetch([EndorsementNeed(name, required=True)]).items[name]
    contents = read_contents(name, item)
    assert contents.issued_at is not None
    assert contents.issued_at < at < contents.valid_until


# --- how often -------------------------------------------------------------------------------------------------------


def test_a_thousand_guests_that_start_together_ask_once(tmp_path: Path) -> None:
    fake = vendors(delay=0.05)
    under = service(fake, tmp_path)
    wanted = needs()
    found: list[Endorsements] = []
    start = threading.Barrier(100)

    def guests() -> None:
        start.wait()
        found.extend(under.cached(wanted) or under.fetch(wanted) for _ in range(10))

    threads = [threading.Thread(target=guests) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1000
    assert all(set(each.items) == set(names()) for each in found)
    assert len(fake.asked) == len(set(fake.asked)) == 4


@pytest.mark.parametrize(("hours", "usable"), [(None, True), (24, False), (25, True)])
def test_a_limit_to_how_stale(hours: int | None, usable: bool, tmp_path: Path) -> None:
    """Asked for anew after six hours; the vendor is away for another 24 and a bit."""
    fake = vendors()
    clock = [NOW]
    under = service(fake, tmp_path, clock=lambda: clock[0], max_stale_hours=hours)
    first = under.fetch(needs()[:1])
    clock[0] += timedelta(hours=30, minutes=10)
    fake.changed["https://"] = lambda: httpx.Response(503)
    if usable:
        assert under.fetch(needs()[:1]) == first
    else:
        with pytest.raises(EndorsementsUnavailable):
            under.fetch(needs()[:1])


def test_nothing_is_used_beyond_its_own_end(tmp_path: Path) -> None:
    end = NOW + timedelta(days=1)
    intel = SoftwareIntel(validities=IntelValidities(tcb_info=(NOW - timedelta(days=1), end)))
    fake = FakeVendors(intel=intel)
    clock = [NOW]
    under = service(fake, tmp_path, clock=lambda: clock[0], max_stale_hours=1000)
    need = [EndorsementNeed(tcb_name(IntelTee.TDX, intel.platform.fmspc), required=True)]
    assert under.fetch(need).items
    fake.changed["https://"] = lambda: httpx.Response(503)
    clock[0] = end
    assert under.fetch(need).items
    clock[0] = end + timedelta(minutes=2)
    with pytest.raises(EndorsementsUnavailable):
        under.fetch(need)


def test_an_authority_of_ones_own_is_a_file_of_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    settings = EndorsementSettings(cache=tmp_path / "cache", ca_file=Path("ca.pem"))
    with pytest.raises(ConfigInvalid):
        endorsement_service(settings, tmp_path, lambda: NOW)


# --- names and items -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "intel/tcb/tdx/00806F050000", "intel/tcb/tdx/00806f05000", "intel/tcb/tdx/../00806f0500",
    "intel/tcb/sev/00806f050000",
    "intel/qe-identity/", "intel/pck-crl/root", "intel/root-crl/", "intel/", "intel/root-crl\n",
])  # fmt: skip
def test_other_names_mean_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        parse_name(name)


def test_names_are_read_back() -> None:
    assert [parse_name(name).name for name in names()] == names()
    with pytest.raises(ValueError, match="6 bytes"):
        tcb_name(IntelTee.SGX, b"")


@pytest.mark.parametrize(
    "item",
    [b"", b"[]", b"{}", b'{"issuer_chain":"a"}', b'{"issuer_chain":"a","body":1}', b'{"issuer_chain":1,"body":"a"}',
     b'{"issuer_chain":"a","body":"b","more":"c"}', b'{"issuer_chain":"a","crl":"*"}', b'{"issuer_chain":{"a":{}}}'],
)  # fmt: skip
def test_other_items_are_refused(item: bytes) -> None:
    with pytest.raises(ValueError, match="collateral"):
        unpack_document(item)
    with pytest.raises(ValueError, match="collateral"):
        unpack_list(item)


def test_items_are_read_back() -> None:
    text = SignedDocument("-----\n", '{"a":"\u00e9\\n"} ')
    assert unpack_document(pack_document(text)) == text
    listed = SignedList("x", bytes(range(256)))
    assert unpack_list(pack_list(listed)) == listed


def test_a_bundle_gives_what_it_has() -> None:
    bundle = attester().intel.collateral("TDX")
    fmspc = attester().intel.platform.fmspc
    items = items_from_bundle(bundle, IntelTee.TDX, fmspc, PckCa.PLATFORM)
    assert set(items) == set(names())
    assert items_from_bundle({}, IntelTee.TDX, fmspc, PckCa.PLATFORM) == {}
    for member in bundle:
        for wrong in (None, 1, [bundle[member]]):
            with pytest.raises(ValueError, match=r"collateral|hex"):
                items_from_bundle({**bundle, member: wrong}, IntelTee.TDX, fmspc, PckCa.PLATFORM)
