"""Request targets: how a guest's path is decoded, and the one spelling an admin path may have.

Guests get what the protocol promises: the path is decoded once, as a whole. Admin paths are never decoded: the string
that is authorised is the string that is dispatched, so anything that could be spelt in two ways is refused.

Source: KBS protocol 1.2; threat model P-RULE-2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from kbs.errors import MalformedMessage, RouteNotFound

PREFIX: Final = "/kbs/v0/"
_MAX_QUERY_PAIRS: Final = 1000  # the head's limit would allow tens of thousands, all of them policy input

# RFC 3986 pchar without percent-encoding and without ";", which some servers read as parameters.
_ADMIN_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*")
_ADMIN_ROUTE: Final = re.compile(r"[a-z0-9._-]+")  # first segment: routes and plugins are lower case


@dataclass(frozen=True, slots=True)
class Target:
    """A decoded target below `/kbs/v0/`.

    plugin: the endpoint's or plugin's name, possibly one that nobody has, possibly empty.
    segments: the rest of the path; may hold empty strings.
    query: the last value of each key.
    """

    plugin: str
    segments: tuple[str, ...]
    query: Mapping[str, str] = field(default_factory=dict)

    def collapsed(self) -> Target:
        """Without one leading empty segment: an attester CLI of the field asks for `resource//repo/type/tag`."""
        if len(self.segments) > 1 and self.segments[0] == "":
            return Target(self.plugin, self.segments[1:], self.query)
        return self


def split_target(raw_target: str) -> Target:
    """Decode a guest's request target in origin form.

    The path is percent-decoded once as a whole, `%2F` included, and then split; malformed escapes stay as they are,
    invalid UTF-8 becomes U+FFFD. The query is form-decoded.

    Args:
        raw_target: path and query as received, one character per octet (ISO 8859-1), as WSGI's `RAW_URI` has them.

    Raises:
        RouteNotFound: not below `/kbs/v0/`.
        MalformedMessage: a character that is no octet, or more than 1000 query pairs.
    """
    if not raw_target.startswith(PREFIX):
        raise RouteNotFound("no such path")
    path, _, query = raw_target.removeprefix(PREFIX).partition("?")
    plugin, *segments = _percent_decode(path).split("/")
    return Target(plugin, tuple(segments), _form_decode(query) if query else {})


def canonical_admin_path(raw_path: str) -> Target:
    """Split an admin path (no query) that has only one spelling.

    Raises:
        MalformedMessage: the path does not normalise to itself: any percent-encoding, empty or dot segments, `;`,
            backslash, query, control or non-ASCII characters, upper case in prefix or first segment.
        RouteNotFound: not below `/kbs/v0/`.
    """
    if not _ADMIN_PATH.fullmatch(raw_path):
        raise MalformedMessage("the path is not in canonical form")
    segments = raw_path.split("/")[1:]
    if any(segment in ("", ".", "..") for segment in segments):
        raise MalformedMessage("the path has an empty or dot segment")
    if not raw_path.startswith(PREFIX):
        if raw_path.lower().startswith(PREFIX):
            raise MalformedMessage("the path is not in canonical form")
        raise RouteNotFound("no such path")
    _, _, plugin, *rest = segments
    if not _ADMIN_ROUTE.fullmatch(plugin):
        raise MalformedMessage("the path is not in canonical form")
    return Target(plugin, tuple(rest))


def _percent_decode(text: str) -> str:
    if "%" not in text and text.isascii():
        return text
    try:
        octets = text.encode("latin-1")
    except UnicodeEncodeError:
        raise MalformedMessage("the request target holds characters that are no octets") from None
    return unquote_to_bytes(octets).decode("utf-8", "replace")


def _form_decode(query: str) -> dict[str, str]:
    if query.count("&") >= _MAX_QUERY_PAIRS:
        raise MalformedMessage(f"more than {_MAX_QUERY_PAIRS} query parameters")
    pairs = (pair.partition("=") for pair in query.replace("+", " ").split("&") if pair)
    return {_percent_decode(key): _percent_decode(value) for key, _, value in pairs}
