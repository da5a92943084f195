"""A broker that takes every TEE software can play, machines that attest to it, and what comes of it.

A TEE that joins `SOFTWARE_ATTESTERS` is played here without another line.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kbs.cli.test_root import NAME
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.nitro import SoftwareNitro
from kbs.client.attesters.test_root import TestRoot
from kbs.client.guest import ChallengedAttester
from kbs.protocol import base64url
from kbs.protocol.tee import Tee
from tests.fakes.broker import BrokerUnderTest, Edge, Handshake, StoppedClock, reference_message, session
from tests.kbs.cli.conftest import good_json, invoke

SECRET: Final = b"a secret that nobody else gets"
RELEASED: Final = "released"
DENIED: Final = "policy_denied"
"""Attests, with an appraisal that is not affirming; 403 at the resource."""
INIT_DATA: Final = 'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n"policy.rego" = "package agent_policy"\n'
DEVICES: Final = frozenset({Tee.HYGON_DCU})
"""What attests beside a CPU: here beside `COMPANION`."""
COMPANION: Final = Tee.TDX

Keywords = Mapping[str, Any]
Evidence = Callable[[Any, bytes, bytes | None], Any]
"""Of a machine, the report data and the digest of the init data."""
_SETTINGS: Final = {"KBS__STORAGE__KIND": "sqlite", "KBS__ENDORSEMENTS__NETWORK": "false"}
_ROUNDS: Final = 4


@dataclass
class Machine:
    """An attester for `GuestClient` that sends what `evidence` makes; None: what a well-behaved guest sends."""

    attester: SoftwareAttester
    evidence: Evidence | None = None

    def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        if self.evidence is None:
            return self.attester.evidence_for(report_data, init_data=init_data)
        return self.evidence(self.attester, report_data, init_data)


class AskedMachine(Machine):
    """The same of a TEE that must be asked; `evidence` gets the attester with the challenge filled in."""

    def evidence_for_challenge(self, challenge: str, report_data: bytes, *, init_data: bytes | None = None) -> Any:
        if self.evidence is None:
            return _asked(self.attester, challenge).evidence(report_data, init_data)
        return self.evidence(_asked(self.attester, challenge), report_data, init_data)


@dataclass(frozen=True)
class _asked:  # noqa: N801  stands where an attester does
    attester: Any
    challenge: str

    def evidence(self, report_data: bytes, init_data: bytes | None = None, **keywords: Any) -> Any:
        return self.attester.evidence_for_challenge(self.challenge, report_data, init_data=init_data, **keywords)


def spoilt(keywords: Keywords | Callable[[Any], Keywords]) -> Evidence:
    """Evidence with these keywords, or those made of the machine."""

    def evidence(machine: Any, report_data: bytes, init_data: bytes | None) -> Any:
        found = keywords(machine) if callable(keywords) else keywords
        # what a good guest sends beside its quote
        usual = {"log": machine.event_log()} if hasattr(machine, "event_log") else {}
        return machine.evidence(report_data, init_data, **{**usual, **found})

    return evidence


@dataclass
class House:
    """One broker with one secret under the default policies, and the vendors it believes in."""

    broker: BrokerUnderTest
    root: TestRoot
    _machines: dict[Tee, SoftwareAttester] = field(default_factory=dict)
    _strangers: dict[Tee, SoftwareAttester] = field(default_factory=dict)

    @classmethod
    def built(cls, data: Path, *tees: Tee, vendors: Callable[[Path], None] | None = None, **settings: str) -> House:
        """An installation as `kbs init --insecure-test-root` makes it. vendors: changes what it made."""
        named = [option for tee in dict.fromkeys(tees) for option in ("--tee", tee.value)]
        good_json(invoke(None, "init", data, *named, "--insecure-test-root", "--json"))
        if vendors is not None:
            vendors(data)
        clock = StoppedClock()
        broker = BrokerUnderTest(data, Edge.ASGI, settings={**_SETTINGS, **settings}, clock=clock)
        house = cls(broker, TestRoot(data / NAME))
        token = broker.token_for("admin")
        assert broker.admin("POST", "resource/default/key/1", SECRET, token=token).status == 200
        return house

    def with_other_endorsements(self, data: Path, tee: Tee, items: Mapping[str, bytes]) -> House:
        """A copy with the same approvals that takes one TEE, for which its vendor served nothing but these."""
        shutil.copytree(self.broker.data, data, ignore=shutil.ignore_patterns("cache"))
        offline = data / "offline"
        for name, item in items.items():
            (offline / name).parent.mkdir(parents=True, exist_ok=True)
            (offline / name).write_bytes(item)
        settings = {"KBS__ENDORSEMENTS__OFFLINE": str(offline), "KBS__ATTESTATION__TEES": f'["{tee}"]'}
        clock = StoppedClock(self.broker.clock.now)
        broker = BrokerUnderTest(data, Edge.ASGI, settings={**_SETTINGS, **settings}, clock=clock)
        return House(broker, TestRoot(data / NAME))

    def machine(self, tee: Tee) -> SoftwareAttester:
        """The one that the broker believes."""
        if tee not in self._machines:
            self._machines[tee] = self.on_time(SOFTWARE_ATTESTERS[tee](self.root))
        return self._machines[tee]

    def stranger(self, tee: Tee) -> SoftwareAttester:
        """The same machine of another make-believe vendor."""
        if tee not in self._strangers:
            self._strangers[tee] = self.on_time(SOFTWARE_ATTESTERS[tee](TestRoot(label="stranger")))
        return self._strangers[tee]

    def on_time(self, attester: SoftwareAttester) -> SoftwareAttester:
        """With the broker's clock, where evidence carries the time."""
        if isinstance(attester, SoftwareNitro):
            attester.clock = self.broker.clock
        return attester

    def handshake(
        self,
        tee: Tee,
        evidence: Evidence | None = None,
        *,
        attester: SoftwareAttester | None = None,
        init_data: str | None = None,
        **more: Any,
    ) -> Handshake:
        """An open handshake and the body that would finish it. Devices stand beside a good CPU."""
        source = attester or self.machine(tee)
        kind = AskedMachine if isinstance(source, ChallengedAttester) else Machine
        machine = kind(source, evidence)
        if tee not in DEVICES:
            return self.broker.handshake(tee=tee, attester=machine, init_data=init_data, **more)
        cpu = Machine(self.machine(COMPANION))
        return self.broker.handshake(tee=COMPANION, attester=cpu, devices={tee: machine}, init_data=init_data, **more)

    def outcome(self, handshake: Handshake, **changes: Any) -> str:
        """Send the answer and ask for the secret: `RELEASED`, or the reason of the refusal.

        changes: as for `Handshake.attest`. Checks status and name of every refusal, and that nothing came out.
        """
        answer = handshake.attest(**changes)
        cookie = changes.get("cookie") or handshake.cookie
        got = self.broker.call("GET", "/kbs/v0/resource/default/key/1", session(cookie))
        if answer.status != 200:
            assert (answer.status, answer.name) == (401, "AttestationError"), answer.body
            assert got.status == 401, (answer.body, got.body)
            assert (got.name, got.json["reason"]) == ("TokenNotFound", "token_missing")
            return str(answer.json["reason"])
        statuses = {name: submod["ear.status"] for name, submod in claims_of(answer.json["token"])["submods"].items()}
        if got.status == 200:
            assert set(statuses.values()) == {"affirming"}
            assert handshake.guest.get_resource("default/key/1") == SECRET
            return RELEASED
        assert set(statuses.values()) != {"affirming"}
        assert (got.status, got.name) == (403, "PolicyDeny"), got.body
        assert list(got.json) == ["type", "detail", "title", "status", "instance", "reason", "decision"]
        return str(got.json["reason"])

    def of(self, tee: Tee, evidence: Evidence | None = None, **more: Any) -> str:
        """The outcome of one whole handshake."""
        return self.outcome(self.handshake(tee, evidence, **more))

    def approve(self, tee: Tee) -> None:
        """Register what `explain` says the good machine lacks, until it gets the secret."""
        token = self.broker.token_for("admin")
        for _ in range(_ROUNDS):
            guest = self.handshake(tee)
            if self.outcome(guest) == RELEASED:
                return
            refusal = self.broker.call("GET", "/kbs/v0/resource/default/key/1", session(guest.cookie)).json
            told = self.broker.admin("GET", f"admin/decisions/{refusal['decision']}", token=token).json
            values = dict(found for cause in told["causes"] if (found := _mend(cause)) is not None)
            assert values, told
            answer = self.broker.admin("POST", "reference-value", reference_message(values), token=token)
            assert answer.status == 200, answer.body
        raise AssertionError(f"{tee}: still not affirming after {_ROUNDS} rounds")


def claims_of(token: str) -> dict[str, Any]:
    """The payload of a token."""
    found: dict[str, Any] = json.loads(base64url.decode(token.split(".")[1]))
    return found


def _mend(cause: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Name and value that `explain` proposes; it does for whatever a reference value decides."""
    if cause["mend"] is None:
        assert cause["reference"] is None or cause["seen"] is None, cause
        return None
    name, value = shlex.split(cause["mend"])[3:5]
    return name, json.loads(value)
