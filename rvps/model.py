"""The vocabulary of reference values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """One named value with who vouches for it and until when.

    name: the only key a policy knows, e.g. `snp_launch_measurement`.
    value: any JSON value, delivered to policies as it is (attestation-service 2.5 says which are lists).
    issuer: who stated it, e.g. `admin:alice#3f2c…` (subject and token id) or a publisher's key id.
    statement: id of the statement it came with; all values of one statement appear together or not at all.
    """

    name: str
    value: Any
    issuer: str
    statement: str
    valid_from: datetime
    valid_until: datetime

    def is_valid(self, at: datetime) -> bool:
        """Valid from its first moment, no longer at its last (rvps.md 2.4: invalid after its expiration)."""
        return self.valid_from <= at < self.valid_until


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All values valid at one moment: what one policy evaluation sees.

    version: changes whenever the set of values changes; decisions record it.
    values: name → value; a name not listed is null to a policy.
    encoded: `values` as compact JSON, for an engine to load once per version.
    valid_until: the first moment at which this snapshot no longer holds (a value expires or starts), or None.
    encoded_sets: name → array of the compound sets valid now that state it, each an object name → value; compact JSON
        like `encoded`, and covered by `version` as well.
    """

    version: str
    values: Mapping[str, Any] = field(repr=False)
    encoded: bytes = field(repr=False)
    valid_until: datetime | None
    encoded_sets: bytes = field(default=b"{}", repr=False)
