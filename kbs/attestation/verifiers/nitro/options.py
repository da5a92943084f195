"""Settings of the Nitro verifier, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from kbs.errors import ConfigInvalid

_KNOWN: Final = {"nitro_max_age_seconds", "allow_trailing_bytes"}
_LEAF_LIFE: Final = timedelta(hours=3)  # no document can be older and still have a valid certificate


@dataclass(frozen=True, slots=True)
class NitroOptions:
    """What an operator may choose.

    max_age: option `nitro_max_age_seconds`, 1 to 10800: how old a document may be, and how far ahead its clock. Inside
        a handshake the challenge proves freshness; this is what is left without one.
    allow_trailing_bytes: of raw documents, ignore what follows the document (some tools append to it).
    """

    max_age: timedelta = timedelta(hours=1)
    allow_trailing_bytes: bool = False


def read_options(options: Mapping[str, Any]) -> NitroOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name, or a value of a wrong type or range.
    """
    if unknown := set(options) - _KNOWN:
        raise ConfigInvalid(f"nitro: unknown options {sorted(unknown)}")
    seconds = options.get("nitro_max_age_seconds", int(NitroOptions().max_age.total_seconds()))
    if type(seconds) is not int or not 1 <= seconds <= _LEAF_LIFE.total_seconds():
        raise ConfigInvalid("nitro: nitro_max_age_seconds is not a number from 1 to 10800")
    trailing = options.get("allow_trailing_bytes", False)
    if not isinstance(trailing, bool):
        raise ConfigInvalid("nitro: allow_trailing_bytes is not a boolean")
    return NitroOptions(timedelta(seconds=seconds), trailing)
