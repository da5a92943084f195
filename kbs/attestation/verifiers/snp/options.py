"""Settings of the SNP verifier, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.attestation.sev.options import KNOWN, ReportOptions, read_report_options, read_texts
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

_KNOWN: Final = KNOWN | {"snp_vlek_csp_ids", "allow_trailing_bytes"}


@dataclass(frozen=True, slots=True)
class SnpOptions:
    """What an operator may choose.

    vlek_csp_ids: cloud providers whose VLEK may sign, as in the certificate, e.g. `CN=cc-us-east-2.amazonaws.com`.
    allow_trailing_bytes: of raw reports, ignore what follows the report.
    """

    report: ReportOptions = field(default_factory=ReportOptions)
    vlek_csp_ids: frozenset[str] = frozenset()
    allow_trailing_bytes: bool = False


def read_options(options: Mapping[str, Any]) -> SnpOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    if unknown := set(options) - _KNOWN:
        raise ConfigInvalid(f"snp: unknown options {sorted(unknown)}")
    trailing = options.get("allow_trailing_bytes", False)
    if not isinstance(trailing, bool):
        raise ConfigInvalid("snp: allow_trailing_bytes is not a boolean")
    return SnpOptions(
        report=read_report_options(options, Tee.SNP),
        vlek_csp_ids=read_texts(options, "snp_vlek_csp_ids", Tee.SNP),
        allow_trailing_bytes=trailing,
    )
