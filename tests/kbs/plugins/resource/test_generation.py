"""Resources made on first use: exactly once, for whom they are bound to, rotated, with a copy for the administrator."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwcrypto import jwe as jose
from jwcrypto import jwk

from kbs import config
from kbs.client.errors import Refused
from kbs.client.tee_keys import TeeKeyPair
from kbs.config import GeneratedSettings, ResourceSettings
from kbs.errors import ConfigInvalid, MalformedMessage, ResourceNotFound, StorageUnavailable, VersionConflict
from kbs.plugins.model import Guest, PluginAnswer, PluginContext, PluginRequest
from kbs.plugins.resource import ResourcePlugin, build
from kbs.plugins.resource.generation import Shape
from kbs.protocol.resource_path import parse
from kbs.secret import Secret
from kbs.storage.memory import MemoryStore
from kbs.storage.model import KeyValueStore
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore
from tests.fakes.broker import START, BrokerUnderTest, Edge, StoppedClock

DIGEST = "ab" * 32
KEY = TeeKeyPair.generate()


def guest(**claims: Any) -> Guest:
    evidence = {"init_data": DIGEST, **claims}
    return Guest({"submods": {"cpu0": {"ear.veraison.annotated-evidence": evidence}}}, b"{}", KEY.public, START, None)


class Bench:
    """A plugin with rules, on a store and a clock of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = StoppedClock()
        self.store: KeyValueStore = MemoryStore()

    def plugin(self, *rules: Mapping[str, Any], store: tuple[Mapping[str, Any], ...] = ()) -> ResourcePlugin:
        given = {"generate": [{"path": "luks/*/*", **rule} for rule in rules], "store": [*store]}
        settings = config.structure(given, ResourceSettings, "resource")
        return build(PluginContext(self.store, self.clock, os.urandom, self.data, {}, settings))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ask(plugin: ResourcePlugin, name: str, version: str | None = None, who: Guest | None = None) -> PluginAnswer:
    query = {} if version is None else {"version": version}
    return plugin.handle(PluginRequest("GET", tuple(name.split("/")), query, guest=who or guest()))


def value(plugin: ResourcePlugin, name: str, version: str | None = None, who: Guest | None = None) -> bytes:
    return ask(plugin, name, version, who).payload.reveal()


def test_the_first_who_asks_makes_it_and_all_get_the_same(bench: Bench) -> None:
    plugin = bench.plugin({})
    first = ask(plugin, "luks/vm/root")
    assert len(first.payload) == 32
    assert first.version == 1
    assert value(plugin, "luks/vm/root") == first.payload.reveal()
    assert value(plugin, "luks/vm/data") != first.payload.reveal()
    (entry, _) = plugin.entries("luks/")
    assert entry.meta["author"] == "first use"


@pytest.mark.parametrize(
    ("encoding", "decode"),
    [("raw", bytes), ("hex", lambda text: bytes.fromhex(text.decode())), ("base64", base64.b64decode)],
)
def test_encodings(bench: Bench, encoding: str, decode: Callable[[bytes], bytes]) -> None:
    assert len(decode(value(bench.plugin({"encoding": encoding, "bytes": 64}), "luks/vm/root"))) == 64


def test_other_names_are_not_made(bench: Bench) -> None:
    plugin = bench.plugin({"path": "luks/vm/*"})
    for name in ("luks/other/root", "default/vm/root", "luks/vm"):
        with pytest.raises(ResourceNotFound):
            ask(plugin, name)
    assert plugin.entries() == []


def test_without_rules_nothing_is_made(bench: Bench) -> None:
    with pytest.raises(ResourceNotFound):
        ask(bench.plugin(), "luks/vm/root")


def test_what_an_administrator_wrote_is_what_guests_get(bench: Bench) -> None:
    plugin = bench.plugin({})
    plugin.write(parse(("luks", "vm", "root")), b"mine", author="ann", expected=None)
    assert value(plugin, "luks/vm/root") == b"mine"


