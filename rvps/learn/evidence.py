"""Reading what a first trusted evidence said: the claims that a verifier made of it.

Forms: what `kbs appraise --json` prints, the record of a decision (`kbs appraise --save`), or the bare claims of a TEE.
Nothing here verifies anything: whoever names the file says that the machine was the one meant.

Source: docs/reference-values/learn.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rvps.errors import ArtifactUnusable
from rvps.strict_json import NotStrictJson, decode

MAX_DOCUMENT: Final = 16 << 20  # bytes; event logs make claims long
_SUBMODULE: Final = "cpu0"


@dataclass(frozen=True, slots=True)
class Learnt:
    """Claims of one TEE. `doubts`: what the document does not show, for people."""

    tee: str
    claims: Mapping[str, Any] = field(repr=False)
    doubts: tuple[str, ...] = ()


def read(raw: bytes, tee: str | None = None) -> Learnt:
    """The claims in a document.

    Args:
        tee: which TEE bare claims are of; for the other forms, what it has to be.

    Raises:
        ArtifactUnusable: no such document, evidence that was refused, another TEE than `tee`, no claims.
    """
    try:
        document = decode(raw, max_bytes=MAX_DOCUMENT)
    except NotStrictJson as err:
        raise ArtifactUnusable(f"no decision and no claims: {err}") from err
    if not isinstance(document, dict):
        raise ArtifactUnusable("no decision and no claims: not a JSON object")
    if document.get("authentic") is False:
        raise ArtifactUnusable("the evidence was refused: nothing can be learnt from it")
    if "submods" in document:
        found = _appraised(document)
    elif "expect" in document:
        found = _recorded(document)
    else:
        found = _bare(document, tee)
    if tee is not None and found.tee != tee:
        raise ArtifactUnusable(f"the evidence is of {found.tee[:32]}, not of {tee}")
    if not found.claims:
        raise ArtifactUnusable("there are no claims in it")
    return found


def _appraised(document: Mapping[str, Any]) -> Learnt:
    if document.get("authentic") is not True:
        raise ArtifactUnusable("the evidence was refused: nothing can be learnt from it")
    submods = document["submods"]
    cpu = submods.get(_SUBMODULE) if isinstance(submods, dict) else None
    if not isinstance(cpu, dict) or not isinstance(cpu.get("claims"), dict):
        raise ArtifactUnusable("the appraisal has no claims of a CPU TEE")
    others = len(submods) - 1
    doubts = (f"claims of {others} devices beside the CPU are not learnt",) if others else ()
    return Learnt(_text(document.get("tee")), cpu["claims"], (*_doubts(cpu["claims"]), *doubts))


def _recorded(document: Mapping[str, Any]) -> Learnt:
    expect = document["expect"]
    if not isinstance(expect, dict) or expect.get("authentic") is not True:
        raise ArtifactUnusable("the decision on record is a refusal: nothing can be learnt from it")
    if not isinstance(expect.get("claims"), dict):
        raise ArtifactUnusable("the decision on record has no claims, or those of several submodules")
    return Learnt(_text(document.get("tee")), expect["claims"], _doubts(expect["claims"]))


def _bare(document: Mapping[str, Any], tee: str | None) -> Learnt:
    if tee is None:
        raise ArtifactUnusable("bare claims do not say of which TEE they are: name it with --tee")
    claims = document.get(tee, document)
    if not isinstance(claims, dict):
        raise ArtifactUnusable("there are no claims in it")
    return Learnt(tee, claims, ("bare claims: nothing shows that a verifier made them", *_doubts(claims)))


def _doubts(claims: Mapping[str, Any]) -> tuple[str, ...]:
    doubts = []
    if claims.get("binding") != "checked":
        doubts.append("the evidence was not bound to a challenge: it may be an old one, or of another machine")
    if claims.get("revocation") == "not_checked":
        doubts.append("whether its certificates are revoked was not checked")
    return tuple(doubts)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 64:
        raise ArtifactUnusable("the document does not name a TEE")
    return value
