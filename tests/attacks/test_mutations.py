"""Each check is needed (P-REL-1, second half): with any one of them switched off, some attack below succeeds.

The canaries are a compact form of the attacks in this folder. All of them live while every check is in place; a
mutation that kills none would be a check that no test misses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kbs.admin.authentication import AdminAuthenticator
from kbs.attestation.model import VerifiedClaims
from kbs.attestation.sev import chain
from kbs.attestation.sev import verification as sev
from kbs.attestation.sev.revocation import RevocationChecker
from kbs.attestation.verifiers.snp import verifier as snp_verifier
from kbs.attestation.verifiers.snp.binding import check_binding
from kbs.audit.log import AuditLog
from kbs.client.attesters.snp import SoftwareSnp, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.client.errors import UnexpectedAnswer
from kbs.client.guest import GuestClient
from kbs.client.tee_keys import TeeKeyPair
from kbs.errors import AuditUnavailable
from kbs.handshake import forms
from kbs.handshake.cookie import CookieSealer, OpenChallenge
from kbs.policy.engine import EvidenceVerdict
from kbs.policy.wasm import WasmEngine
from kbs.protocol import jwe, rcar, runtime_data
from kbs.release import service as release_service
from kbs.storage.handshakes import FileHandshakeStore
from kbs.storage.model import Claim
from kbs.tokens import acceptor, times
from kbs.web import dispatch
from tests.attacks.world import PATH, SECRET, Site, SnpGuest, chip, edited, outcome, report_of
from tests.fakes.broker import Edge

THIEF = TeeKeyPair.generate()
EXPIRED = SoftwareSnp(
    validities=Validities(
        vek=(datetime.fromisoformat("2025-01-01T00:00Z"), datetime.fromisoformat("2026-01-01T00:00Z"))
    )
)
FORGER = SoftwareSnp(TestRoot(label="forger"))


class Scene:
    """One worker in a world of its own."""

    def __init__(self, folder: Path, edge: Edge) -> None:
        self.folder = folder
        self.edge = edge
        self.site = Site(folder)
        self.worker = self.site.worker(edge)
        self.worker.prepare()

    def attest(
        self, changes: Any = None, *, source: SoftwareSnp | None = None, body: Callable[[Any], None] = lambda _: None
    ) -> tuple[GuestClient, tuple[int, str]]:
        """One handshake with this evidence and this change to the body."""
        guest = self.worker.guest(SnpGuest(source or chip(), changes or {}))
        sent = edited(guest.attestation_for(guest.challenge()), body)
        return guest, outcome(self.worker.attest(sent, guest.cookie))

    def opens(self, guest: GuestClient) -> tuple[int, str]:
        """What the resource route says to the session of a guest."""
        return outcome(self.worker.get(cookie=guest.cookie))


def honest(scene: Scene) -> None:
    assert scene.worker.guest().get_resource(PATH) == SECRET


def refused(reason: str, changes: Any = None, **more: Any) -> Callable[[Scene], None]:
    def canary(scene: Scene) -> None:
        guest, met = scene.attest(changes, **more)
        assert met == (401, reason)
        assert scene.opens(guest)[0] == 401

    return canary


def denied(changes: Any) -> Callable[[Scene], None]:
    def canary(scene: Scene) -> None:
        guest, met = scene.attest(changes)
        assert met == (200, "ok")
        assert scene.opens(guest) == (403, "policy_denied")

    return canary


def nonce(document: Any) -> None:
    document["runtime-data"]["nonce"] = "A" * 43 + "="


def bound_to_another_nonce(scene: Scene) -> None:
    """Genuine evidence over a nonce of the guest's own choice."""
    guest = scene.worker.guest()
    guest.challenge()
    body = guest.attestation_for(rcar.Challenge("A" * 43 + "=", ""))
    assert outcome(scene.worker.attest(body, guest.cookie)) == (401, "nonce_mismatch")


