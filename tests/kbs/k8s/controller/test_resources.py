"""BrokerResources: what is written, what never is, and what is never deleted."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.client.errors import AdminRefused, Problem, Unreachable
from kbs.k8s.api import CONFIG_MAPS, OURS, SECRETS, ApiConflict, ApiError, ApiForbidden, ApiKind
from kbs.k8s.controller.resources import plan
from kbs.k8s.model import FINALIZER, WrittenResource
from tests.kbs.k8s.controller.bench import BROKER_REF, NAMESPACE, TOKEN, Bench

SECRET = b"\x00the-secret-bytes\xff"


def _whole(**more: Any) -> dict[str, Any]:
    return {"brokerRef": BROKER_REF, "path": "team/db", "secretRef": {"name": "db"}, **more}


def _one(**more: Any) -> dict[str, Any]:
    return {"brokerRef": BROKER_REF, "path": "team/db/password", "secretRef": {"name": "db", "key": "pw"}, **more}


def test_one_key_is_written_once(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET, "other": b"no"})
    bench.apply("BrokerResource", "r", _one())
    assert not bench.look("BrokerResource", "r").failed
    assert bench.broker.resources == {"team/db/password": (1, SECRET)}
    assert bench.said("BrokerResource", "r") == ("True", "Synced")
    assert bench.said("BrokerResource", "r", "Conflict") == ("False", "NoRival")
    found = bench.api.read(OURS["BrokerResource"], NAMESPACE, "r")
    assert found is not None
    assert found["metadata"]["finalizers"] == [FINALIZER]
    for _ in range(3):
        bench.look("BrokerResource", "r")
    bench.restart()
    bench.look("KeyBroker", "broker")
    bench.look("BrokerResource", "r")
    assert bench.broker.writes == ["set team/db/password"]


def test_without_a_key_every_key_is_a_tag(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"b": b"2", "a": b"1"})
    bench.apply("BrokerResource", "r", _whole())
    bench.look("BrokerResource", "r")
    assert bench.broker.writes == ["set team/db/a", "set team/db/b"]
    assert bench.status("BrokerResource", "r")["resources"] == [
        {"path": "team/db/a", "version": 1},
        {"path": "team/db/b", "version": 1},
    ]


def test_a_changed_secret_is_written_and_nothing_else(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"a": b"1", "b": b"2"})
    bench.apply("BrokerResource", "r", _whole())
    bench.look("BrokerResource", "r")
    bench.secret("db", {"a": b"1", "b": b"3"})
    bench.look("BrokerResource", "r")
    assert bench.broker.writes == ["set team/db/a", "set team/db/b", "set team/db/b"]


@pytest.mark.parametrize("anew", [False, True], ids=["same process", "new process"])
def test_what_another_broker_has_under_the_same_version_is_not_taken_for_ours(bench: Bench, *, anew: bool) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    if anew:
        bench.restart()
    bench.broker.resources["team/db/password"] = (1, b"of the other broker")
    bench.broker_ready(url="https://another.example")
    bench.look("BrokerResource", "r")
    assert bench.broker.resources["team/db/password"] == (2, SECRET)


def test_a_label_on_the_secret_writes_nothing(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    raw = bench.api.read(SECRETS, NAMESPACE, "db")
    assert raw is not None
    raw["metadata"]["labels"] = {"a": "b"}
    bench.api.put(SECRETS, raw)
    bench.look("BrokerResource", "r")
    assert bench.broker.writes == ["set team/db/password"]
    state = bench.status("BrokerResource", "r")["secret"]
    changed = bench.api.read(SECRETS, NAMESPACE, "db")
    assert changed is not None
    assert state == {"uid": changed["metadata"]["uid"], "resourceVersion": changed["metadata"]["resourceVersion"]}


def test_another_key_of_the_same_secret_is_other_bytes(bench: Bench) -> None:
    """Also when the first look at the change failed, and in a new process."""
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET, "new": b"new"})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    bench.apply("BrokerResource", "r", _one(secretRef={"name": "db", "key": "new"}))
    bench.broker.failure = Unreachable("no answer")
    assert bench.look("BrokerResource", "r").failed
    bench.broker.failure = None
    bench.restart()
    bench.look("BrokerResource", "r")
    assert bench.broker.resources["team/db/password"] == (2, b"new")


def test_a_key_that_left_the_secret_is_deleted(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"a": b"1", "b": b"2"})
    bench.apply("BrokerResource", "r", _whole())
    bench.look("BrokerResource", "r")
    bench.secret("db", {"a": b"1"})
    bench.look("BrokerResource", "r")
    assert set(bench.broker.resources) == {"team/db/a"}
    assert bench.status("BrokerResource", "r")["resources"] == [{"path": "team/db/a", "version": 1}]


def test_a_key_that_left_the_secret_stays_when_retained(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"a": b"1", "b": b"2"})
    bench.apply("BrokerResource", "r", _whole(deletionPolicy="Retain"))
    bench.look("BrokerResource", "r")
    bench.secret("db", {"a": b"1"})
    bench.look("BrokerResource", "r")
    assert set(bench.broker.resources) == {"team/db/a", "team/db/b"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [(None, "SecretMissing"), ({}, "SecretEmpty"), ({"a": b"1", ".hidden": b"2"}, "KeyNotAllowed")],
    ids=["missing", "empty", "unfit key"],
)
def test_the_brokers_copy_stays(bench: Bench, data: dict[str, bytes] | None, reason: str) -> None:
    bench.broker_ready()
    bench.secret("db", {"a": b"1"})
    bench.apply("BrokerResource", "r", _whole())
    bench.look("BrokerResource", "r")
    if data is None:
        bench.api.remove(SECRETS, NAMESPACE, "db")
    else:
        bench.secret("db", data)
    assert not bench.look("BrokerResource", "r").failed, "waits for the Secret, without a hot loop"
    assert bench.said("BrokerResource", "r") == ("False", reason)
    assert bench.broker.writes == ["set team/db/a"]
    assert bench.status("BrokerResource", "r")["resources"] == [{"path": "team/db/a", "version": 1}]


def test_what_somebody_changed_at_the_broker_is_written_again(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    bench.broker.resources["team/db/password"] = (7, b"by hand")
    bench.look("BrokerResource", "r")
    assert bench.broker.resources["team/db/password"][1] == SECRET


def test_of_two_for_one_path_the_older_one_writes(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": b"old"})
    bench.secret("db2", {"password": b"new"})
    bench.apply("BrokerResource", "z-old", _one(), created="2026-11-21T10:00:00Z")
    bench.apply("BrokerResource", "a-new", _whole(secretRef={"name": "db2"}), created="2026-11-21T11:00:00Z")
    for name in ("a-new", "z-old", "a-new"):
        bench.look("BrokerResource", name)
    assert bench.broker.resources == {"team/db/password": (1, b"old")}
    assert bench.said("BrokerResource", "a-new", "Conflict") == ("True", "PathTaken")
    assert "kbs/z-old" in bench.condition("BrokerResource", "a-new")["message"]
    assert bench.said("BrokerResource", "z-old", "Conflict") == ("False", "NoRival")
    bench.delete("BrokerResource", "a-new")
    bench.look("BrokerResource", "a-new")
    assert bench.broker.resources == {"team/db/password": (1, b"old")}, "what it never wrote it does not delete"
    bench.delete("BrokerResource", "z-old")
    bench.look("BrokerResource", "z-old")
    assert bench.broker.resources == {}


def test_neighbours_are_no_rivals(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": b"1"})
    bench.apply("BrokerResource", "one", _one(path="team/db/a"))
    bench.apply("BrokerResource", "two", _one(path="team/db/ab"))
    bench.apply("BrokerResource", "three", _whole(path="team/d"))
    for name in ("one", "two", "three"):
        bench.look("BrokerResource", name)
        assert bench.said("BrokerResource", name) == ("True", "Synced")


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_deletion(bench: Bench, policy: str) -> None:
    bench.broker_ready()
    bench.secret("db", {"a": b"1", "b": b"2"})
    bench.apply("BrokerResource", "r", _whole(deletionPolicy=policy))
    bench.look("BrokerResource", "r")
    bench.delete("BrokerResource", "r")
    if policy == "Delete":
        bench.look("BrokerResource", "r")
    assert not bench.exists("BrokerResource", "r")
    assert len(bench.broker.resources) == (0 if policy == "Delete" else 2)


def test_deletion_waits_for_a_broker_that_is_away(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    bench.delete("BrokerResource", "r")
    bench.broker.failure = Unreachable("no answer from broker.example")
    assert bench.look("BrokerResource", "r").failed
    assert bench.exists("BrokerResource", "r")
    assert bench.said("BrokerResource", "r") == ("False", "DeletionBlocked")
    bench.broker.failure = None
    bench.look("BrokerResource", "r")
    assert not bench.exists("BrokerResource", "r")
    assert bench.broker.resources == {}


def test_deletion_does_not_wait_for_a_broker_that_nobody_knows_any_more(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    bench.delete("BrokerResource", "r")
    bench.delete("KeyBroker", "broker")
    assert not bench.look("KeyBroker", "broker").failed
    assert bench.exists("KeyBroker", "broker"), "waits for what is being deleted there"
    assert bench.said("KeyBroker", "broker") == ("False", "Waiting")
    bench.api.remove(SECRETS, NAMESPACE, "token")
    bench.look("BrokerResource", "r")
    assert not bench.exists("BrokerResource", "r")
    assert ("BrokerResource", "LeftBehind") in bench.events()
    bench.look("KeyBroker", "broker")
    assert not bench.exists("KeyBroker", "broker")


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [
        (None, "BrokerNotAllowed"),
        ([{"name": "other"}], "BrokerNotAllowed"),
        ([{"name": "team"}], "PathNotAllowed"),
        ([{"name": "team", "repositories": ["teams"]}], "PathNotAllowed"),
        ([{"name": "team", "repositories": ["team"]}], "Synced"),
    ],
    ids=["nobody", "another", "no repository", "another repository", "its repository"],
)
def test_other_namespaces(bench: Bench, allowed: Any, reason: str) -> None:
    bench.broker_ready(**({} if allowed is None else {"allowedNamespaces": allowed}))
    bench.secret("db", {"pw": SECRET}, "team")
    bench.apply("BrokerResource", "r", _one(brokerRef={"name": "broker", "namespace": NAMESPACE}), "team")
    bench.look("BrokerResource", "r", "team")
    assert bench.said("BrokerResource", "r", namespace="team")[1] == reason
    assert bool(bench.broker.writes) == (reason == "Synced")


def test_a_broker_that_is_known_to_be_away_is_not_asked(bench: Bench) -> None:
    bench.broker_ready()
    bench.broker.failure = Unreachable("no answer")
    bench.look("KeyBroker", "broker")
    bench.broker.failure = None
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    assert not bench.look("BrokerResource", "r").failed
    assert bench.said("BrokerResource", "r") == ("False", "BrokerUnreachable")
    assert bench.broker.writes == []
    bench.look("KeyBroker", "broker")
    bench.look("BrokerResource", "r")
    assert bench.said("BrokerResource", "r") == ("True", "Synced")


def test_stopped_in_the_middle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is known, and written no second time."""
    bench.broker_ready()
    bench.secret("db", {"a": b"1", "b": b"2"})
    bench.apply("BrokerResource", "r", _whole())
    write = bench.broker.set_resource

    def second_fails(path: str, value: Any, expected: int) -> int:
        if path.endswith("/b"):
            raise AdminRefused(Problem(403, "AdminAuthAccess", "no permission"))
        return write(path, value, expected)

    with monkeypatch.context() as patched:
        patched.setattr(bench.broker, "set_resource", second_fails)
        assert bench.look("BrokerResource", "r").failed
    assert bench.said("BrokerResource", "r") == ("False", "PermissionDenied")
    assert bench.status("BrokerResource", "r")["resources"] == [{"path": "team/db/a", "version": 1}]
    bench.look("BrokerResource", "r")
    assert bench.broker.writes == ["set team/db/a", "set team/db/b"]


