"""Tokens that the cluster's API server is asked about."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from kbs.errors import ConfigInvalid, PodIdentityUnavailable, PodTokenRejected
from kbs.identity.claims import Expected, parse
from kbs.identity.model import PodIdentity
from kbs.identity.token_review import ApiServer, ReviewedCluster
from tests.fakes.broker import START
from tests.fakes.pod_tokens import AUDIENCE, FakeCluster

NOW = START.timestamp()
POD_UID = "22222222-0000-4000-8000-000000000002"
CREDENTIAL = "reviewer.token.1"


class Ticks:
    """A monotonic clock that tests move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def credential(tmp_path: Path) -> Path:
    path = tmp_path / "reviewer"
    path.write_text(CREDENTIAL + "\n")
    return path


def made(cluster: Any, ticks: Ticks, credential: Path, *, keep: float = 10.0, most: int = 8) -> ReviewedCluster:
    expected = Expected("east", FakeCluster().issuer, AUDIENCE, timedelta(days=1))
    server = ApiServer("https://api.test:6443", None, credential, 3.0)
    return ReviewedCluster(expected, server, keep, most=most, ticks=ticks, transport=httpx.MockTransport(cluster))


@pytest.fixture
def reviewed(cluster: FakeCluster, ticks: Ticks, credential: Path) -> ReviewedCluster:
    return made(cluster, ticks, credential)


def verify(reviewed: ReviewedCluster, text: str, now: float = NOW) -> PodIdentity:
    return reviewed.verify(parse(text), now)


def unavailable(reviewed: ReviewedCluster, text: str) -> str:
    with pytest.raises(PodIdentityUnavailable) as caught:
        verify(reviewed, text)
    detail = caught.value.operator_detail
    assert detail is not None
    assert str(caught.value) == "the pod token's cluster does not answer"
    for secret in (text, CREDENTIAL):
        assert secret not in detail
    return detail


def test_what_is_asked_and_answered(cluster: FakeCluster, reviewed: ReviewedCluster) -> None:
    text = cluster.token()
    pod = verify(reviewed, text)
    assert (pod.cluster, pod.pod_uid, pod.checked) == ("east", POD_UID, "review")
    assert reviewed.blocks is True
    (asked,) = cluster.asked
    assert asked["kind"] == "TokenReview"
    assert asked["spec"] == {"token": text, "audiences": [AUDIENCE]}
    assert cluster.credentials == [f"Bearer {CREDENTIAL}"]
    reviewed.close()
    assert verify(reviewed, cluster.token(jti="another")).token_id == "another"  # it opens again


def test_an_answer_is_used_for_a_while(cluster: FakeCluster, reviewed: ReviewedCluster, ticks: Ticks) -> None:
    text = cluster.token()
    first = verify(reviewed, text)
    cluster.deleted.add(POD_UID)
    ticks.now += 9.9
    assert verify(reviewed, text) is first
    assert len(cluster.asked) == 1
    ticks.now += 0.2
    with pytest.raises(PodTokenRejected, match="refused by its cluster"):
        verify(reviewed, text)
    cluster.deleted.clear()
    verify(reviewed, text)  # a refusal is not kept
    assert len(cluster.asked) == 3


def test_no_answer_outlives_the_token(cluster: FakeCluster, ticks: Ticks, credential: Path) -> None:
    reviewed = made(cluster, ticks, credential, keep=1e9)
    text = cluster.token()
    verify(reviewed, text)
    with pytest.raises(PodTokenRejected, match="expired"):
        verify(reviewed, text, NOW + 661)
    verify(made(cluster, ticks, credential, keep=0.0), text)


def test_answers_that_are_kept_are_bounded(cluster: FakeCluster, ticks: Ticks, credential: Path) -> None:
    reviewed = made(cluster, ticks, credential, most=3)
    texts = [cluster.token(jti=str(number)) for number in range(4)]
    for number in (0, 1, 2, 3, 3, 2, 0):  # the fourth drives out the first
        verify(reviewed, texts[number])
    assert len(cluster.asked) == 5


