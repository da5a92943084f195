"""Where a shared log ends: what one broker signs and the next one continues.

The signed head has two extension lines beside size and root: `last <SHA-256 of the last line, hex>`, by which whoever
knows an earlier end can follow the chain without the whole tree, and `generation <number>`, which counts how often an
operator accepted a log that had gone back. Within a generation a log only grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.audit import lines
from kbs.audit.checkpoint import CheckpointInvalid, HeadSigner, read_head
from kbs.audit.merkle import Frontier

_LAST: Final = re.compile(r"last ([0-9a-f]{64})")
_GENERATION: Final = re.compile(r"generation (0|[1-9][0-9]{0,18})")


class WentBack(Exception):
    """A log that is not the continuation of what was known of it. The text is for operators."""


@dataclass(frozen=True, slots=True)
class End:
    """An end that a head vouches for.

    last: SHA-256 of the last line in hex, `NO_PREV` of an empty log. root: Merkle tree hash. note: the signed head.
    """

    generation: int
    size: int
    last: str
    root: bytes
    note: bytes

    @classmethod
    def read(cls, note: bytes, keys: Sequence[Ed25519PublicKey], origin: str) -> End:
        """Check a note and read it.

        Raises:
            CheckpointInvalid: as `read_head`; also a head of a log that is not shared.
        """
        head = read_head(note, keys, origin)
        found = [pattern.fullmatch(text) for pattern, text in zip((_LAST, _GENERATION), head.extensions, strict=False)]
        if len(head.extensions) != 2 or len(found) != 2 or found[0] is None or found[1] is None:
            raise CheckpointInvalid("it is no head of a shared log")
        return cls(int(found[1][1]), head.size, found[0][1], head.root, note)

    def must_go_on_to(self, later: End) -> None:
        """Whether `later` can be the same log some time later, as far as the two heads tell.

        Raises:
            WentBack: it cannot.
        """
        if later.generation != self.generation:
            if later.generation < self.generation:
                raise WentBack(
                    f"the log is at generation {later.generation}, a head says {self.generation}: it was set back"
                )
            return  # an operator accepted this one with the audit key
        if later.size < self.size:
            raise WentBack(f"the log has {later.size} records, a head vouches for {self.size}: it was set back")
        if later.size == self.size and (later.last, later.root) != (self.last, self.root):
            raise WentBack(f"another log than the one whose head vouches for {self.size} records")


@dataclass(frozen=True, slots=True)
class Tail:
    """An end with what it takes to append there."""

    end: End
    tree: Frontier  # never changed in place

    @classmethod
    def empty(cls, signer: HeadSigner, generation: int = 0) -> Tail:
        """Of a log without lines."""
        return _signed(signer, generation, Frontier(), lines.NO_PREV)

    @classmethod
    def restore(cls, end: End, roots: bytes) -> Tail:
        """An end and the kept roots of its tree, which nobody signed.

        Raises:
            CheckpointInvalid: they do not belong together.
        """
        try:
            tree = Frontier.restore(end.size, roots)
        except ValueError as err:
            raise CheckpointInvalid(str(err)) from err
        if tree.root() != end.root:
            raise CheckpointInvalid("the tree that is kept beside it is not the signed one")
        return cls(end, tree)

    def taking(self, found: Iterable[bytes], signer: HeadSigner) -> Tail:
        """The tail after lines that stand beyond it and continue its chain.

        Raises:
            WentBack: they do not.
        """
        tree, last = self.tree.copy(), self.end.last
        for line in found:
            if lines.prev_of(line) != last:
                raise WentBack(f"line {tree.size + 1}, beyond the tail, does not continue the log; move it away")
            tree.append(line)
            last = lines.line_digest(line)
        return _signed(signer, self.end.generation, tree, last)

    def extended(
        self, bodies: Sequence[bytes], at: datetime, signer: HeadSigner, *, generation: int | None = None
    ) -> tuple[Tail, list[bytes]]:
        """The tail after these encoded events, and their lines."""
        tree, last, time = self.tree.copy(), self.end.last, lines.timestamp(at)
        added = []
        for body in bodies:
            line = lines.encode_line(tree.size, time, body, last)
            tree.append(line)
            last = lines.line_digest(line)
            added.append(line)
        return _signed(signer, self.end.generation if generation is None else generation, tree, last), added


def _signed(signer: HeadSigner, generation: int, tree: Frontier, last: str) -> Tail:
    root = tree.root()
    note = signer.sign(tree.size, root, (f"last {last}", f"generation {generation}"))
    return Tail(End(generation, tree.size, last, root, note), tree)
