"""`kbs endorsements`: what is remembered, fetched ahead, and carried to sites without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from rich.table import Table
from rich.text import Text

from kbs import config
from kbs.attestation.endorsements.bundle import (
    MAX_BUNDLE,
    BundleInvalid,
    fingerprint_of,
    read_bundle,
    write_bundle,
)
from kbs.attestation.endorsements.contents import NO_END, Contents, read_contents
from kbs.attestation.endorsements.imported import Judged
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.endorsements.wiring import cache_folder, imported_file
from kbs.cli.connection import walled
from kbs.cli.endorsements_prefetch import prefetch_command
from kbs.cli.output import console, done, print_json, printable, warn, write_private
from kbs.clock import system_clock
from kbs.errors import ConfigInvalid, ResourceNotFound
from kbs.tokens.keys import load_signing_key

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DATA: Final = click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Data directory."
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_SOON: Final = timedelta(days=7)
_COLOURS: Final = {"fresh": "green", "due": "cyan", "soon": "yellow", "expired": "bold red", "damaged": "bold red"}


class _Fingerprint(click.ParamType[Any]):
    """SHA-256 in hex, with or without colons and `sha256:`."""

    name = "sha256"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        digits = value.lower().removeprefix("sha256:").replace(":", "")
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            raw = b""
        return raw.hex() if len(raw) == 32 else self.fail(f"{value!r} is no SHA-256 in hex", param, ctx)


@click.group("endorsements", short_help="Vendor collateral: list, prefetch, export, import.")
def endorsements_group() -> None:
    """Vendor collateral: what is remembered, fetched ahead, and carried to sites without a network."""


endorsements_group.add_command(prefetch_command)


@endorsements_group.command("list")
@_DATA
@_JSON
@walled
def list_command(data: Path, as_json: bool) -> None:
    """List what is remembered and imported, with the time that is left of each."""
    now = system_clock()
    rows = [_Row.of(name, item, place, now) for name, item, place in _remembered(data)]
    if as_json:
        print_json([row.document(now) for row in rows])
        return
    if not rows:
        console().print("nothing yet: kbs endorsements prefetch, or kbs endorsements import")
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in ("name", "kind", "from", "expires", "left", "state"):
        table.add_column(column, overflow="fold")
    for row in rows:
        left = Text(countdown(row.item.valid_until, now), style=_COLOURS[row.state])
        expires = Text("never" if row.item.valid_until == NO_END else row.item.valid_until.date().isoformat())
        state = Text(row.state, style=_COLOURS[row.state])
        table.add_row(Text(printable(row.name)), Text(row.kind), Text(row.place), expires, left, state)
    console().print(table)


@endorsements_group.command("export")
@_DATA
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle to write.")
@click.option("--key", type=_FILE, help="Ed25519 private key, PEM. Default: the data directory's audit key.")
@click.option("--prefix", "prefixes", multiple=True, help="Only names that begin so, e.g. intel/; repeatable.")
@click.option("--insecure-unsigned", is_flag=True, help="Do not sign it.")
@_JSON
@walled
def export_command(
    data: Path, out: Path, key: Path | None, prefixes: tuple[str, ...], insecure_unsigned: bool, as_json: bool
) -> None:
    """Write everything that is remembered, and still valid, to one signed file. The same items make the same bytes."""
    if insecure_unsigned and key is not None:
        raise click.UsageError("--key and --insecure-unsigned exclude each other")
    now = system_clock()
    signer = None if insecure_unsigned else _signer(data, key)
    items: dict[str, Obtained] = {}
    for name, item, _ in _remembered(data):
        contents = _contents(name, item)
        if contents is not None and now <= contents.valid_until and name.startswith(prefixes or ("",)):
            items[name] = replace(item, valid_until=min(item.valid_until, contents.valid_until))
    if not items:
        raise ResourceNotFound("nothing to export: kbs endorsements prefetch fills the cache")
    try:
        raw = write_bundle(items, signer)
    except BundleInvalid as err:
        raise ConfigInvalid(f"bundle: {err}") from None
    write_private(out, raw)
    first = min(item.valid_until for item in items.values())
    fingerprint = None if signer is None else fingerprint_of(signer.public_key())
    if as_json:
        print_json(
            {
                "file": str(out),
                "items": len(items),
                "octets": len(raw),
                "expires_first": first.isoformat(),
                "fingerprint": fingerprint,
                "public_key": None if signer is None else _pem(signer.public_key()),
            }
        )
        return
    if fingerprint is None:
        warn("this bundle is not signed: whoever carries it can change it")
    done("wrote", f"{out}: {len(items)} items, {len(raw)} octets; the first expires in {countdown(first, now)}")
    if fingerprint is not None:
        console().print(f"signed by sha256:{fingerprint}")


@endorsements_group.command("import")
@click.argument("bundle", type=_FILE)
@_DATA
@click.option("--key", type=_FILE, help="Public key that must have signed it, PEM.")
@click.option("--fingerprint", type=_Fingerprint(), help="SHA-256 of that key, as export prints it.")
@click.option("--insecure-unsigned", is_flag=True, help="Take it whoever signed it, or nobody.")
@click.option("--all-or-nothing", is_flag=True, help="Take nothing when one item is refused.")
@_JSON
@walled
def import_command(
    bundle: Path,
    data: Path,
    key: Path | None,
    fingerprint: str | None,
    insecure_unsigned: bool,
    all_or_nothing: bool,
    as_json: bool,
) -> None:
    """Take a bundle into the data directory, in one step; a running broker sees it within ten minutes.

    Damaged and expired items, and ones older than what is there, are refused one by one. Exits 0 when none was, else 1.
    """
    if sum((key is not None, fingerprint is not None, insecure_unsigned)) != 1:
        raise click.UsageError("name the signer with --key or --fingerprint (or say --insecure-unsigned)")
    if insecure_unsigned:
        warn("nobody vouches for what this bundle leaves out")
    now = system_clock()
    settings = config.load(data).endorsements
    with bundle.open("rb") as file:
        raw = file.read(MAX_BUNDLE + 1)
    wanted = fingerprint if key is None else fingerprint_of(_public_key(key))
    try:
        found = read_bundle(raw, wanted)
        judged = imported_file(settings, data).take(
            found.items, cache_folder(settings, data).entries(), now, all_or_nothing=all_or_nothing
        )
    except BundleInvalid as err:
        raise ConfigInvalid(f"{bundle}: {err}") from None
    refused = [each for each in judged if each.outcome.is_refusal]
    _show_import(judged, now, kept_out=all_or_nothing and bool(refused), as_json=as_json)
    if refused:
        raise click.exceptions.Exit(1)


def countdown(end: datetime, now: datetime) -> str:
    """The time left, in its two largest units; `-` before the time since an end that has passed."""
    if end == NO_END:
        return "no end"
    seconds = int(abs(end - now).total_seconds())
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    text = f"{days}d {hours}h" if days else f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds % 60}s"
    return text if now <= end else f"-{text}"


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    item: Obtained
    kind: str
    place: str
    state: str

    @classmethod
    def of(cls, name: str, item: Obtained, place: str, now: datetime) -> _Row:
        contents = _contents(name, item)
        if contents is None:
            return cls(name, item, "?", place, "damaged")
        if now > item.valid_until:
            state = "expired"
        elif item.valid_until - now < _SOON:
            state = "soon"
        else:
            state = "due" if now >= item.refresh_at else "fresh"
        return cls(name, item, contents.kind, place, state)

    def document(self, now: datetime) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "from": self.place,
            "state": self.state,
            "refresh_at": self.item.refresh_at.isoformat(),
            "valid_until": self.item.valid_until.isoformat(),
            "seconds_left": int((self.item.valid_until - now).total_seconds()),
            "octets": len(self.item.data),
        }


def _remembered(data: Path) -> list[tuple[str, Obtained, str]]:
    """Everything, by name: of two of one name the one that was issued later."""
    settings = config.load(data).endorsements
    found = {name: (item, "cache") for name, item in cache_folder(settings, data).entries().items()}
    for name, item in imported_file(settings, data).read().items():
        mine, theirs = (None if name not in found else _contents(name, found[name][0])), _contents(name, item)
        if mine is None or (theirs is not None and not theirs.is_older_than(mine)):
            found[name] = (item, "import")
    return [(name, item, place) for name, (item, place) in sorted(found.items())]


def _contents(name: str, item: Obtained) -> Contents | None:
    try:
        return read_contents(name, item.data)
    except ValueError:
        return None


def _signer(data: Path, path: Path | None) -> Ed25519PrivateKey:
    private = load_signing_key(path or data / config.load(data).keys.audit).private
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigInvalid("bundles are signed with Ed25519 keys: the same items then make the same bytes")
    return private


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"{path}: no PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigInvalid(f"{path}: the key of a bundle is Ed25519")
    return key


def _pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _show_import(judged: Sequence[Judged], now: datetime, *, kept_out: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "imported": not kept_out,
                "items": [
                    {
                        "name": each.name,
                        "outcome": each.outcome.value,
                        "valid_until": None if each.contents is None else each.contents.valid_until.isoformat(),
                    }
                    for each in judged
                ],
            }
        )
        return
    out = console()
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in ("name", "outcome", "left"):
        table.add_column(column, overflow="fold")
    for each in judged:
        style = "bold red" if each.outcome.is_refusal else "green"
        left = "" if each.contents is None else countdown(each.contents.valid_until, now)
        table.add_row(Text(printable(each.name)), Text(each.outcome.value, style=style), Text(left))
    out.print(table)
    refused = sum(each.outcome.is_refusal for each in judged)
    if kept_out:
        out.print(f"[bold red]nothing imported[/]: {refused} of {len(judged)} items refused")
    else:
        out.print(f"{len(judged) - refused} of {len(judged)} items are there now")
