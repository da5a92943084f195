"""What is no Pod's token is refused, whatever else it is."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import PodTokenRejected
from kbs.identity.claims import Expected, parse, read_identity
from kbs.identity.model import MAX_TOKEN, Checked, PodIdentity
from kbs.policy.lint.pods import POD_MEMBERS
from kbs.protocol import base64url
from tests.fakes.broker import START
from tests.fakes.pod_tokens import AUDIENCE, FakeCluster, compact

CLUSTER = FakeCluster()
NOW = START.timestamp()
EXPECTED = Expected("east", CLUSTER.issuer, AUDIENCE, timedelta(days=1))


def read(text: str, now: float = NOW) -> PodIdentity:
    return read_identity(parse(text), EXPECTED, now, Checked.REVIEW)


def refused(text: str, now: float = NOW) -> str:
    with pytest.raises(PodTokenRejected) as caught:
        read(text, now)
    return str(caught.value)


def test_a_token_of_a_pod() -> None:
    pod = read(CLUSTER.token())
    assert (pod.token_id, pod.audiences, pod.expires) == (
        "44444444-0000-4000-8000-000000000004",
        (AUDIENCE,),
        NOW + 600,
    )
    assert pod.document() == {
        "cluster": "east",
        "namespace": "payments",
        "serviceaccount": "api",
        "serviceaccount_uid": "33333333-0000-4000-8000-000000000003",
        "pod": "api-5c",
        "pod_uid": "22222222-0000-4000-8000-000000000002",
        "node": "node-1",
        "checked": "review",
    }
    assert pod.document().keys() == POD_MEMBERS


def test_clusters_of_old_have_neither_node_nor_id() -> None:
    pod = read(CLUSTER.token(jti=None, bound=CLUSTER.bound(node=None)))
    assert (pod.node, pod.token_id) == (None, None)
    assert pod.document().keys() == POD_MEMBERS - {"node"}


def test_no_repr_holds_the_token() -> None:
    text = CLUSTER.token()
    shown = repr(parse(text))
    assert all(part not in shown for part in text.split("."))


@pytest.mark.parametrize(
    ("audience", "allowed"),
    [
        (AUDIENCE, True),
        ([AUDIENCE], True),
        ([AUDIENCE, "https://kubernetes.default.svc"], False),
        ([AUDIENCE, AUDIENCE], False),
        (["https://kubernetes.default.svc"], False),
        ([AUDIENCE.upper()], False),
        ([AUDIENCE + "/"], False),
        ([], False),
        (None, False),
        ("", False),
        ([AUDIENCE, 1], False),
        ({AUDIENCE: 1}, False),
    ],
    ids=str,
)
def test_it_is_for_us_alone(audience: Any, allowed: bool) -> None:
    text = CLUSTER.token(aud=audience)
    if allowed:
        assert read(text).audiences == (AUDIENCE,)
    else:
        assert "audience" in refused(text)


@pytest.mark.parametrize(
    "issuer", ["https://other", "", None, 1, ["https://kubernetes.default.svc.cluster.local"]], ids=str
)
def test_another_issuer(issuer: Any) -> None:
    assert "issuer" in refused(CLUSTER.token(iss=issuer))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": NOW - 61}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "2030"}, "exp"),
        ({"iat": None}, "iat"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"iat": NOW + 3600, "exp": NOW + 7200}, "not valid yet"),
        ({"exp": NOW + 86_401}, "longer"),
        ({"exp": 1e308}, "exp"),
    ],
    ids=lambda each: each if isinstance(each, str) else "-".join(each),
)
def test_times(changes: dict[str, Any], words: str) -> None:
    assert words in refused(CLUSTER.token(**changes))


BOUND = CLUSTER.bound()
UID = "22222222-0000-4000-8000-000000000002"


@pytest.mark.parametrize(
    "bound",
    [
        None,
        [],
        CLUSTER.bound(pod=None),  # `kubectl create token api`
        CLUSTER.bound(pod=None, secret={"name": "s", "uid": UID}),  # bound to a Secret
        CLUSTER.bound(pod="api-5c"),
        CLUSTER.bound(pod={"name": "api-5c"}),
        CLUSTER.bound(pod={"uid": UID}),
        CLUSTER.bound(pod={"name": "api-5c", "uid": "../../x"}),
        CLUSTER.bound(pod={"name": "API", "uid": UID}),
        CLUSTER.bound(pod={"name": "api\n", "uid": UID}),
        CLUSTER.bound(pod={"name": "a" * 254, "uid": UID}),
        CLUSTER.bound(pod={"name": 5, "uid": UID}),
        CLUSTER.bound(namespace=None),
        CLUSTER.bound(namespace="other"),  # the subject says payments
        CLUSTER.bound(serviceaccount=None),
        CLUSTER.bound(serviceaccount={"name": "admin", "uid": UID}),  # the subject says api
        CLUSTER.bound(node={}),
        CLUSTER.bound(node=[]),
    ],
    ids=range(18),
)
def test_what_names_no_pod(bound: Any) -> None:
    refused(CLUSTER.token(bound=bound))


@pytest.mark.parametrize(
    "subject", ["system:serviceaccount:payments:other", "system:node:n1", "api", "", None, 1, "system:admin"], ids=str
)
def test_another_subject(subject: Any) -> None:
    assert "contradict" in refused(CLUSTER.token(sub=subject))


@pytest.mark.parametrize("token_id", ["", "a b", 1, "x" * 129, None, []], ids=range(6))
def test_odd_token_ids(token_id: Any) -> None:
    text = compact({"alg": "ES256", "kid": "k"}, {**CLUSTER.claims(), "jti": token_id}, CLUSTER.key)
    assert "jti" in refused(text)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS256", "kid": "cluster-key"},
        {"kid": "cluster-key"},
        {"alg": "ES256", "typ": "at+jwt"},
        {"alg": "ES256", "typ": "JOSE"},
        {"alg": "ES256", "crit": ["exp"]},
        {"alg": "ES256", "zip": "DEF"},
        {"alg": ["ES256"]},
        [],
    ],
    ids=range(10),
)
def test_headers(header: Any) -> None:
    refused(compact(header, CLUSTER.claims(), CLUSTER.key))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "é.é.é",
        "Bearer x.y.z",
        " " + CLUSTER.token(),
        CLUSTER.token() + "\n",
        CLUSTER.token() + "," + CLUSTER.token(),  # two headers
        CLUSTER.token() + ".x",
        "A" * (MAX_TOKEN + 1),
    ],
    ids=range(11),
)
def test_what_is_no_token(text: str) -> None:
    words = refused(text)
    assert len(words) < 100
    assert text == "" or text not in words


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b'{"a":1,"a":2}', b"\xff", b'{"a":NaN}'], ids=range(6))
def test_payloads(payload: bytes) -> None:
    header, _, signature = CLUSTER.token().split(".")
    refused(f"{header}.{base64url.encode(payload).decode() or 'AA'}.{signature}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"])


@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
def test_whatever_the_claims_are_it_is_a_pod_or_a_refusal(changes: dict[str, Any]) -> None:
    text = compact({"alg": "ES256", "kid": "k"}, {**CLUSTER.claims(), **changes}, None)
    try:
        pod = read(text)
    except PodTokenRejected:
        return
    json.dumps(pod.document())
    assert pod.audiences == (AUDIENCE,)


@given(st.text(max_size=60))
def test_whatever_the_text_is_it_is_a_refusal(text: str) -> None:
    refused(text)
