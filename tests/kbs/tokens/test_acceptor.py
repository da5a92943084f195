"""Accepting: the field's vectors, trust per issuer, the cache, the TEE key."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.attestation.ear import TEE_KEY_POINTER, TEE_KEY_POINTERS
from kbs.errors import ConfigInvalid, TokenRejected
from kbs.tokens import jose
from kbs.tokens.acceptor import TokenAcceptor
from kbs.tokens.chain import load_trust_store
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from kbs.tokens.keys import KeyRing, VerifyingKey, load_token_key, signing_key
from kbs.tokens.trust import Trust, TrustedIssuer, TrustedKey, own_issuer, parse_jwk_set
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import ISSUER, NOW, TEE_KEY, T, clock, ear
from tests.kbs.tokens.own import CENTURY, HEADER, OWN, OWN_TRUST, P256, RING, other_key, own_token

# --- vectors ----------------------------------------------------------------------------------------------------------


def _vectors(folder: Path) -> Any:
    return json.loads((folder / "token-vectors.json").read_text())


def _vector_trust(document: Any, config: Any, *, compat: bool) -> Trust:
    """Own keys are other ones here: the vectors' issuer is foreign."""
    issuers = []
    certificates = "".join(document["pem"][name] for name in config["trusted_certs"])
    try:
        store = load_trust_store(certificates.encode()) if certificates else None
    except ConfigInvalid:  # a bundle without an anchor is refused at load already
        store = None
    keys = parse_jwk_set(document["jwks"]) if config["trusted_jwks"] else {}
    insecure = compat and config["insecure_header_jwk"]
    if keys or store or insecure:
        issuers.append(
            TrustedIssuer(name=ISSUER, keys=keys, store=store, max_life=CENTURY, insecure_header_jwk=insecure)
        )
    return Trust(own_issuer(RING, max_life=CENTURY), tuple(issuers))


