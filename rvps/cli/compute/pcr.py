"""`rvps compute pcr`: what a boot leaves in the PCRs of a TPM, from the files that it starts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from rvps.cli.compute.artifacts import FILE, by_name, read_small, told
from rvps.cli.compute.output import Output, emit, output_options
from rvps.cli.compute.progress import hashing
from rvps.cli.connection import Failure
from rvps.compute import pcr, pcr_documents, pe, uki_boot
from rvps.compute.names import PCR_TEES, pcr_name
from rvps.errors import ArtifactUnusable
from rvps.value_set import Artifact, ValueSet

_ALL_PHASES: Final = tuple(":".join(pcr.PHASES[: count + 1]) for count in range(len(pcr.PHASES)))
_NEXT: Final = "see `rvps compute pcr --help` and docs/reference-values/compute-pcr.md"
_FILES: Final = ("uki", "loaders", "addons", "credentials", "global_credentials", "confexts", "global_confexts")


@click.command("pcr")
@click.option(
    "--tee", type=click.Choice(sorted(PCR_TEES)), default="tpm", show_default=True, help="Whose names to use."
)
@click.option("--bank", type=click.Choice(sorted(pcr.BANKS)), help="Default: sha256; for nitro sha384.")
@click.option("--uki", type=FILE, help="Unified kernel image: PCR 4, 9, 11, 12.")
@click.option("--profile", type=click.IntRange(0, 255), default=0, help="Profile of the image.")
@click.option(
    "--phases", multiple=True, help="Boot phases, a:b:c; repeatable. Default: as systemd-measure. none: none."
)
@click.option("--loader", "loaders", type=FILE, multiple=True, help="Started before the image; repeat in their order.")
@click.option("--cmdline", "lines", multiple=True, help="A command line from outside, once for each time measured.")
@click.option("--addon", "addons", type=FILE, multiple=True, help="Addon; global ones first, each group by name.")
@click.option("--credential", "credentials", type=FILE, multiple=True, help="Beside the image.")
@click.option("--global-credential", "global_credentials", type=FILE, multiple=True, help="For all images.")
@click.option("--confext", "confexts", type=FILE, multiple=True, help="Beside the image.")
@click.option("--global-confext", "global_confexts", type=FILE, multiple=True, help="For all images.")
@click.option("--grub-commands", type=FILE, help="Lines as event logs show them, grub_cmd: … : PCR 8.")
@click.option("--grub-file", "grub_files", type=FILE, multiple=True, help="A file GRUB reads, in its order: PCR 9.")
@click.option("--measurements", type=FILE, help="measurements.json of a pod VM image; with --uki also a .pcrsig.")
@click.option("--pcr", "chosen", type=click.IntRange(0, 23), multiple=True, help="Only this PCR; repeatable.")
@output_options("pod-vm")
def pcr_command(series: str, as_json: bool, out: Path | None, chosen: tuple[int, ...], **given: Any) -> None:
    """What a boot leaves in PCRs: from a unified kernel image, from GRUB's files, or from published measurements."""
    sources = [name for name in ("uki", "grub_commands", "grub_files", "measurements") if given[name]]
    if not sources:
        raise click.UsageError("name --uki, --grub-commands, --grub-file or --measurements")
    if given["uki"] is None and (also := [name for name in (*_FILES[1:], "lines") if given[name]]):
        raise click.UsageError(f"without --uki there is no use for {', '.join(also)}")
    if given["uki"] is not None and given["grub_files"]:
        raise click.UsageError("--grub-file and --uki both make PCR 9; compute them one by one")
    bank = given["bank"] or PCR_TEES[given["tee"]]
    notes: list[str] = []
    with told(_NEXT):
        values, events = _values({**given, "chosen": chosen}, bank, notes)
        values = {number: value for number, value in values.items() if not chosen or number in chosen}
        if missing := [number for number in chosen if number not in values]:
            raise Failure(f"PCR {missing[0]} does not come out of these files", _NEXT)
        artifacts = _artifacts(given)
    named = {pcr_name(given["tee"], number): [one.hex() for one in several] for number, several in values.items()}
    output = Output(as_json, out)
    emit(lambda: ValueSet(series, named, artifacts, given["tee"]), output, notes, _details(events))


