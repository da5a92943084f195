"""Plugin and store `pkcs11` on a SoftHSM token: objects, wrapping, log-ins, forks, what is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, ObjectClass

from kbs.errors import (
    ConfigInvalid,
    KbsError,
    MalformedMessage,
    NameNotAllowed,
    ResourceNotFound,
    StorageUnavailable,
)
from kbs.plugins.model import Access, PluginAnswer, PluginContext, PluginRequest
from kbs.plugins.pkcs11 import Pkcs11Plugin, build
from kbs.plugins.resource.backends import pkcs11 as pkcs11_store
from kbs.plugins.resource.model import StoreContext
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import StoppedClock
from tests.softhsm import LABEL, PIN, SoftToken

KEY = "wrapping"
PATH = ("resource", "team-a", "keys", "one")
OWNED: Mapping[Attribute, Any] = {Attribute.TOKEN: True, Attribute.LABEL: "team-a/keys/one"}


def options(token: SoftToken, **more: Any) -> dict[str, Any]:
    shared = {"module": str(token.module), "pin_file": str(token.folder / "pin")}
    return {**shared, "rsa_mechanism": "RsaPkcsTest", "lookup_label": KEY, **more}


def plugin(token: SoftToken, **more: Any) -> Pkcs11Plugin:
    given = options(token, **more)
    return build(PluginContext(MemoryStore(), StoppedClock(), lambda count: b"\x01" * count, token.folder, given))


def ask(made: Pkcs11Plugin, method: str, *segments: str, body: bytes = b"") -> PluginAnswer:
    author = None if method == "GET" else "ann"
    return made.handle(PluginRequest(method, segments, {}, body, author=author))


@pytest.fixture
def made(token: SoftToken) -> Pkcs11Plugin:
    fresh = plugin(token)
    fresh._token.use(_clean)
    return fresh


def _clean(session: pkcs11.Session) -> None:
    for each in list(session.get_objects({Attribute.LABEL: "team-a/keys/one"})):
        each.destroy()


@pytest.fixture(scope="module")
def keys(token: SoftToken) -> None:
    def generate(session: pkcs11.Session) -> None:
        session.generate_keypair(KeyType.RSA, 2048, store=True, label=KEY)
        for _ in range(2):
            session.generate_keypair(KeyType.RSA, 1024, store=True, label="twice")

    plugin(token)._token.use(generate)


def test_who_may_do_what(made: Pkcs11Plugin) -> None:
    guards = made.guards()
    assert set(guards) == {"GET", "POST", "DELETE"}
    assert guards["GET"].access is Access.TOKEN
    assert {guards[each].permission for each in ("POST", "DELETE")} == {"plugin.admin"}


@pytest.mark.parametrize("value", [b"x", bytes(range(256)), b"\x00" * 64], ids=["one", "all", "zeros"])
def test_octets_come_back(made: Pkcs11Plugin, value: bytes) -> None:
    with pytest.raises(ResourceNotFound):
        ask(made, "GET", *PATH)
    assert ask(made, "POST", *PATH, body=value).action == "write"
    assert ask(made, "GET", *PATH).payload.reveal() == value
    assert ask(made, "DELETE", *PATH).action == "delete"
    with pytest.raises(ResourceNotFound):
        ask(made, "DELETE", *PATH)


def test_a_second_write_replaces_and_leaves_one_object(made: Pkcs11Plugin) -> None:
    for value in (b"one", b"two", b"three"):
        ask(made, "POST", *PATH, body=value)
    assert ask(made, "GET", *PATH).payload.reveal() == b"three"
    assert made._token.use(lambda session: len(list(session.get_objects(dict(OWNED))))) == 1


def test_the_newer_of_two_is_read(made: Pkcs11Plugin) -> None:
    """What a broker leaves that dies between the new object and the end of the old."""
    secret = {**OWNED, Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.GENERIC_SECRET}
    readable = {**secret, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}

    def make(session: pkcs11.Session) -> None:
        for number, value in ((7, b"new"), (6, b"old")):
            session.create_object({**readable, Attribute.ID: number.to_bytes(8, "big"), Attribute.VALUE: value})

    made._token.use(make)
    assert ask(made, "GET", *PATH).payload.reveal() == b"new"
    ask(made, "POST", *PATH, body=b"newest")
    assert ask(made, "GET", *PATH).payload.reveal() == b"newest"


def test_what_other_tools_made_is_read(made: Pkcs11Plugin) -> None:
    """As the reference makes it: no number in it."""
    secret = {**OWNED, Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.GENERIC_SECRET}
    readable = {**secret, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.VALUE: b"theirs"}
    made._token.use(lambda session: session.create_object(readable))
    assert ask(made, "GET", *PATH).payload.reveal() == b"theirs"
    assert ask(made, "DELETE", *PATH).action == "delete"


@pytest.mark.usefixtures("keys")
def test_what_an_administrator_wraps_a_guest_gets(made: Pkcs11Plugin) -> None:
    wrapped = ask(made, "POST", "wrap-key", body=b"disk key").payload.reveal()
    assert wrapped != b"disk key"
    assert len(wrapped) == 256
    assert ask(made, "GET", "wrap-key", body=wrapped).payload.reveal() == b"disk key"


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    "body", [b"", b"x", b"\x00" * 256, b"\xff" * 256, b"x" * 257], ids=["nothing", "one", "zeros", "ones", "long"]
)
def test_what_was_not_wrapped_is_refused_in_one_way(made: Pkcs11Plugin, body: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        ask(made, "GET", "wrap-key", body=body)
    assert str(caught.value) == "the body is not what this broker's key wrapped"


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("size", [0, 215, 256])
def test_what_the_key_does_not_wrap(made: Pkcs11Plugin, size: int) -> None:
    with pytest.raises(MalformedMessage):
        ask(made, "POST", "wrap-key", body=b"x" * size)
    assert len(ask(made, "POST", "wrap-key", body=b"x" * 214).payload.reveal()) == 256


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("label", "count"), [("nobody's", 0), ("twice", 2)])
def test_a_label_that_is_not_one_key(token: SoftToken, label: str, count: int) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        ask(plugin(token, lookup_label=label), "POST", "wrap-key", body=b"x")
    assert f"{count} RSA keys" in str(caught.value.operator_detail)


@pytest.mark.parametrize(
    ("method", "segments"),
    [
        ("GET", ()),
        ("GET", ("resource",)),
        ("GET", ("resource", "a", "b")),
        ("GET", ("resource", "a", "..", "c")),
        ("GET", ("wrap-key", "x")),
        ("POST", ("resource", "a", "b", ".c")),
        ("DELETE", ("wrap-key",)),
        ("DELETE", ("resource", "a")),
    ],
    ids=lambda each: each if isinstance(each, str) else "-".join(each) or "nothing",
)
def test_other_paths(made: Pkcs11Plugin, method: str, segments: tuple[str, ...]) -> None:
    with pytest.raises((ResourceNotFound, NameNotAllowed)):
        ask(made, method, *segments, body=b"x")


@pytest.mark.parametrize("size", [0, (1 << 20) + 1])
def test_sizes(made: Pkcs11Plugin, size: int) -> None:
    with pytest.raises(MalformedMessage, match="1 to"):
        ask(made, "POST", *PATH, body=b"x" * size)


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # of the library
def test_a_session_that_is_lost_is_opened_again(made: Pkcs11Plugin, token: SoftToken) -> None:
    ask(made, "POST", *PATH, body=b"x")
    library = pkcs11.lib(str(token.module))
    library.reinitialize()  # as if the token had been taken out and put back
    assert ask(made, "GET", *PATH).payload.reveal() == b"x"


def test_a_wrong_pin_is_tried_once(token: SoftToken, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pkcs11.lib(str(token.module)).reinitialize()  # nobody is logged in
    pin = tmp_path / "pin"
    pin.write_text("wrong-CANARY")
    refused = plugin(token, pin_file=str(pin))
    told = [_outage(refused) for _ in range(3)]
    assert told[0] == "PKCS#11: the log-in is refused: PinIncorrect"
    assert told[1] == told[2] == "PKCS#11: the PIN was refused, and is not tried again before its file changes"
    replaced = tmp_path / "new"
    replaced.write_text(PIN)
    replaced.rename(pin)
    with pytest.raises(ResourceNotFound):
        ask(refused, "GET", "resource", "a", "b", "c")
    assert "CANARY" not in caplog.text


def _outage(of: Pkcs11Plugin) -> str:
    with pytest.raises(StorageUnavailable) as caught:
        ask(of, "GET", *PATH)
    assert "CANARY" not in f"{caught.value}{caught.value!r}{caught.value.operator_detail}"
    return str(caught.value.operator_detail)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"slot_index": 9}, "none has the index 9"),
        ({"token_label": "another"}, "0 tokens have that label"),
        ({"pin_file": "missing"}, "No such file"),
        ({"module": __file__}, "PKCS11Error"),
    ],
    ids=["slot", "label", "pin", "module"],
)
def test_what_does_not_answer(token: SoftToken, change: Mapping[str, Any], told: str) -> None:
    assert told in _outage(plugin(token, **change))


def test_a_token_by_its_label(token: SoftToken) -> None:
    with pytest.raises(ResourceNotFound):
        ask(plugin(token, token_label=LABEL), "GET", "resource", "a", "b", "c")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"module": "/nowhere/x.so"}, "no file"),
        ({"rsa_mechanism": "RsaPkcs"}, "rsa_mechanism"),
        ({"slot_index": -1}, "slot_index"),
        ({"pin": "1234"}, "pin"),
        ({"pin_file": None}, "pin_file"),
    ],
    ids=["module", "mechanism", "slot", "pin-in-settings", "no-pin"],
)
def test_settings_that_cannot_work(token: SoftToken, change: Mapping[str, Any], told: str) -> None:
    given = {name: each for name, each in options(token, **change).items() if each is not None}
    with pytest.raises(ConfigInvalid, match=told):
        build(PluginContext(MemoryStore(), StoppedClock(), lambda count: b"", token.folder, given))


_FORK = """
import os, sys
from pathlib import Path
from kbs.plugins.pkcs11.objects import Kind, TokenObjects
from kbs.plugins.pkcs11.token import Pkcs11Token, TokenSettings
settings = TokenSettings(module=Path(sys.argv[1]), pin_file=Path(sys.argv[2]))
objects = TokenObjects(Pkcs11Token(settings, Path("/"), "here"), Kind.SECRET_KEY)
objects.put("a/fork/x", b"parent")
child = os.fork()
if child == 0:
    fine = objects.get("a/fork/x") == b"parent"
    objects.put("a/fork/x", b"child")
    os._exit(0 if fine else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, objects.get("a/fork/x"), objects.delete("a/fork/x"))