VECTOR_FOLDER = Path(__file__).parents[2] / "vectors/tokens"
CASES = _vectors(VECTOR_FOLDER)["cases"]
DIFFERENCES = json.loads((VECTOR_FOLDER / "differences.json").read_text())["token-vectors.json"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("compat", [False, True])
def test_vectors_of_the_field(case: Any, compat: bool) -> None:
    """With our defaults, and with `insecure_header_jwk` where the configuration of the case has it."""
    document = _vectors(VECTOR_FOLDER)
    expected = case["accepted"]
    if case["name"] in DIFFERENCES and not (compat and case["config"]["insecure_header_jwk"]):
        assert DIFFERENCES[case["name"]]["reference"] == expected
        expected = DIFFERENCES[case["name"]]["ours"]
    acceptor = TokenAcceptor(_vector_trust(document, case["config"], compat=compat), clock)
    if expected:
        accepted = acceptor.accept(case["token"])
        assert accepted.tee_key.members == document["expected_tee_pubkey"]
        assert accepted.issuer == ISSUER
    else:
        with pytest.raises(TokenRejected):
            acceptor.accept(case["token"])


def test_every_difference_names_a_vector() -> None:
    assert DIFFERENCES.keys() <= {case["name"] for case in CASES}


def test_token_of_the_sample_flow(vectors: Path) -> None:
    """Endorsed by the pinned certificate; without that anchor its key is just a stranger's."""
    sample = json.loads((vectors / "tokens/sample-flow-token.json").read_text())
    store = load_trust_store((vectors / "tokens/cert-chain.pem").read_bytes())
    issuer = TrustedIssuer(name=ISSUER, store=store)

    def at() -> datetime:
        return datetime.fromtimestamp(sample["payload"]["iat"] + 1, UTC)

    accepted = TokenAcceptor(Trust(own_issuer(RING), (issuer,)), at).accept(sample["token"])
    assert accepted.claims == sample["payload"]
    with pytest.raises(TokenRejected):
        TokenAcceptor(OWN_TRUST, at).accept(sample["token"])


# --- own tokens -------------------------------------------------------------------------------------------------------


def test_own_token_and_what_is_taken_from_it() -> None:
    accepted = TokenAcceptor(OWN_TRUST, clock).accept(own_token())
    assert accepted.tee_key.members == TEE_KEY
    assert json.loads(accepted.claims_json) == accepted.claims == ear()
    assert (accepted.issuer, accepted.attestation) == (ISSUER, "0123456789abcdef")
    assert accepted.expires == NOW + timedelta(minutes=5)


def test_own_token_is_found_by_kid_whatever_else_the_header_holds(vectors: Path) -> None:
    folder = vectors / "tokens"
    key = load_token_key(folder / "signing-key.pem", folder / "cert-chain.pem")
    issued = TokenIssuer(KeyRing(key), IssuerSettings(), clock).issue(ear())
    assert TokenAcceptor(Trust(own_issuer(KeyRing(key))), clock).accept(issued.text).claims == ear()
    extras: tuple[dict[str, Any], ...] = ({"jwk": "nonsense"}, {"jku": "https://evil.example"}, {"x5c": []}, {"x5u": 1})
    for extra in extras:
        assert TokenAcceptor(OWN_TRUST, clock).accept(own_token(extra)).claims == ear()


def test_own_kid_never_reaches_foreign_keys() -> None:
    """A foreign set that claims our kid cannot sign as us, nor as itself under that kid."""
    other = ec.generate_private_key(ec.SECP256R1())
    foreign = TrustedIssuer(name="foreign", keys={OWN.kid: TrustedKey(other.public_key(), "ES256")})
    acceptor = TokenAcceptor(Trust(own_issuer(RING), (foreign,)), clock)
    for name in (ISSUER, "foreign"):
        with pytest.raises(TokenRejected):
            acceptor.accept(forge.token(HEADER, ear(iss=name), forge.es(other)))


def test_rotation_tokens_of_the_former_key_and_of_the_next_are_ours() -> None:
    """As long as they are configured; without one its tokens are a stranger's."""
    new = signing_key(ec.generate_private_key(ec.SECP256R1()))
    former, coming = VerifyingKey(OWN.public, OWN.kid), VerifyingKey(new.public, new.kid)
    news = TokenIssuer(KeyRing(new), IssuerSettings(), clock).issue(ear()).text
    for ring in (KeyRing(new, (former,)), KeyRing(OWN, (coming,))):
        acceptor = TokenAcceptor(Trust(own_issuer(ring)), clock)
        for text in (own_token(), news):
            assert acceptor.accept(text).claims == ear()
    with pytest.raises(TokenRejected, match="no trusted key"):
        TokenAcceptor(Trust(own_issuer(KeyRing(new))), clock).accept(own_token())


@pytest.mark.parametrize("jti", [1, None, "", "x" * 257, ["a"]])
def test_other_ids_are_refused(jti: Any) -> None:
    with pytest.raises(TokenRejected):
        TokenAcceptor(OWN_TRUST, clock).accept(own_token(jti=jti))


def test_id_may_be_absent() -> None:
    assert TokenAcceptor(OWN_TRUST, clock).accept(own_token(jti=...)).attestation is None


@pytest.mark.parametrize("claims", [b"", b"[]", b"null", b'{"iss":1,"iss":2}', b'{"exp":1e999}', b"\xff"])
def test_payloads_that_do_not_decode_are_refused(claims: bytes) -> None:
    with pytest.raises(TokenRejected):
        TokenAcceptor(OWN_TRUST, clock).accept(forge.token(HEADER, claims, forge.es(P256)))


def test_evidence_as_deep_as_a_body_may_be_still_fits() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    assert TokenAcceptor(OWN_TRUST, clock).accept(own_token(extra=deep)).claims["extra"] == deep


def test_size_limit_is_exact() -> None:
    text = own_token()
    TokenAcceptor(OWN_TRUST, clock, max_token=len(text)).accept(text)
    with pytest.raises(TokenRejected):
        TokenAcceptor(OWN_TRUST, clock, max_token=len(text) - 1).accept(text)
    assert jose.MAX_ATTESTATION_TOKEN == 96 * 1024


# --- the TEE key ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [None, {}, [], "key", {**TEE_KEY, "y": TEE_KEY["x"]}, {**TEE_KEY, "alg": "dir"}, {"kty": "oct", "k": "AA"}],
)
def test_tokens_without_a_usable_key_are_refused(key: Any) -> None:
    claims = ear()
    claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"]["tee-pubkey"] = key
    with pytest.raises(TokenRejected):
        TokenAcceptor(OWN_TRUST, clock).accept(forge.token(HEADER, claims, forge.es(P256)))


@pytest.mark.parametrize("submods", [{}, {"gpu0": {}}, None, [], {"cpu0": None}])
def test_tokens_without_the_place_are_refused(submods: Any) -> None:
    with pytest.raises(TokenRejected, match="no TEE key"):
        TokenAcceptor(OWN_TRUST, clock).accept(own_token(submods=submods))


def test_key_at_another_issuer_s_place_is_never_looked_at() -> None:
    """P-REL-2: one claim path per issuer."""
    stray: dict[str, Any] = {"tee-pubkey": other_key(), "tdx": {"attester_runtime_data": {"tee-pubkey": other_key()}}}
    acceptor = TokenAcceptor(OWN_TRUST, clock)
    assert acceptor.accept(own_token(**stray)).tee_key.members == TEE_KEY
    with pytest.raises(TokenRejected):
        acceptor.accept(own_token(**stray, submods={}))


