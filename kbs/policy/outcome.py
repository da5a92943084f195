"""What a policy's answer means. Both engines read their answers here, so that neither can be the lenient one.

Nothing but a well-formed result is an allow: attestation-service 2.3, column "Recommended".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from kbs import strict_json
from kbs.errors import PolicyBroken
from kbs.policy.engine import EvidenceVerdict, Finding, PolicyKind

# AR4SI trustworthiness claims (draft-ietf-rats-ar4si, section 2.3.4). This layer is below `kbs.attestation`.
TRUST_CLAIM_NAMES: Final = frozenset(
    {
        "instance-identity",
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "runtime-opaque",
        "storage-opaque",
        "sourced-data",
    }
)
NO_ASSERTION: Final[Mapping[str, int]] = MappingProxyType(dict.fromkeys(sorted(TRUST_CLAIM_NAMES), 0))

# Members that an EAR appraisal has already (draft-ietf-rats-ear, section 3.3, and Veraison's): an extension of that
# name would overwrite what the vector says.
_TAKEN_NAMES: Final = frozenset(
    {
        "ear.status",
        "ear.trustworthiness-vector",
        "ear.appraisal-policy-id",
        "ear.appraisal-policy-ids",
        "ear.veraison.annotated-evidence",
        "ear.veraison.policy-claims",
        "ear.veraison.key-attestation",
    }
)
COMPARISONS: Final = frozenset({"in", "equals", "at least", "at most", "all in", "contains"})
"""`data.kbs.checks.by_reference`: those that look up a reference value."""

_DECLARES_TRUST_CLAIMS: Final = re.compile(r"\btrust_claims\b")


REQUEST_MEMBERS: Final = ("plugin", "resource-path", "query", "identity")
"""What a resource policy finds in `data`; `identity` only where a Pod showed a token that verified."""


class _Result(msgspec.Struct, forbid_unknown_fields=True):
    """One member of what `opa_eval` prints."""

    result: Any


_RESULT_SET: Final = msgspec.json.Decoder(list[_Result])


def broken(why: str) -> PolicyBroken:
    """The error of an active policy that did not give a usable answer; `why` is for the operator only."""
    return PolicyBroken("the active policy could not be evaluated", operator_detail=why)


def decode(raw: bytes) -> Any:
    """Take the one result out of what OPA's `opa_eval` prints: `[{"result": …}]`.

    Raises:
        PolicyBroken: no result, several, or bytes that are not such a list.
    """
    try:
        results = _RESULT_SET.decode(raw)
    except msgspec.ValidationError as err:
        raise broken("the policy's result set has an unknown form") from err
    except (ValueError, RecursionError) as err:
        raise broken("the policy's answer is not JSON") from err
    if len(results) != 1:
        raise broken("the policy gave no result or several")
    return results[0].result


def resource_input(token_claims_json: bytes, request: Mapping[str, Any]) -> bytes:
    """The resource wrapper's input document. `token_claims_json`: one JSON object from our own strict encoder."""
    members = {name: request[name] for name in REQUEST_MEMBERS if name in request}
    return b'{"claims":' + token_claims_json + b',"request":' + strict_json.encode(members) + b"}"


def evidence_verdict(answer: Any, policy_text: str) -> EvidenceVerdict:
    """Read the evidence wrapper's `verdict`: `{"trust_claims": …, "extensions": …}`, a rule without value left out.

    Raises:
        PolicyBroken: anything else than integers in -128..127 under the eight names, and extensions with distinct
            names and 32-bit keys.
    """
    if type(answer) is not dict or not answer.keys() <= {"trust_claims", "extensions"}:
        raise broken("the wrapper's answer has an unknown form")
    extensions = _extensions(answer["extensions"]) if "extensions" in answer else {}
    if "trust_claims" not in answer:
        # The word is nowhere in the text: the rule does not exist, rather than having no value for this input.
        if not _DECLARES_TRUST_CLAIMS.search(policy_text):
            return EvidenceVerdict(NO_ASSERTION, extensions)
        raise broken("the rule trust_claims has no value for this input")
    return EvidenceVerdict(_trust_claims(answer["trust_claims"]), extensions)


def _trust_claims(claims: Any) -> dict[str, int]:
    if type(claims) is not dict:
        raise broken("trust_claims is not an object")
    if not claims:
        raise broken("trust_claims is empty: at least one claim must be set")
    for name, value in claims.items():
        if name not in TRUST_CLAIM_NAMES:
            raise broken(f"trust_claims has the unknown claim {name[:64]!r}")
        if type(value) is not int:
            raise broken(f"the trust claim {name!r} is not an integer")
        if not -128 <= value <= 127:
            raise broken(f"the trust claim {name!r} is outside -128..127")
    return claims


def _extensions(entries: Any) -> dict[str, Any]:
    if type(entries) is not list:
        raise broken("extensions is not an array")
    values: dict[str, Any] = {}
    names: set[str] = set()
    keys: set[int] = set()
    for entry in entries:
        if type(entry) is not dict or not entry.keys() >= {"name", "key", "value"}:
            raise broken("an extension is not an object with name, key and value")
        name, key = entry["name"], entry["key"]
        if type(name) is not str or not name or name in _TAKEN_NAMES:
            raise broken("an extension's name is empty, not a string, or a member of the appraisal itself")
        if type(key) is not int or not -(2**31) <= key < 2**31:
            raise broken(f"the key of extension {name[:64]!r} is not a 32-bit integer")
        if name in names or key in keys:
            raise broken(f"the extension {name[:64]!r} has the name or key of another")
        names.add(name)
        keys.add(key)
        if entry["value"] is not None:
            values[name] = entry["value"]
    return values


def allows(answer: Any) -> bool:
    """Read the resource wrapper's `verdict`: True only for `{"allow": true}`; undefined or another type is False.

    Raises:
        PolicyBroken: not an answer of the wrapper at all.
    """
    if type(answer) is not dict or not answer.keys() <= {"allow"}:
        raise broken("the wrapper's answer has an unknown form")
    return answer.get("allow") is True


def findings(answer: Any) -> tuple[Finding, ...]:
    """Read a wrapper's `explanation`. Entries of another form are left out: an explanation decides nothing."""
    entries = answer.get("findings") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return ()
    read = (found for entry in entries if (found := _finding(entry)) is not None)
    # Engines walk objects and sets in different orders.
    return tuple(sorted(read, key=lambda found: (found.rule, found.claim, found.reference or "")))


def _finding(entry: Any) -> Finding | None:
    if not isinstance(entry, dict):
        return None
    rule, claim, reference, ok = entry.get("rule"), entry.get("claim"), entry.get("reference"), entry.get("ok")
    if not (isinstance(rule, str) and isinstance(claim, str) and isinstance(ok, bool)):
        return None
    if reference is not None and not isinstance(reference, str):
        return None
    comparison = entry.get("comparison")
    if not isinstance(comparison, str) or comparison not in COMPARISONS:
        comparison = None
    return Finding(rule, claim, reference, entry.get("seen"), entry.get("expected"), ok, comparison)


ENTRYPOINTS: Final[Mapping[PolicyKind, tuple[str, str]]] = MappingProxyType(
    {
        PolicyKind.EVIDENCE: ("kbs/evidence/verdict", "kbs/evidence/explanation"),
        PolicyKind.RESOURCE: ("kbs/resource/verdict", "kbs/resource/explanation"),
    }
)
"""Verdict and explanation of each wrapper in policies/lib, in the order in which they are compiled."""
