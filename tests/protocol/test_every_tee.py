"""Whole handshakes of every TEE: what is genuine gets its secret, all that is wrong is refused for its own reason."""

from __future__ import annotations

import base64
import copy
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs import extensions
from kbs.attestation.model import Evidence, VerifierOptions
from kbs.attestation.registered import MEASURED_IN_PCR_8
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.client.attesters.se import RequestUnreadable
from kbs.client.tee_keys import TeeKeyPair
from kbs.protocol.tee import Tee
from tests.fakes.broker import START, Edge
from tests.protocol.every_tee import COMPANION, DENIED, DEVICES, INIT_DATA, RELEASED, House, claims_of, spoilt
from tests.protocol.wrong_evidence import HARMLESS, NOT_WRONG, UNSAFE, WRONG

TEES = tuple(SOFTWARE_ATTESTERS)
WITHOUT_INIT_DATA = {Tee.CSV, Tee.SE}
"""Their evidence has no place for it (CSV before V3)."""
WITHOUT_DATES = {Tee.CCA, Tee.CSV, Tee.HYGON_DCU, Tee.TPM}
"""Enrolled keys, and Hygon's certificates, are valid until somebody withdraws them."""
BEFORE, AFTER = datetime(2019, 12, 31, tzinfo=UTC), datetime(2049, 1, 2, tzinfo=UTC)
NOT_OF_THIS_TEE = {"evidence_malformed", "evidence_version_unsupported", "signature_invalid"}
MAKERS = ("evidence", "report", "quote", "document", "token", "_certification")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, shared_modules: None) -> Iterator[House]:
    house = House.built(tmp_path_factory.mktemp("every") / "data", COMPANION, *TEES)
    for tee in (COMPANION, *TEES):
        house.approve(tee)
    yield house
    house.broker.close()


@pytest.fixture
def house(furnished: House, edge: Edge) -> House:
    """The same broker behind each of its edges."""
    furnished.broker.edge = edge
    furnished.broker.clock.now = START
    return furnished


@pytest.fixture
def inside(furnished: House) -> House:
    """The same broker behind the fast one, for what happens behind both."""
    furnished.broker.edge = Edge.ASGI
    furnished.broker.clock.now = START
    return furnished


@pytest.mark.parametrize("tee", TEES)
def test_the_genuine_one_gets_its_secret(house: House, tee: Tee) -> None:
    assert house.of(tee) == RELEASED


@pytest.mark.parametrize("tee", TEES)
def test_init_data_is_bound_or_not_told_to_policies(house: House, tee: Tee) -> None:
    """Where the evidence carries their digest, the policy sees them; where it cannot, it does not."""
    handshake = house.handshake(tee, init_data=INIT_DATA)
    answer = handshake.attest()
    assert answer.status == 200, answer.body
    submods = claims_of(answer.json["token"])["submods"]
    told = submods["cpu0"]["ear.veraison.annotated-evidence"].get("init_data_claims")
    binds = tee not in DEVICES | WITHOUT_INIT_DATA
    assert (told is not None) == (binds or tee in DEVICES)  # beside a device, the CPU binds them


@pytest.mark.parametrize("tee", [tee for tee in TEES if tee not in DEVICES | WITHOUT_INIT_DATA])
def test_other_init_data_are_refused(house: House, tee: Tee) -> None:
    handshake = house.handshake(tee, init_data=INIT_DATA)
    other = {"format": "toml", "body": INIT_DATA.replace("policy.rego", "other.rego")}
    assert house.outcome(handshake, body=handshake.changed(init_data=other)) == "init_data_mismatch"
    without = house.handshake(tee)
    document = {"format": "toml", "body": INIT_DATA}
    assert house.outcome(without, body=without.changed(init_data=document)) == "init_data_mismatch"


