"""The secret managers of AWS, Google and Azure as stores, through their SDKs."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ConnectTimeoutError
from botocore.httpsession import URLLib3Session
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from kbs.errors import ConfigInvalid, MalformedMessage, StorageUnavailable, VersionConflict
from kbs.plugins.resource import ResourcePlugin
from kbs.plugins.resource.backends import aws, azure, gcp
from kbs.plugins.resource.backends.cloud import PerProcess
from kbs.plugins.resource.generation import Generation, Shape
from kbs.plugins.resource.model import Backend, StoreContext, StoreRefuses
from kbs.protocol.resource_path import parse
from kbs.storage.memory import MemoryStore
from tests.contracts.test_resource_backends import service_account
from tests.fakes.broker import StoppedClock
from tests.fakes.cloud_secrets import CLIENT_SECRET, PROJECT, VAULT, FakeAws, FakeAzure, FakeGcp

NAME = "team-a/keys/one"
CANARY = "CANARY"
AWS = {"region": "eu-central-1", "credentials_file": "credentials"}
AZURE = {"vault_url": VAULT, "client_secret": {"tenant_id": "tenant-1", "client_id": "c", "secret_file": "secret"}}
GCP = {"project": PROJECT, "credentials_file": "account.json"}
BUILDERS: Mapping[str, Any] = {"aws": aws.build, "azure": azure.build, "gcp": gcp.build}
TABLES: Mapping[str, Mapping[str, Any]] = {"aws": AWS, "azure": AZURE, "gcp": GCP}
NAMES = st.tuples(*[st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,12}", fullmatch=True)] * 3).map("/".join)


class Bench:
    """One store of each kind over its fake."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.aws, self.azure, self.gcp = FakeAws(), FakeAzure(), FakeGcp()
        self.http: FakeAzure | FakeGcp = self.azure
        patch.setattr(URLLib3Session, "send", lambda _session, request: self.aws.send(request))
        patch.setattr(HTTPAdapter, "send", lambda adapter, request, **more: self.http.send(adapter, request, **more))
        (folder / "credentials").write_text("[default]\naws_access_key_id = A\naws_secret_access_key = key-CANARY\n")
        (folder / "secret").write_text(CLIENT_SECRET + "\n")
        (folder / "account.json").write_text(json.dumps(service_account()))

    def store(self, kind: str, prefix: str = "", **options: Any) -> Backend:
        self.http = self.gcp if kind == "gcp" else self.azure
        context = StoreContext(prefix, {**TABLES[kind], **options}, self.folder, "here", StoppedClock(), lambda: 0.0)
        made: Backend = BUILDERS[kind](context)
        return made

    def fake(self, kind: str) -> FakeAws | FakeAzure | FakeGcp:
        fakes: Mapping[str, FakeAws | FakeAzure | FakeGcp] = {"aws": self.aws, "azure": self.azure, "gcp": self.gcp}
        return fakes[kind]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def read(store: Backend, name: str = NAME) -> bytes | None:
    record = store.get(name)
    return None if record is None else record.value


@given(NAMES)
def test_each_name_has_a_place_of_its_own_that_tells_it(name: str) -> None:
    assert azure._name(azure._place(name)) == name
    assert azure._place(name) == azure._place(name).lower()
    settings = gcp.GcpSettings(project=PROJECT, secret_prefix="kbs-")
    store = gcp.GcpBackend(settings, "", PerProcess(lambda: None))
    assert store._name(store._place(name).rsplit("/", 1)[1]) == name


