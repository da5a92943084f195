"""The webhook without a network: reviews in and out, what is known of profiles, and doors."""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import generate_latest
from werkzeug.test import TestResponse

from kbs.admin.data_directory import make_tls
from kbs.errors import MalformedMessage
from kbs.initdata import annotation
from kbs.k8s.api import ApiError, ApiExpired, ApiKind, ApiUnreachable, Change, Listed
from kbs.k8s.model import PROFILE_LABEL
from kbs.k8s.webhook import review as reviews
from kbs.k8s.webhook.app import create_app
from kbs.k8s.webhook.cache import ProfileCache
from kbs.k8s.webhook.metrics import Metrics
from kbs.k8s.webhook.server import PatientSocket
from kbs.k8s.webhook.watch import Watcher
from kbs.k8s.wiring.json_patch import Addition, apply
from kbs.web.certificate import load
from tests.fakes.profiles import IMAGE, init_data, pod, profile_object, rendered

UID = "7f0b2891-916f-4ed6-b7cd-27bff1815a8c"


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> ProfileCache:
    found = ProfileCache(clock, max_age=300)
    found.replace([profile_object()])
    return found


@pytest.fixture
def metrics(cache: ProfileCache) -> Metrics:
    return Metrics(cache)


@pytest.fixture
def client(cache: ProfileCache, metrics: Metrics) -> FlaskClient:
    return create_app(cache, metrics, lambda: True).test_client()


def review(
    raw: dict[str, Any] | None, *, before: dict[str, Any] | None = None, operation: str = "CREATE", **more: Any
) -> dict[str, Any]:
    request = {
        "uid": UID,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": operation,
        "namespace": "shop",
        "name": "app",
        "userInfo": {"username": "u"},
        "object": raw,
        "oldObject": before,
        "dryRun": False,
        **more,
    }
    return {"apiVersion": reviews.API_VERSION, "kind": "AdmissionReview", "request": request}


def ask(client: FlaskClient, door: str, question: dict[str, Any]) -> dict[str, Any]:
    found: TestResponse = client.post(f"/{door}", json=question)
    assert found.status_code == 200
    answer = json.loads(found.data)
    assert answer["apiVersion"] == reviews.API_VERSION
    assert answer["kind"] == "AdmissionReview"
    assert answer["response"]["uid"] == UID
    return dict(answer["response"])


