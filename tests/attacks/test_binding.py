"""Evidence binds key, nonce and additional evidence in full (P-REL-3), and each wrong kind of it has one outcome."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.endorsements.amd import TcbVersion
from kbs.client.attesters.snp import SoftwareSnp, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.client.guest import GuestClient
from kbs.client.sample_attester import SampleAttester
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.protocol.rcar import Challenge
from tests.attacks.world import (
    PATH,
    REFERENCE_VALUES,
    SECRET,
    Site,
    SnpGuest,
    Worker,
    chip,
    decoded_claims,
    edited,
    outcome,
    report_of,
)
from tests.fakes.broker import START

URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"aa.toml" = "url = 1"\n'


def flips(text: str, alphabet: str) -> Iterator[str]:
    """The text with each of its characters replaced in turn by another one of the alphabet."""
    for at, character in enumerate(text):
        if character in alphabet:
            yield text[:at] + alphabet[alphabet.index(character) ^ 1] + text[at + 1 :]


def attempt(worker: Worker, guest: GuestClient, change: Callable[[Any, Challenge], None]) -> tuple[int, str]:
    """One handshake whose body is changed on the way."""
    challenge = guest.challenge()
    body = edited(guest.attestation_for(challenge), lambda document: change(document, challenge))
    answer = outcome(worker.attest(body, guest.cookie))
    assert (worker.get(cookie=guest.cookie).status == 401) == (answer[0] != 200)
    return answer


def test_each_character_of_the_nonce(worker: Worker) -> None:
    guest = worker.guest()
    for at in range(44):

        def change(document: Any, challenge: Challenge, at: int = at) -> None:
            other = "A" if challenge.nonce[at] != "A" else "B"
            document["runtime-data"]["nonce"] = challenge.nonce[:at] + other + challenge.nonce[at + 1 :]

        assert attempt(worker, guest, change) == (401, "nonce_mismatch")


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.RSA_OAEP_256])
def test_each_character_of_the_key(worker: Worker, kind: KeyKind) -> None:
    """Refused, as a key that is none (400) or as one that the evidence does not bind (401)."""
    guest = worker.guest(key=TeeKeyPair.generate(kind))
    met = set()
    for member, text in guest.key.public.members.items():
        for flipped in list(flips(text, URL))[:: 1 if len(text) < 100 else 9]:

            def change(document: Any, _: Challenge, member: str = member, flipped: str = flipped) -> None:
                document["runtime-data"]["tee-pubkey"][member] = flipped

            met.add(attempt(worker, guest, change))
    assert met <= {(400, "malformed_request"), (401, "binding_mismatch")}
    assert (401, "binding_mismatch") in met or kind is KeyKind.EC_P256  # another point is seldom on the curve


def test_another_point_on_the_curve(worker: Worker) -> None:
    """Keys that parse: somebody else's, the same one mirrored, and one that is only said to be for another use."""
    guest, other = worker.guest(), worker.guest()
    assert isinstance(guest.key.private_key, ec.EllipticCurvePrivateKey)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    private = guest.key.private_key.private_numbers().private_value
    mirrored = ec.derive_private_key(order - private, ec.SECP256R1())
    for key in (other.key, TeeKeyPair.from_private(mirrored)):

        def change(document: Any, _: Challenge, key: TeeKeyPair = key) -> None:
            document["runtime-data"]["tee-pubkey"] = dict(key.public.members)

        assert attempt(worker, guest, change) == (401, "binding_mismatch")


def with_device(worker: Worker, **arguments: Any) -> GuestClient:
    device = SampleAttester(svn="2")
    return worker.guest(devices={"sampledevice": device}, **arguments)


def test_each_character_of_the_additional_evidence(worker: Worker) -> None:
    guest = with_device(worker)
    assert attempt(worker, guest, lambda document, _: None)[0] == 200
    body = guest.attestation_for(guest.challenge())
    length = len(json.loads(body)["tee-evidence"]["additional_evidence"])
    met = set()
    for at in range(0, length, 2):

        def change(document: Any, _: Challenge, at: int = at) -> None:
            text = document["tee-evidence"]["additional_evidence"]
            document["tee-evidence"]["additional_evidence"] = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]

        met.add(attempt(worker, guest, change))
    assert met <= {(400, "malformed_request"), (401, "binding_mismatch")}
    assert (401, "binding_mismatch") in met


