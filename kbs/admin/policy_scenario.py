"""A policy with one input to try it on, in one JSON document: what the playground saves and `kbs policy eval` reads.

    {"kbs-policy-scenario": 1, "kind": "evidence" | "resource", "policy": text, "input": object,
     "reference_values": object, "reference_sets": [object],
     "request": {"plugin": text, "resource-path": [text], "query": object, "identity": {"kubernetes": object}}}

The last three may be left out. Nothing in it is trusted: it may come from anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from kbs import strict_json
from kbs.errors import MalformedMessage, PayloadTooLarge
from kbs.policy.engine import PolicyKind
from kbs.policy.lint.pods import POD_MEMBERS
from kbs.strict_json import Json

FORMAT: Final = 1
LIMITS: Final = strict_json.Limits(size=4 << 20, tokens=200_000)
ANY_REQUEST: Final[Mapping[str, Json]] = MappingProxyType(
    {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {}}
)
"""What is asked for where nobody says."""
_VERSION: Final = "kbs-policy-scenario"
_MEMBERS: Final = frozenset({_VERSION, "kind", "policy", "input", "reference_values", "reference_sets", "request"})
_MOST_OF_SETS: Final = 8 << 20  # octets; a policy finds each set under every name that it states


@dataclass(frozen=True, slots=True)
class Scenario:
    """claims: the input document. values, sets: reference values and compound sets of them, for evidence. request: for
    a resource."""

    kind: PolicyKind
    policy: str
    claims: Mapping[str, Json] = field(repr=False)
    values: Mapping[str, Json] = field(default_factory=dict, repr=False)
    request: Mapping[str, Json] = field(default_factory=lambda: dict(ANY_REQUEST))
    sets: Sequence[Mapping[str, Json]] = field(default=(), repr=False)

    def encoded(self) -> bytes:
        """The document, indented for people."""
        document = {
            _VERSION: FORMAT,
            "kind": self.kind.value,
            "policy": self.policy,
            "input": dict(self.claims),
            "reference_values": dict(self.values),
            "reference_sets": [dict(each) for each in self.sets],
            "request": dict(self.request),
        }
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def read_scenario(raw: bytes) -> Scenario:
    """Decode a document.

    Raises:
        PayloadTooLarge: more than 4 MiB. MalformedMessage: no such document; the text says which member is at fault.
    """
    document = strict_json.decode(raw, limits=LIMITS)
    if not isinstance(document, dict) or document.get(_VERSION) != FORMAT:
        raise MalformedMessage(f"this is no document of the playground: member {_VERSION} is not {FORMAT}")
    if unknown := document.keys() - _MEMBERS:
        raise MalformedMessage(f"the document has the unknown member {sorted(unknown)[0][:64]!r}")
    policy = document.get("policy")
    if not isinstance(policy, str):
        raise MalformedMessage("member policy is missing or not a text")
    return Scenario(
        kind_of(document.get("kind")),
        policy,
        object_in(document, "input"),
        object_in(document, "reference_values", {}),
        request_of(object_in(document, "request", {})),
        sets_of(document.get("reference_sets", [])),
    )


def kind_of(found: Any) -> PolicyKind:
    """
    Raises:
        MalformedMessage: neither kind.
    """
    try:
        return PolicyKind(str(found))
    except ValueError:
        raise MalformedMessage("member kind is neither evidence nor resource") from None


def object_in(document: Mapping[str, Any], name: str, absent: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A member that is an object.

    Raises:
        MalformedMessage: it is none, or is missing where nothing stands for it.
    """
    found = document.get(name, absent)
    if not isinstance(found, dict):
        raise MalformedMessage(f"member {name} is missing or not an object")
    return found


def sets_of(found: Any) -> Sequence[Mapping[str, Any]]:
    """Compound sets of reference values, each an object name → value.

    Raises:
        MalformedMessage: another form. PayloadTooLarge: more than policies could be given.
    """
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise MalformedMessage("member reference_sets is not a list of objects")
    if sum(len(each) * len(strict_json.encode(each)) for each in found) > _MOST_OF_SETS:
        raise PayloadTooLarge("the compound sets are too large: every set counts once for each name in it")
    return tuple(found)


def request_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a resource policy is told was asked for; members that are not given are those of `ANY_REQUEST`.

    Raises:
        MalformedMessage: another form.
    """
    if unknown := given.keys() - {*ANY_REQUEST, "identity"}:
        raise MalformedMessage(f"member request has the unknown member {sorted(unknown)[0][:64]!r}")
    request = {**ANY_REQUEST, **given}
    path = request["resource-path"]
    if not isinstance(path, list) or not all(isinstance(part, str) for part in path):
        raise MalformedMessage("member resource-path of the request is not a list of texts")
    if not isinstance(request["plugin"], str) or not isinstance(request["query"], dict):
        raise MalformedMessage("members plugin and query of the request are a text and an object")
    if "identity" in request:
        _check_identity(request["identity"])
    return request


def _check_identity(identity: Any) -> None:
    """What a Pod's token would say (docs/pod-identity.md)."""
    pod = identity.get("kubernetes", {}) if isinstance(identity, dict) and identity.keys() <= {"kubernetes"} else None
    if not isinstance(pod, dict) or not all(isinstance(value, str) for value in pod.values()):
        raise MalformedMessage('member identity of the request is not {"kubernetes": object of texts}')
    if unknown := pod.keys() - POD_MEMBERS:
        raise MalformedMessage(f"the identity has the unknown member {sorted(unknown)[0][:64]!r}")
