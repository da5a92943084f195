"""Protocol versions: what a guest may say, and which are spoken.

Source: KBS protocol 2.2 and 12.5; Semantic Versioning 2.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final

from kbs.errors import UnsupportedVersion


class ProtocolVersion(StrEnum):
    """A version of the guest protocol that is implemented here. Order: oldest first."""

    V0_1_0 = "0.1.0"
    V0_1_1 = "0.1.1"
    V0_2_0 = "0.2.0"
    V0_4_0 = "0.4.0"


SPOKEN: Final = frozenset(ProtocolVersion)
RSA1_5_ONLY: Final = frozenset({ProtocolVersion.V0_1_0, ProtocolVersion.V0_1_1})
"""Versions whose guests have keys for RSAES-PKCS1-v1_5 only, and open answers in the form of that time only."""

_UNRELEASED: Final = "0.3.0"  # existed between two releases: several forms of it, none of them in the field

_LONGEST: Final = 256  # characters; build metadata has no bound of its own
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,18})"  # fits 64 bits, as the field's parsers ask
_PRE_PART: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER: Final = re.compile(
    rf"(?P<core>{_NUMBER}\.{_NUMBER}\.{_NUMBER})"
    rf"(?P<pre>-{_PRE_PART}(?:\.{_PRE_PART})*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


def spoken_from(minimum: str) -> frozenset[ProtocolVersion]:
    """The versions that are spoken where `minimum` is the oldest.

    Raises:
        ValueError: no version of `ProtocolVersion`.
    """
    known = [*ProtocolVersion]
    return frozenset(known[known.index(ProtocolVersion(minimum)) :])


def negotiate(text: str, spoken: Collection[ProtocolVersion] = SPOKEN) -> ProtocolVersion:
    """The spoken version that `text` names. Build metadata is ignored, a pre-release is another version.

    Raises:
        UnsupportedVersion: no semantic version, or one that is not spoken. The text names those that are; guests
            look for its words "KBS Client Protocol Version Mismatch".
    """
    known = [version for version in ProtocolVersion if version in spoken]
    match = _SEMVER.fullmatch(text) if len(text) <= _LONGEST else None
    if match and not match["pre"]:
        for version in known:
            if version.value == match["core"]:
                return version
    said = text if match else "no semantic version (failed to parse KBS version)"
    newest = known[-1].value if known else "none"
    raise UnsupportedVersion(
        f"KBS Client Protocol Version Mismatch: expect ={newest} while the request is {said}{_why_not(match)}; "
        f"versions spoken: {', '.join(known) or 'none'}"
    )


def _why_not(match: re.Match[str] | None) -> str:
    """What can be said about a version beyond that it is not spoken."""
    if match is None or match["pre"]:
        return ""
    if match["core"] == _UNRELEASED:
        return ", which was never released"
    if match["core"] in {version.value for version in ProtocolVersion}:
        return ", which is older than this broker's minimum"
    return ""
