"""Settings that verifiers of quotes share, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.attestation.dcap.verification import QuoteOptions
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

KNOWN: Final = frozenset({"allow_trailing_bytes", "allow_unchecked_revocation", "dcap_min_evaluation_number"})


@dataclass(frozen=True, slots=True)
class DcapOptions:
    """What an operator may choose for any quote.

    quote: `dcap_min_evaluation_number`: TCB info and QE identity of an older edition are refused.
    waive_revocation: absent revocation lists do not bar an affirming result; visible as `revocation_waived`.
    allow_trailing_bytes: zero bytes may follow a quote, as some quoting services pad it; visible as `trailing_bytes`.
    """

    quote: QuoteOptions = field(default_factory=QuoteOptions)
    waive_revocation: bool = False
    allow_trailing_bytes: bool = False


def read_dcap_options(options: Mapping[str, Any], tee: Tee) -> DcapOptions:
    """Decode the shared settings; others are not looked at.

    Raises:
        ConfigInvalid: a value of a wrong type.
    """
    minimum = options.get("dcap_min_evaluation_number", 0)
    if type(minimum) is not int or minimum < 0:
        raise ConfigInvalid(f"{tee}: dcap_min_evaluation_number is not a number")
    waived = options.get("allow_unchecked_revocation", [])
    if not isinstance(waived, list | tuple) or not all(isinstance(name, str) for name in waived):
        raise ConfigInvalid(f"{tee}: allow_unchecked_revocation is not a list of texts")
    if strangers := set(waived) - set(Tee):
        raise ConfigInvalid(f"{tee}: allow_unchecked_revocation names unknown TEEs {sorted(strangers)}")
    return DcapOptions(QuoteOptions(minimum), tee in waived, read_flag(options, "allow_trailing_bytes", tee))


def read_flag(options: Mapping[str, Any], name: str, tee: Tee) -> bool:
    """One boolean setting, false by default.

    Raises:
        ConfigInvalid: a value of a wrong type.
    """
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{tee}: {name} is not a boolean")
    return value