@pytest.mark.parametrize("place", ["team--keys", "Team--a--b", "a-2d--b--c-", "a--b--c-61", "a--b--c-ff", "x"])
def test_what_is_no_place_of_a_name_in_a_key_vault(place: str) -> None:
    assert azure._name(place) is None


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("fault", ["refused", "429", "500", "garbage"])
def test_an_outage_is_no_absence(bench: Bench, kind: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store, fake = bench.store(kind), bench.fake(kind)
    if fault == "refused":
        fake.fails = ConnectTimeoutError(endpoint_url="x") if kind == "aws" else requests.ConnectionError("CANARY")
    elif fault == "garbage":
        fake.raw = b"<html>CANARY"
    else:
        codes = {"aws": "ThrottlingException", "azure": "Throttled", "gcp": "RESOURCE_EXHAUSTED"}
        fake.refuse = (int(fault), codes[kind])
    for ask in (lambda: store.get(NAME), store.entries, lambda: store.put(NAME, b"secret-CANARY", meta={})):
        with pytest.raises(StorageUnavailable) as caught:
            ask()
        assert CANARY not in f"{caught.value}{caught.value!r}{caught.value.operator_detail}"
        assert caught.value.__cause__ is None
    assert "key-CANARY" not in caplog.text
    assert CLIENT_SECRET not in caplog.text


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("aws", 400, "AccessDeniedException"),
        ("aws", 400, "DecryptionFailure"),
        ("azure", 403, "Forbidden"),
        ("azure", 400, "BadParameter"),
        ("gcp", 403, "PERMISSION_DENIED"),
        ("gcp", 400, "INVALID_ARGUMENT"),
    ],
)
def test_what_the_broker_may_not_do(bench: Bench, kind: str, status: int, code: str) -> None:
    store = bench.store(kind)
    bench.fake(kind).refuse = (status, code)
    for ask in (lambda: store.get(NAME), lambda: store.put(NAME, b"x", meta={}), store.entries):
        with pytest.raises(StoreRefuses) as caught:
            ask()
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_whoever_creates_second_loses(bench: Bench, kind: str) -> None:
    store = bench.store(kind)
    store.put(NAME, b"one", meta={}, expected=0)
    with pytest.raises(VersionConflict):
        store.put(NAME, b"two", meta={}, expected=0)
    assert read(store) == b"one"


def test_aws_a_create_that_meets_another_replaces_it(bench: Bench) -> None:
    store = bench.store("aws")
    bench.aws.before_create = lambda: bench.aws.secrets.update({NAME: {"SecretString": "theirs"}})
    assert store.put(NAME, b"mine", meta={}) == 0
    assert read(store) == b"mine"


def test_aws_text_is_its_octets(bench: Bench) -> None:
    bench.aws.secrets[NAME] = {"SecretString": "gr\u00fcn"}
    assert read(bench.store("aws")) == "gr\u00fcn".encode()
    bench.aws.secrets[NAME] = {}
    with pytest.raises(StorageUnavailable):
        read(bench.store("aws"))


def test_aws_what_is_deleted_is_absent_and_its_name_taken(bench: Bench) -> None:
    store = bench.store("aws")
    store.put(NAME, b"one", meta={})
    assert store.delete(NAME) is True
    assert read(store) is None
    for expected in (None, 0):
        with pytest.raises(StoreRefuses, match="scheduled for deletion"):
            store.put(NAME, b"two", meta={}, expected=expected)
    at_once = bench.store("aws", recovery_days=0)
    at_once.put("a/b/c", b"one", meta={})
    assert at_once.delete("a/b/c") is True
    at_once.put("a/b/c", b"two", meta={})


@pytest.mark.parametrize("kind", TABLES)
def test_administrators_see_the_size_of_what_is_current(bench: Bench, kind: str) -> None:
    """As `kbs image` asks for it, to tell a KEK from something else."""
    plugin = ResourcePlugin(MemoryStore(), StoppedClock(), [("", bench.store(kind))])
    for octets in (b"x" * 31, b"x" * 32):
        plugin.write(parse(NAME.split("/")), octets, author="ann", expected=None)
    found = plugin.history(parse(NAME.split("/")))
    assert found[-1].meta["size"] == "32"
    assert all("size" not in entry.meta for entry in found[:-1])


