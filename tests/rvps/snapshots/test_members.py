"""Objects that are encoded piece by piece are what encoding them at once gives."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.snapshots.members import Members
from rvps.strict_json import encode

NAMES = st.one_of(
    st.integers(0, 900).map(lambda n: f"n{n}"), st.text(max_size=4).filter(lambda text: text.isprintable())
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(NAMES, st.one_of(st.none(), st.integers())), max_size=80), st.integers(0, 600))
def test_whatever_comes_and_goes(changes: list[tuple[str, int | None]], many: int) -> None:
    expected: dict[str, Any] = {f"n{n}": n for n in range(many)}
    members = Members()
    for name, value in expected.items():
        members.put(name, encode(value))
    assert members.encoded() == encode(expected)
    for name, changed in changes:
        if changed is not None:
            expected[name] = changed
            members.put(name, encode(changed))
        elif expected.pop(name, None) is not None:
            members.remove(name)
    assert members.encoded() == encode(expected)
    for name in list(expected):
        members.remove(name)
    assert members.encoded() == b"{}"
