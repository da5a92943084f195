"""What is left out of a token whose evidence does not fit, and in which order.

Policies have seen everything by then: verdicts are made of the whole evidence, and so are decisions on record. A token
has a limit of size, because guests send it in a header; event logs, lists of measured files and the evidence of devices
have none worth the name, and an ordinary firmware log alone can be larger than the limit.

Left out is what says least beside the rest first: what nobody vouches for, then raw octets whose reading stays, then
lists as a whole. Digests of what a list leads to (registers, PCRs) always stay. A member `omitted` of the annotated
evidence names what is missing, so that nobody takes its absence for a statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from kbs.attestation.ear import ANNOTATED_EVIDENCE
from kbs.attestation.model import Json
from kbs.attestation.registered import SOURCE_MEMBER

OMITTED: Final = "omitted"

_Path = tuple[str, ...]
_Step = Callable[[Mapping[str, Any]], dict[str, Any] | None]


def abridgements(claims: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """The claims set of an EAR, each time with less: first as it is, last with everything left out that may be.

    Args:
        claims: of `kbs.attestation.ear.ear_claims`. It is not changed; parts of it are shared with what is yielded.

    Yields:
        Sets in which `ear.veraison.annotated-evidence` of a submodule has a member `omitted`, an object: dotted path of
        what is left out (`[]`: in every entry of a list) → how many entries, or members, were.
    """
    yield claims
    submods: dict[str, Any] = dict(claims["submods"])
    for step in _STEPS:
        is_less = False
        for name, submod in submods.items():
            evidence = step(submod[ANNOTATED_EVIDENCE])
            if evidence is not None:
                submods[name] = {**submod, ANNOTATED_EVIDENCE: evidence}
                is_less = True
        if is_less:
            yield {**claims, "submods": dict(submods)}


def _without(path: _Path, evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The evidence without the member at `path`; None if there is none, or nothing in it."""
    parent = _find(evidence, path[:-1])
    value = parent.get(path[-1])
    if not value:
        return None
    rest = {name: each for name, each in parent.items() if name != path[-1]}
    count = len(value) if isinstance(value, list) else 1
    return _noted(_replaced(evidence, path[:-1], rest), ".".join(path), count)


def _without_octets(path: _Path, evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The evidence without `event` in the entries of the list at `path`."""
    entries = _find(evidence, path[:-1]).get(path[-1])
    if not entries:
        return None
    rest = [{name: each for name, each in entry.items() if name != "event"} for entry in entries]
    return _noted(_replaced(evidence, path, rest), f"{'.'.join(path)}[].event", len(entries))


def _find(evidence: Mapping[str, Any], path: _Path) -> Mapping[str, Any]:
    for name in path:
        found = evidence.get(name)
        evidence = found if isinstance(found, Mapping) else {}
    return evidence


def _replaced(evidence: Mapping[str, Any], path: _Path, value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**evidence, name: _replaced(evidence[name], tuple(rest), value) if rest else value}


def _noted(evidence: dict[str, Any], path: str, count: int) -> dict[str, Any]:
    return {**evidence, OMITTED: {**evidence.get(OMITTED, {}), path: count}}


def _in_claims(drop: Callable[[_Path, Mapping[str, Any]], dict[str, Any] | None], name: str) -> _Step:
    """A step that looks for `name` among the claims of whatever TEE the evidence is of."""

    def step(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
        for tee, claims in evidence.items():
            if isinstance(claims, Mapping) and tee not in _NO_TEES and name in claims:
                return drop((tee, name), evidence)
        return None

    return step


_NO_TEES: Final = frozenset({"runtime_data_claims", "init_data_claims", SOURCE_MEMBER, OMITTED})
_STEPS: Final[tuple[_Step, ...]] = (
    _in_claims(_without, "uefi_event_logs_unverified"),
    _in_claims(_without_octets, "uefi_event_logs"),
    partial(_without, ("runtime_data_claims", "additional-evidence")),  # devices have submodules of their own
    _in_claims(_without, "uefi_event_logs"),
    _in_claims(_without, "ima_log"),
    _in_claims(_without, "runtime_events"),
    partial(_without, ("init_data_claims", "policy.rego")),  # the digest of init data stays
    partial(_without, ("init_data_claims", "agent_policy_claims")),
)
