"""Endorsement of header keys: the field's scenarios, and chains made wrong one rule at a time."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.errors import ConfigInvalid, TokenRejected
from kbs.tokens.chain import TrustStore, load_trust_store, verify_endorsement
from kbs.tokens.jwk import public_jwk
from tests.kbs.tokens.forge import NOW

DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@pytest.mark.parametrize(
    ("number", "accepted"),
    [("01", True), ("02", False), ("03", False), ("04", False), ("05", True), ("06", True), ("07", True)],
)
def test_scenarios_of_the_field(vectors: Path, number: str, accepted: bool) -> None:
    folder = vectors / "tokens/jwk"
    jwk = json.loads((folder / f"scenario{number}-jwk.json").read_text())
    store = load_trust_store((folder / f"scenario{number}-trust.pem").read_bytes())
    if accepted:
        endorsed = verify_endorsement(jwk, store, NOW)
        assert endorsed.not_before <= NOW <= endorsed.not_after
        for moment in (endorsed.not_before - timedelta(seconds=1), endorsed.not_after + timedelta(seconds=1)):
            with pytest.raises(TokenRejected):
                verify_endorsement(jwk, store, moment)
    else:
        with pytest.raises(TokenRejected):
            verify_endorsement(jwk, store, NOW)


class Pki:
    """Makes certificates; every argument is one thing to do wrong."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}

    def key(self, name: str) -> Key:
        return self.keys.setdefault(name, ec.generate_private_key(ec.SECP256R1()))

    def certificate(
        self,
        subject: str,
        issuer: str,
        *,
        ca: bool | None = True,
        path_length: int | None = None,
        usage: str | None = None,
        start: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
        critical: bool = False,
        digest: hashes.SHA224 | hashes.SHA256 | None = None,
    ) -> x509.Certificate:
        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(self.key(subject).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        if usage is not None:
            flags = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
                False,
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(**{**flags, usage: True}), critical=True)
        if critical:
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
            builder = builder.add_extension(unknown, critical=True)
        signer = self.key(issuer)
        return builder.sign(
            signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
        )

    def jwk(self, leaf: str, *chain: x509.Certificate) -> dict[str, Any]:
        key = self.key(leaf).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        x5c = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]
        return {**public_jwk(key), "x5c": x5c}


def _store(*certificates: x509.Certificate) -> TrustStore:
    return load_trust_store(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))


def _refused(jwk: dict[str, Any], store: TrustStore) -> None:
    with pytest.raises(TokenRejected):
        verify_endorsement(jwk, store, NOW)


@pytest.fixture
def pki() -> Pki:
    return Pki()


def test_honest_chain_and_its_life(pki: Pki) -> None:
    leaf = pki.certificate("leaf", "mid", ca=False, usage="digital_signature", end=NOW + DAY / 2)
    mid = pki.certificate("mid", "root", path_length=0, usage="key_cert_sign", start=NOW - DAY / 2)
    endorsed = verify_endorsement(pki.jwk("leaf", leaf, mid), _store(pki.certificate("root", "root")), NOW)
    assert endorsed.key == pki.key("leaf").public_key()
    assert (endorsed.not_before, endorsed.not_after) == (NOW - DAY / 2, NOW + DAY / 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ca": False},
        {"ca": None},
        {"usage": "digital_signature"},
        {"end": NOW - timedelta(seconds=1)},
        {"start": NOW + timedelta(seconds=1)},
        {"critical": True},
        {"digest": hashes.SHA224()},
    ],
)
def test_intermediate_with_one_thing_wrong(pki: Pki, wrong: dict[str, Any]) -> None:
    leaf = pki.certificate("leaf", "mid", ca=False)
    root = _store(pki.certificate("root", "root"))
    verify_endorsement(pki.jwk("leaf", leaf, pki.certificate("mid", "root")), root, NOW)
    _refused(pki.jwk("leaf", leaf, pki.certificate("mid", "root", **wrong)), root)


@pytest.mark.parametrize(
    "wrong",
    [{"usage": "key_cert_sign"}, {"end": NOW - timedelta(seconds=1)}, {"critical": True}, {"digest": hashes.SHA224()}],
)
def test_leaf_with_one_thing_wrong(pki: Pki, wrong: dict[str, Any]) -> None:
    root = _store(pki.certificate("root", "root"))
    verify_endorsement(pki.jwk("leaf", pki.certificate("leaf", "root", ca=False)), root, NOW)
    _refused(pki.jwk("leaf", pki.certificate("leaf", "root", ca=False, **wrong)), root)


@pytest.mark.parametrize(
    "wrong",
    [{"ca": False}, {"ca": None}, {"end": NOW - timedelta(seconds=1)}, {"usage": "crl_sign"}, {"critical": True}],
)
def test_anchor_with_one_thing_wrong(pki: Pki, wrong: dict[str, Any]) -> None:
    leaf = pki.certificate("leaf", "root", ca=False)
    _refused(pki.jwk("leaf", leaf), _store(pki.certificate("root", "root", **wrong)))


def test_path_length_is_kept(pki: Pki) -> None:
    chain = [
        pki.certificate("leaf", "b", ca=False),
        pki.certificate("b", "a"),
        pki.certificate("a", "root", path_length=0),
    ]
    root = _store(pki.certificate("root", "root"))
    _refused(pki.jwk("leaf", *chain), root)
    chain[2] = pki.certificate("a", "root", path_length=1)
    verify_endorsement(pki.jwk("leaf", *chain), root, NOW)
    _refused(pki.jwk("leaf", *chain), _store(pki.certificate("root", "root", path_length=1)))


