"""Who may hand in what: the one way in for messages from every edge of `rvps serve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rvps.client import ReferenceValueProvider
from rvps.clock import Clock
from rvps.errors import StatementUnacceptable
from rvps.extractors import extractor_for
from rvps.intake import INTAKES, signed_form
from rvps.messages import read_payload
from rvps.model import ReferenceValue

ANYBODY: Final = "unsigned"
"""Issuer of what came unsigned from an unknown sender."""


@dataclass(frozen=True, slots=True)
class Reception:
    """Takes a message on when somebody vouches for it: its signer, an authenticated sender, or, with
    `--insecure-unsigned`, nobody at all."""

    provider: ReferenceValueProvider
    clock: Clock
    insecure_unsigned: bool = False

    def receive(self, message: Mapping[str, Any], sender: str | None) -> Sequence[ReferenceValue]:
        """Hand a message to the provider.

        Args:
            sender: the authenticated issuer, or None.

        Raises:
            StatementUnacceptable: nobody vouches for it, or the provider says so; nothing was stored.
            ProviderUnavailable: try later.
        """
        if sender is None and not self.insecure_unsigned:
            _check_signed(message)
        return self.provider.register(message, issuer=sender or ANYBODY, at=self.clock())


def _check_signed(message: Mapping[str, Any]) -> None:
    """Refuse what carries no signature; whether one holds is the provider's question."""
    kind = message.get("type")
    if not isinstance(kind, str) or kind in INTAKES:
        return
    extractor_for(kind)  # an unknown type is no question of signatures
    if signed_form(kind, read_payload(message)) is None:
        raise StatementUnacceptable(
            f"this message of type {kind} carries no signature: sign the values, authenticate with the token of this "
            "service, or, for tests, start it with --insecure-unsigned"
        )
