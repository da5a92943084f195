"""Handshake messages: what decodes, what does not, and that nothing else is ever raised."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.errors import MalformedMessage, PayloadTooLarge, TeeNotEnabled, UnsupportedVersion
from kbs.protocol.rcar import (
    Attestation,
    Challenge,
    InitDataDocument,
    Request,
    challenge_extra_params,
    decode_attestation,
    decode_request,
    encode_token_answer,
    new_nonce,
    require_enabled,
)
from kbs.protocol.tee import TEE_ALIASES, Tee
from kbs.protocol.version import ProtocolVersion

ALL = frozenset(Tee)
HASHES = {"supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"]}
REQUEST: dict[str, Any] = {"version": "0.4.0", "tee": "snp", "extra-params": HASHES}
ATTESTATION: dict[str, Any] = {
    "init-data": None,
    "runtime-data": {
        "nonce": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "tee-pubkey": {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ECDH-ES+A256KW",
            "x": "0HJnlbfsER3LBmPbLryP4MCMSe3w6H2dvUt28XGkeps",
            "y": "3gh9AVDwbE32-hqMFnUhF_wfR1P4e8A6nHaq6bxcikE",
        },
    },
    "tee-evidence": {"primary_evidence": {"svn": "1", "report_data": "8a4Y"}, "additional_evidence": ""},
}


def body(message: Any) -> bytes:
    return json.dumps(message).encode()


def changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    message = copy.deepcopy(ATTESTATION)
    change(message)
    return body(message)


# --- Request ----------------------------------------------------------------------------------------------------------


def test_a_request() -> None:
    assert decode_request(body(REQUEST), ALL) == Request(ProtocolVersion.V0_4_0, Tee.SNP, HASHES)


@pytest.mark.parametrize("tee", Tee)
def test_every_tee_by_its_name(tee: Tee) -> None:
    text = body({**REQUEST, "tee": tee.value})
    assert decode_request(text, frozenset({tee})).tee is tee
    with pytest.raises(TeeNotEnabled, match=tee.value):
        decode_request(text, ALL - {tee})


@pytest.mark.parametrize("alias", TEE_ALIASES)
def test_older_names(alias: str) -> None:
    assert decode_request(body({**REQUEST, "tee": alias}), ALL).tee is TEE_ALIASES[alias]


@pytest.mark.parametrize("name", ["", "SNP", "sev", "dpu", "snp ", "sample\n", "az_snp_vtpm", "Tee.SNP", "SAMPLE"])
def test_unknown_tees(name: str) -> None:
    with pytest.raises(TeeNotEnabled) as refusal:
        decode_request(body({**REQUEST, "tee": name}), ALL)
    assert str(refusal.value) == "Request: unknown TEE"


def test_unknown_members_are_ignored_and_any_extra_params_are_kept() -> None:
    anything: list[Any] = [None, "", [], {}, 7, [[1]]]
    for extra in anything:
        assert decode_request(body({**REQUEST, "extra-params": extra, "more": 1}), ALL).extra_params == extra


@pytest.mark.parametrize(
    "text",
    [
        body({k: v for k, v in REQUEST.items() if k != "version"}),
        body({k: v for k, v in REQUEST.items() if k != "tee"}),
        body({k: v for k, v in REQUEST.items() if k != "extra-params"}),
        body({**REQUEST, "version": 0.4}),
        body({**REQUEST, "version": None}),
        body({**REQUEST, "tee": 1}),
        body({**REQUEST, "tee": ["snp"]}),
        body({**REQUEST, "tee": None}),
        body([REQUEST]),
        body(["0.4.0", "snp", ""]),
        body("0.4.0"),
        body(None),
        b"",
        body(REQUEST)[:-1] + b',"tee":"sample"}',
        body(REQUEST)[:-1] + b',"extra-params":1e999}',
        body({**REQUEST, "extra-params": json.loads("[" * 64 + "]" * 64)}),
    ],
)
def test_malformed_requests(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_request(text, ALL)


def test_versions_are_looked_at_before_tees() -> None:
    with pytest.raises(UnsupportedVersion, match=r"request is 0\.3\.0"):
        decode_request(body({**REQUEST, "version": "0.3.0", "tee": "what"}), ALL)


# --- Challenge --------------------------------------------------------------------------------------------------------


def test_a_challenge_has_both_members_in_order() -> None:
    assert Challenge("AAEC", "").encode() == b'{"nonce":"AAEC","extra-params":""}'
    selected = {"selected-hash-algorithm": "sha512"}
    assert Challenge('{"a":1}', selected).encode() == (
        rb'{"nonce":"{\"a\":1}","extra-params":{"selected-hash-algorithm":"sha512"}}'
    )


def test_extra_params_table(vectors: Path) -> None:
    table = json.loads((vectors / "kbs/table-vectors.json").read_text())["challenge_extra_params (2.3)"]
    rows = [row for row in table if row["backend"] == "coco"]
    assert len(rows) == 8
    for row in rows:
        if row.get("error"):
            with pytest.raises(MalformedMessage):
                challenge_extra_params(Tee(row["tee"]), row["in"])
        else:
            assert challenge_extra_params(Tee(row["tee"]), row["in"]) == row["out"]


@pytest.mark.parametrize("tee", sorted(ALL - {Tee.SE}))
def test_others_than_se_are_told_nothing(tee: Tee) -> None:
    for asked in (HASHES, None, "", 7, {"supported-hash-algorithms": "sha256"}):
        assert challenge_extra_params(tee, asked) == ""


@pytest.mark.parametrize("offered", [None, {}, [], ["sha5120"], ["sha-512"], [None, 512, ["sha512"]]])
def test_se_guests_that_cannot_do_sha512(offered: Any) -> None:
    with pytest.raises(MalformedMessage):
        challenge_extra_params(Tee.SE, {"supported-hash-algorithms": offered})


def test_se_guests_that_ask_nothing() -> None:
    for asked in ([], ["supported-hash-algorithms"], 7, True, "supported-hash-algorithms", {"other": 1}):
        assert challenge_extra_params(Tee.SE, asked) == ""


def test_a_nonce_is_32_octets_of_the_source_it_is_given() -> None:
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    assert new_nonce(source) == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert asked == [32]
    assert base64.b64decode(new_nonce(lambda size: b"\xff" * size)) == b"\xff" * 32


# --- Attestation ------------------------------------------------------------------------------------------------------


def test_an_attestation() -> None:
    message = decode_attestation(body(ATTESTATION))
    assert message.nonce == ATTESTATION["runtime-data"]["nonce"]
    assert dict(message.tee_key.members) == ATTESTATION["runtime-data"]["tee-pubkey"]
    assert message.init_data is None
    assert message.primary_evidence == {"svn": "1", "report_data": "8a4Y"}
    assert (message.additional_evidence, message.additional) == ("", ())


def test_members_that_nobody_knows_are_ignored() -> None:
    def add(message: dict[str, Any]) -> None:
        for part in (message, message["runtime-data"], message["tee-evidence"]):
            part["more"] = {"x": 1}

    assert decode_attestation(changed(add)) == decode_attestation(body(ATTESTATION))


@pytest.mark.parametrize("evidence", [None, "", 0, False, [], {}, [1, 2], "text", {"a": None}])
def test_primary_evidence_is_any_json(evidence: Any) -> None:
    message = decode_attestation(changed(lambda m: m["tee-evidence"].update(primary_evidence=evidence)))
    assert message.primary_evidence == evidence


def test_init_data() -> None:
    text = 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\nü = "\u2028"\n'
    document = {"format": "toml", "body": text, "more": 1}
    message = decode_attestation(changed(lambda m: m.update({"init-data": document})))
    assert message.init_data == InitDataDocument("toml", text)
    absent = decode_attestation(changed(lambda m: m.pop("init-data")))
    assert absent.init_data is None


def test_devices_are_sorted_by_name() -> None:
    text = json.dumps({"tpm": 1, "nvidiadpu": [2], "sampledevice": {"svn": "2"}, "azsnpvtpm": None})
    message = decode_attestation(changed(lambda m: m["tee-evidence"].update(additional_evidence=text)))
    assert message.additional_evidence == text
    assert message.additional == (
        (Tee.AZ_SNP_VTPM, None),
        (Tee.NVIDIA_DPU, [2]),
        (Tee.SAMPLE_DEVICE, {"svn": "2"}),
        (Tee.TPM, 1),
    )


def test_no_devices_in_an_object() -> None:
    message = decode_attestation(changed(lambda m: m["tee-evidence"].update(additional_evidence="{}")))
    assert (message.additional_evidence, message.additional) == ("{}", ())


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "null",
        "[]",
        '"sampledevice"',
        "[1]",
        '{"unknown":1}',
        '{"SampleDevice":1}',
        '{"":1}',
        '{"sampledevice":1,"sampledevice":2}',
        '{"nvidia-dpu":1,"nvidiadpu":1}',
        '{"sampledevice":NaN}',
        '{"sampledevice":1e999}',
        '{"sampledevice":"\\ud800"}',
        '\ufeff{"sampledevice":1}',
        '{"sampledevice":1}x',
        '{"sampledevice":' + "[" * 64 + "]" * 64 + "}",
        '{"sampledevice":[' + "1," * 50_000 + "1]}",
        '{"sampledevice":' + "1" * 65 + "}",
    ],
)
def test_malformed_devices(text: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_attestation(changed(lambda m: m["tee-evidence"].update(additional_evidence=text)))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("runtime-data"),
        lambda m: m.pop("tee-evidence"),
        lambda m: m.update({"runtime-data": []}),
        lambda m: m.update({"tee-evidence": "x"}),
        lambda m: m["runtime-data"].pop("nonce"),
        lambda m: m["runtime-data"].update(nonce=None),
        lambda m: m["runtime-data"].update(nonce=["x"]),
        lambda m: m["runtime-data"].pop("tee-pubkey"),
        lambda m: m["runtime-data"].update({"tee-pubkey": None}),
        lambda m: m["runtime-data"]["tee-pubkey"].update(kty="oct"),
        lambda m: m["runtime-data"]["tee-pubkey"].update(alg="dir"),
        lambda m: m["runtime-data"]["tee-pubkey"].update(crv="P-192"),
        lambda m: m["tee-evidence"].pop("primary_evidence"),
        lambda m: m["tee-evidence"].pop("additional_evidence"),
        lambda m: m["tee-evidence"].update(additional_evidence=None),
        lambda m: m["tee-evidence"].update(additional_evidence={}),
        lambda m: m["tee-evidence"].update({"primary-evidence": m["tee-evidence"].pop("primary_evidence")}),
        lambda m: m.update({"init-data": ""}),
        lambda m: m.update({"init-data": []}),
        lambda m: m.update({"init-data": {}}),
        lambda m: m.update({"init-data": {"format": "toml"}}),
        lambda m: m.update({"init-data": {"format": "toml", "body": None}}),
        lambda m: m.update({"init-data": {"format": "json", "body": "{}"}}),
        lambda m: m.update({"init-data": {"format": "TOML", "body": ""}}),
        lambda m: m.update({"init-data": {"body": ""}}),
    ],
)
def test_malformed_attestations(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(MalformedMessage):
        decode_attestation(changed(change))


def test_older_bodies_are_not_taken_for_this_version() -> None:
    old = {"tee-pubkey": ATTESTATION["runtime-data"]["tee-pubkey"], "tee-evidence": {"svn": "1"}}
    with pytest.raises(UnsupportedVersion, match=r"of a protocol before 0\.4\.0"):
        decode_attestation(body(old))
    with pytest.raises(MalformedMessage, match="runtime-data is missing or not an object"):
        decode_attestation(body({**old, "runtime-data": []}))


@pytest.mark.parametrize("text", [b"[]", b"null", b'""', b"", b"{}", body([ATTESTATION])])
def test_attestations_are_objects(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_attestation(text)


@pytest.mark.parametrize("name", ["runtime-data", "tee-evidence", "init-data", "more"])
def test_repeated_members_are_refused(name: str) -> None:
    text = body({**ATTESTATION, "more": 1})
    with pytest.raises(MalformedMessage, match="repeats"):
        decode_attestation(text[:-1] + f',"{name}":null}}'.encode())


def test_too_large() -> None:
    with pytest.raises(PayloadTooLarge):
        decode_attestation(b" " * (2 << 20) + body(ATTESTATION))


def test_require_enabled() -> None:
    require_enabled((), frozenset())
    require_enabled((Tee.SNP, Tee.NVIDIA), frozenset({Tee.SNP, Tee.NVIDIA, Tee.TDX}))
    with pytest.raises(TeeNotEnabled, match="nvidia"):
        require_enabled((Tee.SNP, Tee.NVIDIA), frozenset({Tee.SNP}))


def test_the_answer() -> None:
    assert encode_token_answer("a.b.c") == b'{"token":"a.b.c"}'


# --- anything else ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [body(REQUEST), body(ATTESTATION)])
def test_every_prefix_is_malformed(text: bytes) -> None:
    for length in range(len(text)):
        with pytest.raises(MalformedMessage):
            decode_request(text[:length], ALL)
        with pytest.raises(MalformedMessage):
            decode_attestation(text[:length])


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=6)
JSON = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=3)


@settings(max_examples=300)
@given(
    place=st.sampled_from(
        [
            ("init-data",),
            ("runtime-data",),
            ("runtime-data", "nonce"),
            ("runtime-data", "tee-pubkey"),
            ("runtime-data", "tee-pubkey", "x"),
            ("tee-evidence",),
            ("tee-evidence", "primary_evidence"),
            ("tee-evidence", "additional_evidence"),
        ]
    ),
    value=JSON,
)
def test_any_value_in_any_place_decodes_or_is_malformed(place: tuple[str, ...], value: Any) -> None:
    message = copy.deepcopy(ATTESTATION)
    part = message
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    try:
        decoded = decode_attestation(body(message))
    except MalformedMessage:
        return
    assert isinstance(decoded, Attestation)


@settings(max_examples=200)
@given(st.binary(max_size=80), st.integers(0, 400))
def test_noise_raises_nothing_else(noise: bytes, at: int) -> None:
    for whole in (body(REQUEST), body(ATTESTATION)):
        for text in (noise, whole[:at] + noise + whole[at:], whole[:at] + noise + whole[at + len(noise) :]):
            for decoder in (lambda t: decode_request(t, ALL), decode_attestation):
                try:
                    decoder(text)
                except MalformedMessage:
                    continue
