"""Rotation of the keys that sign identities: whoever trusts the bundle as it is at any moment trusts what is issued."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto import jwk, jws

from kbs.errors import ConfigInvalid, MalformedMessage, NameNotAllowed, ResourceNotFound, VersionConflict
from kbs.plugins.model import Guest, PluginContext, PluginRequest
from kbs.plugins.spiffe import SpiffePlugin, build
from kbs.storage.memory import MemoryStore
from kbs.storage.model import KeyValueStore
from kbs.storage.sqlite import SqliteStore
from tests.fakes.broker import START, StoppedClock
from tests.kbs.plugins.test_spiffe import FILES, OPTIONS, TEE_KEY, authority_files, csr

HOUR = 3600


class Replica:
    """One process of the broker. The clock is everybody's."""

    def __init__(self, store: KeyValueStore, clock: StoppedClock, folder: Path, **more: Any) -> None:
        self.clock = clock
        options = {**OPTIONS, "bundle_refresh_seconds": HOUR, **more}
        self.plugin: SpiffePlugin = build(PluginContext(store, clock, os.urandom, folder, options))

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        guest = Guest({"submods": {"cpu0": {"ns": "bank"}}}, b"{}", TEE_KEY, self.clock.now, None)
        answer = self.plugin.handle(PluginRequest(method, tuple(path.split("/")), {}, body, guest=guest))
        return json.loads(answer.payload.reveal())

    def rotate(self, how: str = "with-notice", path: str = "authority") -> Any:
        body = json.dumps({"rotate": how}).encode()
        answer = self.plugin.handle(PluginRequest("PUT", tuple(path.split("/")), {}, body, author="ann"))
        return json.loads(answer.payload.reveal())["generations"]

    @property
    def bundle(self) -> Any:
        return self.plugin.public_document()

    @property
    def roots(self) -> list[bytes]:
        return [base64.b64decode(key["x5c"][0]) for key in self.bundle["keys"] if key["use"] == "x509-svid"]

    def issue(self) -> tuple[x509.Certificate, str, datetime]:
        """A certificate and a JWT, and when the first of both ends."""
        one, other = self.ask("POST", "x509/web", csr()), self.ask("GET", "jwt/web/token")
        ends = min(datetime.fromisoformat(each["expires_at"]) for each in (one, other))
        return x509.load_pem_x509_certificate(one["x509_svid"].encode()), other["jwt_svid"], ends


def verifies(bundle: Any, issued: tuple[x509.Certificate, str, datetime], now: datetime) -> bool:
    """As a relying party with this bundle sees it."""
    roots = [base64.b64decode(key["x5c"][0]) for key in bundle["keys"] if key["use"] == "x509-svid"]
    store = Store([x509.load_der_x509_certificate(each) for each in roots])
    try:
        PolicyBuilder().store(store).time(now).build_client_verifier().verify(issued[0], [])
    except VerificationError:
        return False
    token = jws.JWS()
    token.deserialize(issued[1])
    for key in bundle["keys"]:
        if key["use"] == "jwt-svid" and key["kid"] == token.jose_header["kid"]:
            with suppress(jws.InvalidJWSSignature):
                token.verify(jwk.JWK(**{**key, "use": "sig"}))
                return True
    return False


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def one(clock: StoppedClock, tmp_path: Path) -> Replica:
    return Replica(MemoryStore(), clock, tmp_path)


def test_old_and_new_stand_beside_each_other_for_as_long_as_anything_needs_them(
    one: Replica, clock: StoppedClock
) -> None:
    before, fetched = one.issue(), one.bundle
    old, new = one.rotate()
    assert (old["state"], new["state"]) == ("signing", "next")
    assert new["signs_from"] == (START + timedelta(hours=2)).isoformat()
    assert old["verifies_until"] == (START + timedelta(hours=3)).isoformat()
    assert len(one.roots) == 2
    assert len(x509.load_pem_x509_certificates(one.ask("POST", "x509/web", csr())["bundle"].encode())) == 2
    assert verifies(one.bundle, before, clock.now)
    clock.advance(2 * HOUR - 1)
    last_of_old = one.issue()
    assert verifies(fetched, last_of_old, clock.now)  # nobody needs the new bundle yet
    clock.advance(1)
    first_of_new = one.issue()
    assert not verifies(fetched, first_of_new, clock.now)
    assert verifies(one.bundle, first_of_new, clock.now)
    clock.now = last_of_old[2] - timedelta(seconds=1)
    assert verifies(one.bundle, last_of_old, clock.now)
    clock.now = START + timedelta(hours=3)
    assert len(one.roots) == 1
    assert verifies(one.bundle, one.issue(), clock.now)


