"""What a verified pod token says, and the port behind which one cluster verifies them.

A cluster's control plane makes its tokens and answers for them: whoever controls it can be any of its Pods. So all this
narrows what attested guests of one cluster get; it never stands for evidence (threat-model, workload cluster).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from kbs.tokens.jose import CompactJws

HEADER: Final = "Kubernetes-Pod-Token"
"""The request header: one compact JWS, nothing else."""

MAX_TOKEN: Final = 16 << 10  # octets; real ones have 1 to 2 KiB


class Checked(StrEnum):
    """How a token was verified."""

    REVIEW = "review"  # the cluster's API server was asked: it knows of deleted Pods
    OFFLINE = "offline"  # signature and times only


@dataclass(frozen=True, slots=True, kw_only=True)
class PodIdentity:
    """A Pod, as the control plane of its cluster has it.

    cluster: our own name for the cluster, from the settings. service_account_uid, pod_uid, node_uid: of the API.
    token_id: the token's `jti`, None in tokens of clusters before 1.29; the cluster's own audit log has it too.
    expires: `exp`, seconds since the epoch.
    """

    cluster: str
    namespace: str
    service_account: str
    service_account_uid: str
    pod: str
    pod_uid: str
    node: str | None
    token_id: str | None
    audiences: tuple[str, ...]
    expires: float
    checked: Checked

    def document(self) -> dict[str, Any]:
        """`data.identity.kubernetes` of resource policies; also what the audit log and kept decisions hold.

        No times and no `jti`: the same Pod is the same document, whichever of its tokens it shows.
        """
        found = {
            "cluster": self.cluster,
            "namespace": self.namespace,
            "serviceaccount": self.service_account,
            "serviceaccount_uid": self.service_account_uid,
            "pod": self.pod,
            "pod_uid": self.pod_uid,
            "checked": self.checked.value,
        }
        return found if self.node is None else {**found, "node": self.node}


@dataclass(frozen=True, slots=True)
class PodToken:
    """A token that has the right shape, with claims that nobody has verified yet.

    text: the compact JWS, ASCII. issuer, audiences: None and empty where the claim is no text, or no list of texts.
    """

    text: str = field(repr=False)
    jws: CompactJws = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    issuer: str | None
    audiences: tuple[str, ...]


class Cluster(Protocol):
    """Verifies the tokens of one cluster. Safe from several threads, and across fork."""

    name: str
    issuer: str
    audience: str
    blocks: bool
    """True when `verify` waits on something outside this process."""

    def verify(self, token: PodToken, now: float) -> PodIdentity:
        """
        Args:
            token: its unverified claims name this cluster's issuer and audience.
            now: seconds since the epoch.

        Raises:
            PodTokenRejected: it does not verify, or names no Pod.
            PodIdentityUnavailable: nobody can tell at the moment.
        """

    def close(self) -> None:
        """Release connections."""