def test_nothing_is_rotated_where_versions_have_no_numbers(bench: Bench) -> None:
    store = bench.store("aws")
    generation = Generation((), StoppedClock(), lambda count: b"\x01" * count)
    plugin = ResourcePlugin(MemoryStore(), StoppedClock(), [("", store)], generation)
    path, shape = parse(NAME.split("/")), Shape(32, "raw")
    assert plugin.generate(path, shape, author="ann", rotate=False) == 0
    with pytest.raises(MalformedMessage, match="rotated"):
        plugin.generate(path, shape, author="ann", rotate=True)
    assert read(store) == b"\x01" * 32


def test_aws_a_key_of_ones_own_encrypts(bench: Bench) -> None:
    bench.store("aws", kms_key_id="alias/kbs").put(NAME, b"one", meta={})
    assert bench.aws.secrets[NAME]["KmsKeyId"] == "alias/kbs"


def test_aws_credentials_in_files_are_read_again_after_a_failure(bench: Bench) -> None:
    store = bench.store("aws")
    (bench.folder / "credentials").rename(bench.folder / "aside")
    with pytest.raises(StorageUnavailable):
        store.get(NAME)
    (bench.folder / "aside").rename(bench.folder / "credentials")
    assert store.get(NAME) is None


def test_gcp_of_two_writers_that_saw_the_same_version_one_wins(bench: Bench) -> None:
    store = bench.store("gcp")
    store.put(NAME, b"one", meta={})

    def other() -> None:
        assert store.put(NAME, b"theirs", meta={}, expected=1) == 2

    bench.gcp.between = other
    with pytest.raises(VersionConflict):
        store.put(NAME, b"mine", meta={}, expected=1)
    assert read(store) == b"theirs"


def test_gcp_a_claimed_write_is_waited_for(bench: Bench) -> None:
    store = bench.store("gcp")
    store.put(NAME, b"one", meta={})
    (secret,) = bench.gcp.secrets.values()
    secret["annotations"] = {"kbs-write": "after-1", "owner": "ann"}
    with pytest.raises(VersionConflict, match="under way"):
        store.put(NAME, b"two", meta={}, expected=1)
    assert store.put(NAME, b"two", meta={}) == 2
    assert store.put(NAME, b"three", meta={}, expected=2) == 3
    assert secret["annotations"] == {"kbs-write": "after-2", "owner": "ann"}


def test_gcp_a_destroyed_version_is_none(bench: Bench) -> None:
    store = bench.store("gcp")
    for value in (b"one", b"two"):
        store.put(NAME, value, meta={})
    (secret,) = bench.gcp.secrets.values()
    secret["versions"][0] = None
    assert store.get(NAME, 1) is None
    assert [entry.version for entry in store.history(NAME)] == [2]
    secret["versions"][1] = None
    with pytest.raises(StoreRefuses, match="disabled or destroyed"):
        store.get(NAME)


def test_gcp_a_secret_whose_maker_was_cut_off_holds_nothing(bench: Bench) -> None:
    store = bench.store("gcp")
    bench.gcp.secrets["team-a__keys__one"] = {"etag": '"1"', "annotations": {}, "versions": []}
    assert read(store) is None
    with pytest.raises(VersionConflict):
        store.put(NAME, b"x", meta={}, expected=0)
    assert store.put(NAME, b"x", meta={}) == 1


def test_azure_text_and_base64_by_others(bench: Bench) -> None:
    store = bench.store("azure")
    place = "team-2da--keys--one"
    common = {"id": f"{VAULT}/secrets/{place}/v1", "attributes": {"enabled": True}}
    bench.azure.secrets[place] = {**common, "value": "YWJj"}
    assert read(store) == b"YWJj"
    bench.azure.secrets[place] = {**common, "value": "YWJj", "tags": {"file-encoding": "base64"}}
    assert read(store) == b"abc"
    bench.azure.secrets[place] = {**common, "value": "not base64!", "tags": {"file-encoding": "base64"}}
    with pytest.raises(StoreRefuses, match="base64"):
        read(store)


