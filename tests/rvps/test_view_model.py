"""The state machine of statements against a model that remembers everything and computes each answer from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rvps.errors import StatementUnacceptable
from rvps.service import EmbeddedProvider
from rvps.statements import log as store
from rvps.statements import view
from rvps.strict_json import encode
from tests.rvps.fake_intake import KIND, FakeIntake, approver, digest, everybody, message, publisher, stating
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable
from tests.rvps.test_service import sample

BEGIN = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PUBLISHERS = everybody(
    publisher("single"),
    publisher("rolling", keeps=2, merge="append"),
    publisher("careful", approvals=2, approvers=("x", "y", "careful"), self_approval=True, merge="append"),
    approver("x"),
    approver("y"),
)
NAMES = st.sampled_from(["n1", "n2"])
VALUES = st.one_of(st.integers(1, 3), st.lists(st.integers(1, 3), min_size=1, max_size=2, unique=True))
STATED = st.fixed_dictionaries({}, optional={"n1": VALUES, "n2": VALUES})
BAD = st.one_of(st.just({}), st.just({}), st.builds(lambda name, value: {name: [value]}, NAMES, st.integers(1, 3)))


@dataclass
class Said:
    """One event of the model. order: of arrival. active: order of the event that made it active."""

    order: int
    by: str
    values: dict[str, Any]
    starts: datetime | None
    until: datetime
    active: int | None = None
    serial: int = 0
    series: str = ""
    bad: dict[str, list[int]] = field(default_factory=dict)
    together: bool = False
    digest: str = ""
    wanted: datetime = BEGIN
    approved: set[str] = field(default_factory=set)
    revoked: datetime | None = None

    @property
    def signed(self) -> bool:
        return bool(self.series)


class Statements(RuleBasedStateMachine):
    """Everything is submitted to one of two providers of one store, each answer asked of both."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        for module, name, value in (
            (store, "KEPT_STATEMENTS", 2),
            (store, "_PROBED", 1),
            (view, "KEPT_PER_SERIES", 1),
        ):
            self.patches.enter_context(patch.object(module, name, value))
        self.store = MemoryStore()
        self.providers = [self.open(), self.open()]
        self.now = BEGIN
        self.said: list[Said] = []
        self.order = 0
        self.high: dict[tuple[str, str], int] = {}

    def open(self) -> EmbeddedProvider:
        return EmbeddedProvider(
            self.store,
            conflict=Conflict,
            unavailable=Unavailable,
            publishers=lambda: PUBLISHERS,
            intakes={KIND: FakeIntake()},
        )

    def teardown(self) -> None:
        self.patches.close()

    @initialize()
    def first(self) -> None:
        self.state("single", "s", 1, {"n1": [1]}, {}, False, 0, 60, 0)

    # What happens.

    @rule(
        by=st.sampled_from(["single", "rolling", "careful"]),
        series=st.sampled_from(["s", "s", "s", "t"]),
        step=st.sampled_from([1, 1, 1, 2, 0, -1]),
        values=STATED,
        bad=BAD,
        together=st.booleans(),
        begins=st.sampled_from([0, 2]),
        life=st.integers(4, 30),
        which=st.integers(0, 1),
    )
    def state(
        self,
        by: str,
        series: str,
        step: int,
        values: dict[str, Any],
        bad: dict[str, list[int]],
        together: bool,
        begins: int,
        life: int,
        which: int,
    ) -> None:
        high = self.high.get((by, series), 0)
        wanted, until = self.now + begins * SECOND, self.now + life * SECOND
        said = stating(
            max(high + step, 0), values, series, bad=bad, together=together, until=until, begins=wanted, by=by
        )
        taken = self.try_to(which, message(f"{by}/1", said))
        assert taken == (step > 0 and high + step >= 1)
        if not taken:
            return
        self.order += 1
        self.high[by, series] = high + step
        entry = Said(
            self.order, by, values, None, until, None, high + step, series, bad, together, digest(said), wanted
        )
        if by != "careful":
            entry.active, entry.starts = self.order, max(wanted, self.now)
        self.said.append(entry)

    @precondition(lambda self: any(entry.signed for entry in self.said))
    @rule(data=st.data(), by=st.sampled_from(["x", "y", "careful", "single"]), which=st.integers(0, 1))
    def approve(self, data: st.DataObject, by: str, which: int) -> None:
        entry = data.draw(st.sampled_from([entry for entry in self.said if entry.signed][-4:]))
        if not self.kept(entry):
            return
        taken = self.try_to(which, message(f"{by}/1", {"approve": entry.digest}))
        allowed = entry.by == "careful" and by != "single" and by not in entry.approved
        assert taken == (allowed and self.state_of(entry, self.now) == "draft")
        if taken:
            self.order += 1
            entry.approved.add(by)
            if len(entry.approved) == 2:
                entry.active, entry.starts = self.order, max(entry.wanted, self.now)

    @rule(data=st.data(), by=st.sampled_from(["publisher", "x", "admin"]), which=st.integers(0, 1))
    def revoke(self, data: st.DataObject, by: str, which: int) -> None:
        entry = data.draw(st.sampled_from(self.said[-4:]))
        if not entry.signed or not self.kept(entry):
            return
        if by == "admin":
            try:
                self.providers[which].revoke(entry.digest, reason="", issuer="admin:a#1", at=self.now)
                taken = True
            except StatementUnacceptable:
                taken = False
            allowed = True
        else:
            signer = entry.by if by == "publisher" else by
            taken = self.try_to(which, message(f"{signer}/1", {"revoke": entry.digest, "reason": "because"}))
            allowed = by == "publisher" or entry.by == "careful"
        assert taken == (allowed and entry.revoked is None)
        if taken:
            self.order += 1
            entry.revoked = self.now

    @rule(values=STATED.filter(bool), which=st.integers(0, 1))
    def register(self, values: dict[str, Any], which: int) -> None:
        self.providers[which].register(sample(values), issuer="admin:a#1", at=self.now)
        self.order += 1
        until = self.now.replace(year=self.now.year + 1)
        self.said.append(Said(self.order, "admin", values, self.now, until, self.order))

    @rule(name=NAMES, which=st.integers(0, 1))
    def withdraw(self, name: str, which: int) -> None:
        cut = self.cut(name)
        speaks = bool(cut and cut.values[name] is not None and cut.revoked is None) or any(
            entry.signed
            and entry.active is not None
            and entry.active > (cut.order if cut else 0)
            and name in entry.values
            and entry.revoked is None
            and not self.superseded(entry, self.now)
            for entry in self.said
        )
        assert self.providers[which].withdraw(name, issuer="admin:a#1", at=self.now) == speaks
        if speaks:
            self.order += 1
            self.said.append(Said(self.order, "admin", {name: None}, None, self.now, self.order))

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.providers[which] = self.open()

    # What must hold.

    @invariant()
    def answers_agree(self) -> None:
        moments = [self.now, self.now + 7 * SECOND, self.now]
        if all(self.kept(entry) for entry in self.said if entry.signed):
            moments.insert(1, self.now - 5 * SECOND)  # what was removed is not told about the past either
        for at in moments:
            expected = {name: value for name in ("n1", "n2") if (value := self.value(name, at)) is not None}
            sets = self.sets(at)
            for provider in self.providers:
                found = provider.snapshot(at)
                assert dict(found.values) == expected
                assert found.encoded == encode(expected)
                assert json.loads(found.encoded_sets) == sets

    @invariant()
    def states_agree(self) -> None:
        stored = {status.digest: status for status in self.providers[0].statements(self.now)}
        for entry in self.said:
            if entry.signed and entry.digest in stored:
                assert stored[entry.digest].state == self.state_of(entry, self.now)
            elif entry.signed:
                assert self.state_of(entry, self.now) in ("revoked", "superseded", "expired")

    def try_to(self, which: int, sent: dict[str, Any]) -> bool:
        before = dict(self.store.current)
        try:
            self.providers[which].submit(sent, self.now)
        except StatementUnacceptable:
            assert self.store.current == before, "a refusal stores nothing"
            return False
        return self.store.current != before  # the same message again is answered, and changes nothing

    def kept(self, entry: Said) -> bool:
        return self.providers[0].statement(entry.digest, self.now) is not None

    # The model's answers.

    def cut(self, name: str) -> Said | None:
        return next((entry for entry in reversed(self.said) if not entry.signed and name in entry.values), None)

    def line(self, entry: Said) -> Iterator[Said]:
        for other in self.said:
            if (other.by, other.series) != (entry.by, entry.series) or other.starts is None:
                continue
            if other.revoked is None or other.revoked >= other.starts:
                yield other

    def superseded(self, entry: Said, at: datetime) -> bool:
        newer = [each for each in self.line(entry) if each.serial > entry.serial and each.starts and each.starts <= at]
        keeps = 2 if entry.by == "rolling" else 1
        return len(newer) >= keeps

    def state_of(self, entry: Said, at: datetime) -> str:
        if entry.revoked is not None:
            return "revoked"
        if self.superseded(entry, at):
            return "superseded"
        if entry.until <= at:
            return "expired"
        return "draft" if entry.active is None else "active"

    def contributors(self, name: str, at: datetime) -> list[Said]:
        cut = self.cut(name)
        standing = [
            entry
            for entry in self.said
            if entry.signed
            and name in entry.values
            and entry.active is not None
            and entry.active > (cut.order if cut else 0)
            and entry.starts is not None
            and entry.starts <= at
            and entry.revoked is None
            and not self.superseded(entry, at)
        ]
        if not standing:
            starts = cut.starts if cut else None
            return [cut] if cut and starts is not None and starts <= at < cut.until else []
        last = {(entry.by, entry.series): entry.active or 0 for entry in sorted(standing, key=lambda e: e.active or 0)}
        newest = max(last, key=lambda line: last[line])
        lines = {line for line in last if newest[0] != "single" and line[0] != "single"} | {newest}
        chosen = [entry for entry in standing if (entry.by, entry.series) in lines and at < entry.until]
        return sorted(chosen, key=lambda entry: (last[entry.by, entry.series], entry.serial), reverse=True)

    def bad(self, name: str) -> set[int]:
        return {
            value
            for entry in self.said
            if entry.signed and entry.active is not None and entry.revoked is None
            for value in entry.bad.get(name, [])
        }

    def value(self, name: str, at: datetime) -> Any:
        chosen, bad = self.contributors(name, at), self.bad(name)
        if not chosen:
            return None
        value = chosen[0].values[name]
        if isinstance(value, list):
            value = list(value) if len(chosen) == 1 else []
            if len(chosen) > 1:
                for entry in reversed(chosen):
                    said = entry.values[name]
                    value += [each for each in said if each not in value] if isinstance(said, list) else []
            return [each for each in value if each not in bad] or None
        return None if value in bad else value

    def sets(self, at: datetime) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in sorted(self.said, key=lambda each: each.order, reverse=True):
            whole = all(
                entry in self.contributors(name, at)
                and self.bad(name).isdisjoint(value if isinstance(value, list) else [value])
                for name, value in entry.values.items()
            )
            if entry.together and whole:
                for name in entry.values:
                    found.setdefault(name, []).append(entry.values)
        return found


TestStatements = Statements.TestCase
TestStatements.settings = settings(
    phases=[Phase.generate],
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