def test_a_restart_and_another_replica_see_the_same(tmp_path: Path, clock: StoppedClock) -> None:
    store = MemoryStore()
    first, second = (Replica(store, clock, tmp_path) for _ in range(2))
    assert first.bundle == second.bundle
    first.rotate()
    assert first.bundle == second.bundle == Replica(store, clock, tmp_path).bundle
    for seconds in (0, 2 * HOUR, HOUR):
        clock.advance(seconds)
        for issuer, reader in ((first, second), (second, first), (first, Replica(store, clock, tmp_path))):
            assert verifies(reader.bundle, issuer.issue(), clock.now)


def test_processes_on_one_database_and_a_restart(tmp_path: Path, clock: StoppedClock) -> None:
    stores = [SqliteStore(tmp_path / "kbs.db") for _ in range(2)]
    writing, reading = (Replica(store, clock, tmp_path) for store in stores)
    assert reading.bundle == writing.bundle
    writing.rotate()
    for _ in range(500):  # the other process looks a few times each second
        if len(reading.roots) == 2:
            break
        time.sleep(0.02)
    assert reading.bundle == writing.bundle
    kept = writing.bundle
    for each in stores:
        each.close()
    again = SqliteStore(tmp_path / "kbs.db")
    clock.advance(2 * HOUR)
    after = Replica(again, clock, tmp_path)
    assert verifies(kept, after.issue(), clock.now)  # the keys that were announced are those that sign
    again.close()


def test_two_administrators_who_rotate_at_once_rotate_once(tmp_path: Path, clock: StoppedClock) -> None:
    store = MemoryStore()
    first, second = (Replica(store, clock, tmp_path) for _ in range(2))
    first.rotate()
    with pytest.raises(VersionConflict, match="last rotation sign from"):
        second.rotate()
    clock.advance(2 * HOUR)
    assert [(each["generation"], each["state"]) for each in second.rotate()] == [
        (1, "old"),
        (2, "signing"),
        (3, "next"),
    ]
    clock.advance(3 * HOUR)  # what is over is forgotten
    assert [each["generation"] for each in second.rotate()] == [3, 4]


def test_a_lost_key_leaves_at_once(one: Replica, clock: StoppedClock) -> None:
    before = one.issue()
    one.rotate()
    (only,) = one.rotate("at-once")
    assert (only["generation"], only["state"]) == (3, "signing")
    assert not verifies(one.bundle, before, clock.now)
    assert verifies(one.bundle, one.issue(), clock.now)


def test_every_change_counts_the_bundle_on(one: Replica) -> None:
    numbers = [one.bundle["spiffe_sequence"]]
    for how in ("with-notice", "at-once"):
        one.rotate(how)
        numbers.append(one.bundle["spiffe_sequence"])
    assert numbers == sorted(set(numbers))


def test_keys_are_rotated_unasked_where_the_settings_say_so(tmp_path: Path, clock: StoppedClock) -> None:
    store = MemoryStore()
    first, second = (Replica(store, clock, tmp_path, rotate_after_days=30) for _ in range(2))
    issued = first.issue()
    clock.advance(30 * 24 * HOUR - 1)
    assert len(first.roots) == 1
    clock.advance(1)
    assert len(second.roots) == 2
    assert first.bundle == second.bundle
    assert not verifies(first.bundle, issued, clock.now)  # it ended long ago
    assert verifies(first.bundle, second.issue(), clock.now)
    clock.advance(60 * 24 * HOUR)  # nobody asked meanwhile
    assert verifies(first.bundle, second.issue(), clock.now)


