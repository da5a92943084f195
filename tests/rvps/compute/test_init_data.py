"""Init data: digests and what each TEE shows of them, against the vectors and against the broker's own reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.init_data import parse_init_data
from kbs.errors import MalformedMessage
from rvps.compute.init_data import FIELDS, claim, digest_of, field_value, read
from rvps.errors import ArtifactUnusable

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors/initdata/initdata-vectors.json").read_text("utf-8")
)
DOCUMENTS = {one["algorithm"]: one for one in VECTORS["documents"]}
HEAD = 'version = "0.1.0"\nalgorithm = "sha256"\n'
FIELD_OF = {
    "tdx_mrconfigid_48_hex": "tdx",
    "snp_hostdata_32_hex": "snp",
    "cca_personalization_64_hex": "cca",
    "sgx_configid_64_hex": "sgx",
    "pcr8_sha256_hex": "tpm",
}


@pytest.mark.parametrize("algorithm", DOCUMENTS)
def test_vectors(algorithm: str) -> None:
    document = DOCUMENTS[algorithm]
    found = read(document["toml"].encode())
    assert (found.algorithm, found.digest.hex()) == (algorithm, document["digest_hex"])
    fields = document["expected_fields"]
    for name, tee in FIELD_OF.items():
        if name in fields:
            assert claim(tee, found.digest) == fields[name]
    assert fields["se_user_data_256_hex_prefix64"].startswith(claim("se", found.digest))


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
@pytest.mark.parametrize("tee", ["tpm", "az-snp-vtpm", "az-tdx-vtpm"])
def test_a_vtpm_takes_32_bytes_only(algorithm: str, tee: str) -> None:
    with pytest.raises(ArtifactUnusable, match="use algorithm sha256"):
        field_value(tee, read(DOCUMENTS[algorithm]["toml"].encode()).digest)


def test_each_byte_counts() -> None:
    (negative,) = [one for one in VECTORS["negative"] if one["name"] == "one-extra-newline"]
    assert read(DOCUMENTS["sha256"]["toml"].encode() + b"\n").digest.hex() == negative["digest_sha256_hex"]


def test_the_sample_tee_echoes_base64() -> None:
    assert claim("sample", b"\xfb\xff") == "+/8="


def test_sm3() -> None:
    """The example of GB/T 32905-2016, A.1."""
    assert digest_of(b"abc", "sm3").hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"


@pytest.mark.parametrize("tee", [*FIELDS, "hygondcu"])
def test_only_tees_that_show_init_data(tee: str) -> None:
    if tee in FIELDS:
        size = FIELDS[tee].size
        assert len(field_value(tee, bytes(range(32)))) == (32 if size is None else size)
    else:
        with pytest.raises(ArtifactUnusable, match="shows no init data"):
            field_value(tee, bytes(32))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "`version` is missing"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf" + HEAD.encode() + b"[data]\n", "byte order mark"),
        (b"version = 1\n", "`version`"),
        (b'version = "0.1.0"\n[data]\n', "`algorithm` must be"),
        (b'version = "0.1.0"\nalgorithm = "sha-256"\n[data]\n', "`algorithm` must be"),
        (b'version = "0.1.0"\nalgorithm = "md5"\n[data]\n', "`algorithm` must be"),
        (b'version = "0.1.0"\nalgorithm = ["sha256"]\n[data]\n', "`algorithm` must be"),
        (HEAD.encode(), "`data` is missing"),
        (HEAD.encode() + b"[data]\nx = 1\n", "not a table of strings"),
        (HEAD.encode() + b'version = "0.1.0"\n[data]\n', "not TOML"),
        (HEAD.encode() + b'[data]\nx = "1"\nx = "2"\n', "not TOML"),
        (HEAD.encode() + b"[data\n", "not TOML"),
        (HEAD.encode() + b"a" + b".a" * 40 + b" = 1\n", "too many parts"),
        (HEAD.encode() + b"x = " + b"[" * 100_000, "nested|not TOML"),
        (b"#" * (513 << 10), "more than"),
        (HEAD.encode() + b"x = " + b"9" * 6000 + b"\n[data]\n", "a number is too long"),
    ],
    ids=range(17),
)
def test_what_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        read(text)


@given(
    st.sampled_from(["", HEAD, HEAD + "[data]\n", 'version = "1"\n']),
    st.text(st.characters(codec="utf-8"), max_size=60),
)
def test_the_broker_reads_the_same_documents(head: str, text: str) -> None:
    """What one takes, the other takes, with the same digest."""
    raw = head + text
    try:
        there: bytes | None = parse_init_data(raw).digest
    except MalformedMessage:
        there = None
    try:
        here: bytes | None = read(raw.encode()).digest
    except ArtifactUnusable:
        here = None
    assert here == there
