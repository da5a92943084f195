"""A broker on PostgreSQL: what it does while the database stands still."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbs.storage.postgres.database import Limits
from kbs.storage.postgres.handshakes import LOOK_EVERY
from tests.fakes.broker import FIRST_MESSAGE, Answer, BrokerUnderTest, Edge, Request
from tests.postgres_binary import Cluster

SHORT = Limits(connect=2, statement=0.3, lock=0.2, answer=0.5, busy=0.5, rest=0.0)


@pytest.fixture
def broker(tmp_path: Path, postgres: Cluster, schema: str) -> Iterator[BrokerUnderTest]:
    (tmp_path / "dsn").write_bytes(postgres.dsn(schema).reveal())
    settings = {"KBS__STORAGE__KIND": "postgres", "KBS__STORAGE__DSN_FILE": str(tmp_path / "dsn")}
    made = BrokerUnderTest(tmp_path / "data", Edge.ASGI, settings=settings)
    database = made.broker.stores.database
    assert database is not None
    database._limits = SHORT
    yield made
    made.close()


def test_the_loop_serves_others_while_a_database_stands_still(broker: BrokerUnderTest, postgres: Cluster) -> None:
    database = broker.broker.stores.database
    assert database is not None
    broker.approve_sample()
    opened = broker.handshake()
    cookie = {"cookie": f"kbs-session-id={broker.attested().cookie}"}
    requests = [
        Request("POST", "/kbs/v0/auth", body=FIRST_MESSAGE),
        Request("POST", "/kbs/v0/attest", {"cookie": f"kbs-session-id={opened.cookie}"}, opened.body),
        Request("GET", "/kbs/v0/resource/default/shared/secret", cookie),
    ]

    async def wait(request: Request) -> tuple[Answer, int]:
        turns = 0
        answer = asyncio.ensure_future(broker._asgi_call(request))
        while not answer.done():
            await asyncio.sleep(0.01)
            turns += 1
        return await answer, turns

    postgres.signal(signal.SIGSTOP)
    time.sleep(LOOK_EVERY)  # for which an epoch that was just read is good
    try:
        for request in requests:
            answer, turns = broker.runner.run(wait(request))
            assert answer.status == 503
            assert turns > 5
            database._rest_until = 0.0
            broker.broker.handshakes._look_again = 0.0  # type: ignore[attr-defined]
    finally:
        postgres.signal(signal.SIGCONT)
    assert broker.send(requests[1]).status == 200
