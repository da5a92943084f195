"""Thousands of spoilt evidences: each is refused for a named cause, or says what the good one says."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import tpm
from kbs.client.attesters.test_root import TestRoot
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import EvidenceRejected
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
REPORT_DATA = bytes(range(48))
SIGNED = ("ak_public", "ak_certificate", "signature", "message")
BINARY = (*SIGNED, "event_log")
Body = dict[str, Any]


def get(body: Body, name: str) -> bytes:
    return base64.b64decode(body["tpm_quote"][name] if name in body["tpm_quote"] else body[name])


def put(body: Body, name: str, octets: bytes) -> Body:
    changed = copy.deepcopy(body)
    (changed["tpm_quote"] if name in body["tpm_quote"] else changed)[name] = base64.b64encode(octets).decode()
    return changed


def flipped(body: Body, names: Sequence[str]) -> Iterator[Body]:
    for name in names:
        octets = get(body, name)
        for place in range(len(octets)):
            yield put(body, name, octets[:place] + bytes((octets[place] ^ 1 << place % 8,)) + octets[place + 1 :])


def cut_and_extended(body: Body) -> Iterator[Body]:
    for name in BINARY:
        octets = get(body, name)
        for size in range(0, len(octets), 5):
            yield put(body, name, octets[:size])
            yield put(body, name, octets[size:])
        for tail in (b"\1", b"\xff\xff", octets):
            yield put(body, name, octets + tail)


def listed_values(body: Body) -> Iterator[Body]:
    pcrs = body["tpm_quote"]["pcrs"]
    for place in range(24):
        for other in range(place):
            changed = copy.deepcopy(body)
            values = changed["tpm_quote"]["pcrs"]
            values[place], values[other] = pcrs[other], pcrs[place]
            yield changed
        changed = copy.deepcopy(body)
        del changed["tpm_quote"]["pcrs"][place]
        yield changed


def mixed(body: Body) -> Iterator[Body]:
    """Parts of another good evidence: of another TPM, and of the same one at another challenge."""
    stranger = SoftwareTpm(TestRoot(label="another"), scheme="ecdsa", certified=True)
    stranger.measure(11, 0xD, b"another kernel")
    again = SoftwareTpm(ATTESTER.root, scheme="ecdsa", certified=True)
    for other in (
        stranger.evidence(REPORT_DATA, log=stranger.event_log()),
        again.evidence(REPORT_DATA[::-1], log=again.event_log()),
    ):
        for name in BINARY:
            yield put(body, name, get(other, name))
        yield {**body, "tpm_quote": other["tpm_quote"]}
        yield {**body, "tpm_quote": {**body["tpm_quote"], "pcrs": other["tpm_quote"]["pcrs"]}}


ATTESTER = SoftwareTpm(scheme="ecdsa", certified=True)
GOOD = ATTESTER.evidence(REPORT_DATA, log=ATTESTER.event_log())
KINDS: dict[str, tuple[Callable[[Body], Iterator[Body]], int]] = {
    "flipped": (lambda body: flipped(body, SIGNED), sum(len(get(GOOD, name)) for name in SIGNED)),
    "flipped in the log": (lambda body: flipped(body, ["event_log"]), 600),
    "cut and extended": (cut_and_extended, 700),
    "values": (listed_values, 239),  # the rest swap two equal values
    "mixed": (mixed, 10),
}


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_evidence(kind: str) -> None:
    verifier = tpm.build(VerifierOptions(anchors=ATTESTER.anchors))

    def verify(body: Body) -> Any:
        (found,) = verifier.verify(Evidence(Tee.TPM, body), Endorsements(), Binding(REPORT_DATA), AT)
        return {name: value for name, value in found.claims.items() if not name.endswith("_unverified")}

    good = verify(GOOD)
    spoil, at_least = KINDS[kind]
    refused = 0
    for body in spoil(GOOD):
        try:
            claims = verify(body)
        except EvidenceRejected as error:
            assert type(error) is not EvidenceRejected  # noqa: PT017 - most must raise, a few may not
            refused += 1
            continue
        # What replay does not hash may differ: data of events whose digest is of something else, two spellings.
        claims["uefi_event_logs"] = good["uefi_event_logs"]
        assert {**claims, "event_log": good["event_log"]} == good
    assert refused >= at_least, refused