def stolen_evidence(scene: Scene) -> None:
    victim, thief = scene.worker.guest(), scene.worker.guest(key=THIEF)
    challenge = thief.challenge()
    report = json.loads(victim.attestation_for(challenge))["tee-evidence"]
    body = edited(thief.attestation_for(challenge), lambda document: document.update({"tee-evidence": report}))
    assert outcome(scene.worker.attest(body, thief.cookie)) == (401, "binding_mismatch")


def other_device_set(scene: Scene) -> None:
    guest = scene.worker.guest()
    body = edited(
        guest.attestation_for(guest.challenge()),
        lambda document: document["tee-evidence"].update({"additional_evidence": "{}"}),
    )
    assert outcome(scene.worker.attest(body, guest.cookie)) == (401, "binding_mismatch")


def second_answer(scene: Scene) -> None:
    guest, other = scene.worker.guest(), scene.worker.guest()
    challenge = guest.challenge()
    assert scene.worker.attest(guest.attestation_for(challenge), guest.cookie).status == 200
    body = other.attestation_for(challenge)
    assert outcome(scene.worker.attest(body, guest.cookie)) == (401, "challenge_used")


def late_answer(scene: Scene) -> None:
    guest = scene.worker.guest()
    body = guest.attestation_for(guest.challenge())
    scene.site.clock.advance(301)
    assert outcome(scene.worker.attest(body, guest.cookie)) == (401, "challenge_expired")


def revoked(scene: Scene) -> None:
    site = Site(scene.folder / "revoked", crl=chip().crl([0]))
    try:
        guest = site.worker(scene.edge).guest()
        body = guest.attestation_for(guest.challenge())
        assert outcome(site.workers[0].attest(body, guest.cookie)) == (401, "endorsement_revoked")
    finally:
        site.stop()


def other_init_data(scene: Scene) -> None:
    text = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n'
    guest = scene.worker.guest(SnpGuest(changes={"host_data": bytes(32)}), init_data=text)
    body = guest.attestation_for(guest.challenge())
    assert outcome(scene.worker.attest(body, guest.cookie)) == (401, "init_data_mismatch")


def forged_token(scene: Scene) -> None:
    token = scene.worker.guest().attest()
    head, claims, signature = token.split(".")
    forged = ".".join((head, claims, ("A" if signature[0] != "A" else "B") + signature[1:]))
    assert outcome(scene.worker.get(token=forged)) == (401, "token_rejected")


def old_token(scene: Scene) -> None:
    token = scene.worker.guest().attest()
    scene.site.clock.advance(400)
    assert outcome(scene.worker.get(token=token)) == (401, "token_rejected")


def no_token(scene: Scene) -> None:
    assert outcome(scene.worker.get()) == (401, "token_missing")


def stolen_token(scene: Scene) -> None:
    token = scene.worker.guest().attest()
    try:
        scene.worker.guest(key=THIEF).get_resource(PATH, token=token)
    except UnexpectedAnswer:
        return
    raise AssertionError("it opened")


def recorded(scene: Scene) -> None:
    guest = scene.worker.guest()
    assert guest.get_resource(PATH) == SECRET
    keys = [record["key"] for record in scene.site.records("release.granted")]
    assert guest.key.public.thumbprint in keys


def unrecordable(scene: Scene) -> None:
    guest = scene.worker.guest()
    guest.attest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditLog, "_write", _full)
        assert scene.opens(guest) == (503, "audit_unavailable")


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def admin_without_credential(scene: Scene) -> None:
    answer = scene.worker.call("POST", "/kbs/v0/resource/a/b/c", {}, b"planted")
    assert outcome(answer) == (401, "admin_unauthenticated")


def admin_out_of_scope(scene: Scene) -> None:
    token = scene.worker.token_for("admin", scope=["/kbs/v0/resource/mine"])
    answer = scene.worker.admin("POST", "resource/yours/b/c", b"planted", token=token)
    assert outcome(answer) == (403, "admin_forbidden")