def patched(raw: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    assert response["allowed"] is True
    assert response["patchType"] == "JSONPatch"
    operations = json.loads(base64.b64decode(response["patch"], validate=True))
    assert {each["op"] for each in operations} == {"add"}
    return apply([Addition(each["path"], each["value"]) for each in operations], raw)


def causes(response: dict[str, Any]) -> list[str]:
    assert response["allowed"] is False
    assert "patch" not in response
    return [each["reason"] for each in response["status"]["details"]["causes"]]


# --- reviews ----------------------------------------------------------------------------------------------------------


def test_a_pod_is_wired_and_its_twin_agrees(client: FlaskClient) -> None:
    made = patched(pod(), ask(client, "mutate", review(pod())))
    assert annotation.decode(made["metadata"]["annotations"][annotation.KEY]) == init_data()
    assert ask(client, "validate", review(made)) == {"uid": UID, "allowed": True}
    assert "patch" not in ask(client, "mutate", review(made))


def test_the_twin_refuses_what_is_not_wired(client: FlaskClient) -> None:
    response = ask(client, "validate", review(pod()))
    assert set(causes(response)) == {"not-wired"}
    assert response["status"]["code"] == 403
    assert "another mutating webhook" in response["status"]["message"]


def test_all_reasons_are_given_at_once(client: FlaskClient) -> None:
    raw = pod(hostNetwork=True, container={"image": "nginx", "securityContext": {"privileged": True}})
    response = ask(client, "mutate", review(raw))
    assert causes(response) == ["host-network", "image-not-pinned", "privileged"]
    assert response["status"]["message"].count("\n- [") == 3


def test_unknown_profile(client: FlaskClient) -> None:
    response = ask(client, "mutate", review(pod(label="nowhere")))
    assert causes(response) == ["profile-unknown"]
    assert "kbs k8s wire" in response["status"]["message"]


def test_pods_without_the_label_are_left_alone(client: FlaskClient) -> None:
    for door in ("mutate", "validate"):
        assert ask(client, door, review(pod(label=None, hostPID=True))) == {"uid": UID, "allowed": True}


def test_the_namespace_is_that_of_the_request(client: FlaskClient) -> None:
    raw = pod()
    raw["metadata"]["namespace"] = "shop"
    assert causes(ask(client, "mutate", review(raw, namespace="other"))) == ["namespace-not-allowed"]


def test_updates(client: FlaskClient) -> None:
    made = patched(pod(), ask(client, "mutate", review(pod())))
    debugged = {**made, "spec": {**made["spec"], "ephemeralContainers": [{"name": "d", "image": IMAGE}]}}
    found = ask(
        client, "validate", review(debugged, before=made, operation="UPDATE", subResource="ephemeralcontainers")
    )
    assert causes(found) == ["ephemeral-container"]
    bare = {**made, "metadata": {**made["metadata"], "labels": {}}}
    assert causes(ask(client, "validate", review(bare, before=made, operation="UPDATE"))) == ["label-changed"]
    assert ask(client, "validate", review(made, before=made, operation="UPDATE"))["allowed"] is True
    assert ask(client, "validate", review(None, before=made, operation="DELETE"))["allowed"] is True
    assert "patch" not in ask(client, "mutate", review(made, before=made, operation="UPDATE"))


def test_an_update_does_not_ask_for_the_profile(client: FlaskClient, cache: ProfileCache) -> None:
    made = patched(pod(), ask(client, "mutate", review(pod())))
    cache.replace([profile_object(rendered=rendered(init_data(label="other"), generation=2))])
    assert ask(client, "validate", review(made, before=made, operation="UPDATE"))["allowed"] is True
    assert set(causes(ask(client, "validate", review(made)))) == {"init-data-differs"}


def test_workloads_are_warned_and_never_refused(client: FlaskClient) -> None:
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    workload = {"metadata": {"name": "w"}, "spec": {"template": pod(hostIPC=True)}}
    response = ask(client, "foresee", review(workload, kind=kind))
    assert response["allowed"] is True
    assert response["warnings"][0].startswith("Pods will be refused: [host-ipc]")
    good = {"metadata": {"name": "w"}, "spec": {"template": pod()}}
    assert ask(client, "foresee", review(good, kind=kind)) == {"uid": UID, "allowed": True}


def test_warnings_are_short(client: FlaskClient) -> None:
    raw = pod(shareProcessNamespace=True, container={"envFrom": [{"secretRef": {"name": "s" * 300}}] * 40})
    made = patched(raw, ask(client, "mutate", review(raw)))
    warned = ask(client, "validate", review(made))["warnings"]
    assert all(len(each) <= 256 for each in warned)
    assert sum(map(len, warned)) <= 4096


def test_dry_runs_are_answered_alike(client: FlaskClient) -> None:
    assert ask(client, "mutate", review(pod(), dryRun=True)) == ask(client, "mutate", review(pod()))


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{}", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"a":1,"a":2}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (json.dumps(review(pod())).encode(), "text/plain", 400),
        (json.dumps(review(pod()) | {"apiVersion": "admission.k8s.io/v1beta1"}).encode(), "application/json", 400),
        (json.dumps(review(pod(), uid="")).encode(), "application/json", 400),
        (json.dumps(review(pod(), uid=5)).encode(), "application/json", 400),
        (json.dumps(review(pod(), uid="a\nb")).encode(), "application/json", 400),
        (json.dumps(review(pod(), operation="create")).encode(), "application/json", 400),
        (json.dumps(review(pod(), dryRun="no")).encode(), "application/json", 400),
        (json.dumps(review(pod(), kind={"kind": "Node"})).encode(), "application/json", 400),
        (json.dumps(review(None)).encode(), "application/json", 400),
        (b"[" * (reviews.MAX_SIZE + 1), "application/json", 413),
        (b"[" * 100, "application/json", 400),
    ],
    ids=[
        "empty", "no review", "list", "twice", "no text", "type", "version", "no uid", "uid number", "uid lines",
        "operation", "dry run", "kind", "no object", "large", "deep",
    ],
)  # fmt: skip
def test_what_is_no_review_gets_no_yes(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    found = client.post("/mutate", data=body, content_type=content_type)
    assert found.status_code == status
    assert b"allowed" not in found.data


def test_an_update_comes_with_what_was_there_before(client: FlaskClient) -> None:
    assert client.post("/validate", json=review(pod(), operation="UPDATE")).status_code == 400


def test_other_doors_and_methods(client: FlaskClient) -> None:
    assert client.get("/mutate").status_code == 405
    assert client.post("/other").status_code == 404


def test_members_of_later_releases_are_left_alone(client: FlaskClient) -> None:
    assert ask(client, "mutate", review(pod(), fromTheFuture={"x": 1}))["allowed"] is True


def test_decode_says_which_member() -> None:
    with pytest.raises(MalformedMessage, match="request is missing"):
        reviews.decode(b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}')


def test_the_log_has_no_annotation(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kbs.k8s.webhook")
    ask(client, "mutate", review(pod(), dryRun=True))
    ask(client, "mutate", review(pod(hostPID=True)))
    first, second = (record.__dict__["members"] for record in caplog.records)
    assert (first["result"], first["profile"], first["additions"], first["dry_run"]) == ("patched", "web", 3, True)
    assert (second["result"], second["refusals"]) == ("refused", ["host-pid"])
    assert rendered()["annotation"][:40] not in str(first) + str(second)


def test_metrics(client: FlaskClient, metrics: Metrics) -> None:
    ask(client, "mutate", review(pod()))
    ask(client, "mutate", review(pod(hostPID=True)))
    client.post("/validate", data=b"x", content_type="application/json")
    text = generate_latest(metrics.registry).decode()
    assert 'kbs_webhook_reviews_total{door="mutate",result="patched"} 1.0' in text
    assert 'kbs_webhook_reviews_total{door="mutate",result="refused"} 1.0' in text
    assert 'kbs_webhook_reviews_total{door="validate",result="malformed"} 1.0' in text
    assert 'kbs_webhook_refusals_total{name="host-pid"} 1.0' in text
    assert "kbs_webhook_profiles 1.0" in text
    assert "kbs_webhook_profiles_age_seconds 0.0" in text


# --- what is known ----------------------------------------------------------------------------------------------------


def test_nothing_is_decided_before_the_first_list(clock: Clock) -> None:
    empty = ProfileCache(clock, max_age=300)
    client = create_app(empty, Metrics(empty), lambda: True).test_client()
    assert client.get("/readyz").status_code == 503
    for door in ("mutate", "validate"):
        response = ask(client, door, review(pod()))
        assert causes(response) == ["profiles-unavailable"]
        assert response["status"]["code"] == 503


def test_known_profiles_serve_for_a_bounded_time(client: FlaskClient, clock: Clock, cache: ProfileCache) -> None:
    clock.seconds += 300
    assert client.get("/readyz").status_code == 200
    assert ask(client, "mutate", review(pod()))["allowed"] is True
    clock.seconds += 0.1
    assert client.get("/readyz").status_code == 503
    assert causes(ask(client, "mutate", review(pod()))) == ["profiles-unavailable"]
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert ask(client, "foresee", review({"spec": {"template": pod()}}, kind=kind))["allowed"] is True
    cache.heard()
    assert client.get("/readyz").status_code == 200


def test_the_process_asks_to_be_restarted(cache: ProfileCache) -> None:
    client = create_app(cache, Metrics(cache), lambda: False).test_client()
    assert client.get("/healthz").status_code == 500


def test_a_profile_that_cannot_be_read_refuses(cache: ProfileCache, client: FlaskClient) -> None:
    cache.put(profile_object(fromTheFuture=True))
    response = ask(client, "mutate", review(pod()))
    assert causes(response) == ["profile-broken"]


LONG_NUMBER = (
    """version = "0.1.0"
algorithm = "sha256"
x = """
    + "9" * 6000
    + """
[data]
"""
)


def test_a_profile_with_a_number_that_python_does_not_read(cache: ProfileCache, client: FlaskClient) -> None:
    raw = profile_object()
    raw["spec"]["rendered"]["annotation"] = annotation.encode(LONG_NUMBER.encode())
    cache.put(raw)
    assert causes(ask(client, "mutate", review(pod()))) == ["profile-broken"]


def test_one_profile_never_ends_the_watch(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write a profile somewhere could else have the Pods of all others refused."""

    def surprised(raw: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("kbs.k8s.webhook.cache.profile_of", surprised)
    watcher, _, cache = _watcher(clock, Listed((profile_object(),), "10"), [Change("ADDED", profile_object("new"))])
    watcher.round(None, 0.0)
    problems = [each.problem for name in ("web", "new") for each in cache.named(name)]
    assert [each is not None and each.name for each in problems] == ["profile-broken"] * 2


def test_put_and_remove(cache: ProfileCache) -> None:
    cache.put(profile_object(namespace="other"))
    assert {each.namespace for each in cache.named("web")} == {"shop", "other"}
    cache.remove(profile_object())
    assert {each.namespace for each in cache.named("web")} == {"other"}
    cache.replace([])
    assert len(cache) == 0


class Script:
    """An API server that answers what it is told to, in this order; `Api` as far as a watcher uses it."""

    def __init__(self, *answers: Listed | Sequence[Change] | ApiError) -> None:
        self._answers = iter(answers)
        self.asked: list[str] = []

    def list(self, kind: ApiKind, namespace: str | None, *, metadata_only: bool = False) -> Listed:
        assert (kind.plural, namespace, metadata_only) == ("workloadprofiles", None, False)
        self.asked.append("list")
        found = next(self._answers)
        if isinstance(found, ApiError):
            raise found
        assert isinstance(found, Listed)
        return found

    def watch(
        self,
        kind: ApiKind,
        namespace: str | None,
        resource_version: str,
        *,
        metadata_only: bool = False,
        seconds: int = 300,
    ) -> Iterator[Change]:
        self.asked.append(f"watch {resource_version}")
        found = next(self._answers)
        if isinstance(found, ApiError):
            raise found
        assert not isinstance(found, Listed)
        yield from found


def _versioned(raw: dict[str, Any], version: str) -> dict[str, Any]:
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": version}}


def _watcher(clock: Clock, *answers: Listed | Sequence[Change] | ApiError) -> tuple[Watcher, Script, ProfileCache]:
    script, cache = Script(*answers), ProfileCache(clock, max_age=300)
    return Watcher(script, cache), script, cache  # type: ignore[arg-type]  # it neither reads nor writes single objects


def test_a_watch_goes_on_where_it_ended(clock: Clock) -> None:
    changes = [
        Change("ADDED", _versioned(profile_object("new"), "11")),
        Change("DELETED", _versioned(profile_object(), "12")),
        Change("BOOKMARK", {"metadata": {"resourceVersion": "20"}}),
    ]
    watcher, script, cache = _watcher(clock, Listed((profile_object(),), "10"), changes, ApiUnreachable("x"), [])
    assert watcher.round(None, 0.0) == ("20", 0.0)
    assert (cache.named("web"), len(cache.named("new"))) == ((), 1)
    clock.seconds += 200
    assert watcher.round("20", 0.0) == ("20", 0.5)
    assert cache.age() == 200
    assert watcher.round("20", 0.5) == ("20", 0.0)
    assert cache.age() == 0
    assert script.asked == ["list", "watch 10", "watch 20", "watch 20"]


def test_an_expired_watch_lists_anew_and_does_not_spin(clock: Clock) -> None:
    gone = ApiExpired("410")
    watcher, script, cache = _watcher(clock, gone, Listed((profile_object(),), "30"), gone, Listed((), "40"), [])
    assert watcher.round("5", 0.0) == (None, 0.5)
    assert watcher.round(None, 0.5) == (None, 1.0)
    assert watcher.round(None, 1.0) == ("40", 0.0)
    assert script.asked == ["watch 5", "list", "watch 30", "list", "watch 40"]
    assert len(cache) == 0


def test_pauses_grow_and_end(clock: Clock) -> None:
    watcher, _, cache = _watcher(clock, *[ApiUnreachable("x")] * 8)
    pause, seen = 0.0, []
    for _ in range(8):
        version, pause = watcher.round(None, pause)
        seen.append(pause)
        assert version is None
    assert seen == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert not cache.is_current()


def test_a_list_that_worked_is_not_asked_for_again_when_the_watch_fails(clock: Clock) -> None:
    watcher, _, cache = _watcher(clock, Listed((profile_object(),), "10"), ApiUnreachable("x"))
    assert watcher.round(None, 0.0) == ("10", 0.5)
    assert cache.is_current()


def test_who_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the handshake nor before a request."""
    monkeypatch.setattr(PatientSocket, "patience", 0.05)
    make_tls(tmp_path, [], datetime.now(UTC))
    context = load(tmp_path / "server.pem", tmp_path / "server.key").context
    context.sslsocket_class = PatientSocket
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    here, there = socket.socketpair()
    silent = context.wrap_socket(here, server_side=True, do_handshake_on_connect=False)
    with there, silent, pytest.raises(TimeoutError):
        silent.do_handshake()
    monkeypatch.setattr(PatientSocket, "patience", 5.0)
    here, there = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(trusting.wrap_socket, there, server_hostname="localhost")
        with context.wrap_socket(here, server_side=True, do_handshake_on_connect=False) as served:
            served.do_handshake()
            with connecting.result(10):
                monkeypatch.setattr(PatientSocket, "patience", 0.05)
                served.setblocking(True)
                with pytest.raises(TimeoutError):
                    served.recv(1)


def test_who_says_a_byte_now_and_then_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole request, and a next one has its own."""
    now = [100.0]
    monkeypatch.setattr("kbs.k8s.webhook.server.time.monotonic", lambda: now[0])
    make_tls(tmp_path, [], datetime.now(UTC))
    context = load(tmp_path / "server.pem", tmp_path / "server.key").context
    context.sslsocket_class = PatientSocket
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    here, there = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(trusting.wrap_socket, there, server_hostname="localhost")
        with context.wrap_socket(here, server_side=True, do_handshake_on_connect=False) as served:
            served.do_handshake()
            with connecting.result(10) as client:
                client.sendall(b"POST /mutate")
                for expected in (b"P", b"O"):
                    assert served.recv(1) == expected
                    now[0] += 3
                with pytest.raises(TimeoutError):
                    served.recv(1)
                served.setblocking(True)
                assert served.recv(1) == b"S"
                served.setblocking(False)
                assert served.recv(1) == b"T"


def test_the_label_is_the_one_of_the_configurations() -> None:
    text = (Path(__file__).parents[3] / "k8s/webhook/configurations.yaml").read_text()
    assert text.count(f"key: {PROFILE_LABEL},") == 2
