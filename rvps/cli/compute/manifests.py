"""`rvps compute rim | corim`: values out of manifests that vendors publish."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click
from cryptography import x509

from rvps.cli.compute.artifacts import FILE, read_small, told
from rvps.cli.compute.output import Output, emit, output_options
from rvps.clock import system_clock
from rvps.compute import corim as corim_values
from rvps.compute import gpu_rim
from rvps.errors import StatementUnacceptable
from rvps.intake.swid import SIGNED_SWID
from rvps.manifests import cose
from rvps.manifests.corim import MAX_MANIFEST
from rvps.publishers.model import Publisher, Publishers, Trust, gather
from rvps.value_set import Artifact, ValueSet

_NAMES: Final = click.Choice(["own", "upstream"])
_SHORT: Final = timedelta(days=30)


@click.command("rim")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--root", "root", type=FILE, help="PEM of the vendor's root: check the signature of every document.")
@click.option("--at", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), help="Check as of then, not now; of old documents.")
@click.option("--names", type=_NAMES, default="own", show_default=True, help="What the values are called.")
@output_options("nvidia-gpu")
def rim_command(
    files: Sequence[Path],
    root: Path | None,
    at: datetime | None,
    names: gpu_rim.Names,
    series: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Hashes and versions from RIMs of NVIDIA GPUs: XML files, or answers of the RIM service.

    Give the driver's and the VBIOS's together: they may not contradict each other."""
    if at is not None and root is None:
        raise click.UsageError("--at is about signatures: give --root too")
    with told(
        "give SWID RIM documents as NVIDIA publishes them; --names upstream for those without product or version"
    ):
        documents = [gpu_rim.read(read_small(path, gpu_rim.MAX_FILE)) for path in files]
        found = gpu_rim.values([each.rim for each in documents], names)
        artifacts = tuple(Artifact.from_file(path) for path in files)
    notes = [_UNCHECKED] if root is None else _checked(documents, files, root, at)
    emit(lambda: ValueSet(series, found, artifacts), Output(as_json, out), notes)


_UNCHECKED: Final = "the signature was not checked: whoever signs these values vouches for them; --root checks it"


def _checked(
    documents: Sequence[gpu_rim.Document], files: Sequence[Path], root: Path, at: datetime | None
) -> list[str]:
    """Every signature leads to the root, at that time. Says what will end soon."""
    moment = system_clock() if at is None else at.replace(tzinfo=UTC)
    with told("give the PEM of the vendor's root certificate, from the vendor; --at checks as of an earlier time"):
        vendor = _vendor(root)
        ends = [SIGNED_SWID.verify(each.xml, vendor, moment).expires for each in documents]
    notes = [f"signatures checked as of {moment:%Y-%m-%dT%H:%M:%SZ}"]
    for path, end in zip(files, ends, strict=True):
        if end is not None and end - moment < _SHORT:
            notes.append(f"{path.name}: its signing certificate ends {end:%Y-%m-%dT%H:%M:%SZ}")
    return notes


def _vendor(root: Path) -> Publishers:
    try:
        roots = tuple(x509.load_pem_x509_certificates(read_small(root, 1 << 20)))
    except ValueError as err:
        raise StatementUnacceptable(f"{root.name}: not a file of PEM certificates") from err
    return gather([Publisher("vendor", frozenset({SIGNED_SWID.kind}), (), Trust(roots=roots))])


@click.command("corim")
@click.argument("file", type=FILE)
@click.option("--names", type=_NAMES, default="own", show_default=True, help="What the values are called.")
@output_options("corim")
def corim_command(file: Path, names: str, series: str, as_json: bool, out: Path | None) -> None:
    """Digests, registers and versions from the reference triples of a CoRIM, to be signed by you.

    One that its vendor signed need not be: send it as it is, type `signed-corim`."""
    with told("give a CoRIM (CBOR tag 501, or COSE_Sign1 around one); --names upstream where two names are the same"):
        raw = read_small(file, MAX_MANIFEST)
        manifest = corim_values.read(raw)
        found = corim_values.values(manifest, upstream=names == "upstream")
        artifacts = (Artifact.from_file(file),)
    notes = ["the signature was not checked: whoever signs these values vouches for them"] if cose.is_sign1(raw) else []
    if manifest.valid_until is not None:
        notes.append(f"its rim-validity ends {manifest.valid_until:%Y-%m-%dT%H:%M:%SZ}: sign for no longer")
    emit(lambda: ValueSet(series, found, artifacts), Output(as_json, out), notes)
