"""`rvps compute kata`: what a Kata guest is started with, down to the command line that is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from rvps.cli.compute.artifacts import FILE, read_small, told
from rvps.cli.compute.output import write_whole
from rvps.cli.compute.progress import hashing
from rvps.cli.compute.tables import show
from rvps.cli.connection import shown
from rvps.compute import kata, verity
from rvps.errors import ArtifactUnusable
from rvps.value_set import Artifact


@click.command("kata")
@click.option("--kernel", type=FILE, required=True, help="vmlinuz.")
@click.option("--initrd", type=FILE, help="Initial file system; then --cmdline-template is needed.")
@click.option("--image", type=FILE, help="Image of the root file system, with or without a partition table.")
@click.option("--salt", help="Salt of the hash tree, hex; - for none. Default: of the superblock.")
@click.option("--hash-file", type=FILE, help="Hashes with their superblock, as veritysetup writes them.")
@click.option("--verity-params", help="kernel_verity_params that come with the image: compared with it.")
@click.option("--scheme", type=click.Choice(["kernelinit", "initramfs"]), default="kernelinit", show_default=True)
@click.option("--rootfs-type", type=click.Choice(sorted(kata.ROOT_FLAGS)), default="ext4", show_default=True)
@click.option("--cmdline-template", type=FILE, help="File with {root}, {vcpus}, {params}. Default: as Kata 3.30.")
@click.option("--vcpus", type=click.IntRange(1, 4096), default=1, show_default=True, help="nr_cpus of the guest.")
@click.option("--params", default="", help="kernel_params of the runtime's configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the build document and nothing else.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the build document here.")
def kata_command(as_json: bool, out: Path | None, **given: Any) -> None:
    """The command line and the artifacts of a Kata guest, for `rvps compute snp` and `rvps compute tdx`."""
    if (given["initrd"] is None) == (given["image"] is None):
        raise click.UsageError("name --initrd or --image, one of them")
    if given["initrd"] is not None and given["cmdline_template"] is None:
        raise click.UsageError("a guest with --initrd needs a --cmdline-template: what `qemu -append` shows of one")
    if given["image"] is None and any(given[name] is not None for name in ("salt", "hash_file", "verity_params")):
        raise click.UsageError("--salt, --hash-file and --verity-params are about an --image")
    if sum(given[name] is not None for name in ("salt", "hash_file", "verity_params")) > 1:
        raise click.UsageError("give one of --salt, --hash-file and --verity-params")
    with told("see docs/reference-values/compute-kata.md"):
        document = _build(given)
    text = json.dumps(document, sort_keys=True)
    if out is not None:
        write_whole(out, text.encode() + b"\n")
    if as_json:
        if out is None:
            click.echo(text)
    else:
        _show(document)
        if out is not None:
            click.echo(f"Written to {shown(str(out))}. Next: rvps compute snp, rvps compute tdx")
    if given["cmdline_template"] is None:
        click.echo("Note: the command line is that of Kata 3.30; compare it with /proc/cmdline of a guest", err=True)


def _build(given: dict[str, Any]) -> dict[str, Any]:
    image: Path | None = given["image"]
    root, tree = "", None
    if image is not None:
        made, blocks, digest = _tree(image, given)
        root = kata.root_parameters(made, blocks, digest, file_system=given["rootfs_type"], scheme=given["scheme"])
        tree = {"root_hash": digest.hex(), "parameters": kata.verity_parameters(made, blocks, digest)}
    template = kata.TEMPLATE
    if given["cmdline_template"] is not None:
        template = _text(given["cmdline_template"])
    line = kata.kata_command_line(template, root=root, vcpus=given["vcpus"], params=given["params"])
    files = {name: _file(given[name]) for name in ("kernel", "initrd", "image") if given[name] is not None}
    return kata.build(line, given["vcpus"], files, tree)


def _tree(image: Path, given: dict[str, Any]) -> tuple[verity.Verity, int, bytes]:
    claimed: bytes | None = None
    size = image.stat().st_size
    with image.open("rb") as file:
        data, hashes = kata.partitions(file, size)
        if given["verity_params"] is not None:
            made, claimed = verity.read_parameters(given["verity_params"])
        elif given["salt"] is not None:
            made = verity.Verity(b"" if given["salt"] == "-" else verity.hex_of(given["salt"], "salt"))
        elif given["hash_file"] is not None:
            with given["hash_file"].open("rb") as hash_file:
                made = verity.read_superblock(hash_file.read(512))
        elif hashes is not None:
            file.seek(hashes.offset)
            made = verity.read_superblock(file.read(512))
        else:
            raise ArtifactUnusable("verity: no salt: give --salt, --hash-file or --verity-params")
        with hashing(data.size, image.name) as progress:
            digest, blocks = verity.root_hash(file, made, data.offset, data.size, progress)
    if claimed is not None and claimed != digest:
        raise ArtifactUnusable("verity: the image has another root hash than --verity-params say")
    return made, blocks, digest


def _file(path: Path) -> dict[str, str]:
    with hashing(path.stat().st_size, path.name) as progress:
        found = Artifact.from_file(path, algorithms=("sha256", "sha384"), progress=progress)
    return {"name": found.name, **found.digest}


def _text(path: Path) -> str:
    try:
        return read_small(path, 64 << 10).decode()
    except UnicodeDecodeError:
        raise ArtifactUnusable(f"{path.name}: not UTF-8 text") from None


def _show(document: dict[str, Any]) -> None:
    table = Table("artifact", "file", "sha256", box=None)
    for name, file in document["files"].items():
        table.add_row(name, shown(file["name"]), file["sha256"])
    show(table)
    lines = {**document.get("verity", {}), "command line": document["command_line"]}
    for name, value in lines.items():
        click.echo(f"\n{name}: {value}")
