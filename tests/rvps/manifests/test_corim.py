"""CoRIM: what is read of it, and by which names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import cbor2
import pytest

from rvps.errors import StatementUnacceptable
from rvps.extractors import corim as extractor
from rvps.manifests import corim
from rvps.manifests.corim_names import own_values, upstream_records, upstream_values
from tests.fakes.corim import DIGEST, ENVIRONMENT, ES384, Signer, comid, epoch, manifest, measurement
from tests.fakes.signing_chain import key

VECTORS = Path(__file__).parents[2] / "vectors/rvps"
EXAMPLE = (VECTORS / "corim/unsigned-example-corim.cbor").read_bytes()
EXPECTED = json.loads((VECTORS / "manifests.json").read_text())["corim-unsigned-example"]
SOME_UUID = UUID("31fb5abf-023e-4992-aa4e-95f9c1503bfa")
HEX = DIGEST.hex()


def names(*measurements: Any, environment: Mapping[int, Any] = ENVIRONMENT) -> dict[str, Any]:
    return own_values(corim.read(manifest(comid(list(measurements), environment))))


def test_upstream_reads_the_example_alike() -> None:
    assert hashlib.sha256(EXAMPLE).hexdigest() == EXPECTED["corim_sha256"]
    records = upstream_records(corim.read(EXAMPLE))
    assert [{"name": name, "value": value} for name, value in records] == EXPECTED["records_in_order"]
    assert extractor.extract(EXAMPLE) == EXPECTED["values"]


def test_our_names_refuse_three_measurements_of_one_name() -> None:
    with pytest.raises(StatementUnacceptable, match="two measurements are both named 'ACME/RoadRunner/class-61636d"):
        own_values(corim.read(EXAMPLE))


@pytest.mark.parametrize(
    "wrapped", [b"", b"\xd9\x01\xf4", b"\xd9\x01\xf6\xd9\x01\xf4"], ids=["plain", "500", "502 500"]
)
def test_wrapper_tags_of_older_drafts_fall_away(wrapped: bytes) -> None:
    assert extractor.extract(wrapped + EXAMPLE) == EXPECTED["values"]
    signed = Signer(key(5), ES384).sign(EXAMPLE)
    assert extractor.extract(wrapped + signed) == EXPECTED["values"]


def test_our_names_hold_all_that_is_told_apart() -> None:
    environment = {
        0: {0: cbor2.CBORTag(560, b"\x01\x02"), 1: "ACME/Ltd %", 2: "Läufer", 3: 2, 4: 7},
        1: cbor2.CBORTag(550, b"\x03"),
        2: cbor2.CBORTag(37, SOME_UUID.bytes),
    }
    values = {
        1: cbor2.CBORTag(553, 4),
        2: [[1, DIGEST], ["sha-256", DIGEST], [7, bytes(48)]],
        4: cbor2.CBORTag(560, b"\xff"),
        8: "serial",
        11: "name",
        14: {0: [[1, DIGEST]], "rtmr0": [[7, bytes(48)]]},
    }
    prefix = (
        "ACME%2FLtd %25/L%C3%A4ufer/class-0102/layer2/index7/instance-ueid-03/"
        "group-31fb5abf-023e-4992-aa4e-95f9c1503bfa/claim5/name/serial"
    )
    with pytest.raises(StatementUnacceptable, match="not one of sha-256"):
        names(measurement({2: [[10, DIGEST]]}))
    found = names(
        measurement(values | {2: [[1, DIGEST], [1, bytes(32)], [7, bytes(48)]]}, key=5), environment=environment
    )
    assert found == {
        f"{prefix}/digests/sha-256": [HEX, "00" * 32],
        f"{prefix}/digests/sha-384": ["00" * 48],
        f"{prefix}/registers/0/sha-256": [HEX],
        f"{prefix}/registers/rtmr0/sha-384": ["00" * 48],
        f"{prefix}/raw_bytes": "ff",
        f"{prefix}/min_svn": 4,
    }


@pytest.mark.parametrize(
    ("svn", "expected"),
    [(3, {"svn": 3}), (cbor2.CBORTag(552, 3), {"svn": 3}), (cbor2.CBORTag(553, 3), {"min_svn": 3})],
    ids=["plain", "552", "553"],
)
def test_security_versions_are_numbers(svn: Any, expected: Mapping[str, int]) -> None:
    found = names(measurement({1: svn}))
    assert found == {f"ACME/RoadRunner/firmware/{what}": value for what, value in expected.items()}


@pytest.mark.parametrize(
    ("number", "expected"),
    [("text", "text"), (0, "claim0"), (cbor2.CBORTag(37, SOME_UUID.bytes), str(SOME_UUID))],
    ids=["text", "number", "uuid"],
)
def test_measurement_keys(number: Any, expected: str) -> None:
    read = corim.read(manifest(comid([measurement(key=number)])))
    assert upstream_values(read) == {f"ACME/RoadRunner/{expected}/digests": [HEX]}
    assert own_values(read) == {f"ACME/RoadRunner/{expected}/digests/sha-256": [HEX]}


def test_an_oid_as_key_is_left_out_by_upstream_and_kept_by_us() -> None:
    read = corim.read(manifest(comid([measurement(key=cbor2.CBORTag(111, b"\x2a\x03"))])))
    assert list(upstream_values(read)) == ["ACME/RoadRunner/digests"]
    assert list(own_values(read)) == ["ACME/RoadRunner/oid-2a03/digests/sha-256"]


def test_layers_of_one_name_are_told_apart() -> None:
    modules = [comid([measurement()], {0: {1: "ACME", 3: layer}}) for layer in (0, 1)]
    read = corim.read(manifest(*modules))
    assert list(own_values(read)) == [f"ACME/layer{layer}/firmware/digests/sha-256" for layer in (0, 1)]
    assert list(upstream_values(read)) == ["ACME/firmware/digests"]


def test_validity() -> None:
    found = corim.read(manifest(validity={0: epoch(0), 1: epoch(60)}))
    assert (found.valid_from, found.valid_until) == (
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
    )
    assert corim.read(manifest(validity={1: epoch(60)})).valid_from is None


def test_what_is_no_comid_under_another_tag_is_something_else() -> None:
    other = cbor2.CBORTag(505, cbor2.dumps({0: "a CoSWID"}))
    disguised = cbor2.CBORTag(508, comid())
    data = cbor2.dumps(cbor2.CBORTag(501, {0: "id", 1: [other, disguised]}))
    assert list(extractor.extract(data)) == ["ACME/RoadRunner/firmware/digests"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(cbor2.dumps({0: "id", 1: []}), id="no tag 501"),
        pytest.param(cbor2.dumps(cbor2.CBORTag(501, [])), id="no map"),
        pytest.param(cbor2.dumps(cbor2.CBORTag(501, {0: "id"})), id="no tags"),
        pytest.param(cbor2.dumps(cbor2.CBORTag(501, {1: []})), id="no id"),
        pytest.param(cbor2.dumps(cbor2.CBORTag(501, {0: "id", 1: [b""]})), id="a tag that is none"),
        pytest.param(
            cbor2.dumps(cbor2.CBORTag(501, {0: "id", 1: [cbor2.CBORTag(506, {})]})), id="a CoMID without a string"
        ),
        pytest.param(manifest(b"\xff"), id="a CoMID that is no CBOR"),
        pytest.param(manifest(b"\x81" * 10_000 + b"\x00"), id="a CoMID 10000 deep"),
        pytest.param(manifest(comid(identity={0: 5})), id="a tag id that is a number"),
        pytest.param(manifest(comid(identity={0: "a", 1: -1})), id="a tag version below zero"),
        pytest.param(manifest(comid(["x"])), id="a measurement that is text"),
        pytest.param(manifest(comid([{0: "k"}])), id="a measurement without values"),
        pytest.param(manifest(comid([measurement({2: [[1]]})])), id="half a digest"),
        pytest.param(manifest(comid([measurement({2: [[1, "text"]]})])), id="a digest of text"),
        pytest.param(manifest(comid([measurement({1: cbor2.CBORTag(554, 1)})])), id="an SVN of another tag"),
        pytest.param(manifest(comid([measurement({1: True})])), id="an SVN that is true"),
        pytest.param(manifest(comid([measurement({4: cbor2.CBORTag(560, "text")})])), id="raw text"),
        pytest.param(manifest(comid(environment={0: {1: 5}})), id="a vendor that is a number"),
        pytest.param(manifest(validity={}), id="validity without an end"),
        pytest.param(manifest(validity={1: 60}), id="validity without tag 1"),
        pytest.param(manifest(validity={0: epoch(61), 1: epoch(60)}), id="validity that ends before it begins"),
        pytest.param(manifest(validity={1: epoch(2**62)}), id="validity beyond the calendar"),
        pytest.param(bytes(3 << 20), id="three megabytes"),
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(StatementUnacceptable):
        corim.read(data)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({0: "k", 1: {2: [[1, DIGEST]]}, 2: [1]}, "certain keys"),
        (measurement({2: [[1, DIGEST[:31]]]}), "another length"),
        (measurement(key=cbor2.CBORTag(557, b"")), "names nothing"),
        (measurement(key=-1), "names nothing"),
    ],
    ids=["authorized-by", "short digest", "thumbprint as key", "negative key"],
)
def test_our_names_refuse_what_they_cannot_say(bad: Any, words: str) -> None:
    read = corim.read(manifest(comid([measurement(), bad])))
    with pytest.raises(StatementUnacceptable, match=words):
        own_values(read)


def test_many_measurements_are_too_many() -> None:
    many = [measurement({2: []}, key=number) for number in range(corim.MAX_MEASUREMENTS + 1)]
    with pytest.raises(StatementUnacceptable, match="more than 10000 measurements"):
        corim.read(manifest(comid(many)))
