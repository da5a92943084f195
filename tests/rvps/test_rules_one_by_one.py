"""Rules of the log and the view, each by a case that only it decides: found by taking each out in turn."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rvps.errors import ProviderUnavailable, SignatureRefused
from rvps.intake.model import Verified
from rvps.model import State
from rvps.publishers.model import Publishers, Trust
from rvps.service import EmbeddedProvider
from rvps.statements.events import Approved, Event, Record, Revoked, Rules, Signed, Source
from rvps.statements.ledger import Gap, Ledger
from rvps.statements.ledger import write as write_ledger
from rvps.statements.view import View
from tests.rvps.fake_intake import KIND, FakeIntake, approver, digest, everybody, message, publisher, stating
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable
from tests.rvps.test_service import sample

AT = datetime(2026, 11, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ADMIN = "admin:alice#1"
PUBLISHERS = everybody(
    publisher("acme"),
    publisher("appends", merge="append"),
    publisher("also", merge="append"),
    publisher("careful", approvals=1, approvers=("x",)),
    approver("x"),
)


def over(store: MemoryStore, intake: Any = None, publishers: Publishers = PUBLISHERS) -> EmbeddedProvider:
    return EmbeddedProvider(
        store,
        conflict=Conflict,
        unavailable=Unavailable,
        publishers=lambda: publishers,
        intakes={KIND: intake or FakeIntake()},
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def provider(store: MemoryStore) -> EmbeddedProvider:
    return over(store)


def submit(provider: EmbeddedProvider, by: str, said: dict[str, Any], after: int = 0) -> None:
    provider.submit(message(f"{by}/1", said), AT + after * SECOND)


def revocation(said: dict[str, Any]) -> dict[str, Any]:
    return {"revoke": digest(said), "reason": "because"}


def test_revoking_the_newer_does_not_bring_the_older_back(provider: EmbeddedProvider) -> None:
    submit(provider, "acme", stating(1, {"n": [1]}))
    submit(provider, "acme", newer := stating(2, {"n": [2]}), 1)
    submit(provider, "acme", revocation(newer), 2)
    assert provider.query("n", AT + 2 * SECOND) is None
    assert provider.query("n", AT + 2 * SECOND) is None


def test_revoking_one_that_has_just_begun_does_not_either(provider: EmbeddedProvider) -> None:
    submit(provider, "acme", stating(1, {"n": [1]}))
    submit(provider, "acme", newer := stating(2, {"n": [2]}, begins=AT + 5 * SECOND), 1)
    submit(provider, "acme", revocation(newer), 5)
    assert provider.query("n", AT + 5 * SECOND) is None


def test_revoking_one_before_it_begins_leaves_the_older_where_it_is(provider: EmbeddedProvider) -> None:
    submit(provider, "acme", stating(1, {"n": [1]}))
    submit(provider, "acme", newer := stating(2, {"n": [2]}, begins=AT + 5 * SECOND), 1)
    submit(provider, "acme", revocation(newer), 4)
    assert provider.query("n", AT + 6 * SECOND) == [1]


def test_removing_history_does_not_bring_a_superseded_statement_back(store: MemoryStore) -> None:
    """What superseded it is removed, it is kept for its known bad values, and all that is newer never began."""
    provider = over(store)
    first = stating(1, {"n": [1]}, bad={"nothing": [0]})
    for serial, said in ((1, first), *((serial, stating(serial, {"n": [serial]})) for serial in range(2, 14))):
        submit(provider, "careful", said, serial)
        if serial <= 4:
            submit(provider, "x", {"approve": digest(said)}, serial)
        if 1 < serial <= 4:
            submit(provider, "careful", revocation(said), serial)
    for number in range(100):
        provider.register(sample({"other": number}), issuer=ADMIN, at=AT + (20 + number) * SECOND)
    later = AT + 500 * SECOND
    assert provider.statement(digest(stating(4, {"n": [4]})), later) is None  # removed
    for each in (provider, over(store)):
        assert each.query("n", later) is None
        status = each.statement(digest(first), later)
        assert status is not None
        assert status.state is State.SUPERSEDED


def test_a_value_is_bad_as_long_as_anybody_says_so(provider: EmbeddedProvider) -> None:
    submit(provider, "acme", stating(1, {"n": ["good", "bad"]}))
    submit(provider, "appends", one := stating(1, {}, bad={"n": ["bad"]}))
    submit(provider, "also", other := stating(2, {}, bad={"n": ["bad"]}))
    submit(provider, "appends", revocation(one))
    assert provider.query("n", AT) == ["good"]
    submit(provider, "also", revocation(other))
    assert provider.query("n", AT) == ["good", "bad"]


def test_lists_are_united_only_if_both_sides_append(provider: EmbeddedProvider) -> None:
    submit(provider, "appends", stating(1, {"n": [1]}))
    submit(provider, "acme", stating(1, {"n": [2]}))
    assert provider.query("n", AT) == [2]
    submit(provider, "also", stating(1, {"n": [3]}))
    assert provider.query("n", AT) == [1, 3]


def test_the_version_covers_compound_sets(store: MemoryStore) -> None:
    """An engine that has loaded a version does not load it again."""
    alone, together = over(store), over(MemoryStore())
    submit(alone, "acme", stating(1, {"n": [1]}))
    submit(together, "acme", stating(1, {"n": [1]}, together=True))
    one, other = alone.snapshot(AT), together.snapshot(AT)
    assert one.encoded == other.encoded
    assert one.version != other.version


def sharing() -> tuple[int, int, str]:
    """Two serials, and the eight digits with which the digests of both begin."""
    seen: dict[str, int] = {}
    serial = 0
    while True:
        serial += 1
        short = digest(stating(serial, {"n": [1]}))[:8]
        if (first := seen.setdefault(short, serial)) != serial:
            return first, serial, short


def test_a_beginning_that_two_digests_share_names_neither(provider: EmbeddedProvider) -> None:
    first, serial, short = sharing()
    submit(provider, "acme", stating(first, {"n": [1]}))
    assert provider.statement(short, AT) is not None
    submit(provider, "acme", stating(serial, {"n": [1]}))
    assert provider.statement(short, AT) is None


def signed(serial: int, approvals: int) -> Signed:
    source = Source("careful", "key", KIND, f"{serial:064x}", f"{serial:064x}", None)
    rules = Rules(approvals, ("x",), False, 1, "replace")
    values = {"n": serial}
    return Signed(source, rules, AT, "s", serial, None, (), False, AT, AT + 9 * SECOND, values, {})


def test_an_approval_after_the_revocation_supersedes_nothing() -> None:
    """The provider refuses such an approval; a log that has one all the same, from a race long ago, changes nothing."""
    older, draft = signed(1, 0), signed(2, 1)
    by = replace(draft.source, publisher="x", digest="f" * 64)
    events: list[Event] = [
        older,
        draft,
        Revoked("a", None, AT, draft.source.digest, ""),
        Approved(by, AT, draft.source.digest),
    ]
    view = View()
    for number, event in enumerate(events, 1):
        view.apply(Record(number, event, "", ""))
    assert view.resolve("n", AT).value == 1


def test_who_was_overtaken_between_record_and_head_reads_what_came_in_between(store: MemoryStore) -> None:
    slow, fast = over(store), over(store)
    submit(slow, "acme", said := stating(1, {"n": [1]}))
    assert fast.query("n", AT) == [1]

    def overtake(namespace: str, _key: str) -> None:
        if namespace == "rvps-head":
            store.before_put = None
            fast.revoke(digest(said), reason="leaked", issuer=ADMIN, at=AT)

    store.before_put = overtake
    slow.register(sample({"m": 1}), issuer=ADMIN, at=AT)
    assert slow.query("n", AT) is None
    assert (slow.query("m", AT), fast.query("m", AT)) == (1, 1)


def test_a_gap_that_ends_elsewhere_is_no_gap(store: MemoryStore) -> None:
    provider = over(store)
    for number in range(3):
        provider.register(sample({f"n{number}": number}), issuer=ADMIN, at=AT)
    raw = store.current["rvps-statements", f"{1:016d}"].value
    wrong = Gap(2, 2, hashlib.sha256(raw).hexdigest(), "0" * 64)
    store.put("rvps-ledger", "removed", write_ledger([wrong], {}), meta={})
    with pytest.raises(ProviderUnavailable, match="does not follow"):
        over(store).snapshot(AT)


def test_a_ledger_that_another_process_wrote_is_not_overwritten(store: MemoryStore) -> None:
    one, other = over(store), over(store)
    for number in range(70):
        one.register(sample({"n": number}), issuer=ADMIN, at=AT)
    assert other.query("n", AT) == 69
    taken = 0

    def overtake(namespace: str, _key: str) -> None:
        nonlocal taken
        if namespace == "rvps-ledger" and not taken:
            taken = 1
            other.register(sample({"n": "other"}), issuer=ADMIN, at=AT)

    store.before_put = overtake
    for number in range(5):
        one.register(sample({"n": -number}), issuer=ADMIN, at=AT)
    store.before_put = None
    assert taken
    assert over(store).query("n", AT) == -4


def test_a_full_ledger_keeps_what_it_could_not_name(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that grew too large to read would end the service for ever."""
    assert not Ledger().is_full
    monkeypatch.setattr(Ledger, "is_full", True)
    provider = over(store)
    for number in range(70):
        provider.register(sample({"n": number}), issuer=ADMIN, at=AT)
    assert len(store.statements()) == 70
    many = Ledger(1, tuple(Gap(2 * number, 2 * number, "0" * 64, "0" * 64) for number in range(40_000)))
    monkeypatch.undo()
    assert many.is_full
    assert len(write_ledger(many.gaps, {})) < 16 << 20


