"""The part of Go's text functions that policies use: verbs of `fmt`, `time.ParseDuration`, replacing with `regexp`.

Forms whose result would not surely be Go's are refused rather than approximated. Patterns run in RE2, whose time is
linear in the text.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final

import re2

MAX_RESULT: Final = 1 << 20  # characters of one answer
MAX_PATTERN: Final = 4096  # characters


class FormNotOffered(Exception):
    """A form of the function that is not offered."""


# --- fmt --------------------------------------------------------------------------------------------------------------


def sprintf(form: str, values: list[Any]) -> str:
    """Format as OPA's sprintf, for the verbs s, d, v, t, q and x without flags and widths.

    Raises:
        FormNotOffered: other verbs, flags, widths, counts that differ, or a value of a type its verb is not for.
    """
    rest = iter(values)
    parts: list[str] = []
    at = 0
    while (start := form.find("%", at)) >= 0:
        parts.append(form[at:start])
        verb = form[start + 1 : start + 2]
        at = start + 2
        parts.append("%" if verb == "%" else _verb(verb, rest))
    if next(rest, rest) is not rest:
        raise FormNotOffered("sprintf: more values than verbs")
    parts.append(form[at:])
    text = "".join(parts)
    if len(text) > MAX_RESULT:
        raise FormNotOffered("sprintf: the result is too long")
    return text


def _verb(verb: str, rest: Any) -> str:
    value = next(rest, rest)
    if value is rest:
        raise FormNotOffered("sprintf: more verbs than values")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if verb == "d" and whole:
        return str(value)
    if verb == "v" and isinstance(value, (str, bool, int, type(None))):
        return value if isinstance(value, str) else json.dumps(value)
    if verb == "s" and isinstance(value, (str, bool, type(None))):
        return value if isinstance(value, str) else json.dumps(value)
    if verb == "x" and whole:
        return format(value, "x")
    if verb == "x" and isinstance(value, str):
        return value.encode("utf-8").hex()
    if verb == "q" and isinstance(value, str) and value.isascii() and value.isprintable():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    raise FormNotOffered(f"sprintf: the verb %{verb} is not offered for this value")


# --- time -------------------------------------------------------------------------------------------------------------

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PIECE: Final = re.compile(r"(?:([0-9]{1,19})(?:\.([0-9]{0,19}))?|\.([0-9]{1,19}))(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a Go duration such as `1h15m30.5s`; None if it is none."""
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0
    total = at = 0
    while at < len(body) and (piece := _PIECE.match(body, at)) is not None:
        whole, fraction = int(piece[1] or 0), piece[2] or piece[3] or ""
        unit = _UNITS[piece[4]]
        total += whole * unit + int(fraction or 0) * unit // 10 ** len(fraction)
        at = piece.end()
    return sign * total if body and at == len(body) else None


# --- regexp -----------------------------------------------------------------------------------------------------------

_TEMPLATE: Final = re.compile(r"\$(?:(\$)|\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = 8 << 20
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _matches(pattern: Any, text: Any) -> list[Any] | None:
    """All matches as Go finds them: no empty one right behind another. None for a pattern that does not compile."""
    if not isinstance(pattern, str) or not isinstance(text, str):
        return None
    if len(pattern) > MAX_PATTERN:
        raise FormNotOffered("regex: the pattern is too long")
    compiled = _compiled(pattern)
    if compiled is None:
        return None
    found: list[Any] = []
    end = -1
    for match in compiled.finditer(text):
        if match.start() == match.end() == end:
            continue
        end = match.end()
        found.append(match)
    return found


def regex_find(pattern: Any, text: Any, number: Any) -> list[str] | None:
    """`regex.find_n`: the first `number` matches, all for a negative number."""
    matches = _matches(pattern, text)
    if matches is None or not isinstance(number, int) or isinstance(number, bool):
        return None
    return [match.group() for match in (matches if number < 0 else matches[:number])]


def regex_split(pattern: Any, text: Any) -> list[str] | None:
    """`regex.split`: the parts between matches (Go: `Regexp.Split` with -1)."""
    matches = _matches(pattern, text)
    if matches is None:
        return None
    if pattern and not text:
        return [""]
    parts: list[str] = []
    begin = end = 0
    for match in matches:
        end = match.start()
        if match.end():
            parts.append(text[begin:end])
            begin = match.end()
    if end != len(text):
        parts.append(text[begin:])
    return parts


def regex_replace(text: Any, pattern: Any, replacement: Any) -> str | None:
    """`regex.replace`: every match replaced, `$1` and `${name}` expanded (Go: `Regexp.ReplaceAllString`)."""
    matches = _matches(pattern, text)
    if matches is None or not isinstance(replacement, str):
        return None
    parts: list[str] = []
    at = size = 0
    for match in matches:
        piece = text[at : match.start()] + _expand(replacement, match)
        size += len(piece)
        if size > MAX_RESULT:
            raise FormNotOffered("regex.replace: the result is too long")
        parts.append(piece)
        at = match.end()
    parts.append(text[at:])
    return "".join(parts)


def _expand(template: str, match: Any) -> str:
    names = match.re.groupindex

    def group(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        if name.isdigit():
            number = int(name[:6])
            return (match.group(number) or "") if number <= match.re.groups else ""
        return (match.group(name) or "") if name in names else ""

    return _TEMPLATE.sub(group, template)