def test_a_status_that_cannot_be_written_leads_to_no_second_write(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())

    def storm(verb: str, kind: ApiKind, name: str, subresource: str | None) -> ApiError | None:
        return ApiConflict("409") if subresource == "status" else None

    bench.api.fault = storm
    for _ in range(5):
        with pytest.raises(ApiConflict):
            bench.look("BrokerResource", "r")
    bench.api.fault = None
    bench.look("BrokerResource", "r")
    assert bench.broker.writes == ["set team/db/password"]
    assert bench.said("BrokerResource", "r") == ("True", "Synced")


@pytest.mark.parametrize("kind", [SECRETS, CONFIG_MAPS], ids=["secrets", "configmaps"])
def test_without_the_right_to_read(bench: Bench, kind: ApiKind) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.api.fault = lambda verb, asked, name, sub: ApiForbidden("403") if (verb, asked) == ("get", kind) else None
    found = bench.look("BrokerResource", "r")
    if kind == SECRETS:
        assert found.failed
        assert bench.said("BrokerResource", "r") == ("False", "NotPermitted")
        assert "rbac.yaml" in bench.condition("BrokerResource", "r")["message"]
    else:
        assert bench.said("BrokerResource", "r") == ("True", "Synced")


def test_nothing_that_is_written_holds_the_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET, "b": SECRET * 2})
    bench.apply("BrokerResource", "r", _one())
    bench.apply("BrokerResource", "all", _whole(path="team/whole"))
    for name in ("r", "all", "r"):
        bench.look("BrokerResource", name)
    bench.broker.failure = Unreachable("no answer")
    bench.secret("db", {"pw": SECRET + b"!", "b": SECRET})
    bench.look("BrokerResource", "r")
    bench.delete("BrokerResource", "all")
    bench.look("BrokerResource", "all")
    written = json.dumps(bench.api.writes) + caplog.text + repr(bench.connections) + repr(bench.cache.snapshot())
    assert "Synced" in written
    for secret in (SECRET, SECRET * 2, TOKEN, SECRET + b"!"):
        digest = hashlib.sha256(secret)
        for form in (
            base64.b64encode(secret).decode(),
            base64.b64encode(secret).decode().rstrip("="),
            base64.urlsafe_b64encode(secret).decode().rstrip("="),
            secret.hex(),
            digest.hexdigest(),
            base64.b64encode(digest.digest()).decode(),
        ):
            assert form not in written
    assert "the-secret-bytes" not in written
    assert TOKEN.decode() not in written


