"""What an acceptor keeps: recognised, but never past its time, its key or its trust."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.errors import TokenRejected
from kbs.protocol.tee_key import parse_tee_key
from kbs.tokens import jose
from kbs.tokens.acceptor import TokenAcceptor
from kbs.tokens.chain import load_trust_store
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from kbs.tokens.keys import KeyRing, SigningKey, load_token_key, signing_key
from kbs.tokens.trust import Trust, TrustedIssuer, own_issuer
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import ISSUER, NOW, TEE_KEY, T, clock, ear
from tests.kbs.tokens.own import CENTURY, HEADER, OWN, OWN_TRUST, RING, SteppedClock, other_key, own_token

TWO = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names the algorithm of every signature that is really checked."""
    seen: list[str] = []
    real = jose.verify

    def counted(parts: jose.CompactJws, key: jose.PublicKey) -> None:
        seen.append(parts.alg)
        real(parts, key)

    monkeypatch.setattr("kbs.tokens.acceptor.verify", counted)
    return seen


def test_second_use_is_recognised_but_its_time_is_looked_at(verifications: list[str]) -> None:
    now = SteppedClock()
    acceptor = TokenAcceptor(OWN_TRUST, now)
    text = own_token()
    assert acceptor.accept(text) is acceptor.accept(text)
    assert len(verifications) == 1
    now.now = NOW + timedelta(seconds=360)
    assert acceptor.accept(text).claims == ear()
    for step in (timedelta(seconds=361), timedelta(days=400), timedelta(seconds=-61)):
        now.now = NOW + step
        with pytest.raises(TokenRejected):
            acceptor.accept(text)
    now.now = NOW
    assert acceptor.accept(text).claims == ear()


def test_a_known_token_ends_with_the_chain_that_endorsed_it(vectors: Path) -> None:
    folder = vectors / "tokens"
    store = load_trust_store((folder / "cert-chain.pem").read_bytes())
    issuer = TrustedIssuer(name=ISSUER, store=store, max_life=CENTURY)
    key = load_token_key(folder / "signing-key.pem", folder / "cert-chain.pem")
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    claims = ear(iat=1, nbf=1, exp=3_000_000_000)
    text = forge.token({"alg": "ES256", "jwk": key.jwk()}, claims, forge.es(key.private))
    now = SteppedClock()
    acceptor = TokenAcceptor(Trust(own_issuer(RING), (issuer,)), now)
    for moment, accepted in (
        (NOW, True),
        (datetime(2034, 1, 1, tzinfo=UTC), True),
        (datetime(2034, 1, 1, 0, 0, 1, tzinfo=UTC), False),
        (datetime(2024, 1, 1, tzinfo=UTC), True),
        (datetime(2023, 12, 31, 23, 59, 59, tzinfo=UTC), False),
    ):
        now.now = moment
        if accepted:
            assert acceptor.accept(text).claims == claims
        else:
            with pytest.raises(TokenRejected, match="endorsed"):
                acceptor.accept(text)


def test_every_spelling_is_another_token(verifications: list[str]) -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock)
    text = own_token()
    acceptor.accept(text)
    for other in (text + "=", text + "\n", " " + text, text.replace(".", "..", 1), text[:-1]):
        with pytest.raises(TokenRejected):
            acceptor.accept(other)


def test_refusals_are_not_kept(verifications: list[str]) -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock)
    forged = forge.token(HEADER, ear(), forge.es(TWO))
    for _ in range(2):
        with pytest.raises(TokenRejected):
            acceptor.accept(forged)
    assert len(verifications) == 2


def test_change_of_trust_forgets(verifications: list[str]) -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock)
    text = own_token()
    acceptor.accept(text)
    acceptor.trust_changed(OWN_TRUST)
    acceptor.accept(text)
    assert len(verifications) == 2
    acceptor.trust_changed(Trust(own_issuer(KeyRing(signing_key(TWO)))))
    with pytest.raises(TokenRejected):
        acceptor.accept(text)


def test_cache_is_bounded_in_number_and_octets(verifications: list[str]) -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock, cache_size=2)
    texts = [own_token(jti=str(number)) for number in range(3)]
    for text in (*texts, texts[2], texts[1], texts[0]):
        acceptor.accept(text)
    assert len(verifications) == 4  # the oldest had to be verified again
    large = [own_token(jti=str(number), extra="x" * 60_000) for number in range(150)]
    roomy = TokenAcceptor(OWN_TRUST, clock, cache_size=1000)
    for text in large:
        roomy.accept(text)
    verifications.clear()
    roomy.accept(large[-1])
    roomy.accept(large[0])
    assert len(verifications) == 1


def _issued(key: SigningKey = OWN, **changes: Any) -> Any:
    return TokenIssuer(KeyRing(key), IssuerSettings(), clock).issue(ear(**changes))


def test_a_fresh_own_token_is_not_verified_again(verifications: list[str]) -> None:
    now = SteppedClock()
    acceptor = TokenAcceptor(OWN_TRUST, now)
    issued = _issued()
    acceptor.remember(issued)
    assert acceptor.accept(issued.text) is acceptor.accept(issued.text)
    assert acceptor.accept(issued.text).tee_key.members == TEE_KEY
    assert verifications == []
    now.now = NOW + timedelta(seconds=361)
    with pytest.raises(TokenRejected):
        acceptor.accept(issued.text)


def test_remembering_spares_nothing_but_the_signature(verifications: list[str]) -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock)
    for issued in (_issued(submods={}), _issued(exp=T + 86_400), _issued(nbf=T + 100)):
        acceptor.remember(issued)
        with pytest.raises(TokenRejected):
            acceptor.accept(issued.text)
    stranger = _issued(signing_key(TWO))
    acceptor.remember(stranger)
    with pytest.raises(TokenRejected):
        acceptor.accept(stranger.text)


def test_a_key_read_before_counts_only_if_the_claims_hold_it() -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock)
    issued = _issued()
    parsed = parse_tee_key(TEE_KEY)
    acceptor.remember(issued, parsed)
    assert acceptor.accept(issued.text).tee_key is parsed
    for stranger in (parse_tee_key(other_key()), msgspec.structs.replace(parsed, members={**TEE_KEY, "kid": "x"})):
        acceptor.remember(issued, stranger)
        assert acceptor.accept(issued.text).tee_key == parsed


def test_many_threads_see_one_truth() -> None:
    acceptor = TokenAcceptor(OWN_TRUST, clock, cache_size=4)
    texts = [own_token(jti=str(number)) for number in range(8)]
    failures: list[object] = []

    def work() -> None:
        for text, number in zip(texts * 5, [*range(8)] * 5, strict=True):
            accepted = acceptor.accept(text)
            if accepted.attestation != str(number):
                failures.append(accepted)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
