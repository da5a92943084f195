"""`kbs image inspect`: which layers are encrypted, whose key opens them, and what a guest will trip over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from kbs.cli.connection import Place, broker_options
from kbs.cli.image_options import LocationType, image_wall, reading, registry_options
from kbs.cli.output import done, print_json, print_table, warn
from kbs.client.admin import AdminClient
from kbs.client.errors import NotFound
from kbs.images.inspection import ImageReport, LayerReport, PacketReport, PlatformReport, inspect
from kbs.images.kek import KEK_SIZE
from kbs.images.locations import Location
from kbs.images.places import short
from kbs.images.registry_client import RegistryOptions
from kbs.policy.scope import Scopes

_SIGNATURE_POLICY: Final = "security-policy"  # the type in kbs:///default/security-policy/…, guest-components 1.11
_GLOBAL: Final = "resource-policy"


@dataclass(frozen=True, slots=True)
class KekReport:
    """What the broker has under a packet's name. policies: ids of those that guard it."""

    exists: bool
    version: int | None
    bytes: int | None
    policies: tuple[str, ...]
    problems: tuple[str, ...]


@click.command("inspect")
@click.argument("source", type=LocationType())
@registry_options
@broker_options()
@image_wall
def inspect_command(source: Location, registry: RegistryOptions, place: Place, as_json: bool) -> None:
    """Show the layers of SOURCE, their keys and problems.

    With a broker (--url or --data) also whether each KEK exists and which policies guard it; else that is unknown.
    """
    with reading(source, registry) as opened:
        report = inspect(opened)
    asked = place.given or place.data is not None
    keks: Mapping[str, KekReport] = {}
    signed: bool | None = None
    if asked:
        with place.admin() as admin:
            keks = _keks(admin, report)
            signed = any(each.name.split("/")[1:2] == [_SIGNATURE_POLICY] for each in admin.resources())
    general = _general(report, signed)
    if as_json:
        print_json(_document(report, keks if asked else None, general))
    else:
        _show(report, keks if asked else None, general)


def _keks(admin: AdminClient, report: ImageReport) -> dict[str, KekReport]:
    named = {packet.resource for packet in _packets(report) if packet.resource is not None}
    with_text = {each.policy_id for each in admin.policies() if each.kind == "resource"}
    return {path: _kek(admin, path, with_text) for path in sorted(named)}


def _kek(admin: AdminClient, path: str, policies: set[str]) -> KekReport:
    guarding = tuple(each for each in (_GLOBAL, *Scopes().of(path.split("/"))) if each in policies or each == _GLOBAL)
    guarding += tuple(sorted(each for each in policies if each.startswith("tenant:")))
    try:
        found = admin.resource_versions(path)
    except NotFound:
        return KekReport(False, None, None, guarding, ("the broker has no such KEK",))
    size = next((each.meta.get("size", "") for each in found.versions if each.version == found.version), "")
    count = int(size) if size.isdigit() else None
    problems = () if count == KEK_SIZE else (f"what the broker has is no KEK: {size or '?'} bytes, not {KEK_SIZE}",)
    return KekReport(True, found.version, count, guarding, problems)


def _general(report: ImageReport, signed: bool | None) -> list[str]:
    problems = []
    if not any(layer.encrypted for each in report.platforms for layer in each.layers):
        problems.append("nothing in this image is encrypted")
    if signed is False:
        problems.append(
            "no image signature policy at the broker (…/security-policy/…): whoever can push can swap the image for "
            "one that is not encrypted"
        )
    return problems


def _document(report: ImageReport, keks: Mapping[str, KekReport] | None, problems: list[str]) -> dict[str, Any]:
    document = asdict(report)
    for platform in document["platforms"]:
        for layer in platform["layers"]:
            for packet in layer["packets"]:
                found = None if keks is None or packet["resource"] is None else keks[packet["resource"]]
                packet["kek"] = None if found is None else asdict(found)
    return {**document, "broker_asked": keks is not None, "problems": problems}


def _show(report: ImageReport, keks: Mapping[str, KekReport] | None, problems: list[str]) -> None:
    columns = ("platform", "layer", "bytes", "type", "encrypted", "kid", "provider", "wrapped", "KEK", "guarded by")
    print_table(columns, _rows(report, keks), title=f"{report.digest}")
    found = list(_problems(report, keks)) + problems
    for each in dict.fromkeys(found):
        warn(each)
    if not found:
        done("fine", "nothing that a guest would trip over is known")


def _rows(report: ImageReport, keks: Mapping[str, KekReport] | None) -> Iterator[tuple[object, ...]]:
    for platform in report.platforms:
        name = platform.platform or f"no image ({short(platform.digest)})"
        for layer in platform.layers:
            own = (
                name,
                layer.number,
                layer.size,
                layer.media_type.rpartition(".")[2],
                "yes" if layer.encrypted else "no",
            )
            if not layer.packets:
                yield (*own, None, None, None, None, None)
            for packet in layer.packets:
                yield (*own, packet.kid, packet.provider, packet.wrap_type, *_kek_cells(packet, keks))


def _kek_cells(packet: PacketReport, keks: Mapping[str, KekReport] | None) -> tuple[str, str]:
    if packet.resource is None:
        return "cannot be asked for", ""
    if keks is None:
        return "unknown", "unknown"
    found = keks[packet.resource]
    return f"version {found.version}" if found.exists else "missing", ", ".join(found.policies)


def _problems(report: ImageReport, keks: Mapping[str, KekReport] | None) -> Iterator[str]:
    for platform in report.platforms:
        name = platform.platform or short(platform.digest)
        yield from (f"{name}: {each}" for each in platform.problems)
        for layer in platform.layers:
            yield from (f"{name} layer {layer.number}: {each}" for each in _layer_problems(layer, keks))


def _layer_problems(layer: LayerReport, keks: Mapping[str, KekReport] | None) -> Iterator[str]:
    yield from layer.problems
    for packet in layer.packets:
        yield from packet.problems
        if keks is not None and packet.resource is not None:
            yield from (f"{packet.kid}: {each}" for each in keks[packet.resource].problems)


def _packets(report: ImageReport) -> Iterator[PacketReport]:
    platforms: tuple[PlatformReport, ...] = report.platforms
    yield from (packet for platform in platforms for layer in platform.layers for packet in layer.packets)
