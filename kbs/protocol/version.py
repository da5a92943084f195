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

    V0_4_0 = "0.4.0"


SPOKEN: Final = frozenset({ProtocolVersion.V0_4_0})

_LONGEST: Final = 256  # characters; build metadata has no bound of its own
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,18})"  # fits 64 bits, as the field's parsers ask
_PRE_PART: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER: Final = re.compile(
    rf"(?P<core>{_NUMBER}\.{_NUMBER}\.{_NUMBER})"
    rf"(?P<pre>-{_PRE_PART}(?:\.{_PRE_PART})*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


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
        f"KBS Client Protocol Version Mismatch: expect ={newest} while the request is {said}; "
        f"versions spoken: {', '.join(known) or 'none'}"
    )
