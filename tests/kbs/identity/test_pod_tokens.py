"""Several clusters, and the settings that name them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from kbs.config import KubernetesIdentitySettings
from kbs.errors import ConfigInvalid, PodClusterUnknown, PodTokenRejected
from kbs.identity.claims import Expected
from kbs.identity.offline import OfflineCluster
from kbs.identity.pod_tokens import PodTokens, open_pod_tokens
from kbs.identity.token_review import ApiServer, ReviewedCluster
from tests.fakes.broker import StoppedClock
from tests.fakes.pod_tokens import AUDIENCE, FakeCluster

WEST = "https://kbs.example/west"


def reviewed(cluster: FakeCluster, name: str, audience: str, folder: Path) -> ReviewedCluster:
    credential = folder / f"{name}-reviewer"
    credential.write_text(f"credential-of-{name}")
    expected = Expected(name, cluster.issuer, audience, timedelta(days=1))
    server = ApiServer(f"https://{name}.test", None, credential, 3.0)
    return ReviewedCluster(expected, server, 10.0, transport=httpx.MockTransport(cluster))


def test_a_token_is_shown_to_its_own_cluster_only(tmp_path: Path) -> None:
    """Two clusters of the same issuer, as kubeadm makes them, and one that is verified offline."""
    east, west, north = FakeCluster(), FakeCluster(), FakeCluster("https://north.example")
    keys = north.write_jwks(tmp_path / "north.json")
    tokens = PodTokens(
        [
            reviewed(east, "east", AUDIENCE, tmp_path),
            reviewed(west, "west", WEST, tmp_path),
            OfflineCluster(Expected("north", north.issuer, AUDIENCE, timedelta(days=1)), keys),
        ],
        StoppedClock(),
    )
    assert tokens.blocks is True
    assert tokens.verify(east.token()).cluster == "east"
    assert tokens.verify(west.token(aud=[WEST])).cluster == "west"
    assert tokens.verify(north.token()).cluster == "north"
    assert (east.credentials, west.credentials) == (["Bearer credential-of-east"], ["Bearer credential-of-west"])
    with pytest.raises(PodTokenRejected):  # east's claims under another key: north looks at the signature
        tokens.verify(east.token(iss=north.issuer))
    assert (len(east.asked), len(west.asked)) == (1, 1)
    tokens.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other"},
        {"iss": None},
        {"aud": ["https://other"]},
        {"aud": [AUDIENCE, WEST]},
        {"aud": None},
    ],
    ids=range(5),
)
def test_an_unknown_cluster(tmp_path: Path, changes: dict[str, Any]) -> None:
    east = FakeCluster()
    tokens = PodTokens([reviewed(east, "east", AUDIENCE, tmp_path)], StoppedClock())
    with pytest.raises(PodClusterUnknown):
        tokens.verify(east.token(**changes))
    assert east.asked == []


def test_without_clusters_every_token_is_refused() -> None:
    tokens = open_pod_tokens(Path(), (), None, StoppedClock())
    assert tokens.blocks is False
    with pytest.raises(PodClusterUnknown):
        tokens.verify(FakeCluster().token())
    with pytest.raises(PodTokenRejected, match="not a compact JWS"):
        tokens.verify("garbage")


def opened(data: Path, public_url: str | None, *clusters: dict[str, Any]) -> PodTokens:
    return open_pod_tokens(data, [KubernetesIdentitySettings(**each) for each in clusters], public_url, StoppedClock())


def test_from_settings(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.write_jwks(tmp_path / "jwks.json")
    offline = {"name": "east", "issuer": cluster.issuer, "jwks_file": Path("jwks.json")}
    tokens = opened(tmp_path, AUDIENCE, offline)
    assert tokens.blocks is False
    assert tokens.verify(cluster.token()).cluster == "east"
    given = opened(tmp_path, AUDIENCE, {**offline, "audience": WEST})
    with pytest.raises(PodClusterUnknown):
        given.verify(cluster.token())
    assert given.verify(cluster.token(aud=WEST)).audiences == (WEST,)
    asked = {"name": "w", "issuer": "i", "api_server": "https://10.0.0.1:6443", "token_file": Path("missing")}
    assert opened(tmp_path, AUDIENCE, offline, asked).blocks is True


GOOD: dict[str, Any] = {
    "name": "east",
    "issuer": "https://issuer",
    "api_server": "https://api.test:6443",
    "token_file": Path("reviewer"),
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "East"}, "name is"),
        ({"name": ""}, "name is"),
        ({"name": "a" * 64}, "name is"),
        ({"name": "a/b"}, "name is"),
        ({"issuer": ""}, "issuer is empty"),
        ({"audience": ""}, "audience"),
        ({"api_server": None}, "or jwks_file"),
        ({"token_file": None}, "or jwks_file"),
        ({"jwks_file": Path("jwks.json")}, "in place of"),
        ({"api_server": "http://api.test"}, "https://"),
        ({"api_server": "https://user:word@api.test"}, "https://"),
        ({"api_server": "https://api.test/?a=b"}, "https://"),
        ({"api_server": "https://"}, "https://"),
        ({"api_server": "https://api.test:port"}, "https://"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"),
        ({"timeout_seconds": 31.0}, "timeout_seconds"),
        ({"cache_seconds": -1.0}, "cache_seconds"),
        ({"cache_seconds": 16.0}, "within 30 s"),
        ({"max_life_seconds": 0}, "max_life_seconds"),
    ],
    ids=range(19),
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"settings: identity\.kubernetes") as caught:
        opened(tmp_path, AUDIENCE, {**GOOD, **changes})
    assert words in str(caught.value)


def test_there_is_no_audience_by_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"needs an audience, since server\.public_url is not set"):
        opened(tmp_path, None, GOOD)


@pytest.mark.parametrize(
    "second", [{"issuer": "https://other"}, {"name": "west"}, {"name": "west", "audience": AUDIENCE}], ids=range(3)
)
def test_clusters_that_nobody_could_tell_apart(tmp_path: Path, second: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid, match="a name of its own"):
        opened(tmp_path, AUDIENCE, GOOD, {**GOOD, **second})
