"""Signed messages on their way in: what a verified signature vouches for, and what its content says.

Two types for two levels of trust: only `Intake.verify` makes a `Verified`, and only a `Verified` can be read further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from rvps.messages import MAX_MESSAGE
from rvps.publishers.model import Publisher, Publishers

__all__ = [
    "MAX_MESSAGE",
    "Approval",
    "Artifact",
    "Content",
    "Intake",
    "Revocation",
    "Verified",
]


@dataclass(frozen=True, slots=True)
class Verified:
    """Bytes that a known publisher signed. Nothing in them has been read but what the signature check needed.

    signer: `sha256:<hex>` of the signing key's SubjectPublicKeyInfo, or the identity in its certificate.
    kind: the message type, e.g. `dsse`; one of `publisher.types`.
    content: exactly the bytes under the signature.
    digest: SHA-256 of `content`, lower-case hex; approvals and revocations name a statement by it.
    signed_at: when, if a trusted clock or a signed field says so.
    expires: when the signature itself ends, by its certificates or by what the signer put beside it, if either says.
        `extract` lets no value live longer.
    """

    publisher: Publisher
    signer: str
    kind: str
    content: bytes = field(repr=False)
    digest: str
    signed_at: datetime | None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something that values were computed from. digest: algorithm name as in in-toto (`sha256`) → lower-case hex."""

    name: str
    digest: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Content:
    """A signed set of reference values.

    series, serial: a line of releases of one publisher, and a number from 1 on that rises with each.
    tee: the TEE the values are for, or None for no TEE in particular.
    known_bad: name → values that must not be delivered, whoever states them.
    together: the values match only as a whole (a compound set).
    valid_from, valid_until: None: from arrival on; as long as the publisher may at most.
    """

    series: str
    serial: int
    tee: str | None
    artifacts: tuple[Artifact, ...]
    values: Mapping[str, Any] = field(repr=False)
    known_bad: Mapping[str, tuple[Any, ...]] = field(repr=False)
    together: bool
    valid_from: datetime | None
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class Approval:
    """Consent to one statement. statement: its `Verified.digest`. serial: must equal the statement's if given."""

    statement: str
    serial: int | None


@dataclass(frozen=True, slots=True)
class Revocation:
    """One statement is void from now on. statement: its `Verified.digest`. reason: one printable line for people."""

    statement: str
    reason: str


class Intake(Protocol):
    """One format of signed messages. Pure: no network, no clock. Both methods are safe to call from several threads."""

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:
        """Check the signature and find the one publisher that may send this type; read no content.

        Raises:
            rvps.errors.SignatureRefused: malformed, signed by nobody known, or by one who may not send this type.
        """

    def extract(self, verified: Verified, at: datetime) -> Content | Approval | Revocation:
        """Read what was signed. Names and namespaces are checked by the caller.

        Raises:
            rvps.errors.StatementUnacceptable: content that does not have the form.
        """
