"""`rvps compute snp | tdx | sgx | nitro` as people and scripts use them: documents, tables, refusals and statuses."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

from rvps import cli, value_set
from rvps.cli.compute.inputs import hash_artifact
from rvps.compute import snp, tdvf
from tests.rvps.compute.images import kernel, sev_firmware, tdx_firmware
from tests.rvps.compute.test_nitro import PCRS, printed
from tests.rvps.compute.test_sgx import signing_key, sigstruct

LOGS = Path(__file__).parents[3] / "vectors/eventlog"
Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OVMF.fd").write_bytes(sev_firmware())
    (tmp_path / "TDVF.fd").write_bytes(tdx_firmware())
    (tmp_path / "vmlinuz").write_bytes(kernel())
    (tmp_path / "initrd").write_bytes(b"initrd")
    (tmp_path / "vmlinuz.gz").write_bytes(gzip.compress(kernel()))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "ccel").write_bytes(gzip.decompress((LOGS / "live_b0c06f.ccel.gz").read_bytes()))
    (tmp_path / "enclave.sig").write_bytes(sigstruct(signing_key()))
    (tmp_path / "eif.json").write_bytes(printed())

    def invoke(line: str, *more: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(cli.main, ["compute", *line.split(), *more])

    return invoke


def document(found: click.testing.Result) -> value_set.ValueSet:
    assert found.exit_code == 0, found.output
    return value_set.read(found.stdout.encode().strip())


SNP = "snp --ovmf OVMF.fd --vcpu-type EPYC-Milan --vcpus"
TDX = "tdx --firmware TDVF.fd"


def test_snp(run: Run) -> None:
    found = document(run(f"{SNP} 1,2-4,2 --json"))
    firmware = snp.read_firmware(sev_firmware())
    milan = snp.VCPU_SIGNATURES["EPYC-Milan"]
    assert found.values == {"snp_launch_measurement": snp.launch_digests(firmware, [1, 2, 3, 4], milan)}
    assert found.tee == "snp"
    assert [(a.name, a.digest["sha256"]) for a in found.artifacts] == [
        ("OVMF.fd", hashlib.sha256(sev_firmware()).hexdigest())
    ]


def test_snp_of_a_cpu_said_in_three_ways(run: Run) -> None:
    line = "snp --ovmf OVMF.fd --vcpus 1 --json"
    one = document(run(f"{line} --vcpu-type EPYC-Milan"))
    assert document(run(f"{line} --vcpu-sig 0xa00f11")) == one
    assert document(run(f"{line} --vcpu-family 25 --vcpu-model 1 --vcpu-stepping 1")) == one
    assert document(run(f"{line} --vmm-type ec2")) != one


def test_snp_with_a_kernel(run: Run) -> None:
    found = document(run(f"{SNP} 1 --json --kernel vmlinuz --initrd initrd --append", "a b"))
    boot = snp.BootFiles(hashlib.sha256(kernel()).digest(), hashlib.sha256(b"initrd").digest(), "a b")
    milan = snp.VCPU_SIGNATURES["EPYC-Milan"]
    digests = snp.launch_digests(snp.read_firmware(sev_firmware()), [1], milan, boot=boot)
    assert found.values["snp_launch_measurement"] == digests
    assert [artifact.name for artifact in found.artifacts] == ["OVMF.fd", "vmlinuz", "initrd"]


def test_people_see_a_table_and_what_to_mind(run: Run) -> None:
    found = run(f"{SNP} 1")
    assert found.exit_code == 0
    assert "snp_launch_measurement" in found.stdout
    assert "OVMF.fd" in found.stdout
    assert "no --kernel" in found.stderr
    assert "believed" in run(f"{SNP} 1 --ovmf-hash {'ab' * 48}").stderr


def test_a_document_in_a_file(run: Run, tmp_path: Path) -> None:
    printed_one = run(f"{SNP} 1 --json").stdout
    found = run(f"{SNP} 1 -o values.json")
    assert "rvps sign" in found.stdout
    assert (tmp_path / "values.json").read_text() == printed_one
    assert run(f"{SNP} 1 --json -o values.json").stdout == ""
    before = sorted(tmp_path.iterdir())
    assert run("snp --ovmf empty --vcpus 1 --vcpu-type EPYC -o values.json").exit_code == 1
    assert (tmp_path / "values.json").read_text() == printed_one
    assert sorted(tmp_path.iterdir()) == before


def test_tdx_firmware_alone(run: Run) -> None:
    loaded = tdvf.read(tdx_firmware())
    page, section = (tdvf.mr_td(loaded, order) for order in tdvf.PageOrder)
    assert document(run(f"{TDX} --json")).values == {"mr_td": [page]}
    both = document(run(f"{TDX} --json --page-order section --page-order page --page-order section"))
    assert both.values == {"mr_td": [section, page]}
    assert both.tee == "tdx"


def test_tdx_direct_boot(run: Run) -> None:
    line = f"{TDX} --json --kernel vmlinuz --cmdline"
    plain = document(run(line, "a b")).values
    assert list(plain) == ["mr_td", "rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams"]
    assert isinstance(plain["tdvfkernel"], str)  # policies look these two up as single values
    assert isinstance(plain["rtmr_1"], list)
    changes = {
        "--initrd initrd --memory 2G": {"rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams"},
        "--initrd initrd --memory 2G --no-initrd-argument": {"rtmr_1", "rtmr_2", "tdvfkernel"},
        "--initrd initrd --kernel-header unchanged": {"rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams"},
        "--kernel-header unchanged": {"rtmr_1", "tdvfkernel"},
        "--no-cmdline-end": {"rtmr_2", "tdvfkernelparams"},
    }
    for more, changed in changes.items():
        other = document(run(line, "a b", *more.split())).values
        assert {name for name in plain if plain[name] != other[name]} == changed, more


def test_tdx_along_a_log_says_what_the_log_lent(run: Run, tmp_path: Path) -> None:
    line = f"{TDX} --event-log ccel --memory 2G --kernel vmlinuz --initrd initrd --cmdline quiet"
    found = run(f"{line} --json --events events.json")
    values = document(found).values
    assert {"rtmr_0", "rtmr_1", "rtmr_2"} <= values.keys()
    assert "rtmr_0 rests on" in found.stderr
    assert "ACPI data" in found.stderr
    assert "rtmr_1 rests on" not in found.stderr
    assert "ccel" in [artifact.name for artifact in document(found).artifacts]
    events: list[dict[str, Any]] = json.loads((tmp_path / "events.json").read_text())
    assert {event["event"] for event in events if event["origin"] == "computed"} == {
        "hand-off block", "configuration volume", "kernel", "command line", "initrd",
    }  # fmt: skip
    without = document(run(f"{TDX} --json --kernel vmlinuz --initrd initrd --memory 2G --cmdline quiet")).values
    assert all(values[name] == without[name] for name in without)  # the log's order is that of direct boot
    assert "lent" in run(line).stdout


def test_sgx_and_nitro(run: Run) -> None:
    found = document(run("sgx --sigstruct enclave.sig --json"))
    assert found.values["sgx_mr_enclave"] == [(b"E" * 32).hex()]
    assert found.tee == "sgx"
    assert document(run("nitro --measurements eif.json --json")).values == {
        f"nitro_pcr{number}": [PCRS[f"PCR{number}"]] for number in (0, 1, 2)
    }


@pytest.mark.parametrize(
    "line",
    [
        f"{SNP} 0", f"{SNP} 1000000000", f"{SNP} 1-1000000000", f"{SNP} x", f"{SNP} 4-1", f"{SNP} 1,,2",
        "snp --ovmf OVMF.fd --vcpus 1", f"{SNP} 1 --vcpu-sig 0x1", f"{SNP} 1 --vcpu-sig 1",
        "snp --ovmf OVMF.fd --vcpus 1 --vcpu-family 25", f"{SNP} 1 --guest-features 33",
        f"{SNP} 1 --guest-features 0x20", f"{SNP} 1 --append x", f"{SNP} 1 --initrd initrd",
        f"{SNP} 1 --ovmf-hash 00", f"{SNP} 1 --vmm-type xen", "snp --ovmf none --vcpus 1 --vcpu-type EPYC",
        f"{SNP} 1 --kernel vmlinuz --append {'x' * 70_000}",
        "tdx", f"{TDX} --memory 2048", f"{TDX} --memory 0G", f"{TDX} --memory 1M --event-log ccel",
        f"{TDX} --initrd initrd", f"{TDX} --cmdline x", f"{TDX} --kernel vmlinuz --initrd initrd",
        f"{TDX} --acpi initrd", f"{TDX} --kernel vmlinuz --cmdline {'x' * 70_000}", f"{TDX} --page-order both",
        "sgx", "nitro",
    ],
    ids=(
        "no-vcpus", "billion", "billions", "no-number", "backwards", "gap", "no-type", "twice", "decimal-sig",
        "family-alone", "decimal-features", "not-snp", "append-alone", "initrd-alone", "short-hash", "vmm", "no-file",
        "long-line",
        "tdx-nothing", "no-unit", "no-memory", "little-memory", "tdx-initrd-alone", "cmdline-alone", "no-memory-said",
        "acpi-alone", "tdx-long-line", "order", "sgx-nothing", "nitro-nothing",
    ),
)  # fmt: skip
def test_wrong_use_ends_with_status_2(run: Run, line: str) -> None:
    found = run(line)
    assert found.exit_code == 2
    assert "Error: " in found.stderr or "Usage" in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize(
    "line",
    [
        "snp --ovmf empty --vcpus 1 --vcpu-type EPYC", "snp --ovmf TDVF.fd --vcpus 1 --vcpu-type EPYC",
        "snp --ovmf vmlinuz --vcpus 1 --vcpu-type EPYC", f"{SNP} 1 --series -", f"{SNP} 1 -o none/values.json",
        "tdx --firmware OVMF.fd", "tdx --firmware empty", f"{TDX} --kernel vmlinuz.gz", f"{TDX} --kernel initrd",
        f"{TDX} --kernel TDVF.fd --kernel-header unchanged", f"{TDX} --event-log initrd", f"{TDX} --event-log empty",
        f"{TDX} --event-log ccel --acpi initrd", f"{TDX} --events none/events.json",
        "sgx --sigstruct initrd", "sgx --sigstruct vmlinuz", "nitro --measurements initrd", "nitro --measurements ccel",
    ],
    ids=(
        "empty", "no-sev", "kernel", "series", "no-directory", "no-tdx", "tdx-empty", "gzip", "no-kernel", "no-pe",
        "no-log", "empty-log", "one-acpi", "no-events", "short-sgx", "long-sgx", "no-json", "noise",
    ),
)  # fmt: skip
def test_bad_artifacts_end_with_status_1_and_what_to_do(run: Run, line: str) -> None:
    found = run(line)
    assert found.exit_code == 1
    assert "Error: " in found.stderr
    assert "Next: " in found.stderr
    assert found.stdout == ""


def test_an_initrd_of_any_size_takes_no_more_memory(tmp_path: Path) -> None:
    """A sparse file stands for 4 GiB, which takes long to hash for no more insight."""
    initrd = tmp_path / "initrd"
    with initrd.open("wb") as file:
        file.truncate(96 << 20)
    tracemalloc.start()
    digests, size, _ = hash_artifact(initrd, ("sha384",))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 96 << 20
    assert peak < 8 << 20
    assert len(digests["sha384"]) == 48
