"""`rvps compute snp`: launch digests of SEV-SNP guests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import click

from rvps.cli.compute.build_file import take_build
from rvps.cli.compute.inputs import FILE, Counts, Digest, Hex, hash_artifact, read_artifact, refusals
from rvps.cli.compute.output import Output, emit, output_options
from rvps.compute import snp as measure
from rvps.compute.firmware import MAX_FIRMWARE
from rvps.value_set import Artifact, ValueSet

_NEXT: Final = "give the OVMF image that the guests start with, whole; --help tells the rest"


@click.command()
@click.option("--ovmf", type=FILE, required=True, help="Firmware, as given to QEMU.")
@click.option("--vcpus", type=Counts(measure.MAX_VCPUS), help="Numbers of vCPUs: 1,2,4 or 1-8; default: of --build.")
@click.option("--vcpu-type", type=click.Choice(sorted(measure.VCPU_SIGNATURES)), help="QEMU's CPU model.")
@click.option("--vcpu-sig", type=Hex(), help="Or CPUID 1 EAX.")
@click.option("--vcpu-family", type=click.IntRange(0, 270), help="Or family, with the next two.")
@click.option("--vcpu-model", type=click.IntRange(0, 255))
@click.option("--vcpu-stepping", type=click.IntRange(0, 15))
@click.option("--build", type=FILE, help="Kernel, initrd and command line as `rvps compute kata -o` wrote them.")
@click.option("--kernel", type=FILE, help="Kernel of direct boot, with QEMU's kernel-hashes=on.")
@click.option("--initrd", type=FILE, help="Its initrd.")
@click.option("--append", "--cmdline", "append", metavar="TEXT", help="Its command line, exactly as QEMU gets it.")
@click.option("--guest-features", type=Hex(), default="0x1", show_default=True, help="SEV_FEATURES of the guests.")
@click.option(
    "--vmm-type", type=click.Choice([str(vmm) for vmm in measure.Vmm]), default="QEMU", show_default=True,
    help="What launches the guests.",
)  # fmt: skip
@click.option("--ovmf-hash", type=Digest(measure.DIGEST_SIZE), help="Digest after other firmware with the same layout.")
@output_options("snp-guest")
def snp(ovmf: Path, vcpus: tuple[int, ...] | None, build: Path | None, out: Path | None, **options: Any) -> None:
    """Launch digests of SEV-SNP guests.

    Gives snp_launch_measurement: one value for each number of vCPUs."""
    signature = _signature(options)
    if build is not None:
        with refusals(_NEXT):
            found = take_build(options, build, "append")
        vcpus = vcpus or (found.vcpus,)
    if vcpus is None:
        raise click.UsageError("give --vcpus: each number of them has a launch digest of its own")
    kernel, initrd, append = options["kernel"], options["initrd"], options["append"]
    if kernel is None and (initrd is not None or append is not None):
        raise click.UsageError("--initrd and --append go with --kernel: without it, nothing of them is measured")
    with refusals(_NEXT):
        image, listed = read_artifact(ovmf, MAX_FIRMWARE, "the firmware")
        artifacts = [listed]
        firmware = measure.read_firmware(image)
        boot = None if kernel is None else _boot_files(kernel, initrd, append or "", artifacts)
        digests = measure.launch_digests(
            firmware,
            vcpus,
            signature,
            boot=boot,
            guest_features=options["guest_features"],
            vmm=measure.Vmm(options["vmm_type"]),
            firmware_digest=options["ovmf_hash"],
        )
    values = {"snp_launch_measurement": digests}
    notes = [] if options["ovmf_hash"] is None else [f"{ovmf.name} lent its layout only; --ovmf-hash was believed"]
    if kernel is None:
        notes.append("no --kernel: these values say nothing of what the firmware boots")
    emit(
        lambda: ValueSet(series=options["series"], tee="snp", values=values, artifacts=tuple(artifacts)),
        Output(options["as_json"], out),
        notes,
    )


def _signature(options: dict[str, Any]) -> int:
    """The one CPU signature that was said, in whichever way."""
    parts = [options[name] for name in ("vcpu_family", "vcpu_model", "vcpu_stepping")]
    named = options["vcpu_type"] is not None, options["vcpu_sig"] is not None, any(part is not None for part in parts)
    if sum(named) > 1:
        raise click.UsageError("say the CPU once: --vcpu-type, or --vcpu-sig, or family, model and stepping")
    if named[0]:
        return int(measure.VCPU_SIGNATURES[options["vcpu_type"]])
    if named[1]:
        return int(options["vcpu_sig"])
    if named[2]:
        if None in parts:
            raise click.UsageError("--vcpu-family, --vcpu-model and --vcpu-stepping go together")
        return measure.vcpu_signature(*parts)
    if options["vmm_type"] == measure.Vmm.QEMU:
        raise click.UsageError("QEMU's guests show their CPU model: give --vcpu-type (or --vcpu-sig)")
    return 0  # the others set the register to a fixed number


def _boot_files(kernel: Path, initrd: Path | None, command_line: str, artifacts: list[Artifact]) -> measure.BootFiles:
    digests, _, listed = hash_artifact(kernel, ("sha256",))
    artifacts.append(listed)
    initrd_digest = hashlib.sha256().digest()
    if initrd is not None:
        found, _, listed = hash_artifact(initrd, ("sha256",))
        artifacts.append(listed)
        initrd_digest = found["sha256"]
    return measure.BootFiles(digests["sha256"], initrd_digest, command_line)
