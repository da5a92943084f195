"""Init data: the TOML document a guest was started with, its digest, and what policies may read from it.

The digest is what hardware measured; it covers the exact octets of the text. The claims are a convenience derived from
the same text, for policies only. Everything here is the guest's word until a verifier compared the digest with a
measured field.

Source: KBS protocol 3.4; attestation-service 1.5.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import re2
from cryptography.hazmat.primitives import hashes

from kbs import strict_json
from kbs.attestation.model import Json
from kbs.errors import MalformedMessage

FORMAT: Final = "toml"
"""The only `init-data.format` that is spoken."""

MAX_DOCUMENT: Final = 512 << 10
"""Octets. Kubernetes allows 256 KiB for all annotations, so a text this long did not come from a pod."""

_MAX_DEPTH: Final = 48
"""Levels of one derived claim. Tokens put a few around it, and their readers stop at 64."""

_POLICY_DATA: Final = "policy_data := {"

DATA_CLAIM: Final = "agent_policy_claims"
"""What `policy_data` of the agent's policy says. Extracted by its text alone, and a comment would do: the data count
only where the rules are approved too."""

RULES_CLAIM: Final = "agent_policy_rules_sha256"
"""SHA-256, lower-case hex, of the text of the agent's policy before `policy_data`: all of its rules, since what comes
behind is one JSON object to the end of the text. It is there exactly when `DATA_CLAIM` is."""

# The standard library's parser needs quadratic time for keys of many dotted parts: 40 KB keep it busy for 8 s, and
# below a table with a long name each short key costs as much. The search does not know strings from keys; prose and
# code have no such runs.
_DEEP_KEY = re2.compile(r"""(?:(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")


def _sm3(text: bytes) -> bytes:
    digest = hashes.Hash(hashes.SM3())
    digest.update(text)
    return digest.finalize()


ALGORITHMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "sha256": lambda text: hashlib.sha256(text).digest(),
    "sha384": lambda text: hashlib.sha384(text).digest(),
    "sha512": lambda text: hashlib.sha512(text).digest(),
    "sm3": _sm3,
}
"""Digests by the lower-case name that stands in the document; the spellings with a dash are refused."""


@dataclass(frozen=True, slots=True)
class InitData:
    """A parsed document.

    digest: raw, over the exact octets.
    claims: what policies see as `init_data_claims`; shared, never to be changed.
    """

    algorithm: str
    digest: bytes
    claims: Mapping[str, Json] = field(repr=False)


def parse_init_data(body: str, document_format: str = FORMAT) -> InitData:
    """Parse the `init-data` member of an RCAR attestation.

    Members of the document other than `version`, `algorithm` and `data` are measured with the rest and otherwise
    ignored; `version` must be a string and is not compared, as guests of several generations are in use.

    Args:
        body: the document, any text.
        document_format: must be `toml`.

    Raises:
        MalformedMessage: another format, over `MAX_DOCUMENT`, not TOML, a member missing or of the wrong type, or a
            digest algorithm that nobody knows.
    """
    if document_format != FORMAT:
        raise MalformedMessage("init-data: the only format spoken is `toml`")
    if len(body) > MAX_DOCUMENT:
        raise MalformedMessage("init-data: document too long")
    return _parse(body)


@lru_cache(maxsize=16)  # one deployment's pods start with few documents; a text is at most MAX_DOCUMENT
def _parse(body: str) -> InitData:
    try:
        octets = body.encode()
    except UnicodeEncodeError:
        raise MalformedMessage("init-data: not UTF-8 text") from None
    if len(octets) > MAX_DOCUMENT:
        raise MalformedMessage("init-data: document too long")
    try:
        document = _toml(body)
    except ValueError:
        raise MalformedMessage("init-data: not a TOML document") from None
    if not isinstance(document.get("version"), str):
        raise MalformedMessage("init-data: `version` missing or not a string")
    algorithm = document.get("algorithm")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise MalformedMessage(f"init-data: `algorithm` must be one of {', '.join(ALGORITHMS)}")
    data = document.get("data")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise MalformedMessage("init-data: `data` missing or not a table of strings")
    return InitData(algorithm, ALGORITHMS[algorithm](octets), _claims(data))


def _claims(data: Mapping[str, str]) -> Mapping[str, Json]:
    """Derive `init_data_claims`: an entry that has no exact JSON form stays the text it is.

    Entries that are named as what is derived here are left out: their author could say what was never derived.
    """
    claims: dict[str, Json] = {name: text for name, text in data.items() if name not in (DATA_CLAIM, RULES_CLAIM)}
    for name in ("aa.toml", "cdh.toml"):
        if name in data:
            try:
                claims[name] = _json_form(_toml(data[name]), _MAX_DEPTH)
            except ValueError:
                continue
    rules, found, policy_data = data.get("policy.rego", "").partition(_POLICY_DATA)
    if found:
        try:
            parsed = _json_form(strict_json.decode(b"{" + policy_data.encode()), _MAX_DEPTH)
        except (ValueError, MalformedMessage):
            return claims
        del claims["policy.rego"]
        claims[DATA_CLAIM] = parsed
        claims[RULES_CLAIM] = hashlib.sha256(rules.encode()).hexdigest()
    return claims


def _toml(text: str) -> dict[str, Any]:
    """Parse TOML within bounded time; ValueError for whatever is wrong with it."""
    if _DEEP_KEY.search(text):
        raise ValueError("a key has too many parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _json_form(value: Any, depth: int) -> Json:
    """The same value as JSON; ValueError where JSON has no such value: dates, NaN, 64-bit overflow, too deep."""
    kind = type(value)
    if depth == 0:
        raise ValueError("nested too deeply")
    if kind is dict:
        return {name: _json_form(member, depth - 1) for name, member in value.items()}
    if kind is list:
        return [_json_form(member, depth - 1) for member in value]
    if kind is int and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("integer out of range")
    if kind is float and not -1e308 < value < 1e308:
        raise ValueError("not a finite number")
    if value is not None and kind not in (str, bool, int, float):
        raise ValueError("no JSON form")
    return value