DEVICE_CHANGES: dict[str, Callable[[str], str]] = {
    "dropped": lambda _: "",
    "none": lambda _: "{}",
    "white space": lambda text: text + " ",
    "spelled otherwise": lambda text: json.dumps(json.loads(text), indent=1),
    "a member more": lambda text: json.dumps({"sampledevice": {**json.loads(text)["sampledevice"], "x": 1}}),
}


@pytest.mark.parametrize("name", DEVICE_CHANGES)
def test_devices_cannot_be_dropped_or_respelled(worker: Worker, name: str) -> None:
    """The device set is bound as text: less of it is as wrong as other of it (P-REL-5)."""
    guest = with_device(worker)

    def change(document: Any, _: Challenge) -> None:
        evidence = document["tee-evidence"]
        evidence["additional_evidence"] = DEVICE_CHANGES[name](evidence["additional_evidence"])

    assert attempt(worker, guest, change) == (401, "binding_mismatch")


def test_a_device_of_another_guest(worker: Worker) -> None:
    """A device's own binding is checked too, even where the primary evidence binds the text that holds it."""

    class Stolen:
        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            return SampleAttester(svn="2").evidence_for(hashlib.sha384(report_data).digest())

    guest = worker.guest(devices={"sampledevice": Stolen()})
    assert attempt(worker, guest, lambda document, _: None) == (401, "binding_mismatch")


@dataclass
class Spoilt:
    """Evidence made over report data that something happened to."""

    change: Callable[[bytes], bytes]
    inner: Any

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        return self.inner.evidence_for(self.change(report_data), init_data=init_data)


def test_each_byte_of_report_data_and_its_padding(worker: Worker) -> None:
    """SNP: all 64 bytes, digest and zeros behind it, signed by the genuine chip. Sample: exact, without padding."""
    for at in range(64):

        def change(data: bytes, at: int = at) -> bytes:
            full = bytearray(data.ljust(64, b"\0"))
            full[at] ^= 1 << at % 8
            return bytes(full)

        guest = worker.guest(Spoilt(change, SnpGuest()))
        assert attempt(worker, guest, lambda document, _: None) == (401, "binding_mismatch")
    for wrong in (lambda d: d + b"\0", lambda d: d[:-1], lambda d: b"", lambda d: d.ljust(64, b"\0")):
        guest = worker.sample_guest(attester=Spoilt(wrong, SampleAttester()))
        assert outcome_of_sample(worker, guest) == (401, "binding_mismatch")


def outcome_of_sample(worker: Worker, guest: GuestClient) -> tuple[int, str]:
    return outcome(worker.attest(guest.attestation_for(guest.challenge()), guest.cookie))


# --- whole handshakes with every kind of SNP evidence -----------------------------------------------------------------

OTHER_AMD = SoftwareSnp(TestRoot(label="another fake AMD"))
SECOND = timedelta(seconds=1)


def lasting(vek_until: datetime | None = None, vek_from: datetime | None = None) -> SoftwareSnp:
    """A chip whose certificate is valid from and until these moments."""
    vek = (vek_from or datetime(2025, 1, 1, tzinfo=UTC), vek_until or datetime(2047, 1, 1, tzinfo=UTC))
    return SoftwareSnp(validities=Validities(vek=vek))


@dataclass
class Case:
    """Evidence and what becomes of it. expect: reason of a 401 at attest; or tiers of what attests and gets 403."""

    expect: str | tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    source: SoftwareSnp = field(default_factory=chip)
    site: Mapping[str, Any] = field(default_factory=dict)
    init_data: str | None = None
    values: Mapping[str, Any] = field(default_factory=lambda: REFERENCE_VALUES)
    body: Callable[[Any], None] = field(default=lambda document: None)


