"""`rvps compute`: reference values from the artifacts that machines boot. One module for each way of measuring."""

from __future__ import annotations

import click

from rvps.cli.compute.enclaves import nitro, sgx
from rvps.cli.compute.guest import init_data_command, se_command
from rvps.cli.compute.kata import kata_command
from rvps.cli.compute.manifests import corim_command, rim_command
from rvps.cli.compute.pcr import pcr_command
from rvps.cli.compute.snp import snp
from rvps.cli.compute.tdx import tdx


@click.group()
def compute() -> None:
    """Compute the values that machines will show, from what they boot. Nothing is sent anywhere."""


for _command in (
    snp,
    tdx,
    sgx,
    nitro,
    pcr_command,
    se_command,
    init_data_command,
    kata_command,
    rim_command,
    corim_command,
):
    compute.add_command(_command)