def test_azure_octets_are_written_as_its_own_tool_does(bench: Bench) -> None:
    bench.store("azure").put(NAME, b"\x00\xff", meta={})
    (sent,) = bench.azure.secrets.values()
    assert sent["value"] == base64.b64encode(b"\x00\xff").decode()
    assert sent["tags"] == {"file-encoding": "base64"}


def test_azure_a_deleted_name_is_taken(bench: Bench) -> None:
    store = bench.store("azure")
    store.put(NAME, b"one", meta={})
    assert store.delete(NAME) is True
    with pytest.raises(StoreRefuses, match="recover or purge"):
        store.put(NAME, b"two", meta={})


def test_azure_a_refused_log_in_is_an_outage(bench: Bench) -> None:
    store = bench.store("azure")
    bench.azure.login = 401
    with pytest.raises(StorageUnavailable) as caught:
        store.get(NAME)
    assert "log-in is refused" in str(caught.value.operator_detail)
    assert CANARY not in f"{caught.value!r}{caught.value.operator_detail}"
    bench.azure.login = 200
    assert store.get(NAME) is None


@pytest.mark.parametrize("kind", TABLES)
def test_only_names_below_the_prefix_are_listed(bench: Bench, kind: str) -> None:
    store = bench.store(kind, "team-a/")
    for name in (NAME, "team-a/keys/two", "team-a/k.1/_x", "team-b/keys/one"):
        store.put(name, b"x", meta={})
    bench.aws.secrets["not-a-name"] = bench.azure.secrets["not-a-name"] = {"id": f"{VAULT}/secrets/not-a-name"}
    bench.gcp.secrets["not-a-name"] = {"etag": "", "annotations": {}, "versions": []}
    assert [entry.key for entry in store.entries()] == ["team-a/k.1/_x", NAME, "team-a/keys/two"]


@pytest.mark.parametrize(("kind", "most"), [("aws", 65_536), ("azure", 18_750), ("gcp", 65_536)])
def test_what_is_too_large_is_not_sent(bench: Bench, kind: str, most: int) -> None:
    store = bench.store(kind)
    store.put(NAME, b"x" * most, meta={})
    asked = len(bench.fake(kind).seen)
    with pytest.raises(Exception, match=f"1 to {most} octets"):
        store.put(NAME, b"x" * (most + 1), meta={})
    with pytest.raises(StoreRefuses, match="too long"):
        store.get(f"{'A' * 255}/{'B' * 255}/c")
    assert len(bench.fake(kind).seen) == asked


WRONG: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "aws-region": ("aws", {"region": "Frankfurt"}),
    "aws-path": ("aws", {"path": "/kbs/"}),
    "aws-endpoint": ("aws", {"endpoint_url": "http://secrets.example"}),
    "aws-recovery": ("aws", {"recovery_days": 3}),
    "aws-timeout": ("aws", {"timeout_seconds": 0.0}),
    "aws-unknown": ("aws", {"token": "x"}),
    "azure-http": ("azure", {"vault_url": "http://kbs.vault.azure.net"}),
    "azure-path": ("azure", {"vault_url": f"{VAULT}/secrets/x"}),
    "azure-two": ("azure", {"managed_identity": {}}),
    "azure-none": ("azure", {"client_secret": None}),
    "gcp-project": ("gcp", {"project": "a/b"}),
    "gcp-prefix": ("gcp", {"secret_prefix": "kbs_"}),
    "gcp-endpoint": ("gcp", {"endpoint": "https://x.example/"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_work(bench: Bench, case: str) -> None:
    kind, options = WRONG[case]
    table = {name: each for name, each in {**TABLES[kind], **options}.items() if each is not None}
    with pytest.raises(ConfigInvalid, match="here"):
        BUILDERS[kind](StoreContext("", table, bench.folder, "here", StoppedClock(), lambda: 0.0))
