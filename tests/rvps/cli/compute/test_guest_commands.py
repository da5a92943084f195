"""`rvps compute pcr | se | init-data | kata` and `rvps learn`: exit status, refusals, files left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rvps import cli, value_set
from rvps.compute import pcr, pcr_documents
from tests.rvps.cli.compute import guest_artifacts
from tests.rvps.compute.uki_images import kernel, uki


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    guest_artifacts.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    result = CliRunner().invoke(cli.main, words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def values(*words: str) -> dict[str, object]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return dict(value_set.read(result.stdout.strip().encode()).values)


def test_one_value_for_each_phase(folder: Path) -> None:
    found = values("compute", "pcr", "--uki", "pod-vm.efi", "--pcr", "11")
    assert list(found) == ["tpm_pcr11"]
    one = values("compute", "pcr", "--uki", "pod-vm.efi", "--pcr", "11", "--phases", "enter-initrd:leave-initrd")
    assert isinstance(found["tpm_pcr11"], list)
    assert one["tpm_pcr11"] == [found["tpm_pcr11"][1]]


def test_nothing_from_outside_is_stated_as_zero(folder: Path) -> None:
    found = values("compute", "pcr", "--uki", "pod-vm.efi", "--tee", "nitro")
    assert found["nitrotpm_pcr12"] == ["00" * 48]
    assert set(found) == {"nitrotpm_pcr4", "nitrotpm_pcr9", "nitrotpm_pcr11", "nitrotpm_pcr12"}


def test_stubs_that_are_not_known_leave_out_what_is_not_known(folder: Path) -> None:
    (folder / "new.efi").write_bytes(uki([(b".linux", kernel())], 260))
    result = run("compute", "pcr", "--uki", "new.efi", "--json")
    assert set(json.loads(result.stdout)["values"]) == {"tpm_pcr11", "tpm_pcr12"}
    assert "not known for systemd-stub 260" in result.stderr


def test_published_measurements_are_compared_with_the_image(folder: Path) -> None:
    words = ("compute", "pcr", "--uki", "pod-vm.efi", "--phases", "none", "--measurements", "published.json")
    computed = values(*words[:-2])["tpm_pcr11"]
    assert isinstance(computed, list)
    (folder / "published.json").write_text(json.dumps({"pcr11": computed[0], "pcr07": "ab" * 32}))
    assert values(*words)["tpm_pcr07"] == ["ab" * 32]
    (folder / "published.json").write_text(json.dumps({"pcr11": "ab" * 32}))
    result = run(*words)
    assert (result.exit_code, "another value" in result.stderr) == (1, True)


def test_signed_policies_are_compared_with_the_image(folder: Path) -> None:
    words = ("compute", "pcr", "--uki", "pod-vm.efi", "--measurements", "signed.json")
    computed = values(*words[:-2])["tpm_pcr11"]
    assert isinstance(computed, list)
    policies = [pcr_documents.policy_of(11, bytes.fromhex(one), "sha256").hex() for one in computed]
    entries = [{"pcrs": [11], "pkfp": "x", "pol": one, "sig": "x"} for one in policies]
    for listed, code in ((entries, 0), (entries[:3], 1), ([{"pcrs": [7], "pol": policies[0]}], 1)):
        (folder / "signed.json").write_text(json.dumps({"sha256": listed}))
        assert run(*words).exit_code == code
    assert run("compute", "pcr", "--measurements", "signed.json").exit_code == 1


def test_host_keys_that_answer_can_be_others(folder: Path) -> None:
    document = Path(__file__).parents[3] / "vectors/se/host.pem.crt"
    result = run("compute", "se", "--hdr", "se.hdr", "--host-key", str(document), "--json")
    found = json.loads(result.stdout)["values"]
    assert found["se_image_phkh"] == ["01" * 32]
    assert found["se_attestation_phkh"] != found["se_image_phkh"]
    assert "none of the --host-key documents" in result.stderr


def test_init_data_that_vtpms_cannot_take(folder: Path) -> None:
    (folder / "long.toml").write_text(guest_artifacts.INIT_DATA.replace("sha256", "sha384"))
    result = run("compute", "init-data", "long.toml", "--json")
    assert "vTPM cannot take" in result.stderr
    assert all(len(one) >= 64 for one in json.loads(result.stdout)["values"]["init_data_digests"])
    assert run("compute", "init-data", "long.toml", "--tee", "tpm").exit_code == 1
    se = values("compute", "init-data", "long.toml", "--tee", "se")
    assert list(se) == ["se_user_data"]


def test_a_build_is_written_whole(folder: Path) -> None:
    words = ("compute", "kata", "--kernel", "vmlinuz", "--image", "rootfs.img", "--salt", "c8")
    assert run(*words, "-o", "build.json").exit_code == 0
    build = json.loads((folder / "build.json").read_text())
    assert build["files"].keys() == {"kernel", "image"}
    assert build["verity"]["root_hash"] in build["command_line"]
    again = ("--verity-params", build["verity"]["parameters"], "--json")
    assert json.loads(run(*words[:-2], *again).stdout) == build
    other = build["verity"]["parameters"].replace("salt=c8", "salt=c9")
    assert "another root hash" in run(*words[:-2], "--verity-params", other).stderr


def test_a_guest_with_an_initial_file_system(folder: Path) -> None:
    (folder / "line").write_text("panic=1 nr_cpus={vcpus} {params}\n")
    words = ("compute", "kata", "--kernel", "vmlinuz", "--initrd", "node.cred", "--cmdline-template", "line", "--json")
    build = json.loads(run(*words, "--vcpus", "4").stdout)
    assert build["command_line"] == "panic=1 nr_cpus=4"
    assert build["files"].keys() == {"kernel", "initrd"}


UNUSABLE = {
    "no image": ("compute", "pcr", "--uki", "vmlinuz"),
    "no PE": ("compute", "pcr", "--uki", "initdata.toml"),
    "no profile": ("compute", "pcr", "--uki", "pod-vm.efi", "--profile", "1"),
    "PCR of nothing": ("compute", "pcr", "--uki", "pod-vm.efi", "--pcr", "7"),
    "credential's name": ("compute", "pcr", "--uki", "pod-vm.efi", "--credential", "vmlinuz"),
    "one name twice": (
        "compute",
        "pcr",
        "--uki",
        "pod-vm.efi",
        "--credential",
        "node.cred",
        "--credential",
        "node.cred",
    ),
    "empty command line": ("compute", "pcr", "--uki", "pod-vm.efi", "--cmdline", " "),
    "addon with a kernel": ("compute", "pcr", "--uki", "pod-vm.efi", "--addon", "pod-vm.efi"),
    "loader is no PE": ("compute", "pcr", "--uki", "pod-vm.efi", "--loader", "se.hdr"),
    "no GRUB commands": ("compute", "pcr", "--grub-commands", "initdata.toml"),
    "binary GRUB commands": ("compute", "pcr", "--grub-commands", "rootfs.img"),
    "no measurements": ("compute", "pcr", "--measurements", "initdata.toml"),
    "measurements of another bank": ("compute", "pcr", "--measurements", "measurements.json", "--bank", "sha384"),
    "no header": ("compute", "se", "--hdr", "vmlinuz"),
    "no host key": ("compute", "se", "--hdr", "se.hdr", "--host-key", "vmlinuz"),
    "no TOML": ("compute", "init-data", "vmlinuz"),
    "no salt": ("compute", "kata", "--kernel", "vmlinuz", "--image", "rootfs.img"),
    "no hex": ("compute", "kata", "--kernel", "vmlinuz", "--image", "rootfs.img", "--salt", "salt"),
    "empty salt": ("compute", "kata", "--kernel", "vmlinuz", "--image", "rootfs.img", "--salt", "-"),
    "no superblock": ("compute", "kata", "--kernel", "vmlinuz", "--image", "rootfs.img", "--hash-file", "rootfs.img"),
    "odd image": ("compute", "kata", "--kernel", "vmlinuz", "--image", "initdata.toml", "--salt", "c8"),
    "braces": ("compute", "kata", "--kernel", "vmlinuz", "--image", "rootfs.img", "--salt", "c8", "--params", "{x}"),
    "nothing to learn from": ("learn", "initdata.toml", "--series", "x"),
    "claims of no TEE": ("learn", "known.json", "--series", "x", "--tee", "tpm"),
    "another TEE": ("learn", "appraisal.json", "--series", "x", "--tee", "snp"),
    "known is no list": ("learn", "appraisal.json", "--series", "x", "--known", "appraisal.json"),
    "bad series": ("learn", "appraisal.json", "--series", "a b"),
}

WRONG_USE = {
    "no source": ("compute", "pcr"),
    "no such file": ("compute", "pcr", "--uki", "nothing.efi"),
    "no such bank": ("compute", "pcr", "--uki", "pod-vm.efi", "--bank", "sha1"),
    "companions alone": ("compute", "pcr", "--measurements", "measurements.json", "--credential", "node.cred"),
    "two makers of PCR 9": ("compute", "pcr", "--uki", "pod-vm.efi", "--grub-file", "vmlinuz"),
    "no such TEE": ("compute", "init-data", "initdata.toml", "--tee", "toaster"),
    "neither initrd nor image": ("compute", "kata", "--kernel", "vmlinuz"),
    "both": ("compute", "kata", "--kernel", "vmlinuz", "--initrd", "se.hdr", "--image", "rootfs.img"),
    "initrd without a template": ("compute", "kata", "--kernel", "vmlinuz", "--initrd", "se.hdr"),
    "two salts": (
        "compute",
        "kata",
        "--kernel",
        "vmlinuz",
        "--image",
        "rootfs.img",
        "--salt",
        "c8",
        "--hash-file",
        "se.hdr",
    ),
    "no series": ("learn", "appraisal.json"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_artifacts_that_are_refused(name: str, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    result = run(*UNUSABLE[name], "-o", "out.json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "\nNext: " in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use(name: str, folder: Path) -> None:
    result = run(*WRONG_USE[name])
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_learning_registers_nothing_and_leaves_a_draft(folder: Path) -> None:
    result = run("learn", "appraisal.json", "--series", "pod-vm", "--json", "-o", "draft.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is registered" in result.stderr
    draft = value_set.read((folder / "draft.json").read_bytes().strip())
    assert (draft.series, draft.tee, sorted(draft.values)) == ("pod-vm", "tpm", ["tpm_pcr11", "trusted_aks"])


def test_all_phases_are_those_of_systemd_measure() -> None:
    assert ":".join(pcr.PHASES) == "enter-initrd:leave-initrd:sysinit:ready"
