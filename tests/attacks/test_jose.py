"""The attack corpus against the two doors that take tokens (P-JOSE-1 to 4).

Every outcome must be the same clean refusal, of one type. The honest token beside it is accepted, so that a row cannot
pass because its frame was wrong.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.admin.admin_tokens import AdminTokenMint
from kbs.admin.authorization import Roles
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from tests.attacks.jose_corpus import (
    BRINGS,
    KINDS,
    MALLORY,
    ORDERS,
    P256,
    RING,
    ROWS,
    SETTINGS,
    Kind,
    Order,
    Row,
    honest_header,
)
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import b64u, clock, ear


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind.name))
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def test_corpus_is_large_enough() -> None:
    assert len(ROWS) >= 120


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_the_honest_token_is_accepted(kind: Kind, order: Order) -> None:
    kind.accept(forge.token(order(honest_header(kind)), kind.claims(), forge.es(P256)))


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_attack_is_refused(kind: Kind, row: Row, order: Order) -> None:
    text = row(kind, order)
    with pytest.raises(kind.refusal) as caught:
        kind.accept(text)
    assert len(str(caught.value)) < 200  # and repeats nothing of the token
    assert len(text) < 40 or text[:40] not in str(caught.value)


@pytest.mark.parametrize("extra", [extra for label, extra in BRINGS.items() if label != "x5t"])
def test_what_a_good_token_brings_along_is_not_followed(kind: Kind, extra: dict[str, Any]) -> None:
    """Our own tokens are found by `kid`; no key, file or address in the header is looked at (sockets are off here)."""
    kind.accept(forge.token(honest_header(kind, **extra), kind.claims(), forge.es(P256)))


GOOD = {
    "attestation": TokenIssuer(RING, IssuerSettings(), clock).issue(ear()).text,
    "admin": AdminTokenMint(RING.signing, SETTINGS, Roles(), clock).mint("alice", "admin").text,
}


@settings(max_examples=400)
@given(st.data())
def test_any_single_bit_change_is_refused(data: st.DataObject) -> None:
    """On the wire, any bit of any character; and decoded, any bit of header, claims or signature."""
    kind = data.draw(st.sampled_from(KINDS))
    text = GOOD[kind.name]
    bit = data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        changed = text[:at] + chr(ord(text[at]) ^ (1 << bit)) + text[at + 1 :]
    else:
        parts = [bytearray(forge.unb64u(part)) for part in text.split(".")]
        part = parts[data.draw(st.integers(0, 2))]
        at = data.draw(st.integers(0, len(part) - 1))
        part[at] ^= 1 << bit
        changed = ".".join(b64u(bytes(part)) for part in parts)
    kind.accept(text)
    with pytest.raises(kind.refusal):
        kind.accept(changed)


@settings(max_examples=200)
@given(st.text(max_size=400))
def test_any_text_is_refused_cleanly(text: str) -> None:
    for kind in KINDS:
        with pytest.raises(kind.refusal):
            kind.accept(text)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jwk", "x5c", "crit", "iss"]),
                       st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                       | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3)))  # fmt: skip
def test_any_header_of_a_stranger_is_refused_cleanly(header: dict[str, Any]) -> None:
    for kind in KINDS:
        with pytest.raises(kind.refusal):
            kind.accept(forge.token(header, kind.claims(), forge.es(MALLORY)))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["exp", "iat", "nbf", "iss", "jti", "submods", "aud", "role", "sub", "scope"]),
                       st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8)
                                    | st.floats(allow_nan=False, allow_infinity=False),
                                    lambda inner: st.lists(inner, max_size=2)
                                    | st.dictionaries(st.text(max_size=4), inner, max_size=2)),
                       min_size=1))  # fmt: skip
def test_any_claims_under_a_good_signature_end_cleanly(changes: dict[str, Any]) -> None:
    """Even our own key cannot make the doors raise anything but their refusal."""
    for kind in KINDS:
        text = forge.token(honest_header(kind), kind.claims(**changes), forge.es(P256))
        with suppress(kind.refusal):
            kind.accept(text)