def test_a_thousand_races_have_one_winner_each(tmp_path: Path) -> None:
    """Two handles on one database, as two workers have; every race starts at one moment."""
    keys = SealingKeys([Secret(bytes(32))])
    stores = [SealedStore(SqliteStore(tmp_path / "kv.db"), keys) for _ in range(2)]
    benches = [Bench(tmp_path), Bench(tmp_path)]
    for bench, store in zip(benches, stores, strict=True):
        bench.store = store
    plugins = [bench.plugin({}) for bench in benches]
    barrier = threading.Barrier(4)

    def race(worker: int) -> list[bytes]:
        found = []
        for number in range(250):
            if number % 50 == 0:
                barrier.wait()
            found.append(value(plugins[worker % 2], f"luks/vm/{number}"))
        return found

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(race, range(4)))
    assert all(each == results[0] for each in results)
    assert len(set(results[0])) == 250
    assert {entry.version for entry in plugins[0].entries()} == {1}
    for store in stores:
        store.close()


def test_a_bound_key_is_for_whom_it_names(bench: Bench) -> None:
    plugin = bench.plugin({"bind": "init_data"})
    hashed = hashlib.sha256(DIGEST.encode()).hexdigest()
    assert value(plugin, f"luks/{DIGEST}/root") != value(plugin, f"luks/{hashed}/root")
    other = "cd" * 32
    wrong = {"another": guest(init_data=other), "none": guest(init_data=None), "number": guest(init_data=7)}
    wrong |= {"empty": guest(init_data=""), "list": guest(init_data=[DIGEST])}
    wrong["no claims"] = Guest({}, b"{}", KEY.public, START, None)
    texts = set()
    for who in wrong.values():
        with pytest.raises(ResourceNotFound, match="no resource") as refused:
            ask(plugin, f"luks/{DIGEST}/root", who=who)
        texts.add(str(refused.value))
    assert len(texts) == 1
    with pytest.raises(ResourceNotFound):
        ask(plugin, f"luks/{other}/root")
    assert [entry.key for entry in plugin.entries(f"luks/{other}")] == []


def test_a_bound_key_is_for_nobody_who_is_no_guest(bench: Bench) -> None:
    plugin, name = bench.plugin({"bind": "init_data"}), ("luks", DIGEST, "root")
    assert value(plugin, "/".join(name))
    with pytest.raises(ResourceNotFound):
        plugin.handle(PluginRequest("GET", name, {}))


def test_a_name_may_be_bound_to_any_claim(bench: Bench) -> None:
    plugin = bench.plugin({"bind": "/submods/cpu0/ear.veraison.annotated-evidence/pod"})
    assert len(value(plugin, "luks/web-1/root", who=guest(pod="web-1"))) == 32
    with pytest.raises(ResourceNotFound):
        ask(plugin, "luks/web-1/root", who=guest(pod="web-2"))


def test_a_rotation_keeps_the_old_one_readable_for_its_time(bench: Bench) -> None:
    plugin = bench.plugin({"old_versions_seconds": 60})
    path = parse(("luks", "vm", "root"))
    old = value(plugin, "luks/vm/root")
    bench.clock.advance(1000)
    assert plugin.generate(path, None, author="ann", rotate=True) == 2
    new = value(plugin, "luks/vm/root")
    assert new != old
    assert len(new) == 32
    assert value(plugin, "luks/vm/root", "2") == new
    assert value(plugin, "luks/vm/root", "1") == old
    bench.clock.advance(59)
    assert value(plugin, "luks/vm/root", "1") == old
    bench.clock.advance(1)
    for version in ("1", "0", "3", "-1", "01e", "", "9" * 40, "²"):
        with pytest.raises(ResourceNotFound):
            ask(plugin, "luks/vm/root", version)
    assert value(plugin, "luks/vm/root") == new


def test_without_that_time_an_old_version_is_gone_for_guests(bench: Bench) -> None:
    plugin = bench.plugin({})
    ask(plugin, "luks/vm/root")
    plugin.generate(parse(("luks", "vm", "root")), None, author="ann", rotate=True)
    with pytest.raises(ResourceNotFound):
        ask(plugin, "luks/vm/root", "1")


def test_asking_for_a_version_makes_nothing(bench: Bench) -> None:
    plugin = bench.plugin({})
    with pytest.raises(ResourceNotFound):
        ask(plugin, "luks/vm/root", "1")
    assert plugin.entries() == []


