"""Which of the claims policies look up, and whether they may become reference values.

The table is made of the shipped default policy (policies/lib/cpu.rego). Its constant rows say what evidence must never
have if anything is to be learnt from it: debugging on, migration, a provisional firmware.

Source: attestation-service 2.5; decisions, "Evidence: error or claim?".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from rvps.errors import ArtifactUnusable
from rvps.learn.evidence import Learnt
from rvps.strict_json import decode, encode

NEVER: Final = frozenset({"sample", "sampledevice"})
_MAX_TABLE: Final = 1 << 20
_EMPTY: Final = re.compile("0{16,}|f{16,}|F{16,}", re.ASCII)
# Where zero says that nothing came from outside the image, which is what a value is wanted for.
_MAY_BE_ZERO: Final = frozenset({"nitrotpm_pcr12"})
_KERNEL: Final = "uefi_event_logs[kernel].digests"
_COMMAND_LINE: Final = "uefi_event_logs[command line].digests"
_SGX_FLAGS: Final = "body.attributes.flags[init, not debug]"


@dataclass(frozen=True, slots=True)
class Line:
    """One claim that policies look up. `value`: as the reference value is written; `known`: it is stated already."""

    claim: str
    name: str
    value: Any
    known: bool


@dataclass(frozen=True, slots=True)
class Proposal:
    """What may be learnt. `absent`: claims that policies look up and this evidence does not have."""

    lines: tuple[Line, ...]
    absent: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        return {line.name: line.value for line in self.lines}


def propose(learnt: Learnt, known: Mapping[str, Any] | None = None) -> Proposal:
    """The values of exactly those claims that policies look up by name.

    Args:
        known: values stated already, by name.

    Raises:
        ArtifactUnusable: a TEE whose evidence proves nothing or that no policy knows, a claim that forbids learning, a
            measurement of nothing, or none of the claims.
    """
    if learnt.tee in NEVER:
        raise ArtifactUnusable("the sample TEE proves nothing: its values must never be learnt")
    rows = _rows(learnt)
    claims = _with_derived(learnt)
    for row in rows["fixed"]:
        if not _holds(claims, row):
            raise ArtifactUnusable(f"{_shown(row['claim'])} is not as it must be: nothing is learnt from such evidence")
    lines: dict[str, Line] = {}
    absent = []
    for row in rows["learnt"]:
        found = _at(claims, row["claim"])
        value = _value(found, row)
        if value is None:
            absent.append(_shown(row["claim"]))
            continue
        lines[row["name"]] = Line(_shown(row["claim"]), row["name"], value, _is_known(value, row["name"], known or {}))
    if not lines:
        raise ArtifactUnusable("none of the claims that policies look up is there")
    return Proposal(tuple(lines.values()), tuple(absent))


@cache
def table() -> Mapping[str, Any]:
    """TEE (for nitro with the kind of document) to its rows: `learnt` and `fixed`."""
    raw = files("rvps.learn").joinpath("table.json").read_bytes()
    document: Mapping[str, Any] = decode(raw, max_bytes=_MAX_TABLE)
    return document


def _rows(learnt: Learnt) -> Mapping[str, Any]:
    name = learnt.tee if learnt.tee != "nitro" else f"nitro:{learnt.claims.get('document')}"
    rows = table().get(name)
    if rows is None:
        raise ArtifactUnusable(f"no policy looks up claims of this TEE; there are {', '.join(table())}")
    found: Mapping[str, Any] = rows
    return found


def _with_derived(learnt: Learnt) -> Mapping[str, Any]:
    """The claims with what the policy works out beside them."""
    if learnt.tee == "tdx":
        logs = learnt.claims.get("uefi_event_logs")
        events = [event for event in logs if isinstance(event, dict)] if isinstance(logs, list) else []
        kernel = [event for event in events if _is_kernel(event)]
        lines = [event for event in events if _is_command_line(event)]
        return {**learnt.claims, _KERNEL: _digests(kernel), _COMMAND_LINE: _digests(lines)}
    if learnt.tee == "sgx":
        flags = _at(learnt.claims, ["body", "attributes.flags"])
        return {**learnt.claims, _SGX_FLAGS: isinstance(flags, str) and flags[1:2] in ("1", "5", "9", "d")}
    return learnt.claims


def _is_kernel(event: Mapping[str, Any]) -> bool:
    paths = _at(event, ["details", "device_paths"])
    is_image = event.get("type_name") == "EV_EFI_BOOT_SERVICES_APPLICATION"
    return is_image and isinstance(paths, list) and "File(kernel)" in paths


def _is_command_line(event: Mapping[str, Any]) -> bool:
    is_tag = event.get("type_name") == "EV_EVENT_TAG"
    return is_tag and _at(event, ["details", "string"]) == "LOADED_IMAGE::LoadOptions"


def _digests(events: Sequence[Mapping[str, Any]]) -> list[Any]:
    listed = (event.get("digests") for event in events)
    return [one["digest"] for each in listed if isinstance(each, list) for one in each if isinstance(one, dict)]


def _at(claims: Any, path: str | Sequence[str]) -> Any:
    for name in [path] if isinstance(path, str) else path:
        if not isinstance(claims, Mapping):
            return None
        claims = claims.get(name)
    return claims


def _holds(claims: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    seen, wanted = _at(claims, row["claim"]), row["value"]
    if seen is None:
        return False
    if row["waiver"] is not None and claims.get(row["waiver"]) is True:
        return True
    if row["compare"] == "begins":
        return isinstance(seen, str) and seen.startswith(wanted)
    return encode(seen) in [encode(one) for one in (wanted if row["compare"] == "one of" else [wanted])]


def _value(found: Any, row: Mapping[str, Any]) -> Any:
    """As the reference value is written; None: there is nothing to learn."""
    if found is None:
        return None
    if row["compare"] == "contains":
        if not isinstance(found, list) or len({encode(one) for one in found}) != 1:
            return None
        found = found[0]
    if row["name"] not in _MAY_BE_ZERO and _is_of_nothing(found):
        raise ArtifactUnusable(f"{_shown(row['claim'])} measures nothing (all zero or all ones): never learnt")
    return [found] if row["compare"] == "in" else found


def _is_of_nothing(value: Any) -> bool:
    if isinstance(value, list):
        return not value
    if not isinstance(value, str):
        return False
    if not value or _EMPTY.fullmatch(value):
        return True
    try:
        raw = base64.b64decode(value, validate=True) if len(value) >= 24 else b"\1\2"  # 16 bytes and more
    except (binascii.Error, ValueError):
        return False
    return raw.count(raw[:1]) == len(raw) and raw[:1] in (b"\0", b"\xff")


def _is_known(value: Any, name: str, known: Mapping[str, Any]) -> bool:
    if name not in known:
        return False
    stated = known[name]
    if isinstance(value, list) and isinstance(stated, list):
        return {encode(one) for one in value} <= {encode(one) for one in stated}
    return encode(value) == encode(stated)


def _shown(claim: str | Sequence[str]) -> str:
    return claim if isinstance(claim, str) else ".".join(claim)
