"""SWID RIM: reference integrity manifests in XML, as NVIDIA publishes them for GPUs and their drivers.

lxml parses, with entities, document types and the network off; what would need any of them is refused before it parses.

Source: ISO/IEC 19770-2:2015 and the TCG RIM information model, by rvps 4.2 and 12.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lxml import etree

from rvps.errors import StatementUnacceptable

Element = Any
"""An element of lxml, which has no types of its own."""

MAX_DOCUMENT: Final = 1 << 20  # bytes; NVIDIA's have about 20 KiB
MAX_RESOURCES: Final = 4096

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM: Final = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_SHA384: Final = re.compile(r"[0-9A-Fa-f]{96}", re.ASCII)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)
_VBIOS: Final = re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}", re.ASCII)
_DRIVER: Final = re.compile(r"[0-9]{3,4}(\.[0-9]{2,3}){1,2}", re.ASCII)
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,27}", re.ASCII)
_TAG_VERSION: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Resource:
    """One measurement. index and hashes are as written; hashes are Hash0, Hash1 … up to the first that is missing.

    alternatives: how many hashes the document says there are, or None.
    """

    index: str
    is_active: bool
    alternatives: str | None
    hashes: tuple[str, ...]

    @property
    def stated(self) -> tuple[str, ...]:
        """The hashes that are not all zeros: zeros stand where nothing was measured."""
        return tuple(each for each in self.hashes if set(each) != {"0"})


@dataclass(frozen=True, slots=True)
class Rim:
    """One document. version: that of the firmware or driver (`colloquialVersion`). tag_version: revision of the
    document about it, as text."""

    manufacturer: str
    edition: str
    product: str | None
    version: str | None
    tag_version: str | None
    resources: tuple[Resource, ...] = field(repr=False)

    @property
    def kind(self) -> str:
        """`driver`, `vbios` or, of switches and all else, the edition in lower case: the documents do not say, but a
        GPU's VBIOS has five pairs of digits as version, and its driver does not."""
        if self.edition.lower() == "gpu" and self.version is not None:
            if _VBIOS.fullmatch(self.version):
                return "vbios"
            if _DRIVER.fullmatch(self.version):
                return "driver"
        return self.edition.lower()


def parser() -> Any:
    """A parser that follows nothing and expands nothing, for one document."""
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        recover=False,
    )


def parse(data: bytes) -> Element:
    """The root element of an untrusted document.

    Raises:
        StatementUnacceptable: more than `MAX_DOCUMENT` bytes, not UTF-8, with a document type or entity declaration
            anywhere (in a comment too), not well-formed, or nested deeper than libxml2 goes (256).
    """
    if len(data) > MAX_DOCUMENT:
        raise StatementUnacceptable(f"SWID: more than {MAX_DOCUMENT} bytes")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise StatementUnacceptable("SWID: not UTF-8") from err
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise StatementUnacceptable("SWID: a document type or entity declaration, which is not read here")
    try:
        return etree.fromstring(data, parser=parser())
    except (etree.XMLSyntaxError, ValueError) as err:
        raise StatementUnacceptable("SWID: not well-formed XML") from err


def read(root: Element) -> Rim:
    """What a document states: its first Meta, and the measurements of its first Payload.

    Raises:
        StatementUnacceptable: not a SoftwareIdentity, without manufacturer, edition or payload, a measurement without
            index, or too many.

    Source: rvps 4.2.
    """
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise StatementUnacceptable("SWID: the document is no SoftwareIdentity")
    meta, payload = next(root.iter(f"{_SWID}Meta"), None), next(root.iter(f"{_SWID}Payload"), None)
    if meta is None or payload is None:
        raise StatementUnacceptable("SWID: no Meta or no Payload")
    manufacturer, edition = meta.get(f"{_RIM}PlatformManufacturerStr"), meta.get("edition")
    if not manufacturer or not edition:
        raise StatementUnacceptable("SWID: Meta has no PlatformManufacturerStr or no edition")
    resources = tuple(_resource(each) for each in payload.iter(f"{_SWID}Resource") if each.get("type") == "Measurement")
    if len(resources) > MAX_RESOURCES:
        raise StatementUnacceptable(f"SWID: more than {MAX_RESOURCES} measurements")
    return Rim(
        manufacturer=manufacturer,
        edition=edition,
        product=meta.get("product"),
        version=meta.get("colloquialVersion"),
        tag_version=root.get("tagVersion"),
        resources=resources,
    )


