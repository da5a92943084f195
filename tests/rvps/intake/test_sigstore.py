"""Sigstore bundles, offline: every part that is wrong is refused, and only the publisher's own identity counts."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvps import signing
from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import INTAKES, sigstore
from rvps.intake.in_toto import Attested
from rvps.intake.model import Content
from rvps.publishers.model import NOBODY, Publisher, Publishers, SigstoreTrust, Trust, gather
from rvps.value_set import ValueSet
from tests.fakes.sigstore import COMMIT, EXTENSIONS, IDENTITY, ISSUER, REPOSITORY, SIGNED, V01, V02, V03, Sigstore, Wish

INTAKE = INTAKES["sigstore-bundle"]
AT = SIGNED + timedelta(days=1)
OURS, THEIRS = Sigstore(), Sigstore()
STATEMENT = signing.values_statement(ValueSet("guest", {"acme/a": ["ab"]}), serial=1, expires=AT + timedelta(days=9))
TRUST = SigstoreTrust(
    trusted_root=OURS.trusted_root(),
    issuer=ISSUER,
    identity=r"https://github\.com/acme/guest/\.github/workflows/release\.yml@refs/tags/v.*",
    source_repository=REPOSITORY,
    workflow_ref="refs/tags/v.*",
    source_digest=COMMIT,
    build_config=r"https://github\.com/acme/guest/\.github/workflows/release\.yml@refs/tags/v.*",
    build_trigger="release",
    runner_environment="github-hosted",
)
BUNDLE = OURS.bundle(STATEMENT)


def publishers(trust: SigstoreTrust = TRUST, kind: str = "sigstore-bundle", name: str = "acme") -> Publishers:
    return gather([Publisher(name, frozenset({kind}), ("acme/",), Trust(sigstore=trust))])


ACME = publishers()


def verify(bundle: Any, known: Publishers = ACME) -> Attested:
    verified = INTAKE.verify(json.dumps(bundle).encode(), known, AT)
    assert isinstance(verified, Attested)
    return verified


def refused(bundle: Any, said: str, known: Publishers = ACME) -> None:
    with pytest.raises(SignatureRefused, match=said):
        verify(bundle, known)


def changed(change: Callable[[Any], None], bundle: Any = BUNDLE) -> Any:
    other = copy.deepcopy(bundle)
    change(other)
    return other


def entry(bundle: Any) -> Any:
    return bundle["verificationMaterial"]["tlogEntries"][0]


@pytest.mark.parametrize("version", [V01, V02, V03])
def test_a_bundle_is_verified_without_a_network(version: str) -> None:
    verified = verify(OURS.bundle(STATEMENT, Wish(version=version)))
    assert verified.publisher.name == "acme"
    assert verified.signer == IDENTITY
    assert verified.signed_at == SIGNED
    assert verified.source_digest == COMMIT
    assert verified.content == STATEMENT
    content = INTAKE.extract(verified, AT)
    assert isinstance(content, Content)
    assert content.values == {"acme/a": ["ab"]}


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(extensions={**EXTENSIONS, 8: "https://accounts.example"}), "another issuer"),
        (Wish(extensions={number: text for number, text in EXTENSIONS.items() if number != 8}), "another issuer"),
        (Wish(identity="https://github.com/eve/guest/.github/workflows/release.yml@refs/tags/v1"), "another identity"),
        (Wish(identity=IDENTITY.replace("github.com", "githubXcom")), "another identity"),
        (Wish(identity=IDENTITY.replace("tags/v1.2.3", "heads/main")), "another identity"),
        (Wish(identity=f"https://evil.example/{IDENTITY}"), "another identity"),
        (Wish(names=(IDENTITY, "https://evil.example")), "exactly one"),
        (Wish(extensions={**EXTENSIONS, 12: "https://github.com/eve/guest"}), "another source repository"),
        (Wish(extensions={**EXTENSIONS, 13: "0" * 40}), "another source commit"),
        (Wish(extensions={**EXTENSIONS, 14: "refs/heads/main"}), "another source ref"),
        (Wish(extensions={**EXTENSIONS, 18: IDENTITY.replace("release", "test")}), "another workflow"),
        (Wish(extensions={**EXTENSIONS, 20: "pull_request"}), "another build trigger"),
        (Wish(extensions={**EXTENSIONS, 11: "self-hosted"}), "another runner"),
        (Wish(extensions={**EXTENSIONS, 14: "refs/tags/v1\n"}), "another source ref"),
        (Wish(extensions={number: text for number, text in EXTENSIONS.items() if number != 14}), "another source ref"),
        (Wish(extensions={number: text for number, text in EXTENSIONS.items() if number != 18}), "another workflow"),
        (Wish(signed=SIGNED + timedelta(minutes=10)), "for that time|not valid when"),
        (Wish(signed=SIGNED - timedelta(minutes=1)), "for that time|not valid when"),
        (Wish(usage=ExtendedKeyUsageOID.CLIENT_AUTH), "not for signing code"),
        (Wish(with_sct=False), "no trusted certificate log"),
        (Wish(payload_type="application/json"), "payloadType"),
        (Wish(version="application/vnd.dev.sigstore.bundle.v0.4+json"), "mediaType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_signing_is_refused(wish: Wish, said: str) -> None:
    refused(OURS.bundle(STATEMENT, wish), said)


def flip(where: Callable[[Any], tuple[Any, str]]) -> Callable[[Any], None]:
    def change(bundle: Any) -> None:
        holder, member = where(bundle)
        raw = bytearray(base64.b64decode(holder[member]))
        raw[-1] ^= 1
        holder[member] = base64.b64encode(raw).decode()

    return change


def both_kinds(bundle: Any) -> None:
    held = bundle["verificationMaterial"]
    held["x509CertificateChain"] = {"certificates": [held["certificate"]]}


CHANGES: list[tuple[str, Callable[[Any], None], str]] = [
    ("no entry", lambda b: b["verificationMaterial"].update(tlogEntries=[]), "exactly one log entry"),
    ("two entries", lambda b: b["verificationMaterial"]["tlogEntries"].append(entry(b)), "exactly one log entry"),
    ("no proof", lambda b: entry(b).pop("inclusionProof"), "Sigstore bundle"),
    ("no checkpoint", lambda b: entry(b)["inclusionProof"].pop("checkpoint"), "checkpoint|inclusion proof"),
    ("no promise", lambda b: entry(b).pop("inclusionPromise"), "neither a promise"),
    ("proof", flip(lambda b: (entry(b)["inclusionProof"]["hashes"], 0)), "inclusion proof"),  # type: ignore[arg-type, return-value]
    ("root", flip(lambda b: (entry(b)["inclusionProof"], "rootHash")), "inclusion proof"),
    ("promise", flip(lambda b: (entry(b)["inclusionPromise"], "signedEntryTimestamp")), "promise of the log"),
    ("body", flip(lambda b: (entry(b), "canonicalizedBody")), "Sigstore bundle"),
    ("time", lambda b: entry(b).update(integratedTime=str(int(SIGNED.timestamp()) + 1)), "promise of the log"),
    ("index", lambda b: entry(b).update(logIndex="2"), "promise of the log"),
    ("payload", flip(lambda b: (b["dsseEnvelope"], "payload")), "Sigstore bundle"),
    ("signature", flip(lambda b: (b["dsseEnvelope"]["signatures"][0], "sig")), "signature does not verify"),
    (
        "two signatures",
        lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]),
        "exactly one signature",
    ),
    ("no signature", lambda b: b["dsseEnvelope"].update(signatures=[]), "exactly one signature"),
    ("blob", lambda b: b.update(messageSignature={}), "not one DSSE envelope"),
    ("no envelope", lambda b: b.pop("dsseEnvelope"), "not one DSSE envelope"),
    ("no certificate", lambda b: b["verificationMaterial"].pop("certificate"), "no `certificate`"),
    ("two kinds", both_kinds, "more than one kind"),
    ("v0.2 with a leaf", lambda b: b.update(mediaType=V02), "no `x509CertificateChain`"),
    ("bare key", lambda b: b["verificationMaterial"].update(publicKey={"hint": "x"}), "more than one kind"),
    (
        "certificate",
        lambda b: b["verificationMaterial"]["certificate"].update(rawBytes="AAAA"),
        "certificate does not read",
    ),
    ("snake case", lambda b: b["verificationMaterial"].update(tlog_entries=[]), "camelCase"),
    ("unknown member", lambda b: b.update(extra=1), "Sigstore bundle"),
    ("no type", lambda b: b.pop("mediaType"), "mediaType"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_changed_bundle_is_refused(change: Callable[[Any], None], said: str) -> None:
    refused(changed(change), said)


def test_another_entry_of_the_log_does_not_do() -> None:
    other = OURS.bundle(STATEMENT + b" ")
    refused(changed(lambda b: b["verificationMaterial"].update(tlogEntries=[entry(other)])), "something else")


def test_another_instance_is_not_trusted() -> None:
    refused(THEIRS.bundle(STATEMENT), "trusted authority")


@pytest.mark.parametrize(
    ("member", "said"),
    [("tlogs", "key of its log"), ("certificateAuthorities", "authority was not"), ("ctlogs", "certificate log")],
)
def test_keys_that_had_ended_are_not_trusted(member: str, said: str) -> None:
    root = OURS.trusted_root(**{member: "2026-01-01T00:00:00Z"})
    refused(BUNDLE, said, publishers(replace(TRUST, trusted_root=root)))
    later = OURS.trusted_root(**{member: "2026-06-01T12:00:00Z"})
    assert verify(BUNDLE, publishers(replace(TRUST, trusted_root=later))).signer == IDENTITY


def test_bundles_from_the_future_are_refused() -> None:
    payload = json.dumps(BUNDLE).encode()
    with pytest.raises(SignatureRefused, match="future"):
        INTAKE.verify(payload, ACME, SIGNED - sigstore.SKEW - timedelta(seconds=1))
    assert INTAKE.verify(payload, ACME, SIGNED - sigstore.SKEW).signer == IDENTITY


def test_an_identity_belongs_to_one_publisher() -> None:
    both = gather([*publishers(), *publishers(name="eve")])
    refused(BUNDLE, "several publishers", both)


def test_nobody_may_send_it() -> None:
    refused(BUNDLE, "no publisher may", NOBODY)
    refused(BUNDLE, "no publisher may", publishers(kind="dsse"))


def test_content_is_read_after_the_signature_only() -> None:
    bad = OURS.bundle(b"not JSON")
    with pytest.raises(StatementUnacceptable, match="in-toto"):
        INTAKE.extract(verify(bad), AT)
    refused(changed(flip(lambda b: (b["dsseEnvelope"]["signatures"][0], "sig")), bad), "signature does not verify")


def test_refusals_do_not_repeat_what_was_sent() -> None:
    with pytest.raises(SignatureRefused) as refusal:
        verify(changed(lambda b: b.update(mark="\x1b[31mred")))
    assert "red" not in str(refusal.value)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b'{"mediaType": "x"}', b"\xff"])
def test_what_is_no_trusted_root_is_refused(raw: bytes) -> None:
    with pytest.raises(SignatureRefused, match="trusted root"):
        sigstore.check_trusted_root(raw)


def test_a_trusted_root_names_every_part() -> None:
    sigstore.check_trusted_root(OURS.trusted_root())
    for member in ("tlogs", "ctlogs", "certificateAuthorities"):
        root = {**json.loads(OURS.trusted_root()), member: []}
        with pytest.raises(SignatureRefused, match="trusted root"):
            sigstore.check_trusted_root(json.dumps(root).encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_PLACES: list[tuple[str, ...]] = [
    ("mediaType",),
    ("verificationMaterial",),
    ("dsseEnvelope",),
    ("verificationMaterial", "certificate"),
    ("verificationMaterial", "tlogEntries"),
    ("verificationMaterial", "certificate", "rawBytes"),
    ("dsseEnvelope", "payload"),
    ("dsseEnvelope", "signatures"),
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(_PLACES), _JSON)
def test_no_bundle_raises_anything_else(place: tuple[str, ...], value: Any) -> None:
    def change(bundle: Any) -> None:
        for name in place[:-1]:
            bundle = bundle[name]
        bundle[place[-1]] = value

    refused(changed(change), "Sigstore|signed message|DSSE")
