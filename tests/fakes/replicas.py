"""Several brokers on one PostgreSQL database, each with a data directory of its own, and guests that go on at another
broker when one does not answer, as they do behind a Service."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from kbs.client.admin import AdminClient
from kbs.client.errors import ClientError, Refused, TryLater, Unreachable
from kbs.client.guest import GuestClient
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.policy.rego_sources import policies_folder
from kbs.secret import Secret
from tests.fakes.running_broker import KBS, ROOT, free_port

PATH = "default/shared/secret"
VALUE = b"what all of them release"


@dataclass
class Replica:
    """One broker: its data directory, its port for ever, and its process while it runs."""

    data: Path
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process; `wait` until it answers."""
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*KBS, "serve", "--data", str(self.data), "--workers", "1", "--listen", f"127.0.0.1:{self.port}"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Until it is ready."""
        assert self.process is not None
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.is_ready():
                return
            time.sleep(0.05)
        raise AssertionError((self.data.parent / f"{self.data.name}.log").read_text()[-3000:])

    def is_ready(self) -> bool:
        """Whether it says so."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200
        return False

    def family(self) -> list[int]:
        """The process and its workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def signal(self, number: int) -> None:
        """To all of its processes, as when a machine dies or stands still."""
        for pid in self.family():
            os.kill(pid, number)

    def end(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)


class Replicas:
    """Brokers that share a database, keys, settings and an administrator."""

    def __init__(self, folder: Path, dsn: Secret, count: int) -> None:
        self.folder = folder
        keys = folder / "keys"
        subprocess.run([*KBS, "init", "--keys-only", str(keys)], cwd=ROOT, check=True, capture_output=True)
        (folder / "dsn").write_bytes(dsn.reveal())
        (folder / "kbs.toml").write_text(
            f"""[server]
insecure_http = true
[attestation]
tees = ["sample"]
insecure_sample = true
[endorsements]
network = false
[storage]
kind = "postgres"
dsn_file = "{folder}/dsn"
[keys]
sealing = "{keys}/sealing.key"
session = "{keys}/session.key"
token = "{keys}/token.pem"
admin = "{keys}/admin.pem"
audit = "{keys}/audit.pem"
"""
        )
        environment = {**os.environ, "KBS_CONFIG": str(folder / "kbs.toml")}
        self.all = [Replica(folder / f"data-{at}", free_port(), environment) for at in range(count)]
        try:
            for each in self.all:
                each.data.mkdir(mode=0o700)
                each.start()
            for each in self.all:
                each.wait()
        except BaseException:
            self.stop()
            raise

    @property
    def admin_token(self) -> Path:
        return self.folder / "keys" / "admin-token"

    def guest(self, at: int, *, key: TeeKeyPair | None = None) -> GuestClient:
        """A guest with the software TEE at one of them."""
        return GuestClient(self.all[at].url, key=key)

    def admin(self, at: int) -> AdminClient:
        """An administrator at one of them."""
        return AdminClient(self.all[at].url, token_file=self.admin_token)

    def prepare(self) -> None:
        """A secret, what the software TEE claims, and a policy that releases the one for the other."""
        with self.admin(0) as admin:
            admin.set_resource(PATH, VALUE)
            admin.set_reference_values(
                {"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4}
            )
            admin.set_resource_policy((policies_folder() / "resource/sample-demo.rego").read_bytes())
        deadline = time.monotonic() + 20
        for at in range(len(self.all)):  # each asks several times a second
            while not self._releases(at):
                assert time.monotonic() < deadline

    def _releases(self, at: int) -> bool:
        with self.guest(at) as guest:
            try:
                return guest.get_resource(PATH) == VALUE
            except ClientError:
                return False

    def kbs(self, at: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command on the data directory of one of them."""
        return subprocess.run(
            [*KBS, *arguments, "--data", str(self.all[at].data)],
            cwd=ROOT,
            env=self.all[at].environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def verified(self) -> dict[str, Any]:
        """What `kbs audit verify` says, from the first one's data directory."""
        found: dict[str, Any] = json.loads(self.kbs(0, "audit", "verify", "--json").stdout)
        return found

    def stop(self) -> None:
        """End what runs."""
        for each in self.all:
            if each.process is not None and each.process.poll() is None:
                each.process.terminate()
        for each in self.all:
            if each.process is not None:
                try:
                    each.process.wait(30)
                except subprocess.TimeoutExpired:
                    each.process.kill()
                    each.process.wait()


@dataclass
class Load:
    """Guests in closed loops, each request at the next broker.

    outcomes: of requests, `step status` or `step lost`: no answer came. reasons: of 503. released: secrets that were
    opened. lost_handshakes: those that a guest gave up. timeout: seconds after which a guest asks another broker.
    pause: seconds between two handshakes of a guest, so that brokers that begin have time to.
    """

    replicas: Replicas
    timeout: float = 60.0
    pause: float = 0.05
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    released: int = 0
    lost_handshakes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self, guests: int = 4) -> Iterator[Load]:
        """Under way inside; what a guest began is finished after."""
        threads = [threading.Thread(target=self._guest, args=(at,)) for at in range(guests)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(120)
        assert not any(thread.is_alive() for thread in threads)

    def until(self, released: int) -> None:
        """Wait for so many more secrets, at all brokers."""
        wanted, deadline = self.released + released, time.monotonic() + 60
        while self.released < wanted:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.02)

    def _guest(self, number: int) -> None:
        key = TeeKeyPair.generate(KeyKind.EC_P256)
        clients = [GuestClient(each.url, key=key, timeout=self.timeout) for each in self.replicas.all]
        turn = number
        while not self._stop.is_set():
            turn += 1
            if not self._handshake(clients, turn):
                with self._lock:
                    self.lost_handshakes += 1
            time.sleep(self.pause)
        for client in clients:
            client.close()

    def _handshake(self, clients: list[GuestClient], turn: int) -> bool:
        """Until it succeeds, as guests do: 401 begins anew; no answer and 503 try the next broker for a minute."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            cookie: list[str | None] = [None]

            def auth(client: GuestClient) -> bytes:
                body = client.attestation_for(client.challenge())
                cookie[0] = client.cookie  # noqa: B023 - used before the next round
                return body

            try:
                body: bytes = self._try("auth", clients, turn, auth, deadline, None)
                self._try("attest", clients, turn + 1, lambda client: client.submit(body), deadline, cookie[0])  # noqa: B023
                value = self._try("resource", clients, turn + 2, _resource, deadline, cookie[0])
            except Refused:
                continue
            assert value == VALUE
            with self._lock:
                self.released += 1
            return True
        return False

    def _try(
        self,
        step: str,
        clients: list[GuestClient],
        turn: int,
        act: Callable[[GuestClient], Any],
        deadline: float,
        cookie: str | None,
    ) -> Any:
        while True:
            turn += 1
            client = clients[turn % len(clients)]
            client.cookie = cookie
            try:
                found = act(client)
            except Unreachable:
                self._count(f"{step} lost")
            except TryLater as err:
                self._count(f"{step} {err.problem.status}")
                self.reasons[f"{step} {err.problem.reason}"] += 1
                time.sleep(0.05)
            except Refused as err:
                self._count(f"{step} {err.problem.status} {err.problem.reason}")
                raise
            else:
                self._count(f"{step} 200")
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{step}: a minute without an answer; {self.outcomes}")
            time.sleep(0.01)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


def _resource(client: GuestClient) -> bytes:
    """Once, with the session's cookie; a 401 is not answered with a new handshake here."""
    response = client._connection.send("GET", f"resource/{PATH}", headers=client._cookie_header())
    return client._opened(response)
