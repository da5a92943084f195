"""What the image is built from without a registry, and the image itself, built twice at the same time.

The base is Debian's Python, unpacked by mmdebstrap; it and the wheels are kept outside the checkout. `BASE_IMAGE` in
the environment names another base, which buildah then gets.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from image import compiled
from image.__main__ import command, version
from image.build import TOOLS

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ("buildah", "runc", "mmdebstrap")
EXTRAS: Final = "pkcs11 vault"
_BASE: Final = "localhost/base-python:bookworm"
_PACKAGES: Final = "python3,python3-venv,libpython3.11-dev,libstdc++6"  # with headers, without a compiler
_MOMENT: Final = "1700000000"
_STORAGE: Final = 4 << 30  # octets; about half is used


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it is `image`, and starts servers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("image")
            item.add_marker("enable_socket")


class Buildah:
    """buildah with storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._environment = {
            **os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay", "TMPDIR": str(folder),
        }  # fmt: skip
        if subprocess.run(["buildah", *self._options, "info"], env=self._environment, capture_output=True).returncode:
            self._environment["STORAGE_DRIVER"] = "vfs"  # no overlay mounts in here

    def __call__(self, *arguments: str | Path) -> str:
        """Run it; what it printed."""
        done = subprocess.run(
            ["buildah", *self._options, *arguments], env=self._environment, capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, (
            f"buildah {' '.join(map(str, arguments))}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        )
        return done.stdout.strip()

    def inspect(self, image: str) -> dict[str, Any]:
        """What buildah knows of an image."""
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))
        return found

    def remove(self) -> None:
        """Containers and images."""
        self("rm", "--all")
        self("rmi", "--all", "--force")


@pytest.fixture(scope="session")
def programs() -> None:
    """They are here, and we are root: as in CI."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None] + (["root"] if os.geteuid() else [])
    if missing:
        if os.environ.get("REQUIRE_IMAGE") == "1":
            pytest.fail(f"REQUIRE_IMAGE=1, and here is no {', '.join(missing)}")
        pytest.skip(f"needs {', '.join(missing)}; `make test-image` as root gets them")


@pytest.fixture(scope="session")
def cache() -> Path:
    """Outside the checkout; one for all tests that have downloads."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kbs-tests/image"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base(programs: None, cache: Path) -> Path:
    """A tar of Debian 12's Python with its headers and what it needs, without a shell."""
    kept = cache / f"base-{hashlib.sha256(_PACKAGES.encode()).hexdigest()[:16]}.tar"
    if not kept.exists():
        draft = kept.with_suffix(f".{os.getpid()}.tar")
        arguments = ["--quiet", "--variant=extract", f"--include={_PACKAGES}", "bookworm", str(draft)]
        done = subprocess.run(["mmdebstrap", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        draft.rename(kept)
    return kept


@pytest.fixture(scope="session")
def wheels(cache: Path) -> Path:
    """What the locks say that the image and its build need, checked against their hashes; one of it is source."""
    wanted = [
        subprocess.run(
            [sys.executable, "-m", "image.locked", *arguments], cwd=ROOT, check=True, capture_output=True
        ).stdout
        for arguments in (["--extras", EXTRAS], ["--only", *TOOLS])
    ]
    wanted += [(ROOT / compiled.COMPILER).read_bytes(), (ROOT / compiled.SOURCES).read_bytes()]
    kept = cache / f"wheels-{hashlib.sha256(b''.join(wanted)).hexdigest()[:16]}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache) as name:
            draft = Path(name) / "wheels"
            for number, text in enumerate(wanted):
                requirements = Path(name) / f"{number}.txt"
                requirements.write_bytes(text)
                source = text == wanted[-1]
                kind = ["--no-binary", ":all:", "--no-build-isolation"] if source else ["--only-binary", ":all:"]
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind]
                where = ["--python-version", "3.11", "--require-hashes", "-r", str(requirements), "-d", str(draft)]
                subprocess.run([*pip, *where], check=True)
            draft.rename(kept)
    return kept


@pytest.fixture(scope="session")
def buildah(programs: None) -> Iterator[Buildah]:
    """Storage for this run, in memory if there is enough; not below pytest's own folders, which stay."""
    memory = Path("/dev/shm")
    enough = memory.is_dir() and shutil.disk_usage(memory).free > _STORAGE
    folder = Path(tempfile.mkdtemp(prefix="kbs-image-", dir=memory if enough else "/var/tmp"))
    made = Buildah(folder)
    yield made
    made.remove()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def images(buildah: Buildah, request: pytest.FixtureRequest) -> list[str]:
    """Two images of the same sources, by name."""
    named = os.environ.get("BASE_IMAGE")
    arguments = {"VERSION": version(), "REVISION": "0" * 40, "SOURCE_DATE_EPOCH": _MOMENT, "EXTRAS": EXTRAS}
    options: list[str] = []
    if named is None:
        tar, wheels = request.getfixturevalue("base"), request.getfixturevalue("wheels")
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, tar, "/")
        buildah("commit", "--quiet", "--rm", container, _BASE)
        arguments |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
        options = ["--volume", f"{wheels}:/wheels:ro"]
    arguments["BASE_IMAGE"] = named or _BASE

    def build(name: str) -> str:
        # nothing kept between steps: the second build is to do all the work again
        fresh = ["--no-cache", "--layers=false", "--quiet"]
        buildah(*command("buildah", arguments, [*options, *fresh, "--tag", name])[1:])
        return name

    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(build, [f"localhost/kbs:{number}" for number in "12"])]


@pytest.fixture(scope="session")
def configuration(buildah: Buildah, images: list[str]) -> dict[str, Any]:
    """The `config` of the image: User, Entrypoint, Env, Labels …"""
    found: dict[str, Any] = buildah.inspect(images[0])["OCIv1"]["config"]
    return found


@pytest.fixture(scope="session")
def tree(buildah: Buildah, images: list[str]) -> Path:
    """The image's files, mounted; nothing writes there."""
    return Path(buildah("mount", buildah("from", images[0])))
