"""`make image`: build the image with whichever of buildah, podman and docker is here; its ingredients come beside it.

`python3 -m image --base IMAGE@sha256:… --extras "pkcs11 vault aws"`. Times in the image are those of the commit, so
that the same commit gives the same layers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAME: Final = "ghcr.io/confidential-key-broker/kbs"
BUILDERS: Final = ("buildah", "podman", "docker")
_OUT: Final = Path("build/image")


@dataclass(frozen=True, slots=True)
class Commit:
    """Where the sources come from. moment: seconds since 1970."""

    revision: str
    moment: int


def version() -> str:
    """Of the package."""
    return str(tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def commit() -> Commit:
    """The one that is checked out; `unknown` of 1970 outside a checkout."""
    try:
        revision, moment = _git("show", "--no-patch", "--format=%H %ct", "HEAD").split()
        changed = bool(_git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return Commit("unknown", 0)
    return Commit(f"{revision}-changed" if changed else revision, int(moment))


def command(builder: str, arguments: Mapping[str, str], options: Sequence[str]) -> list[str]:
    """How a builder is called.

    Args:
        builder: the name of one of `BUILDERS`.
        arguments: of the Containerfile; `SOURCE_DATE_EPOCH` is among them.
        options: further ones, the same for all builders.
    """
    given = [part for name, value in sorted(arguments.items()) for part in ("--build-arg", f"{name}={value}")]
    ignored = [] if builder == "docker" else ["--ignorefile", ".containerignore", "--layers"]
    times = [] if builder == "docker" else ["--timestamp", arguments["SOURCE_DATE_EPOCH"]]
    return [builder, "build", *ignored, *times, "--file", "Containerfile", *given, *options, "."]


def main() -> None:
    """Build, and say what was built."""
    found = next((name for name in BUILDERS if shutil.which(name)), None)
    parser = argparse.ArgumentParser(
        prog="python3 -m image", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    parser.add_argument("--builder", choices=BUILDERS, default=found)
    parser.add_argument("--base", help="image with Python of glibc, by digest; that of the Containerfile if not given")
    parser.add_argument(
        "--extras", help="of pyproject.toml, separated by spaces; those of the Containerfile if not given"
    )
    parser.add_argument("--name", default=f"{NAME}:{version()}")
    parser.add_argument(
        "--opa", type=Path, default=Path(".venv/opa/opa"), help="to compile policies with; left out if absent"
    )
    parser.add_argument("rest", nargs="*", help="after `--`: further options of the builder")
    options = parser.parse_args()
    if options.builder is None:
        sys.exit(f"error: none of {', '.join(BUILDERS)} is here; install one, e.g. apt-get install buildah")
    if options.base and "@sha256:" not in options.base:
        sys.exit("error: --base is an image by digest, IMAGE@sha256:…: a tag is another image tomorrow")
    _put_opa(options.opa)
    source = commit()
    arguments = {"VERSION": version(), "REVISION": source.revision, "SOURCE_DATE_EPOCH": str(source.moment)}
    arguments |= {name: value for name, value in (("BASE_IMAGE", options.base), ("EXTRAS", options.extras)) if value}
    sbom = _OUT / f"kbs-{version()}.cdx.json"
    for targeted in (["--tag", options.name], ["--target", "sbom", "--output", f"type=local,dest={_OUT}"]):
        done = subprocess.run(command(options.builder, arguments, [*options.rest, *targeted]), check=False)
        if done.returncode:
            sys.exit(f"error: {options.builder} could not build it; its messages are above")
    (_OUT / "kbs.cdx.json").replace(sbom)
    print(f"built {options.name}\n  ingredients  {sbom}\nnext: {options.builder} push {options.name}")


def _put_opa(opa: Path) -> None:
    _OUT.mkdir(parents=True, exist_ok=True)
    target = _OUT / "opa"
    target.unlink(missing_ok=True)
    if os.access(opa, os.X_OK):
        shutil.copy2(opa, target)
    else:
        print(
            "without opa: policies of your own cannot be compiled in this image (`make opa` gets it)", file=sys.stderr
        )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
