"""Vault as a store of resources: log-ins, outages, lies, and what guests and administrators are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from kbs.config import ResourceSettings
from kbs.errors import ConfigInvalid, KbsError, MalformedMessage, NameNotAllowed, ResourceNotFound, StorageUnavailable
from kbs.plugins.model import PluginRequest
from kbs.plugins.resource import ResourcePlugin
from kbs.plugins.resource.backends import external_stores
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import StoppedClock
from tests.fakes.vault import JWT, ROLE_ID, SECRET_ID, FakeVault

URL = "https://vault.example:8200"
VAULT = {"prefix": "team-a/", "type": "vault", "url": URL}
PATH = ("team-a", "keys", "one")
NAME = "/".join(PATH)
CANARY = "CANARY"


class Bench:
    """A plugin whose `team-a/` is in a fake Vault, and the ticks it sees."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.fake = FakeVault(tokens={"token-CANARY"})
        self.ticks = 1000.0
        self.store = MemoryStore()
        patch.setattr(HTTPAdapter, "send", lambda adapter, request, **more: self.fake.send(adapter, request, **more))
        for name, text in {"token": "token-CANARY\n", "secret-id": SECRET_ID, "jwt": JWT}.items():
            (folder / name).write_text(text)

    def plugin(self, *tables: Mapping[str, Any]) -> ResourcePlugin:
        settings = ResourceSettings(store=tables or ({**VAULT, "token_file": "token"},))
        stores = external_stores(settings, self.folder, StoppedClock(), lambda: self.ticks)
        return ResourcePlugin(self.store, StoppedClock(), stores)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://attacker.example/")
    return Bench(tmp_path, monkeypatch)


def get(plugin: ResourcePlugin, *segments: str) -> bytes:
    return plugin.handle(PluginRequest("GET", segments or PATH, {})).payload.reveal()


def put(plugin: ResourcePlugin, value: bytes, *segments: str) -> int | None:
    return plugin.handle(PluginRequest("POST", segments or PATH, {}, value, author="ann")).version


def refusal(call: Callable[[], object]) -> KbsError:
    with pytest.raises(KbsError) as caught:
        call()
    assert CANARY not in f"{caught.value!s}{caught.value!r}{caught.value.operator_detail}"
    assert caught.value.__cause__ is None
    return caught.value


APPROLE = {**VAULT, "approle": {"role_id": ROLE_ID, "secret_id_file": "secret-id"}}
KUBERNETES = {**VAULT, "kubernetes": {"role": ROLE_ID, "jwt_file": "jwt"}}


@pytest.mark.parametrize("table", [APPROLE, KUBERNETES], ids=["approle", "kubernetes"])
def test_a_log_in_is_used_until_its_lease_nears_its_end(bench: Bench, table: Mapping[str, Any]) -> None:
    plugin = bench.plugin(table)
    put(plugin, b"x")
    assert get(plugin) == b"x"
    assert bench.fake.logins == 1
    bench.ticks += 2399
    get(plugin)
    assert bench.fake.logins == 1
    bench.ticks += 1
    get(plugin)
    assert bench.fake.logins == 2


def test_a_revoked_token_is_replaced_once(bench: Bench) -> None:
    plugin = bench.plugin(APPROLE)
    put(plugin, b"x")
    bench.fake.tokens.clear()
    bench.ticks += 60
    assert get(plugin) == b"x"
    assert bench.fake.logins == 2
    bench.fake.forbidden.add(f"secret/data/{NAME}")
    bench.ticks += 60
    for _ in range(5):
        refusal(lambda: get(plugin))
    assert bench.fake.logins == 3, "guests must not be able to make the broker log in at will"


def test_a_renewed_token_file_is_read_again(bench: Bench) -> None:
    plugin = bench.plugin()
    put(plugin, b"x")
    bench.fake.tokens = {"next"}
    (bench.folder / "token").write_text("next")
    bench.ticks += 60
    assert get(plugin) == b"x"


