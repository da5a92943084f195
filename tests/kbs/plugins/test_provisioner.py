"""Disk keys for virtual machines: made once, told to nobody but the guest whose init data name them."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kbs.client.tee_keys import TeeKeyPair
from kbs.errors import ConfigInvalid, KbsError, MalformedMessage, ResourceNotFound
from kbs.plugins.model import Access, Guest, PluginContext, PluginRequest
from kbs.plugins.provisioner import ProvisionerPlugin, build, uuid_of
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import START, StoppedClock

KEY = TeeKeyPair.generate().public
VM1 = "78b1edaf-eba1-5733-85cc-baaa1810211c"  # default/vm1, kbs-protocol 8.3


@pytest.fixture
def plugin(tmp_path: Path) -> ProvisionerPlugin:
    return make(tmp_path)


def make(folder: Path, **options: Any) -> ProvisionerPlugin:
    return build(PluginContext(MemoryStore(), StoppedClock(), os.urandom, folder, options))


def provision(plugin: ProvisionerPlugin, body: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = plugin.handle(PluginRequest("POST", ("provision",), {}, content, author="ann"))
    return json.loads(answer.payload.reveal())


def get(plugin: ProvisionerPlugin, name: str = VM1, init_data: Any = ...) -> bytes:
    own = {"trustee.kbs.resource": f"kbs+provisioner:///default/{name}/root"} if init_data is ... else init_data
    claims = {"submods": {"cpu0": {"ear.veraison.annotated-evidence": {"init_data_claims": own}}}}
    guest = Guest(claims, b"{}", KEY, START, None)
    return plugin.handle(PluginRequest("GET", ("default", name, "root"), {}, guest=guest)).payload.reveal()


UUIDS = {
    ("default", "vm1"): VM1,
    ("default", "vm2"): "4031eb74-8f28-5334-8f4f-bf2d6eb262b0",
    ("team-a", "vm1"): "2ed4cd9e-b641-581d-9ed0-ddbc4f04bea5",
}


def test_uuids_are_upstreams() -> None:
    assert {machine: uuid_of(*machine) for machine in UUIDS} == UUIDS


def test_a_machine_gets_one_key(plugin: ProvisionerPlugin) -> None:
    assert provision(plugin, {"vm_name": "vm1"}) == {"uuid": VM1, "resource_path": f"default/{VM1}/root"}
    text = get(plugin)
    assert re.fullmatch(
        rb'version = "0\.1\.0"\n\n\[data\]\n"io\.cryptsetup\.key\.text\.root" = "[A-Za-z0-9]{32}"\n', text
    )
    assert len(tomllib.loads(text.decode())["data"]["io.cryptsetup.key.text.root"]) == 32
    provision(plugin, {"vm_name": "vm1", "namespace": "default"})
    assert get(plugin) == text
    assert provision(plugin, {"vm_name": "vm1", "namespace": "other"})["uuid"] != VM1


def test_every_letter_is_as_likely(tmp_path: Path) -> None:
    plugin = make(tmp_path, key_length=4096)
    provision(plugin, {"vm_name": "vm1"})
    assert len(set(get(plugin).split(b'"')[-2])) == 62


OTHERS: Mapping[str, Any] = {
    "none": None,
    "text": "x",
    "another member": {"other": "x"},
    "another machine": {"trustee.kbs.resource": f"kbs+provisioner:///default/{uuid_of('default', 'vm2')}/root"},
    "without scheme": {"trustee.kbs.resource": f"default/{VM1}/root"},
    "nested": {"trustee": {"kbs": {"resource": f"kbs+provisioner:///default/{VM1}/root"}}},
    "list": {"trustee.kbs.resource": [f"kbs+provisioner:///default/{VM1}/root"]},
    "umlaut": {"trustee.kbs.resource": "ü"},
}


@pytest.mark.parametrize("case", OTHERS)
def test_to_other_guests_there_is_none(plugin: ProvisionerPlugin, case: str) -> None:
    with pytest.raises(ResourceNotFound) as absent:
        get(plugin, init_data=OTHERS[case])
    provision(plugin, {"vm_name": "vm1"})
    with pytest.raises(ResourceNotFound) as present:
        get(plugin, init_data=OTHERS[case])
    assert str(absent.value) == str(present.value)


BODIES: Mapping[str, bytes] = {
    "empty": b"",
    "no object": b"[]",
    "no name": b"{}",
    "another member": b'{"vm_name":"a","size":3}',
    "number": b'{"vm_name":1}',
    "null namespace": b'{"vm_name":"a","namespace":null}',
    "slash": b'{"vm_name":"a/b"}',
    "slash in the namespace": b'{"vm_name":"a","namespace":"b/c"}',
    "empty name": b'{"vm_name":""}',
    "dots": b'{"vm_name":".."}',
    "quote": b'{"vm_name":"a\\"b"}',
    "twice": b'{"vm_name":"a","vm_name":"b"}',
    "long": b'{"vm_name":"' + b"a" * 300 + b'"}',
}


@pytest.mark.parametrize("case", BODIES)
def test_wrong_bodies_make_nothing(plugin: ProvisionerPlugin, case: str) -> None:
    with pytest.raises(MalformedMessage):
        provision(plugin, BODIES[case])


def test_a_deleted_key_is_gone_and_a_new_one_is_another(plugin: ProvisionerPlugin) -> None:
    provision(plugin, {"vm_name": "vm1"})
    before = get(plugin)
    for _ in range(2):
        answer = plugin.handle(PluginRequest("DELETE", ("provision", VM1), {}, author="ann"))
        assert answer.payload.reveal() == b'{"status":"deleted"}'
    with pytest.raises(ResourceNotFound):
        get(plugin)
    provision(plugin, {"vm_name": "vm1"})
    assert get(plugin) != before


@pytest.mark.parametrize("name", ["", "x", VM1.upper(), VM1.replace("-", ""), "{" + VM1 + "}", f"urn:uuid:{VM1}", ".."])
def test_names_have_one_form(plugin: ProvisionerPlugin, name: str) -> None:
    provision(plugin, {"vm_name": "vm1"})
    with pytest.raises(ResourceNotFound):
        get(plugin, name)
    with pytest.raises(ResourceNotFound):
        plugin.handle(PluginRequest("DELETE", ("provision", name), {}, author="ann"))
    assert get(plugin)


@pytest.mark.parametrize("path", ["", "provision", "default/x", "other/x/root", "default/x/root/y"])
def test_other_paths(plugin: ProvisionerPlugin, path: str) -> None:
    for method in ("GET", "DELETE"):
        with pytest.raises(KbsError):
            plugin.handle(PluginRequest(method, tuple(path.split("/")), {}))


def test_who_may_ask(plugin: ProvisionerPlugin) -> None:
    assert {method: guard.access for method, guard in plugin.guards().items()} == {
        "GET": Access.TOKEN,
        "POST": Access.ADMIN,
        "DELETE": Access.ADMIN,
    }


@pytest.mark.parametrize(
    "options", [{"key_length": 15}, {"key_length": 5000}, {"key_length": "32"}, {"length": 32}], ids=str
)
def test_settings_that_cannot_work(tmp_path: Path, options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        make(tmp_path, **options)
