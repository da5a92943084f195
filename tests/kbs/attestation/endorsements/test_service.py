"""The whole machinery over a fake KDS: memory, folder, offline store, failures, and who is asked how often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements import EndorsementService, endorsement_service
from kbs.attestation.endorsements.amd_roots import roots_from_anchors
from kbs.attestation.endorsements.cache import MemoryCache, Remembered
from kbs.attestation.endorsements.files import endorsements_in, read_bounded
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.endorsements.wiring import Roots
from kbs.attestation.model import Binding, EndorsementNeed, Evidence, VerifierOptions
from kbs.attestation.verifiers import snp
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.test_root import TestRoot
from kbs.config import EndorsementSettings
from kbs.errors import (
    ConfigInvalid,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementsUnavailable,
)
from kbs.protocol.tee import Tee

START = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = b"\1" * 48
CRL_NAME = "amd/crl/Milan"


@cache
def attester() -> SoftwareSnp:
    return SoftwareSnp()


CACHES: list[Path] = []  # where a service remembers whose test names no folder


@pytest.fixture(autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    CACHES[:] = [tmp_path_factory.mktemp("caches")]


class Kds:
    """A fake KDS: what it answers, what it was asked, and what time it is."""

    def __init__(self) -> None:
        self._services = 0
        self.now = START
        self.asked: list[str] = []
        self.vcek: httpx.Response | Exception = httpx.Response(200, content=attester().certificate())
        self.crl: httpx.Response | Exception = httpx.Response(200, content=attester().crl())

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        found = self.crl if request.url.path.endswith("/crl") else self.vcek
        if isinstance(found, Exception):
            raise found
        return httpx.Response(found.status_code, headers=found.headers, stream=httpx.ByteStream(found.content))

    def service(self, *, client: httpx.Client | None = None, **changes: Any) -> EndorsementService:
        """`changes`: settings. Unless they name a cache, nothing is shared with another service."""
        self._services += 1
        settings = EndorsementSettings(**{"cache": CACHES[-1] / f"{id(self)}-{self._services}", **changes})
        return endorsement_service(
            settings,
            Path(),
            lambda: self.now,
            client=client or httpx.Client(transport=httpx.MockTransport(self.answer)),
            roots=Roots(amd=roots_from_anchors(attester().anchors)),
        )


EVIDENCE = Evidence(Tee.SNP, attester().report(NONCE))
VERIFIER = snp.build(VerifierOptions(anchors=attester().anchors))
NEEDS = VERIFIER.needs(EVIDENCE)
VCEK_NAME = NEEDS[1].name
CRL_NEED = [EndorsementNeed(CRL_NAME, required=False)]


def test_fetched_once_then_from_memory() -> None:
    kds = Kds()
    service = kds.service()
    assert service.cached(NEEDS) is None
    found = service.fetch(NEEDS)
    (claims,) = VERIFIER.verify(EVIDENCE, found, Binding(NONCE), START)
    assert claims.claims["revocation"] == "checked"
    chip = attester().chip_id.hex()
    assert kds.asked == [
        "https://kdsintf.amd.com/vcek/v1/Milan/crl",
        f"https://kdsintf.amd.com/vcek/v1/Milan/{chip}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
    ]
    assert service.cached(NEEDS) == found
    assert service.fetch(NEEDS) == found
    assert len(kds.asked) == 2


def test_lists_are_asked_for_again_after_a_while_and_keys_are_not() -> None:
    kds = Kds()
    service = kds.service()
    service.fetch(NEEDS)
    kds.now += timedelta(hours=7)
    kds.crl = httpx.Response(200, content=attester().crl([0x10001], number=2))
    assert service.cached(NEEDS) is None
    with pytest.raises(EndorsementRevoked):
        VERIFIER.verify(EVIDENCE, service.fetch(NEEDS), Binding(NONCE), kds.now)
    assert [url[-4:] for url in kds.asked] == ["/crl", "=219", "/crl"]


def test_an_older_list_is_not_taken_for_a_newer_one() -> None:
    kds = Kds()
    service = kds.service()
    kds.crl = httpx.Response(200, content=attester().crl([0x10001], number=7))
    revoked = service.fetch(CRL_NEED)
    kds.now += timedelta(hours=7)
    kds.crl = httpx.Response(200, content=attester().crl(number=6))
    assert service.fetch(CRL_NEED) == revoked


def test_an_older_list_is_not_taken_after_an_outage_and_the_end_of_the_newer_one() -> None:
    kds = Kds()
    service = kds.service()
    kds.crl = httpx.Response(200, content=attester().crl(number=7, validity=(START, START + timedelta(hours=1))))
    service.fetch(CRL_NEED)
    kds.now += timedelta(hours=2)
    kds.crl = httpx.ConnectError("down")
    assert service.fetch(CRL_NEED).items == {}
    kds.now += timedelta(hours=2)
    kds.crl = httpx.Response(200, content=attester().crl(number=6))
    assert service.fetch(CRL_NEED).items == {}


def test_a_list_that_is_still_valid_bridges_an_outage() -> None:
    kds = Kds()
    service = kds.service()
    found = service.fetch(CRL_NEED)
    kds.now += timedelta(hours=7)
    for outage in (httpx.ConnectError("down"), httpx.Response(404)):
        kds.crl = outage
        assert service.fetch(CRL_NEED) == found
        assert service.cached(CRL_NEED) == found
        kds.now += timedelta(minutes=2)


def test_a_stale_list_is_handed_on_and_refused() -> None:
    kds = Kds()
    kds.crl = httpx.Response(
        200, content=attester().crl(validity=(START - timedelta(days=9), START - timedelta(days=1)))
    )
    with pytest.raises(EndorsementExpired):
        VERIFIER.verify(EVIDENCE, kds.service().fetch(NEEDS), Binding(NONCE), START)


BROKEN: dict[str, Callable[[], httpx.Response | Exception]] = {
    "refused connection": lambda: httpx.ConnectError("no"),
    "time-out": lambda: httpx.ReadTimeout("slow"),
    "broken protocol": lambda: httpx.RemoteProtocolError("garbage"),
    "redirect": lambda: httpx.Response(302, headers={"Location": "https://evil.example/"}),
    "server error": lambda: httpx.Response(500),
    "too many": lambda: httpx.Response(429, headers={"Retry-After": "60"}),
    "too large": lambda: httpx.Response(200, content=bytes(2 * 1024 * 1024 + 1)),
    "a page": lambda: httpx.Response(200, content=b"<html>hello</html>"),
    "empty": lambda: httpx.Response(200, content=b""),
    "another's certificate": lambda: httpx.Response(200, content=SoftwareSnp(TestRoot(label="other")).certificate()),
    "a list signed by another": lambda: httpx.Response(200, content=attester().crl(signer=TestRoot().rsa("other"))),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_what_is_required_and_not_to_be_had_is_a_fault(make: Callable[[], httpx.Response | Exception]) -> None:
    kds = Kds()
    kds.vcek = make()
    with pytest.raises(EndorsementsUnavailable):
        kds.service().fetch(NEEDS)
    assert all(url.startswith("https://kdsintf.amd.com/") for url in kds.asked)


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_what_is_not_required_is_left_out_and_not_asked_for_at_once(
    make: Callable[[], httpx.Response | Exception],
) -> None:
    kds = Kds()
    kds.crl = make()
    service = kds.service()
    assert service.fetch(CRL_NEED).items == {}
    asked = len(kds.asked)
    found = service.cached(CRL_NEED)
    assert found is not None
    assert found.items == {}
    assert service.fetch(CRL_NEED).items == {}
    assert len(kds.asked) == asked
    kds.now += timedelta(minutes=2)
    assert service.cached(CRL_NEED) is None
    kds.crl = Kds().crl
    assert CRL_NAME in service.fetch(CRL_NEED).items


def test_packed_answers_are_not_unpacked() -> None:
    kds = Kds()
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b"))
    )
    with pytest.raises(EndorsementsUnavailable):
        kds.service(client=httpx.Client(transport=transport)).fetch(NEEDS)


def test_a_slow_answer_is_cut_off() -> None:
    kds = Kds()

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            for _ in range(1000):
                kds.now += timedelta(seconds=4)
                yield b"x"

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Trickle()))
    with pytest.raises(EndorsementsUnavailable):
        kds.service(client=httpx.Client(transport=transport)).fetch(NEEDS)
    assert kds.now < START + timedelta(minutes=1)


@pytest.mark.parametrize("status", [400, 404])
def test_a_chip_that_amd_does_not_know_is_refused_and_not_asked_for_again(status: int) -> None:
    kds = Kds()
    kds.vcek = httpx.Response(status)
    service = kds.service()
    for _ in range(3):
        with pytest.raises(EndorsementMissing):
            VERIFIER.verify(EVIDENCE, service.fetch(NEEDS), Binding(NONCE), START)
    assert len(kds.asked) == 2
    assert service.cached(NEEDS) is not None


def test_a_host_that_fails_is_left_alone_for_a_while() -> None:
    kds = Kds()
    kds.vcek = httpx.ConnectError("down")
    service = kds.service()
    for _ in range(20):
        with pytest.raises(EndorsementsUnavailable):
            service.fetch(NEEDS[1:])
    assert len(kds.asked) == 5
    kds.now += timedelta(seconds=31)
    kds.vcek = Kds().vcek
    assert VCEK_NAME in service.fetch(NEEDS).items


def test_a_host_that_asks_to_wait_is_not_retried() -> None:
    kds = Kds()
    kds.vcek = httpx.Response(429, headers={"Retry-After": "120"})
    service = kds.service()
    for _ in range(5):
        with pytest.raises(EndorsementsUnavailable):
            service.fetch(NEEDS[1:])
    assert len(kds.asked) == 1
    kds.now += timedelta(seconds=119)
    with pytest.raises(EndorsementsUnavailable):
        service.fetch(NEEDS[1:])
    assert len(kds.asked) == 1


def test_retries_are_a_budget_and_not_a_habit() -> None:
    kds = Kds()
    service = kds.service()
    failures = 0
    for number in range(60):
        kds.vcek = httpx.Response(500)
        name = f"amd/vcek/Milan/{number:0128x}/04-00-18-db"
        with pytest.raises(EndorsementsUnavailable):
            service.fetch([EndorsementNeed(name, required=True)])
        failures += 1
        kds.now += timedelta(minutes=1)
    assert len(kds.asked) <= failures + 11


def test_many_threads_one_request() -> None:
    kds = Kds()
    gate, entered = threading.Event(), threading.Event()

    def slow(request: httpx.Request) -> httpx.Response:
        entered.set()
        assert gate.wait(5)
        return kds.answer(request)

    service = kds.service(client=httpx.Client(transport=httpx.MockTransport(slow)))
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(service.fetch(NEEDS))) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    gate.set()
    for thread in threads:
        thread.join(5)
    assert len(found) == 12
    assert len(kds.asked) == 2


def test_the_folder_outlives_the_process_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    kds = Kds()
    found = kds.service(cache=folder).fetch(NEEDS)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 2
    again = kds.service(cache=folder, network=False)
    assert again.fetch(NEEDS) == found
    assert again.cached(NEEDS) == found


@pytest.mark.parametrize("damage", [b"", b"{}\nx", b"[]\n", b"null\n", b"[" * 2000, b'{"name": 1}\n', b"\xff\xfe"])
def test_damaged_files_are_no_answer(tmp_path: Path, damage: bytes) -> None:
    kds = Kds()
    found = kds.service(cache=tmp_path).fetch(NEEDS)
    for path in tmp_path.iterdir():
        path.write_bytes(damage)
    assert kds.service(cache=tmp_path).fetch(NEEDS) == found
    assert len(kds.asked) == 4


def test_changed_files_are_no_answer(tmp_path: Path) -> None:
    kds = Kds()
    kds.service(cache=tmp_path).fetch(CRL_NEED)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert kds.service(cache=tmp_path, network=False).fetch(CRL_NEED).items == {}


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert VCEK_NAME in Kds().service(cache=tmp_path / "file" / "cache").fetch(NEEDS).items


def test_offline_store_first(tmp_path: Path) -> None:
    chip = tmp_path / "vcek" / attester().chip_id.hex()
    chip.mkdir(parents=True)
    (tmp_path / "crl").mkdir()
    (tmp_path / "crl" / "Milan.crl").write_bytes(attester().crl())
    (chip / "bl04_tee00_snp24_ucode219_vcek.der").write_bytes(attester().certificate())
    kds = Kds()
    for network in (True, False):
        assert VERIFIER.verify(
            EVIDENCE, kds.service(offline=tmp_path, network=network).fetch(NEEDS), Binding(NONCE), START
        )
    assert kds.asked == []


def test_offline_names_without_a_version_come_last(tmp_path: Path) -> None:
    chip = tmp_path / "vcek" / attester().chip_id.hex()
    chip.mkdir(parents=True)
    (chip / "vcek.der").write_bytes(attester().certificate())
    kds = Kds()
    assert VERIFIER.verify(EVIDENCE, kds.service(offline=tmp_path).fetch(NEEDS), Binding(NONCE), START)
    assert len(kds.asked) == 2
    kds.vcek = httpx.ConnectError("down")
    assert VERIFIER.verify(EVIDENCE, kds.service(offline=tmp_path).fetch(NEEDS), Binding(NONCE), START)
    found = kds.service(offline=tmp_path, network=False).fetch(NEEDS)
    assert set(found.items) == {VCEK_NAME}


@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_bad_or_stale_offline_list_gives_way_to_a_fresh_one(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "crl").mkdir()
    stale = attester().crl(validity=(START - timedelta(days=9), START - timedelta(days=1)))
    (tmp_path / "crl" / "Milan.crl").write_bytes(content or stale)
    kds = Kds()
    assert kds.service(offline=tmp_path).fetch(CRL_NEED).items == {CRL_NAME: kds_crl(kds)}
    assert kds.service(offline=tmp_path, network=False).fetch(CRL_NEED).items == {CRL_NAME: content or stale}


def kds_crl(kds: Kds) -> bytes:
    assert isinstance(kds.crl, httpx.Response)
    return kds.crl.content


def test_without_network_and_store_nothing_is_had() -> None:
    kds = Kds()
    service = kds.service(network=False)
    assert service.fetch(NEEDS).items == {}
    assert kds.asked == []


@pytest.mark.parametrize(
    "name",
    [
        "intel/pck",
        "amd/other",
        "hygon/hsk-cek/..",
        "ibm/crl/x",
        "nvidia/rim",
        "amd/vlek/Milan/04-00-18-db",
        "amd/crl/Genoa",
        "",
    ],
)
def test_names_that_no_place_knows_are_not_asked_for(name: str) -> None:
    kds = Kds()
    assert kds.service().fetch([EndorsementNeed(name, required=True)]).items == {}
    assert kds.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://kdsintf.amd.com", "file:///etc/passwd", "ftp://kdsintf.amd.com", "https://", "https://user@host",
        "https://host?x=1", "kdsintf.amd.com", "https://host:99999999", "data:,x",
    ],
)  # fmt: skip
def test_only_plain_https_is_asked(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        Kds().service(amd_url=url)


def test_memory_is_bounded_by_number_and_bytes() -> None:
    memory = MemoryCache(max_entries=3, max_bytes=25)
    for number in range(5):
        memory.put(str(number), Remembered(Obtained(bytes(10), START, START), START))
    assert [memory.get(str(number)) is not None for number in range(5)] == [False, False, False, True, True]
    for number in range(5):
        memory.put(f"none {number}", Remembered(None, START))
    assert sum(memory.get(f"none {number}") is not None for number in range(5)) == 3


def test_a_folder_of_files_for_appraise(tmp_path: Path) -> None:
    (tmp_path / "one.der").write_bytes(attester().certificate())
    (tmp_path / "two.pem").write_bytes(attester().crl())
    (tmp_path / "root.der").write_bytes(attester().ark.public_bytes(Encoding.DER))
    (tmp_path / "notes.txt").write_text("not looked at")
    given = endorsements_in(tmp_path, VERIFIER, EVIDENCE)
    assert set(given.items) == {VCEK_NAME, CRL_NAME}
    (tmp_path / "three.crl").write_bytes(attester().crl(number=2))
    with pytest.raises(ConfigInvalid):
        endorsements_in(tmp_path, VERIFIER, EVIDENCE)
    (tmp_path / "three.crl").write_bytes(b"neither")
    with pytest.raises(ConfigInvalid):
        endorsements_in(tmp_path, VERIFIER, EVIDENCE)
    with pytest.raises(ConfigInvalid):
        endorsements_in(tmp_path / "absent", VERIFIER, EVIDENCE)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 * 1024 * 1024 + 1))
    assert read_bounded(tmp_path / "large") is None
    assert read_bounded(tmp_path) is None
    assert read_bounded(Path("/dev/zero")) is None
    assert read_bounded(tmp_path / "absent") is None
