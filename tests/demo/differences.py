"""The places in which the software guest of step 4 may differ from what was approved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

APPROVED: Final[dict[str, Any]] = {
    "svn": ["1"],
    "launch_digest": ["abcde"],
    "major_version": 1,
    "minimum_minor_version": 4,
}
"""Reference values that the software guest meets as it is (attestation-service 2.5)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One claim that is not as approved, and the comparison that has to fail for it, alone.

    member, value: what the guest claims. claim, seen, expected, reference, rule: how `kbs explain` must put it.
    """

    name: str
    member: str
    value: Any
    claim: str
    seen: Any
    expected: Any
    reference: str | None
    rule: str

    @property
    def option(self) -> str:
        """For `--claim`."""
        return f"{self.member}={json.dumps(self.value, separators=(',', ':'))}"


def _version(name: str, major: int, minor: int, reference: str) -> Difference:
    seen = major if name == "major" else minor
    return Difference(
        name=f"platform-{name}",
        member="platform_version",
        value={"major": major, "minor": minor},
        claim=f"sample.platform_version.{name}",
        seen=seen,
        expected=APPROVED[reference],
        reference=reference,
        rule="hardware",
    )


DIFFERENCES: Final = (
    Difference("svn", "svn", "7", "sample.svn", "7", ["1"], "svn", "hardware"),
    Difference(
        *("launch-digest", "launch_digest", "0badc0de", "sample.launch_digest", "0badc0de", ["abcde"]),
        *("launch_digest", "executables"),
    ),
    _version("major", 2, 4, "major_version"),
    _version("minor", 1, 3, "minimum_minor_version"),
    Difference("debug", "debug", True, "sample.debug", True, False, None, "configuration"),
)
