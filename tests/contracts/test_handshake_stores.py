"""The contract of `HandshakeStore`, run over every implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable
from kbs.secret import Secret
from kbs.storage.handshakes import FileHandshakeStore, MemoryHandshakeStore
from kbs.storage.model import Claim, HandshakeStore
from kbs.storage.postgres.handshakes import PostgresHandshakeStore
from kbs.storage.sealed import SealingKeys

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
SECOND = timedelta(seconds=1)
BODY, OTHER = b"\x01" * 32, b"\x02" * 32
KEYS = SealingKeys([Secret(bytes(range(32)))])

STORES: dict[str, Callable[[Path, int], HandshakeStore]] = {
    "memory": lambda _folder, cap: MemoryHandshakeStore(max_live=cap),
    "file": lambda folder, cap: FileHandshakeStore(folder / "handshakes", KEYS, max_live=cap),
}


@pytest.fixture(params=[*STORES, "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], HandshakeStore]]:
    made: list[HandshakeStore] = []

    def build(cap: int) -> HandshakeStore:
        if request.param == "postgres":
            database = request.getfixturevalue("new_database")()
            made.append(PostgresHandshakeStore(database, KEYS, max_live=cap))
        else:
            made.append(STORES[request.param](tmp_path / "store", cap))
        return made[-1]

    yield build
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[[int], HandshakeStore]) -> HandshakeStore:
    return make(1000)


def test_the_epoch_has_16_octets(store: HandshakeStore) -> None:
    assert len(store.epoch) == 16
    assert any(store.epoch)


def test_only_the_first_claim_wins(store: HandshakeStore) -> None:
    assert store.claim("c", BODY, LATER, NOW) is Claim.CLAIMED
    assert store.claim("c", BODY, LATER, NOW) is Claim.IN_PROGRESS
    assert store.claim("c", OTHER, LATER, NOW) is Claim.IN_PROGRESS
    assert store.claim("d", BODY, LATER, NOW) is Claim.CLAIMED
    assert store.token("c", NOW) is None


def test_a_refused_challenge_stays_spent(store: HandshakeStore) -> None:
    store.claim("c", BODY, LATER, NOW)
    store.refuse("c")
    for act in (partial(store.release, "c"), partial(store.finish, "c", "t"), partial(store.refuse, "c")):
        assert store.claim("c", BODY, LATER, NOW) is Claim.SPENT
        assert store.token("c", NOW) is None
        act()
    assert store.claim("c", OTHER, LATER, NOW) is Claim.SPENT
    assert store.token("c", NOW) is None


def test_a_finished_challenge_gives_its_token_to_the_same_body_only(store: HandshakeStore) -> None:
    store.claim("c", BODY, LATER, NOW)
    store.finish("c", "a.token")
    assert store.claim("c", BODY, LATER, NOW) is Claim.FINISHED
    assert store.claim("c", OTHER, LATER, NOW) is Claim.SPENT
    assert store.token("c", NOW) == "a.token"
    for act in (partial(store.release, "c"), partial(store.refuse, "c"), partial(store.finish, "c", "another")):
        act()
        assert store.token("c", NOW) == "a.token"
    assert store.token("d", NOW) is None


def test_a_released_challenge_is_free_again(store: HandshakeStore) -> None:
    store.claim("c", BODY, LATER, NOW)
    store.release("c")
    assert store.claim("c", OTHER, LATER, NOW) is Claim.CLAIMED


def test_nothing_happens_to_challenges_nobody_claimed(store: HandshakeStore) -> None:
    store.release("c")
    store.refuse("c")
    store.finish("c", "t")
    assert store.token("c", NOW) is None
    assert store.claim("c", BODY, LATER, NOW) is Claim.CLAIMED


def test_a_challenge_of_another_epoch_is_void(store: HandshakeStore) -> None:
    assert store.claim("c", BODY, LATER, NOW, b"\xff" * 16) is Claim.VOID
    assert store.claim("c", BODY, LATER, NOW, store.epoch) is Claim.CLAIMED
    assert store.claim("c", BODY, LATER, NOW, b"\xff" * 16) is Claim.VOID


def test_a_look_changes_nothing(store: HandshakeStore) -> None:
    store.look()
    assert store.claim("c", BODY, LATER, NOW) is Claim.CLAIMED
    store.finish("c", "token")
    store.look()
    assert store.claim("c", BODY, LATER, NOW) is Claim.FINISHED
    assert store.token("c", NOW) == "token"


def test_a_batch_is_done_at_its_end(store: HandshakeStore) -> None:
    for name in ("a", "b", "c", "d"):
        assert store.claim(name, BODY, LATER, NOW) is Claim.CLAIMED
    with store.together():
        store.finish("a", "token of a")
        store.refuse("b")
        store.release("c")
        with store.together():
            store.finish("d", "token of d")
    assert store.token("a", NOW) == "token of a"
    assert store.token("d", NOW) == "token of d"
    assert store.claim("b", BODY, LATER, NOW) is Claim.SPENT
    assert store.claim("c", BODY, LATER, NOW) is Claim.CLAIMED


@pytest.mark.parametrize("past", [timedelta(0), SECOND, timedelta(days=400)])
def test_an_expired_challenge_cannot_be_claimed(store: HandshakeStore, past: timedelta) -> None:
    assert store.claim("c", BODY, LATER, LATER + past) is Claim.SPENT
    assert store.claim("c", BODY, LATER, LATER - SECOND) is Claim.CLAIMED


def test_a_token_ends_with_its_handshake(store: HandshakeStore) -> None:
    store.claim("c", BODY, LATER, NOW)
    store.finish("c", "t")
    assert store.token("c", LATER - timedelta(microseconds=1)) == "t"
    assert store.token("c", LATER) is None


def test_a_sweep_takes_what_expired_and_only_that(store: HandshakeStore) -> None:
    for number in range(5):
        store.claim(f"old{number}", BODY, LATER, NOW)
    store.claim("new", BODY, LATER + SECOND, NOW)
    store.finish("new", "t")
    assert store.sweep(LATER - SECOND) == 0
    assert store.sweep(LATER) == 5
    assert store.sweep(LATER) == 0
    assert store.token("new", LATER) == "t"


def test_a_swept_challenge_is_not_claimable_when_the_clock_steps_back(store: HandshakeStore) -> None:
    store.claim("c", BODY, LATER, NOW)
    store.refuse("c")
    assert store.sweep(LATER) == 1
    assert store.claim("c", BODY, LATER, NOW) is Claim.SPENT
    store.sweep(NOW)
    assert store.claim("c", BODY, LATER, NOW) is Claim.SPENT
    assert store.claim("d", BODY, LATER + SECOND, NOW) is Claim.CLAIMED


def test_the_cap_bounds_live_claims(make: Callable[[int], HandshakeStore]) -> None:
    store = make(3)
    for number in range(3):
        assert store.claim(f"c{number}", BODY, LATER + SECOND * number, NOW) is Claim.CLAIMED
    with pytest.raises(StorageUnavailable):
        store.claim("d", BODY, LATER, NOW)  # none of them expires earlier
    assert store.claim("c1", BODY, LATER, NOW) is Claim.IN_PROGRESS
    store.release("c1")  # from the middle: the span of numbers stays, the count does not
    assert store.claim("d", BODY, LATER, NOW) is Claim.CLAIMED
    with pytest.raises(StorageUnavailable):
        store.claim("e", BODY, LATER, NOW)


def test_at_the_cap_the_oldest_leaves_and_is_not_claimed_again(make: Callable[[int], HandshakeStore]) -> None:
    """A flood of answered challenges does not keep others out, and what left stays answered."""
    store = make(3)
    for number in range(40):
        assert store.claim(f"c{number}", BODY, LATER + SECOND * number, NOW) is Claim.CLAIMED
        store.finish(f"c{number}", f"token {number}")
    for number in range(40):
        found = Claim.FINISHED if number > 36 else Claim.SPENT
        assert store.claim(f"c{number}", BODY, LATER + SECOND * number, NOW) is found
    assert store.token("c39", NOW) == "token 39"
    assert store.token("c0", NOW) is None
    assert store.claim("opened before", BODY, LATER + SECOND * 36, NOW) is Claim.SPENT
    assert store.claim("opened after", BODY, LATER + SECOND * 41, NOW) is Claim.CLAIMED


def test_claims_of_a_clock_that_was_ahead_refuse_nobody(make: Callable[[int], HandshakeStore]) -> None:
    store = make(3)
    ahead = LATER + SECOND * 1_000_000
    assert store.claim("ahead", BODY, ahead, NOW) is Claim.CLAIMED
    for number in range(9):
        assert store.claim(f"c{number}", BODY, LATER + SECOND * number, NOW) is Claim.CLAIMED
    assert store.claim("ahead", BODY, ahead, NOW) is Claim.IN_PROGRESS


def test_a_claim_that_left_may_still_end(make: Callable[[int], HandshakeStore]) -> None:
    store = make(1)
    for number in range(2):
        assert store.claim(f"c{number}", BODY, LATER + SECOND * number, NOW) is Claim.CLAIMED
    store.finish("c0", "token")
    store.refuse("c0")
    store.release("c0")
    assert store.claim("c0", BODY, LATER, NOW) is Claim.SPENT
    assert store.token("c0", NOW) is None


def test_a_hundred_threads_and_one_winner(store: HandshakeStore) -> None:
    met: list[Claim] = []
    gate = threading.Barrier(20)

    def rush() -> None:
        gate.wait()
        met.extend(store.claim(f"c{number}", BODY, LATER, NOW) for number in range(5))

    threads = [threading.Thread(target=rush) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met.count(Claim.CLAIMED) == 5
    assert met.count(Claim.IN_PROGRESS) == 95
