"""Identities for attested guests: what stands in them, who gets one, and what is refused."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.verification import PolicyBuilder, Store
from jwcrypto import jwk, jwt

from kbs.client.tee_keys import TeeKeyPair
from kbs.errors import AccessDenied, ConfigInvalid, KbsError, MalformedMessage, ResourceNotFound, StorageUnavailable
from kbs.plugins.model import Guest, PluginContext, PluginRequest
from kbs.plugins.spiffe import SpiffePlugin, build
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import START, BrokerUnderTest, Edge, StoppedClock, policy_upload

WEB = {"name": "web", "path": "/ns/{ns}/web", "claims": {"ns": "/submods/cpu0/ns"}, "broker_keys": True}
OPTIONS: Mapping[str, Any] = {"trust_domain": "example.org", "audiences": ["pay"], "identity": [WEB]}
ID = "spiffe://example.org/ns/bank/web"
TEE_KEY = TeeKeyPair.generate().public


def make(folder: Path, store: MemoryStore | None = None, **more: Any) -> SpiffePlugin:
    clock = StoppedClock()
    return build(PluginContext(store or MemoryStore(), clock, os.urandom, folder, {**OPTIONS, **more}))


def request(method: str, path: str, body: bytes = b"", ns: Any = "bank", **query: str) -> PluginRequest:
    guest = Guest({"submods": {"cpu0": {"ns": ns}}}, b"{}", TEE_KEY, START, None)
    return PluginRequest(method, tuple(path.split("/")), query, body, guest=guest)


def ask(plugin: SpiffePlugin, method: str, path: str, body: bytes = b"", **more: Any) -> Any:
    return json.loads(plugin.handle(request(method, path, body, **more)).payload.reveal())


def csr(key: Any = None, uri: str | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")])
    builder = x509.CertificateSigningRequestBuilder(name)
    if uri is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM)


def test_an_x509_svid_is_what_the_standard_says(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answer = ask(make(tmp_path), "POST", "x509/web", csr(key, "spiffe://example.org/admin"))
    (leaf,) = x509.load_pem_x509_certificates(answer["x509_svid"].encode())
    assert answer["spiffe_id"] == ID
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [*names.value] == [x509.UniformResourceIdentifier(ID)]
    assert names.critical
    assert leaf.public_key() == key.public_key()
    assert not [*leaf.subject]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc == START + timedelta(hours=1)
    assert answer["expires_at"] == (START + timedelta(hours=1)).isoformat()
    assert answer["renew_at"] == (START + timedelta(minutes=30)).isoformat()
    (root,) = x509.load_pem_x509_certificates(answer["bundle"].encode())
    verifier = PolicyBuilder().store(Store([root])).time(START).build_client_verifier()
    assert verifier.verify(leaf, []).subjects == [x509.UniformResourceIdentifier(ID)]


def test_a_key_of_the_broker_fits_its_certificate_and_is_new_each_time(tmp_path: Path) -> None:
    plugin = make(tmp_path)
    first, second = (ask(plugin, "GET", "x509/web/key") for _ in range(2))
    for answer in (first, second):
        (leaf,) = x509.load_pem_x509_certificates(answer["x509_svid"].encode())
        assert load_pem_private_key(answer["x509_svid_key"].encode(), None).public_key() == leaf.public_key()
    assert first["x509_svid_key"] != second["x509_svid_key"]


def test_a_jwt_svid_verifies_with_the_bundle(tmp_path: Path) -> None:
    plugin = make(tmp_path)
    answer = ask(plugin, "GET", "jwt/web/token")
    keys = {each["use"]: each for each in plugin.public_document()["keys"]}
    token = jwt.JWT(check_claims={"aud": "pay"})
    token.leeway = 10**10
    token.deserialize(answer["jwt_svid"], jwk.JWK(**{**keys["jwt-svid"], "use": "sig"}))
    claims = json.loads(token.claims)
    assert claims == {"sub": ID, "aud": ["pay"], "iat": claims["iat"], "exp": claims["iat"] + 300}
    header = json.loads(token.header)
    assert (header["alg"], header["kid"], header["typ"]) == ("ES256", keys["jwt-svid"]["kid"], "JWT")
    assert keys["x509-svid"]["x5c"]
    assert keys["x509-svid"]["x"] != keys["jwt-svid"]["x"]


def test_audiences_are_those_of_the_settings(tmp_path: Path) -> None:
    plugin = make(tmp_path, audiences=["a", "b"])
    assert ask(plugin, "GET", "jwt/web/token", audience="b")["spiffe_id"] == ID
    wrong: list[Mapping[str, Any]] = [{}, {"audience": "c"}, {"audience": ""}, {"audience": "a,b"}]
    for query in wrong:
        with pytest.raises(MalformedMessage):
            ask(plugin, "GET", "jwt/web/token", **query)
    with pytest.raises(MalformedMessage):
        ask(make(tmp_path, audiences=[]), "GET", "jwt/web/token", audience="x")


def test_workers_share_one_authority(tmp_path: Path) -> None:
    store = MemoryStore()
    first, second = (make(tmp_path, store) for _ in range(2))
    assert first.public_document() == second.public_document()
    assert make(tmp_path).public_document() != first.public_document()
    assert {entry.version for entry in store.entries("spiffe")} == {1}


CLAIMS = [None, "", "a/b", "..", ".", "a b", "ü", "%2e%2e", {"a": 1}, ["bank"], True, 1.5, "x" * 3000, "a\n", "{ns}"]


@pytest.mark.parametrize("claim", CLAIMS, ids=[str(number) for number in range(len(CLAIMS))])
def test_a_claim_that_is_no_segment_makes_no_identity(tmp_path: Path, claim: Any) -> None:
    plugin = make(tmp_path)
    for method, path in (("POST", "x509/web"), ("GET", "x509/web/key"), ("GET", "jwt/web/token")):
        with pytest.raises(AccessDenied) as refused:
            ask(plugin, method, path, csr(), ns=claim)
        assert "ns" not in str(refused.value)


REQUESTS: Mapping[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "PEM of nothing": b"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
    "long": csr() + b"#" * (17 << 10),
    "another curve": csr(ec.generate_private_key(ec.SECP256K1())),
    "short RSA": csr(rsa.generate_private_key(65537, 1024)),
    "cut": csr()[:200],
    "not signed": x509.load_pem_x509_csr(csr()).public_bytes(Encoding.DER)[:-4] + b"\0\0\0\0",
}


@pytest.mark.parametrize("case", REQUESTS)
def test_what_is_no_request_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(MalformedMessage):
        ask(make(tmp_path), "POST", "x509/web", REQUESTS[case])


@pytest.mark.parametrize("path", ["x509/other", "x509", "x509/web/key/x", "", "bundle/x509", "jwt/web"])
def test_other_paths_are_not_there(tmp_path: Path, path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(KbsError) as refused:
            ask(make(tmp_path), method, path, csr())
        assert isinstance(refused.value, ResourceNotFound) or path == "x509/other"


def test_without_broker_keys_the_guest_brings_its_own(tmp_path: Path) -> None:
    with pytest.raises(AccessDenied):
        ask(make(tmp_path, identity=[{**WEB, "broker_keys": False}]), "GET", "x509/web/key")


def authority_files(
    folder: Path, name: str = "ca", *, ca: bool = True, uri: str = "spiffe://example.org", days: int = 30
) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "corporate")])
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 7)
        .not_valid_before(START - timedelta(days=1))
        .not_valid_after(START + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


FILES: Mapping[str, Any] = {"ca_certificate": "ca.pem", "ca_key": "ca.key"}


def test_an_authority_of_the_operator(tmp_path: Path) -> None:
    key = authority_files(tmp_path)
    plugin = make(tmp_path, **FILES)
    assert (
        "CN=corporate"
        in x509.load_pem_x509_certificate(
            ask(plugin, "POST", "x509/web", csr())["bundle"].encode()
        ).subject.rfc4514_string()
    )
    with pytest.raises(MalformedMessage, match="key of the authority"):
        ask(plugin, "POST", "x509/web", csr(key))


def test_no_identity_outlives_its_authority(tmp_path: Path) -> None:
    authority_files(tmp_path, days=0)
    with pytest.raises(StorageUnavailable):
        ask(make(tmp_path, **FILES), "POST", "x509/web", csr())


def test_authorities_that_cannot_work(tmp_path: Path) -> None:
    cases: Mapping[str, Mapping[str, Any]] = {"no CA": {"ca": False}, "another trust domain": {"uri": "spiffe://x"}}
    for words, given in cases.items():
        authority_files(tmp_path, **given)
        with pytest.raises(ConfigInvalid, match=words):
            make(tmp_path, **FILES)
    authority_files(tmp_path)
    (tmp_path / "ca.key").write_bytes((tmp_path / "ca.key").read_bytes()[:40])
    with pytest.raises(ConfigInvalid):
        make(tmp_path, **FILES)
    with pytest.raises(ConfigInvalid, match="No such file"):
        make(tmp_path, ca_certificate="absent", ca_key="ca.key")


WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "capital trust domain": ({"trust_domain": "Example.org"}, "trust_domain"),
    "trust domain with scheme": ({"trust_domain": "spiffe://x"}, "trust_domain"),
    "no identity": ({"identity": []}, "at least one"),
    "twice": ({"identity": [WEB, WEB]}, "name of its own"),
    "name with slash": ({"identity": [{**WEB, "name": "a/b"}]}, "one segment"),
    "relative path": ({"identity": [{**WEB, "path": "ns/{ns}"}]}, "path"),
    "dots": ({"identity": [{**WEB, "path": "/../{ns}"}]}, "path"),
    "empty segment": ({"identity": [{**WEB, "path": "//{ns}"}]}, "path"),
    "no claim": ({"identity": [{**WEB, "path": "/web", "claims": {}}]}, "without a claim"),
    "claim not used": ({"identity": [{**WEB, "claims": {"ns": "/a", "x": "/b"}}]}, "no other"),
    "claim missing": ({"identity": [{**WEB, "claims": {}}]}, "no other"),
    "no pointer": ({"identity": [{**WEB, "claims": {"ns": "namespace"}}]}, "JSON pointer"),
    "what guests say": ({"identity": [{**WEB, "claims": {"ns": "/submods/cpu0/unverified/ns"}}]}, "say themselves"),
    "runtime data": ({"identity": [{**WEB, "claims": {"ns": "/a/runtime_data_claims/x"}}]}, "say themselves"),
    "half a CA": ({"ca_key": "x"}, "go together"),
    "long life": ({"x509_lifetime_seconds": 864_000}, "x509_lifetime_seconds"),
    "empty audience": ({"audiences": [""]}, "audiences"),
    "unknown option": ({"ttl": 5}, "ttl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_work_are_refused_at_start(tmp_path: Path, case: str) -> None:
    options, words = WRONG[case]
    with pytest.raises(ConfigInvalid, match=words):
        make(tmp_path, **options)


@pytest.fixture(scope="module")
def broker(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerUnderTest]:
    pointer = "/submods/cpu0/ear.veraison.annotated-evidence/sample/launch_digest"
    options = (
        '{trust_domain = "example.org", audiences = ["pay"], identity = [{name = "web", path = "/tee/{d}", '
        f'broker_keys = true, claims = {{d = "{pointer}"}}}}]}}'
    )
    settings = {
        "KBS__PLUGINS__ENABLED": '["resource", "spiffe"]',
        "KBS__PLUGINS__OPTIONS__SPIFFE": options,
        "KBS__POLICY__OPA": str(opa),
    }
    made = BrokerUnderTest(tmp_path_factory.mktemp("spiffe") / "data", Edge.ASGI, settings=settings)
    yield made
    made.close()


@pytest.mark.opa
def test_behind_the_release_door(broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert broker.call("GET", "/kbs/v0/spiffe/x509/web/key").status == 401
    bundle = broker.call("GET", "/.well-known/spiffe-bundle")
    assert (bundle.status, bundle.json["keys"][0]["use"]) == (200, "x509-svid")
    guest = broker.attested()
    headers = {"Cookie": f"kbs-session-id={guest.cookie}"}
    broker.use_policy("deny-all")
    assert broker.call("GET", "/kbs/v0/spiffe/x509/web/key", headers).status == 403
    policy = b'package policy\n\ndefault allow := false\n\nallow if data.plugin == "spiffe"\n'
    assert broker.admin("POST", "resource-policy", policy_upload(policy)).status == 200
    for method, path, body in (("GET", "x509/web/key", b""), ("POST", "x509/web", csr())):
        answer = broker.call(method, f"/kbs/v0/spiffe/{path}", headers, body)
        assert (answer.status, set(answer.json)) == (200, {"protected", "encrypted_key", "iv", "ciphertext", "tag"})
    assert broker.call("POST", "/kbs/v0/spiffe/x509/web", headers, b"x").status == 400
    assert broker.call("DELETE", "/kbs/v0/spiffe/x509/web", headers).status == 405
    assert "PRIVATE KEY" not in caplog.text
