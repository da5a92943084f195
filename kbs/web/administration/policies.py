"""Evidence and resource policies: set, read, history, roll back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kbs.audit.events import RuleChanged
from kbs.audit.gate import Decided
from kbs.clock import Clock
from kbs.errors import MalformedMessage, NameNotAllowed, PolicyMalformed, ResourceNotFound
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.store import RESOURCE_POLICY_ID, Accepted, Change, PolicyStore
from kbs.protocol import base64url
from kbs.web.administration.decode import (
    actor,
    document_response,
    etag,
    expected_version,
    json_object,
    wanted_version,
    warning_headers,
)
from kbs.web.model import Call, HttpResponse

_MAX_REASON = 1000  # characters
_MAX_DIGITS = 16


class PolicyRoutes:
    """Evidence and resource policies."""

    def __init__(self, store: PolicyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def set_evidence(self, call: Call) -> Decided[HttpResponse]:
        """POST attestation-policy {"policy_id", "policy": base64url}."""
        document = json_object(call.request.body)
        policy_id = document.get("policy_id")
        if not isinstance(policy_id, str):
            raise MalformedMessage("member policy_id is missing or not a string")
        return self._set(call, PolicyKind.EVIDENCE, policy_id, document)

    def set_resource(self, call: Call) -> Decided[HttpResponse]:
        """POST resource-policy {"policy": base64url}."""
        return self._set(call, PolicyKind.RESOURCE, RESOURCE_POLICY_ID, json_object(call.request.body))

    def list_resource(self, call: Call) -> Decided[HttpResponse]:
        """GET resource-policy: the ids, as the reference answers."""
        return document_response(call, "resource-policy", [RESOURCE_POLICY_ID])

    def list_all(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/policies."""
        listed = [{"kind": kind.value, **asdict(each)} for kind in PolicyKind for each in self._store.list(kind)]
        return document_response(call, "policies", listed)

    def show(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/policies/<kind>/<id>: text, digest, history."""
        kind, policy_id = policy_kind(call.parameters[0]), call.parameters[1]
        current = self._store.current(kind, policy_id)
        if current is None:
            raise ResourceNotFound(f"there is no {kind} policy {policy_id!r}")
        policy, _ = self._store.past(kind, policy_id, current.version)
        history = [asdict(version) for version in self._store.history(kind, policy_id)]
        document = {**_text_document(policy, policy_id, current.version), "history": history}
        return document_response(call, f"policy {kind.value}/{policy_id}", document, etag(current.version))

    def show_version(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/policies/<kind>/<id>/versions/<n>: a kept version, with its text; 0: the shipped one."""
        kind, policy_id = policy_kind(call.parameters[0]), call.parameters[1]
        number = call.parameters[2]
        if not (number.isascii() and number.isdigit() and len(number) < _MAX_DIGITS):
            raise MalformedMessage("a version is a number")
        policy, version = self._store.past(kind, policy_id, int(number))
        document = {**_text_document(policy, policy_id, version.version), **asdict(version)}
        return document_response(call, f"policy {kind.value}/{policy_id} version {version.version}", document)

    def set_any(self, call: Call) -> Decided[HttpResponse]:
        """PUT admin/policies/<kind>/<id> {"policy": base64url, "tests"?, "reason"?}: of either kind and any scope."""
        kind, policy_id = policy_kind(call.parameters[0]), call.parameters[1]
        return self._set(call, kind, policy_id, json_object(call.request.body))

    def remove(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/policies/<kind>/<id>: a scope, or a class of device, without a policy from now on."""
        kind, policy_id = policy_kind(call.parameters[0]), call.parameters[1]
        change = self._change(call, "")
        version = self._store.remove(kind, policy_id, change, expected=expected_version(call))
        event = RuleChanged(
            decision=call.decision,
            actor=actor(call).name,
            rule=rule_name(kind, policy_id),
            action="remove",
            version=version,
            peer=call.request.peer,
        )
        return Decided((event,), HttpResponse(200, b"", None, etag(version)))

    def roll_back(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policies/<kind>/<id>/rollback {"version": n, "reason"?}."""
        kind, policy_id = policy_kind(call.parameters[0]), call.parameters[1]
        wanted, expected = _version_or_zero(call), expected_version(call)
        reason = reason_of(json_object(call.request.body)) or f"rollback to version {wanted}"
        accepted = self._store.rollback(kind, policy_id, wanted, self._change(call, reason), expected=expected)
        return rule_changed(call, rule_name(kind, policy_id), "rollback", accepted)

    def _set(self, call: Call, kind: PolicyKind, policy_id: str, document: Mapping[str, Any]) -> Decided[HttpResponse]:
        text, tests = policy_text(document.get("policy")), tests_text(document)
        change = self._change(call, reason_of(document))
        accepted = self._store.set(kind, policy_id, text, change, tests=tests, expected=expected_version(call))
        return rule_changed(call, rule_name(kind, policy_id), "set", accepted)

    def _change(self, call: Call, reason: str) -> Change:
        return Change(actor(call).name, self._clock(), reason)


def _text_document(policy: Policy, policy_id: str, version: int) -> dict[str, Any]:
    return {
        "kind": policy.kind.value,
        "id": policy_id,
        "version": version,
        "digest": policy.digest,
        "origin": policy.origin,
        "text": policy.text,
    }


def reason_of(document: Mapping[str, Any]) -> str:
    """Why somebody changes a policy, cut to a length that a record takes."""
    reason = document.get("reason")
    return reason[:_MAX_REASON] if isinstance(reason, str) else ""


def _version_or_zero(call: Call) -> int:
    """`{"version": n}`; 0 names the shipped policy."""
    document = json_object(call.request.body)
    return 0 if document.get("version") == 0 else wanted_version(call)


def tests_text(document: Mapping[str, Any]) -> bytes | None:
    """Rego tests that come with a policy, encoded as it is; None where there are none."""
    return policy_text(document["tests"], "tests") if "tests" in document else None


def policy_text(encoded: Any, member: str = "policy") -> bytes:
    """Undo base64url without padding, in its one form (KBS protocol 7.1)."""
    if not isinstance(encoded, str):
        raise PolicyMalformed(f"Failed to parse policy: member {member} is missing or not a string")
    try:
        text = base64url.decode(encoded)
    except MalformedMessage:
        raise PolicyMalformed(f"Failed to parse policy: member {member} is not base64url without padding") from None
    try:
        text.decode()
    except UnicodeDecodeError as err:
        raise PolicyMalformed(f"Failed to parse policy: it is not UTF-8 at octet {err.start + 1}") from None
    return text


def policy_kind(text: str) -> PolicyKind:
    """
    Raises:
        NameNotAllowed: neither kind.
    """
    try:
        return PolicyKind(text)
    except ValueError:
        raise NameNotAllowed("the kind of a policy is evidence or resource") from None


def rule_name(kind: PolicyKind, policy_id: str) -> str:
    """How records name a policy."""
    if kind is PolicyKind.EVIDENCE:
        return f"attestation-policy/{policy_id}"
    return RESOURCE_POLICY_ID if policy_id == RESOURCE_POLICY_ID else f"{RESOURCE_POLICY_ID}/{policy_id}"


def rule_changed(call: Call, rule: str, action: str, accepted: Accepted) -> Decided[HttpResponse]:
    """The record of a change, and the answer: its version and what its author is warned of."""
    event = RuleChanged(
        decision=call.decision,
        actor=actor(call).name,
        rule=rule,
        action=action,
        digest=accepted.policy.digest,
        version=accepted.version,
        warnings=accepted.warnings,
        peer=call.request.peer,
    )
    headers = (*etag(accepted.version), *warning_headers(accepted.warnings))
    return Decided((event,), HttpResponse(200, b"", None, headers))
