"""kill -9 of workers and of the master under load (F4): nothing acknowledged is lost, and nothing is handed out twice.

A real `kbs serve` with two workers on loopback; the clients are ours.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authorization import Roles
from kbs.app import build
from kbs.client.admin import AdminClient
from kbs.client.errors import AttestationRefused, ClientError, Refused
from kbs.client.guest import GuestClient
from kbs.clock import system_clock
from kbs.config import load
from kbs.tokens.keys import load_signing_key
from tests.attacks.world import PATH, REFERENCE_VALUES, SECRET, Site, SnpGuest
from tests.fakes.running_broker import KBS, ROOT, free_port

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

ROUNDS: Final = ("worker", "master", "worker", "master", "worker", "master")
READY_WITHIN: Final = 20  # seconds, from a kill to the next answer, without a person


class Service:
    """`kbs serve` on the data directory of a site, started as often as it is killed."""

    def __init__(self, site: Site) -> None:
        self.data = site.data
        self.settings = {**site.settings, "KBS__SERVER__INSECURE_HTTP": "true"}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        mint = AdminTokenMint(
            load_signing_key(self.data / "keys/admin.pem"), AdminTokenSettings(), Roles(), system_clock
        )
        self.token = mint.mint("tester", "admin").text
        self.log = (site.data.parent / "serve.log").open("ab")
        self.start()

    def start(self) -> None:
        """Start and wait for the first answer; workers that a dead master left behind may still hold the port."""
        self.process = subprocess.Popen(
            [*KBS, "serve", "--data", str(self.data), "--workers", "2", "--listen", f"127.0.0.1:{self.port}"],
            cwd=ROOT,
            env={**os.environ, **self.settings},
            stdout=self.log,
            stderr=self.log,
        )
        self.wait()

    def wait(self) -> None:
        """Until an administrator gets an answer from a worker of this master."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(Path(self.log.name).read_text()[-4000:])
            if self.workers():
                with suppress(ClientError), closing(self.admin()) as admin:
                    admin.status()
                    return
            time.sleep(0.05)
        raise AssertionError("not ready again: " + Path(self.log.name).read_text()[-4000:])

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        with suppress(FileNotFoundError):
            return [
                int(each)
                for each in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            ]
        return []

    def admin(self) -> AdminClient:
        return AdminClient(self.url, token=self.token, timeout=5)

    def guest(self) -> GuestClient:
        return GuestClient(self.url, tee="snp", attester=SnpGuest(), timeout=5)

    def kill_worker(self) -> None:
        """SIGKILL one worker; the master starts another."""
        workers = self.workers()
        os.kill(workers[0], signal.SIGKILL)

    def kill_master(self) -> None:
        """SIGKILL the master; its workers notice by themselves and stop."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """The end of a test: nothing of it is left behind."""
        workers = self.workers()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        self.log.close()


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    found = Service(site)
    try:
        with closing(found.admin()) as admin:
            admin.set_resource(PATH, SECRET)
            admin.set_reference_values(REFERENCE_VALUES)
        yield found
    finally:
        found.stop()


class Load:
    """Clients that go on whatever happens, and remember what was acknowledged."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._going = True
        self.written: dict[str, bytes] = {}
        self.released: Counter[str] = Counter()  # by the key that the guest opened it with
        self.wrong: list[object] = []
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in (self._write, self._attest)]
        for thread in self._threads:
            thread.start()

    def _run(self, step: Callable[[int], None]) -> None:
        number = 0
        while self._going:
            number += 1
            try:
                step(number)
            except Refused as err:
                if err.problem.status not in (401, 503):
                    self.wrong.append(err)
            except ClientError:
                time.sleep(0.02)  # killed in between; whether it took effect is unknown
            except Exception as err:
                self.wrong.append(err)
                raise

    def _write(self, number: int) -> None:
        path, value = f"load/key/{number}", os.urandom(300)
        with closing(self._service.admin()) as admin:
            admin.set_resource(path, value)
        self.written[path] = value

    def _attest(self, number: int) -> None:
        with closing(self._service.guest()) as guest:
            for _ in range(3):
                if guest.get_resource(PATH) != SECRET:
                    self.wrong.append("other bytes")
                self.released[guest.key.public.thumbprint] += 1

    def stop(self) -> None:
        self._going = False
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def test_nothing_acknowledged_is_lost(site: Site, service: Service) -> None:
    instants = random.Random(20260615)
    load_ = Load(service)
    try:
        for victim in ROUNDS:
            time.sleep(instants.uniform(0.2, 0.8))
            if victim == "worker":
                service.kill_worker()
                service.wait()
            else:
                service.kill_master()
                service.start()
        time.sleep(0.3)
    finally:
        load_.stop()
    assert load_.wrong == []
    assert len(load_.written) > len(ROUNDS)
    assert sum(load_.released.values()) > len(ROUNDS)
    service.stop()
    check_store(site, load_)
    granted = Counter(record["key"] for record in site.records("release.granted"))
    for key, count in load_.released.items():
        assert granted[key] >= count  # one more is one whose answer was cut off
    report = site.audit_report()
    assert (report.ok, report.problems) == (True, ())
    assert len(site.records("service.started")) == 1 + ROUNDS.count("master")


def check_store(site: Site, load_: Load) -> None:
    """Opened anew, the store holds every value that was acknowledged, whole."""
    with closing(build(site.data, load(site.data, site.settings))) as broker:
        for path, value in load_.written.items():
            record = broker.store.get("repository", path)
            assert record is not None
            assert record.value == value


def test_a_restart_in_the_middle_of_a_handshake(site: Site, service: Service) -> None:
    """A challenge of before is answered after, and only once; a finished session still opens its resource."""
    with closing(service.guest()) as guest, closing(service.guest()) as accomplice, closing(service.guest()) as done:
        done.attest()
        challenge = guest.challenge()
        bodies = guest.attestation_for(challenge), accomplice.attestation_for(challenge)
        service.kill_master()
        service.start()
        assert done.get_resource(PATH) == SECRET
        token = guest.submit(bodies[0])
        assert guest.get_resource(PATH) == SECRET
        accomplice.cookie = guest.cookie
        with pytest.raises(AttestationRefused) as refused:
            accomplice.submit(bodies[1])
        assert refused.value.problem.reason == "challenge_used"
        service.kill_master()
        service.start()
        assert guest.submit(bodies[0]) == token
        with pytest.raises(AttestationRefused) as refused:
            accomplice.submit(bodies[1])
        assert refused.value.problem.reason == "challenge_used"
    assert len(site.records("evidence.accepted")) == 2