def _register(house: House, name: str, text: str) -> None:
    document = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    body = json.dumps({"owner": "team-a", "document": document}).encode()
    answer = house.broker.admin("PUT", f"admin/init-data/{name}", body, token=house.broker.token_for("admin"))
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("tee", [Tee.SNP, Tee.TDX, *sorted(MEASURED_IN_PCR_8)])
def test_a_guest_that_sends_none_has_the_registered_document_of_its_pcr_8(inside: House, tee: Tee) -> None:
    """Peer pods (guest-components 6.3): the document was measured, and `init-data` is null."""

    def told(init_data: str | None, sent: Any = None) -> Any:
        handshake = inside.handshake(tee, init_data=init_data)
        answer = handshake.attest(body=handshake.changed(init_data=sent))
        assert answer.status == 200, answer.body
        return claims_of(answer.json["token"])["submods"]["cpu0"]["ear.veraison.annotated-evidence"]

    unknown = told(INIT_DATA)
    assert (unknown.get("init_data_claims"), "init_data_source" in unknown) == (None, False)
    _register(inside, "peer", INIT_DATA)
    try:
        known = told(INIT_DATA)
        if tee in MEASURED_IN_PCR_8:
            assert known["init_data"] == unknown["init_data"]
            assert known["init_data_claims"] == {"policy.rego": "package agent_policy"}
            source = known["init_data_source"]
            assert (source["from"], source["name"], source["owner"]) == ("register", "peer", "team-a")
        else:
            assert "init_data_source" not in known
            assert known.get("init_data_claims") is None
        for other in (told(None), told(INIT_DATA, {"format": "toml", "body": INIT_DATA})):
            assert "init_data_source" not in other  # another value; or the guest's own words, which are measured
    finally:
        admin = inside.broker.token_for("admin")
        assert inside.broker.admin("DELETE", "admin/init-data/peer", token=admin).status == 200
    assert told(INIT_DATA).get("init_data_claims") is None


@pytest.mark.parametrize("tee", TEES)
def test_another_nonce_in_the_answer(house: House, tee: Tee) -> None:
    handshake = house.handshake(tee)
    other = house.handshake(tee) if tee is Tee.SE else None
    nonce = "AAAA" if other is None else json.loads(other.body)["runtime-data"]["nonce"]
    assert house.outcome(handshake, body=handshake.changed(nonce=nonce)) == "nonce_mismatch"


@pytest.mark.parametrize("tee", TEES)
def test_another_key_than_the_one_in_the_evidence(house: House, tee: Tee) -> None:
    """The man in the middle who would have the secret sealed to himself."""
    handshake = house.handshake(tee)
    mine = dict(TeeKeyPair.generate().public.members)
    assert house.outcome(handshake, body=handshake.changed(tee_pubkey=mine)) == "binding_mismatch"


@pytest.mark.parametrize("tee", TEES)
def test_evidence_of_another_session(house: House, tee: Tee) -> None:
    """Recorded from a handshake that succeeded, with the nonce of this one."""
    first, second = house.handshake(tee), house.handshake(tee)
    recorded = json.loads(first.body)["tee-evidence"]
    assert house.outcome(first) == RELEASED
    body = second.changed(**recorded)
    # of `se` the broker keeps what it asked, and the recorded answer is to another question
    assert house.outcome(second, body=body) == ("signature_invalid" if tee is Tee.SE else "binding_mismatch")


@pytest.mark.parametrize("tee", TEES)
def test_the_whole_answer_in_another_session(house: House, tee: Tee) -> None:
    first, second = house.handshake(tee), house.handshake(tee)
    assert house.outcome(second, body=first.body) == "nonce_mismatch"
    assert house.outcome(first) == RELEASED
    third = house.handshake(tee)
    assert house.outcome(third, body=first.body) == "nonce_mismatch"


@pytest.mark.parametrize("tee", TEES)
def test_a_refused_challenge_is_spent(house: House, tee: Tee) -> None:
    handshake = house.handshake(tee)
    good = handshake.body
    assert house.outcome(handshake, body=handshake.changed(nonce="AAAA")) == "nonce_mismatch"
    assert house.outcome(handshake, body=good) == "challenge_used"


