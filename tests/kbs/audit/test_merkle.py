"""The frontier against RFC 6962 §2.1 written down naively."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.audit.merkle import EMPTY_ROOT, Frontier, leaf_hash


def naive(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, by its own recursion."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + naive(leaves[:half]) + naive(leaves[half:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_root_is_that_of_the_rfc(leaves: list[bytes]) -> None:
    tree = Frontier()
    for count, leaf in enumerate(leaves):
        assert (tree.size, tree.root()) == (count, naive(leaves[:count]))
        tree.append(leaf)
    assert tree.root() == naive(leaves) == Frontier(leaves).root()


# Roots that the reference implementations of Certificate Transparency publish for the leaves of its test data.
CT_LEAVES = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243")]


@pytest.mark.parametrize(
    ("count", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    ],
)
def test_known_roots(count: int, root: str) -> None:
    assert Frontier(CT_LEAVES[:count]).root().hex() == root


def test_a_copy_is_independent() -> None:
    tree = Frontier([b"a", b"b", b"c"])
    before = tree.root()
    other = tree.copy()
    other.append(b"d")
    assert (tree.size, tree.root()) == (3, before)
    assert other.root() == naive([b"a", b"b", b"c", b"d"])


def test_leaves_and_nodes_are_apart() -> None:
    assert Frontier().root() == EMPTY_ROOT
    assert leaf_hash(b"") != EMPTY_ROOT
    pair = leaf_hash(b"a") + leaf_hash(b"b")
    assert Frontier([pair]).root() != Frontier([b"a", b"b"]).root()


@given(st.lists(st.binary(max_size=8), max_size=40), st.integers(0, 40))
def test_a_tree_goes_on_from_what_was_kept(leaves: list[bytes], at: int) -> None:
    first = Frontier(leaves[:at])
    tree = Frontier.restore(first.size, first.kept())
    assert tree.root() == first.root()
    for leaf in leaves[at:]:
        tree.append(leaf)
    assert tree.root() == Frontier(leaves).root()
    with pytest.raises(ValueError):
        Frontier.restore(first.size, first.kept() + b"\x00" * 32)
