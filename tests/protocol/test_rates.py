"""429 on the wire: handshakes only, with `Retry-After`, and neither other sources nor resources suffer."""

from __future__ import annotations

import pytest

from tests.fakes.broker import FIRST_MESSAGE, Answer, BrokerUnderTest, bearer, session
from tests.protocol.expect import expect


def auth(broker: BrokerUnderTest, peer: str = "192.0.2.1") -> Answer:
    return broker.call("POST", "/kbs/v0/auth", body=FIRST_MESSAGE, peer=peer)


def test_too_many_handshakes_from_one_source(broker: BrokerUnderTest) -> None:
    token = broker.guest().attest()
    broker.restart({"KBS__SERVER__MAX_HANDSHAKE_RATE_PER_SOURCE": "1"})
    broker.put_secret()
    answers = [auth(broker) for _ in range(10)]
    assert [answer.status for answer in answers[:3]] == [200, 200, 200]
    expect(answers[-1], 429, "RateLimited", "rate_limited")
    assert auth(broker, peer="192.0.2.2").status == 200
    attest = broker.call("POST", "/kbs/v0/attest", session("x"), b"{}", peer="192.0.2.1")
    expect(attest, 429, "RateLimited", "rate_limited")
    for _ in range(10):
        answer = broker.call("GET", "/kbs/v0/resource/default/key/1", [bearer(token)], peer="192.0.2.1")
        assert answer.status == 403  # the policy of a fresh memory store; not 429


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1"])
def test_too_many_handshakes_in_all(broker: BrokerUnderTest, peer: str) -> None:
    broker.restart({"KBS__SERVER__MAX_HANDSHAKE_RATE": "1"})
    assert {auth(broker, peer=peer).status for _ in range(10)} == {200, 429}
