"""`rvps compute tdx`: MRTD of the firmware, and the run-time registers of a guest that QEMU boots directly."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from rvps.cli.compute.build_file import take_build
from rvps.cli.compute.inputs import FILE, Size, hash_artifact, read_artifact, refusals
from rvps.cli.compute.output import Output, emit, output_options, write_whole
from rvps.cli.connection import shown
from rvps.compute import ccel, linux_kernel, pe, tdvf
from rvps.compute import tdx as measure
from rvps.compute.firmware import MAX_FIRMWARE
from rvps.errors import ArtifactUnusable
from rvps.value_set import Artifact, ValueSet

_MAX_ACPI: Final = 4 << 20  # bytes of one file
_NEXT: Final = "give the files as QEMU gets them; docs/reference-values/compute-tdx.md tells which"


@dataclass(slots=True)
class _Inputs:
    """What was read so far."""

    values: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@click.command()
@click.option("--firmware", type=FILE, required=True, help="TDX firmware (OVMF.fd), whole.")
@click.option(
    "--page-order", "orders", type=click.Choice([str(order) for order in tdvf.PageOrder]), multiple=True,
    default=["page"], show_default=True, help="How hosts add pages; twice for a fleet of both kinds.",
)  # fmt: skip
@click.option("--build", type=FILE, help="Kernel, initrd and command line as `rvps compute kata -o` wrote them.")
@click.option("--kernel", type=FILE, help="Kernel of direct boot (-kernel), with an EFI stub.")
@click.option("--initrd", type=FILE, help="Its initrd.")
@click.option("--cmdline", "--append", "cmdline", metavar="TEXT", help="Its command line, exactly as QEMU gets it.")
@click.option("--memory", type=Size(), help="Memory of the guest: 2048M, 2G.")
@click.option(
    "--kernel-header", type=click.Choice(["qemu", "unchanged"]), default="qemu", show_default=True,
    help="Whether the firmware measures the kernel with QEMU's changes (before edk2-stable202505) or as it is.",
)  # fmt: skip
@click.option("--initrd-argument/--no-initrd-argument", default=True, help="Firmware appends ` initrd=initrd`.")
@click.option("--cmdline-end/--no-cmdline-end", default=True, help="The NUL behind the command line is measured.")
@click.option("--acpi", type=FILE, multiple=True, help="QEMU's ACPI data: loader script, RSDP, tables (three times).")
@click.option("--event-log", type=FILE, help="CCEL of such a machine: lends the events that cannot be computed.")
@click.option("--events", type=click.Path(path_type=Path, dir_okay=False), help="Write the events as JSON.")
@output_options("tdx-guest")
def tdx(
    firmware: Path, orders: Sequence[str], build: Path | None, events: Path | None, out: Path | None, **options: Any
) -> None:
    """Registers of TDX guests.

    Gives mr_td, and rtmr_0 to rtmr_2, tdvfkernel, tdvfkernelparams as far as the files go."""
    if build is not None:
        with refusals(_NEXT):
            take_build(options, build, "cmdline")
    _check_options(options)
    inputs = _Inputs()
    if options["memory"] is not None and options["event_log"] is None and options["initrd"] is None:
        inputs.notes.append("--memory changed nothing: it counts with --initrd and with --event-log")
    with refusals(_NEXT):
        image, listed = read_artifact(firmware, MAX_FIRMWARE, "the firmware")
        inputs.artifacts.append(listed)
        loaded = tdvf.read(image)
        kinds = dict.fromkeys(tdvf.PageOrder(order) for order in orders)
        inputs.values["mr_td"] = [tdvf.mr_td(loaded, order) for order in kinds]
        digests = _boot_digests(loaded, options, inputs)
        found = _events(digests, options["event_log"], inputs)
    if events is not None:
        write_whole(events, _as_json(found))
    emit(
        lambda: ValueSet(series=options["series"], tee="tdx", values=inputs.values, artifacts=tuple(inputs.artifacts)),
        Output(options["as_json"], out),
        inputs.notes,
        _table(found),
    )


def _check_options(options: dict[str, Any]) -> None:
    if options["kernel"] is None and (options["initrd"] is not None or options["cmdline"] is not None):
        raise click.UsageError("--initrd and --cmdline go with --kernel")
    if options["acpi"] and options["event_log"] is None:
        raise click.UsageError("--acpi goes with --event-log: only a log tells in what order RTMR0 took what")
    if options["initrd"] is not None and options["memory"] is None and options["kernel_header"] == "qemu":
        raise click.UsageError("QEMU writes the initrd's address into the kernel's header: give --memory"
                               " (or --kernel-header unchanged)")  # fmt: skip


def _boot_digests(loaded: tdvf.Tdvf, options: dict[str, Any], inputs: _Inputs) -> measure.Digests:
    memory, with_log = options["memory"], options["event_log"] is not None
    hob = tdvf.hand_off_block(loaded, memory) if with_log and memory is not None else None
    kernel = initrd = load_options = None
    initrd_size = 0
    if options["kernel"] is not None:
        raw, listed = read_artifact(options["kernel"], linux_kernel.MAX_KERNEL, "the kernel")
        inputs.artifacts.append(listed)
        if options["initrd"] is not None:
            found, initrd_size, listed = hash_artifact(options["initrd"], ("sha384",))
            initrd = found["sha384"]
            inputs.artifacts.append(listed)
        kernel = _kernel_digest(raw, initrd_size, options)
        load_options = _load_options(options, initrd is not None)
        inputs.values["tdvfkernel"] = kernel.hex()
        if load_options is not None:
            inputs.values["tdvfkernelparams"] = load_options.hex()
    acpi = []
    for path in options["acpi"]:
        raw, listed = read_artifact(path, _MAX_ACPI, "the ACPI data")
        inputs.artifacts.append(listed)
        acpi.append(_sha384(raw))
    return measure.Digests(
        kernel=kernel,
        load_options=load_options,
        initrd=initrd,
        hand_off_block=None if hob is None else _sha384(hob),
        configuration_volume=tdvf.configuration_volume(loaded) if with_log else None,
        acpi=tuple(acpi),
    )


def _kernel_digest(raw: bytes, initrd_size: int, options: dict[str, Any]) -> bytes:
    if raw[:2] == b"\x1f\x8b":
        raise ArtifactUnusable("the kernel is compressed with gzip, and QEMU boots no such file: unpack it")
    if options["kernel_header"] == "qemu":
        raw = linux_kernel.as_qemu_loads_it(raw, initrd_size, options["memory"])
    file = io.BytesIO(raw)
    return pe.authenticode(file, pe.read_image(file), ("sha384",))["sha384"]


def _load_options(options: dict[str, Any], has_initrd: bool) -> bytes | None:
    text = measure.load_options(
        options["cmdline"] or "",
        has_initrd=has_initrd,
        initrd_argument=options["initrd_argument"],
        terminated=options["cmdline_end"],
    )
    return None if text is None else _sha384(text)


def _events(digests: measure.Digests, log: Path | None, inputs: _Inputs) -> list[measure.Measured]:
    if log is None:
        found = measure.direct_boot(digests)
        inputs.notes.append("rtmr_0 is left out: give --event-log with the CCEL of such a machine, and --memory")
    else:
        raw, listed = read_artifact(log, ccel.MAX_LOG, "the event log")
        inputs.artifacts.append(listed)
        found = measure.along_log(ccel.read(raw), digests)
    values = measure.registers(found)
    inputs.values |= {name: [value] for name, value in values.items()}
    for name in values:
        number = int(name.removeprefix("rtmr_"))
        lent = [each.name for each in found if each.register == number + 1 and each.origin is measure.Origin.LENT]
        if lent:
            inputs.notes.append(
                f"{name} rests on {len(lent)} events that the log lent: {', '.join(dict.fromkeys(lent))}"
            )
    return found


def _table(events: Sequence[measure.Measured]) -> Table:
    table = Table("register", "event", "digest", "", box=None)
    for event in events:
        table.add_row(f"RTMR{event.register - 1}", shown(event.name), f"{event.digest.hex()[:16]}…", event.origin)
    return table


def _as_json(events: Sequence[measure.Measured]) -> bytes:
    lines = [
        {"register": f"rtmr_{e.register - 1}", "event": e.name, "digest": e.digest.hex(), "origin": e.origin}
        for e in events
    ]
    return json.dumps(lines, indent=1).encode() + b"\n"


def _sha384(raw: bytes) -> bytes:
    return hashlib.sha384(raw).digest()
