"""The file tree of the final stage: Python, what it loads, our packages, and nothing that starts other programs.

Everything is copied from the build stage by following what the dynamic loader says; no shell, no package manager, no
compiler is ever there to be removed. Whatever the base is, the tree has the same places for Python and its library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

USER: Final = 65532
"""User and group that the image runs as, by number: Kubernetes' runAsNonRoot can check no name."""

_NOT_NEEDED: Final = frozenset(
    {
        "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test",
        "tests", "tkinter", "turtledemo", "venv", "distutils",
    }
)  # fmt: skip
_LOADED_LATER: Final = ("libgcc_s.so.1",)  # glibc asks for it when a thread is cancelled
_PASSWD: Final = f"root:x:0:0:root:/:/nologin\nkbs:x:{USER}:{USER}:kbs:/var/lib/kbs:/nologin\n"
_GROUP: Final = f"root:x:0:\nkbs:x:{USER}:\n"
_NSSWITCH: Final = "passwd: files\ngroup: files\nhosts: files dns\n"
_AUTHORITIES: Final = "etc/ssl/certs/ca-certificates.crt"


def make(root: Path, packages: Path) -> list[Path]:
    """Fill an empty folder.

    Args:
        packages: the virtual environment with the service in it; comes to the same place.

    Returns:
        The files of the base that were copied, for the list of ingredients.

    Raises:
        FileNotFoundError: the loader, or a library that something needs, is not in the base.
    """
    copied = [*_python(root)]
    shutil.copytree(packages, root / packages.relative_to("/"), symlinks=True, ignore=_bytecode)
    for library in _libraries([Path(os.path.realpath(sys.executable)), *_shared_objects(root)]):
        copied += _copy(library, root)
    for name, text in {"etc/passwd": _PASSWD, "etc/group": _GROUP, "etc/nsswitch.conf": _NSSWITCH}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _authorities(root, packages)
    state = root / "var/lib/kbs"
    state.mkdir(parents=True)
    os.chown(state, USER, USER)
    state.chmod(0o700)
    return sorted(set(copied))


def settle(root: Path, moment: int) -> None:
    """Give everything one time and no right to write but its owner's, who is root.

    moment: seconds since 1970.
    """
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink() and path.stat().st_uid == 0:
            path.chmod(path.stat().st_mode & 0o7755)
        os.utime(path, (moment, moment), follow_symlinks=False)
    os.utime(root, (moment, moment))


def _python(root: Path) -> Iterator[Path]:
    yield from _copy(Path(sys.executable), root)  # by the name, too, that the virtual environment links to
    for name in ("stdlib", "platstdlib"):
        library = Path(sysconfig.get_path(name))
        if not (root / library.relative_to("/")).exists():
            shutil.copytree(library, root / library.relative_to("/"), ignore=_ignored)
            yield from (Path("/") / path.relative_to(root) for path in (root / library.relative_to("/")).rglob("*.so"))
            yield library / "os.py"


def _ignored(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _NOT_NEEDED or name.startswith(("config-", "_test")) or name[-2:] == ".a"}


def _bytecode(_: str, names: list[str]) -> set[str]:
    return {"__pycache__"} & set(names)


def _shared_objects(root: Path) -> Iterator[Path]:
    """What Python may load, where it was before it was copied."""
    for path in sorted(root.rglob("*")):
        if re.search(r"\.so(\.[0-9.]+)?$", path.name) and path.is_file() and not path.is_symlink():
            yield Path("/") / path.relative_to(root)


def _loader() -> Path:
    """The dynamic loader of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if re.search(r"/ld-[^/]*\.so\S*$|/ld-\d[^/]*$", line):
            return Path(line.split()[-1])
    raise FileNotFoundError("no dynamic loader of glibc in this base")


def _libraries(programs: Iterable[Path]) -> Iterator[Path]:
    """Every file that the loader would load for these, by the names it looks for."""
    loader = _loader()
    found: set[Path] = set()
    folders: set[Path] = set()
    for program in programs:
        listed = subprocess.run([loader, "--list", program], capture_output=True, text=True, check=False)
        if listed.returncode:
            raise FileNotFoundError(f"what {program} needs is not all in this base: {listed.stderr.strip()}")
        for line in listed.stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            place = (rest if arrow else name).partition(" (")[0]
            if place.startswith("/"):
                found.add(Path(place))
                folders.add(Path(os.path.realpath(place)).parent)
            if arrow and name.startswith("/"):  # the loader, by the name that programs ask the kernel for
                found.add(Path(name))
    later = {folder / name for folder in folders for name in _LOADED_LATER if (folder / name).exists()}
    yield from sorted(found | later)


def _copy(path: Path, root: Path) -> Iterator[Path]:
    """A file, at its real place and under the name that was asked for."""
    real = Path(os.path.realpath(path))
    target = root / real.relative_to("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, target)
        yield real
    named = root / path.relative_to("/")
    if named != target and not named.exists() and not named.is_symlink():
        named.parent.mkdir(parents=True, exist_ok=True)
        if not named.exists():
            named.symlink_to(real)


def _authorities(root: Path, packages: Path) -> None:
    """Those of the certifi package, which the lock pins; a mount over this file replaces them."""
    (bundle,) = packages.glob("lib/python3*/site-packages/certifi/cacert.pem")
    path = root / _AUTHORITIES
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(bundle)
