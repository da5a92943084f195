"""What `kbs appraise` is given: kinds of arguments, and files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from kbs import strict_json
from kbs.attestation.cases import given_endorsements, parse_time
from kbs.attestation.endorsements.bundle import MAX_BUNDLE, BundleInvalid, is_bundle, read_bundle
from kbs.attestation.model import Endorsements, Evidence, Json, Verifier
from kbs.attestation.recorded import items_of
from kbs.attestation.service import guarded
from kbs.errors import EvidenceMalformed, EvidenceRejected, MalformedMessage, PayloadTooLarge
from kbs.protocol.tee import TEE_ALIASES, Tee

LIMITS: Final = strict_json.Limits(size=8 << 20, tokens=2_000_000)


class Hex(click.ParamType[Any]):
    """At least one octet, in hex."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        try:
            octets = bytes.fromhex(value)
        except ValueError:
            self.fail(f"{value!r} is not hex", param, ctx)
        return octets or self.fail("no octets", param, ctx)


class Time(click.ParamType[Any]):
    """An RFC 3339 time with its offset."""

    name = "rfc3339"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return parse_time(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TeeName(click.ParamType[Any]):
    """A TEE as on the wire."""

    name = "tee"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tee:
        try:
            return TEE_ALIASES.get(value) or Tee(value)
        except ValueError:
            self.fail(f"{value!r} is none of {', '.join(Tee)}", param, ctx)


def named(options: tuple[tuple[str, Json], ...]) -> Mapping[str, Json]:
    """Settings of a verifier by name."""
    named = dict(options)
    if len(named) != len(options):
        raise click.UsageError("an option is given twice")
    return named


def body_of(raw: bytes) -> Json:
    """JSON evidence is an object; anything else is a report or quote in its raw form.

    Raises:
        EvidenceMalformed: it begins like an object and is none.
    """
    if not raw.lstrip().startswith(b"{"):
        return raw
    try:
        return strict_json.decode(raw, limits=LIMITS)
    except (MalformedMessage, PayloadTooLarge) as error:
        raise EvidenceMalformed(str(error)) from None


def object_of(path: Path) -> Mapping[str, Json]:
    """A file that holds one JSON object."""
    try:
        value = strict_json.decode(path.read_bytes(), limits=LIMITS)
    except (MalformedMessage, PayloadTooLarge) as error:
        raise click.UsageError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"{path}: not a JSON object")
    return value


def collateral_of(path: Path) -> Mapping[str, Json]:
    """Collateral as the member `endorsements` of a case file has it.

    A file is a bundle of `kbs endorsements export`, or a JSON object: that member, or a bare collateral bundle of
    Intel's libraries. In a folder each file carries the name of its member as the last word before the suffix, so that
    `vcek.der` and `milan.vcek.pem` both are `vcek`.
    """
    if not path.is_dir():
        return _from_file(path)
    given: dict[str, Json] = {}
    for file in sorted(each for each in path.iterdir() if each.is_file()):
        name = file.stem.rpartition(".")[2].lower()
        if name in given:
            raise click.UsageError(f"{path}: more than one file for {name!r}")
        if file.stat().st_size > LIMITS.size:
            raise click.UsageError(f"{file}: too large for collateral")
        given[name] = base64.b64encode(file.read_bytes()).decode("ascii")
    return given


def _from_file(path: Path) -> Mapping[str, Json]:
    with path.open("rb") as file:
        raw = file.read(MAX_BUNDLE + 1)
    if not is_bundle(raw):
        return object_of(path)
    try:
        # Whoever signed it: a verifier checks every item against its vendor's root.
        items = read_bundle(raw, None).items
    except BundleInvalid as error:
        raise click.UsageError(f"{path}: {error}") from None
    return items_of(Endorsements({name: item.data for name, item in items.items()}))


def endorsements_for(verifier: Verifier, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
    """Given collateral as the verifier takes it.

    Raises:
        EvidenceRejected: the evidence is at fault. click.UsageError: what was given beside it is.
    """
    try:
        return guarded(evidence.tee, given_endorsements, verifier, evidence, given)
    except EvidenceRejected as error:
        try:
            guarded(evidence.tee, given_endorsements, verifier, evidence, {})
        except EvidenceRejected as without:
            if (type(without), str(without)) == (type(error), str(error)):
                raise error from None
        raise click.UsageError(f"endorsements: {error}") from None