def test_settings_are_what_counts_and_not_the_environment(bench: Bench) -> None:
    plugin = bench.plugin({**VAULT, "token_file": "token", "namespace": "ns/one", "path": "kbs"})
    put(plugin, b"x")
    assert bench.fake.seen == [("POST", f"secret/data/kbs/{NAME}")]
    sent = {name.lower(): value for name, value in bench.fake.headers[0].items()}
    assert (sent["x-vault-namespace"], sent["x-vault-token"]) == ("ns/one", "token-CANARY")


def test_forbidden_is_absent_to_guests_and_told_to_administrators(bench: Bench) -> None:
    plugin = bench.plugin()
    absent = refusal(lambda: get(plugin))
    bench.fake.forbidden |= {f"secret/data/{NAME}"}
    forbidden = refusal(lambda: get(plugin))
    assert type(absent) is type(forbidden) is ResourceNotFound
    assert str(absent) == str(forbidden)
    assert "403" in str(forbidden.operator_detail)
    told = refusal(lambda: put(plugin, b"x"))
    assert isinstance(told, NameNotAllowed)
    assert "403" in str(told)


SHAPES: Mapping[str, tuple[Any, bytes]] = {
    "text": ("geheim-ü", "geheim-ü".encode()),
    "octets": ([0, 255], b"\x00\xff"),
    "object": ({"a": 1}, b'{"a":1}'),
    "number": (7, b"7"),
    "too large to be an octet": ([256], b"[256]"),
    "not whole": ([1.5], b"[1.5]"),
    "booleans": ([True], b"[true]"),
    "null": (None, b"null"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_others_wrote_is_read_as_the_reference_reads_it(bench: Bench, shape: str) -> None:
    value, expected = SHAPES[shape]
    bench.fake.v2[NAME] = {1: {"data": value}}
    assert get(bench.plugin()) == expected


def test_a_secret_without_the_member_is_absent(bench: Bench) -> None:
    bench.fake.v2[NAME] = {1: {"password": "CANARY"}}
    assert "no member 'data'" in str(refusal(lambda: get(bench.plugin())).operator_detail)
    assert get(bench.plugin({**VAULT, "token_file": "token", "field": "password"})) == b"CANARY"


JSON = {"Content-Type": "application/json"}
ANSWERS: Mapping[str, tuple[int, bytes, Mapping[str, str]]] = {
    "sealed": (503, b'{"errors":["Vault is sealed CANARY"]}', JSON),
    "bug": (500, b'{"errors":["CANARY"]}', JSON),
    "standby": (473, b"", {}),
    "too many": (429, b"CANARY", {}),
    "redirect": (307, b"", {"Location": "http://169.254.169.254/latest/meta-data"}),
    "a page": (200, b"<html>CANARY</html>", {"Content-Type": "text/html"}),
    "not an object": (200, b"[1]", JSON),
    "cut JSON": (200, b'{"data":{"data":{"data":"CANARY', JSON),
    "no data": (200, b'{"auth":null}', JSON),
    "no number": (200, b'{"data":{"data":{"data":"CANARY"},"metadata":{"version":"1"}}}', JSON),
    "errors of a wrong type": (500, b'["CANARY"]', JSON),
    "endless": (200, b'"' + b"x" * (13 << 20), JSON),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_garbage_is_an_outage(bench: Bench, answer: str) -> None:
    bench.fake.answer = ANSWERS[answer]
    plugin = bench.plugin()
    for call in (lambda: get(plugin), lambda: put(plugin, b"x")):
        assert isinstance(refusal(call), StorageUnavailable)
    assert {path for _, path in bench.fake.seen} == {f"secret/data/{NAME}"}


@pytest.mark.parametrize("kind", [requests.ConnectTimeout, requests.ConnectionError, requests.exceptions.SSLError])
def test_an_outage_is_told_without_addresses(bench: Bench, kind: type[Exception]) -> None:
    bench.fake.fails = kind("https://vault.example CANARY")
    fault = refusal(lambda: get(bench.plugin()))
    assert isinstance(fault, StorageUnavailable)
    assert "vault.example" not in str(fault)
    assert kind.__name__ in str(fault.operator_detail)


def test_no_engine_at_the_mount_is_told_to_operators(bench: Bench) -> None:
    plugin = bench.plugin({**VAULT, "token_file": "token", "mount": "nowhere"})
    assert "no secrets engine" in str(refusal(lambda: get(plugin)).operator_detail)
    assert "no secrets engine" in str(refusal(lambda: put(plugin, b"x")))


@pytest.mark.parametrize("content", ["", "\n", "two words", "ümlaut", "a\x00b"])
def test_a_credential_that_is_none_goes_nowhere(bench: Bench, content: str) -> None:
    (bench.folder / "token").write_text(content)
    assert "holds no credential" in str(refusal(lambda: get(bench.plugin())).operator_detail)
    assert bench.fake.seen == []


def test_a_wrong_log_in_is_an_outage(bench: Bench) -> None:
    (bench.folder / "secret-id").write_text("CANARY-wrong")
    fault = refusal(lambda: get(bench.plugin(APPROLE)))
    assert isinstance(fault, StorageUnavailable)
    assert "log-in" in str(fault.operator_detail)


def test_a_missing_credential_file_is_named_to_operators_only(bench: Bench) -> None:
    fault = refusal(lambda: get(bench.plugin({**VAULT, "token_file": "nothing-here"})))
    assert "nothing-here" in str(fault.operator_detail)
    assert "nothing-here" not in str(fault)


NOT_NAMES = [
    ("team-a", "..", "x"),
    ("team-a", "keys"),
    ("team-a", "a%2Fb", "x"),
    ("team-a", "a/b", "x"),
    ("team-a", "", "x"),
    ("team-a", "keys", "x?version=1"),
    ("team-a", "keys", "x#"),
    ("team-a", "keys", "x\n"),
    ("sys", ".", "seal"),
]


@pytest.mark.parametrize("segments", NOT_NAMES, ids=repr)
def test_what_is_no_name_never_goes_out(bench: Bench, segments: tuple[str, ...]) -> None:
    plugin = bench.plugin({**VAULT, "prefix": "", "token_file": "token"})
    assert isinstance(refusal(lambda: get(plugin, *segments)), ResourceNotFound)
    with pytest.raises(KbsError):
        put(plugin, b"x", *segments)
    assert bench.fake.seen == []


def test_the_longest_prefix_decides(bench: Bench) -> None:
    inner = {**VAULT, "prefix": "team-a/keys/", "token_file": "token", "kv": 1, "mount": "kv1"}
    plugin = bench.plugin({**VAULT, "token_file": "token"}, inner)
    put(plugin, b"v1")
    put(plugin, b"v2", "team-a", "certs", "one")
    put(plugin, b"own", "team-ab", "keys", "one")
    assert set(bench.fake.v1) == {NAME}
    assert set(bench.fake.v2) == {"team-a/certs/one"}
    assert [entry.key for entry in bench.store.entries("repository")] == ["team-ab/keys/one"]
    assert [entry.key for entry in plugin.entries()] == ["team-a/certs/one", NAME, "team-ab/keys/one"]
    bench.fake.v2[NAME] = {1: {"data": "hidden below another prefix"}}
    assert get(plugin) == b"v1"
    assert [entry.key for entry in plugin.entries("team-a/keys/")] == [NAME]


def test_what_was_in_the_broker_below_a_prefix_is_not_served(bench: Bench) -> None:
    bench.store.put("repository", NAME, b"old", meta={})
    assert isinstance(refusal(lambda: get(bench.plugin())), ResourceNotFound)


def test_a_rollback_is_a_new_version(bench: Bench) -> None:
    from kbs.protocol.resource_path import parse

    plugin = bench.plugin()
    put(plugin, b"one")
    put(plugin, b"two")
    assert plugin.roll_back(parse(PATH), 1, author="ann") == 3
    assert get(plugin) == b"one"
    with pytest.raises(ResourceNotFound):
        plugin.roll_back(parse(PATH), 9, author="ann")
    first = bench.plugin({**VAULT, "token_file": "token", "kv": 1, "mount": "kv1"})
    put(first, b"x")
    with pytest.raises(MalformedMessage):
        first.roll_back(parse(PATH), 1, author="ann")


def test_nothing_secret_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    plugin = bench.plugin(APPROLE)
    put(plugin, b"value-CANARY")
    get(plugin)
    bench.fake.tokens.clear()
    refusal(lambda: get(plugin))
    assert CANARY not in caplog.text
    assert CANARY not in repr(plugin)


TOKEN = {"token_file": "token"}
WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no type": ({"prefix": "a/", "url": URL}, "type: expected one of"),
    "another type": ({"prefix": "a/", "type": "floppy"}, "type: expected one of"),
    "no prefix": ({"type": "vault", "url": URL, **TOKEN}, "prefix"),
    "half a segment": ({**VAULT, "prefix": "team-a", **TOKEN}, "prefix"),
    "four segments": ({**VAULT, "prefix": "a/b/c/d", **TOKEN}, "prefix"),
    "dots": ({**VAULT, "prefix": "../", **TOKEN}, "prefix"),
    "leading slash": ({**VAULT, "prefix": "/team-a/", **TOKEN}, "prefix"),
    "unknown option": ({**VAULT, **TOKEN, "tokenfile": "x"}, "tokenfile"),
    "a token in the settings": ({**VAULT, "token": "hvs.x"}, "token"),
    "no url": ({"prefix": "a/", "type": "vault", **TOKEN}, "url"),
    "plain HTTP": ({**VAULT, "url": "http://vault.example", **TOKEN}, "https"),
    "a file": ({**VAULT, "url": "file:///etc/passwd", **TOKEN}, "https"),
    "user in the url": ({**VAULT, "url": "https://u:p@vault.example", **TOKEN}, "https"),
    "port that is none": ({**VAULT, "url": "https://vault.example:99999", **TOKEN}, "no address"),
    "two log-ins": ({**APPROLE, **TOKEN}, "exactly one"),
    "no log-in": (VAULT, "exactly one"),
    "half an approle": ({**VAULT, "approle": {"role_id": "x"}}, "secret_id_file"),
    "engine version": ({**VAULT, **TOKEN, "kv": 3}, "kv: 1 or 2"),
    "engine version as text": ({**VAULT, **TOKEN, "kv": "2"}, "expected int"),
    "mount with dots": ({**VAULT, **TOKEN, "mount": "../sys"}, "mount and path"),
    "mount with slashes around": ({**VAULT, **TOKEN, "mount": "/secret/"}, "mount and path"),
    "empty member": ({**VAULT, **TOKEN, "field": ""}, "field is empty"),
    "no time": ({**VAULT, **TOKEN, "timeout_seconds": 0}, "timeout_seconds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_work_are_refused_at_start(bench: Bench, case: str) -> None:
    table, words = WRONG[case]
    with pytest.raises(ConfigInvalid, match=words) as caught:
        bench.plugin(table)
    assert "resource.store[0]" in str(caught.value)


def test_a_prefix_has_one_store(bench: Bench) -> None:
    table = {**VAULT, **TOKEN}
    with pytest.raises(ConfigInvalid, match="has a store already"):
        bench.plugin(table, table)


def test_without_the_library_the_extra_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "hvac", None)
    for name in ("vault", "vault_session"):
        monkeypatch.delitem(sys.modules, f"kbs.plugins.resource.backends.{name}")
    with pytest.raises(ConfigInvalid, match=r"pip install 'kbs\[vault\]'"):
        bench.plugin({**VAULT, **TOKEN})


def test_written_as_octets(bench: Bench) -> None:
    put(bench.plugin(), b"\x00\xff")
    assert json.dumps(bench.fake.v2[NAME][1]) == '{"data": [0, 255]}'