def test_an_administrator_generates_once_and_rotates_what_is_there(bench: Bench) -> None:
    plugin = bench.plugin({})
    path, own = parse(("luks", "vm", "root")), parse(("a", "b", "c"))
    assert plugin.generate(path, None, author="ann", rotate=False) == 1
    with pytest.raises(VersionConflict):
        plugin.generate(path, None, author="ann", rotate=False)
    with pytest.raises(MalformedMessage, match="how many bytes"):
        plugin.generate(own, None, author="ann", rotate=False)
    with pytest.raises(ResourceNotFound):
        plugin.generate(own, None, author="ann", rotate=True)
    plugin.write(own, b"typed", author="ann", expected=None)
    with pytest.raises(MalformedMessage, match="was not generated"):
        plugin.generate(own, None, author="ann", rotate=True)
    assert plugin.generate(own, Shape(48, "hex"), author="ann", rotate=True) == 2
    assert plugin.generate(own, None, author="ann", rotate=True) == 3
    assert len(value(plugin, "a/b/c")) == 96


def test_no_more_are_made_than_allowed(bench: Bench) -> None:
    plugin = bench.plugin({"most": 2})
    known = [value(plugin, f"luks/vm/{number}") for number in range(2)]
    with pytest.raises(StorageUnavailable, match="no more"):
        ask(plugin, "luks/vm/2")
    assert [value(plugin, f"luks/vm/{number}") for number in range(2)] == known


