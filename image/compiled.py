"""The build stage: what comes as source only, compiled for the base's Python.

The compiler is no part of the base: it is a wheel (Zig's, which is clang with glibc's headers), pinned with hashes like
every other, so the same base gives the same octets on any day, and a base without a compiler will do. Of the base are
Python's headers and the C library that is linked with. No flag is taken from how the base's Python was built.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

MODULE: Final = "gunicorn_h1c"
SOURCES: Final = Path("requirements-fast.lock")
COMPILER: Final = Path("requirements-image.lock")
_GLIBC: Final = "2.28"  # whose headers: none of the pinned wheels runs on an older one
_COMPILE: Final = ("-mcpu=baseline", "-fPIC", "-fwrapv", "-fstack-protector-strong", "-DNDEBUG", "-g0")
_LINK: Final = ("-shared", "--strip-all", "-z", "now", "-z", "relro", "-z", "noexecstack")


def headers() -> Path | None:
    """The folder of Python.h; None: the base has none."""
    folder = Path(sysconfig.get_path("include"))
    return folder if (folder / "Python.h").is_file() else None


def wheel(python: Path, work: Path, headers: Path) -> Path:
    """Compile the one that `SOURCES` names.

    Args:
        python: of an environment with pip and setuptools.
        work: a folder for what is left over; the compiler takes 0.4 GiB there.

    Raises:
        subprocess.CalledProcessError: pip could not get it or its hash is another, or it does not compile.
        FileNotFoundError: this process runs without glibc.
    """
    zig = _compiler(python, work / "compiler")
    environment = {**os.environ, **commands(zig, headers, _libc()), "ZIG_GLOBAL_CACHE_DIR": str(work / "cache")}
    made = work / "compiled"
    source = ("--no-binary", ":all:", "--no-build-isolation")
    _pip(python, "wheel", *source, "--wheel-dir", made, "-r", SOURCES, environment=environment)
    (path,) = made.glob(f"{MODULE}-*.whl")
    return path


def commands(zig: Path, headers: Path, libc: Path) -> Mapping[str, str]:
    """Variables that setuptools reads, in place of what Python was built with."""
    target = f"{platform.machine()}-linux-gnu.{_GLIBC}"
    # Debian's headers ask for others in the folder above; glibc's own there come after those of the compiler
    above = ("-idirafter", str(headers.parent))
    return {
        "CC": " ".join((str(zig), "cc", "-target", target, *_COMPILE, *above)),
        "CFLAGS": "",
        "LDSHARED": " ".join((str(zig), "ld.lld", *_LINK, str(libc))),
        "LDFLAGS": "",
    }


def _compiler(python: Path, folder: Path) -> Path:
    """The program; its wheel is 20 000 files, which pip takes twice as long to install as they take to unpack."""
    _pip(python, "download", "--only-binary", ":all:", "--dest", folder, "-r", COMPILER)
    (packed,) = folder.glob("*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    zig = folder / "ziglang/zig"
    zig.chmod(0o755)
    return zig


def _pip(python: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> None:
    options = ("--quiet", "--no-deps", "--require-hashes", "--no-cache-dir")
    subprocess.run([python, "-m", "pip", *arguments, *options], check=True, env=environment, stdout=subprocess.DEVNULL)


def _libc() -> Path:
    """The C library of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if re.search(r"/libc(-[0-9.]+)?\.so(\.6)?$", line):
            return Path(line.split()[-1])
    raise FileNotFoundError("no C library of glibc in this base")