def test_five_certificates_are_the_most(pki: Pki) -> None:
    root = _store(pki.certificate("root", "root"))
    links = ["leaf", "d", "c", "b", "a", "root"]
    six = [pki.certificate(links[at], links[at + 1], ca=at > 0) for at in range(5)]
    _refused(pki.jwk("leaf", *six), root)
    verify_endorsement(pki.jwk("leaf", *six[:3], pki.certificate("c", "root")), root, NOW)


def test_same_name_is_not_the_same_key(pki: Pki) -> None:
    leaf = pki.certificate("leaf", "root", ca=False)
    del pki.keys["root"]
    _refused(pki.jwk("leaf", leaf), _store(pki.certificate("root", "root")))


def test_chain_may_not_end_in_an_intermediate_of_the_bundle(pki: Pki) -> None:
    leaf, mid = pki.certificate("leaf", "mid", ca=False), pki.certificate("mid", "root")
    _refused(pki.jwk("leaf", leaf), _store(mid, pki.certificate("other", "other")))
    verify_endorsement(pki.jwk("leaf", leaf), _store(mid, pki.certificate("root", "root")), NOW)
    with pytest.raises(ConfigInvalid, match="self-signed"):
        _store(mid)
    with pytest.raises(ConfigInvalid, match="no PEM"):
        load_trust_store(b"")


def test_a_pinned_self_signed_leaf_endorses_itself(pki: Pki) -> None:
    """The reference's own token fixture is endorsed that way."""
    leaf = pki.certificate("leaf", "leaf", ca=None)
    verify_endorsement(pki.jwk("leaf", leaf), _store(leaf), NOW)
    _refused(pki.jwk("leaf", leaf), _store(pki.certificate("other", "other")))


def test_ed25519_roots_and_weak_rsa_roots(pki: Pki) -> None:
    pki.keys["root"] = ed25519.Ed25519PrivateKey.generate()
    leaf = pki.certificate("leaf", "root", ca=False)
    verify_endorsement(pki.jwk("leaf", leaf), _store(pki.certificate("root", "root")), NOW)
    pki.keys["root"] = rsa.generate_private_key(65537, 1024)
    _refused(pki.jwk("leaf", pki.certificate("leaf", "root", ca=False)), _store(pki.certificate("root", "root")))


@pytest.mark.parametrize("spoil", ["missing", "empty", "text", "number", "twice", "newline", "url", "garbage", "long"])
def test_other_x5c_members_are_refused(pki: Pki, spoil: str) -> None:
    jwk = pki.jwk("leaf", pki.certificate("leaf", "root", ca=False))
    store = _store(pki.certificate("root", "root"))
    good = jwk["x5c"][0]
    verify_endorsement(jwk, store, NOW)
    spoilt: dict[str, Any] = {
        "missing": None,
        "empty": [],
        "text": good,
        "number": [good, 1],
        "twice": [good, good],
        "newline": [good[:64] + "\n" + good[64:]],
        "url": [good.rstrip("=").replace("+", "-").replace("/", "_") + "_"],
        "garbage": [base64.b64encode(b"no certificate").decode()],
        "long": [base64.b64encode(bytes(20_000)).decode()],
    }
    _refused({**jwk, "x5c": spoilt[spoil]}, store)


@pytest.mark.parametrize(
    "change",
    [
        {"x": base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")},
        {"crv": "P-521"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"d": "AA"},
        {"x": 1},
        {"kty": "RSA"},
    ],
)
def test_other_keys_beside_a_good_chain_are_refused(pki: Pki, change: dict[str, Any]) -> None:
    jwk = pki.jwk("leaf", pki.certificate("leaf", "root", ca=False))
    _refused({**jwk, **change}, _store(pki.certificate("root", "root")))


def test_many_lookalikes_cost_a_bounded_number_of_signatures(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle of CAs with one name makes the search branch; it stops early instead."""
    lookalikes = []
    for _ in range(12):
        pki.keys.pop("a", None)
        lookalikes.append(pki.certificate("a", "a"))
    calls: list[object] = []

    def never(*pair: object) -> bool:
        calls.append(pair)
        return False

    monkeypatch.setattr("kbs.tokens.chain._is_issued_by", never)
    store = TrustStore(tuple(lookalikes), tuple(lookalikes))
    leaf = pki.certificate("leaf", "a", ca=False)
    _refused(pki.jwk("leaf", leaf, pki.certificate("a", "a", end=NOW + 2 * DAY)), store)
    assert 0 < len(calls) <= 32


def test_time_is_the_caller_s(pki: Pki) -> None:
    leaf = pki.certificate("leaf", "root", ca=False, start=datetime(2020, 1, 1, tzinfo=UTC), end=NOW)
    root = pki.certificate("root", "root", start=datetime(2019, 1, 1, tzinfo=UTC))
    jwk = pki.jwk("leaf", leaf)
    verify_endorsement(jwk, _store(root), NOW)
    with pytest.raises(TokenRejected):
        verify_endorsement(jwk, _store(root), NOW + timedelta(seconds=1))
