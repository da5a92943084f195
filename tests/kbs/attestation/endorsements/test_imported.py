"""Imports: item by item, in one step, and used by a broker without a network."""

from __future__ import annotations

import stat
import threading
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.endorsements import EndorsementService, endorsement_service
from kbs.attestation.endorsements.imported import Import, ImportedFile
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.model import EndorsementNeed
from kbs.client.attesters.snp import SoftwareSnp
from kbs.config import EndorsementSettings
from kbs.errors import EndorsementsUnavailable
from tests.fakes.vendors import FakeVendors

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CRL = "amd/crl/Milan"
NEED = [EndorsementNeed(CRL, required=True)]


@cache
def attester() -> SoftwareSnp:
    return SoftwareSnp()


def crl(begin: int = -10, end: int = 10, *, promised: int | None = None, refresh: int = 0) -> Obtained:
    """A list valid from `begin` to `end`, in days from now; promised: what the bundle says of its end."""
    data = attester().crl(validity=(NOW + begin * DAY, NOW + end * DAY))
    return Obtained(data, NOW + refresh * DAY, NOW + (end if promised is None else promised) * DAY)


def take(folder: Path, *, present: dict[str, Obtained] | None = None, strict: bool = False, **items: Obtained) -> Any:
    named = {name.replace("__", "/"): item for name, item in items.items()}
    judged = ImportedFile(folder).take(named, present or {}, NOW, all_or_nothing=strict)
    return {each.name: each.outcome for each in judged}


def service(folder: Path, fake: FakeVendors | None = None, **settings: Any) -> EndorsementService:
    made = EndorsementSettings(cache=folder, network=fake is not None, **settings)
    client = None if fake is None else fake.client()
    return endorsement_service(made, folder, lambda: NOW, client=client, roots=None if fake is None else fake.roots)


@pytest.mark.parametrize(
    ("item", "outcome"),
    [
        (crl(), Import.TAKEN),
        (crl(end=-1), Import.EXPIRED),
        (crl(promised=-1), Import.EXPIRED),
        (crl(begin=1), Import.NOT_YET_VALID),
        (crl(promised=11), Import.DAMAGED),
        (Obtained(b"x", NOW, NOW + DAY), Import.DAMAGED),
        (Obtained(crl().data[:-1], NOW, NOW + DAY), Import.DAMAGED),
    ],
)
def test_every_item_is_judged(item: Obtained, outcome: Import, tmp_path: Path) -> None:
    good = crl(-5, 5)
    assert take(tmp_path, amd__crl__Milan=item, amd__crl__Genoa=good) == {CRL: outcome, "amd/crl/Genoa": Import.TAKEN}
    found = ImportedFile(tmp_path).read()
    assert found["amd/crl/Genoa"] == good
    assert (CRL in found) is (outcome is Import.TAKEN)


def test_an_item_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    assert take(tmp_path, nvidia__rim=crl()) == {"nvidia/rim": Import.DAMAGED}
    assert ImportedFile(tmp_path).read() == {}


def test_older_than_present_is_refused(tmp_path: Path) -> None:
    assert take(tmp_path, amd__crl__Milan=crl(-2)) == {CRL: Import.TAKEN}
    assert take(tmp_path, amd__crl__Milan=crl(-3)) == {CRL: Import.OLDER}
    assert take(tmp_path, amd__crl__Milan=crl(-2)) == {CRL: Import.TAKEN}  # signed anew, issued at the same time
    kept = ImportedFile(tmp_path).read()
    assert take(tmp_path, amd__crl__Milan=kept[CRL]) == {CRL: Import.UNCHANGED}
    assert take(tmp_path, amd__crl__Milan=crl(-1)) == {CRL: Import.TAKEN}


def test_older_than_what_the_cache_has_is_refused(tmp_path: Path) -> None:
    assert take(tmp_path, present={CRL: crl(-2)}, amd__crl__Milan=crl(-3)) == {CRL: Import.OLDER}
    damaged = Obtained(b"damaged", NOW, NOW)
    assert take(tmp_path, present={CRL: damaged}, amd__crl__Milan=crl(-3)) == {CRL: Import.TAKEN}