def _resource(element: Element) -> Resource:
    index = element.get("index")
    if not index:
        raise StatementUnacceptable("SWID: a measurement has no index")
    hashes: list[str] = []
    while (value := element.get(f"{_HASH}Hash{len(hashes)}")) is not None:
        hashes.append(value)
    return Resource(index, element.get("active") == "True", element.get("alternatives"), tuple(hashes))


def upstream_values(rim: Rim) -> dict[str, Any]:
    """Name to list of hashes as upstream's extractor makes them: `MANUFACTURER.EDITION.measurement_INDEX`, whatever
    product, version or activity.

    Source: rvps 4.2.
    """
    prefix = f"{rim.manufacturer.replace(' ', '_')}.{rim.edition}"
    return {
        f"{prefix}.measurement_{resource.index}".replace("-", "_"): list(resource.stated)
        for resource in rim.resources
        if resource.stated
    }


def own_prefix(rim: Rim) -> str:
    """`MANUFACTURER/PRODUCT/KIND/VERSION`, e.g. `NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C`.

    Raises:
        StatementUnacceptable: a part is missing, or holds characters that would blur where it ends.
    """
    parts = (rim.manufacturer.replace(" ", "_"), rim.product, rim.kind, rim.version)
    if not all(part is not None and _PART.fullmatch(part) for part in parts):
        raise StatementUnacceptable(
            "SWID: manufacturer, product, edition or colloquialVersion is missing, or is not letters, digits and ._+-"
        )
    return "/".join(part for part in parts if part is not None)


def own_values(rim: Rim) -> dict[str, Any]:
    """Name to list of hashes: `own_prefix` and `/measurement_INDEX`. Only what is active counts, as for NVIDIA.

    Raises:
        StatementUnacceptable: two active measurements of one index, one without as many hashes as it says, or a hash
            that is not SHA-384 in hex.
    """
    prefix = own_prefix(rim)
    return {f"{prefix}/measurement_{index}": hashes for index, hashes in active(rim).items()}


def active(rim: Rim) -> Mapping[str, list[str]]:
    """Index to hashes of all active measurements that state any, in lower case.

    Raises:
        StatementUnacceptable: as `own_values`.
    """
    found: dict[str, list[str]] = {}
    for resource in rim.resources:
        if not resource.is_active:
            continue
        if not _INDEX.fullmatch(resource.index) or resource.index in found:
            raise StatementUnacceptable("SWID: an index of an active measurement is no number, or comes twice")
        if resource.alternatives is not None and resource.alternatives != str(len(resource.hashes)):
            raise StatementUnacceptable("SWID: an active measurement has not as many hashes as it says")
        if not all(_SHA384.fullmatch(each) for each in resource.hashes):
            raise StatementUnacceptable("SWID: a hash of an active measurement is not 96 hex digits")
        found[resource.index] = [each.lower() for each in resource.stated]
    return {index: hashes for index, hashes in found.items() if hashes}


def revision(rim: Rim) -> int:
    """One more than the document's `tagVersion`, which rises with every correction (ISO/IEC 19770-2 section 8.6.2).

    Raises:
        StatementUnacceptable: it is no number.
    """
    text = "0" if rim.tag_version is None else rim.tag_version
    if not _TAG_VERSION.fullmatch(text):
        raise StatementUnacceptable("SWID: tagVersion is no number of at most nine digits")
    return 1 + int(text)
