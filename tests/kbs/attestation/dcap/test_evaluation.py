"""TCB levels converge as Intel says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.dcap import EnclaveReport, TdReport, parse_quote
from kbs.attestation.dcap.collateral import QeIdentity, Signed, TcbInfo, read_qe_identity, read_tcb_info
from kbs.attestation.dcap.evaluation import Evaluation, check_qe, evaluate
from kbs.attestation.dcap.levels import EnclaveLevel, Match, PlatformLevel, TcbStatus, first
from kbs.attestation.dcap.pck import PckPlatform, read_platform
from kbs.attestation.dcap.quote import parse_enclave_report
from kbs.attestation.endorsements.intel import IntelTee, SignedDocument, pack_document
from kbs.attestation.x509 import PathVerifier
from kbs.client.attesters.intel import SoftwareIntel
from kbs.client.attesters.intel_pck import Platform
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.errors import SignerNotTrusted, TcbMismatch

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
TD = SoftwareTdx(version=5)
INTEL = TD.intel
PATHS = PathVerifier((INTEL.root_certificate,), max_length=3)
DAY = {status: datetime.fromisoformat(f"{date}T00:00:00Z") for status, date in
       (("good", "2025-05-14"), ("good config", "2024-03-13"))}  # fmt: skip


def item(bundle: dict[str, Any], name: str, outer: str) -> bytes:
    body = f'{{"{outer}":{bundle[name]},"signature":"{bundle[f"{name}_signature"]}"}}'
    return pack_document(SignedDocument(bundle[f"{name}_issuer_chain"], body))


def tcb_info(**changes: Any) -> TcbInfo:
    return read_tcb_info(item(INTEL.collateral("TDX", tcb_info=changes), "tcb_info", "tcbInfo"), PATHS, AT)


def qe_identity(**changes: Any) -> QeIdentity:
    bundle = INTEL.collateral("TDX", qe_identity=changes)
    return read_qe_identity(item(bundle, "qe_identity", "enclaveIdentity"), PATHS, AT)


INFO = tcb_info()
IDENTITY = qe_identity()


def platform(component: int = 10, pce_svn: int = 16) -> PckPlatform:
    return read_platform(INTEL.pck_certificate(Platform(components=(component,) * 16, pce_svn=pce_svn)))


def td(svn: tuple[int, int, int] = (12, 1, 5), svn2: tuple[int, int, int] | None = None, **fields: Any) -> TdReport:
    fields["tee_tcb_svn"] = bytes(svn) + bytes(13)
    if svn2 is not None:
        fields["tee_tcb_svn2"] = bytes(svn2) + bytes(13)
    body = parse_quote(TD.quote(b"", fields=fields, version=5 if svn2 else 4)).body
    assert isinstance(body, TdReport)
    return body


def qe_report(**fields: Any) -> EnclaveReport:
    return parse_enclave_report(parse_quote(TD.quote(b"", qe=fields)).qe_report)


def evaluated(
    pck: PckPlatform | None = None, body: TdReport | None = None, qe_svn: int = 8, info: TcbInfo = INFO
) -> Evaluation:
    return evaluate(pck or platform(), body or td(), info, check_qe(qe_report(isv_svn=qe_svn), IDENTITY))


@pytest.mark.parametrize(
    ("component", "pce_svn", "status", "advisories"),
    [
        (10, 16, "UpToDate", ()),
        (255, 65535, "UpToDate", ()),
        (10, 15, "SWHardeningNeeded", ("INTEL-SA-90615",)),
        (9, 16, "ConfigurationNeeded", ("INTEL-SA-90289",)),
        (6, 14, "ConfigurationAndSWHardeningNeeded", ("INTEL-SA-90615", "INTEL-SA-90289")),
        (6, 13, "OutOfDate", ("INTEL-SA-90657",)),
        (3, 12, "OutOfDateConfigurationNeeded", ("INTEL-SA-90657", "INTEL-SA-90289")),
    ],
)
def test_platform_levels(component: int, pce_svn: int, status: str, advisories: tuple[str, ...]) -> None:
    verdict = evaluated(platform(component, pce_svn)).verdict
    assert (verdict.status, verdict.advisories) == (status, advisories)


@pytest.mark.parametrize("place", range(16))
def test_every_component_counts(place: int) -> None:
    components = (10,) * place + (9,) + (10,) * (15 - place)
    pck = read_platform(INTEL.pck_certificate(Platform(components=components)))
    assert evaluated(pck).verdict.status is TcbStatus.CONFIGURATION_NEEDED


def test_tdx_components_count_from_the_third_on() -> None:
    """A module with an identity of its own answers for the first two."""
    assert evaluated(body=td((11, 1, 4))).verdict.status is TcbStatus.OUT_OF_DATE
    assert evaluated(body=td((11, 1, 255))).verdict.status is TcbStatus.UP_TO_DATE
    assert evaluated(body=td((5, 0, 5))).verdict.status is TcbStatus.UP_TO_DATE
    assert evaluated(body=td((4, 0, 5))).verdict.status is TcbStatus.OUT_OF_DATE


@pytest.mark.parametrize(("component", "pce_svn"), [(1, 5), (2, 11)])
def test_revoked_levels_are_refused(component: int, pce_svn: int) -> None:
    with pytest.raises(TcbMismatch, match="revoked"):
        evaluated(platform(component, pce_svn))


def test_below_every_level_it_is_refused() -> None:
    for pck, body in ((platform(0, 16), td()), (platform(10, 4), td())):
        with pytest.raises(TcbMismatch, match="no TCB level"):
            evaluated(pck, body)
    with pytest.raises(TcbMismatch, match="no TCB level"):
        evaluated(body=td((0, 1, 5)))
    with pytest.raises(TcbMismatch, match="no TCB level"):
        evaluated(qe_svn=0)


OUT_OF_DATE = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
}
AT_LEVEL = {
    "UpToDate": (10, 16),
    "SWHardeningNeeded": (10, 14),
    "ConfigurationNeeded": (7, 14),
    "ConfigurationAndSWHardeningNeeded": (6, 14),
    "OutOfDate": (6, 12),
    "OutOfDateConfigurationNeeded": (3, 12),
}


@pytest.mark.parametrize("status", AT_LEVEL)
def test_a_module_or_qe_out_of_date_makes_the_whole_so(status: str) -> None:
    pck = platform(*AT_LEVEL[status])
    for found in (evaluated(pck, td((4, 1, 5))), evaluated(pck, qe_svn=5), evaluated(pck, td((4, 1, 5)), qe_svn=7)):
        assert found.verdict.status == OUT_OF_DATE[status]
        assert found.platform.status == status
    module, qe = evaluated(pck, td((4, 1, 5))), evaluated(pck, qe_svn=5)
    assert module.verdict.advisories[-1] == "INTEL-SA-90001"
    assert qe.verdict.advisories[-1] == "INTEL-SA-90002"


@pytest.mark.parametrize("status", AT_LEVEL)
def test_a_module_or_qe_revoked_is_refused(status: str) -> None:
    pck = platform(*AT_LEVEL[status])
    for body, qe_svn in ((td((1, 1, 5)), 8), (td(), 1)):
        with pytest.raises(TcbMismatch, match="revoked"):
            evaluated(pck, body, qe_svn)


def test_advisories_stand_once_and_in_order() -> None:
    found = evaluated(platform(6, 12), td((4, 1, 5)), qe_svn=5)
    assert found.verdict.advisories == ("INTEL-SA-90657", "INTEL-SA-90001", "INTEL-SA-90002")


@pytest.mark.parametrize(
    ("status", "qe_svn", "svn2", "expected"),
    [
        ("UpToDate", 8, (11, 1, 5), "TDRelaunchAdvised"),
        ("SWHardeningNeeded", 8, (255, 1, 255), "TDRelaunchAdvised"),
        ("ConfigurationNeeded", 8, (11, 1, 5), "TDRelaunchAdvisedConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", 8, (11, 1, 5), "TDRelaunchAdvisedConfigurationNeeded"),
        ("OutOfDate", 8, (11, 1, 5), "OutOfDate"),
        ("OutOfDateConfigurationNeeded", 8, (11, 1, 5), "OutOfDateConfigurationNeeded"),
        ("UpToDate", 5, (11, 1, 5), "OutOfDate"),  # the QE is out of date as well
        ("UpToDate", 8, (10, 1, 5), "OutOfDate"),  # the running module is not the newest
        ("UpToDate", 8, (11, 1, 4), "OutOfDate"),  # nor its loader
        ("UpToDate", 8, (11, 2, 5), "OutOfDate"),  # a version nobody knows
        ("UpToDate", 8, (5, 0, 5), "TDRelaunchAdvised"),  # version 0: both from the newest platform level
        ("UpToDate", 8, (4, 0, 5), "OutOfDate"),
    ],
)
def test_relaunch(status: str, qe_svn: int, svn2: tuple[int, int, int], expected: str) -> None:
    """A module updated under a running TD: launched out of date, up to date now."""
    found = evaluated(platform(*AT_LEVEL[status]), td((4, 1, 5), svn2), qe_svn)
    assert found.verdict.status == expected


def test_no_relaunch_without_a_later_svn_or_an_outdated_module() -> None:
    assert evaluated(body=td((4, 1, 5))).verdict.status is TcbStatus.OUT_OF_DATE
    assert evaluated(platform(6, 12), td((11, 1, 5), (11, 1, 5))).verdict.status is TcbStatus.OUT_OF_DATE


def test_what_runs_now_is_told_apart() -> None:
    found = evaluated(body=td((4, 1, 5), (11, 1, 5)))
    assert found.current is not None
    assert (found.current.status, found.current.advisories) == ("UpToDate", ())
    assert found.current.out_of_date_since is None
    found = evaluated(body=td((11, 1, 5), (4, 1, 5)))
    assert found.current is not None
    assert (found.verdict.status, found.current.status) == ("UpToDate", "OutOfDate")
    version_0 = evaluated(body=td((11, 1, 5), (5, 0, 5))).current
    assert version_0 is not None
    assert version_0.status is TcbStatus.UP_TO_DATE
    for nowhere in ((11, 2, 5), (0, 1, 5), (0, 0, 0)):
        current = evaluated(body=td((11, 1, 5), nowhere)).current
        assert current is None or current.status is TcbStatus.REVOKED
    assert evaluated().current is None


@pytest.mark.parametrize(
    ("pck", "body", "qe_svn", "since"),
    [
        (platform(6, 13), td(), 8, "2024-03-13"),  # the oldest good level above it
        (platform(3, 12), td(), 8, "2024-03-13"),
        (platform(), td((4, 1, 5)), 8, "2025-05-14"),
        (platform(), td(), 5, "2025-05-14"),
        (platform(6, 13), td((4, 1, 5)), 5, "2024-03-13"),  # the earliest of the three
        (platform(), td((4, 1, 5), (11, 1, 5)), 8, "2025-05-14"),  # relaunch advised
        (platform(), td(), 8, None),
        (platform(6, 14), td(), 8, None),
    ],
)
def test_since_when_it_is_out_of_date(pck: PckPlatform, body: TdReport, qe_svn: int, since: str | None) -> None:
    expected = None if since is None else datetime.fromisoformat(f"{since}T00:00:00Z")
    assert evaluated(pck, body, qe_svn).verdict.out_of_date_since == expected


def test_without_a_good_newer_level_its_own_date_counts() -> None:
    date = datetime(2020, 1, 1, tzinfo=UTC)
    level = EnclaveLevel(1, TcbStatus.OUT_OF_DATE, date, ())
    revoked = EnclaveLevel(9, TcbStatus.REVOKED, AT, ())
    found = first([revoked, level], lambda each: each is level, "x")
    assert found == Match(TcbStatus.OUT_OF_DATE, date, (), date)


@pytest.mark.parametrize("changes", [{"fmspc": "00a06f000000"}, {"pceId": "0001"}])
def test_tcb_info_of_another_platform_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(TcbMismatch, match="not that of the platform"):
        evaluated(info=tcb_info(**changes))


def module(**changes: str) -> dict[str, str]:
    return {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8} | changes


LEVELS = [{"tcb": {"isvsvn": 1}, "tcbDate": "2025-05-14T00:00:00Z", "tcbStatus": "UpToDate"}]


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("identity", "fields"),
    [
        (module(), {"mrsigner_seam": bytes(47) + b"\1"}),
        (module(mrsigner="00" * 47 + "01"), {}),
        (module(), {"seam_attributes": b"\1" + bytes(7)}),
        (module(attributes="01" + "00" * 7), {}),
        (module(attributesMask="00" * 8), {"seam_attributes": b"\1" + bytes(7)}),  # outside the mask
        (module(attributesMask="FE" + "FF" * 7), {"seam_attributes": b"\1" + bytes(7)}),
    ],
)
def test_another_module_is_refused(version: int, identity: dict[str, str], fields: dict[str, Any]) -> None:
    info = tcb_info(tdxModule=identity, tdxModuleIdentities=[{"id": "TDX_01", **identity, "tcbLevels": LEVELS}])
    with pytest.raises(TcbMismatch, match="another than TCB info describes"):
        evaluated(body=td((12, version, 5), **fields), info=info)


def test_modules_of_unknown_versions_are_refused() -> None:
    with pytest.raises(TcbMismatch, match="does not know"):
        evaluated(body=td((12, 3, 5)))
    with pytest.raises(TcbMismatch, match="does not know"):
        evaluated(body=td((12, 0, 5)), info=tcb_info(tdxModule=None))
    hexadecimal = tcb_info(tdxModuleIdentities=[{"id": "TDX_1A", **module(), "tcbLevels": LEVELS}])
    assert evaluated(body=td((12, 0x1A, 5)), info=hexadecimal).verdict.status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize(
    "fields",
    [
        {"mr_signer": b"x" * 32},
        {"isv_prod_id": 1},
        {"misc_select": 1},
        {"flags": 0x13},  # debug
        {"flags": 0x31},
        {"flags": 0x01},
    ],
    ids=str,
)
def test_another_quoting_enclave_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SignerNotTrusted):
        check_qe(qe_report(**fields), IDENTITY)


def test_bits_outside_the_masks_of_the_qe_do_not_matter() -> None:
    assert check_qe(qe_report(flags=0x15, xfrm=0xFFFF), IDENTITY).status is TcbStatus.UP_TO_DATE
    masked = qe_identity(miscselectMask="00000000")
    assert check_qe(qe_report(misc_select=1), masked).status is TcbStatus.UP_TO_DATE


def test_the_order_of_levels_is_ours() -> None:
    """A list in another order must not move a platform to a better level."""
    document = INTEL.tcb_info("TDX")
    identities = document["tdxModuleIdentities"]
    identities[0]["tcbLevels"].reverse()
    shuffled = tcb_info(tcbLevels=document["tcbLevels"][::-1], tdxModuleIdentities=identities)
    assert shuffled == tcb_info_like(shuffled.signed)
    assert qe_identity(tcbLevels=INTEL.qe_identity("TDX")["tcbLevels"][::-1]).levels == IDENTITY.levels


def tcb_info_like(signed: Signed) -> TcbInfo:
    return TcbInfo(signed, INFO.tee, INFO.fmspc, INFO.pce_id, INFO.levels, INFO.module, INFO.identities)


def test_tcb_info_for_sgx_matches_no_td() -> None:
    levels = tuple(PlatformLevel(each.sgx, None, each.pce_svn, each.status, each.date, ()) for each in INFO.levels)
    info = TcbInfo(INFO.signed, IntelTee.SGX, INFO.fmspc, INFO.pce_id, levels, INFO.module, INFO.identities)
    with pytest.raises(TcbMismatch):
        evaluated(info=info)


def test_enclaves_have_no_module() -> None:
    intel = SoftwareIntel(TD.intel.root)
    body = parse_enclave_report(parse_quote(TD.quote(b"")).qe_report)
    found = evaluate(read_platform(intel.pck_certificate()), body, INFO, check_qe(qe_report(), IDENTITY))
    assert (found.module, found.current, found.verdict.status) == (None, None, "UpToDate")