def test_no_identity_outlives_the_place_of_its_key_in_the_bundle(tmp_path: Path, clock: StoppedClock) -> None:
    """Also where somebody makes lives longer while a rotation is on its way."""
    store = MemoryStore()
    Replica(store, clock, tmp_path).rotate()
    longer = Replica(store, clock, tmp_path, x509_lifetime_seconds=86_400, jwt_lifetime_seconds=3_600)
    clock.advance(HOUR)
    assert max(each["expires_at"] for each in (longer.ask("POST", "x509/web", csr()),)) == (
        (START + timedelta(hours=3)).isoformat()
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 3 * HOUR)),
        st.tuples(st.sampled_from(["rotate", "issue"]), st.integers(0, 1)),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_whatever_is_valid_verifies_at_any_time_and_with_a_bundle_that_is_an_hour_old(
    steps: list[tuple[str, int]],
) -> None:
    store, clock = MemoryStore(), StoppedClock()
    replicas = [Replica(store, clock, Path("/nowhere")) for _ in range(2)]
    issued, bundles = [], [(clock.now, replicas[0].bundle)]
    for step, number in steps:
        if step == "wait":
            clock.advance(number)
        elif step == "rotate":
            with suppress(VersionConflict):
                replicas[number].rotate()
        else:
            issued.append(replicas[number].issue())
        bundles.append((clock.now, replicas[0].bundle))
        recent = [bundle for at, bundle in bundles if clock.now - at <= timedelta(seconds=HOUR)]
        for each in issued:
            if each[2] > clock.now:
                assert verifies(replicas[1].bundle, each, clock.now)
        if issued and step == "issue":
            assert all(verifies(bundle, issued[-1], clock.now) for bundle in recent)


WRONG: Mapping[str, bytes] = {
    "empty": b"",
    "no object": b"[]",
    "another word": b'{"rotate": "now"}',
    "no word": b'{"rotate": true}',
    "more": b'{"rotate": "at-once", "x": 1}',
    "twice": b'{"rotate": "at-once", "rotate": "with-notice"}',
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_change_nothing(one: Replica, case: str) -> None:
    before = one.bundle
    with pytest.raises(MalformedMessage):
        one.plugin.handle(PluginRequest("PUT", ("authority",), {}, WRONG[case], author="ann"))
    with pytest.raises(ResourceNotFound):
        one.rotate(path="x509/web")
    assert one.bundle == before


@pytest.fixture
def corporate(tmp_path: Path) -> Path:
    authority_files(tmp_path)
    return tmp_path


def _files(folder: Path) -> None:
    """The CA of `folder` becomes the old one, and the key of JWT-SVIDs is the operator's too."""
    (folder / "old.pem").write_bytes((folder / "ca.pem").read_bytes())
    authority_files(folder)
    for name in ("jwt", "old-jwt"):
        key = authority_files(folder, name)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)


def test_an_operators_old_root_stays_by_a_setting(corporate: Path, clock: StoppedClock) -> None:
    store = MemoryStore()
    before = Replica(store, clock, corporate, **FILES).issue()
    _files(corporate)
    without = Replica(store, clock, corporate, **FILES)
    beside = Replica(store, clock, corporate, **FILES, old_roots=["old.pem"])
    assert not verifies(without.bundle, before, clock.now)
    assert verifies(beside.bundle, before, clock.now)
    assert verifies(beside.bundle, beside.issue(), clock.now)
    assert [each["generation"] for each in beside.rotate()] == [1, 2]  # of the JWT key, which the broker made
    assert len(beside.roots) == 2
    assert len([key for key in beside.bundle["keys"] if key["use"] == "jwt-svid"]) == 2


def test_an_operators_jwt_key_is_the_operators(corporate: Path, clock: StoppedClock) -> None:
    _files(corporate)
    whole = {**FILES, "jwt_key": "jwt.key", "old_jwt_keys": ["old-jwt.pub"]}
    one = Replica(MemoryStore(), clock, corporate, **whole)
    assert len({key["kid"] for key in one.bundle["keys"] if key["use"] == "jwt-svid"}) == 2
    with pytest.raises(NameNotAllowed, match="old_roots"):
        one.rotate()


def test_files_that_cannot_be_beside(corporate: Path, clock: StoppedClock) -> None:
    (corporate / "p384.pub").write_bytes(
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    cases: Mapping[str, Mapping[str, Any]] = {
        "No such file": {"old_roots": ["absent"]},
        "expected certificates": {"old_roots": ["ca.key"]},
        "expected a public key": {"old_jwt_keys": ["ca.pem"]},
        "P-256": {"old_jwt_keys": ["p384.pub"]},
        "rotate_after_days": {"rotate_after_days": 0},
        "that the broker makes": {"rotate_after_days": 1, **FILES},
    }
    for words, given_options in cases.items():
        with pytest.raises(ConfigInvalid, match=words):
            Replica(MemoryStore(), clock, corporate, **given_options)
