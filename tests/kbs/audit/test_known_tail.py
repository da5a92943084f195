"""A log opened with the tail that was found before: the same as one that is read whole, and less of it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbs.audit.events import AdminRead
from kbs.audit.log import AuditLog, LogTail
from kbs.audit.merkle import Frontier
from kbs.audit.verify import verify
from kbs.errors import AuditUnavailable
from tests.kbs.audit.conftest import KEY, NOW, ORIGIN

COUNT = 8


@dataclass
class Site:
    """A log of `COUNT` records, with what there was after each of them."""

    folder: Path

    def __post_init__(self) -> None:
        self.path, self.head_path = self.folder / "log", self.folder / "head"
        with self.open() as log:
            self.tails, self.heads = [log.tail], [self.head_path.read_bytes()]
            for number in range(COUNT):
                log.append([AdminRead(decision=f"{number:032x}", actor="ann", what=f"policy {number}")])
                self.tails.append(log.tail)
                self.heads.append(self.head_path.read_bytes())
        self.whole = self.path.read_bytes()

    def open(self, known: LogTail | None = None) -> closing[AuditLog]:
        log = AuditLog(
            self.path,
            self.head_path,
            KEY,
            origin=ORIGIN,
            clock=lambda: NOW,
            new_decision=lambda: "ab" * 16,
            known=known,
        )
        return closing(log)

    def put(self, log: bytes, head: bytes) -> None:
        """In place: they stay the same files."""
        self.path.write_bytes(log)
        self.head_path.write_bytes(head)

    def outcome(self, known: LogTail | None) -> object:
        """What opening comes to: the tail or the refusal, and the files, which are then put back."""
        before = self.path.read_bytes(), self.head_path.read_bytes()
        try:
            with self.open(known) as log:
                found: object = shown(log.tail)
        except AuditUnavailable as err:
            found = err.operator_detail
        after = self.path.read_bytes(), self.head_path.read_bytes()
        self.put(*before)
        return found, after


def shown(tail: LogTail) -> object:
    return tail.identity, tail.size, tail.tree.size, tail.tree.kept(), tail.prev


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "one")


@pytest.fixture
def offsets(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the log is read from now on."""
    real, found = os.pread, list[int]()

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if os.path.samestat(os.fstat(descriptor), site.path.stat()):
            found.append(offset)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    return found


@pytest.mark.parametrize("lines", range(COUNT + 1))
def test_only_what_is_not_known_is_read(site: Site, offsets: list[int], lines: int) -> None:
    known = site.tails[lines]
    with site.open(known) as log:
        assert shown(log.tail) == shown(site.tails[COUNT])
        assert offsets == ([known.size] if lines < COUNT else [])
        log.append([AdminRead(decision="0" * 32, actor="ann", what="more")])
    report = verify(site.path, site.head_path, KEY.public_key(), origin=ORIGIN)
    assert (report.ok, report.lines, report.signed) == (True, COUNT + 1, COUNT + 1)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def without_a_line(data: bytes, at: int) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[at % len(lines)]
    return b"".join(lines)


def turned(data: bytes, at: int) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[at % len(lines) :] + lines[: at % len(lines)])


DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "none": lambda data, _: data,
    "flipped": flipped,
    "cut": lambda data, at: data[:at],
    "a line less": without_a_line,
    "order": turned,
    "junk": lambda data, at: data[:at] + b"junk" + data[at:],
    "a line of nobody": lambda data, _: data + b"{}\n",
    "half a line": lambda data, _: data + b'{"n":8,"ti',
}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_after_the_known_part_is_found_as_by_a_full_reading(shared: Site, data: st.DataObject) -> None:
    known = shared.tails[data.draw(st.integers(0, COUNT - 1), "lines known")]
    rest = shared.whole[known.size :]
    damage = DAMAGE[data.draw(st.sampled_from([*DAMAGE]), "damage")]
    at = data.draw(st.integers(0, len(rest) - 1), "at")
    head = data.draw(st.sampled_from([*shared.heads, b"", flipped(shared.heads[-1], 60)]), "head")
    shared.put(shared.whole[: known.size] + damage(rest, at), head)
    assert shared.outcome(known) == shared.outcome(None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One for all examples, each of which writes its own content; nothing waits for a disk."""
    return Site(tmp_path_factory.mktemp("shared"))


def other_file(site: Site) -> LogTail:
    """Replaced by a copy."""
    aside = site.path.with_name("aside")
    aside.write_bytes(site.whole)
    aside.replace(site.path)
    return site.tails[5]


def other_log(site: Site) -> LogTail:
    """Of another log that has just as many records, and by chance the same inode."""
    other = Site(site.folder.with_name("other"))
    with other.open() as log:
        log.append([AdminRead(decision="0" * 32, actor="bob", what="another")])
        tail = log.tail
    return replace(tail, identity=site.tails[0].identity)


def shorter(site: Site) -> LogTail:
    site.put(site.whole[: site.tails[5].size], site.heads[5])
    return site.tails[6]


def shorter_than_its_head(site: Site) -> LogTail:
    """Whose head is the one of the known part."""
    site.put(site.whole[: site.tails[5].size], site.heads[6])
    return site.tails[6]


def older_head(site: Site) -> LogTail:
    site.head_path.write_bytes(site.heads[3])
    return site.tails[5]


def between_lines(site: Site) -> LogTail:
    return replace(site.tails[5], size=site.tails[5].size - 9)


def other_tree(site: Site) -> LogTail:
    return replace(site.tails[5], tree=Frontier([b"a", b"b", b"c", b"d", b"e"]))


def other_line(site: Site) -> LogTail:
    return replace(site.tails[5], prev="0" * 64)


DOUBTS = [other_file, other_log, shorter, shorter_than_its_head, older_head, between_lines, other_tree, other_line]


@pytest.mark.parametrize("doubt", DOUBTS, ids=[doubt.__name__ for doubt in DOUBTS])
def test_in_doubt_all_is_read(site: Site, offsets: list[int], doubt: Callable[[Site], LogTail]) -> None:
    known = doubt(site)
    offsets.clear()
    found = site.outcome(known)
    assert offsets[-1] == 0
    assert found == site.outcome(None)


def test_a_change_of_the_known_part_is_for_verify_and_full_readings_to_find(site: Site) -> None:
    """As while a service runs: what it checked at its start, it does not read again, and signs no change of it."""
    site.path.write_bytes(site.whole.replace(b"policy 1", b"policy 9"))
    with site.open(site.tails[5]) as log:
        log.append([AdminRead(decision="0" * 32, actor="ann", what="more")])
    (problem,) = verify(site.path, site.head_path, KEY.public_key(), origin=ORIGIN).problems
    assert (problem.line, problem.code) == (2, "edited")
    with pytest.raises(AuditUnavailable, match="takes no records"):
        site.open()


def test_a_log_that_is_gone_begins_anew(site: Site) -> None:
    """As without a known tail: whoever moved both files away wanted that."""
    site.path.unlink()
    site.head_path.unlink()
    with site.open(site.tails[5]) as log:
        assert (log.tail.size, log.tail.tree.size) == (0, 0)
