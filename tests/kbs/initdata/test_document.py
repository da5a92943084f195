"""Documents in every form they travel in: the vectors, and what is none."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.errors import MalformedMessage
from kbs.initdata import annotation, document

VECTORS: Any = json.loads(Path("tests/vectors/initdata/initdata-vectors.json").read_text())
DOCUMENTS = VECTORS["documents"]
NEGATIVE = {case["name"]: case for case in VECTORS["negative"]}
TEXT = DOCUMENTS[0]["toml"]
RAW = TEXT.encode()
FIELDS = {
    "tdx": "tdx_mrconfigid_48_hex",
    "snp": "snp_hostdata_32_hex",
    "cca": "cca_personalization_64_hex",
    "sgx": "sgx_configid_64_hex",
}


def pod(value: str, key: str = annotation.KEY, kind: str = "Pod") -> bytes:
    metadata = {"name": "web", "annotations": {"a": "b", key: value}}
    body: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {}}
    if kind == "Deployment":
        body = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": {"template": body}}
    return json.dumps(body).encode()


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case["algorithm"])
def test_vectors(case: Any) -> None:
    assert VECTORS["annotation_key"] == annotation.KEY
    raw = case["toml"].encode()
    assert len(raw) == case["toml_len"]
    assert annotation.encode(raw) == case["annotation_value"]
    for given_raw, form in (
        (raw, "toml"),
        (case["annotation_value"].encode(), "annotation"),
        (base64.b64decode(case["annotation_value"]), "gzip"),
        (pod(case["annotation_value"]), "manifest"),
        (pod(case["annotation_value"], kind="Deployment"), "manifest"),
    ):
        found = document.read(given_raw)
        assert (found.raw, found.form, found.algorithm) == (raw, form, case["algorithm"])
        assert found.digest.hex() == case["digest_hex"]
    found = document.read(raw)
    wanted = case["expected_fields"]
    values = document.field_values(found.digest)
    assert {tee: values[tee] for tee in FIELDS} == {tee: wanted[name] for tee, name in FIELDS.items()}
    assert str(values["se"]).ljust(128, "0")[:128] == wanted["se_user_data_256_hex_prefix64"]
    for tee in ("tpm", "az-snp-vtpm", "az-tdx-vtpm"):
        assert values[tee] == wanted.get("pcr8_sha256_hex")
        if values[tee] is None:
            with pytest.raises(MalformedMessage, match="sha256"):
                document.field_value(tee, found.digest)
        else:
            assert document.field_value(tee, found.digest) == values[tee]


def test_one_more_newline_and_the_gzip_data_are_other_digests() -> None:
    more = document.read(RAW + b"\n").digest.hex()
    assert more == NEGATIVE["one-extra-newline"]["digest_sha256_hex"] != DOCUMENTS[0]["digest_hex"]
    packed = annotation.compress(RAW)
    assert hashlib.sha256(packed).hexdigest() == NEGATIVE["digest-of-gzip"]["digest_sha256_hex"]
    assert document.read(packed).digest.hex() == DOCUMENTS[0]["digest_hex"]


def test_how_it_was_packed_makes_no_difference() -> None:
    for packed in (gzip.compress(RAW, 1, mtime=7), gzip.compress(RAW, 0), annotation.compress(RAW)):
        lines = base64.encodebytes(packed)
        assert document.read(lines).digest.hex() == DOCUMENTS[0]["digest_hex"]


def test_a_manifest_of_many_documents() -> None:
    value = DOCUMENTS[0]["annotation_value"]
    text = b"kind: Service\nmetadata: {name: a}\n---\n" + pod(value) + b"\n---\n" + pod(value, kind="Deployment")
    found = document.read(text)
    assert found.raw == RAW
    assert found.annotations_size == len("a" + "b" + annotation.KEY + value)
    other = DOCUMENTS[1]["annotation_value"]
    with pytest.raises(MalformedMessage, match="several"):
        document.read(text + b"\n---\n" + pod(other))


def test_a_document_whose_policy_looks_like_a_manifest_is_toml() -> None:
    raw = RAW.replace(b"package agent_policy\n", b"package agent_policy\nkind: 1\nmetadata: {}\n")
    assert document.read(raw).form == "toml"


def bomb(size: int) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packing.compress(bytes(1 << 20)) for _ in range(size >> 20)), packing.flush()])


BOMB = bomb(16 << 20)
WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "version"),
    "blank": (b" \n\t ", "version"),
    "text": (b"hello, world", "not TOML"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "nul": (RAW + b"\0", "not TOML"),
    "latin-1": (RAW.replace(b"frontend", b"gr\xfc\xdfe"), "not UTF-8"),
    "utf-16": (TEXT.encode("utf-16"), "not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + RAW, "byte order mark"),
    "key twice": (RAW + b'"workload" = "x"\n', "not TOML"),
    "table twice": (RAW + b"[data]\n", "not TOML"),
    "no data": (b'version = "0.1.0"\nalgorithm = "sha256"\n', "data"),
    "number": (RAW + b"n = 1\n", "data"),
    "algorithm": (RAW.replace(b'"sha256"', b'"sha-256"'), "algorithm"),
    "no version": (RAW.replace(b"version", b"Version"), "version"),
    "deep": (b"a = " + b"[" * 100_000, "nested"),
    "dotted": (b".".join([b"a"] * 40_000) + b" = 1", "too many parts"),
    "50 MB": (bytes(50 << 20), "more than"),
    "1 MB": (RAW + b"#" * (1 << 20), "more than"),
    "gzip cut": (annotation.compress(RAW)[:-9], "cut short"),
    "gzip damaged": (annotation.compress(RAW)[:-8] + bytes(8), "damaged"),
    "gzip twice": (annotation.compress(RAW) * 2, "follows"),
    "gzip and more": (annotation.compress(RAW) + b"\0", "follows"),
    "gzip bomb": (BOMB, "unpacks to more"),
    "gzip of gzip": (annotation.compress(annotation.compress(RAW)), "not UTF-8"),
    "bomb in base64": (base64.b64encode(BOMB), "unpacks to more"),
    "base64 cut": (annotation.encode(RAW).encode()[:-3], "base64"),
    "base64 url": (b"H4sI" + b"-_" * 20, "base64"),
    "base64 of toml": (base64.b64encode(RAW), "not of gzip"),
    "base64 padding inside": (b"H4sI=AAA", "base64"),
    "pod without": (pod("x", "other"), "no annotation"),
    "pod with an old name": (pod(annotation.encode(RAW), annotation.OLD_KEYS[0]), "old name"),
    "pod with bad value": (pod("$$$"), "base64"),
    "pod with a number": (b"kind: Pod\nmetadata: {annotations: {" + annotation.KEY.encode() + b": 1}}", "not a text"),
    "pod with a bomb": (pod(base64.b64encode(BOMB).decode()), "unpacks to more"),
    "pod with aliases": (b"kind: Pod\na: &a [1]\nb: [*a, *a]\n", "aliases"),
    "pod in other YAML": (b"kind: Pod\n\tx: [", "malformed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_document(name: str) -> None:
    raw, said = WRONG[name]
    with pytest.raises(MalformedMessage, match=said):
        document.read(raw)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.binary(max_size=60).map(lambda raw: b"\x1f\x8b" + raw), st.text().map(str.encode)
    )
)
def test_nothing_else_is_raised(raw: bytes) -> None:
    with suppress(MalformedMessage):
        assert document.read(raw).raw


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=4096))
def test_packing_comes_back(raw: bytes) -> None:
    assert annotation.decode(annotation.encode(raw)) == raw
    assert annotation.encode(raw) == annotation.encode(raw)


def test_claims_of_every_tee_but_those_that_show_none() -> None:
    found = document.read(RAW)
    claims = document.claims_of(found.digest)
    values = document.field_values(found.digest)
    shown = {str(value) for tee, value in values.items() if tee not in ("se", "sample")}
    assert set(claims) == shown | {base64.b64encode(found.digest).decode()}
    assert list(claims) == sorted(claims)
    assert document.field_of("snp") == "HOST_DATA"
    with pytest.raises(MalformedMessage, match="shows no init data"):
        document.field_value("hygondcu", found.digest)
