"""Settings of the SGX verifier, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbs.attestation.dcap.options import KNOWN, DcapOptions, read_dcap_options
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee


def read_options(options: Mapping[str, Any]) -> DcapOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    if unknown := set(options) - KNOWN:
        raise ConfigInvalid(f"sgx: unknown options {sorted(unknown)}")
    return read_dcap_options(options, Tee.SGX)
