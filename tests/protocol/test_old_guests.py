"""Guests before protocol 0.4.0 against a whole broker, and that none of them answers for another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.client.errors import ClientMisconfigured, Refused, UnexpectedAnswer
from kbs.client.guest import GuestClient
from kbs.client.old_guests import GENERATIONS
from kbs.client.sample_attester import SampleAttester
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.protocol.tee import Tee
from kbs.protocol.version import ProtocolVersion
from tests.fakes.broker import TEE_KEY, Answer, BrokerUnderTest, Edge, bearer, policy_upload, session
from tests.protocol.every_tee import House, claims_of
from tests.protocol.expect import expect

NOW = "0.4.0"
EVERY = (*GENERATIONS, NOW)
OLDEST = ("0.1.0-v0.8", "0.1.0", "0.1.1")
RSA_KEY, OTHER_RSA_KEY = TeeKeyPair.generate(KeyKind.RSA1_5), TeeKeyPair.generate(KeyKind.RSA1_5)
KEYS = {name: RSA_KEY if name in OLDEST else TEE_KEY for name in EVERY}
PATH = "/kbs/v0/resource/default/key/1"
ALLOWED = {"KBS__COMPAT__ALLOW_RSA1_5": "true"}


def said(name: str) -> str:
    """The version as the guest says it."""
    return name.partition("-")[0]


def guest_of(broker: BrokerUnderTest, name: str, **more: Any) -> GuestClient:
    return broker.guest(**{"key": KEYS[name], "version": name, **more})


def furnished(data: Path, edge: Edge, **settings: str) -> BrokerUnderTest:
    made = BrokerUnderTest(data, edge, settings=settings)
    made.put_secret()
    made.approve_sample()
    made.use_policy("sample-demo")
    return made


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory, shared_modules: None) -> Iterator[BrokerUnderTest]:
    """A broker with RSA1_5 turned on."""
    made = furnished(tmp_path_factory.mktemp("lenient") / "data", Edge.ASGI, **ALLOWED)
    yield made
    made.close()


# --- each generation gets what it asks for ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_every_generation_reads_its_secret(lenient: BrokerUnderTest, name: str) -> None:
    guest = guest_of(lenient, name)
    assert guest.get_resource("default/key/1") == b"a secret"
    evidence = claims_of(guest.attest())["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["protocol_version"] == said(name)
    bound = {"nonce", "tee-pubkey"} | ({"additional-evidence"} if name == NOW else set())
    assert evidence["runtime_data_claims"].keys() == bound
    record = lenient.audit_records()[-1]
    assert (record["kind"], record["protocol"]) == ("evidence.accepted", said(name))


@pytest.mark.parametrize("name", OLDEST)
def test_without_rsa1_5_the_oldest_attest_and_are_told_why_they_get_nothing(
    standing: BrokerUnderTest, name: str
) -> None:
    """422, so that no guest attests three times over for it (guest-components 1.3)."""
    before = len(standing.audit_records())
    with pytest.raises(Refused, match="RSA1_5 is switched off here"):
        guest_of(standing, name).get_resource("default/key/1")
    assert [record["kind"] for record in standing.audit_records()[before:]] == ["evidence.accepted", "release.denied"]


def test_0_2_0_needs_no_setting(standing: BrokerUnderTest) -> None:
    assert guest_of(standing, "0.2.0").get_resource("default/key/1") == b"a secret"


@pytest.mark.parametrize("kind", [KeyKind.EC_P521, KeyKind.RSA_OAEP_256])
def test_0_2_0_with_the_keys_of_today(standing: BrokerUnderTest, kind: KeyKind) -> None:
    guest = guest_of(standing, "0.2.0", key=TeeKeyPair.generate(kind))
    assert guest.get_resource("default/key/1") == b"a secret"


@pytest.mark.parametrize("name", OLDEST)
def test_the_answer_has_the_form_of_its_time(lenient: BrokerUnderTest, name: str) -> None:
    guest = guest_of(lenient, name)
    guest.attest()
    assert guest.cookie is not None
    answer = lenient.call("GET", PATH, session(guest.cookie))
    assert list(answer.json) == ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
    assert (answer.json["protected"], answer.json["tag"]) == ('{"alg":"RSA1_5","enc":"A256GCM"}', "")
    assert len(answer.json["ciphertext"]) == (len(b"a secret") + 16) * 4 // 3


def test_the_same_key_in_0_4_0_gets_a_jwe(lenient: BrokerUnderTest) -> None:
    """Guests from v0.12 on still open RSA1_5, in the current form (KBS protocol 4.4)."""
    guest = lenient.attested(key=RSA_KEY)
    assert guest.get_resource("default/key/1") == b"a secret"
    assert guest.cookie is not None
    assert lenient.call("GET", PATH, session(guest.cookie)).json["tag"] != ""


@pytest.mark.parametrize("name", EVERY)
def test_a_passport_opens_the_door_of_a_broker_that_never_saw_the_handshake(
    lenient: BrokerUnderTest, tmp_path: Path, name: str
) -> None:
    guest = guest_of(lenient, name)
    token = guest.attest()
    other = furnished(tmp_path / "data", lenient.edge, **ALLOWED)  # the same keys, none of the other's memory
    elsewhere = guest_of(other, name)
    assert elsewhere.get_resource("kbs:///default/key/1", token=token) == b"a secret"
    assert elsewhere.cookie is None
    other.close()


def test_a_replay_of_the_identical_body_is_told_the_same(lenient: BrokerUnderTest) -> None:
    for name in EVERY:
        opened = lenient.handshake(key=KEYS[name], version=name)
        first, again = opened.attest(), opened.attest()
        assert (first.status, first.body) == (again.status, again.body) == (200, first.body)


# --- no version answers for another -----------------------------------------------------------------------------------


def answered(broker: BrokerUnderTest, asked: str, body_of: str, **attester: Any) -> Answer:
    """A challenge for one version, answered in the words of another, with evidence bound to this very challenge."""
    asking = guest_of(broker, asked)
    challenge = asking.challenge()
    answering = guest_of(broker, body_of, **attester)
    assert asking.cookie is not None
    return broker.call("POST", "/kbs/v0/attest", session(asking.cookie), answering.attestation_for(challenge))


@pytest.mark.parametrize("body_of", EVERY)
@pytest.mark.parametrize("asked", EVERY)
def test_a_challenge_is_answered_in_its_own_version_alone(lenient: BrokerUnderTest, asked: str, body_of: str) -> None:
    answer = answered(lenient, asked, body_of)
    if said(asked) == said(body_of):
        assert answer.status == 200
    elif (said(asked), said(body_of)) == ("0.1.1", "0.1.0"):
        expect(
            answer, 401, "AttestationError", "evidence_malformed", decided=True
        )  # any JSON decodes; this is a string
    else:
        expect(answer, 400, "AttestationError")


class BoundTo:
    """Evidence bound to what some other version would hash, for the form that is asked for."""

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        return SampleAttester().evidence_for(self._digest)


def _json(**members: Any) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def hashed(name: str, nonce: str, key: TeeKeyPair) -> bytes:
    """What each version hashes, worked out here once more."""
    members = dict(key.public.members)
    if name == "0.1.0-v0.8":
        return (nonce + members["n"] + members["e"]).encode()
    if name == NOW:
        return _json(**{"additional-evidence": "", "nonce": nonce, "tee-pubkey": members})
    return _json(**{"nonce": nonce, "tee-pubkey": members})


def bound_as(broker: BrokerUnderTest, form: str, hash_of: str, algorithm: str = "sha384", **changes: Any) -> Answer:
    """The form of one version with evidence bound as another does; or by another algorithm, nonce, key."""
    guest = guest_of(broker, form)
    challenge = guest.challenge()
    key = changes.get("key", KEYS[form])
    digest = hashlib.new(algorithm, hashed(hash_of, changes.get("nonce", challenge.nonce), key)).digest()
    forger = guest_of(broker, form, attester=BoundTo(digest))
    assert guest.cookie is not None
    return broker.call("POST", "/kbs/v0/attest", session(guest.cookie), forger.attestation_for(challenge))


CONCATENATED, NONCE_AND_KEY, WITH_DEVICES = "nonce ‖ n ‖ e", "JSON of nonce and key", "JSON, and devices"
RULES = dict.fromkeys(EVERY, NONCE_AND_KEY) | {"0.1.0-v0.8": CONCATENATED, NOW: WITH_DEVICES}


@pytest.mark.parametrize(
    ("form", "hash_of"),
    [(form, hash_of) for form in EVERY for hash_of in EVERY if form in OLDEST or RULES[hash_of] != CONCATENATED],
)
def test_evidence_is_bound_by_the_rule_of_its_version_alone(lenient: BrokerUnderTest, form: str, hash_of: str) -> None:
    answer = bound_as(lenient, form, hash_of)
    may = {CONCATENATED, NONCE_AND_KEY} if said(form) == "0.1.0" else {RULES[form]}
    if RULES[hash_of] in may:
        assert answer.status == 200
    else:
        expect(answer, 401, "AttestationError", "binding_mismatch", decided=True)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha3_384", "md5"])
@pytest.mark.parametrize("form", EVERY)
def test_no_other_hash_binds_whatever_was_offered(lenient: BrokerUnderTest, form: str, algorithm: str) -> None:
    expect(bound_as(lenient, form, form, algorithm), 401, "AttestationError", "binding_mismatch", decided=True)


@pytest.mark.parametrize("offered", [["sha256"], ["SM3"], ["md5"], [], "sha256", None], ids=json.dumps)
@pytest.mark.parametrize("version", ProtocolVersion)
def test_offers_are_not_negotiated_down(standing: BrokerUnderTest, version: str, offered: Any) -> None:
    """`""` says SHA-384, whatever stands in the request, which anybody on the way may have changed."""
    extra = {"supported-hash-algorithms": offered}
    body = json.dumps({"version": version, "tee": "sample", "extra-params": extra}).encode()
    answer = standing.call("POST", "/kbs/v0/auth", body=body)
    assert (answer.status, answer.json["extra-params"]) == (200, "")


@pytest.mark.parametrize("form", EVERY)
def test_evidence_of_another_challenge_or_key_does_not_fit(lenient: BrokerUnderTest, form: str) -> None:
    other = lenient.guest(version=NOW).challenge().nonce
    stranger = OTHER_RSA_KEY if form in OLDEST else TeeKeyPair.generate()
    for changes in ({"nonce": other}, {"nonce": ""}, {"key": stranger}):
        expect(bound_as(lenient, form, form, **changes), 401, "AttestationError", "binding_mismatch", decided=True)


def test_parts_of_the_oldest_hash_cannot_change_places(lenient: BrokerUnderTest) -> None:
    """Nothing stands between nonce, n and e: the end of one is not the beginning of the next."""
    guest = guest_of(lenient, "0.1.0-v0.8")
    challenge = guest.challenge()
    body = json.loads(guest.attestation_for(challenge))
    members = body["tee-pubkey"]
    for n, e in (
        (members["n"] + members["e"], ""),
        (members["n"][:-4], members["n"][-4:] + members["e"]),
        (members["n"] + "AQ", "AB"),
        (challenge.nonce[-4:] + members["n"], members["e"]),
    ):
        moved = json.dumps({**body, "tee-pubkey": {**members, "n": n, "e": e}}).encode()
        assert guest.cookie is not None
        expect(lenient.call("POST", "/kbs/v0/attest", session(guest.cookie), moved), 400, "AttestationError")
    assert guest.submit(json.dumps(body).encode())


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_body_of_another_version_leaves_the_challenge_and_evidence_spends_it(
    lenient: BrokerUnderTest, name: str
) -> None:
    opened = lenient.handshake(key=KEYS[name], version=name)
    current = lenient.handshake().body
    expect(opened.attest(body=current), 400, "AttestationError", "unsupported_version")
    both = json.dumps({**json.loads(current), **json.loads(opened.body)}).encode()
    expect(opened.attest(body=both), 400, "AttestationError", "unsupported_version")
    assert opened.attest().status == 200
    spoilt = lenient.handshake(key=KEYS[name], version=name)
    wrong = lenient.handshake(key=KEYS[name], version=name).body
    expect(spoilt.attest(body=wrong), 401, "AttestationError", "binding_mismatch", decided=True)
    expect(spoilt.attest(), 401, "AttestationError", "challenge_used")


@pytest.mark.parametrize("name", GENERATIONS)
def test_without_a_handshake_old_guests_are_told_to_begin_one(lenient: BrokerUnderTest, name: str) -> None:
    opened = lenient.handshake(key=KEYS[name], version=name)
    for cookie in ("", "x", opened.cookie[:-2], opened.cookie[::-1]):
        expect(opened.attest(cookie=cookie), 401, "AttestationError", "handshake_unknown")
    lenient.clock.advance(301)
    expect(opened.attest(), 401, "AttestationError", "challenge_expired")


def test_garbage_without_a_handshake_is_still_garbage(lenient: BrokerUnderTest) -> None:
    for body in (b"", b"{}", b'{"tee-evidence":""}', b"[]", b'{"runtime-data":1,"tee-pubkey":{}}'):
        expect(lenient.call("POST", "/kbs/v0/attest", body=body), 400, "AttestationError")


# --- the minimum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", ProtocolVersion)
def test_the_minimum_is_a_setting(tmp_path: Path, shared_modules: None, minimum: str) -> None:
    broker = furnished(tmp_path / "data", Edge.ASGI, KBS__PROTOCOL__MINIMUM_VERSION=f'"{minimum}"')
    order = [*ProtocolVersion]
    for version in order:
        body = json.dumps({"version": version, "tee": "sample", "extra-params": ""}).encode()
        answer = broker.call("POST", "/kbs/v0/auth", body=body)
        if order.index(version) >= order.index(ProtocolVersion(minimum)):
            assert answer.status == 200
        else:
            expect(answer, 400, "AttestationError", "unsupported_version")
            assert f"the request is {version}, which is older than this broker's minimum" in answer.json["detail"]
    broker.close()


def test_a_raised_minimum_holds_for_open_challenges_too(tmp_path: Path, shared_modules: None) -> None:
    broker = furnished(tmp_path / "data", Edge.ASGI, KBS__STORAGE__KIND="sqlite")
    old, new = broker.handshake(version="0.2.0"), broker.handshake()
    broker.restart({"KBS__PROTOCOL__MINIMUM_VERSION": '"0.4.0"'})
    expect(old.attest(), 401, "AttestationError", "handshake_unknown")
    assert new.attest().status == 200
    broker.close()


# --- other TEEs, and the names of their time --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, shared_modules: None) -> Iterator[House]:
    """A broker that believes in make-believe vendors."""
    made = House.built(tmp_path_factory.mktemp("house") / "data", Tee.AZ_SNP_VTPM, Tee.TDX, Tee.SE)
    yield made
    made.broker.close()


@pytest.mark.parametrize("tee", [Tee.AZ_SNP_VTPM, Tee.TDX])
@pytest.mark.parametrize("name", GENERATIONS)
def test_hardware_of_old_guests(house: House, tee: Tee, name: str) -> None:
    guest = guest_of(house.broker, name, tee=tee, attester=house.machine(tee))
    evidence = claims_of(guest.attest())["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert (evidence["protocol_version"], evidence[tee]["binding"]) == (said(name), "checked")
    stranger = guest_of(house.broker, name, tee=tee, attester=house.stranger(tee))
    with pytest.raises(Refused):
        stranger.attest()


@pytest.mark.parametrize("version", ProtocolVersion)
@pytest.mark.parametrize("name", ["az-snp-vtpm", "azsnpvtpm"])
def test_both_spellings_of_azure_in_every_version(house: House, version: str, name: str) -> None:
    body = json.dumps({"version": version, "tee": name, "extra-params": ""}).encode()
    assert house.broker.call("POST", "/kbs/v0/auth", body=body).status == 200


def test_the_software_guests_spell_as_their_releases_do(house: House) -> None:
    for name, generation in GENERATIONS.items():
        sent = generation.request("az-snp-vtpm")
        assert (sent["tee"], sent["version"]) == ("azsnpvtpm", said(name))
        assert (sent["extra-params"] == "") == (said(name) == "0.1.0")


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1", "0.2.0"])
def test_secure_execution_needs_a_guest_that_binds_its_key(house: House, version: str) -> None:
    body = json.dumps({"version": version, "tee": "se", "extra-params": ""}).encode()
    answer = house.broker.call("POST", "/kbs/v0/auth", body=body)
    expect(answer, 400, "AttestationError", "unsupported_version")
    assert "the TEE se needs protocol 0.4.0" in answer.json["detail"]
    assert answer.header("set-cookie") is None


# --- policy -----------------------------------------------------------------------------------------------------------

NEWEST_ONLY = """package policy