"""


def test_a_forked_process_logs_in_for_itself(token: SoftToken) -> None:
    words = [sys.executable, "-c", _FORK, str(token.module), str(token.folder / "pin")]
    told = subprocess.run(words, env=token.environment, capture_output=True, timeout=60, text=True, check=True)
    assert told.stdout == "0 b'child' True\n"


@pytest.mark.usefixtures("made")
def test_the_store_has_private_data_objects(token: SoftToken) -> None:
    given = {name: each for name, each in options(token).items() if name in ("module", "pin_file")}
    context = StoreContext("team-a/", given, token.folder, "resource.store[0]", StoppedClock(), lambda: 0.0)
    store = pkcs11_store.build(context)
    store.put("team-a/keys/one", b"value", meta={})
    store.put("team-b/keys/one", b"value", meta={})
    assert [entry.key for entry in store.entries()] == ["team-a/keys/one"]
    data = {**OWNED, Attribute.CLASS: ObjectClass.DATA}
    found = plugin(token)._token.use(lambda session: [each[Attribute.PRIVATE] for each in session.get_objects(data)])
    assert found == [True]
    with pytest.raises(ResourceNotFound):
        ask(plugin(token), "GET", *PATH)  # the plugin's are keys
    assert store.delete("team-a/keys/one")
    assert store.delete("team-b/keys/one")


def test_a_token_that_fails_is_an_outage(made: Pkcs11Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_session: pkcs11.Session) -> None:
        raise pkcs11.GeneralError("CANARY")

    with pytest.raises(KbsError) as caught:
        made._token.use(broken)
    assert caught.value.operator_detail == "PKCS#11: GeneralError"
