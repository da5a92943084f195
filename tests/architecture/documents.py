"""Reading our own documents: code blocks, tables, links, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "policies/README.md")
DOCUMENTS = sorted([*(ROOT / name for name in _NAMES), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_ENDS = ("&", ";", "|", "&&", "||", ">", "2>", "<", "2>&1")


@dataclass(frozen=True)
class Block:
    """One fenced block. kind: what stands after the fence."""

    kind: str
    text: str


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    return [Block(found[1], found[2]) for found in _FENCE.finditer(text)]


def spans(text: str) -> list[str]:
    """Texts in back quotes outside of blocks."""
    return _SPAN.findall(_FENCE.sub("", text))


def links(text: str) -> list[str]:
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Headings as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(text: str) -> Iterator[list[str]]:
    """Cells of table rows, headers and rules left out."""
    lines = _FENCE.sub("", text).splitlines()
    for index, line in enumerate(lines):
        is_rule = set(line) <= set("|- ")
        is_header = index + 1 < len(lines) and set(lines[index + 1]) <= set("|- ") and lines[index + 1].startswith("|-")
        if line.startswith("|") and not is_rule and not is_header:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def commands(text: str, programs: Sequence[str]) -> list[list[str]]:
    """Words of each command of these programs, in `sh` blocks and in back quotes."""
    lines = [line for block in blocks(text) if block.kind == "sh" for line in block.text.splitlines()]
    lines += [span for span in spans(text) if span.startswith(tuple(f"{program} " for program in programs))]
    found = []
    for line in lines:
        words = shlex.split(line.replace("$(", " ; ").replace(")", " "), comments=True)
        for index, word in enumerate(words):
            if word in programs and (index == 0 or words[index - 1].endswith((";", "|", "do", "until", "&&"))):
                rest = words[index:]
                end = next((place for place, each in enumerate(rest) if each in _ENDS), len(rest))
                found.append([each.removesuffix(";") for each in rest[:end]])
    return found
