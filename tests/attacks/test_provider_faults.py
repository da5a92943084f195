"""`rvps serve` that is stopped, killed, set back or damaged, and what brokers make of it (threat-model F2 to F4)."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from rvps.client import RemoteProvider, RemoteSettings, remote
from rvps.errors import ProviderUnavailable
from tests.fakes.running_provider import RunningProvider
from tests.rvps.test_service import sample

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

V0 = "/kbs/v0/"
STATEMENTS = V0 + "admin/reference-values/statements"
CANARIES = ("canary-in-a-value", "canary-in-a-token")


class Service:
    """One service, on one directory and the same ports however often it is started."""

    def __init__(self, data: Path) -> None:
        self.running = RunningProvider(data)
        self.data, self.rest, self.token = data, self.running.rest, self.running.token

    def start(self) -> None:
        """Once more."""
        self.running = RunningProvider(self.data, listen=self.running.grpc, rest=self.rest)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("rvps") / "data")
    yield made
    made.running.kill()


@pytest.fixture
def broker(service: Service) -> Iterator[RemoteProvider]:
    with closing(worker(service)) as made:
        yield made


def worker(service: Service) -> RemoteProvider:
    """What each worker of a broker has."""
    return remote(
        RemoteSettings(
            url=f"http://{service.rest}", token=service.token("broker-token"), poll_seconds=0.1, max_age_seconds=1.0
        )
    )


def admin(service: Service) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://{service.rest}",
        headers={"Authorization": f"Bearer {service.token()}"},
        trust_env=False,
        timeout=10,
    )


def put(client: httpx.Client, values: dict[str, Any]) -> str:
    """Register; the id of the statement."""
    answer = client.post(V0 + "reference-value", json=sample(values), headers={"Prefer": "return=representation"})
    answer.raise_for_status()
    return str(answer.json()[0]["statement"])


def seen(broker: RemoteProvider, name: str) -> Any:
    try:
        return broker.query(name, datetime.now(UTC))
    except ProviderUnavailable as err:
        return err


def wait_for(what: Callable[[], bool], seconds: float = 15) -> float:
    """How long it took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_revocation_is_with_every_worker_within_a_second(service: Service) -> None:
    with admin(service) as client, closing(worker(service)) as one, closing(worker(service)) as other:
        statement = put(client, {"svn": ["1"]})
        for each in (one, other):
            wait_for(lambda each=each: seen(each, "svn") == ["1"])  # type: ignore[misc]
        client.post(f"{STATEMENTS}/{statement}/revoke", json={"reason": "leaked"}).raise_for_status()
        assert wait_for(lambda: seen(one, "svn") is None and seen(other, "svn") is None) < 1


def test_a_service_that_stands_still_is_not_believed_for_long(service: Service, broker: RemoteProvider) -> None:
    with admin(service) as client:
        put(client, {"still": ["1"]})
    wait_for(lambda: seen(broker, "still") == ["1"])
    service.running.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: isinstance(seen(broker, "still"), ProviderUnavailable), 3)
    service.running.process.send_signal(signal.SIGCONT)
    wait_for(lambda: seen(broker, "still") == ["1"])


def test_what_was_acknowledged_survives_kill_9_under_load(service: Service, broker: RemoteProvider) -> None:
    done: set[str] = set()

    def write(thread: int) -> None:
        with admin(service) as client:
            for number in range(10_000):
                try:
                    put(client, {f"n{thread}/{number}": number, f"m{thread}/{number}": number})
                except httpx.HTTPError:
                    return
                done.add(f"{thread}/{number}")

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(done) > 30 and "0/0" in done, 30)
    service.running.kill()
    for thread in threads:
        thread.join()
    service.start()
    wait_for(lambda: not isinstance(seen(broker, "n0/0"), ProviderUnavailable))
    values = broker.snapshot(datetime.now(UTC)).values
    assert {f"n{each}" for each in done} <= values.keys()
    assert {name[1:] for name in values if name[0] == "n"} == {name[1:] for name in values if name[0] == "m"}


def test_a_database_that_was_put_back_is_not_served_and_not_believed(service: Service, broker: RemoteProvider) -> None:
    with admin(service) as client:
        statement = put(client, {"back": ["1"]})
        wait_for(lambda: seen(broker, "back") == ["1"])
        database = service.data / "rvps.db"
        backup = service.data.parent / "backup.db"
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        client.post(f"{STATEMENTS}/{statement}/revoke", json={"reason": "leaked"}).raise_for_status()
        wait_for(lambda: seen(broker, "back") is None)
    service.running.kill()
    for path in service.data.glob("rvps.db-*"):
        path.unlink()
    shutil.copy(backup, database)
    service.start()
    with admin(service) as client:
        assert client.get("/readyz").status_code == 503
        refusal = client.get(V0 + "reference-value/back")
        assert (refusal.status_code, "set back" in refusal.json()["detail"]) == (503, True)
    assert seen(broker, "back") is None or isinstance(seen(broker, "back"), ProviderUnavailable)
    service.running.kill()
    (service.data / "newest-event").unlink()
    service.start()
    with admin(service) as client:
        assert client.get(V0 + "reference-value/back").json() == ["1"]
    time.sleep(1.2)  # longer than what was seen before may be used
    assert "went back" in str(seen(broker, "back"))


def test_a_damaged_database_is_no_answer(service: Service) -> None:
    with admin(service) as client:
        for number in range(20):
            put(client, {f"n{number}": "x" * 2000})
    service.running.stop()
    database = service.data / "rvps.db"
    raw = bytearray(database.read_bytes())
    place = raw.rindex(b"x" * 1000)
    raw[place : place + 8] = b"damaged!"
    database.write_bytes(raw)
    service.start()
    with admin(service) as client:
        assert client.get("/readyz").status_code == 503
        assert client.get(V0 + "reference-value/n1").status_code == 503
    assert "damaged!" not in service.running.log
    service.running.kill()
    raw[place : place + 8] = b"xxxxxxxx"
    database.write_bytes(raw)
    service.start()


def test_tokens_are_in_no_log_argument_or_answer(service: Service) -> None:
    secrets = [service.token(), service.token("broker-token"), *CANARIES]
    answers = b""
    with admin(service) as client:
        put(client, {"svn": [CANARIES[0]]})
        wrong = {"Authorization": f"Bearer {CANARIES[1]}", "Cookie": CANARIES[1], "RVPS-On-Behalf-Of": CANARIES[1]}
        for method, path in (
            ("GET", STATEMENTS),
            ("POST", V0 + "reference-value"),
            ("POST", V0 + "admin/reference-values/submit"),
            ("GET", "/" + CANARIES[1]),
            ("GET", V0 + "admin/reference-values/messages/" + CANARIES[1]),
        ):
            answers += client.request(method, path, headers=wrong, content=CANARIES[1]).content
        for path in ("/readyz", "/metrics", STATEMENTS):
            answers += client.get(path).content
    arguments = Path(f"/proc/{service.running.process.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{service.running.process.pid}/environ").read_bytes()
    for secret in secrets:
        for place in (service.running.log.encode(), arguments, environment, answers):
            assert secret.encode() not in place
    settings = RemoteSettings(url="https://x", token=secrets[0])
    assert secrets[0] not in f"{settings!r} {settings}"