def _values(given: dict[str, Any], bank: str, notes: list[str]) -> tuple[dict[int, list[bytes]], list[pcr.Event]]:
    values: dict[int, list[bytes]] = {}
    events: list[pcr.Event] = []
    if given["measurements"] is not None and given["uki"] is None:
        values |= pcr_documents.read_values(read_small(given["measurements"]), bank)
    if given["grub_commands"] is not None:
        lines = _lines(given["grub_commands"])
        events += pcr.grub_commands(lines, bank)
    for path in given["grub_files"]:
        (digest,) = _digests(path, bank)
        events.append(pcr.Event(pcr.FILES, digest, f"file {path.name}"))
    if given["uki"] is not None:
        events += _uki(given, bank, notes)
    replayed = pcr.replay(events, bank)
    if clash := values.keys() & replayed.keys():
        raise ArtifactUnusable(f"PCR {min(clash)} comes out of two of these files")
    values |= {number: [value] for number, value in replayed.items()}
    if given["uki"] is not None:
        kernel = [event for event in events if event.pcr == pcr.KERNEL_IMAGE]
        values.setdefault(pcr.KERNEL_CONFIG, [bytes(pcr.BANKS[bank])])
        values[pcr.KERNEL_IMAGE] = _by_phase(kernel, given["phases"] or _ALL_PHASES, bank)
        if given["measurements"] is not None:
            _compare(read_small(given["measurements"]), values, bank)
    return dict(sorted(values.items())), events


def _uki(given: dict[str, Any], bank: str, notes: list[str]) -> list[pcr.Event]:
    with ExitStack() as stack:
        path: Path = given["uki"]
        image = uki_boot.open_image(path.name, stack.enter_context(path.open("rb")), given["profile"])
        addons = [uki_boot.addon(one.name, stack.enter_context(one.open("rb")), bank) for one in given["addons"]]
        companions = uki_boot.Companions(
            given["lines"], tuple(addons), **{name: by_name(given[name]) for name in _FILES[3:]}
        )
        progress = stack.enter_context(hashing(4 * image.layout.file_size, path.name))
        events = uki_boot.image_pcr(image, bank, progress)
        events += uki_boot.parameters(companions, bank)
        if image.version in uki_boot.COMPARED:
            chosen = given["chosen"] or (pcr.BOOT_LOADERS, pcr.FILES)
            loaders = [(one.name, _image_digest(one, bank)) for one in given["loaders"]]
            if pcr.BOOT_LOADERS in chosen:
                events += uki_boot.applications(image, loaders, companions, bank, progress)
            if pcr.FILES in chosen:
                events += uki_boot.kernel_inputs(image, companions, bank, progress)
            if pcr.BOOT_LOADERS in chosen and not loaders:
                notes.append("PCR 4 is that of firmware which starts the image itself; name boot loaders with --loader")
        else:
            notes.append(f"PCR 4 and 9 are left out: not known for systemd-stub {image.version}")
    if not any(event.pcr == pcr.KERNEL_CONFIG for event in events):
        notes.append("PCR 12 is zero: nothing from outside the image")
    return events


def _by_phase(events: list[pcr.Event], phases: tuple[str, ...], bank: str) -> list[bytes]:
    paths = ["" if path == "none" else path for path in phases]
    return [pcr.replay([*events, *pcr.phase_events(path, bank)], bank)[pcr.KERNEL_IMAGE] for path in paths]


def _compare(raw: bytes, values: dict[int, list[bytes]], bank: str) -> None:
    """What was published for the image must be what was computed of it."""
    if pcr_documents.is_signed_policy(raw):
        signed = pcr_documents.read_policies(raw, bank)
        for number in signed.keys() & values.keys():
            if not signed[number] >= {pcr_documents.policy_of(number, one, bank) for one in values[number]}:
                raise ArtifactUnusable(f"PCR {number}: a computed value is none that a signed policy is about")
        if not signed.keys() & values.keys():
            raise ArtifactUnusable("the signed policies are about none of the computed PCRs")
        return
    published = pcr_documents.read_values(raw, bank)
    for number in published.keys() & values.keys():
        if set(published[number]).isdisjoint(values[number]):
            raise ArtifactUnusable(f"PCR {number}: the measurements say another value than the image has")
    for number in published.keys() - values.keys():
        values[number] = published[number]


def _digests(path: Path, bank: str) -> tuple[bytes, ...]:
    with hashing(path.stat().st_size, path.name) as progress:
        return (bytes.fromhex(Artifact.from_file(path, algorithms=(bank,), progress=progress).digest[bank]),)


def _image_digest(path: Path, bank: str) -> bytes:
    with path.open("rb") as file:
        return pe.authenticode(file, pe.read_image(file), (bank,))[bank]


def _lines(path: Path) -> list[str]:
    try:
        return read_small(path, 4 << 20).decode().splitlines()
    except UnicodeDecodeError:
        raise ArtifactUnusable(f"{path.name}: not UTF-8 text") from None


def _artifacts(given: dict[str, Any]) -> tuple[Artifact, ...]:
    single = [given[name] for name in ("uki", "grub_commands", "measurements") if given[name] is not None]
    several = [path for name in ("loaders", "addons", "grub_files", *_FILES[3:]) for path in given[name]]
    return tuple(Artifact.from_file(path) for path in (*single, *several))


def _details(events: list[pcr.Event]) -> Table:
    table = Table("PCR", "event", "digest", box=None)
    for event in events:
        table.add_row(str(event.pcr), event.what, event.digest.hex())
    return table
