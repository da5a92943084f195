"""The one door through which a secret leaves. Read it twice.

1. The plugin exists and lets guests ask this way.
2. The token is one we trust (`tokens.accept`): its TEE key is the only key an answer is ever sealed to.
3. A pod token, where the guest shows one, verifies (`kbs.identity`). It adds to what policies are told and replaces
   nothing: without step 2 nobody looks at it, and one that does not verify refuses the request.
4. The resource policy says exactly true, and so does that of every scope the path is in (`kbs.release.policies`).
5. The plugin answers.
6. The answer is sealed to the TEE key.
7. The audit record is durable before the sealed bytes leave (`Decided`, opened by `kbs.audit.gate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kbs.attestation.ear import PROTOCOL_POINTER, find
from kbs.audit.events import ReleaseDenied, ReleaseGranted, shortened
from kbs.audit.gate import Decided
from kbs.errors import AccessDenied, KbsError, MethodNotAllowed, PluginNotFound, ServerFault, TokenMissing
from kbs.identity.pod_tokens import PodTokens
from kbs.lockstep import Steps
from kbs.plugins.model import Access, Guest, Plugin, PluginRequest
from kbs.policy.engine import Finding
from kbs.protocol import jwe
from kbs.protocol.target import Target
from kbs.protocol.tee_key import KeyAlgorithm
from kbs.protocol.version import RSA1_5_ONLY
from kbs.release.policies import Consulted, ResourcePolicies
from kbs.secret import Secret
from kbs.tokens.acceptor import AcceptedToken, TokenAcceptor


@dataclass(slots=True)
class _Trail:
    """What is known so far, for the record; filled in step by step."""

    decision: str
    plugin: str
    path: str
    peer: str | None
    attestation: str | None = None
    key: str | None = None
    consulted: Consulted = field(default_factory=Consulted)
    findings: Sequence[Finding] = ()
    identity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Release:
    """Decides whether a guest gets what it asks for, and seals the answer."""

    def __init__(
        self,
        *,
        plugins: Mapping[str, Plugin],
        acceptor: TokenAcceptor,
        policies: ResourcePolicies,
        pod_tokens: PodTokens,
        allow_rsa1_5: bool,
    ) -> None:
        self._plugins = plugins
        self._acceptor = acceptor
        self._policies = policies
        self._pod_tokens = pod_tokens
        self._allow_rsa1_5 = allow_rsa1_5

    def blocks(self, target: Target, pod_token: str | None = None) -> bool:
        """True when `release` may wait on something outside this process."""
        plugin = self._plugins.get(target.plugin)
        if pod_token is not None and self._pod_tokens.blocks:
            return True
        return self._policies.blocks or (plugin is not None and plugin.blocks)

    def release(
        self,
        method: str,
        target: Target,
        body: bytes,
        token: str | None,
        *,
        decision: str,
        peer: str | None,
        pod_token: str | None = None,
    ) -> Steps[Decided[bytes]]:
        """Decide one guest request, in steps; outcome: the JWE as JSON.

        pod_token: the header's value, unverified; None: the guest shows none.

        Raises:
            TokenMissing, PluginNotFound, MethodNotAllowed: nothing to decide yet. Everything else is a decision.
        """
        trail = _Trail(decision, target.plugin, shortened("/".join(target.segments)), peer)
        plugin = self._guest_plugin(method, target)  # 1
        if token is None:
            raise TokenMissing("Attestation Token not found")
        try:
            return (yield from self._decide(plugin, method, target, body, token, pod_token, trail))
        except KbsError as err:
            return _denied(trail, err)
        except Exception as err:  # noqa: BLE001 - the wall: a bug refuses, it never releases
            fault = ServerFault("internal error", operator_detail=f"{type(err).__name__} while deciding a release")
            fault.__cause__ = err
            return _denied(trail, fault)

    def _decide(
        self,
        plugin: Plugin,
        method: str,
        target: Target,
        body: bytes,
        token: str,
        pod_token: str | None,
        trail: _Trail,
    ) -> Steps[Decided[bytes]]:
        accepted = self._acceptor.accept(token)  # 2
        trail.attestation = accepted.attestation
        trail.key = accepted.tee_key.thumbprint
        identity = {} if pod_token is None else self._identify(pod_token, trail)  # 3
        yield
        self._authorize(accepted, target, identity, trail)  # 4
        yield
        guest = Guest(accepted.claims, accepted.claims_json, accepted.tee_key, accepted.expires, accepted.attestation)
        answer = plugin.handle(PluginRequest(method, target.segments, target.query, body, guest=guest))  # 5
        yield
        sealed = self._seal(accepted, answer.payload)  # 6
        yield
        event = ReleaseGranted(
            decision=trail.decision,
            plugin=trail.plugin,
            path=trail.path,
            version=answer.version,
            attestation=trail.attestation,
            policy=trail.consulted.digest or "",
            policy_name=trail.consulted.name,
            scopes=trail.consulted.scopes,
            shadow=trail.consulted.shadow,
            key=accepted.tee_key.thumbprint,
            identity=trail.identity,
            peer=trail.peer,
        )
        return Decided((event,), sealed)  # 7

    def _seal(self, accepted: AcceptedToken, payload: Secret) -> bytes:
        """To the TEE key, in the form that its guest opens; whose token it is says so, wherever the handshake was."""
        key = accepted.tee_key
        old_form = False
        if key.algorithm is KeyAlgorithm.RSA1_5:
            version = find(accepted.claims, PROTOCOL_POINTER)
            old_form = isinstance(version, str) and version in RSA1_5_ONLY
        return jwe.seal(key, payload.reveal(), allow_rsa1_5=self._allow_rsa1_5, old_form=old_form)

    def _guest_plugin(self, method: str, target: Target) -> Plugin:
        plugin = self._plugins.get(target.plugin)
        if plugin is None:
            raise PluginNotFound(f"Plugin {target.plugin} not found")
        guards = plugin.guards()
        guard = guards.get(method)
        if guard is None or guard.access is not Access.TOKEN:
            raise MethodNotAllowed(f"{method} is not allowed here", allow=tuple(sorted(guards)))
        return plugin

    def _identify(self, pod_token: str, trail: _Trail) -> Mapping[str, Any]:
        """What policies are told of the Pod; the record has the id of its token, too."""
        pod = self._pod_tokens.verify(pod_token)
        document = pod.document()
        trail.identity = {"kubernetes": document if pod.token_id is None else {**document, "token_id": pod.token_id}}
        return {"identity": {"kubernetes": document}}

    def _authorize(self, accepted: AcceptedToken, target: Target, identity: Mapping[str, Any], trail: _Trail) -> None:
        asked = {
            "plugin": trail.plugin,
            "resource-path": list(target.segments),
            "query": dict(target.query),
            **identity,
        }
        consulted, claims = trail.consulted, accepted.claims_json
        if self._policies.allow(consulted, claims, asked, trail.decision) is True:
            return
        trail.findings = self._policies.explain(consulted, claims, asked)
        raise AccessDenied("Access denied by policy")


def _denied(trail: _Trail, err: KbsError) -> Decided[bytes]:
    """A refusal with its record."""
    event = ReleaseDenied(
        decision=trail.decision,
        plugin=trail.plugin,
        path=trail.path,
        reason=err.reason,
        detail=err.operator_detail or str(err),
        attestation=trail.attestation,
        policy=trail.consulted.digest,
        policy_name=trail.consulted.name,
        scopes=trail.consulted.scopes,
        denied_by=trail.consulted.denied_by,
        shadow=trail.consulted.shadow,
        findings=tuple(asdict(finding) for finding in trail.findings),
        key=trail.key,
        identity=trail.identity,
        peer=trail.peer,
    )
    return Decided((event,), err)
