"""Three brokers on one PostgreSQL are one broker: for guests, for administrators, and while things break."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kbs.client.admin import AdminClient
from kbs.client.errors import AdminRefused, AttestationRefused, ClientError, PolicyDenied
from kbs.policy.rego_sources import policies_folder
from kbs.storage.postgres.database import Database
from kbs.storage.postgres.key_value import LOOK_EVERY
from tests.fakes.replicas import PATH, VALUE, Load, Replicas
from tests.postgres_binary import Cluster

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

GRANTED = """SELECT count(*) FROM kbs_audit_lines WHERE line LIKE '%"kind":"release.granted"%'"""
FINE = {"auth 200", "attest 200", "resource 200"}
NO_ANSWER = {f"{step} {what}" for step in ("auth", "attest", "resource") for what in ("lost", "503")}
BEGIN_ANEW = {"attest 401 challenge_used", "attest 401 handshake_unknown", "resource 401 token_missing"}
"""What a guest may meet whose broker died with its challenge, or whose claims a crash of PostgreSQL took."""


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> Iterator[Database]:
    """The brokers' database, beside them."""
    postgres.run("CREATE SCHEMA replicas")
    found = Database(postgres.dsn("replicas"))
    yield found
    found.close()
    postgres.run("DROP SCHEMA replicas CASCADE")


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, database: Database) -> Iterator[Replicas]:
    running = Replicas(tmp_path_factory.mktemp("replicas"), postgres.dsn("replicas"), 3)
    try:
        running.prepare()
        yield running
    finally:
        running.stop()


def granted(database: Database) -> int:
    """Releases that the log has."""
    row = database.use(lambda db: db.execute(GRANTED).fetchone(), repeatable=True)
    assert row is not None
    return int(row[0])


def eventually(reached: Callable[[], bool]) -> None:
    """What takes well under a second on a machine that has time."""
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def get(replicas: Replicas, at: int) -> bytes:
    """The secret, by a handshake with one broker."""
    with replicas.guest(at) as guest:
        return guest.get_resource(PATH)


def refusal(act: Callable[[], object]) -> type[ClientError] | None:
    try:
        act()
    except ClientError as err:
        return type(err)
    return None


def test_any_broker_finishes_any_handshake(replicas: Replicas) -> None:
    for first, second, third in itertools.permutations(range(3)):
        with replicas.guest(first) as asking:
            body = asking.attestation_for(asking.challenge())
            cookie, key = asking.cookie, asking.key
        for at in (second, first, second):  # the identical body earns the identical token, anywhere
            with replicas.guest(at) as answering:
                answering.cookie = cookie
                assert answering.submit(body)
        with replicas.guest(third, key=key) as fetching:
            fetching.cookie = cookie
            assert fetching.get_resource(PATH) == VALUE


def test_a_challenge_works_once_over_all_brokers(replicas: Replicas) -> None:
    """A hundred answers at the same time, five to each challenge, all different."""
    attempts = []
    for _ in range(20):
        with replicas.guest(0) as guest:
            body = guest.attestation_for(guest.challenge())
            attempts.append([(body.replace(b'"svn":"1"', b'"svn":"%d"' % at), guest.cookie) for at in range(1, 6)])

    def answer(at: int, body: bytes, cookie: str | None) -> bool:
        with replicas.guest(at % 3) as guest:
            guest.cookie = cookie
            said = refusal(lambda: guest.submit(body))
            assert said in (None, AttestationRefused)
            return said is None

    with ThreadPoolExecutor(16) as pool:
        tries = [
            [pool.submit(answer, number + at, *attempt) for at, attempt in enumerate(each)]
            for number, each in enumerate(attempts)
        ]
        assert [sum(one.result() for one in each) for each in tries] == [1] * 20


