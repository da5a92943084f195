"""The journal: every process sees the same records in the same order, whatever dies in between."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable
from kbs.storage.journal import Journal

FORK = multiprocessing.get_context("fork")
KIND, FIRST = 7, 8


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    made: list[Journal] = []

    def build(boot_id: str = "boot", segment_size: int = 200) -> Journal:
        made.append(Journal(tmp_path / "journal", boot_id, segment_size=segment_size))
        return made[-1]

    yield build
    for journal in made:
        journal.close()


class Reader:
    """All records as one journal's user sees them."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.seen: list[tuple[bytes, bytes]] = []

    def read(self) -> list[tuple[bytes, bytes]]:
        with self.journal:
            self._catch_up()
        return self.seen

    def _catch_up(self) -> None:
        news = self.journal.news()
        while news is None:
            self.seen.clear()
            news = self.journal.news()
        self.seen += [
            (key, self.journal.payload(segment, offset)) for kind, key, _, segment, offset in [*news] if kind == KIND
        ]

    def write(self, *records: tuple[bytes, bytes]) -> None:
        with self.journal:
            self._catch_up()
            for key, payload in records:
                if self.journal.is_full:
                    self.journal.roll(FIRST, b"")
                place = self.journal.append(KIND, key, payload)
                assert self.journal.payload(*place) == payload
                self.seen.append((key, payload))