def _public(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _private(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_the_escrow_copy_opens_with_any_jose_library(bench: Bench, kind: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    (bench.data / "escrow.pem").write_bytes(_public(key))
    plugin = bench.plugin({"escrow": "escrow.pem"})
    secret = value(plugin, "luks/vm/root")
    plugin.generate(parse(("luks", "vm", "root")), None, author="ann", rotate=True)
    first, second = plugin.history(parse(("luks", "vm", "root")))
    opened = jose.JWE()
    opened.deserialize(first.meta["escrow"], jwk.JWK.from_pem(_private(key)))
    assert opened.payload == secret
    assert first.meta["escrow"] != second.meta["escrow"]


def test_a_version_that_is_current_again_still_has_its_copy_and_can_be_rotated(bench: Bench) -> None:
    (bench.data / "escrow.pem").write_bytes(_public(ec.generate_private_key(ec.SECP256R1())))
    plugin, path = bench.plugin({"escrow": "escrow.pem", "bytes": 48}), parse(("luks", "vm", "root"))
    secret = value(plugin, "luks/vm/root")
    plugin.generate(path, None, author="ann", rotate=True)
    plugin.roll_back(path, 1, author="ann")
    assert value(plugin, "luks/vm/root") == secret
    first, _, again = plugin.history(path)
    assert (again.meta["escrow"], again.meta["generated"]) == (first.meta["escrow"], "48 raw")
    assert plugin.generate(path, None, author="ann", rotate=True) == 4
    assert len(value(plugin, "luks/vm/root")) == 48


VAULT = {"prefix": "luks/", "type": "vault", "url": "https://v.example", "token_file": "t"}
WRONG: Mapping[str, tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...], str]] = {
    "two segments": ({"path": "luks/*"}, (), "path: expected"),
    "dots": ({"path": "luks/../*"}, (), "path: expected"),
    "part of a name": ({"path": "luks/vm-*/root"}, (), "path: expected"),
    "short": ({"bytes": 8}, (), "16 to 4096"),
    "long": ({"bytes": 4097}, (), "16 to 4096"),
    "bytes as text": ({"bytes": "32"}, (), "expected int"),
    "encoding": ({"encoding": "rot13"}, (), "encoding"),
    "bind to words": ({"bind": "pod"}, (), "init_data"),
    "bind without a place": ({"bind": "init_data", "path": "luks/vm/*"}, (), "TYPE in the path"),
    "negative time": ({"old_versions_seconds": -1}, (), "negative"),
    "none": ({"most": 0}, (), "positive"),
    "no escrow key": ({"escrow": "nothing.pem"}, (), "No such file"),
    "escrow to a private key": ({"escrow": "private.pem"}, (), "expected a public key"),
    "escrow to Ed25519": ({"escrow": "ed25519.pem"}, (), "expected a public key"),
    "escrow to a short RSA key": ({"escrow": "short.pem"}, (), "expected a public key"),
    "unknown option": ({"lenght": 3}, (), "lenght"),
    "store without compare-and-set": ({}, ({**VAULT, "kv": 1},), "exactly once"),
    "escrow in another store": ({"escrow": "good.pem"}, (VAULT,), "own store"),
}


@pytest.mark.parametrize("case", WRONG)
def test_rules_that_cannot_work_are_refused_at_start(bench: Bench, case: str) -> None:
    rule, stores, words = WRONG[case]
    good = ec.generate_private_key(ec.SECP256R1())
    (bench.data / "good.pem").write_bytes(_public(good))
    (bench.data / "private.pem").write_bytes(_private(good))
    (bench.data / "ed25519.pem").write_bytes(_public(ed25519.Ed25519PrivateKey.generate()))
    (bench.data / "short.pem").write_bytes(_public(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(ConfigInvalid, match=words):
        bench.plugin(rule, store=stores)


def test_a_rule_beside_another_store_is_fine(bench: Bench) -> None:
    assert len(value(bench.plugin({}, store=({**VAULT, "prefix": "team/", "kv": 1},)), "luks/vm/root")) == 32
    assert GeneratedSettings(path="a/b/c").bytes == 32


# --- a whole broker ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerUnderTest]:
    rule = '[{path = "luks/*/*", encoding = "hex"}]'
    made = BrokerUnderTest(
        tmp_path_factory.mktemp("generation") / "data", Edge.ASGI, settings={"KBS__RESOURCE__GENERATE": rule}
    )
    yield made
    made.close()


def test_only_an_allowed_guest_makes_one(broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    guest = broker.attested()
    broker.use_policy("deny-all")
    with pytest.raises(Refused):
        guest.get_resource("luks/vm/root")
    assert broker.admin("GET", "admin/resources?prefix=luks/").json == []
    broker.use_policy("allow-all")
    secret = guest.get_resource("luks/vm/root")
    assert len(bytes.fromhex(secret.decode())) == 32
    assert broker.attested().get_resource("luks/vm/root") == secret
    assert secret.decode() not in caplog.text
    assert secret.decode() not in json.dumps(broker.audit_records())


GENERATE = "admin/resources/luks/vm/{}/generate"
BODIES: Mapping[str, tuple[bytes, int]] = {
    "no JSON": (b"x", 400),
    "a list": (b"[]", 400),
    "another member": (b'{"value":"x"}', 400),
    "few": (b'{"bytes":8}', 400),
    "many": (b'{"bytes":1000000}', 400),
    "a truth": (b'{"bytes":true}', 400),
    "a fraction": (b'{"bytes":32.0}', 400),
    "encoding": (b'{"bytes":32,"encoding":"rot13"}', 400),
    "encoding alone": (b'{"encoding":"hex"}', 400),
    "rotate as text": (b'{"rotate":"yes"}', 400),
    "nothing to rotate": (b'{"rotate":true}', 404),
}


@pytest.mark.parametrize("case", BODIES)
def test_wrong_requests_to_generate_make_nothing(broker: BrokerUnderTest, case: str) -> None:
    body, status = BODIES[case]
    assert broker.admin("POST", GENERATE.format("wrong"), body).status == status
    assert broker.admin("GET", "admin/resources/luks/vm/wrong").status == 404


def test_an_administrator_generates_and_rotates(broker: BrokerUnderTest) -> None:
    assert broker.admin("POST", GENERATE.format("one"), b"{}").json == {"version": 1}
    again = broker.admin("POST", GENERATE.format("one"), b"{}")
    assert (again.status, again.name) == (412, "VersionConflict")
    assert broker.admin("POST", GENERATE.format("one"), b'{"rotate":true}').json == {"version": 2}
    auditor = broker.token_for("auditor")
    assert broker.admin("POST", GENERATE.format("two"), b"{}", token=auditor).status == 403
    text = json.dumps([record for record in broker.audit_records() if "luks/vm/one" in json.dumps(record)])
    assert [text.count(f'"action": "{action}"') for action in ("generate", "rotate")] == [1, 1]
