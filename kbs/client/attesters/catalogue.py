"""Which TEEs can be played by software, each with right evidence of one machine under a `TestRoot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kbs.client.attesters.azure_vtpm import SoftwareAzSnp, SoftwareAzTdx
from kbs.client.attesters.cca import SoftwareCca
from kbs.client.attesters.csv import SoftwareCsv
from kbs.client.attesters.hygondcu import SoftwareHygonDcu
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.nitro import SoftwareNitro
from kbs.client.attesters.se import SoftwareSe
from kbs.client.attesters.sgx import SoftwareSgx
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.protocol.tee import Tee

SOFTWARE_ATTESTERS: Final[Mapping[Tee, Callable[[TestRoot], SoftwareAttester]]] = {
    Tee.AZ_SNP_VTPM: SoftwareAzSnp,
    Tee.AZ_TDX_VTPM: SoftwareAzTdx,
    Tee.CCA: SoftwareCca,
    Tee.CSV: SoftwareCsv,
    Tee.HYGON_DCU: SoftwareHygonDcu,
    Tee.NITRO: SoftwareNitro,
    Tee.SE: SoftwareSe,
    Tee.SGX: SoftwareSgx,
    Tee.SNP: SoftwareSnp,
    Tee.TDX: SoftwareTdx,
    Tee.TPM: SoftwareTpm,
}
