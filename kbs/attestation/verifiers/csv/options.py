"""Settings of the CSV verifier, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kbs.errors import ConfigInvalid


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """What an operator may demand.

    min_report_version: 2 refuses V1 reports, whose fields a guest can shift all together (see `report`).
    """

    min_report_version: int = 1


def read_options(options: Mapping[str, Any]) -> CsvOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    if unknown := set(options) - {"csv_min_report_version"}:
        raise ConfigInvalid(f"csv: unknown options {sorted(unknown)}")
    version = options.get("csv_min_report_version", 1)
    if type(version) is not int or version not in (1, 2):
        raise ConfigInvalid("csv: csv_min_report_version is neither 1 nor 2")
    return CsvOptions(version)