def test_what_the_claims_refuse_is_not_asked_about(cluster: FakeCluster, reviewed: ReviewedCluster) -> None:
    for text in (
        cluster.token(aud=["https://kubernetes.default.svc"]),
        cluster.token(iss="https://other"),
        cluster.token(exp=NOW - 61),
        cluster.token(bound=cluster.bound(pod=None)),
    ):
        with pytest.raises(PodTokenRejected):
            verify(reviewed, text)
    assert cluster.asked == []


def changed(cluster: FakeCluster, **changes: Any) -> dict[str, Any]:
    """The good status with members replaced; a name with a slash is one of `user.extra`."""
    status = cluster.review({"token": cluster.token(), "audiences": [AUDIENCE]})
    for name, value in changes.items():
        if name in ("authenticated", "audiences", "user"):
            status[name] = value
        elif name in ("username", "uid"):
            status["user"][name] = value
        else:
            status["user"]["extra"][f"authentication.kubernetes.io/{name.replace('_', '-')}"] = value
    return status


@pytest.mark.parametrize(
    "change",
    [
        {"authenticated": False},
        {"authenticated": "true"},
        {"authenticated": None},
        {"audiences": None},  # an authenticator that knows of none
        {"audiences": []},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"audiences": [AUDIENCE, "https://kubernetes.default.svc"]},
        {"user": None},
        {"user": {"username": "system:serviceaccount:payments:api"}},
        {"username": "system:serviceaccount:payments:other"},
        {"username": "admin"},
        {"uid": "another"},
        {"pod_name": ["other"]},
        {"pod_name": None},
        {"pod_uid": ["other"]},
        {"pod_uid": [POD_UID, "other"]},
        {"pod_uid": POD_UID},
        {"node_name": ["other"]},
        {"credential_id": ["JTI=other"]},
        {"credential_id": []},
    ],
    ids=lambda each: "-".join(each),
)
def test_answers_about_somebody_else(cluster: FakeCluster, reviewed: ReviewedCluster, change: dict[str, Any]) -> None:
    cluster.answer = changed(cluster, **change)
    with pytest.raises(PodTokenRejected, match="refused by its cluster"):
        verify(reviewed, cluster.token())


def test_old_clusters_leave_node_and_id_out(cluster: FakeCluster, reviewed: ReviewedCluster) -> None:
    cluster.answer = status = changed(cluster)
    for name in ("node-name", "credential-id"):
        del status["user"]["extra"][f"authentication.kubernetes.io/{name}"]
    assert verify(reviewed, cluster.token()).node == "node-1"


def test_what_the_cluster_says_of_a_refusal_is_for_the_operator(
    cluster: FakeCluster, reviewed: ReviewedCluster
) -> None:
    cluster.answer = {"authenticated": False, "error": "[invalid bearer token,\x1b[31m " + "x" * 1000}
    with pytest.raises(PodTokenRejected) as caught:
        verify(reviewed, cluster.token())
    assert str(caught.value) == "pod token is refused by its cluster"
    detail = caught.value.operator_detail or ""
    assert detail.startswith("east: [invalid bearer token,")
    assert "\x1b" not in detail
    assert len(detail) < 320


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(401, json={}), "status 401; is token_file"),
        (httpx.Response(403, json={}), "status 403; is token_file"),
        (httpx.Response(302, headers={"Location": "https://evil.test/"}), "status 302"),
        (httpx.Response(404), "status 404"),
        (httpx.Response(429), "status 429"),
        (httpx.Response(500), "status 500"),
        (httpx.Response(201, content=b"<html>"), "no JSON"),
        (httpx.Response(201, content=b""), "no JSON"),
        (httpx.Response(201, json=[]), "no TokenReview"),
        (httpx.Response(201, json={"kind": "TokenReview"}), "no TokenReview"),
        (httpx.Response(201, content=b" " * (128 << 10 | 1)), "ReadError"),
        (httpx.ConnectError("certificate verify failed"), "certificate verify failed"),
        (httpx.ReadTimeout("late"), "ReadTimeout"),
        (httpx.RemoteProtocolError("garbage"), "RemoteProtocolError"),
    ],
    ids=range(14),
)
def test_no_answer_is_no_yes_and_no_no(
    cluster: FakeCluster, reviewed: ReviewedCluster, ticks: Ticks, answer: Any, words: str
) -> None:
    cluster.answer = answer
    assert words in unavailable(reviewed, cluster.token())
    cluster.answer = None
    ticks.now += 2.1
    verify(reviewed, cluster.token())