def set_report(name: str, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        report_of(document)[name] = value

    return change


def without_chain(document: Any) -> None:
    document["tee-evidence"]["primary_evidence"]["cert_chain"] = None


NOT_AFFIRMED = ("warning", "contraindicated")
DEBUG, MIGRATION = 1 << 19, 1 << 18
TCB = TcbVersion(4, 0, 24, 219)
REFUSED: dict[str, Case] = {
    "signature: another key": Case("signature_invalid", {"signer": ec.generate_private_key(ec.SECP384R1())}),
    "signature: flipped measurement": Case("signature_invalid", body=set_report("measurement", [0xAC] * 48)),
    "signature: says it has none": Case("signature_invalid", {"key_info": 7 << 2}),
    "chain: another AMD": Case("chain_invalid", source=OTHER_AMD, site={"source": chip()}),
    "chain: a VCEK signed by another AMD": Case("chain_invalid", {"vek": OTHER_AMD.certificate()}),
    "chain: key of another curve's chip": Case("signature_invalid", {"vek": SoftwareSnp().certificate()}),
    "chain: says VLEK": Case("chain_invalid", {"key_info": 1 << 2}),
    "chain: another product's name": Case("chain_invalid", {"vek": chip().certificate(product_name="Genoa-A0")}),
    "chain: not there and not to be had": Case("endorsement_missing", body=without_chain),
    "chain: not a certificate": Case("chain_invalid", {"vek": b"\x30\x03\x02\x01\x00"}),
    "expired": Case("endorsement_expired", source=lasting(vek_until=START - SECOND)),
    "not yet valid": Case("endorsement_expired", source=lasting(vek_from=START + SECOND)),
    "revoked": Case("endorsement_revoked", site={"crl": chip().crl([0])}),
    "revoked intermediate": Case("endorsement_revoked", site={"crl": chip().crl([0x10001])}),
    "revocation list: stale": Case(
        "endorsement_expired", site={"crl": chip().crl(validity=(START - 2 * SECOND, START - SECOND))}
    ),
    "revocation list: not yet": Case(
        "endorsement_expired", site={"crl": chip().crl(validity=(START + SECOND, START + 2 * SECOND))}
    ),
    "revocation list: another AMD's": Case("chain_invalid", site={"crl": OTHER_AMD.crl()}),
    "revocation list: garbage": Case("chain_invalid", site={"crl": b"not a list"}),
    "TCB: reported below the certificate's": Case("tcb_mismatch", {"reported_tcb": TcbVersion(3, 0, 24, 219)}),
    "TCB: certificate of another": Case("tcb_mismatch", {"vek": chip().certificate(tcb=TcbVersion(4, 0, 24, 218))}),
    "TCB: reported above current": Case(
        "tcb_mismatch", {"current_tcb": TcbVersion(1, 0, 8, 100), "committed_tcb": TcbVersion(1, 0, 8, 100)}
    ),
    "chip id": Case("tcb_mismatch", {"chip_id": b"\2" * 64}),
    "chip id: masked": Case("tcb_mismatch", {"chip_id": bytes(64)}),
    "chip id: certificate of another chip": Case("tcb_mismatch", {"vek": chip().certificate(hwid=b"\3" * 64)}),
    "report data": Case("binding_mismatch", {"report_data": hashlib.sha512(b"x").digest()}),
    "report data: empty": Case("binding_mismatch", {"report_data": bytes(64)}),
    "init data": Case("init_data_mismatch", {"host_data": b"\1" * 32}, init_data=INIT_DATA),
    "init data: not measured": Case("init_data_mismatch", {"host_data": bytes(32)}, init_data=INIT_DATA),
    "version 2": Case("evidence_version_unsupported", {"version": 2}),
    "version 6": Case("evidence_version_unsupported", {"version": 6}),
    "requested by the host": Case("signer_not_trusted", {"vmpl": 0xFFFFFFFF}),
    "VMPL 4": Case("evidence_malformed", {"vmpl": 4}),
    "no report": Case("evidence_malformed", body=lambda document: document["tee-evidence"].update(primary_evidence={})),
    "VLEK of an unknown provider": Case(
        "signer_not_trusted",
        source=chip("Milan", "vlek"),
        site={"settings": {"KBS__ATTESTATION__OPTIONS__SNP__SNP_VLEK_CSP_IDS": '["CN=other"]'}},
    ),
}
ATTESTED: dict[str, Case] = {
    "debug": Case(NOT_AFFIRMED, {"policy": 0x30000 | DEBUG}),
    "migration agent": Case(NOT_AFFIRMED, {"policy": 0x30000 | MIGRATION}),
    "VMPL 1": Case(NOT_AFFIRMED, {"vmpl": 1}),
    "VMPL 3": Case(NOT_AFFIRMED, {"vmpl": 3}),
    "measurement": Case(NOT_AFFIRMED, {"measurement": bytes(48)}),
    "provisional firmware": Case(NOT_AFFIRMED, {"committed": (1, 55, 40)}),
    "committed TCB below current": Case(NOT_AFFIRMED, {"committed_tcb": TcbVersion(4, 0, 23, 219)}),
    "no revocation list": Case(NOT_AFFIRMED, site={"crl": None}),
    "no reference values": Case(NOT_AFFIRMED, values={"unrelated": [1]}),
    "firmware below the approved": Case(NOT_AFFIRMED, values={**REFERENCE_VALUES, "snp_microcode": [220]}),
    "approved as text instead of a number": Case(NOT_AFFIRMED, values={**REFERENCE_VALUES, "snp_microcode": ["219"]}),
    "approved by a value that is no list": Case(NOT_AFFIRMED, values={**REFERENCE_VALUES, "snp_microcode": 219}),
    "version 2 with its product named": Case(
        NOT_AFFIRMED,
        {"version": 2, "vmpl": 1},
        site={"settings": {"KBS__ATTESTATION__OPTIONS__SNP__SNP_V2_PRODUCT": "Milan"}},
    ),
}
AFFIRMED: dict[str, Case] = {
    "the good one": Case(()),
    "with init data": Case((), init_data=INIT_DATA),
    "Genoa": Case((), source=chip("Genoa")),
    "Turin": Case((), source=chip("Turin")),
    "VLEK of an allowed provider": Case((), source=chip("Milan", "vlek")),
    "certificate valid to this second": Case((), source=lasting(vek_until=START)),
    "certificate valid from this second": Case((), source=lasting(vek_from=START)),
    "version 2 with its product named": Case(
        (), {"version": 2}, site={"settings": {"KBS__ATTESTATION__OPTIONS__SNP__SNP_V2_PRODUCT": "Milan"}}
    ),
    "unchecked revocation waived": Case(
        (), site={"crl": None, "settings": {"KBS__ATTESTATION__ALLOW_UNCHECKED_REVOCATION": '["snp"]'}}
    ),
    "members of a newer guest": Case((), body=set_report("from_a_newer_guest", {"x": [1]})),
}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Case], tuple[Worker, GuestClient, Any]]]:
    """Run the handshake of a case."""
    sites: list[Site] = []

    def run(case: Case) -> tuple[Worker, GuestClient, Any]:
        site = Site(tmp_path, **{"source": case.source, **case.site})
        sites.append(site)
        worker = site.worker()
        worker.prepare(case.values)
        guest = worker.guest(SnpGuest(case.source, case.changes), init_data=case.init_data)
        body = edited(guest.attestation_for(guest.challenge()), case.body)
        return worker, guest, worker.attest(body, guest.cookie)

    yield run
    for site in sites:
        site.stop()