def tee_not_enabled(scene: Scene) -> None:
    answer = scene.worker.call("POST", "/kbs/v0/auth", {}, b'{"version":"0.4.0","tee":"tdx","extra-params":{}}')
    assert outcome(answer) == (400, "tee_not_enabled")


CANARIES: dict[str, Callable[[Scene], None]] = {
    "honest": honest,
    "nonce": refused("nonce_mismatch", body=nonce),
    "bound to another nonce": bound_to_another_nonce,
    "stolen evidence": stolen_evidence,
    "device set": other_device_set,
    "second answer": second_answer,
    "late answer": late_answer,
    "signature": refused("signature_invalid", body=lambda document: report_of(document).update(measurement=[1] * 48)),
    "forged chain": refused("chain_invalid", source=FORGER),
    "expired certificate": refused("endorsement_expired", source=EXPIRED),
    "revoked": revoked,
    "chip": refused("tcb_mismatch", {"chip_id": b"\2" * 64}),
    "asked for by the host": refused("signer_not_trusted", {"vmpl": 0xFFFFFFFF}),
    "not signed": refused("signature_invalid", {"key_info": 7 << 2}),
    "report data": refused("binding_mismatch", {"report_data": bytes(64)}),
    "init data": other_init_data,
    "debug": denied({"policy": 0x30000 | 1 << 19}),
    "measurement": denied({"measurement": bytes(48)}),
    "forged token": forged_token,
    "old token": old_token,
    "no token": no_token,
    "stolen token": stolen_token,
    "recorded": recorded,
    "unrecordable": unrecordable,
    "admin without credential": admin_without_credential,
    "admin out of scope": admin_out_of_scope,
    "TEE not enabled": tee_not_enabled,
}


def dead(folder: Path, edge: Edge) -> set[str]:
    """Names of the canaries that do not live."""
    scene = Scene(folder, edge)
    found = set()
    try:
        for name, canary in CANARIES.items():
            started = scene.site.clock.now
            try:
                canary(scene)
            except Exception:  # noqa: BLE001 - a mutant may break anything, in any way
                found.add(name)
            scene.site.clock.now = started
    finally:
        scene.site.stop()
    return found


# --- mutations --------------------------------------------------------------------------------------------------------

Mutation = Callable[[pytest.MonkeyPatch], None]


def skip(owner: Any, name: str) -> Mutation:
    """The check does nothing."""
    return lambda patch: patch.setattr(owner, name, lambda *_, **__: None)


def always(owner: Any, name: str, value: Any) -> Mutation:
    """The check says this."""
    return lambda patch: patch.setattr(owner, name, lambda *_, **__: value)


def negated(owner: Any, name: str) -> Mutation:
    """The check says the opposite."""
    original = getattr(owner, name)
    return lambda patch: patch.setattr(owner, name, lambda *given, **named: not original(*given, **named))


def challenge_never_expires(patch: pytest.MonkeyPatch) -> None:
    original = CookieSealer.open

    def lasting(self: CookieSealer, value: str | None) -> Any:
        found = original(self, value)
        return found and replace(found, expires=found.expires + timedelta(days=1))

    patch.setattr(CookieSealer, "open", lasting)


def key_not_bound(patch: pytest.MonkeyPatch) -> None:
    """Digest over nonce and devices with whatever key made the evidence right."""

    def lenient(report: Any, binding: Any) -> None:
        check_binding(report, msgspec.structs.replace(binding, report_data=report.report_data[:48]))

    patch.setattr(snp_verifier, "check_binding", lenient)


def devices_not_bound(patch: pytest.MonkeyPatch) -> None:
    functions = SimpleNamespace(**vars(runtime_data))
    functions.primary_runtime_data = lambda nonce, key, _: runtime_data.primary_runtime_data(nonce, key, "")
    patch.setattr(forms, "runtime_data", functions)


def every_claim_is_good(patch: pytest.MonkeyPatch) -> None:
    original = snp_verifier.SnpVerifier.verify

    def lying(self: Any, *arguments: Any) -> Any:
        (found,) = original(self, *arguments)
        return [VerifiedClaims(found.tee, found.device_class, {**found.claims, "policy_debug_allowed": False})]

    patch.setattr(snp_verifier.SnpVerifier, "verify", lying)


