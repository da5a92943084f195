"""The build stage: a virtual environment from the lock, our wheel, the final tree, its list of ingredients.

Run by `Containerfile` in the project's folder as root. pip reads its own variables (PIP_INDEX_URL, PIP_NO_INDEX,
PIP_FIND_LINKS), so mirrors and folders of wheels need nothing here. What it makes depends on the base, the lock and the
project alone: no times, no paths of a build, one order.
"""

from __future__ import annotations

import ensurepip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from image import compiled, root

PACKAGES: Final = Path("/opt/kbs")
OUT: Final = Path("/image")
OPA: Final = Path("/opa/opa")
SBOM: Final = "usr/share/sbom/kbs.cdx.json"
TOOLS: Final = ("hatchling", "cyclonedx-python-lib", "setuptools")
_FOREIGN: Final = ("direct_url.json", "REQUESTED", "INSTALLER")  # say how it was built, not what it is
_NOT_RUN: Final = ("kubernetes/aio",)  # its client once more for asyncio, half as large as all the rest
_SOURCES: Final = (".c", ".h")  # nothing here compiles


def main() -> None:
    """Build it, with the arguments of the Containerfile."""
    given = os.environ
    moment = int(given["SOURCE_DATE_EPOCH"])
    given.update(PYTHONHASHSEED="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tools = _environment(work / "tools")
        _unpack_pip(work / "tools")
        _pip(tools, "-r", _lock(work, ["--only", *TOOLS]))
        wheel = _own_wheel(tools, work)
        if (version := wheel.name.split("-")[1]) != given["VERSION"]:
            sys.exit(f"error: the label is to say {given['VERSION']!r}, the package is {version}")
        lock = _lock(work, ["--extras", given["EXTRAS"]])
        with lock.open("a") as file:
            for path in (wheel, *_compiled(tools, work)):
                file.write(f"{path.as_uri()} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
        python = _environment(PACKAGES)
        _pip(tools, "-r", lock, into=python)
        _run(tools, "-m", "pip", "--python", python, "check")
        (packages,) = PACKAGES.glob("lib/python3*/site-packages")
        _clean(packages)
        copied = root.make(OUT, PACKAGES)
        _add_opa()
        _compile()
        (work / "files").write_text(json.dumps([str(path) for path in copied]))
        (OUT / SBOM).parent.mkdir(parents=True)
        _run(
            tools, "-m", "image.sbom", "--packages", packages, "--files", work / "files",
            "--moment", str(moment), "--out", OUT / SBOM,
        )  # fmt: skip
    root.settle(OUT, moment)
    _start()


def _add_opa() -> None:
    """With it, policies of one's own are compiled; shipped ones need none."""
    if OPA.exists():
        target = OUT / "usr/local/bin/opa"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(OPA, target)
        target.chmod(0o755)


def _environment(folder: Path) -> Path:
    """A virtual environment without pip; its Python."""
    venv.create(folder, symlinks=True)
    return folder / "bin/python3"


def _unpack_pip(folder: Path) -> None:
    """From the wheel that comes with Python: `ensurepip` would compile all of it, which takes longer than its work."""
    shipped = [Path(ensurepip.__file__).parent / "_bundled"]
    if elsewhere := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        shipped.insert(0, Path(elsewhere))
    wheel = next(path for place in shipped for path in sorted(place.glob("pip-*.whl")))
    (packages,) = folder.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _lock(work: Path, arguments: Sequence[str]) -> Path:
    path = work / f"lock{len([*work.iterdir()])}"
    path.write_text(_run(sys.executable, "-m", "image.locked", *arguments))
    return path


def _pip(tools: Path, *arguments: str | Path, into: Path | None = None) -> None:
    options = ("--quiet", "--no-compile", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir")
    target = ("--python", into) if into else ()
    _run(tools, "-m", "pip", *target, "install", *options, "--root-user-action", "ignore", *arguments)


def _own_wheel(tools: Path, work: Path) -> Path:
    _run(tools, "-m", "hatchling", "build", "-t", "wheel", "-d", work / "wheel")
    (wheel,) = (work / "wheel").glob("kbs-*.whl")
    return wheel


def _compiled(tools: Path, work: Path) -> Iterable[Path]:
    """The wheel of what comes as source only; none if this base cannot compile, which is the same in every build."""
    if (headers := compiled.headers()) is None:
        print("no headers of Python in this base: HTTP heads are parsed in Python, a little slower")
        return
    yield compiled.wheel(tools, work, headers)


def _clean(packages: Path) -> None:
    """What is never run, what was compiled from, and what differs from build to build."""
    for name in _NOT_RUN:
        shutil.rmtree(packages / name)
    for path in [path for path in packages.rglob("*") if path.suffix in _SOURCES]:
        path.unlink()
    for info in packages.glob("*.dist-info"):
        for name in _FOREIGN:
            (info / name).unlink(missing_ok=True)
        record = info / "RECORD"
        lines = record.read_text().splitlines()
        record.write_text("\n".join(sorted(line for line in lines if _is_kept(line.partition(",")[0]))) + "\n")
    for path in (PACKAGES / "bin").iterdir():
        if path.name not in ("kbs", "rvps") and not path.name.startswith("python"):
            path.unlink()
    for folder in (PACKAGES / "include", PACKAGES / "share"):
        shutil.rmtree(folder, ignore_errors=True)


def _is_kept(name: str) -> bool:
    return not name.endswith((*_FOREIGN, *_SOURCES)) and not name.startswith(tuple(f"{folder}/" for folder in _NOT_RUN))


def _compile() -> None:
    """Every module as bytecode that holds neither times nor build paths, and is not checked again: nobody can write."""
    for folder in sorted(OUT.glob("**/python3*")):
        if folder.is_dir() and not folder.is_symlink():
            _run(
                sys.executable, "-m", "compileall", "-qq", "-f", "-j", "1", "--invalidation-mode", "unchecked-hash",
                "-s", OUT, "-p", "/", "-x", r"/(tests?|lib2to3)/", folder,
            )  # fmt: skip


def _start() -> None:
    """What was made starts where nothing else is."""
    commands = [["kbs", "--help"], ["rvps", "--help"]]
    if [*PACKAGES.glob(f"lib/python3*/site-packages/{compiled.MODULE}")]:
        commands.append(["python3", "-c", f"import {compiled.MODULE}"])
    for program, *arguments in commands:
        subprocess.run(
            [PACKAGES / "bin" / program, *arguments],
            check=True, env={"PYTHONDONTWRITEBYTECODE": "1"}, cwd="/", preexec_fn=lambda: os.chroot(OUT),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


if __name__ == "__main__":
    main()
