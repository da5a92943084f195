"""Reference values from the RIMs of NVIDIA's GPUs: of firmware (VBIOS) and of drivers, as files, without a network."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rvps.errors import StatementUnacceptable
from rvps.manifests import rim
from rvps.strict_json import NotStrictJson, decode

MAX_FILE: Final = 2 << 20  # bytes: the document once more in base64, inside JSON
Names = Literal["own", "upstream"]

_SERVICE_ID: Final = re.compile(r"NV_(?:GPU_(DRIVER|VBIOS)|SWITCH_(BIOS))_[A-Za-z0-9._]+_([A-Za-z0-9.]+)", re.ASCII)
_LISTS: Final[Mapping[str, str]] = {
    "driver": "allowed_driver_versions",
    "vbios": "allowed_vbios_versions",
    "switch": "allowed_switch_bios_versions",
}
"""Kind of document to the name under which policies look for its version (policies/README.md)."""


@dataclass(frozen=True, slots=True)
class Document:
    """One RIM as it came. xml: the document itself, whose signature nobody has looked at here."""

    rim: rim.Rim
    xml: bytes = field(repr=False)


def read(raw: bytes) -> Document:
    """Read one file: the XML document, or the answer of NVIDIA's RIM service that holds it in base64.

    Raises:
        StatementUnacceptable: neither, a checksum or an id in the answer that does not fit the document, or what
            `rvps.manifests.rim` refuses.

    Source: rvps 12.6.
    """
    if raw.lstrip()[:1] != b"{":
        return Document(rim.read(rim.parse(raw)), raw)
    try:
        answer = decode(raw, max_bytes=MAX_FILE)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"RIM service: {err}") from err
    text, checksum = answer.get("rim"), answer.get("sha256")
    if not isinstance(text, str) or not isinstance(checksum, str):
        raise StatementUnacceptable("RIM service: the answer has no `rim` or no `sha256`")
    try:
        xml = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise StatementUnacceptable("RIM service: `rim` is not base64") from err
    digests = (hashlib.sha256(each).hexdigest() for each in (xml, text.encode()))  # written both ways in the field
    if not any(hmac.compare_digest(digest.encode(), checksum.lower().encode()) for digest in digests):
        raise StatementUnacceptable("RIM service: `sha256` is not that of `rim`")
    found = Document(rim.read(rim.parse(xml)), xml)
    if "id" in answer:
        _check_id(answer["id"], found.rim)
    return found


def _check_id(text: object, document: rim.Rim) -> None:
    """What was asked for is what came: kind and version of the id are those of the document."""
    fits = _SERVICE_ID.fullmatch(text) if isinstance(text, str) else None
    if fits is None:
        raise StatementUnacceptable("RIM service: `id` is not that of a GPU driver, GPU VBIOS or switch BIOS")
    kind = "switch" if fits[2] else fits[1].lower()
    version = document.version or ""
    written = version if kind == "driver" else version.replace(".", "").upper()
    if document.kind != kind or fits[3] != written:
        raise StatementUnacceptable("RIM service: `id` names another kind or version than the document in it")


def values(documents: Sequence[rim.Rim], names: Names = "own") -> dict[str, Any]:
    """Values of documents that are to be trusted side by side: hashes by index, and the lists of versions that policies
    of GPUs look for.

    Raises:
        StatementUnacceptable: a driver and a VBIOS of one product state the same active index, two documents state one
            name, one states nothing, or what `rvps.manifests.rim` refuses.
    """
    _check_indexes(documents)
    found: dict[str, Any] = {}
    for document in documents:
        stated = rim.own_values(document) if names == "own" else rim.upstream_values(document)
        if not stated:
            raise StatementUnacceptable(f"{rim.own_prefix(document)}: no reference values in it")
        if not found.keys().isdisjoint(stated):
            raise StatementUnacceptable(
                f"{rim.own_prefix(document)}: another document states the same names; give each once, and of "
                "upstream's names, which do not tell versions apart, one driver and one VBIOS"
            )
        found |= stated
    for document in documents:
        name = _LISTS.get(document.kind)
        if name is not None and document.version not in found.setdefault(name, []):
            found[name].append(document.version)
    return found


def _check_indexes(documents: Sequence[rim.Rim]) -> None:
    """NVIDIA's verifier compares a GPU with the union of its two documents, which must not disagree."""
    active = [(each.product, each.kind, rim.active(each).keys()) for each in documents]
    for place, (product, kind, indexes) in enumerate(active):
        for other_product, other_kind, other_indexes in active[:place]:
            shared = indexes & other_indexes
            if product == other_product and kind != other_kind and shared:
                raise StatementUnacceptable(
                    f"{product}: {other_kind} and {kind} both state index {min(shared, key=int)} as active"
                )
