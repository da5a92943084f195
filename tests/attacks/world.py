"""What the attacks run against: a data directory, brokers on it (each is one worker), genuine guests, one clock.

Hardware is the software SNP of `tests.fakes`, so that the default policies decide and really affirm.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from kbs import app
from kbs.admin import data_directory
from kbs.attestation.verifiers.snp.verifier import SnpVerifier
from kbs.audit.verify import VerificationReport, verify
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.guest import Attester, GuestClient
from kbs.client.tee_keys import TeeKeyPair
from kbs.policy.wasm import WasmEngine
from kbs.tokens.keys import load_signing_key
from tests.fakes.broker import START, Answer, BrokerUnderTest, Edge, Request, StoppedClock, reference_message, session

PATH: Final = "default/key/1"
SECRET: Final = b"canary-4f1c2b: nobody else may read this"
REFERENCE_VALUES: Final[Mapping[str, Any]] = {
    "snp_launch_measurement": ["ab" * 48],
    "snp_bootloader": [4],
    "snp_tee_svn": [0],
    "snp_snp_svn": [24],
    "snp_microcode": [219],
}
_ENGINE: Final = WasmEngine(lambda: START)  # what a policy is compiled to is the same for every broker


@functools.cache
def chip(product: str = "Milan", kind: str = "vcek") -> SoftwareSnp:
    """The genuine chip of this product."""
    return SoftwareSnp(product=product, kind=kind)


@dataclass
class SnpGuest:
    """`kbs.client.guest.Attester` over a software chip. changes: as `SoftwareSnp.evidence`."""

    chip: SoftwareSnp = field(default_factory=chip)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        return self.chip.evidence(**{"report_data": report_data, "init_data": init_data, **self.changes})


class Worker(BrokerUnderTest):
    """One broker on the data directory of a site, safe to be asked from several threads."""

    def __init__(self, site: Site, edge: Edge) -> None:
        self._loop_thread = ThreadPoolExecutor(1)
        super().__init__(site.data, edge, settings=site.settings, clock=site.clock)

    def send(self, request: Request) -> Answer:
        """Send one request."""
        if self.edge is Edge.FLASK:
            return super().send(request)
        return self._loop_thread.submit(super().send, request).result(timeout=60)

    def send_all(self, requests: Any) -> list[Answer]:
        """Send requests at the same time."""
        if self.edge is Edge.FLASK:
            return super().send_all(requests)
        return self._loop_thread.submit(super().send_all, requests).result(timeout=60)

    def guest(self, attester: Attester | None = None, **arguments: Any) -> GuestClient:
        """A guest with a key of its own; by default on the genuine chip."""
        arguments = {"key": TeeKeyPair.generate(), "tee": "snp", **arguments}
        return super().guest(attester=attester or SnpGuest(), **arguments)

    def sample_guest(self, **arguments: Any) -> GuestClient:
        """A guest on the software TEE."""
        return super().guest(key=TeeKeyPair.generate(), **arguments)

    def prepare(self, values: Mapping[str, Any] = REFERENCE_VALUES, secret: bytes = SECRET) -> None:
        """Put a secret and reference values there."""
        self.put_secret(PATH, secret)
        answer = self.admin("POST", "reference-value", reference_message(values))
        assert answer.status == 200, answer.body

    def attest(self, body: bytes, cookie: str | None) -> Answer:
        """`POST attest`."""
        return self.call("POST", "/kbs/v0/attest", {} if cookie is None else session(cookie), body)

    def get(self, path: str = PATH, *, cookie: str | None = None, token: str | None = None) -> Answer:
        """`GET resource/<path>`."""
        headers = {} if cookie is None else session(cookie)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self.call("GET", f"/kbs/v0/resource/{path}", headers)

    def close(self) -> None:
        """Stop."""
        self._loop_thread.submit(self.runner.close).result()
        self._loop_thread.shutdown()
        super().close()


class Site:
    """A data directory with its settings and clock, and the workers that run on it."""

    def __init__(
        self,
        folder: Path,
        *,
        source: SoftwareSnp | None = None,
        crl: bytes | None = b"",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """source: whose roots are trusted. crl: the revocation list at hand; empty: a fresh one; None: no list."""
        source = source or chip()
        self.clock = StoppedClock()
        self.data = folder / "broker"
        data_directory.make(
            self.data,
            names=(),
            tees=("snp",),
            insecure_sample=True,
            insecure_http=False,
            token_lifetime=timedelta(days=7),
            now=self.clock(),
        )
        (self.data / "anchors.json").write_text(json.dumps(source.anchors))
        if crl is not None:
            for place in ("crl", "vlek-crl"):
                (self.data / "offline" / place).mkdir(parents=True)
                (self.data / "offline" / place / f"{source.product}.crl").write_bytes(crl or source.crl())
        self.settings = {
            "KBS__STORAGE__KIND": "sqlite",
            "KBS__ATTESTATION__ANCHORS__SNP": "anchors.json",
            "KBS__ENDORSEMENTS__NETWORK": "false",
            "KBS__ENDORSEMENTS__OFFLINE": "offline",
            **{f"KBS__ATTESTATION__OPTIONS__SNP__{k.upper()}": json.dumps(v) for k, v in source.options.items()},
            **(settings or {}),
        }
        self.workers: list[Worker] = []

    def worker(self, edge: Edge = Edge.ASGI) -> Worker:
        """Start one more."""
        found = Worker(self, edge)
        self.workers.append(found)
        return found

    def stop(self) -> None:
        """Stop all workers; what they kept in memory is gone."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The audit log, or the records of one kind."""
        lines = [json.loads(line) for line in (self.data / "audit/log.jsonl").read_text().splitlines()]
        return [line for line in lines if kind in (None, line["kind"])]

    def audit_report(self) -> VerificationReport:
        """What an auditor finds."""
        key: Any = load_signing_key(self.data / "keys/audit.pem").public
        return verify(self.data / "audit/log.jsonl", self.data / "audit-head", key)


def share_what_is_slow_to_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile policies to machine code once per test run, not once per broker."""
    monkeypatch.setattr(app, "_engine", lambda settings, clock: _ENGINE)


def count_verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on, the report data (hex) of each piece of SNP evidence that is verified."""
    seen: list[str] = []
    original = SnpVerifier.verify

    def counted(self: SnpVerifier, evidence: Any, endorsements: Any, binding: Any, at: Any) -> Any:
        seen.append(binding.report_data.hex())
        return original(self, evidence, endorsements, binding, at)

    monkeypatch.setattr(SnpVerifier, "verify", counted)
    return seen


def edited(body: bytes, change: Callable[[Any], None]) -> bytes:
    """A JSON body after a change to its document."""
    document = json.loads(body)
    change(document)
    return json.dumps(document).encode()


def report_of(document: Any) -> Any:
    """The SNP report within an attestation."""
    return document["tee-evidence"]["primary_evidence"]["attestation_report"]


def outcome(answer: Answer) -> tuple[int, str]:
    """Status and stable reason; `ok` for a success."""
    return answer.status, "ok" if answer.status == 200 else answer.json["reason"]


def decoded_claims(token: str) -> Any:
    """The claims of a token, not verified."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
