"""Challenges sealed in cookies, with and without what a verifier wants back."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kbs.attestation.model import MAX_KEPT
from kbs.handshake.cookie import CookieSealer, OpenChallenge, nonce_digest
from kbs.protocol import base64url
from kbs.protocol.tee import Tee

END = datetime(2026, 6, 15, 12, 5, tzinfo=UTC)
SEALER = CookieSealer([bytes(range(32))], lambda: b"epoch", os.urandom)
PLAIN = OpenChallenge("ab" * 16, "bm9uY2U=", Tee.SNP, "0.4.0", END)
NONCE = '{"request_blob":"…"}'
KEPT = OpenChallenge("cd" * 16, nonce_digest(NONCE), Tee.SE, "0.4.0", END, b"\n\nkept\n\x00\xff")


@pytest.mark.parametrize("challenge", [PLAIN, KEPT, replace(KEPT, kept=bytes(range(256)) * (MAX_KEPT // 256))])
def test_what_is_sealed_comes_back(challenge: OpenChallenge) -> None:
    assert SEALER.open(SEALER.seal(challenge)) == challenge


def test_the_cookie_shows_nothing_of_it() -> None:
    octets = base64url.decode(SEALER.seal(KEPT))
    for secret in (KEPT.kept, b"kept", KEPT.nonce.encode(), b"se\n"):
        assert secret not in octets
    assert "kept" not in repr(KEPT)


def test_cookies_without_anything_kept_do_not_carry_it() -> None:
    """The cookies of all other TEEs did not grow for it."""
    size = 2 + 12 + 24 + len("snp\n0.4.0\nbm9uY2U=") + 16
    assert len(base64url.decode(SEALER.seal(PLAIN))) == size


def test_a_cookie_opens_in_its_epoch_only_and_says_which_that_was() -> None:
    epochs = [b"first"]
    sealer = CookieSealer([bytes(range(32))], lambda: epochs[-1], os.urandom)
    cookie = sealer.seal(PLAIN)
    opened = sealer.open(cookie)
    assert opened is not None
    assert opened.epoch == b"first"
    epochs.append(b"second")
    assert sealer.open(cookie) is None
    again = sealer.open(sealer.seal(opened))
    assert again == PLAIN
    assert again.epoch == b"second"


def test_each_day_has_a_key_of_its_own() -> None:
    tomorrow = replace(PLAIN, expires=PLAIN.expires + timedelta(days=1))
    today, other = base64url.decode(SEALER.seal(PLAIN)), base64url.decode(SEALER.seal(tomorrow))
    assert int.from_bytes(other[:2], "big") == int.from_bytes(today[:2], "big") + 1
    assert SEALER.open(base64url.encode(other).decode()) == tomorrow
    assert SEALER.open(base64url.encode(today[:2] + other[2:]).decode()) is None


def test_changed_and_foreign_cookies_do_not_open() -> None:
    sealed = bytearray(base64url.decode(SEALER.seal(KEPT)))
    for at in range(len(sealed)):
        sealed[at] ^= 1
        assert SEALER.open(base64url.encode(bytes(sealed)).decode()) is None
        sealed[at] ^= 1
    for other in (
        CookieSealer([bytes(32)], lambda: b"epoch", os.urandom),
        CookieSealer([bytes(range(32))], lambda: b"after a restart", os.urandom),
    ):
        assert other.open(SEALER.seal(KEPT)) is None


def test_answers() -> None:
    assert PLAIN.is_answered_with("bm9uY2U=")
    assert not PLAIN.is_answered_with("bm9uY2U")
    assert KEPT.is_answered_with(NONCE)
    assert not KEPT.is_answered_with(KEPT.nonce)  # the digest itself is no answer
    assert not KEPT.is_answered_with(NONCE + " ")
    assert not KEPT.is_answered_with("")