def sealed_to_another_key(patch: pytest.MonkeyPatch) -> None:
    def seal(_: Any, *arguments: Any, **named: Any) -> bytes:
        return jwe.seal(THIEF.public, *arguments, **named)

    patch.setattr(release_service, "jwe", SimpleNamespace(seal=seal))


def answered_without_a_record(patch: pytest.MonkeyPatch) -> None:
    original = AuditLog.append

    def best_effort(self: AuditLog, events: Any) -> None:
        try:
            original(self, events)
        except AuditUnavailable:
            return

    patch.setattr(AuditLog, "append", best_effort)


def admin_for_everybody(patch: pytest.MonkeyPatch) -> None:
    original = AdminAuthenticator.authenticate
    known: list[Any] = []

    def welcoming(self: AdminAuthenticator, authorization: str | None) -> Any:
        if authorization is not None:
            known.append(original(self, authorization))
        return known[0]

    patch.setattr(AdminAuthenticator, "authenticate", welcoming)


MUTATIONS: dict[str, tuple[Mutation, str]] = {
    "nonce not compared": (always(OpenChallenge, "is_answered_with", True), "bound to another nonce"),
    "nonce compared the wrong way": (negated(OpenChallenge, "is_answered_with"), "honest"),
    "challenge works twice": (always(FileHandshakeStore, "claim", Claim.CLAIMED), "second answer"),
    "challenge never expires": (challenge_never_expires, "late answer"),
    "binding not checked": (skip(snp_verifier, "check_binding"), "report data"),
    "key not bound": (key_not_bound, "stolen evidence"),
    "devices not bound": (devices_not_bound, "device set"),
    "init data not bound": (skip(snp_verifier, "check_binding"), "init data"),
    "evidence signature not checked": (skip(sev, "check_signature"), "signature"),
    "chain not checked": (always(chain, "is_signed_by", True), "forged chain"),
    "dates not checked": (skip(chain, "_check_dates"), "expired certificate"),
    "revocation not checked": (skip(RevocationChecker, "check"), "revoked"),
    "chip not compared": (skip(sev, "check_identity"), "chip"),
    "report not checked with itself": (skip(sev, "check_consistency"), "asked for by the host"),
    "every claim is good": (every_claim_is_good, "debug"),
    "evidence policy not asked": (always(WasmEngine, "appraise", EvidenceVerdict({"hardware": 2}, {})), "measurement"),
    "token signature not checked": (skip(acceptor, "verify"), "forged token"),
    "token never ends": (lambda patch: patch.setattr(times, "SKEW", 1_000_000), "old token"),
    "resource policy not asked": (always(WasmEngine, "authorize", True), "debug"),
    "resource policy negated": (negated(WasmEngine, "authorize"), "honest"),
    "sealed to another key": (sealed_to_another_key, "stolen token"),
    "nothing recorded": (skip(AuditLog, "append"), "recorded"),
    "answered without a record": (answered_without_a_record, "unrecordable"),
    "admin for everybody": (admin_for_everybody, "admin without credential"),
    "admin rights not checked": (skip(dispatch, "authorize"), "admin out of scope"),
    "TEE not checked": (skip(rcar, "require_enabled"), "TEE not enabled"),
}


@pytest.fixture(scope="module")
def edges() -> Iterator[Edge]:
    """Alternate: each mutation meets one edge, and both meet half of them."""

    def alternate() -> Iterator[Edge]:
        while True:
            yield from Edge

    return alternate()


@pytest.mark.parametrize("edge", list(Edge))
def test_all_canaries_live(tmp_path: Path, edge: Edge) -> None:
    assert dead(tmp_path, edge) == set()


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_missing_check_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edges: Iterator[Edge], name: str
) -> None:
    mutate, canary = MUTATIONS[name]
    mutate(monkeypatch)
    assert canary in dead(tmp_path, next(edges))
