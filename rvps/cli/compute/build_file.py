"""`--build FILE` of `rvps compute snp` and `tdx`: kernel, initrd and command line as `rvps compute kata` wrote them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from rvps.cli.compute.artifacts import read_small
from rvps.cli.compute.inputs import hash_artifact
from rvps.errors import ArtifactUnusable
from rvps.strict_json import NotStrictJson, decode

_MAX_BUILD: Final = 1 << 20  # bytes
_MAX_VCPUS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Build:
    """What a guest boots; the files are those that the build was made of. vcpus: the most that the guest may get."""

    kernel: Path
    initrd: Path | None
    command_line: str
    vcpus: int


def read_build(path: Path, *, kernel: Path | None, initrd: Path | None) -> Build:
    """The build in a document, with its files.

    Args:
        kernel, initrd: where they lie; else beside the document, under the names that it gives.

    Raises:
        ArtifactUnusable: no such document, or a file that is not the one it was made of.
        OSError: a file does not read.
    """
    try:
        document = decode(read_small(path, _MAX_BUILD), max_bytes=_MAX_BUILD)
    except NotStrictJson as err:
        raise ArtifactUnusable(f"{path.name}: {err}") from err
    if not isinstance(document, dict) or document.get("kind") != "kata":
        raise ArtifactUnusable(f"{path.name}: not what `rvps compute kata -o` writes")
    line, vcpus, files = document.get("command_line"), document.get("vcpus"), document.get("files")
    if not isinstance(line, str) or type(vcpus) is not int or not 0 < vcpus < _MAX_VCPUS or not isinstance(files, dict):
        raise ArtifactUnusable(f"{path.name}: `command_line`, `vcpus` or `files` is missing or of another type")
    found = _file(path, "kernel", files.get("kernel"), kernel)
    if initrd is not None and "initrd" not in files:
        raise ArtifactUnusable(f"{path.name}: the build has no initrd")
    first = _file(path, "initrd", files["initrd"], initrd) if "initrd" in files else None
    return Build(found, first, line, vcpus)


def take_build(options: dict[str, Any], path: Path, line: str) -> Build:
    """Put a build into the options `kernel`, `initrd` and `line`, and return it.

    Raises:
        UsageError: the command line is given beside the build.
        ArtifactUnusable, OSError: as `read_build`.
    """
    if options[line] is not None:
        raise click.UsageError(f"--{line} stands in the --build: leave it out")
    build = read_build(path, kernel=options["kernel"], initrd=options["initrd"])
    options.update({"kernel": build.kernel, "initrd": build.initrd, line: build.command_line})
    return build


def _file(build: Path, what: str, said: object, given: Path | None) -> Path:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str) or not isinstance(said.get("sha256"), str):
        raise ArtifactUnusable(f"{build.name}: {what}: name and sha256 are missing")
    name = said["name"]
    if given is None and (name != Path(name).name or not name):
        raise ArtifactUnusable(f"{build.name}: {what}: its name is a path; say where it is with --{what}")
    path = build.with_name(name) if given is None else given
    digests, _, _ = hash_artifact(path, ("sha256",))
    if not hmac.compare_digest(digests["sha256"].hex().encode(), said["sha256"].encode()):
        raise ArtifactUnusable(f"{path.name}: not the {what} that the build was made of")
    return path
