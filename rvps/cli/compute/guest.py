"""`rvps compute se | init-data`: values out of one file each."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from rvps.cli.compute.artifacts import FILE, read_small, told
from rvps.cli.compute.output import Output, emit, output_options
from rvps.compute import init_data, se
from rvps.value_set import Artifact, ValueSet


@click.command("se")
@click.option("--hdr", "--image-header", "header", type=FILE, required=True, help="Header file, or the whole SE image.")
@click.option(
    "--host-key", "host_keys", type=FILE, multiple=True, help="Host-key document of a machine that may answer."
)
@output_options("se-image")
def se_command(header: Path, host_keys: tuple[Path, ...], series: str, as_json: bool, out: Path | None) -> None:
    """What a Secure Execution image shows: its tag, and the host keys that it was made for."""
    with told("give the header of pvextract-hdr, or the image that genprotimg wrote"):
        with header.open("rb") as file:
            found = se.read_header(file)
        hosts = [one.hex() for one in found.host_keys]
        answering = [se.host_key_hash(read_small(path, 1 << 20)).hex() for path in host_keys] or hosts
        artifacts = tuple(Artifact.from_file(path) for path in (header, *host_keys))
    values = {"se_tag": [found.tag.hex()], "se_image_phkh": hosts, "se_attestation_phkh": answering}
    notes = []
    if set(hosts).isdisjoint(answering):
        notes.append("none of the --host-key documents is of a machine that this image was made for")
    details = Table("header", "value", box=None)
    for name in ("pld", "ald", "tld"):
        details.add_row(name, getattr(found, name).hex())
    emit(lambda: ValueSet(series, values, artifacts, "se"), Output(as_json, out), notes, details)


@click.command("init-data")
@click.argument("file", type=FILE)
@click.option("--tee", type=click.Choice(sorted(init_data.FIELDS)), help="Only as this TEE's evidence shows it.")
@output_options("init-data")
def init_data_command(file: Path, tee: str | None, series: str, as_json: bool, out: Path | None) -> None:
    """The digest of an init-data document, and what the evidence of each TEE shows of it."""
    with told("see docs/reference-values/compute-init-data.md for the form of the document"):
        raw = read_small(file, init_data.MAX_DOCUMENT)
        found = init_data.read(raw)
        fits = [one for one in init_data.FIELDS if len(found.digest) == 32 or init_data.FIELDS[one].what != "PCR 8"]
        claims = {one: init_data.claim(one, found.digest) for one in ([tee] if tee else fits)}
        artifacts = (Artifact.from_file(file),)
    told_to_policies = [
        text for one, text in claims.items() if tee or (one != "sample" and init_data.FIELDS[one].is_claimed)
    ]
    notes = []
    if found.version != init_data.KATA_VERSION:
        notes.append(f"Kata starts guests with version {init_data.KATA_VERSION} of the document only")
    if len(fits) < len(init_data.FIELDS) and not tee:
        notes.append("machines with a vTPM cannot take this digest: they need algorithm sha256")
    if tee and not init_data.FIELDS[tee].is_claimed:
        notes.append(f"evidence of {tee} is not compared with init data; its claims do not show them")
    details = Table("TEE", "field", "claim", box=None)
    details.add_row("", f"digest ({found.algorithm})", found.digest.hex())
    for one, text in claims.items():
        details.add_row(one, init_data.FIELDS[one].what, text)
    name = init_data.NAME if tee != "se" else "se_user_data"
    values = {name: sorted(set(told_to_policies))}
    emit(lambda: ValueSet(series, values, artifacts, tee), Output(as_json, out), notes, details)
