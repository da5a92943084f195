"""From policies of before OPA 1.0, and of before reference values had a function, to what is accepted now.

OPA's own formatter rewrites Rego v0. Reading `data.reference`, which upstream filled until November 2025 and which is
empty here, is rewritten only when asked: the meaning stays that of a member that may be absent, which a plain
`query_reference_value` would not keep. It gives null, and OPA orders null below every number, so a minimum that nobody
registered would be met.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kbs.errors import PolicyUnacceptable
from kbs.policy.compile import decode_text, errors_of, opa_message
from kbs.policy.opa_command import TEXT_NAME, OpaCommand, write_modules

REGO_V1: Final = "rego-v1"
REFERENCE_VALUES: Final = "reference-values"
_FUNCTION: Final = "registered"
_HELPER: Final = f"""
# A reference value by name, undefined when nobody registered it.
{_FUNCTION}(name) := value if {{
	value := query_reference_value(name)
	value != null
}}
"""
_TOKENS: Final = re.compile(
    r"""
    (?P<skip> \#[^\n]* | "(?:\\.|[^"\\\n])*" | `[^`]*` )
    | (?<![\w.]) data\.reference (?: \.(?P<name>[A-Za-z_]\w*) | \[(?P<quoted>"(?:\\.|[^"\\\n])*")\] )?
      (?P<beyond> (?![\w]) )
    """,
    re.VERBOSE,
)
_NOT_READ: Final = re.compile(r"^\s*import\b|\bwith\s+$")


@dataclass(frozen=True, slots=True)
class Edit:
    """One kind of change. name: `rego-v1` or `reference-values`. lines: of the new text; empty: the whole of it."""

    name: str
    lines: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """The new text, what was done, and what the author must look at."""

    text: str
    edits: tuple[Edit, ...]
    left: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Members for JSON."""
        return asdict(self)


def migrate(opa: OpaCommand, upload: bytes, *, references: bool = False) -> Migrated:
    """Rewrite one text. Nothing is stored, and nothing said about whether the result would be accepted.

    Args:
        references: rewrite `data.reference` too.

    Raises:
        PolicyUnacceptable: it is Rego of no version, with line and column. PolicyCompilerMissing: no `opa`.
    """
    text = decode_text(upload)
    edits: list[Edit] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_modules(folder, {}, text)
        if opa.run(["parse", "--format", "json", TEXT_NAME], folder).code != 0:
            text = _formatted(opa, folder, ["--v0-v1"])
            write_modules(folder, {}, text)
            text = _formatted(opa, folder, ["--drop-v0-imports"])
            why = "`if` before bodies, `contains` for sets, `:=` for defaults; nothing else changes in what it means"
            edits.append(Edit(REGO_V1, (), why))
    text, lines, left = _references(text, rewrite=references)
    if lines:
        why = (
            f'`data.reference` is empty: {_FUNCTION}("NAME") asks query_reference_value("NAME"), and is undefined for '
            "a value that nobody registered, as the member was"
        )
        edits.append(Edit(REFERENCE_VALUES, lines, why))
    return Migrated(text, tuple(edits), left)


def _formatted(opa: OpaCommand, folder: Path, how: Sequence[str]) -> str:
    done = opa.run(["fmt", *how, TEXT_NAME], folder)
    if done.code == 0 and done.stdout.strip():
        return done.stdout.decode("utf-8", "replace")
    old = opa.run(["parse", "--v0-compatible", "--format", "json", TEXT_NAME], folder)
    if old.code != 0:
        raise PolicyUnacceptable(f"{opa_message(errors_of(old.stdout, old.stderr))}; it is Rego of no version")
    raise PolicyUnacceptable(f"opa cannot rewrite it: {done.stderr.strip()[-300:]}")


def _references(text: str, *, rewrite: bool) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """The text, the lines that changed, and sentences about places that did not."""
    out: list[str] = []
    lines: list[int] = []
    left: list[str] = []
    end = 0
    taken = re.search(rf"\b{_FUNCTION}\b", text) is not None
    for found in _TOKENS.finditer(text):
        if found["skip"] is not None:
            continue
        line = text.count("\n", 0, found.start()) + 1
        before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        name = json.dumps(found["name"]) if found["name"] else found["quoted"]
        if not rewrite:
            left.append(f"line {line}: `{found[0]}` has no value here; --reference-values rewrites it")
        elif taken:
            left.append(f"line {line}: `{found[0]}` was left: the policy has something called `{_FUNCTION}`")
        elif name is None or _NOT_READ.search(before):
            left.append(f"line {line}: `{found[0]}` was left: only reading one value by its name can be rewritten")
        else:
            out += [text[end : found.start()], f"{_FUNCTION}({name})"]
            end = found.end()
            lines.append(line)
    if not lines:
        return text, (), tuple(left)
    return "".join([*out, text[end:].rstrip("\n"), "\n", _HELPER]), tuple(dict.fromkeys(lines)), tuple(left)