def test_all_or_nothing(tmp_path: Path) -> None:
    outcomes = take(tmp_path, strict=True, amd__crl__Milan=crl(), amd__crl__Genoa=crl(end=-1))
    assert outcomes == {CRL: Import.TAKEN, "amd/crl/Genoa": Import.EXPIRED}
    assert ImportedFile(tmp_path).read() == {}


def test_one_import_adds_to_another_and_drops_what_expired(tmp_path: Path) -> None:
    take(tmp_path, amd__crl__Milan=crl())
    file = ImportedFile(tmp_path)
    file.take({"amd/crl/Turin": crl(-8, 30)}, {}, NOW + 11 * DAY, all_or_nothing=False)
    assert set(file.read()) == {"amd/crl/Turin"}


def test_a_failing_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tmp_path, amd__crl__Milan=crl(-3))
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kbs.attestation.endorsements.imported.os.replace", full)
    with pytest.raises(OSError, match="space"):
        take(tmp_path, amd__crl__Milan=crl(-2))
    assert ImportedFile(tmp_path).read() == {CRL: ImportedFile(tmp_path).read()[CRL]}
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_imports_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    products = ("Milan", "Genoa", "Turin")
    item = crl()
    threads = [
        threading.Thread(target=take, args=(tmp_path,), kwargs={f"amd__{kind}__{product}": item})
        for product in products
        for kind in ("crl", "vlek-crl")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ImportedFile(tmp_path).read()) == 6


def test_the_file_is_private(tmp_path: Path) -> None:
    take(tmp_path / "new", amd__crl__Milan=crl())
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- a broker with imports -------------------------------------------------------------------------------------------


def test_a_broker_without_a_network_uses_what_was_imported(tmp_path: Path) -> None:
    item = crl(refresh=-1)
    take(tmp_path, amd__crl__Milan=item)
    assert service(tmp_path).fetch(NEED).items == {CRL: item.data}
    assert service(tmp_path).fetch([EndorsementNeed("amd/crl/Turin", required=False)]).items == {}


def test_a_running_broker_sees_an_import(tmp_path: Path) -> None:
    now = [NOW]
    under = endorsement_service(EndorsementSettings(cache=tmp_path, network=False), tmp_path, lambda: now[0])
    assert under.fetch(NEED).items == {}
    take(tmp_path, amd__crl__Milan=crl())
    now[0] += timedelta(minutes=10)
    assert under.fetch(NEED).items == {CRL: ImportedFile(tmp_path).read()[CRL].data}


def test_with_a_network_vendors_are_asked_for_what_is_due(tmp_path: Path) -> None:
    item = crl(-3, refresh=-1)
    take(tmp_path, amd__crl__Milan=item)
    fake = FakeVendors(snp=attester())
    assert service(tmp_path, fake).fetch(NEED).items == {CRL: fake.crl}
    assert len(fake.asked) == 1


def test_with_a_network_what_is_fresh_is_not_asked_for(tmp_path: Path) -> None:
    item = crl(-3, refresh=1)
    take(tmp_path, amd__crl__Milan=item)
    fake = FakeVendors(snp=attester())
    assert service(tmp_path, fake).fetch(NEED).items == {CRL: item.data}
    assert fake.asked == []


def test_imports_help_when_the_vendor_does_not_answer(tmp_path: Path) -> None:
    item = crl(-3, refresh=-1)
    take(tmp_path, amd__crl__Milan=item)
    assert service(tmp_path, FakeVendors()).fetch(NEED).items == {CRL: item.data}


@pytest.mark.parametrize(("hours", "is_used"), [(23, False), (25, True), (None, True)])
def test_the_limit_to_how_stale_counts_for_imports(hours: int | None, is_used: bool, tmp_path: Path) -> None:
    item = crl(refresh=-1)
    take(tmp_path, amd__crl__Milan=item)
    found = service(tmp_path, max_stale_hours=hours).fetch(NEED).items
    assert (CRL in found) is is_used


def test_a_damaged_file_is_no_silent_absence(tmp_path: Path) -> None:
    take(tmp_path, amd__crl__Milan=crl())
    file = next(path for path in tmp_path.iterdir() if path.name == "imported-endorsements")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(EndorsementsUnavailable):
        service(tmp_path).fetch(NEED)