PATHS = st.sampled_from(["a/b/1", "a/b/2", "a/b/3", "a/b/4"])
VERSIONS = st.integers(min_value=1, max_value=3)


@given(
    paths=st.dictionaries(PATHS, st.none() | VERSIONS),
    held=st.dictionaries(PATHS, VERSIONS),
    mine=st.dictionaries(PATHS, VERSIONS),
    delete=st.booleans(),
)
def test_plan(paths: dict[str, int | None], held: dict[str, int], mine: dict[str, int], *, delete: bool) -> None:
    """Every wanted path is written or known to be held; nothing is deleted that is wanted or was not ours."""
    steps = plan(paths, held, tuple(WrittenResource(*each) for each in mine.items()), delete=delete)
    assert set(steps.write) | {each.path for each in steps.keep} == set(paths)
    assert not set(steps.write) & {each.path for each in steps.keep}
    assert all(held.get(each.path) == each.version for each in steps.keep)
    assert set(steps.delete) == (set(mine) - set(paths) if delete else set())
    assert list(steps.write) == sorted(steps.write)
    assert list(steps.delete) == sorted(steps.delete)


def test_a_broker_that_is_deleted_first_goes_last(bench: Bench) -> None:
    """`kubectl delete kbs --all` deletes KeyBrokers before some of the objects that need them."""
    bench.broker_ready(allowedNamespaces=[])
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    _of_elsewhere(bench, _one(), "2020-01-01T00:00:00Z")
    bench.look("BrokerResource", "theirs", ELSEWHERE)  # has nothing there, so it holds nobody up
    bench.delete("KeyBroker", "broker")
    bench.look("KeyBroker", "broker")
    assert bench.said("KeyBroker", "broker") == ("False", "Waiting")
    assert "BrokerResource kbs/r" in bench.condition("KeyBroker", "broker")["message"]
    bench.delete("BrokerResource", "r")
    bench.look("BrokerResource", "r")
    assert bench.broker.resources == {}
    bench.look("KeyBroker", "broker")
    assert not bench.exists("KeyBroker", "broker")