@pytest.mark.parametrize("tee", TEES)
def test_a_late_answer(house: House, tee: Tee) -> None:
    handshake = house.handshake(tee)
    house.broker.clock.advance(5 * 60 + 1)
    assert house.outcome(handshake) == "challenge_expired"


@pytest.mark.parametrize("tee", TEES)
def test_evidence_of_every_other_tee_under_this_name(inside: House, tee: Tee) -> None:
    for other in TEES:
        if other is tee:
            continue
        handshake = inside.handshake(tee, as_sent_by(inside, other))
        assert inside.outcome(handshake) in NOT_OF_THIS_TEE, other


def as_sent_by(house: House, other: Tee) -> Any:
    """Good evidence of another TEE, bound to what is asked."""
    machine = house.machine(other)
    return lambda _, report_data, init_data: machine.evidence(report_data, init_data)


@pytest.mark.parametrize("tee", TEES)
@pytest.mark.parametrize(
    "evidence", [None, {}, [], "", "AAAA", 0, True, [0] * 1184, {"quote": "AAAA"}, {"document": ""}]
)
def test_what_is_no_evidence(inside: House, tee: Tee, evidence: Any) -> None:
    handshake = inside.handshake(tee, lambda *_: evidence)
    assert inside.outcome(handshake) in {"evidence_malformed", "evidence_version_unsupported", "signature_invalid"}


@pytest.mark.parametrize("tee", TEES)
def test_the_same_machine_under_another_root(house: House, tee: Tee) -> None:
    stranger = house.stranger(tee)
    if tee is Tee.SE:  # only the machine that was asked can read the question
        with pytest.raises(RequestUnreadable):
            house.handshake(tee, attester=stranger)
        return
    assert house.of(tee, attester=stranger) in {"chain_invalid", "signature_invalid", "signer_not_trusted"}


@pytest.mark.parametrize("moment", [BEFORE, AFTER], ids=["not yet valid", "expired"])
@pytest.mark.parametrize("tee", TEES)
def test_a_chain_out_of_its_time(inside: House, tee: Tee, moment: datetime) -> None:
    """The make-believe vendors' certificates and lists are valid from 2020 to 2048."""
    inside.broker.clock.now = moment
    if tee is Tee.SE:  # whose machines are judged before they are asked
        answer = inside.broker.call("POST", "/kbs/v0/auth", body=b'{"version":"0.4.0","tee":"se","extra-params":""}')
        assert (answer.status, answer.name) == (503, "DependencyUnavailable")
        assert answer.json["reason"] == "endorsements_unavailable"
    elif tee in WITHOUT_DATES:
        assert inside.handshake(tee).attest().status == (401 if tee in DEVICES else 200)  # the CPU beside it has dates
    else:
        assert inside.of(tee) == "endorsement_expired"


@pytest.mark.parametrize(("tee", "name"), [(tee, name) for tee in WRONG for name in WRONG[tee]])
def test_wrong_evidence_is_refused_for_its_own_reason(inside: House, tee: Tee, name: str) -> None:
    reason, keywords = WRONG[tee][name]
    assert inside.of(tee, spoilt(keywords)) == reason


@pytest.mark.parametrize(("tee", "name"), [(tee, name) for tee in UNSAFE for name in UNSAFE[tee]])
def test_what_is_genuine_and_unsafe_attests_and_gets_nothing(inside: House, tee: Tee, name: str) -> None:
    assert inside.of(tee, spoilt(UNSAFE[tee][name])) == DENIED


@pytest.mark.parametrize(("tee", "name"), [(tee, name) for tee in HARMLESS for name in HARMLESS[tee]])
def test_what_is_only_unusual_gets_its_secret(inside: House, tee: Tee, name: str) -> None:
    assert inside.of(tee, spoilt(HARMLESS[tee][name])) == RELEASED


