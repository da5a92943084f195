"""HCL reports of Azure's paravisor, and the runtime data in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.verifiers.azure_vtpm.hcl import ReportType, parse_hcl_report
from kbs.attestation.verifiers.azure_vtpm.runtime import parse_runtime_data
from kbs.attestation.verifiers.azure_vtpm.tdreport import parse_tdreport
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    for kind in ReportType:
        with contextlib.suppress(EvidenceRejected):
            parse_runtime_data(parse_hcl_report(data, kind).variable_data)
    with contextlib.suppress(EvidenceRejected):
        parse_tdreport(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("az-snp-vtpm/hcl-report.bin", "az-tdx-vtpm/hcl-report.bin")