def test_all_read_what_any_wrote_over_many_segments(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    readers = [Reader(open_journal()) for _ in range(3)]
    expected = []
    for number in range(60):
        record = (b"key%d" % number, b"p" * (number * 7 % 100))
        readers[number % 3].write(record)
        expected.append(record)
    assert all(reader.read() == expected for reader in readers)
    assert Reader(open_journal()).read() == expected
    assert len([*(tmp_path / "journal").glob("*.log")]) > 10


@pytest.mark.parametrize("most", [1, 2, 5, 59, 60, 61])
def test_who_reads_in_steps_reads_the_same(open_journal: Callable[..., Journal], most: int) -> None:
    writer = Reader(open_journal())
    expected = [(b"key%d" % number, b"p" * (number * 7 % 100)) for number in range(60)]
    writer.write(*expected)
    journal, seen, steps = open_journal(), list[bytes](), 0
    taken = most
    while taken == most:
        with journal:
            news = journal.news(most)
            if news is None:
                news = journal.news(most)
            assert news is not None
            found = [*news]
        taken, steps = len(found), steps + 1
        assert taken <= most
        seen += [key for kind, key, *_ in found if kind == KIND]
    assert seen == [key for key, _ in expected]
    assert steps > 60 // most
    with journal:
        assert journal.news(most) == ()


@pytest.mark.parametrize("cut", range(1, 17))
def test_half_a_record_of_a_dead_writer_is_cut(open_journal: Callable[..., Journal], tmp_path: Path, cut: int) -> None:
    one, two = Reader(open_journal()), Reader(open_journal())
    one.write((b"a", b"whole"))
    two.read()
    (segment,) = (tmp_path / "journal").glob("*.log")
    whole = segment.read_bytes()
    one.write((b"b", b"half by half"))
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert two.read() == [(b"a", b"whole")]
    assert segment.read_bytes() == whole
    two.write((b"c", b"next"))
    assert Reader(open_journal()).read() == [(b"a", b"whole"), (b"c", b"next")]


def test_a_writer_that_died_while_it_rolled_leaves_no_trace(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    one = Reader(open_journal(segment_size=10))
    one.write((b"a", b"long enough"))
    (tmp_path / "journal" / "00000002.log").write_bytes(b"junk")
    two = Reader(open_journal(segment_size=10))
    two.write((b"b", b"in the second"))
    assert (
        one.read() == two.read() == Reader(open_journal()).read() == [(b"a", b"long enough"), (b"b", b"in the second")]
    )


def test_a_roll_that_finds_no_room_leads_nowhere_and_holds_no_files(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(open_journal(segment_size=10))
    reader.write((b"a", b"long enough"))
    whole = os.pwrite

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("kbs.storage.journal.os.pwrite", full)
    held = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(StorageUnavailable):
            reader.write((b"b", b""))
    assert len(os.listdir("/proc/self/fd")) <= held + 1
    monkeypatch.setattr("kbs.storage.journal.os.pwrite", whole)
    reader.write((b"c", b"room again"))
    assert Reader(open_journal()).read() == [(b"a", b"long enough"), (b"c", b"room again")]


def test_who_stands_on_a_dropped_segment_reads_everything_again(open_journal: Callable[..., Journal]) -> None:
    sleeper, other = Reader(open_journal(segment_size=50)), Reader(open_journal(segment_size=50))
    sleeper.write((b"a", b"x" * 60))
    for number in range(5):
        other.write((b"b%d" % number, b"x" * 60))
    with other.journal:
        other.journal.drop(before=5)
    assert [key for key, _ in sleeper.read()] == [b"b3", b"b4"]
    sleeper.write((b"c", b""))
    assert other.read()[-1] == (b"c", b"")


def test_the_last_segment_is_never_dropped(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    reader = Reader(open_journal(segment_size=50))
    reader.write(*[(b"a", b"x" * 60)] * 3)
    with reader.journal:
        reader.journal.drop(before=99)
        assert reader.journal.tail == 3
    assert [path.name for path in (tmp_path / "journal").glob("*.log")] == ["00000003.log"]


def test_another_boot_drops_everything(open_journal: Callable[..., Journal]) -> None:
    first = open_journal("one")
    Reader(first).write((b"a", b""))
    assert open_journal("one").epoch == first.epoch
    second = open_journal("two")
    assert second.epoch != first.epoch
    assert len(second.epoch) == 16
    assert Reader(second).read() == []


@pytest.mark.parametrize("content", [b"", b"boot", b"boot 00", b"boot " + b"zz" * 16, b"\xff"])
def test_a_damaged_epoch_is_another_boot(open_journal: Callable[..., Journal], tmp_path: Path, content: bytes) -> None:
    first = open_journal()
    (tmp_path / "journal" / "epoch").write_bytes(content)
    assert open_journal().epoch != first.epoch


def test_what_is_no_journal_is_said(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    reader = Reader(open_journal())
    reader.write((b"a", b"payload"))
    (segment,) = (tmp_path / "journal").glob("*.log")
    segment.write_bytes(b"\xff" * 100)
    with pytest.raises(StorageUnavailable) as raised:
        Reader(open_journal()).read()
    assert "remove the folder" in (raised.value.operator_detail or "")
    segment.write_bytes(b"")
    with pytest.raises(StorageUnavailable):
        reader.read()
    assert reader.read() == []  # whoever emptied it chose to begin anew


def test_a_closed_journal_is_refused(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    journal.close()
    journal.close()
    with pytest.raises(StorageUnavailable), journal:
        pytest.fail("went on")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable):
        Journal(tmp_path / "file", "boot")


def test_processes_write_one_after_the_other(open_journal: Callable[..., Journal]) -> None:
    shared = open_journal(segment_size=500)

    def write(name: int) -> None:
        reader = Reader(shared)  # a forked copy
        for number in range(100):
            reader.write((b"%d" % name, b"%d" % number))
        os._exit(0)

    children = [FORK.Process(target=write, args=(name,)) for name in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    found = Reader(open_journal()).read()
    for name in range(4):
        assert [payload for key, payload in found if key == b"%d" % name] == [b"%d" % number for number in range(100)]


def test_within_a_block_all_is_read_once_and_what_was_written_there_counts(
    open_journal: Callable[..., Journal],
) -> None:
    one, two = Reader(open_journal()), Reader(open_journal())
    two.write((b"first", b"1"))
    with one.journal:
        one.write((b"second", b"2"))
        one.write((b"third", b"x" * 5000))
        assert one.read() == [(b"first", b"1"), (b"second", b"2"), (b"third", b"x" * 5000)]
    assert two.read() == one.seen
    two.write((b"fourth", b"y" * 4096))
    assert one.read() == two.seen
    assert [key for key, _ in one.seen] == [b"first", b"second", b"third", b"fourth"]


def test_what_a_failed_write_leaves_is_cut_within_the_same_block(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(open_journal(segment_size=100_000))
    reader.write((b"first", b"1"))
    whole, cut = os.pwrite, os.ftruncate

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "full")
        return whole(descriptor, data[:-10], offset)

    def failing(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, "cannot be cut")

    with reader.journal:
        reader.read()
        monkeypatch.setattr(os, "pwrite", half)
        monkeypatch.setattr(os, "ftruncate", failing)
        with pytest.raises(StorageUnavailable):
            reader.write((b"lost", b"x" * 200))
        monkeypatch.setattr(os, "pwrite", whole)
        monkeypatch.setattr(os, "ftruncate", cut)
        reader.write((b"second", b"2"))
    assert Reader(open_journal()).read() == [(b"first", b"1"), (b"second", b"2")]
