"""`rvps compute rim | corim` by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rvps import cli
from rvps.cli.compute import manifests
from tests.fakes.corim import ES384, Signer, comid, epoch, manifest, measurement
from tests.fakes.rim import ONES, TWOS, document, resource, signed
from tests.fakes.signing_chain import CHAIN, END

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(manifests, "system_clock", lambda: END)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vbios.xml").write_bytes(signed(document()))
    (tmp_path / "driver.xml").write_bytes(signed(document([resource(9, TWOS)], version="550.90.07")))
    (tmp_path / "root.pem").write_bytes(CHAIN.root_certificate.public_bytes(Encoding.PEM))
    (tmp_path / "acme.corim").write_bytes(manifest(validity={1: epoch(1798761600)}))
    (tmp_path / "signed.corim").write_bytes(Signer(CHAIN.leaf.key, ES384).sign(manifest()))
    same = comid([measurement(), measurement({2: [[1, bytes(32)]]})])
    (tmp_path / "same.corim").write_bytes(manifest(same))
    return lambda *words: click.testing.CliRunner().invoke(cli.main, ["compute", *words])


def test_a_value_set_of_two_documents(run: Run) -> None:
    done = run("rim", "driver.xml", "vbios.xml", "--root", "root.pem", "--json")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (0, "Note: signatures checked as of 2027-01-01T00:00:00Z")
    assert "Note: driver.xml: its signing certificate ends 2027-01-01T00:00:00Z" in done.stderr
    found = json.loads(done.stdout)
    assert found["series"] == "nvidia-gpu"
    assert found["values"]["allowed_driver_versions"] == ["550.90.07"]
    assert found["values"]["NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C/measurement_1"] == [ONES]
    assert [each["name"] for each in found["artifacts"]] == ["driver.xml", "vbios.xml"]


def test_without_a_root_it_says_what_was_not_checked(run: Run) -> None:
    done = run("rim", "vbios.xml", "--names", "upstream")
    assert "NVIDIA_Corporation.GPU.measurement_1" in done.stdout
    assert "the signature was not checked" in done.stderr


def test_an_old_document_can_be_checked_as_of_its_time(run: Run) -> None:
    done = run("rim", "vbios.xml", "--root", "root.pem", "--at", "2026-06-01T00:00:00Z", "--json")
    assert done.stderr == "Note: signatures checked as of 2026-06-01T00:00:00Z\n"


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["rim"], 2, "Missing argument"),
        (["rim", "absent.xml"], 2, "does not exist"),
        (["rim", "vbios.xml", "--at", "2026-06-01T00:00:00Z"], 2, "give --root too"),
        (["rim", "vbios.xml", "vbios.xml"], 1, "another document states the same names"),
        (["rim", "acme.corim"], 1, "SWID: not"),
        (["rim", "vbios.xml", "--root", "vbios.xml"], 1, "not a file of PEM certificates"),
        (["rim", "vbios.xml", "--root", "root.pem", "--at", "2028-01-01T00:00:00Z"], 1, "has expired"),
        (["rim", "vbios.xml", "--series", "a b"], 1, "`series` is"),
        (["corim", "vbios.xml"], 1, "not the CBOR that is read here"),
        (["corim", "same.corim"], 1, "two measurements are both named"),
    ],
    ids=[
        "nothing", "no file", "a time without a root", "a file twice", "no XML", "no PEM", "expired", "a bad series",
        "no CBOR", "two of one name",
    ],
)  # fmt: skip
def test_wrong_input(run: Run, words: list[str], status: int, text: str) -> None:
    done = run(*words)
    assert (done.exit_code, text in done.stderr) == (status, True), done.stderr
    assert done.stdout == ""
    if status == 1:
        assert "\nNext: " in done.stderr


def test_a_manifest(run: Run) -> None:
    done = run("corim", "acme.corim", "--json")
    assert list(json.loads(done.stdout)["values"]) == ["ACME/RoadRunner/firmware/digests/sha-256"]
    assert done.stderr == "Note: its rim-validity ends 2027-01-01T00:00:00Z: sign for no longer\n"


def test_a_signed_manifest_is_not_checked_here(run: Run) -> None:
    done = run("corim", "signed.corim", "--json")
    assert "the signature was not checked" in done.stderr


def test_upstreams_names_keep_the_last(run: Run) -> None:
    done = run("corim", "same.corim", "--names", "upstream", "--json")
    assert json.loads(done.stdout)["values"] == {"ACME/RoadRunner/firmware/digests": ["00" * 32]}
