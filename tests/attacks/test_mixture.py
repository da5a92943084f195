"""Parts of two sessions mixed (P-REL-3): key, evidence and cookie of one with those of the other."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest

from kbs.client.errors import UnexpectedAnswer
from kbs.client.guest import GuestClient
from kbs.errors import KbsError
from kbs.protocol import jwe
from kbs.protocol.rcar import Challenge
from kbs.web.cohort import Cohort
from tests.attacks.world import PATH, SECRET, Worker, decoded_claims, edited, outcome
from tests.fakes.broker import Edge, Request, session

WHO = ("a", "b")


@dataclass
class Party:
    """One guest in the middle of its handshake."""

    guest: GuestClient
    challenge: Challenge
    cookie: str
    body: bytes


def party(worker: Worker) -> Party:
    guest = worker.guest()
    challenge = guest.challenge()
    assert guest.cookie is not None
    return Party(guest, challenge, guest.cookie, guest.attestation_for(challenge))


def mixed(parties: dict[str, Party], nonce: str, key: str, evidence: str) -> bytes:
    documents = {who: json.loads(each.body) for who, each in parties.items()}

    def change(document: Any) -> None:
        document["runtime-data"] = {
            "nonce": documents[nonce]["runtime-data"]["nonce"],
            "tee-pubkey": documents[key]["runtime-data"]["tee-pubkey"],
        }
        document["tee-evidence"] = documents[evidence]["tee-evidence"]

    return edited(parties["a"].body, change)


@pytest.mark.parametrize(("cookie", "key", "evidence"), list(itertools.product(WHO, repeat=3)))
def test_only_the_honest_mixtures_pass(worker: Worker, cookie: str, key: str, evidence: str) -> None:
    """The mixer also writes the nonce that the cookie's challenge asks for, or the one that the evidence binds."""
    for nonce in WHO:
        parties = {who: party(worker) for who in WHO}
        answer = worker.attest(mixed(parties, nonce, key, evidence), parties[cookie].cookie)
        if cookie == key == evidence == nonce:
            assert outcome(answer) == (200, "ok")
            assert worker.get(cookie=parties[cookie].cookie).status == 200
        else:
            expected = "nonce_mismatch" if nonce != cookie else "binding_mismatch"
            assert outcome(answer) == (401, expected)
            assert outcome(worker.get(cookie=parties[cookie].cookie)) == (401, "token_missing")


def test_a_token_opens_for_its_own_key_only(worker: Worker) -> None:
    """Tokens by keys: whoever presents a token gets bytes that only the attested key opens."""
    parties = {who: party(worker) for who in WHO}
    tokens = {who: each.guest.submit(each.body) for who, each in parties.items()}
    for of, by in itertools.product(WHO, repeat=2):
        thief = parties[by].guest
        if of == by:
            assert thief.get_resource(PATH, token=tokens[of]) == SECRET
        else:
            with pytest.raises(UnexpectedAnswer):
                thief.get_resource(PATH, token=tokens[of])
        claims = decoded_claims(tokens[of])["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        key = claims["runtime_data_claims"]["tee-pubkey"]
        assert (key == dict(parties[by].guest.key.public.members)) == (of == by)


def test_a_finished_cookie_decides_over_another_token(worker: Worker) -> None:
    """Cookie of one and bearer token of another: one of the two sessions answers, never a blend of both."""
    parties = {who: party(worker) for who in WHO}
    tokens = {who: each.guest.submit(each.body) for who, each in parties.items()}
    for cookie, token in itertools.product(WHO, repeat=2):
        answer = worker.get(cookie=parties[cookie].cookie, token=tokens[token])
        assert answer.status == 200
        assert jwe.open_sealed(parties[cookie].guest.key.private_key, answer.body) == SECRET
        for who in WHO:
            if who != cookie:
                with pytest.raises(KbsError):
                    jwe.open_sealed(parties[who].guest.key.private_key, answer.body)


def test_in_a_crowd_each_gets_what_it_would_get_alone(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are there at the same time go through in step: good ones, bad ones and thieves side by side."""
    together: list[int] = []
    go = Cohort._go

    def counted(self: Any, members: list[Any], loop: Any) -> None:
        together.append(len(members))
        go(self, members, loop)

    monkeypatch.setattr(Cohort, "_go", counted)
    secrets = {f"default/key/{number}": b"canary of %d" % number for number in range(16)}
    for path, secret in secrets.items():
        worker.put_secret(path, secret)
    parties = [party(worker) for _ in secrets]

    def attestation(number: int) -> tuple[Request, tuple[int, str]]:
        own, other = parties[number], parties[(number + 4) % 16]
        if number % 4 == 1:  # with the evidence of somebody else
            body = mixed({"a": own, "b": other}, "a", "a", "b")
            return Request("POST", "/kbs/v0/attest", session(own.cookie), body), (401, "binding_mismatch")
        if number % 4 == 2:  # with nobody's cookie
            return Request("POST", "/kbs/v0/attest", session("x" + own.cookie), own.body), (401, "handshake_unknown")
        return Request("POST", "/kbs/v0/attest", session(own.cookie), own.body), (200, "ok")

    asked = [attestation(number) for number in range(16)]
    answers = worker.send_all([request for request, _ in asked])
    assert [outcome(answer) for answer in answers] == [expected for _, expected in asked]
    for number, answer in enumerate(answers):
        if answer.status == 200:
            evidence = decoded_claims(answer.json["token"])["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
            key = dict(parties[number].guest.key.public.members)
            assert evidence["runtime_data_claims"]["tee-pubkey"] == key

    requests = [
        Request("GET", f"/kbs/v0/resource/{path}", session(parties[number].cookie))
        for number, path in enumerate(secrets)
    ]
    answers = worker.send_all(requests)
    for number, (secret, answer) in enumerate(zip(secrets.values(), answers, strict=True)):
        if asked[number][1][0] == 200:
            assert jwe.open_sealed(parties[number].guest.key.private_key, answer.body) == secret
        else:
            assert outcome(answer) == (401, "token_missing")
    granted = [record for record in worker.audit_records() if record["kind"] == "release.granted"]
    assert sorted(record["path"] for record in granted) == sorted(
        path for number, path in enumerate(secrets) if number % 4 in (0, 3)
    )
    assert worker.edge is Edge.FLASK or max(together) > 1


@pytest.mark.parametrize("where", ["tee-pubkey", "jwk", "key"])
def test_a_key_in_the_request_is_never_used(worker: Worker, where: str) -> None:
    """The recipient is the key in the token's claims, whatever the request offers (P-REL-2)."""
    parties = {who: party(worker) for who in WHO}
    parties["a"].guest.submit(parties["a"].body)
    other = json.dumps(dict(parties["b"].guest.key.public.members))
    cookie = {"Cookie": f"kbs-session-id={parties['a'].cookie}", "X-Tee-Pubkey": other}
    for target in (PATH, f"{PATH}?{where}={parties['b'].guest.key.public.thumbprint}"):
        answer = worker.call("GET", f"/kbs/v0/resource/{target}", cookie, other.encode())
        assert answer.status == 200
        assert jwe.open_sealed(parties["a"].guest.key.private_key, answer.body) == SECRET
