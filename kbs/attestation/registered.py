"""Init data that a guest did not send and an operator knows: found by what its quote says was measured.

Guests of peer pods start their attestation agent without the document, so that they send none; all that is left of it
is PCR 8. Where the operator registered the document that leads to this value, policies get its claims all the same, and
a member beside them that says where they are from. The quote vouches for the value as where a guest sends the text.

Source: guest-components 6.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from kbs.attestation.init_data import InitData
from kbs.protocol.tee import Tee

MEASURED_IN_PCR_8: Final = frozenset({Tee.TPM, Tee.AZ_SNP_VTPM, Tee.AZ_TDX_VTPM})
"""The TEEs whose claim `init_data` is PCR 8."""

SOURCE_MEMBER: Final = "init_data_source"
"""Of a policy's input; absent where the guest sent the document itself."""


@dataclass(frozen=True, slots=True)
class RegisteredInitData:
    """One document of a register. version: of its entry."""

    name: str
    owner: str
    version: int
    document: InitData

    def source(self) -> dict[str, str | int]:
        """What stands under `SOURCE_MEMBER`."""
        return {"from": "register", "name": self.name, "owner": self.owner, "version": self.version}


class KnownInitData(Protocol):
    """Documents that an operator knows; `kbs.admin.init_data.InitDataRegister` has them."""

    def of_pcr_8(self, value: str) -> RegisteredInitData | None:
        """The document that leads to this value of PCR 8, lower-case hex; None where nobody knows one.

        Raises:
            StorageUnavailable: nobody can say.
        """
