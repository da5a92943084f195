"""A challenge works once (P-REL-4): the same attestation again, in every place and at every time.

Every replay here carries evidence that is genuine and bound to the very nonce of the challenge: the host has TEEs of
its own. What refuses is the challenge alone.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kbs.client.errors import UnexpectedAnswer
from kbs.client.guest import GuestClient
from kbs.protocol import rcar
from kbs.protocol.runtime_data import HashAlgorithm, digest, primary_runtime_data
from tests.attacks.world import PATH, SECRET, Site, Worker, count_verifications, edited, outcome, report_of
from tests.fakes.broker import Answer, Edge, Request, session

TTL = 300  # seconds, the default life of a challenge
VARIANTS = ("same body", "other key", "other evidence")


@dataclass
class Session:
    """One handshake: its challenge, its cookie, and genuine attestations that answer it."""

    guest: GuestClient
    challenge: rcar.Challenge
    cookie: str
    bodies: dict[str, bytes]

    def report_data(self) -> set[str]:
        """What evidence for this challenge and any of the keys in use binds."""
        keys = [rcar.decode_attestation(body).tee_key for body in self.bodies.values()]
        data = [primary_runtime_data(self.challenge.nonce, key, "") for key in keys]
        return {digest(each, HashAlgorithm.SHA384).hex() for each in data}


def begin(worker: Worker) -> Session:
    """Open a handshake."""
    guest, accomplice = worker.guest(), worker.guest()
    challenge = guest.challenge()
    assert guest.cookie is not None
    bodies = {
        "same body": guest.attestation_for(challenge),
        "other key": accomplice.attestation_for(challenge),
        "other evidence": guest.attestation_for(challenge),  # signed anew, so other bytes
    }
    assert len(set(bodies.values())) == len(bodies)
    return Session(guest, challenge, guest.cookie, bodies)


def verifications(seen: list[str], opened: Session) -> int:
    mine = opened.report_data()
    return sum(each in mine for each in seen)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return count_verifications(monkeypatch)


def after_restart(site: Site, _: Worker) -> Worker:
    site.stop()
    return site.worker(Edge.FLASK)


PLACES: dict[str, Callable[[Site, Worker], Worker]] = {
    "the same worker": lambda site, worker: worker,
    "another worker": lambda site, worker: site.worker(Edge.FLASK),
    "after restart": after_restart,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seconds", [0, TTL - 1, TTL, TTL + 1])
def test_after_success(site: Site, seen: list[str], place: str, seconds: int) -> None:
    worker = site.worker()
    worker.prepare()
    sessions = {variant: begin(worker) for variant in VARIANTS}
    first = {variant: worker.attest(each.bodies["same body"], each.cookie) for variant, each in sessions.items()}
    assert [outcome(answer) for answer in first.values()] == [(200, "ok")] * len(VARIANTS)
    elsewhere = PLACES[place](site, worker)
    site.clock.advance(seconds)
    for variant, opened in sessions.items():
        again = elsewhere.attest(opened.bodies[variant], opened.cookie)
        if seconds >= TTL:
            assert outcome(again) == (401, "challenge_expired")
        elif variant == "same body":
            assert (again.status, again.body) == (200, first[variant].body)
        else:
            assert outcome(again) == (401, "challenge_used")
        assert verifications(seen, opened) == 1
        # the honest session is none the worse for it
        assert elsewhere.get(cookie=opened.cookie).status == (200 if seconds < TTL else 401)


def wrong_nonce(opened: Session) -> bytes:
    def change(document: Any) -> None:
        document["runtime-data"]["nonce"] = document["runtime-data"]["nonce"][::-1]

    return edited(opened.bodies["same body"], change)


def wrong_measurement(opened: Session) -> bytes:
    def change(document: Any) -> None:
        report_of(document)["measurement"][0] ^= 1

    return edited(opened.bodies["same body"], change)


FAILURES: dict[str, tuple[Callable[[Session], bytes], str, int]] = {
    "nonce": (wrong_nonce, "nonce_mismatch", 0),
    "signature": (wrong_measurement, "signature_invalid", 1),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("failure", FAILURES)
def test_after_failure(site: Site, seen: list[str], place: str, failure: str) -> None:
    worker = site.worker()
    worker.prepare()
    make, reason, looked_at = FAILURES[failure]
    sessions = {variant: begin(worker) for variant in ("the failed body", *VARIANTS)}
    failed = {variant: make(opened) for variant, opened in sessions.items()}
    for variant, opened in sessions.items():
        assert outcome(worker.attest(failed[variant], opened.cookie)) == (401, reason)
    elsewhere = PLACES[place](site, worker)
    for variant, opened in sessions.items():
        body = opened.bodies.get(variant, failed[variant])
        assert outcome(elsewhere.attest(body, opened.cookie)) == (401, "challenge_used")
        assert verifications(seen, opened) == looked_at
        assert elsewhere.get(cookie=opened.cookie).status == 401


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b'{"runtime-data": 1}', b"\xff"])
def test_a_body_that_does_not_decode_spends_nothing(worker: Worker, seen: list[str], bad: bytes) -> None:
    opened = begin(worker)
    assert outcome(worker.attest(bad, opened.cookie)) == (400, "malformed_request")
    assert outcome(worker.attest(opened.bodies["same body"], opened.cookie)) == (200, "ok")
    assert verifications(seen, opened) == 1


@pytest.mark.parametrize("finished", [True, False])
def test_on_another_session(worker: Worker, seen: list[str], finished: bool) -> None:
    """The body of one challenge under the cookie of another, whether the first was answered or not."""
    for variant in VARIANTS:
        old, new = begin(worker), begin(worker)
        if finished:
            assert worker.attest(old.bodies["same body"], old.cookie).status == 200
        assert outcome(worker.attest(old.bodies[variant], new.cookie)) == (401, "nonce_mismatch")
        assert outcome(worker.attest(new.bodies["same body"], new.cookie)) == (401, "challenge_used")
        assert verifications(seen, old) == finished
        assert verifications(seen, new) == 0
        assert worker.get(cookie=new.cookie).status == 401


def test_by_another_client(worker: Worker, seen: list[str]) -> None:
    """Whoever read cookie and body off the wire gets the sealed answers of the guest, and cannot open them."""
    for variant in VARIANTS:
        opened = begin(worker)
        first = worker.attest(opened.bodies["same body"], opened.cookie)
        headers = {"Cookie": f"a=b; kbs-session-id={opened.cookie}", "User-Agent": "thief/1"}
        again = worker.call("POST", "/kbs/v0/attest", headers, opened.bodies[variant], peer="203.0.113.9")
        if variant == "same body":
            assert (again.status, again.body) == (200, first.body)
        else:
            assert outcome(again) == (401, "challenge_used")
        assert verifications(seen, opened) == 1
        thief = worker.guest()
        thief.cookie = opened.cookie
        with pytest.raises(UnexpectedAnswer):
            thief.get_resource(PATH)
        opened.guest.cookie = opened.cookie
        assert opened.guest.get_resource(PATH) == SECRET


def other_spellings(cookie: str) -> dict[str, str | None]:
    """Cookies that are not this one; the last ones would decode to the same octets under a lenient reader."""
    middle = len(cookie) // 2
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    unused_bits = cookie[:-1] + last[last.index(cookie[-1]) ^ 1]
    return {
        "none": None,
        "empty": "",
        "cut": cookie[:-1],
        "first": ("A" if cookie[0] != "A" else "B") + cookie[1:],
        "middle": cookie[:middle] + ("A" if cookie[middle] != "A" else "B") + cookie[middle + 1 :],
        "not ASCII": cookie + "\u00e9",
        "longer": cookie + "AAAA",
        "padded": cookie + "==",
        "other alphabet": cookie.replace("-", "+").replace("_", "/"),
        "quoted": f'"{cookie}"',
        **({"unused bits": unused_bits} if len(cookie) % 4 else {}),
    }


def test_with_another_cookie(worker: Worker, seen: list[str]) -> None:
    """A cookie that does not open is as none; it neither spends nor finds a challenge."""
    for variant in VARIANTS:
        opened = begin(worker)
        for name, cookie in other_spellings(opened.cookie).items():
            if cookie != opened.cookie:
                refused = worker.attest(opened.bodies[variant], cookie)
                assert outcome(refused) == (401, "handshake_unknown"), name
        assert verifications(seen, opened) == 0
        assert outcome(worker.attest(opened.bodies["same body"], opened.cookie)) == (200, "ok")
        for name, cookie in other_spellings(opened.cookie).items():
            if cookie != opened.cookie:
                assert outcome(worker.get(cookie=cookie)) == (401, "token_missing"), name


def test_a_cookie_of_another_broker_does_not_open(site: Site, tmp_path: Path, seen: list[str]) -> None:
    """Another data directory has other keys: what it sealed is nothing here."""
    other = Site(tmp_path / "other")
    try:
        home, there = site.worker(), other.worker()
        opened = begin(home)
        assert outcome(there.attest(opened.bodies["same body"], opened.cookie)) == (401, "handshake_unknown")
        assert verifications(seen, opened) == 0
    finally:
        other.stop()


@pytest.mark.parametrize("seconds", [TTL - 1, TTL, TTL + 1])
def test_the_first_answer_has_until_the_end_of_the_challenge(site: Site, seen: list[str], seconds: int) -> None:
    worker = site.worker()
    for variant in VARIANTS:
        opened = begin(worker)
        site.clock.advance(seconds)
        expected = (200, "ok") if seconds < TTL else (401, "challenge_expired")
        assert outcome(worker.attest(opened.bodies[variant], opened.cookie)) == expected
        assert verifications(seen, opened) == (seconds < TTL)
        site.clock.advance(-seconds)  # a clock that steps back: still no more than one
        for again in VARIANTS:
            worker.attest(opened.bodies[again], opened.cookie)
        assert verifications(seen, opened) == 1


def test_a_clock_that_steps_back_revives_nothing(site: Site, seen: list[str]) -> None:
    """What a sweep forgot cannot be claimed again."""
    worker = site.worker()
    sessions = {variant: begin(worker) for variant in VARIANTS}
    for opened in sessions.values():
        assert worker.attest(opened.bodies["same body"], opened.cookie).status == 200
    site.clock.advance(3600)
    assert worker.broker.handshakes.sweep(site.clock()) == len(sessions)
    site.clock.advance(-3600)
    for variant, opened in sessions.items():
        assert outcome(worker.attest(opened.bodies[variant], opened.cookie)) == (401, "challenge_used")
        assert verifications(seen, opened) == 1


YEAR = 365 * 86_400


def test_a_clock_that_ran_ahead_for_a_while(worker: Worker, seen: list[str]) -> None:
    """A wrong time server (F5): what was spent meanwhile stays spent, and new guests are served once it is right."""
    before = begin(worker)
    assert worker.attest(before.bodies["same body"], before.cookie).status == 200
    worker.clock.advance(YEAR)
    ahead = begin(worker)
    worker.attest(ahead.bodies["same body"], ahead.cookie)
    assert worker.broker.handshakes.sweep(worker.clock()) == 1
    worker.clock.advance(-YEAR)
    for variant in VARIANTS:
        assert outcome(worker.attest(before.bodies[variant], before.cookie)) == (401, "challenge_used")
    assert verifications(seen, before) == 1
    worker.clock.advance(1)
    guest = worker.guest()
    assert guest.get_resource(PATH) == SECRET


def at_once(one: Worker, two: Worker, requests: tuple[Request, Request]) -> list[Answer]:
    """Both requests at the same moment; to one worker in the way its edge runs them side by side."""
    if one is two:
        return one.send_all(requests)
    start = threading.Barrier(2)

    def run(worker: Worker, request: Request) -> Answer:
        start.wait()
        return worker.send(request)

    with ThreadPoolExecutor(2) as pool:
        return [each.result() for each in (pool.submit(run, one, requests[0]), pool.submit(run, two, requests[1]))]


@pytest.mark.parametrize("edges", [(Edge.FLASK,), (Edge.ASGI,), (Edge.ASGI, Edge.FLASK)], ids="-".join)
def test_concurrent_pairs(site: Site, seen: list[str], edges: tuple[Edge, ...]) -> None:
    """Two answers to one challenge at the same moment, to one worker or to two: exactly one is verified."""
    one, *more = [site.worker(edge) for edge in edges]
    two = more[0] if more else one
    pairs = 102 if more else 51
    for number in range(pairs):
        variant = VARIANTS[number % len(VARIANTS)]
        opened = begin(one)
        seen.clear()
        requests = [
            Request("POST", "/kbs/v0/attest", session(opened.cookie), opened.bodies[each])
            for each in ("same body", variant)
        ]
        answers = at_once(one, two, (requests[0], requests[1]))
        assert len(seen) == verifications(seen, opened) == 1
        good = [answer for answer in answers if answer.status == 200]
        assert len({answer.body for answer in good}) == 1
        assert len(good) == 1 or variant == "same body"
        assert all(outcome(answer) == (401, "challenge_used") for answer in answers if answer.status != 200)
    assert len(site.records("evidence.accepted")) == pairs


def test_the_same_evidence_under_a_second_challenge(worker: Worker) -> None:
    """Freshness (RFC 9334 section 10): evidence moved into a body with the new nonce does not bind it."""
    old, new = begin(worker), begin(worker)
    evidence = report_of_body(old)
    body = edited(new.bodies["same body"], lambda document: report_of(document).update(evidence))
    assert outcome(worker.attest(body, new.cookie)) == (401, "binding_mismatch")


def report_of_body(opened: Session) -> Any:
    found: list[Any] = []
    edited(opened.bodies["same body"], lambda document: found.append(report_of(document)))
    return found[0]


def test_no_challenge_comes_twice(site: Site) -> None:
    """Enough of them to see a source that is stuck or short."""
    worker = site.worker()
    guest = worker.guest()
    seen = [(guest.challenge().nonce, hashlib.sha256(str(guest.cookie).encode()).digest()) for _ in range(500)]
    assert len({nonce for nonce, _ in seen}) == len({cookie for _, cookie in seen}) == len(seen)
    assert all(len(nonce) == 44 for nonce, _ in seen)