PAST = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
VENDOR_LISTS = [tee for tee in TEES if tee in (Tee.SNP, Tee.AZ_SNP_VTPM, Tee.TDX, Tee.AZ_TDX_VTPM, Tee.SGX)]


def served(house: House, tee: Tee, **changes: Any) -> dict[str, bytes]:
    """What the vendor serves for the good machine: with revoked certificates, or stale."""
    machine: Any = house.machine(tee)
    given = machine.endorsements
    if tee in (Tee.SNP, Tee.AZ_SNP_VTPM):
        chip = getattr(machine, "snp", machine)
        roles = {"ca": 0x10001}
        changes = {**changes, "revoked": [roles[role] for role in changes.get("revoked", ())]}
        if changes.pop("validities", None):
            changes["validity"] = PAST
        given = {"crl": base64.b64encode(chip.crl(**changes)).decode()}
    elif changes:
        platform = getattr(machine, "intel", None) or machine.tdx.intel
        platform = copy.copy(platform)
        if stale := changes.pop("validities", None):
            platform.validities = replace(platform.validities, **dict.fromkeys(stale, PAST))
        revoked = ["platform" if role == "ca" else role for role in changes.get("revoked", ())]
        revoked += ["processor"] if "platform" in revoked else []
        given = {"collateral": platform.collateral("SGX" if tee is Tee.SGX else "TDX", revoked=revoked)}
    verifier = extensions.load("kbs.verifiers", [tee])[tee](VerifierOptions(machine.options, machine.anchors))
    evidence = Evidence(tee, machine.evidence(bytes(48)))
    return dict(verifier.endorsements_from(evidence, given).items)


@pytest.mark.parametrize("tee", VENDOR_LISTS)
def test_what_vendors_serve(inside: House, tee: Tee, tmp_path: Path) -> None:
    good = served(inside, tee)
    without_lists = {name: item for name, item in good.items() if "crl" not in name}
    stale_parts = ("root_crl", "pck_crl", "tcb_info", "qe_identity")
    cases = {
        "as it should be": (good, RELEASED),
        "no list": (without_lists, DENIED),
        "CA revoked": (served(inside, tee, revoked=("ca",)), "endorsement_revoked"),
        "list stale": (served(inside, tee, validities=("root_crl", "pck_crl")), "endorsement_expired"),
    }
    if tee not in (Tee.SNP, Tee.AZ_SNP_VTPM):
        cases |= {
            "platform revoked": (served(inside, tee, revoked=("pck",)), "endorsement_revoked"),
            "nothing": ({}, "endorsement_missing"),
            **{part: (served(inside, tee, validities=(part,)), "endorsement_expired") for part in stale_parts},
        }
    for name, (items, expected) in cases.items():
        house = inside.with_other_endorsements(tmp_path / name, tee, items)
        try:
            assert house.of(tee) == expected, name
        finally:
            house.broker.close()


@pytest.mark.parametrize("tee", TEES)
def test_every_keyword_of_an_attester_is_tried(inside: House, tee: Tee) -> None:
    tried = {name for _, keywords in WRONG[tee].values() for name in names_of(inside, tee, keywords)}
    others = [*UNSAFE[tee].values(), *HARMLESS.get(tee, {}).values()]
    tried |= {name for keywords in others for name in names_of(inside, tee, keywords)}
    assert keywords_of(inside.machine(tee)) - NOT_WRONG <= tried


def names_of(house: House, tee: Tee, keywords: Any) -> set[str]:
    return set(keywords(house.machine(tee)) if callable(keywords) else keywords)


def keywords_of(machine: Any) -> set[str]:
    """Of the methods that make evidence, what can be set beside the usual."""
    parts = [machine, *(getattr(machine, part) for part in ("intel",) if hasattr(machine, part))]
    methods = [getattr(part, name, None) for part in parts for name in MAKERS]
    signatures = [inspect.signature(method) for method in methods if method is not None]
    return {
        parameter.name
        for signature in signatures
        for parameter in signature.parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