def test_a_pause_after_silence(cluster: FakeCluster, reviewed: ReviewedCluster, ticks: Ticks) -> None:
    known = cluster.token(jti="known")
    verify(reviewed, known)
    cluster.answer = httpx.ReadTimeout("late")
    unavailable(reviewed, cluster.token())
    asked = len(cluster.asked)
    assert "a moment ago" in unavailable(reviewed, cluster.token())
    verify(reviewed, known)  # what is known needs no answer
    assert len(cluster.asked) == asked
    cluster.answer = None
    ticks.now += 2.1
    verify(reviewed, cluster.token())


def test_a_cluster_that_hangs_holds_two_threads_and_no_more(ticks: Ticks, credential: Path) -> None:
    cluster, go, inside = FakeCluster(), threading.Event(), threading.Semaphore(0)

    def hang(request: httpx.Request) -> httpx.Response:
        inside.release()
        assert go.wait(30)
        return cluster(request)

    reviewed = made(hang, ticks, credential)
    found: list[str] = []

    def ask(number: int) -> None:
        found.append(verify(reviewed, cluster.token(jti=str(number))).pod)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=30)
    assert inside.acquire(timeout=30)
    assert "2 questions wait" in unavailable(reviewed, cluster.token())
    go.set()
    for thread in threads:
        thread.join(30)
    assert found == ["api-5c", "api-5c"]
    verify(reviewed, cluster.token())


def test_the_credential_is_read_for_each(cluster: FakeCluster, reviewed: ReviewedCluster, credential: Path) -> None:
    verify(reviewed, cluster.token(jti="1"))
    credential.write_text("reviewer.token.2")
    verify(reviewed, cluster.token(jti="2"))
    assert cluster.credentials == [f"Bearer {CREDENTIAL}", "Bearer reviewer.token.2"]


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two tokens", b"a\nb", b"\xff", b"x" * (16 << 10 | 1), None], ids=range(7)
)
def test_no_credential(
    cluster: FakeCluster, reviewed: ReviewedCluster, credential: Path, content: bytes | None
) -> None:
    if content is None:
        credential.unlink()
    else:
        credential.write_bytes(content)
    detail = unavailable(reviewed, cluster.token())
    assert "token_file" in detail or "FileNotFoundError" in detail
    assert cluster.asked == []


def test_roots_that_are_none(tmp_path: Path, credential: Path) -> None:
    expected = Expected("east", "i", AUDIENCE, timedelta(days=1))
    empty = tmp_path / "ca.pem"
    empty.write_text("no certificate")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(ConfigInvalid, match="not a readable file of PEM certificates"):
            ReviewedCluster(expected, ApiServer("https://api.test", path, credential, 3.0), 10.0)


def test_the_request_is_json_of_two_members(cluster: FakeCluster, ticks: Ticks, credential: Path) -> None:
    seen: list[httpx.Request] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return cluster(request)

    verify(made(look, ticks, credential), cluster.token())
    (request,) = seen
    assert str(request.url) == "https://api.test:6443/apis/authentication.k8s.io/v1/tokenreviews"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"
    assert json.loads(request.content).keys() == {"apiVersion", "kind", "spec"}
