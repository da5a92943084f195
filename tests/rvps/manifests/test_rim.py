"""SWID RIM: hostile XML, and what honest documents state."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps.errors import StatementUnacceptable
from rvps.extractors import swid as extractor
from rvps.manifests import rim
from tests.fakes.rim import ONES, TWOS, ZEROS, document, resource

VECTORS = Path(__file__).parents[2] / "vectors/rvps"
EXAMPLE = base64.b64decode((VECTORS / "swid/test-rim.b64").read_bytes())
EXPECTED = json.loads((VECTORS / "manifests.json").read_text())["swid-nvidia-gh100-vbios"]


def read(data: bytes) -> rim.Rim:
    return rim.read(rim.parse(data))


def test_upstream_reads_the_real_document_alike() -> None:
    assert hashlib.sha256(EXAMPLE).hexdigest() == EXPECTED["rim_sha256"]
    assert extractor.extract(EXAMPLE) == EXPECTED["values"]


def test_our_names_of_the_real_document() -> None:
    found = rim.own_values(read(EXAMPLE))
    upstream: Mapping[str, Any] = EXPECTED["values"]
    prefix = "NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C/"
    assert found == {name.replace("NVIDIA_Corporation.GPU.", prefix): value for name, value in upstream.items()}


@pytest.mark.parametrize(
    ("version", "edition", "kind"),
    [
        ("96.00.74.00.1C", "GPU", "vbios"),
        ("550.90.07", "GPU", "driver"),
        ("545.00", "GPU", "driver"),
        ("1.2", "GPU", "gpu"),
        ("96.10.55.00.01", "Switch", "switch"),
    ],
)
def test_what_a_document_is_about(version: str, edition: str, kind: str) -> None:
    assert read(document(version=version, edition=edition)).kind == kind


def test_only_active_measurements_count_for_us() -> None:
    found = read(document([resource(1, ONES, active="False"), resource(2, ZEROS), resource(3, ZEROS, TWOS, ONES)]))
    assert list(rim.own_values(found).values()) == [[TWOS, ONES]]
    assert rim.upstream_values(found) == {
        "NVIDIA_Corporation.GPU.measurement_1": [ONES],
        "NVIDIA_Corporation.GPU.measurement_3": [TWOS, ONES],
    }


def test_upstream_counts_on_until_a_hash_is_missing() -> None:
    gap = resource("5-a", ONES).replace("size=", f'ns2:Hash2="{TWOS}" size=')
    assert rim.upstream_values(read(document([gap]))) == {"NVIDIA_Corporation.GPU.measurement_5_a": [ONES]}


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ([resource(1, ONES), resource(1, TWOS)], "comes twice"),
        ([resource("01", ONES)], "no number"),
        ([resource(1, ONES, alternatives=2)], "as many hashes"),
        ([resource(1, ONES[1:])], "96 hex digits"),
        ([resource(1, "g" * 96)], "96 hex digits"),
    ],
    ids=["an index twice", "an index with a zero before it", "fewer than it says", "a short hash", "no hex"],
)
def test_our_names_refuse(resources: list[str], words: str) -> None:
    with pytest.raises(StatementUnacceptable, match=words):
        rim.own_values(read(document(resources)))


@pytest.mark.parametrize("part", ["product", "version"])
@pytest.mark.parametrize("text", ["", "a/b", ".."])
def test_parts_of_a_name_do_not_blur(part: str, text: str) -> None:
    with pytest.raises(StatementUnacceptable, match="is missing, or is not letters"):
        rim.own_values(read(document(**{part: text})))


@pytest.mark.parametrize(("text", "serial"), [("0", 1), ("41", 42)])
def test_the_revision_of_a_document(text: str, serial: int) -> None:
    assert rim.revision(read(document(tag_version=text))) == serial


@pytest.mark.parametrize("text", ["", "-1", "x", "1234567890"])
def test_revisions_that_are_none(text: str) -> None:
    with pytest.raises(StatementUnacceptable, match="tagVersion"):
        rim.revision(read(document(tag_version=text)))


def _bomb() -> bytes:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(12))
    return f"<!DOCTYPE x [{entities}]><x>&e11;</x>".encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_bomb(), id="a billion laughs"),
        pytest.param(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', id="an external entity"),
        pytest.param(b'<!DOCTYPE x SYSTEM "http://example.com/x.dtd"><x/>', id="an external document type"),
        pytest.param(b'<!DOCTYPE x [<!ATTLIST x a CDATA "b">]><x/>', id="an attribute by default"),
        pytest.param("<!DOCTYPE x []><x/>".encode("utf-16"), id="the same in UTF-16"),
        pytest.param("<!DOCTYPE x []><x/>".encode("utf-7"), id="the same in UTF-7"),
        pytest.param(b"<x>&e;</x>", id="an entity that nobody declared"),
        pytest.param(b"<x><!-- <!DOCTYPE y> --></x>", id="a document type in a comment"),
        pytest.param(b"<x>" * 10_000 + b"</x>" * 10_000, id="10000 deep"),
        pytest.param(b"<x a='1' a='2'/>", id="an attribute twice"),
        pytest.param(b"<x/><y/>", id="two roots"),
        pytest.param(b"<x>", id="half a document"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"<x>\x00</x>", id="a zero octet"),
    ],
)
def test_hostile_xml_is_refused(data: bytes) -> None:
    with pytest.raises(StatementUnacceptable, match=r"^SWID: "):
        rim.parse(data)


def test_the_document_does_not_choose_how_it_is_decoded() -> None:
    data = '<?xml version="1.0" encoding="iso-8859-1"?><x a="é"/>'.encode()
    assert rim.parse(data).get("a") == "é"


def test_large_documents_are_refused_before_they_are_read() -> None:
    data = b"<x>" + bytes(50 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(StatementUnacceptable, match="more than 1048576 bytes"):
            rim.parse(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<x/>", "no SoftwareIdentity"),
        (document().replace(b"ns0:Meta", b"ns0:Mate"), "no Meta"),
        (document().replace(b"ns0:Payload", b"ns0:Evidence"), "no Payload"),
        (document(edition=""), "no edition"),
        (document(manufacturer=""), "PlatformManufacturerStr"),
        (document([resource("", ONES)]), "has no index"),
        (document([resource(1)] * (rim.MAX_RESOURCES + 1)), "more than 4096"),
    ],
    ids=["another root", "no Meta", "no Payload", "no edition", "no manufacturer", "no index", "too many"],
)
def test_documents_that_state_nothing(data: bytes, words: str) -> None:
    with pytest.raises(StatementUnacceptable, match=words):
        read(data)


@given(st.integers(0, len(EXAMPLE) - 1), st.integers(1, 255))
def test_never_anything_but_values_or_a_refusal(position: int, change: int) -> None:
    broken = bytearray(EXAMPLE)
    broken[position] ^= change
    try:
        rim.own_values(read(bytes(broken)))
    except StatementUnacceptable:
        return
