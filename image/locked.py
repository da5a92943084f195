"""The part of requirements.lock that some packages need, hashes and all: what is not needed is not in the image.

pip-compile writes under each package which others asked for it (`# via`); read backwards, that is what each one needs.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NEVER: Final = frozenset({"dev", "fast", "image"})  # for developers; the image has it anyway; its compiler
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Pinned:
    """One package of a lock file. asked_by: packages that need it. text: its lines, without comments."""

    name: str
    asked_by: frozenset[str]
    text: str


def canonical(name: str) -> str:
    """As in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> dict[str, Pinned]:
    """Every package of a lock file by its canonical name.

    Raises:
        ValueError: a line that is no pin, hash or comment.
    """
    found: dict[str, Pinned] = {}
    lines: list[str] = []
    asked_by: set[str] = set()
    name = ""

    def finish() -> None:
        if name:
            found[name] = Pinned(name, frozenset(asked_by), "\n".join(lines).rstrip(" \\") + "\n")

    for line in text.splitlines():
        if not line.strip():
            continue
        if line.lstrip().startswith("#"):
            word = line.strip(" #").removeprefix("via").strip()
            match = _NAME.match(word)
            if name and match:
                asked_by.add(canonical(match[0]))
        elif line.startswith("    --hash=sha256:"):
            lines.append(line)
        elif match := re.match(rf"({_NAME.pattern})(\[[^]]*\])?==", line):
            finish()
            name, lines, asked_by = canonical(match[1]), [line], set()
        else:
            raise ValueError(f"no pin: {line[:80]!r}")
    finish()
    return found


def needed(lock: Mapping[str, Pinned], roots: Iterable[str]) -> list[Pinned]:
    """What these packages need, themselves included, in the order of the lock.

    Raises:
        ValueError: a root that is not in the lock.
    """
    wanted = {canonical(root) for root in roots}
    missing = sorted(wanted - set(lock))
    if missing:
        raise ValueError(f"not in the lock: {', '.join(missing)}")
    while more := {name for name, pin in lock.items() if pin.asked_by & wanted} - wanted:
        wanted |= more
    return [pin for name, pin in lock.items() if name in wanted]


def roots_of(pyproject: Path, extras: Sequence[str]) -> list[str]:
    """What a project declares that it needs, with these extras.

    Raises:
        ValueError: an extra that it does not have, or that no image gets.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    offered = {name: texts for name, texts in project["optional-dependencies"].items() if name not in _NEVER}
    unknown = sorted(set(extras) - set(offered))
    if unknown:
        raise ValueError(f"no extra {', '.join(unknown)}: there are {', '.join(sorted(offered))}")
    texts = [*project["dependencies"], *(text for extra in extras for text in offered[extra])]
    return [match[0] for text in texts if (match := _NAME.match(text))]


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="", help="of pyproject.toml, separated by spaces")
    parser.add_argument("--only", nargs="*", help="these packages and what they need, in place of the project's")
    options = parser.parse_args()
    try:
        roots = options.only or roots_of(Path("pyproject.toml"), options.extras.split())
        pins = needed(read_lock(Path("requirements.lock").read_text(encoding="utf-8")), roots)
    except ValueError as err:
        sys.exit(f"error: {err}")
    sys.stdout.write("".join(pin.text for pin in pins))


if __name__ == "__main__":
    main()
