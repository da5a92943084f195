"""A running broker whose certificate is renewed, and which is told to end while guests come: as in a Kubernetes Pod."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

from kbs.admin.data_directory import make
from kbs.client.guest import GuestClient
from kbs.clock import system_clock
from tests.fakes.running_broker import RunningBroker, free_port, read_answer, request

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

_DRAIN = 1.5  # seconds
_REFUSED = "the changed TLS certificate cannot be used; the one before stays"
_NONE = "no TLS certificate to begin with"


class Probed(RunningBroker):
    """One with a listener for probes and metrics, and TLS files in a mount like a Secret's."""

    def __init__(self, folder: Path) -> None:
        self.probes = free_port()
        self.mount = folder / "mount"
        for name in ("first", "second"):
            make(
                folder / name,
                names=(),
                tees=("snp",),
                insecure_sample=False,
                insecure_http=False,
                token_lifetime=timedelta(hours=1),
                now=system_clock(),
            )
        self.mount.mkdir()
        self.swap(folder / "first/tls/server.pem", folder / "first/tls/server.key")
        for name in ("server.pem", "server.key"):
            (self.mount / name).symlink_to(f"..data/{name}")
        super().__init__(
            folder / "data",
            settings={
                "KBS__SERVER__METRICS_LISTEN": f"127.0.0.1:{self.probes}",
                "KBS__SERVER__TLS_CERTIFICATE": str(self.mount / "server.pem"),
                "KBS__SERVER__TLS_KEY": str(self.mount / "server.key"),
                "KBS__SERVER__DRAIN_SECONDS": str(_DRAIN),
            },
        )

    @property
    def ca(self) -> Path:
        """Both authorities."""
        both = self.mount.parent / "both.pem"
        both.write_bytes(
            b"".join((self.mount.parent / f"{name}/tls/ca.pem").read_bytes() for name in ("first", "second"))
        )
        return both

    def swap(self, certificate: Path, key: Path) -> None:
        """Both files at once, as a kubelet does it."""
        folder = self.mount / f"..{len(list(self.mount.iterdir()))}"
        folder.mkdir()
        shutil.copy(certificate, folder / "server.pem")
        shutil.copy(key, folder / "server.key")
        (self.mount / "..draft").symlink_to(folder.name)
        (self.mount / "..draft").rename(self.mount / "..data")

    def shown(self) -> bytes:
        """The certificate that a new connection gets, DER."""
        with self.connect() as connection:
            found = connection.getpeercert(binary_form=True)
            assert found is not None
            return found

    def probe(self, path: str) -> tuple[int, bytes]:
        """Ask the listener for probes."""
        port, self.port = self.port, self.probes
        try:
            status, _, body = self.exchange(request("GET", path, "Connection: close"))
        finally:
            self.port = port
        return status, body

    def metric(self, name: str) -> float:
        """One value of /metrics."""
        lines = self.probe("/metrics")[1].decode().splitlines()
        (value,) = (line.removeprefix(name) for line in lines if line.startswith(f"{name} "))
        return float(value)

    def lines(self, message: str) -> list[dict[str, object]]:
        """What was logged with this message."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in found if line["message"] == message]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    running = Probed(tmp_path_factory.mktemp("rotation"))
    yield running
    running.stop()


def der(pem: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        pem.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    )


def until(seconds: float, expected: object, found: object) -> None:
    """Ask again until it is as expected."""
    assert callable(found)
    deadline = time.monotonic() + seconds
    while found() != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found() == expected


def test_a_renewed_certificate_is_served_without_a_restart(probed: Probed) -> None:
    """Both workers take it, connections that are open go on, and a pair that does not fit changes nothing."""
    folder = probed.mount.parent
    first, second = (der(folder / f"{name}/tls/server.pem") for name in ("first", "second"))
    assert {probed.shown() for _ in range(6)} == {first}
    with probed.connect() as before:
        probed.swap(folder / "first/tls/server.pem", folder / "second/tls/server.key")
        until(20, 0.0, lambda: probed.metric("kbs_tls_certificate_current"))
        until(60, 2, lambda: len(probed.lines(_REFUSED)) + len(probed.lines(_NONE)))  # both workers, also a late one
        assert {probed.shown() for _ in range(6)} == {first}
        probed.swap(folder / "second/tls/server.pem", folder / "second/tls/server.key")
        until(20, 1.0, lambda: probed.metric("kbs_tls_certificate_current"))
        until(20, {second}, lambda: {probed.shown() for _ in range(6)})
        before.sendall(request("GET", "/healthz"))
        assert read_answer(before)[0] == 200
    for outcome, message in (("loaded", "the TLS certificate was replaced"), ("refused", _REFUSED)):
        counted = probed.metric(f'kbs_tls_certificate_reloads_total{{outcome="{outcome}"}}')
        assert counted == len(probed.lines(message)) >= 1
    expires = ssl.cert_time_to_seconds(expiry(folder / "second/tls/server.pem"))
    assert probed.metric("kbs_tls_certificate_expiry_timestamp_seconds") == expires


def expiry(pem: Path) -> str:
    decoded = ssl._ssl._test_decode_cert(str(pem))  # type: ignore[attr-defined]
    return str(decoded["notAfter"])


def test_a_readiness_probe_asks_the_store_and_the_audit_log(probed: Probed) -> None:
    assert probed.probe("/readyz")[0] == 200
    log = probed.data / "audit/log.jsonl"
    log.rename(log.with_suffix(".away"))
    try:
        status, body = probed.probe("/readyz")
        assert (status, json.loads(body)["reason"]) == (503, "audit_unavailable")
        assert probed.probe("/healthz")[0] == 200
    finally:
        log.with_suffix(".away").rename(log)
    assert probed.probe("/readyz")[0] == 200


def test_sighup_reads_keys_anew_if_they_can_be_used(probed: Probed) -> None:
    """Keys that do not load leave everything as it is. Tokens of before are accepted after, here and by others."""
    key = probed.data / "keys/token.pem"
    before, workers = signer(probed), probed.workers()
    good = key.read_bytes()
    with probed.guest() as guest:
        old = guest.attest()
    key.write_bytes(b"no key")
    probed.process.send_signal(signal.SIGHUP)
    until(20, 1, lambda: len(probed.lines("SIGHUP: the workers stay as they are")))
    assert signer(probed) == before
    assert set(workers) <= set(probed.workers())
    key.write_bytes(good)
    document = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    commands = document.partition("### Another token key")[2].partition("```sh\n")[2].partition("```")[0]
    environment = {**os.environ, "PID": str(probed.process.pid)}
    subprocess.run(["bash", "-euc", commands], cwd=probed.data, env=environment, check=True, capture_output=True)
    until(40, True, lambda: attested(probed) and not set(workers) & set(probed.workers()))
    assert signer(probed) != before
    with probed.guest() as guest:
        new = guest.attest()
    published = JWKSet.from_json(probed.exchange(request("GET", "/.well-known/jwks.json"))[2])
    assert all(published.get_key(kid) for kid in (signer(probed), before))
    for token in (old, new):
        JWT(jwt=token, key=published, algs=["ES256"])
        header = f"Authorization: Bearer {token}"
        asked = {probed.exchange(request("GET", "/kbs/v0/resource/default/none/1", header))[0] for _ in range(12)}
        assert asked == {403}  # of whoever answers: it is known who asks, and no policy lets a sample have it
    altered = f"Authorization: Bearer {old[:-8]}AAAAAAAA"
    assert probed.exchange(request("GET", "/kbs/v0/resource/default/none/1", altered))[0] == 401
    assert probed.metric("kbs_tls_certificate_expiry_timestamp_seconds") > 0


def signer(probed: Probed) -> str:
    """The key that signs tokens, by its id."""
    status, _, body = probed.exchange(request("GET", "/.well-known/jwks.json"))
    assert status == 200
    return str(json.loads(body)["keys"][0]["kid"])


def attested(probed: Probed) -> bool:
    with probed.guest() as guest:
        return bool(guest.attest())


def test_sigterm_says_not_ready_first_and_serves_on(probed: Probed) -> None:
    """New connections, handshakes begun before, and the other requests of a connection that stays open."""
    with ExitStack() as stack:
        begun = stack.enter_context(probed.guest())
        answer = begun.attestation_for(begun.challenge())
        kept = stack.enter_context(probed.connect())
        started = time.monotonic()
        probed.process.send_signal(signal.SIGTERM)
        until(5, (503, "shutting_down"), lambda: reason_of(probed.probe("/readyz")))
        assert probed.probe("/healthz")[0] == 200
        assert begun.submit(answer)
        with GuestClient(probed.url, ca_file=probed.ca) as fresh:
            assert fresh.attest()
        if time.monotonic() - started < _DRAIN / 2:
            kept.sendall(request("GET", "/healthz"))
            status, head, _ = read_answer(kept)
            assert (status, b"connection: close" in head.lower()) == (200, True)
    assert probed.process.wait(30) == 0
    assert time.monotonic() - started >= _DRAIN
    with pytest.raises(OSError):
        probed.connect_plain()


def reason_of(answer: tuple[int, bytes]) -> tuple[int, str | None]:
    return answer[0], json.loads(answer[1]).get("reason")