@pytest.mark.parametrize("whole", [False, True], ids=["one key", "all keys"])
def test_what_could_not_be_written_down_is_taken_away_all_the_same(bench: Bench, *, whole: bool) -> None:
    """The API server takes the deletion, and took no status before."""
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.secret("other", {"pw": SECRET})
    bench.apply("BrokerResource", "other", _one(path="team/other/pw", secretRef={"name": "other", "key": "pw"}))
    bench.look("BrokerResource", "other")
    bench.apply("BrokerResource", "r", _whole() if whole else _one())
    bench.api.fault = lambda verb, kind, name, sub: ApiError("500") if sub == "status" else None
    with pytest.raises(ApiError):
        bench.look("BrokerResource", "r")
    bench.api.fault = None
    assert len(bench.broker.resources) == 2
    bench.delete("BrokerResource", "r")
    bench.look("BrokerResource", "r")
    assert set(bench.broker.resources) == {"team/other/pw"}
    assert not bench.exists("BrokerResource", "r")


def test_more_keys_than_a_status_has_room_for(bench: Bench) -> None:
    """Else all would be written, nothing written down, and nothing taken away in the end."""
    bench.broker_ready()
    bench.secret("db", {f"k{number}": b"1" for number in range(1025)})
    bench.apply("BrokerResource", "r", _whole())
    bench.look("BrokerResource", "r")
    assert bench.said("BrokerResource", "r") == ("False", "TooManyKeys")
    assert bench.broker.writes == []