Run = Callable[[Case], tuple[Worker, GuestClient, Any]]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(run: Run, name: str) -> None:
    case = REFUSED[name]
    worker, guest, answer = run(case)
    assert outcome(answer) == (401, case.expect)
    assert answer.name == "AttestationError"
    assert outcome(worker.get(cookie=guest.cookie)) == (401, "token_missing")
    (record,) = [each for each in worker.audit_records() if each["kind"] == "evidence.refused"]
    assert (record["reason"], record["tee"]) == (case.expect, "snp")
    assert record["decision"] == answer.json["decision"]


@pytest.mark.parametrize("name", ATTESTED)
def test_attested_and_not_affirming(run: Run, name: str) -> None:
    case = ATTESTED[name]
    worker, guest, answer = run(case)
    assert outcome(answer) == (200, "ok")
    cpu = decoded_claims(answer.json["token"])["submods"]["cpu0"]
    assert cpu["ear.status"] in case.expect
    refused = worker.get(cookie=guest.cookie)
    assert (outcome(refused), refused.name) == ((403, "policy_denied"), "PolicyDeny")
    assert SECRET not in refused.body
    assert [each["reason"] for each in worker.audit_records() if each["kind"] == "release.denied"] == ["policy_denied"]


@pytest.mark.parametrize("name", AFFIRMED)
def test_affirming_opens_the_resource(run: Run, name: str) -> None:
    worker, guest, answer = run(AFFIRMED[name])
    assert outcome(answer) == (200, "ok")
    assert decoded_claims(answer.json["token"])["submods"]["cpu0"]["ear.status"] == "affirming"
    assert guest.get_resource(PATH) == SECRET
    assert len([each for each in worker.audit_records() if each["kind"] == "release.granted"]) == 1


def test_sample_evidence_opens_nothing_by_default(worker: Worker) -> None:
    """Affirmed or not, anyone can make it."""
    worker.approve_sample()
    guest = worker.sample_guest()
    token = guest.attest()
    assert decoded_claims(token)["submods"]["cpu0"]["ear.status"] == "affirming"
    assert outcome(worker.get(cookie=guest.cookie)) == (403, "policy_denied")
    assert base64.b64encode(SECRET) not in worker.get(cookie=guest.cookie).body
