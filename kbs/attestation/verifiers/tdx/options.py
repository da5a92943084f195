"""Settings of the TDX verifier, read once and strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.attestation.dcap.options import KNOWN, DcapOptions, read_dcap_options, read_flag
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

_KNOWN: Final = KNOWN | {
    "tdx_service_tds",
    "tdx_allow_sept_ve",
    "tdx_require_event_log",
    "tdx_unlogged_registers",
    "tdx_allow_repeated_separators",
}
_MEASUREMENT: Final = re.compile(r"[0-9a-fA-F]{96}")
_REGISTERS: Final = range(1, 5)


@dataclass(frozen=True, slots=True)
class TdxOptions:
    """What an operator may choose.

    dcap: shared settings; unlike elsewhere, zeros behind a quote are taken unless `allow_trailing_bytes` is false.
    service_tds: values of MR_SERVICETD that may be bound to a TD; by default none.
    allow_sept_ve: a clear SEPT_VE_DISABLE does not bar an affirming result; visible as `septve_waived`.
    require_event_log: evidence without a log is refused; by default only policies that look at it notice.
    unlogged_registers: log indexes 1 to 4 (RTMR0 to RTMR3) that may have a value although the log says nothing of
        them, as in logs of guests that cannot read their firmware's; told in `event_log.unlogged`.
    allow_repeated_separators: see `kbs.attestation.event_log.ccel.replay`.
    """

    dcap: DcapOptions = field(default_factory=lambda: DcapOptions(allow_trailing_bytes=True))
    service_tds: frozenset[bytes] = frozenset()
    allow_sept_ve: bool = False
    require_event_log: bool = False
    unlogged_registers: frozenset[int] = frozenset()
    allow_repeated_separators: bool = False


def read_options(options: Mapping[str, Any]) -> TdxOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    if unknown := set(options) - _KNOWN:
        raise ConfigInvalid(f"tdx: unknown options {sorted(unknown)}")
    service_tds = options.get("tdx_service_tds", [])
    if not isinstance(service_tds, list | tuple) or not all(
        isinstance(each, str) and _MEASUREMENT.fullmatch(each) for each in service_tds
    ):
        raise ConfigInvalid("tdx: tdx_service_tds is not a list of measurements, 96 hex digits each")
    registers = options.get("tdx_unlogged_registers", [])
    if not isinstance(registers, list | tuple) or not all(
        type(each) is int and each in _REGISTERS for each in registers
    ):
        raise ConfigInvalid("tdx: tdx_unlogged_registers is not a list of numbers 1 to 4")
    return TdxOptions(
        # Quoting services for TDs fill their buffer with zeros, and guests send what they get.
        dcap=read_dcap_options({"allow_trailing_bytes": True, **options}, Tee.TDX),
        service_tds=frozenset(bytes.fromhex(each) for each in service_tds),
        allow_sept_ve=read_flag(options, "tdx_allow_sept_ve", Tee.TDX),
        require_event_log=read_flag(options, "tdx_require_event_log", Tee.TDX),
        unlogged_registers=frozenset(registers),
        allow_repeated_separators=read_flag(options, "tdx_allow_repeated_separators", Tee.TDX),
    )
