"""The register of init data over a store of its own: racing administrators, values of others, limits."""

from __future__ import annotations

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.admin import init_data
from kbs.admin.init_data import InitDataRegister
from kbs.errors import MalformedMessage, NameNotAllowed, StorageUnavailable, VersionConflict
from kbs.initdata.document import claims_of
from kbs.secret import Secret
from kbs.storage.memory import MemoryStore
from kbs.storage.sealed import SealedStore, SealingKeys
from rvps.client import ReferenceValueProvider, embedded

AT = datetime(2026, 6, 15, tzinfo=UTC)
NAME = "init_data_digests"


def text(number: int) -> bytes:
    return f'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"number" = "{number}"\n'.encode()


@pytest.fixture
def store() -> SealedStore:
    return SealedStore(MemoryStore(), SealingKeys([Secret(bytes(32))]))


@pytest.fixture
def references(store: SealedStore) -> ReferenceValueProvider:
    return embedded(store, conflict=VersionConflict, unavailable=StorageUnavailable)


@pytest.fixture
def register(store: SealedStore, references: ReferenceValueProvider) -> InitDataRegister:
    return InitDataRegister(store, references, lambda: AT)


def put(register: InitDataRegister, name: str, number: int, **more: Any) -> Any:
    return register.register(name, "a team", text(number), author="a", issuer="admin:a", **more)


def test_racing_administrators_lose_no_digest(store: SealedStore, references: ReferenceValueProvider) -> None:
    """Each at a broker process of its own: no lock is shared."""
    registers = [InitDataRegister(store, references, lambda: AT) for _ in range(4)]
    register = registers[0]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: put(registers[number % 4], f"n{number}", number), range(8)))
    wanted = {claim for each in made for claim in claims_of(each.document.digest)}
    assert set(references.query(NAME, AT) or ()) == wanted
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: registers[number % 4].remove(f"n{number}", issuer="admin:a"), range(7)))
    assert set(references.query(NAME, AT) or ()) == set(claims_of(made[7].document.digest))
    assert [each.name for each in register.all()] == ["n7"]


def test_one_of_several_first_versions_wins(register: InitDataRegister) -> None:
    def attempt(number: int) -> bool:
        try:
            put(register, "one", number, expected=0)
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(4))) == 1
    assert register.get("one").version == 1


@pytest.mark.parametrize("held", ["ab", {"a": 1}, [1, None, {"a": "b"}, "ab"]], ids=["text", "object", "list"])
def test_what_others_put_there(register: InitDataRegister, references: ReferenceValueProvider, held: Any) -> None:
    """A list is kept, of whatever; a value of another form matches nobody and is replaced."""
    message = {"version": "0.1.0", "type": "sample", "payload": _payload({NAME: held})}
    references.register(message, issuer="admin:b", at=AT)
    made = put(register, "one", 1)
    kept = held if isinstance(held, list) else []
    assert references.query(NAME, AT) == [*kept, *claims_of(made.document.digest)]


def test_a_full_register(register: InitDataRegister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_data, "_MAX_DOCUMENTS", 1)
    put(register, "one", 1)
    with pytest.raises(MalformedMessage, match="1 documents"):
        put(register, "two", 2)
    assert put(register, "one", 2).version == 2
    with pytest.raises(NameNotAllowed):
        put(register, "a/b", 2)


def _payload(values: Any) -> str:
    return base64.b64encode(json.dumps(values).encode()).decode()


def pcr_8(raw: bytes) -> str:
    return hashlib.sha256(bytes(32) + hashlib.sha256(raw).digest()).hexdigest()


def test_a_document_is_found_by_the_pcr_8_it_leads_to(store: SealedStore, references: ReferenceValueProvider) -> None:
    register, other = (InitDataRegister(store, references, lambda: AT) for _ in range(2))
    assert register.of_pcr_8(pcr_8(text(1))) is None
    for name in ("b", "a"):
        put(register, name, 1)
    put(register, "c", 2)
    for each in (register, other):
        found = each.of_pcr_8(pcr_8(text(1)))
        assert found is not None
        assert found.source() == {"from": "register", "name": "a", "owner": "a team", "version": 1}
        assert found.document.claims == {"number": "1"}
        assert each.of_pcr_8("00" * 32) is None
        assert each.of_pcr_8(hashlib.sha256(text(1)).hexdigest()) is None
    register.remove("a", issuer="admin:a")
    put(register, "b", 3)
    assert other.of_pcr_8(pcr_8(text(1))) is None
    changed = other.of_pcr_8(pcr_8(text(3)))
    assert changed is not None
    assert (changed.name, changed.version) == ("b", 2)


def test_a_digest_that_no_pcr_takes_leads_nowhere(register: InitDataRegister) -> None:
    long = text(1).replace(b"sha256", b"sha384")
    register.register("long", "a team", long, author="a", issuer="admin:a")
    digest = hashlib.sha384(long).digest()
    for cut in (digest, digest[:32]):
        assert register.of_pcr_8(hashlib.sha256(bytes(32) + cut).hexdigest()) is None


def test_an_index_that_was_changed_in_the_database_attaches_nothing(
    store: SealedStore, references: ReferenceValueProvider
) -> None:
    """What is beside a sealed text may be read without the key; the text decides."""
    register = InitDataRegister(store, references, lambda: AT)
    put(register, "a", 1)
    store.put("init-data", "a", text(1), meta={"owner": "x", "author": "x", "time": "x", "pcr8": "11" * 32})
    assert register.of_pcr_8("11" * 32) is None