# --- what one namespace must not do to another ------------------------------------------------------------------------

ELSEWHERE = "elsewhere"


def _of_elsewhere(bench: Bench, spec: dict[str, Any], created: str) -> None:
    spec = {**spec, "brokerRef": {**BROKER_REF, "namespace": NAMESPACE}}
    bench.apply("BrokerResource", "theirs", spec, ELSEWHERE, created)


@pytest.mark.parametrize("allowed", [[], [{"name": ELSEWHERE, "repositories": ["other"]}]], ids=["none", "others"])
def test_an_older_object_that_may_not_write_there_takes_no_path(bench: Bench, allowed: list[dict[str, Any]]) -> None:
    bench.broker_ready(allowedNamespaces=allowed)
    bench.secret("db", {"pw": SECRET})
    _of_elsewhere(bench, _one(), "2020-01-01T00:00:00Z")
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    assert bench.said("BrokerResource", "r", "Conflict") == ("False", "NoRival")
    assert bench.broker.resources["team/db/password"] == (1, SECRET)


def test_an_older_object_that_may_write_there_takes_the_path(bench: Bench) -> None:
    bench.broker_ready(allowedNamespaces=[{"name": ELSEWHERE, "repositories": ["team"]}])
    bench.secret("db", {"pw": SECRET})
    _of_elsewhere(bench, _one(), "2020-01-01T00:00:00Z")
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    assert bench.said("BrokerResource", "r", "Conflict") == ("True", "PathTaken")


@pytest.mark.parametrize("gone", [False, True], ids=["looked at", "deleted"])
@pytest.mark.parametrize("whole", [False, True], ids=["one key", "all keys"])
def test_a_status_that_somebody_wrote_deletes_nothing_elsewhere(bench: Bench, *, whole: bool, gone: bool) -> None:
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.apply("BrokerResource", "r", _whole() if whole else _one())
    bench.look("BrokerResource", "r")
    bench.broker.resources["other/crown/jewels"] = (1, b"x")
    bench.broker.resources["team/db2/x"] = (1, b"x")
    status = bench.status("BrokerResource", "r")
    forged = [{"path": path, "version": 1} for path in ("other/crown/jewels", "team/db2/x", "team/db")]
    bench.api.patch(
        OURS["BrokerResource"],
        NAMESPACE,
        "r",
        {"status": {**status, "resources": [*status["resources"], *forged]}},
        subresource="status",
    )
    if gone:
        bench.delete("BrokerResource", "r")
    bench.look("BrokerResource", "r")
    assert {"other/crown/jewels", "team/db2/x"} <= set(bench.broker.resources)
    assert bench.exists("BrokerResource", "r") is not gone


def test_who_lost_a_path_does_not_delete_it(bench: Bench) -> None:
    """An older object was admitted only after a younger one had written."""
    bench.broker_ready()
    bench.secret("db", {"pw": SECRET})
    bench.secret("db", {"pw": b"theirs"}, ELSEWHERE)
    _of_elsewhere(bench, _one(), "2020-01-01T00:00:00Z")
    bench.apply("BrokerResource", "r", _one())
    bench.look("BrokerResource", "r")
    bench.broker_ready(allowedNamespaces=[{"name": ELSEWHERE, "repositories": ["team"]}])
    bench.look("BrokerResource", "theirs", ELSEWHERE)
    bench.look("BrokerResource", "r")
    assert bench.said("BrokerResource", "r", "Conflict") == ("True", "PathTaken")
    bench.delete("BrokerResource", "r")
    bench.look("BrokerResource", "r")
    assert not bench.exists("BrokerResource", "r")
    assert bench.broker.resources["team/db/password"] == (2, b"theirs")
