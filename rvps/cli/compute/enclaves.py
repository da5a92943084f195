"""`rvps compute sgx` and `rvps compute nitro`: enclaves whose builders say what they measure."""

from __future__ import annotations

from pathlib import Path

import click

from rvps.cli.compute.inputs import FILE, read_artifact, refusals
from rvps.cli.compute.output import Output, emit, output_options
from rvps.compute import nitro as nitro_measurements
from rvps.compute import sgx as enclave_signature
from rvps.value_set import ValueSet


@click.command()
@click.option("--sigstruct", type=FILE, required=True, help="The enclave's SIGSTRUCT, 1808 bytes (Gramine: .sig).")
@output_options("sgx-enclave")
def sgx(sigstruct: Path, series: str, as_json: bool, out: Path | None) -> None:
    """Identity of a signed SGX enclave.

    Gives mr_enclave, mr_signer and version numbers from a SIGSTRUCT whose signature holds."""
    with refusals("give the .sig file beside the enclave"):
        raw, artifact = read_artifact(sigstruct, enclave_signature.SIZE, "the SIGSTRUCT")
        enclave = enclave_signature.read_sigstruct(raw)
    values = {
        "sgx_mr_enclave": [enclave.mr_enclave],
        "sgx_mr_signer": [enclave.mr_signer],
        "sgx_isv_prod_id": [enclave.isv_prod_id],
        "sgx_isv_svn": [enclave.isv_svn],
    }
    emit(
        lambda: ValueSet(series=series, tee="sgx", values=values, artifacts=(artifact,)),
        Output(as_json, out),
        ["sgx_attributes_flags and sgx_attributes_xfrm are chosen when the enclave is started: state them yourself"],
    )


@click.command()
@click.option("--measurements", type=FILE, required=True, help="What nitro-cli build-enclave or describe-eif printed.")
@output_options("nitro-enclave")
def nitro(measurements: Path, series: str, as_json: bool, out: Path | None) -> None:
    """PCRs of a Nitro enclave image.

    Takes PCR0 to PCR2, and PCR8 of signed images, from the output of nitro-cli."""
    with refusals("save what nitro-cli build-enclave prints, as it is"):
        raw, artifact = read_artifact(measurements, nitro_measurements.MAX_MEASUREMENTS, "the measurements")
        found = nitro_measurements.read_measurements(raw)
    values = {name: [value] for name, value in found.items()}
    emit(
        lambda: ValueSet(series=series, tee="nitro", values=values, artifacts=(artifact,)),
        Output(as_json, out),
        ["nitro-cli worked these out; nothing here has measured the image"],
    )
