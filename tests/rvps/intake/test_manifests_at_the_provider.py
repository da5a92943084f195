"""CoRIM and SWID messages through the provider: who may send which, signed or not, and what is delivered then."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.publishers.model import Publisher, Publishers, Trust, gather
from rvps.service import EmbeddedProvider
from tests.fakes.corim import ES384, Signer, comid, manifest
from tests.fakes.rim import ONES, TWOS, document, resource, signed
from tests.fakes.signing_chain import CHAIN, END, LEAF
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable

VECTORS = Path(__file__).parents[2] / "vectors/rvps"
EXPECTED = json.loads((VECTORS / "manifests.json").read_text())
AT = datetime(2026, 6, 1, tzinfo=UTC)
ADMIN = "admin:alice#1"
DIGESTS = "ACME/RoadRunner/firmware/digests"
INDEX = "NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C/measurement_1"


def message(kind: str, payload: bytes) -> dict[str, Any]:
    return {"version": "0.1.0", "type": kind, "payload": base64.b64encode(payload).decode()}


def trusting(*types: str, namespaces: tuple[str, ...] = ("ACME/", "NVIDIA_Corporation")) -> Publishers:
    return gather([Publisher("acme", frozenset(types), namespaces, Trust(roots=(CHAIN.root_certificate,)))])


def provider(publishers: Publishers | None = None) -> EmbeddedProvider:
    known = trusting("signed-corim", "signed-swid", "corim", "swid") if publishers is None else publishers
    return EmbeddedProvider(MemoryStore(), conflict=Conflict, unavailable=Unavailable, publishers=lambda: known)


def corim(version: int = 1, **options: Any) -> bytes:
    unsigned = manifest(comid(identity={0: "acme", 1: version}), **options)
    return Signer(LEAF.key, ES384, {33: CHAIN.der}).sign(unsigned)


def test_signed_manifests_deliver_their_values_until_their_signature_ends() -> None:
    rvps = provider()
    rvps.register(message("signed-corim", corim()), issuer="unsigned", at=AT)
    rvps.register(message("signed-swid", signed(document())), issuer="unsigned", at=AT)
    assert set(rvps.snapshot(AT).values) == {f"{DIGESTS}/sha-256", INDEX}
    assert set(rvps.snapshot(END - timedelta(seconds=1)).values) == {f"{DIGESTS}/sha-256", INDEX}
    assert rvps.snapshot(END).values == {}


def test_a_manifest_is_sent_for_one_kind_of_names() -> None:
    rvps = provider()
    rvps.register(message("corim", corim()), issuer=ADMIN, at=AT)
    rvps.register(message("swid", signed(document())), issuer=ADMIN, at=AT)
    assert set(rvps.snapshot(AT).values) == {DIGESTS, "NVIDIA_Corporation.GPU.measurement_1"}
    for kind, payload in (("signed-corim", corim()), ("signed-swid", signed(document()))):
        with pytest.raises(StatementUnacceptable, match="taken before"):
            rvps.register(message(kind, payload), issuer=ADMIN, at=AT)


def test_an_older_version_is_refused_for_ever() -> None:
    rvps = provider()
    rvps.register(message("signed-corim", corim(5)), issuer=ADMIN, at=AT)
    for version in (4, 1):
        with pytest.raises(StatementUnacceptable, match="not newer"):
            rvps.register(message("signed-corim", corim(version)), issuer=ADMIN, at=AT)
    rvps.register(message("signed-corim", corim(6)), issuer=ADMIN, at=AT)


@pytest.mark.parametrize("kind", ["corim", "swid"])
def test_a_signature_is_checked_whoever_sends_it_and_whatever_the_type_says(kind: str) -> None:
    payload = corim() if kind == "corim" else signed(document())
    for rvps in (provider(gather([])), provider(trusting("dsse"))):
        with pytest.raises(SignatureRefused):
            rvps.register(message(kind, payload), issuer=ADMIN, at=AT)
        assert rvps.snapshot(AT).values == {}


@pytest.mark.parametrize("kind", ["signed-corim", "signed-swid"])
def test_names_of_others_are_refused(kind: str) -> None:
    rvps = provider(trusting(kind, namespaces=("snp_",)))
    with pytest.raises(StatementUnacceptable, match="acme"):
        rvps.register(message(kind, corim() if kind == "signed-corim" else signed(document())), issuer=ADMIN, at=AT)
    assert rvps.snapshot(AT).values == {}


def test_unsigned_manifests_are_vouched_for_by_their_sender() -> None:
    rvps = provider(gather([]))
    example = (VECTORS / "corim/unsigned-example-corim.cbor").read_bytes()
    (stored,) = rvps.register(message("corim", example), issuer=ADMIN, at=AT)
    assert {stored.name: stored.value} == EXPECTED["corim-unsigned-example"]["values"]
    assert stored.issuer == ADMIN
    rvps.register(message("swid", document([resource(1, ONES, TWOS)])), issuer=ADMIN, at=AT)
    assert rvps.query("NVIDIA_Corporation.GPU.measurement_1", AT) == [ONES, TWOS]


@pytest.mark.parametrize("kind", ["signed-corim", "signed-swid"])
def test_unsigned_manifests_are_no_signed_ones(kind: str) -> None:
    with pytest.raises(SignatureRefused):
        provider().register(message(kind, manifest() if kind == "signed-corim" else document()), issuer=ADMIN, at=AT)


@pytest.mark.parametrize("kind", ["corim", "swid", "signed-corim", "signed-swid"])
def test_fifty_megabytes(kind: str) -> None:
    rvps = provider()
    with pytest.raises(StatementUnacceptable):
        rvps.register({"type": kind, "payload": "A" * (50 << 20)}, issuer=ADMIN, at=AT)
    assert rvps.snapshot(AT).values == {}


# --- what was removed ------------------------------------------------------------------------------------------------


def test_layouts_are_no_longer_read_and_the_refusal_names_what_is() -> None:
    with pytest.raises(StatementUnacceptable, match=r"Could not find extractor for in-toto: .* `dsse`"):
        provider().register(message("in-toto", b"{}"), issuer=ADMIN, at=AT)