def test_rules_changed_at_one_broker_are_in_force_at_all(replicas: Replicas) -> None:
    assert LOOK_EVERY < 0.5
    texts = {name: (policies_folder() / f"resource/{name}.rego").read_bytes() for name in ("deny-all", "sample-demo")}
    with replicas.admin(0) as admin:
        admin.set_resource_policy(texts["deny-all"])
        for at in (1, 2):
            eventually(lambda: refusal(lambda: get(replicas, at)) is PolicyDenied)  # noqa: B023
        admin.set_resource_policy(texts["sample-demo"])
        for at in (1, 2):
            eventually(lambda: refusal(lambda: get(replicas, at)) is None)  # noqa: B023
    with replicas.admin(1) as admin:
        admin.set_reference_values({"svn": ["9"]})
        for at in (0, 2):
            eventually(lambda: refusal(lambda: get(replicas, at)) is PolicyDenied)  # noqa: B023
        admin.set_reference_values({"svn": ["1"]})
    with replicas.admin(2) as admin:
        admin.set_resource(PATH, b"another")
        for at in (0, 1):
            eventually(lambda: refusal(lambda: get(replicas, at)) is None and get(replicas, at) == b"another")  # noqa: B023
        admin.set_resource(PATH, VALUE)
        eventually(lambda: all(get(replicas, at) == VALUE for at in range(3)))


def test_an_admin_token_revoked_at_one_broker_works_nowhere(replicas: Replicas, tmp_path: Path) -> None:
    with replicas.admin(0) as admin:
        minted = admin.issue_token("passing", "admin")
        token = tmp_path / "token"
        token.write_text(minted.token)
        clients = [AdminClient(each.url, token_file=token) for each in replicas.all]
        assert [refusal(client.status) for client in clients] == [None] * 3
        admin.revoke_token(minted.token_id)
    for client in clients:
        eventually(lambda: refusal(client.status) is AdminRefused)  # noqa: B023
        client.close()


def test_every_broker_explains_and_verifies_what_another_did(replicas: Replicas) -> None:
    with replicas.guest(1) as guest, pytest.raises(ClientError) as caught:
        guest.get_resource("default/no/such")
    decision = getattr(caught.value, "problem").decision  # noqa: B009
    with replicas.admin(2) as admin:
        assert admin.decision(decision)["outcome"] == "denied"
    assert "denied" in replicas.kbs(0, "explain", decision).stdout
    assert replicas.verified()["problems"] == []


def test_a_rolling_restart_loses_no_handshake(replicas: Replicas, database: Database) -> None:
    before = granted(database)
    with Load(replicas).running(guests=2) as load:
        for each in replicas.all:
            load.until(released=5)
            assert each.end() == 0
            load.until(released=5)
            each.start()
            each.wait()
    assert load.lost_handshakes == 0
    assert set(load.outcomes) <= FINE | {"auth lost", "attest lost", "resource lost"}, load.reasons
    assert load.released <= granted(database) - before <= load.released + load.outcomes["resource lost"]
    assert replicas.verified()["ok"]


def test_no_wrong_answer_while_brokers_die_and_postgres_restarts(
    replicas: Replicas, database: Database, postgres: Cluster
) -> None:
    """Killed, stopped for four seconds, and PostgreSQL gone twice: once it ended, once it crashed."""
    before = granted(database)
    one, two, _ = replicas.all
    with Load(replicas, timeout=3).running() as load:
        load.until(released=5)
        one.signal(signal.SIGKILL)
        assert one.process is not None
        one.process.wait()
        load.until(released=5)
        two.signal(signal.SIGSTOP)
        try:
            one.start()
            time.sleep(4)  # longer than a guest waits, and than the log's tail waits for anybody
        finally:
            two.signal(signal.SIGCONT)
        one.wait()
        load.until(released=5)
        for how in ("fast", "immediate"):
            postgres.stop(how)
            time.sleep(0.5)
            postgres.start()
            load.until(released=5)
    assert load.lost_handshakes == 0
    assert set(load.outcomes) <= FINE | NO_ANSWER | BEGIN_ANEW
    unsure = load.outcomes["resource lost"] + load.outcomes["resource 503"]
    assert load.released <= granted(database) - before <= load.released + unsure
    eventually(lambda: all(each.is_ready() for each in replicas.all))
    assert replicas.verified()["ok"]
