"""RIMs of GPUs as files: the service's answers, and documents side by side."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from rvps.compute import gpu_rim
from rvps.errors import StatementUnacceptable
from tests.fakes.rim import ONES, TWOS, ZEROS, document, resource

VBIOS = document([resource(1, ONES), resource(2, TWOS)])
DRIVER = document([resource(3, ONES), resource(1, ZEROS, active="False")], version="550.90.07")
VBIOS_PREFIX = "NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C"
DRIVER_PREFIX = "NVIDIA_Corporation/GH100/driver/550.90.07"


def answer(xml: bytes, **changes: Any) -> bytes:
    members = {"id": "NV_GPU_DRIVER_GH100_550.90.07", "rim": base64.b64encode(xml).decode(), "request_id": "1"}
    members["sha256"] = hashlib.sha256(xml).hexdigest()
    merged = {name: value for name, value in (members | changes).items() if value is not None}
    return json.dumps(merged).encode()


def values(*documents: bytes, names: gpu_rim.Names = "own") -> dict[str, Any]:
    return gpu_rim.values([gpu_rim.read(each).rim for each in documents], names)


def test_driver_and_vbios_together() -> None:
    assert values(DRIVER, VBIOS) == {
        f"{DRIVER_PREFIX}/measurement_3": [ONES],
        f"{VBIOS_PREFIX}/measurement_1": [ONES],
        f"{VBIOS_PREFIX}/measurement_2": [TWOS],
        "allowed_driver_versions": ["550.90.07"],
        "allowed_vbios_versions": ["96.00.74.00.1C"],
    }


def test_upstreams_names() -> None:
    found = values(DRIVER, VBIOS, names="upstream")
    assert list(found)[:3] == [f"NVIDIA_Corporation.GPU.measurement_{index}" for index in (3, 1, 2)]


def test_several_versions_of_one_kind_may_share_indexes() -> None:
    newer = document([resource(1, TWOS)], version="96.00.88.00.01")
    assert values(VBIOS, newer)["allowed_vbios_versions"] == ["96.00.74.00.1C", "96.00.88.00.01"]


def test_driver_and_vbios_may_not_contradict_each_other() -> None:
    clashing = document([resource(2, ONES)], version="550.90.07")
    with pytest.raises(StatementUnacceptable, match="GH100: vbios and driver both state index 2 as active"):
        values(VBIOS, clashing)
    assert values(VBIOS, document([resource(2, ONES)], version="550.90.07", product="GB100"))


@pytest.mark.parametrize("names", ["own", "upstream"])
def test_the_same_document_twice(names: gpu_rim.Names) -> None:
    with pytest.raises(StatementUnacceptable, match="another document states the same names"):
        values(VBIOS, VBIOS, names=names)


def test_a_document_that_states_nothing() -> None:
    with pytest.raises(StatementUnacceptable, match="no reference values"):
        values(VBIOS, document([resource(1, ZEROS)], version="550.90.07"))


def test_an_answer_of_the_service() -> None:
    found = gpu_rim.read(answer(DRIVER))
    assert (found.xml, found.rim.kind) == (DRIVER, "driver")
    encoded = base64.b64encode(DRIVER)
    assert gpu_rim.read(answer(DRIVER, sha256=hashlib.sha256(encoded).hexdigest())) == found
    assert gpu_rim.read(b"\n " + answer(VBIOS, id="NV_GPU_VBIOS_1010_0200_882_960074001C")).rim.kind == "vbios"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(answer(DRIVER, sha256="00" * 32), "not that of", id="another checksum"),
        pytest.param(answer(DRIVER, sha256="é"), "not that of", id="a checksum that is none"),
        pytest.param(answer(DRIVER, sha256=None), "no `rim` or no `sha256`", id="no checksum"),
        pytest.param(answer(DRIVER, rim=None), "no `rim` or no `sha256`", id="no document"),
        pytest.param(answer(DRIVER, rim="*"), "not base64", id="no base64"),
        pytest.param(answer(DRIVER, id="NV_GPU_DRIVER_GH100_550.90.08"), "another kind or version", id="version"),
        pytest.param(answer(DRIVER, id="NV_GPU_VBIOS_1_2_3_5509007"), "another kind or version", id="kind"),
        pytest.param(answer(DRIVER, id="NV_NIC_FIRMWARE_CX7_1"), "not that of a GPU", id="another product"),
        pytest.param(answer(DRIVER, id=5), "not that of a GPU", id="an id that is a number"),
        pytest.param(answer(b"<x/>"), "no SoftwareIdentity", id="another document"),
        pytest.param(b'{"rim": "", "rim": ""}', "repeated", id="a member twice"),
        pytest.param(b"{", "not JSON", id="half of it"),
        pytest.param(b"{" * 100_000, "JSON|nested", id="deep"),
    ],
)
def test_refused(raw: bytes, words: str) -> None:
    with pytest.raises(StatementUnacceptable, match=words):
        gpu_rim.read(raw)
