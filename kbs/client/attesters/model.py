"""What every software attester is: a machine of one TEE under a make-believe vendor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from kbs.protocol.tee import Tee


class SoftwareAttester(ABC):
    """One machine. `anchors`, `options` and `endorsements` are what a verifier needs for its evidence, as case files
    have them; subclasses take more arguments to make their evidence wrong in one place.
    """

    tee: Tee

    @property
    @abstractmethod
    def anchors(self) -> Mapping[str, Any] | None:
        """The make-believe vendor's roots, for `VerifierOptions.anchors`; None: the TEE has none."""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """For `VerifierOptions.options`: what this machine's evidence cannot do without."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of `options` those that an operator would set for this machine."""
        return self.options

    @property
    @abstractmethod
    def endorsements(self) -> Mapping[str, Any]:
        """For `Verifier.endorsements_from`: what a vendor would serve."""

    @abstractmethod
    def evidence(self, report_data: bytes, init_data: bytes | None = None) -> Any:
        """Evidence bound to a digest of any length, and to that of the init data where the TEE can carry it."""

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        """What a well-behaved guest sends (`kbs.client.guest.Attester`)."""
        return self.evidence(report_data, init_data)