class Lenient(FakeIntake):
    """An intake that forgot to ask what its publisher may send."""

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:
        name, _, content = payload.partition(b"\n")
        who = publishers.by_name[name.decode().partition("/")[0]]
        return Verified(who, name.decode(), KIND, content, hashlib.sha256(content).hexdigest(), at)


def test_the_provider_asks_again_what_a_publisher_may_send(store: MemoryStore) -> None:
    known = everybody(replace(publisher("acme"), types=frozenset({"dsse"}), trust=Trust()))
    provider = over(store, Lenient(), known)
    with pytest.raises(SignatureRefused, match="may not send 'fake'"):
        provider.submit(message("acme/1", stating(1, {"n": 1})), AT)
    assert store.statements() == []


@pytest.mark.parametrize(
    "name",
    [
        "x_snp_a",
        "Snp_a",
        "snp",
        "\N{CYRILLIC SMALL LETTER DZE}np_a",
        "snp_a".replace("n", "\N{FULLWIDTH LATIN SMALL LETTER N}"),
        " snp_a",
        "s\N{COMBINING ACUTE ACCENT}np_a",
        "snp-a",
        "acme",
        "acmes/x",
        "ACME/x",
    ],
)
def test_names_that_look_like_those_of_a_namespace_are_others(name: str) -> None:
    assert not publisher("acme", namespaces=("snp_", "acme/")).may_state(name)


def test_the_same_series_of_another_publisher_is_another(provider: EmbeddedProvider) -> None:
    submit(provider, "acme", stating((1 << 63) - 1, {"n": [1]}))
    submit(provider, "appends", stating(1, {"n2": [1]}))
    assert json.loads(provider.snapshot(AT).encoded) == {"n": [1], "n2": [1]}
