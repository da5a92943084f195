"""Tools for policy authors over HTTP: lint a text, evaluate one. They change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kbs.admin.policy_evaluation import evaluate
from kbs.audit.gate import Decided
from kbs.errors import MalformedMessage, PolicyBroken
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyEngine, PolicyKind
from kbs.policy.library import sha256_hex
from kbs.policy.store import RESOURCE_POLICY_ID, PolicyStore
from kbs.web.administration.decode import document_response, json_object
from kbs.web.administration.policies import policy_text
from kbs.web.model import Call, HttpResponse

_ANY_ID: Final = {PolicyKind.EVIDENCE: "default_cpu", PolicyKind.RESOURCE: RESOURCE_POLICY_ID}
_REQUEST: Final = {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {}}


class PolicyToolRoutes:
    """Lint and evaluation of texts that nobody has set."""

    def __init__(self, policies: PolicyStore, compiler: Compiler, engine: PolicyEngine) -> None:
        self._policies = policies
        self._compiler = compiler
        self._engine = engine

    def lint(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/lint {"kind", "policy": base64url}: findings, errors first."""
        document = json_object(call.request.body)
        kind, text = _kind(document), policy_text(document.get("policy"))
        findings = [each.document() for each in self._compiler.lint(kind, text)]
        digest = sha256_hex(text)
        answer = {"kind": kind.value, "digest": digest, "findings": findings}
        return document_response(call, f"policy-tools/lint {digest}", answer)

    def evaluate(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/policy-tools/eval {"kind", "policy": base64url, "input", "reference_values"?, "request"?}.

        A policy that gives no proper answer for the input is no fault of the broker here: `error` says which.
        """
        document = json_object(call.request.body)
        kind, text = _kind(document), policy_text(document.get("policy"))
        claims, values = _object(document, "input"), _object(document, "reference_values", {})
        request = _request(_object(document, "request", {}))
        policy, _, warnings = self._policies.check(kind, _ANY_ID[kind], text)
        answer: dict[str, Any]
        try:
            answer = evaluate(self._engine, policy, claims, values, request)
        except PolicyBroken as err:
            answer = {"kind": kind.value, "policy": policy.digest, "error": err.operator_detail or str(err)}
        return document_response(call, f"policy-tools/eval {policy.digest}", {**answer, "warnings": list(warnings)})


def _kind(document: Mapping[str, Any]) -> PolicyKind:
    try:
        return PolicyKind(str(document.get("kind")))
    except ValueError:
        raise MalformedMessage("member kind is neither evidence nor resource") from None


def _object(document: Mapping[str, Any], name: str, absent: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    found = document.get(name, absent)
    if not isinstance(found, dict):
        raise MalformedMessage(f"member {name} is missing or not an object")
    return found


def _request(given: Mapping[str, Any]) -> Mapping[str, Any]:
    if unknown := given.keys() - _REQUEST.keys():
        raise MalformedMessage(f"member request has the unknown member {sorted(unknown)[0][:64]!r}")
    request = {**_REQUEST, **given}
    path = request["resource-path"]
    if not isinstance(path, list) or not all(isinstance(part, str) for part in path):
        raise MalformedMessage("member resource-path of the request is not a list of texts")
    if not isinstance(request["plugin"], str) or not isinstance(request["query"], dict):
        raise MalformedMessage("members plugin and query of the request are a text and an object")
    return request
