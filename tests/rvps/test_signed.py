"""Signed messages at the provider, with an intake that stands for any format: what is refused, and what is kept."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from rvps.errors import ProviderUnavailable, SignatureRefused, StatementUnacceptable
from rvps.model import State
from rvps.service import EmbeddedProvider
from rvps.statements.log import KEPT_STATEMENTS
from rvps.statements.view import KEPT_PER_SERIES
from rvps.strict_json import encode
from tests.rvps.fake_intake import KIND, FakeIntake, approver, digest, everybody, message, publisher, stating
from tests.rvps.memory_store import Conflict, MemoryStore, Stored, Unavailable
from tests.rvps.test_service import ALICE, AT, SECOND, sample

PUBLISHERS = everybody(
    publisher("acme", namespaces=("snp_", "acme/")),
    publisher("tdx-only", tees=frozenset({"tdx"})),
    publisher("careful", approvals=2, approvers=("x", "y", "careful"), merge="append"),
    publisher("other", merge="append"),
    approver("x"),
    approver("y"),
)


class LockedStore(MemoryStore):
    """For several threads: each call is whole, as it is in a real store."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def get(self, namespace: str, key: str, version: int | None = None) -> Stored | None:
        with self.lock:
            return super().get(namespace, key, version)

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        with self.lock:
            return super().put(namespace, key, value, meta=meta, expected=expected)

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        with self.lock:
            return super().delete(namespace, key, expected=expected)

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Stored]:
        with self.lock:
            return super().entries(namespace, prefix)