default allow := false

allow if input.submods.cpu0["ear.veraison.annotated-evidence"].protocol_version == "0.4.0"
"""


@pytest.mark.opa
def test_a_policy_may_ask_for_a_version(tmp_path: Path, shared_modules: None, opa: Path) -> None:
    broker = furnished(tmp_path / "data", Edge.ASGI)
    assert broker.admin("POST", "resource-policy", policy_upload(NEWEST_ONLY.encode())).status == 200
    assert broker.guest().get_resource("default/key/1") == b"a secret"
    with pytest.raises(Refused, match="PolicyDeny"):
        guest_of(broker, "0.2.0").get_resource("default/key/1")
    broker.close()


# --- the software guests themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATIONS)
def test_old_guests_have_neither_init_data_nor_devices(standing: BrokerUnderTest, name: str) -> None:
    for more in ({"init_data": ""}, {"devices": {"sampledevice": SampleAttester("2")}}):
        with pytest.raises(ClientMisconfigured, match="neither init data nor devices"):
            guest_of(standing, name, **more)


def test_large_evidence_up_to_a_limit_of_eight_mebibytes(tmp_path: Path, edge: Edge, shared_modules: None) -> None:
    """Event logs and devices make evidence large (guest-components 8.2)."""
    limit = 8 << 20
    broker = furnished(tmp_path / "data", edge)
    for name in ("0.2.0", NOW):
        opened = broker.handshake(version=name)
        body = opened.body.replace(b'"svn":', b'"padding":"' + b"x" * (limit - len(opened.body) - 13) + b'","svn":')
        assert len(body) == limit
        expect(opened.attest(body=body + b" "), 413, "PayloadTooLarge")
        assert opened.attest(body=body).status == 200
    broker.close()


def test_a_bearer_token_of_no_use(standing: BrokerUnderTest) -> None:
    token = guest_of(standing, "0.2.0").attest()
    with pytest.raises(UnexpectedAnswer):
        standing.guest(key=TeeKeyPair.generate()).get_resource("default/key/1", token=token)
    assert standing.call("GET", PATH, [bearer(token[:-2])]).status == 401
