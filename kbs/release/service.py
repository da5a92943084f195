"""The one door through which a secret leaves. Read it twice.

1. The plugin exists and lets guests ask this way.
2. The token is one we trust (`tokens.accept`): its TEE key is the only key an answer is ever sealed to.
3. The resource policy says exactly true.
4. The plugin answers.
5. The answer is sealed to the TEE key.
6. The audit record is durable before the sealed bytes leave (`Decided`, opened by `kbs.audit.gate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from kbs.audit.events import ReleaseDenied, ReleaseGranted, shortened
from kbs.audit.gate import Decided
from kbs.errors import AccessDenied, KbsError, MethodNotAllowed, PluginNotFound, ServerFault, TokenMissing
from kbs.plugins.model import Access, Plugin, PluginRequest
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.policy.store import RESOURCE_POLICY_ID, PolicyStore
from kbs.protocol import jwe
from kbs.protocol.target import Target
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
    policy: str | None = None
    policy_name: str | None = None
    findings: Sequence[Finding] = ()


class Release:
    """Decides whether a guest gets what it asks for, and seals the answer."""

    def __init__(
        self,
        *,
        plugins: Mapping[str, Plugin],
        acceptor: TokenAcceptor,
        policies: PolicyStore,
        engine: PolicyEngine,
        allow_rsa1_5: bool,
    ) -> None:
        self._plugins = plugins
        self._acceptor = acceptor
        self._policies = policies
        self._engine = engine
        self._allow_rsa1_5 = allow_rsa1_5

    def blocks(self, target: Target) -> bool:
        """True when `release` may wait on something outside this process."""
        plugin = self._plugins.get(target.plugin)
        return self._engine.blocks or (plugin is not None and plugin.blocks)

    def release(
        self, method: str, target: Target, body: bytes, token: str | None, *, decision: str, peer: str | None
    ) -> Decided[bytes]:
        """Decide one guest request; outcome: the JWE as JSON.

        Raises:
            TokenMissing, PluginNotFound, MethodNotAllowed: nothing to decide yet. Everything else is a decision.
        """
        trail = _Trail(decision, target.plugin, shortened("/".join(target.segments)), peer)
        plugin = self._guest_plugin(method, target)  # 1
        if token is None:
            raise TokenMissing("Attestation Token not found")
        try:
            return self._decide(plugin, PluginRequest(method, target.segments, target.query, body), token, trail)
        except KbsError as err:
            return _denied(trail, err)
        except Exception as err:  # noqa: BLE001 - the wall: a bug refuses, it never releases
            fault = ServerFault("internal error", operator_detail=f"{type(err).__name__} while deciding a release")
            fault.__cause__ = err
            return _denied(trail, fault)

    def _decide(self, plugin: Plugin, request: PluginRequest, token: str, trail: _Trail) -> Decided[bytes]:
        accepted = self._acceptor.accept(token)  # 2
        trail.attestation = accepted.attestation
        trail.key = accepted.tee_key.thumbprint
        policy = self._policies.active(PolicyKind.RESOURCE, RESOURCE_POLICY_ID)
        trail.policy, trail.policy_name = policy.digest, policy.origin
        self._authorize(policy, accepted, request, trail)  # 3
        answer = plugin.handle(request)  # 4
        sealed = jwe.seal(accepted.tee_key, answer.payload.reveal(), allow_rsa1_5=self._allow_rsa1_5)  # 5
        event = ReleaseGranted(
            decision=trail.decision,
            plugin=trail.plugin,
            path=trail.path,
            version=answer.version,
            attestation=trail.attestation,
            policy=policy.digest,
            policy_name=policy.origin,
            key=accepted.tee_key.thumbprint,
            peer=trail.peer,
        )
        return Decided((event,), sealed)  # 6

    def _guest_plugin(self, method: str, target: Target) -> Plugin:
        plugin = self._plugins.get(target.plugin)
        if plugin is None:
            raise PluginNotFound(f"Plugin {target.plugin} not found")
        guards = plugin.guards()
        guard = guards.get(method)
        if guard is None or guard.access is not Access.TOKEN:
            raise MethodNotAllowed(f"{method} is not allowed here", allow=tuple(sorted(guards)))
        return plugin

    def _authorize(self, policy: Policy, accepted: AcceptedToken, request: PluginRequest, trail: _Trail) -> None:
        asked = {"plugin": trail.plugin, "resource-path": list(request.segments), "query": dict(request.query)}
        if self._engine.authorize(policy, accepted.claims_json, asked) is True:
            return
        with suppress(Exception):  # a no that cannot be explained stays a no
            trail.findings = self._engine.explain_authorization(policy, accepted.claims_json, asked)
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
        policy=trail.policy,
        policy_name=trail.policy_name,
        findings=tuple(asdict(finding) for finding in trail.findings),
        key=trail.key,
        peer=trail.peer,
    )
    return Decided((event,), err)