class Bench:
    """A provider with its store and a counting intake."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.intake = FakeIntake()
        self.provider = EmbeddedProvider(
            self.store,
            conflict=Conflict,
            unavailable=Unavailable,
            publishers=lambda: PUBLISHERS,
            intakes={KIND: self.intake},
        )

    def submit(self, signer: str, said: Mapping[str, Any], after: int = 0) -> Any:
        return self.provider.submit(message(signer, said), AT + after * SECOND)

    def values(self, after: int = 0) -> dict[str, Any]:
        return dict(self.provider.snapshot(AT + after * SECOND).values)


@pytest.fixture
def bench() -> Bench:
    return Bench()


GOOD = {"snp_launch_measurement": ["aa"], "acme/x": 1}


def test_a_signed_statement_is_delivered_and_names_its_publisher(bench: Bench) -> None:
    bench.provider.register(sample({"acme/x": 0}), issuer=ALICE, at=AT)
    done = bench.submit("acme/1", stating(1, GOOD))
    assert bench.values() == GOOD
    assert done.does == "statement"
    assert done.status.state is State.ACTIVE
    assert {(value.name, value.issuer) for value in done.values} == {(name, "acme#acme/1") for name in GOOD}
    assert {value.name: value.replaced for value in done.values} == {
        "snp_launch_measurement": None,
        "acme/x": hashlib.sha256(b"0").hexdigest(),
    }


def test_the_same_message_again_has_the_same_answer_while_it_still_holds(bench: Bench) -> None:
    """Who got a 503 after the record was written asks again."""
    careful = stating(1, {"n": 1}, series="c")
    steps: list[tuple[str, dict[str, Any]]] = [
        ("acme/1", stating(1, GOOD)),
        ("careful/1", careful),
        ("x/1", {"approve": digest(careful)}),
        ("y/1", {"approve": digest(careful)}),
        ("careful/1", {"revoke": digest(careful), "reason": "because"}),
    ]
    for signer, said in steps:
        first = bench.submit(signer, said)
        events = bench.provider.head()
        again = bench.submit(signer, said)
        assert (again.does, again.status) == (first.does, first.status)
        assert {value.name for value in again.values} == {value.name for value in first.values}
        assert bench.provider.head() == events


def test_the_same_message_again_is_refused_once_it_does_not_hold(bench: Bench) -> None:
    bench.submit("acme/1", stating(1, GOOD))
    with pytest.raises(StatementUnacceptable, match=rf"statement {digest(stating(1, GOOD))[:16]} was taken before"):
        bench.submit("acme/2", stating(1, GOOD))  # by another key: another message
    bench.submit("acme/1", stating(2, GOOD))
    with pytest.raises(StatementUnacceptable, match="was taken before"):
        bench.submit("acme/1", stating(1, GOOD))  # superseded
    bench.submit("acme/1", {"revoke": digest(stating(2, GOOD)), "reason": "because"})
    with pytest.raises(StatementUnacceptable, match="was taken before"):
        bench.submit("acme/1", stating(2, GOOD))
    with pytest.raises(StatementUnacceptable, match="revoked already"):
        bench.submit("acme/1", {"revoke": digest(stating(2, GOOD)), "reason": "another"})


def test_register_takes_signed_messages_too_and_a_bad_signature_counts_whoever_sends_it(bench: Bench) -> None:
    assert len(bench.provider.register(message("acme/1", stating(1, GOOD)), issuer=ALICE, at=AT)) == 2
    with pytest.raises(SignatureRefused):
        bench.provider.register(message("stranger/1", stating(1, GOOD)), issuer=ALICE, at=AT)
    with pytest.raises(SignatureRefused, match="carry no signature"):
        bench.provider.submit(sample({"a": 1}), AT)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "wrong key": ("mallory/1", stating(2, GOOD), "nobody known"),
    "wrong namespace": ("acme/1", stating(2, {"tdx_x": 1}), "may not state 'tdx_x'"),
    "one bad entry of 50": (
        "acme/1",
        stating(2, {**{f"snp_{n}": n for n in range(49)}, "mr_td": 1}),
        "may not state 'mr_td'",
    ),
    "known bad outside the namespace": ("acme/1", stating(2, {}, bad={"mr_td": [1]}), "may not state"),
    "a name that cannot be shown": ("acme/1", stating(2, {"snp_\n": 1}), "cannot be printed"),
    "expired by a second": ("acme/1", stating(2, GOOD, until=AT - SECOND), "expired at"),
    "expired this second": ("acme/1", stating(2, GOOD, until=AT), "expired at"),
    "lives too long": ("acme/1", stating(2, GOOD, until=AT + timedelta(days=30, seconds=1)), "may live 30 days"),
    "ends before it begins": (
        "acme/1",
        stating(2, GOOD, begins=AT + 9 * SECOND, until=AT + 9 * SECOND),
        "before it begins",
    ),
    "older serial": ("acme/1", stating(0, GOOD), "from 1 on"),
    "same serial": ("acme/1", stating(1, {"snp_a": 1}), "not newer than 1"),
    "another tee": ("tdx-only/1", stating(1, {"n1": 1}, tee="snp"), "for TEE 'snp'"),
    "no tee where it matters": ("tdx-only/1", stating(1, {"n1": 1}), "for TEE None"),
    "an approver states": ("x/1", stating(1, {"n1": 1}), "only approves"),
    "a set too large": ("acme/1", stating(2, {f"snp_{n}": n for n in range(65)}, together=True), "at most 64"),
    "malformed content": ("acme/1", {"malformed": True}, "does not have the form"),
    "approval of nothing": ("x/1", {"approve": "0" * 64}, "there is no statement"),
    "revocation of nothing": ("acme/1", {"revoke": "0" * 64, "reason": ""}, "there is no statement"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_messages_are_refused_as_a_whole_and_nothing_is_stored(bench: Bench, case: str) -> None:
    signer, said, text = BAD[case]
    bench.submit("acme/1", stating(1, GOOD))
    before = dict(bench.store.current)
    for attempt in (bench.provider.submit, bench.provider.dry_run):
        with pytest.raises(StatementUnacceptable, match=text):
            attempt(message(signer, said), AT)
    assert bench.store.current == before
    assert bench.values() == GOOD


def test_content_is_not_looked_at_before_the_signature_holds(bench: Bench) -> None:
    with pytest.raises(SignatureRefused):
        bench.submit("mallory/1", {"malformed": True})
    assert bench.intake.extracted == 0


def test_too_large_a_message_is_not_even_decoded(bench: Bench) -> None:
    payload = base64.b64encode(b"acme/1\n" + b" " * (8 << 20)).decode()
    with pytest.raises(StatementUnacceptable, match="too long"):
        bench.provider.submit({"type": KIND, "payload": payload}, AT)
    with pytest.raises(StatementUnacceptable, match="says itself when it expires"):
        bench.provider.submit({**message("acme/1", stating(1, GOOD)), "expiration": "2026-12-01T00:00:00Z"}, AT)
    assert (bench.intake.extracted, bench.store.changes) == (0, 0)


def test_values_too_deep_to_be_read_again_are_refused(bench: Bench) -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    with pytest.raises(StatementUnacceptable, match="nested deeper"):
        bench.submit("acme/1", stating(1, {"snp_x": deep}))
    assert bench.store.changes == 0


def test_serials_never_go_back_not_even_after_pruning_and_restart(bench: Bench) -> None:
    last = KEPT_STATEMENTS + 40
    for serial in range(1, last):
        bench.submit("acme/1", stating(serial, {"snp_x": serial}))
    bench.submit("acme/1", {"revoke": digest(stating(last - 1, {"snp_x": last - 1})), "reason": "bad build"})
    bench.provider.withdraw("snp_x", issuer=ALICE, at=AT)
    again = Bench(bench.store)
    assert len(bench.store.statements()) <= KEPT_STATEMENTS + 2
    for serial in (1, last - 1):
        with pytest.raises(StatementUnacceptable, match=f"not newer than {last - 1}"):
            again.submit("acme/1", stating(serial, {"snp_x": "again"}))
    assert again.values() == {}
    again.submit("acme/1", stating(last, {"snp_x": "new"}))
    assert again.values() == {"snp_x": "new"}


def test_signed_messages_go_with_their_statement(bench: Bench) -> None:
    for serial in range(1, KEPT_STATEMENTS + 20):
        bench.submit("acme/1", stating(serial, {"snp_x": serial}))
    kept = [stored.key for stored in bench.store.entries("rvps-messages")]
    told = {step.message for status in bench.provider.statements(AT) for step in status.steps if step.message}
    assert set(kept) == told
    assert len(kept) == KEPT_STATEMENTS
    assert len(kept) >= KEPT_PER_SERIES
    assert bench.provider.signed_message(kept[0]) is not None
    bench.store.put("rvps-messages", kept[0], b"other", meta={})
    with pytest.raises(ProviderUnavailable, match="not the one"):
        bench.provider.signed_message(kept[0])


def test_approvals_by_different_people_make_a_draft_active(bench: Bench) -> None:
    said = stating(1, {"n1": [1]})
    assert bench.submit("careful/1", said).status.state is State.DRAFT
    assert bench.values() == {}
    assert bench.submit("x/1", {"approve": digest(said), "serial": 1}).status.approvals == 1
    refused: dict[str, tuple[str, dict[str, Any]]] = {
        "approved .* before": ("x/2", {"approve": digest(said)}),
        "does not approve it": ("careful/2", {"approve": digest(said)}),
        "no approver": ("acme/1", {"approve": digest(said)}),
        "names 2": ("y/1", {"approve": digest(said), "serial": 2}),
        "there is no statement": ("y/1", {"approve": digest(said)[:16]}),
    }
    for text, (signer, content) in refused.items():
        with pytest.raises(StatementUnacceptable, match=text):
            bench.submit(signer, content)
    assert bench.values() == {}
    done = bench.submit("y/1", {"approve": digest(said)}, after=3)
    assert [step.what for step in done.status.steps] == ["stated", "approved", "approved", "active"]
    assert bench.values(3) == {"n1": [1]}


def test_a_revoked_or_overtaken_draft_is_not_approved(bench: Bench) -> None:
    said = stating(1, {"n1": [1]})
    bench.submit("careful/1", said)
    bench.submit("x/1", {"revoke": digest(said), "reason": "wrong build"})
    with pytest.raises(StatementUnacceptable, match=r"revoked: by x at .*: wrong build"):
        bench.submit("y/1", {"approve": digest(said)})
    older, newer = stating(2, {"n1": [2]}), stating(3, {"n1": [3]})
    for each in (older, newer):
        bench.submit("careful/1", each)
    for who in ("x/1", "y/1"):
        bench.submit(who, {"approve": digest(newer)})
    with pytest.raises(StatementUnacceptable, match="no draft but superseded"):
        bench.submit("x/1", {"approve": digest(older)})
    assert bench.values() == {"n1": [3]}


def test_revocation_counts_at_once_for_every_replica(bench: Bench) -> None:
    other = Bench(bench.store)
    said = stating(1, GOOD)
    bench.submit("acme/1", said)
    assert other.values() == GOOD
    with pytest.raises(StatementUnacceptable, match="may not revoke"):
        bench.submit("other/1", {"revoke": digest(said), "reason": ""})
    with pytest.raises(StatementUnacceptable, match="printable"):
        bench.submit("acme/1", {"revoke": digest(said), "reason": "a\nb"})
    done = bench.provider.revoke(digest(said)[:12], reason="key lost", issuer=ALICE, at=AT)
    assert (done.state, done.reason) == (State.REVOKED, f"by {ALICE} at 2026-11-21T10:00:00Z: key lost")
    assert other.values() == {}
    with pytest.raises(StatementUnacceptable, match="already"):
        other.provider.revoke(done.id, reason="", issuer=ALICE, at=AT)
    with pytest.raises(StatementUnacceptable, match="no statement"):
        other.provider.revoke("ffffffffff", reason="", issuer=ALICE, at=AT)


def test_an_unsigned_statement_is_revoked_by_its_id(bench: Bench) -> None:
    written = bench.provider.register(sample({"a": 1, "b": 2}), issuer=ALICE, at=AT)
    bench.provider.revoke(written[0].statement, reason="", issuer=ALICE, at=AT)
    assert bench.values() == {}


def test_known_bad_values_are_never_delivered_whoever_states_them(bench: Bench) -> None:
    bench.provider.register(sample({"snp_x": ["aa", "bb"], "snp_y": 1.0, "snp_z": ["cc"]}), issuer=ALICE, at=AT)
    said = stating(1, {}, bad={"snp_x": ["aa"], "snp_y": [1], "snp_z": ["cc"]})
    bench.submit("acme/1", said)
    assert bench.values() == {"snp_x": ["bb"]}
    assert [value.name for value in bench.provider.list(AT)] == ["snp_x"]
    bench.submit("acme/1", stating(2, {}))
    assert bench.values() == {"snp_x": ["bb"]}, "also after a newer serial that does not repeat it"
    bench.submit("acme/1", {"revoke": digest(said), "reason": "mistaken"})
    assert set(bench.values()) == {"snp_x", "snp_y", "snp_z"}


def test_sets_are_whole_or_not_delivered(bench: Bench) -> None:
    said = {"n1": ["k1"], "n2": 1}
    bench.submit("other/1", stating(1, said, "a", together=True, until=AT + 60 * SECOND))
    bench.submit("other/1", stating(1, {"n1": ["k2"], "n2": 2}, "b", together=True))

    def sets(after: int = 0) -> Any:
        return json.loads(bench.provider.snapshot(AT + after * SECOND).encoded_sets)

    newest = {"n1": ["k2"], "n2": 2}
    assert sets() == {"n1": [newest, said], "n2": [newest, said]}
    assert bench.values() == {"n1": ["k1", "k2"], "n2": 2}
    version = bench.provider.snapshot(AT).version
    assert sets(60) == {"n1": [newest], "n2": [newest]}, "expired"
    bench.submit("other/1", stating(1, {}, "c", bad={"n1": ["k2"]}))
    assert sets() == {"n1": [said], "n2": [said]}
    assert bench.provider.snapshot(AT).version != version
    bench.provider.withdraw("n2", issuer=ALICE, at=AT)
    assert sets() == {}


def test_a_dry_run_tells_what_would_change_and_stores_nothing(bench: Bench) -> None:
    bench.provider.register(sample({"snp_microcode": 1, "snp_snp_svn": 2, "snp_tee_svn": 3}), issuer=ALICE, at=AT)
    bench.submit("acme/1", stating(1, {"snp_bootloader": 5}))
    before = bench.store.changes
    said = stating(2, {"snp_microcode": 1.0, "snp_snp_svn": 9, "snp_launch_mesurement": ["aa"]})
    told = bench.provider.dry_run(message("acme/1", said), AT)
    assert {change.name: change.kind for change in told.changes} == {
        "snp_microcode": "unchanged",
        "snp_snp_svn": "changed",
        "snp_launch_mesurement": "new",
        "snp_bootloader": "removed",
    }
    assert told.warnings == (
        "no shipped policy looks up 'snp_launch_mesurement'; did you mean 'snp_launch_measurement'?",
    )
    assert bench.store.changes == before
    draft = bench.provider.dry_run(message("careful/1", stating(1, {"n1": 1})), AT)
    assert (draft.state, draft.approvals_missing, draft.changes) == (State.DRAFT, 2, ())
    plain = bench.provider.dry_run(sample({"snp_microcode": 2}), AT, issuer=ALICE)
    assert [(change.name, change.before, change.after) for change in plain.changes] == [("snp_microcode", 1, 2)]
    bench.submit("acme/1", said)
    assert bench.values() == {
        "snp_microcode": 1,
        "snp_snp_svn": 9,
        "snp_launch_mesurement": ["aa"],
        "snp_tee_svn": 3,
    }


def test_why_tells_who_stated_a_value_and_what_became_of_it(bench: Bench) -> None:
    first = stating(1, {"snp_x": ["aa"]})
    bench.submit("acme/1", first)
    bench.submit("acme/1", stating(2, {"snp_x": ["bb"]}))
    now = bench.provider.why("snp_x", "bb", AT)
    assert now.matches
    assert now.reason.startswith("stated by acme#acme/1 until 2026-12-21T10:00:00Z")
    assert now.mentions[0].status.artifacts == (("OVMF.fd", {"sha256": "00" * 32}),)
    old = bench.provider.why("snp_x", "aa", AT)
    assert not old.matches
    assert "is superseded" in old.reason
    assert [mention.status.serial for mention in bench.provider.why("snp_x", None, AT).mentions] == [2, 1]
    bench.submit("acme/1", stating(3, {"snp_x": ["bb"]}, bad={"snp_x": ["bb"]}))
    assert bench.provider.why("snp_x", "bb", AT).reason.startswith("known bad, says statement")
    assert "no statement that is kept" in bench.provider.why("snp_y", 1, AT).reason
    bench.provider.register(sample({"snp_x": ["cc"]}), issuer=ALICE, at=AT)
    bench.provider.withdraw("snp_x", issuer=ALICE, at=AT)
    assert bench.provider.why("snp_x", "cc", AT).reason == f"withdrawn by {ALICE} at 2026-11-21T10:00:00Z"


def test_misses_are_counted_for_a_bounded_number_of_names(bench: Bench) -> None:
    for n in range(2000):
        bench.provider.query(f"n{n}", AT)
    bench.provider.missed(["n1", "n1", "x" * 300])
    assert len(bench.provider.misses()) == 1000
    assert next(iter(bench.provider.misses().items())) == ("n1", 3)


def test_every_changed_or_missing_record_is_noticed(bench: Bench) -> None:
    for serial in range(1, 6):
        bench.submit("acme/1", stating(serial, {"snp_x": serial}))
    whole = dict(bench.store.current)
    records = [key for key in whole if key[0] == "rvps-statements"]
    for key in records:
        bench.store.current = {each: stored for each, stored in whole.items() if each != key}
        with pytest.raises(ProviderUnavailable, match=r"missing|not there"):
            Bench(bench.store).values()
        bench.store.current = dict(whole)
        changed = whole[key].value.replace(b'"received":"2026', b'"received":"2025')
        bench.store.put(key[0], key[1], changed, meta={})
        with pytest.raises(ProviderUnavailable, match="missing or changed"):
            Bench(bench.store).values()
    bench.store.current = whole
    assert Bench(bench.store).values() == {"snp_x": 5}


def test_a_record_that_is_missing_beside_removed_ones_is_noticed(bench: Bench) -> None:
    for serial in range(1, KEPT_STATEMENTS + 30):
        bench.submit("acme/1", stating(serial, {"snp_x": serial}))
    for key in bench.store.statements()[:3]:
        gone = bench.store.current.pop(("rvps-statements", key))
        with pytest.raises(ProviderUnavailable, match="missing"):
            Bench(bench.store).values()
        bench.store.current["rvps-statements", key] = gone
    del bench.store.current["rvps-ledger", "removed"]
    with pytest.raises(ProviderUnavailable, match="missing"):
        Bench(bench.store).values()


def test_records_of_the_first_form_still_read_and_are_chained_from_then_on(bench: Bench) -> None:
    old = {
        "format": 1,
        "type": "sample",
        "issuer": ALICE,
        "received": "2026-11-21T09:00:00Z",
        "valid_until": "2027-11-21T10:00:00Z",
        "values": {"a": 1, "snp_x": 0},
    }
    gone = {**old, "type": "withdrawal", "valid_until": old["received"], "values": {"a": None}}
    bench.store.put("rvps-statements", f"{3:016d}", encode(old), meta={})
    bench.store.put("rvps-statements", f"{7:016d}", encode(gone), meta={})
    bench.store.put("rvps-head", "head", b"{}", meta={})
    assert bench.values() == {"snp_x": 0}
    bench.submit("acme/1", stating(1, {"snp_x": 1}))
    assert Bench(bench.store).values() == {"snp_x": 1}
    assert bench.provider.head()[0] == 8
    bench.store.put("rvps-statements", f"{9:016d}", encode(old), meta={})
    with pytest.raises(ProviderUnavailable, match="older form"):
        Bench(bench.store).values()


def _deeds(bench: Bench) -> list[dict[str, Any]]:
    said = stating(1, {"n1": [1], "n2": 2})
    return [
        message("careful/1", said),
        message("x/1", {"approve": digest(said)}),
        message("y/1", {"approve": digest(said)}),
        message("careful/1", {"revoke": digest(said), "reason": ""}),
        message("acme/1", stating(1, GOOD)),
    ]


def _as_far_as_it_goes(bench: Bench) -> int:
    for done, deed in enumerate(_deeds(bench)):
        try:
            bench.provider.submit(deed, AT)
        except ProviderUnavailable:
            return done
    raise AssertionError("no write failed")


def test_a_crash_between_any_two_writes_leaves_all_of_a_statement_or_nothing() -> None:
    """Each write in turn is the one that fails; then a new process goes on where the store was left."""
    clean = Bench()
    expected = []
    for deed in _deeds(clean):
        clean.provider.submit(deed, AT)
        expected.append(clean.values())
    for crash in range(3 * len(expected)):
        bench = Bench()
        left = [crash]

        def fail(namespace: str, key: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable

        bench.store.before_put = fail
        done = _as_far_as_it_goes(bench)
        bench.store.before_put = None
        again = Bench(bench.store)
        before = expected[done - 1] if done else {}
        assert again.values() in (before, expected[done])
        for deed in _deeds(again)[done:]:
            with suppress(StatementUnacceptable):  # the one that stood when its head did not is there already
                again.provider.submit(deed, AT)
        assert again.values() == expected[-1] == Bench(again.store).values()


def test_a_crash_while_old_statements_are_removed_is_made_good(bench: Bench) -> None:
    for serial in range(1, KEPT_STATEMENTS + KEPT_PER_SERIES):
        bench.submit("acme/1", stating(serial, {"snp_x": serial}))
    serial = KEPT_STATEMENTS + KEPT_PER_SERIES

    def fail(namespace: str, key: str) -> None:
        if namespace == "rvps-ledger":
            raise Unavailable

    bench.store.before_put = fail
    bench.submit("acme/1", stating(serial, {"snp_x": serial}))
    bench.store.before_put = None
    assert bench.values() == Bench(bench.store).values() == {"snp_x": serial}
    kept = dict(bench.store.current)
    bench.submit("acme/1", stating(serial + 1, {"snp_x": serial + 1}))
    for key, stored in kept.items():  # the ledger was written, the deletions were not
        if key[0] == "rvps-statements":
            bench.store.current.setdefault(key, stored)
    assert Bench(bench.store).values() == {"snp_x": serial + 1}


def test_a_thousand_racing_writers_lose_no_update() -> None:
    store = LockedStore()
    benches = [Bench(store), Bench(store)]
    taken: list[int] = []

    def write(bench: Bench, numbers: range) -> None:
        for n in numbers:
            while True:
                try:
                    bench.provider.register(sample({f"n{n}": n}), issuer=ALICE, at=AT)
                except ProviderUnavailable:
                    continue
                taken.append(n)
                break

    threads = [threading.Thread(target=write, args=(benches[k % 2], range(k * 250, (k + 1) * 250))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1000
    expected = {f"n{n}": n for n in range(1000)}
    assert benches[0].values() == benches[1].values() == Bench(store).values() == expected


def test_one_serial_is_taken_once_by_racing_writers() -> None:
    store = LockedStore()
    benches = [Bench(store), Bench(store)]
    done: list[str] = []

    def write(number: int) -> None:
        for serial in range(1, 101):
            try:
                benches[number].submit("acme/1", stating(serial, {"snp_x": [serial, number]}))
                done.append(f"{serial}")
            except StatementUnacceptable:
                pass

    threads = [threading.Thread(target=write, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(set(done))
    assert "100" in done
