"""The pod tokens of all clusters in the settings: which cluster a token belongs to, and what it says there.

A token is shown to no other cluster than the one that its issuer and audience name: a hostile one could else collect
the tokens of another and use them here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kbs.clock import Clock
from kbs.config import KubernetesIdentitySettings
from kbs.errors import ConfigInvalid, PodClusterUnknown
from kbs.identity.claims import Expected, parse
from kbs.identity.model import Cluster, PodIdentity
from kbs.identity.offline import OfflineCluster
from kbs.identity.token_review import ApiServer, ReviewedCluster

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_MAX_TIMEOUT: Final = 30.0  # seconds
_MAX_KEEP: Final = 15.0  # seconds; an API server keeps answers for 10 more, and 30 is what we promise
_MAX_LIFE: Final = 366 * 86_400  # seconds


class PodTokens:
    """Verifies pod tokens. Safe from several threads.

    Raises:
        ConfigInvalid: two clusters of one name, or of one issuer and audience.
    """

    def __init__(self, clusters: Sequence[Cluster], clock: Clock) -> None:
        self._clusters: Mapping[tuple[str, str], Cluster] = {(each.issuer, each.audience): each for each in clusters}
        if len(self._clusters) != len(clusters) or len({each.name for each in clusters}) != len(clusters):
            raise ConfigInvalid(
                "identity.kubernetes: each cluster has a name of its own, and an issuer and audience that no other has"
            )
        self._clock = clock
        self.blocks = any(each.blocks for each in clusters)
        """True when `verify` may wait on something outside this process."""

    def verify(self, text: str) -> PodIdentity:
        """Verify the value of a `Kubernetes-Pod-Token` header.

        Raises:
            PodTokenRejected: it does not verify. PodClusterUnknown: nobody here trusts its issuer for its audience.
            PodIdentityUnavailable: nobody can tell at the moment.
        """
        claimed = parse(text)
        audience = claimed.audiences[0] if len(claimed.audiences) == 1 else None
        cluster = None
        if claimed.issuer is not None and audience is not None:
            cluster = self._clusters.get((claimed.issuer, audience))
        if cluster is None:
            raise PodClusterUnknown("pod token is of an unknown issuer, or not for this audience alone")
        return cluster.verify(claimed, self._clock().timestamp())

    def close(self) -> None:
        """Release connections."""
        for cluster in self._clusters.values():
            cluster.close()


def open_pod_tokens(
    data: Path, clusters: Sequence[KubernetesIdentitySettings], public_url: str | None, clock: Clock
) -> PodTokens:
    """Make it from the settings. No API server is asked.

    Args:
        data: relative paths are under it. public_url: the audience of clusters that name none.

    Raises:
        ConfigInvalid: settings that contradict each other, or files that cannot be used.
    """
    return PodTokens([_cluster(data, each, public_url) for each in clusters], clock)


def _cluster(data: Path, settings: KubernetesIdentitySettings, public_url: str | None) -> Cluster:
    problems = _problems(settings, public_url)
    if problems:
        named = f"identity.kubernetes {settings.name[:63]!r}"
        raise ConfigInvalid("settings: " + "; ".join(f"{named}: {problem}" for problem in problems))
    audience = settings.audience or public_url or ""  # one of the two is there
    expected = Expected(settings.name, settings.issuer, audience, timedelta(seconds=settings.max_life_seconds))
    if settings.jwks_file is not None:
        return OfflineCluster(expected, data / settings.jwks_file)
    assert settings.api_server is not None
    assert settings.token_file is not None
    ca_file = None if settings.ca_file is None else data / settings.ca_file
    server = ApiServer(settings.api_server, ca_file, data / settings.token_file, settings.timeout_seconds)
    return ReviewedCluster(expected, server, settings.cache_seconds)


def _problems(settings: KubernetesIdentitySettings, public_url: str | None) -> list[str]:
    problems = []
    if not _NAME.fullmatch(settings.name):
        problems.append("name is 1 to 63 of a-z 0-9 . -")
    if not settings.issuer:
        problems.append("issuer is empty")
    if not (settings.audience or public_url) or settings.audience == "":
        problems.append("needs an audience, since server.public_url is not set")
    asked = (settings.api_server, settings.ca_file, settings.token_file)
    if settings.jwks_file is not None:
        if asked != (None, None, None):
            problems.append("jwks_file is in place of api_server, ca_file and token_file")
    elif settings.api_server is None or settings.token_file is None:
        problems.append("needs api_server and token_file, or jwks_file")
    elif not _is_api_server(settings.api_server):
        problems.append("api_server is https://HOST[:PORT]: tokens travel there")
    if not 0 < settings.timeout_seconds <= _MAX_TIMEOUT:
        problems.append(f"timeout_seconds is more than 0, at most {_MAX_TIMEOUT:.0f}")
    if not 0 <= settings.cache_seconds <= _MAX_KEEP:
        problems.append(f"cache_seconds is 0 to {_MAX_KEEP:.0f}: a deleted Pod is refused within 30 s")
    if not 0 < settings.max_life_seconds <= _MAX_LIFE:
        problems.append("max_life_seconds is more than 0, at most a year")
    return problems


def _is_api_server(url: str) -> bool:
    try:
        address = urlsplit(url)
        host, _ = address.hostname, address.port
    except ValueError:
        return False
    bare = not (address.query or address.fragment or address.username or address.password)
    return address.scheme == "https" and bool(host) and bare