def test_of_several_places_exactly_one_may_hold_a_key() -> None:
    foreign = TrustedIssuer(
        name="foreign", keys={"k": TrustedKey(P256.public_key(), "ES256")}, tee_key_pointers=TEE_KEY_POINTERS
    )
    acceptor = TokenAcceptor(Trust(own_issuer(RING), (foreign,)), clock)

    def text(**changes: Any) -> str:
        return forge.token({"alg": "ES256", "kid": "k"}, ear(iss="foreign", **changes), forge.es(P256))

    assert acceptor.accept(text()).tee_key.members == TEE_KEY
    other = other_key()
    at_the_top = {"submods": ..., "tee-pubkey": other}
    assert acceptor.accept(text(**at_the_top)).tee_key.members == other
    with pytest.raises(TokenRejected, match="several"):
        acceptor.accept(text(**{"tee-pubkey": other}))
    with pytest.raises(TokenRejected):
        acceptor.accept(text(submods=...))


# --- foreign issuers --------------------------------------------------------------------------------------------------

ONE, TWO = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def _foreign(name: str, key: ec.EllipticCurvePrivateKey, kid: str, pointer: str = TEE_KEY_POINTER) -> TrustedIssuer:
    keys = {kid: TrustedKey(key.public_key(), "ES256")}
    return TrustedIssuer(name=name, keys=keys, tee_key_pointers=(pointer,), max_life=timedelta(minutes=10))


def test_issuers_with_the_same_kid_stay_apart() -> None:
    trust = Trust(own_issuer(RING), (_foreign("one", ONE, "k"), _foreign("two", TWO, "k")))
    acceptor = TokenAcceptor(trust, clock)
    for name, key in (("one", ONE), ("two", TWO)):
        assert acceptor.accept(forge.token({"alg": "ES256", "kid": "k"}, ear(iss=name), forge.es(key))).issuer == name
    for name, key in (("one", TWO), ("two", ONE), (ISSUER, ONE), ("three", ONE)):
        with pytest.raises(TokenRejected):
            acceptor.accept(forge.token({"alg": "ES256", "kid": "k"}, ear(iss=name), forge.es(key)))


def test_issuers_with_the_same_key_are_told_apart_by_name() -> None:
    """Each token is judged by the rules of the issuer it names, here the place of the key."""
    trust = Trust(own_issuer(RING), (_foreign("one", ONE, "k"), _foreign("two", ONE, "k", "/tee-pubkey")))
    acceptor = TokenAcceptor(trust, clock)
    other = other_key()
    for name, expected in (("one", TEE_KEY), ("two", other)):
        claims = ear(iss=name, **{"tee-pubkey": other})
        accepted = acceptor.accept(forge.token({"alg": "ES256", "kid": "k"}, claims, forge.es(ONE)))
        assert (accepted.issuer, accepted.tee_key.members) == (name, expected)


def test_maximum_life_is_per_issuer() -> None:
    acceptor = TokenAcceptor(Trust(own_issuer(RING), (_foreign("one", ONE, "k"),)), clock)
    for life, accepted in ((600, True), (601, False)):
        text = forge.token({"alg": "ES256", "kid": "k"}, ear(iss="one", exp=T + life), forge.es(ONE))
        if accepted:
            acceptor.accept(text)
        else:
            with pytest.raises(TokenRejected, match="longer"):
                acceptor.accept(text)


def test_algorithm_must_be_the_key_s_and_the_issuer_s() -> None:
    key = rsa.generate_private_key(65537, 2048)
    keys = {"k": TrustedKey(key.public_key(), "RS384")}
    allowed = TrustedIssuer(name="one", keys=keys, algorithms=frozenset({"RS384", "PS384"}))
    text = forge.token({"alg": "RS384", "kid": "k"}, ear(iss="one"), forge.rs(key, hashes.SHA384()))
    pss = forge.token({"alg": "PS384", "kid": "k"}, ear(iss="one"), forge.ps(key, hashes.SHA384()))
    acceptor = TokenAcceptor(Trust(own_issuer(RING), (allowed,)), clock)
    assert acceptor.accept(text).issuer == "one"
    with pytest.raises(TokenRejected):
        acceptor.accept(pss)
    es_only = replace(allowed, algorithms=frozenset({"ES256"}))
    with pytest.raises(TokenRejected):
        TokenAcceptor(Trust(own_issuer(RING), (es_only,)), clock).accept(text)


def test_unendorsed_jwk_is_refused_even_beside_a_known_kid() -> None:
    acceptor = TokenAcceptor(Trust(own_issuer(RING), (_foreign("one", ONE, "k"),)), clock)
    bare = signing_key(ONE).jwk()
    good = forge.token({"alg": "ES256", "kid": "k"}, ear(iss="one"), forge.es(ONE))
    acceptor.accept(good)
    with pytest.raises(TokenRejected):
        acceptor.accept(forge.token({"alg": "ES256", "kid": "k", "jwk": bare}, ear(iss="one"), forge.es(ONE)))
