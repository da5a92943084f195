"""Only after appraisal (P-REL-1): random histories of guests, thieves, administrators, clocks and restarts (F6).

A model knows who may read what. Bytes that leave outside the model fail the test; while the clock runs forward, so
does a refusal that the model does not expect.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kbs.client.guest import GuestClient
from kbs.client.tee_keys import TeeKeyPair
from kbs.errors import KbsError
from kbs.policy.engine import PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.store import RESOURCE_POLICY_ID, Change
from kbs.protocol import jwe
from kbs.storage.sqlite import LOOK_EVERY
from tests.attacks.world import REFERENCE_VALUES, Site, SnpGuest, Worker, edited, outcome, report_of
from tests.fakes.broker import Answer, Edge, reference_message

TTL: Final = timedelta(seconds=300)
SKEW: Final = timedelta(seconds=60)
PATHS: Final = ("a/key/1", "a-b/key/1")
POLICIES: Final = ("affirming", "deny-all", "allow-all")
STEPS: Final = (-3600, -61, -1, 1, 59, 61, 239, 299, 300, 301, 3600)
KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "genuine": {},
    "debug": {"policy": 0x30000 | 1 << 19},
    "other image": {"measurement": bytes(48)},
    "forged": {},
    "sample": {},
}
KEYS: Final = [TeeKeyPair.generate() for _ in range(4)]  # one a client
index = st.integers(0, 1 << 16)


@dataclass
class Body:
    """An attestation that some client made, for the nonce of some challenge."""

    raw: bytes
    challenge: Open
    client: int
    kind: str


@dataclass
class Open:
    """A challenge, and what the model knows became of it."""

    cookie: str
    client: int
    kind: str
    expires: datetime
    guest: GuestClient
    message: Any
    answered: Body | None = None
    token: str | None = None
    issued: datetime | None = None
    affirming: bool = False
    bodies: list[Body] = field(default_factory=list)


def seen_by_all() -> None:
    """Other workers see a change a moment after it was acknowledged; that moment has passed."""
    sleep(2 * LOOK_EVERY)


class Broker(RuleBasedStateMachine):
    """The machine, and in its attributes the model."""

    numbers = itertools.count()
    met: ClassVar[Counter[int | str]] = Counter()  # what all runs of the machine met

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.site = Site(folder / str(next(self.numbers)))
        self.site.clock.advance(86_400)
        self.workers: list[Worker] = []
        self.challenges: list[Open] = []
        self.secrets: dict[str, bytes] = {}
        self.policy = "affirming"
        self.approved: datetime | None = None
        self.went_back = False
        self.turns = itertools.count()

    def teardown(self) -> None:
        self.site.stop()

    @initialize()
    def start(self) -> None:
        self.restart()
        self.write(0, 0)
        self.approve(0, True)

    # --- administrators -----------------------------------------------------------------------------------------------

    @rule(which=index, where=index)
    def write(self, which: int, where: int) -> None:
        path = PATHS[which % len(PATHS)]
        value = f"canary {next(self.numbers)} of {path}".encode()
        self.worker(where).put_secret(path, value)
        self.secrets[path] = value
        seen_by_all()

    @rule(which=index, where=index)
    def delete(self, which: int, where: int) -> None:
        path = PATHS[which % len(PATHS)]
        answer = self.worker(where).admin("DELETE", f"resource/{path}")
        assert answer.status == (200 if path in self.secrets else 404)
        self.secrets.pop(path, None)
        seen_by_all()

    @rule(where=index, approve=st.booleans())
    def approve(self, where: int, approve: bool) -> None:
        values = REFERENCE_VALUES if approve else {**REFERENCE_VALUES, "snp_launch_measurement": ["00" * 47 + "01"]}
        answer = self.worker(where).admin("POST", "reference-value", reference_message(values))
        assert answer.status == 200
        self.approved = self.now if approve else None
        seen_by_all()

    @rule(where=index, name=st.sampled_from(POLICIES))
    def set_policy(self, where: int, name: str) -> None:
        policies = self.worker(where).broker.policies
        change = Change("tester", self.now)
        if name == "affirming":
            policies.rollback(PolicyKind.RESOURCE, RESOURCE_POLICY_ID, 0, change)
        else:  # as an upload would, without the compiler that it needs
            policy = Shipped.load().policy(f"resource/{name}")
            policies.activate(policy, RESOURCE_POLICY_ID, change, opa_version="")
        self.policy = name
        seen_by_all()

    @rule(which=index, where=index, token=st.sampled_from(["", "x", "of a guest"]))
    def intrude(self, which: int, where: int, token: str) -> None:
        """Without an admin token nothing changes."""
        tokens = [each.token for each in self.challenges if each.token is not None]
        credential = tokens[0] if token == "of a guest" and tokens else token or "none"
        path = PATHS[which % len(PATHS)]
        assert self.worker(where).admin("POST", f"resource/{path}", b"planted", token=credential).status == 401
        assert self.worker(where).admin("DELETE", f"resource/{path}", token=credential).status == 401

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from(STEPS))
    def step(self, seconds: int) -> None:
        if timedelta(0) < self.now + timedelta(seconds=seconds) - START_OF_USE < timedelta(days=5):
            self.site.clock.advance(seconds)
            self.went_back |= seconds < 0

    @rule()
    def restart(self) -> None:
        self.site.stop()
        self.workers = [self.site.worker(edge) for edge in Edge]

    # --- guests and thieves -------------------------------------------------------------------------------------------

    @rule(client=index, where=index, kind=st.sampled_from(["genuine", *KINDS]))
    def auth(self, client: int, where: int, kind: str) -> None:
        number = client % len(KEYS)
        worker = self.worker(where)
        guest = worker.sample_guest() if kind == "sample" else worker.guest(SnpGuest(changes=KINDS[kind]))
        guest.key = KEYS[number]
        message = guest.challenge()
        assert guest.cookie is not None
        self.challenges.append(Open(guest.cookie, number, kind, self.now + TTL, guest, message))
        self.make_body(self.challenges[-1], number)

    @rule(client=index, where=index, kind=st.sampled_from(["genuine", *KINDS]))
    def finish_a_handshake(self, client: int, where: int, kind: str) -> None:
        self.auth(client, where, kind)
        self.send(self.challenges[-1], self.challenges[-1].bodies[0], where + 1)

    def make_body(self, challenge: Open, client: int) -> None:
        guest = challenge.guest
        guest.key = KEYS[client]
        raw = guest.attestation_for(challenge.message)
        if challenge.kind == "forged":
            raw = edited(raw, lambda document: report_of(document).update(guest_svn=7))
        challenge.bodies.append(Body(raw, challenge, client, challenge.kind))

    @precondition(lambda self: self.challenges)
    @rule(which=index, client=index)
    def make_another_body(self, which: int, client: int) -> None:
        """Somebody with a chip of its own answers a challenge that was made for another."""
        self.make_body(self.challenges[which % len(self.challenges)], client % len(KEYS))

    @precondition(lambda self: self.challenges)
    @rule(which=index, number=index, where=index)
    def attest(self, which: int, number: int, where: int) -> None:
        challenge = self.challenges[which % len(self.challenges)]
        self.send(challenge, challenge.bodies[number % len(challenge.bodies)], where)

    @precondition(lambda self: self.challenges)
    @rule(which=index, other=index, where=index)
    def attest_with_a_body_of_another(self, which: int, other: int, where: int) -> None:
        self.send(self.pick(which), self.pick(other).bodies[0], where)

    def send(self, challenge: Open, body: Body, where: int) -> None:
        met = outcome(answer := self.worker(where).attest(body.raw, challenge.cookie))
        if self.now >= challenge.expires:
            assert met == (401, "challenge_expired")
        elif challenge.answered is not None:
            if challenge.token is not None and body is challenge.answered:
                assert answer.status == 200 or self.went_back
                assert answer.status != 200 or answer.json["token"] == challenge.token
            else:
                assert met == (401, "challenge_used")
        elif answer.status == 200:
            assert body.challenge is challenge
            assert body.kind != "forged"
            challenge.answered, challenge.token, challenge.issued = body, answer.json["token"], self.now
            approved = self.approved is not None and self.approved <= self.now
            challenge.affirming = body.kind == "genuine" and approved
        else:
            assert answer.status == 401
            honest = body.challenge is challenge and body.kind != "forged"
            assert not honest or self.went_back
            challenge.answered = body

    @invariant()
    def everybody_asks(self) -> None:
        """After each step: some sessions, old and new, by their owners and by others, in turn."""
        for challenge in self.challenges[-3:] + self.challenges[:1]:
            turn = next(self.turns)
            client = challenge.client if turn % 3 else turn // 3
            self.get(
                challenge, client % len(KEYS), turn // 2, PATHS[turn % 5 == 0], ("cookie", "token", "")[turn % 7 // 3]
            )

    def get(self, challenge: Open, client: int, where: int, path: str, how: str) -> None:
        """A client asks with its own session or with somebody else's."""
        credential: dict[str, Any] = {}
        if how == "cookie" or (how == "token" and challenge.token is not None):
            credential = {how: challenge.token if how == "token" else challenge.cookie}
        answer = self.worker(where).get(path, **credential)
        may = bool(credential) and self.may_read(challenge, how)
        self.check(answer, challenge, client, path, may=may)

    def may_read(self, challenge: Open, how: str) -> bool:
        if challenge.token is None or challenge.issued is None:
            return False
        if how == "cookie" and self.now >= challenge.expires:
            return False
        if not challenge.issued - SKEW <= self.now <= challenge.issued + TTL + SKEW:
            return False
        return {"affirming": challenge.affirming, "allow-all": True, "deny-all": False}[self.policy]

    def check(self, answer: Answer, challenge: Open, client: int, path: str, *, may: bool) -> None:
        for secret in self.secrets.values():
            assert secret not in answer.body
        self.met[answer.status] += 1
        if answer.status != 200:
            assert answer.status in (401, 403, 404)
            assert not may or path not in self.secrets or self.went_back
            return
        assert may
        assert challenge.answered is not None
        owner = challenge.answered.client
        self.met["by a thief"] += client != owner
        if client == owner:
            assert jwe.open_sealed(KEYS[client].private_key, answer.body) == self.secrets[path]
        else:
            with pytest.raises(KbsError):
                jwe.open_sealed(KEYS[client].private_key, answer.body)

    # --- short names --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.site.clock.now

    def worker(self, where: int) -> Worker:
        return self.workers[where % len(self.workers)]

    def pick(self, which: int) -> Open:
        return self.challenges[which % len(self.challenges)]


START_OF_USE: Final = datetime.fromisoformat("2026-06-15T13:00:00Z")  # no earlier: the admin token is from then on


def test_only_who_may_read_reads(tmp_path: Path) -> None:
    class InFolder(Broker):
        def __init__(self) -> None:
            super().__init__(tmp_path)

    Broker.met.clear()
    run_state_machine_as_test(
        InFolder,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert all(Broker.met[each] > 0 for each in (200, 401, 403, 404, "by a thief")), Broker.met
