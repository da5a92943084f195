"""Tokens verified by the cluster's keys alone."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.errors import ConfigInvalid, PodIdentityUnavailable, PodTokenRejected
from kbs.identity.claims import Expected, parse
from kbs.identity.model import PodIdentity
from kbs.identity.offline import OfflineCluster
from kbs.protocol import base64url
from tests.fakes.broker import START
from tests.fakes.pod_tokens import AUDIENCE, KID, FakeCluster, compact

NOW = START.timestamp()


@pytest.fixture(scope="module")
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def keys(cluster: FakeCluster, tmp_path: Path) -> Path:
    return cluster.write_jwks(tmp_path / "jwks.json")


def made(cluster: FakeCluster, keys: Path) -> OfflineCluster:
    return OfflineCluster(Expected("east", cluster.issuer, AUDIENCE, timedelta(days=1)), keys)


def verify(offline: OfflineCluster, text: str, now: float = NOW) -> PodIdentity:
    return offline.verify(parse(text), now)


def test_a_good_token(cluster: FakeCluster, keys: Path) -> None:
    offline = made(cluster, keys)
    pod = verify(offline, cluster.token())
    assert (pod.namespace, pod.pod, pod.checked) == ("payments", "api-5c", "offline")
    assert offline.blocks is False
    offline.close()


def test_a_signature_knows_nothing_of_deleted_pods(cluster: FakeCluster, keys: Path) -> None:
    """Policies see that, and `exp` ends it."""
    offline = made(cluster, keys)
    assert verify(offline, cluster.token(), NOW + 599).checked == "offline"
    with pytest.raises(PodTokenRejected, match="expired"):
        verify(offline, cluster.token(), NOW + 661)


def test_no_other_key(cluster: FakeCluster, keys: Path) -> None:
    offline = made(cluster, keys)
    for text in (
        cluster.token(key=ec.generate_private_key(ec.SECP256R1())),
        cluster.token(header={"alg": "ES256", "kid": "another"}),
        cluster.token(header={"alg": "ES256"}),
        cluster.token(header={"alg": "ES384", "kid": KID}),
        cluster.token(header={"alg": "RS256", "kid": KID}),
        cluster.token(header={"alg": "ES256", "kid": "x", "jwk": cluster.jwks()["keys"][0]}),
        compact({"alg": "ES256", "kid": KID}, cluster.claims(), None),
    ):
        with pytest.raises(PodTokenRejected):
            verify(offline, text)


def test_a_public_key_is_no_password(cluster: FakeCluster, keys: Path) -> None:
    """HS256 with the public key as its secret, in each form that anybody could take for it; and no signature at all."""
    public = cluster.key.public_key()
    forms = [
        public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo) for encoding in (Encoding.PEM, Encoding.DER)
    ]
    forms.append(json.dumps(cluster.jwks()["keys"][0]).encode())
    offline = made(cluster, keys)
    for secret in forms:
        head, payload, _ = compact({"alg": "HS256", "kid": KID}, cluster.claims(), None).split(".")
        mac = hmac.digest(secret, f"{head}.{payload}".encode(), hashlib.sha256)
        with pytest.raises(PodTokenRejected, match="algorithm"):
            verify(offline, f"{head}.{payload}.{base64url.encode(mac).decode()}")
    with pytest.raises(PodTokenRejected, match="algorithm"):
        verify(offline, compact({"alg": "none"}, cluster.claims(), None))


def test_every_change_breaks_the_signature(cluster: FakeCluster, keys: Path) -> None:
    offline, text = made(cluster, keys), cluster.token()
    for place in range(0, len(text), 7):
        for other in "Ax":
            changed = text[:place] + other + text[place + 1 :]
            if changed == text or (place == len(text) - 1):  # the last one's unused bits
                continue
            with pytest.raises(PodTokenRejected):
                verify(offline, changed)


def test_the_file_is_read_anew(cluster: FakeCluster, keys: Path) -> None:
    offline = made(cluster, keys)
    verify(offline, cluster.token())
    cluster.write_jwks(keys, "next-key")
    os.utime(keys, ns=(1, 1))
    with pytest.raises(PodTokenRejected, match="no key of this cluster"):
        verify(offline, cluster.token())
    verify(offline, cluster.token(header={"alg": "ES256", "kid": "next-key"}))


def test_no_keys_are_no_old_keys(cluster: FakeCluster, keys: Path) -> None:
    offline = made(cluster, keys)
    keys.write_text("{}")
    os.utime(keys, ns=(1, 1))
    with pytest.raises(PodIdentityUnavailable) as caught:
        verify(offline, cluster.token())
    assert str(keys) not in str(caught.value)
    assert "no list of keys" in (caught.value.operator_detail or "")
    keys.unlink()
    with pytest.raises(PodIdentityUnavailable):
        verify(offline, cluster.token())
    cluster.write_jwks(keys)
    verify(offline, cluster.token())


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}', b"x" * (1 << 20 | 1)],
    ids=["missing", "empty", "object", "none", "symmetric", "large"],
)
def test_files_that_are_refused_at_start(cluster: FakeCluster, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"identity\.kubernetes east"):
        made(cluster, path)
