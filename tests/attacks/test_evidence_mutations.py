"""Good evidence of every TEE, damaged in a thousand ways: refused with a cause, or accepted with no other claims.

What was damaged may lack claims, where a part is optional, and have none that the good evidence had not.

Runs over every attester of the verifiers' contract, so a new TEE joins by its line there. `make mutations` makes many
more; a failure prints what was done. The seed fixes the choices, but keys and signatures are new in every run.
"""

from __future__ import annotations

import base64
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from random import Random
from typing import Any

import pytest

from kbs.attestation.model import Binding, Evidence
from kbs.attestation.verifiers.csv import checks as csv_checks
from kbs.attestation.verifiers.csv import verifier as csv_verifier
from kbs.errors import EvidenceRejected
from kbs.protocol.tee import Tee
from tests.contracts.test_verifiers import AT, ATTESTERS, INIT_DATA, NONCE, Bench, at_path, bench, changed

COUNT = int(os.environ.get("KBS_MUTATIONS", "1000"))
SEED = os.environ.get("KBS_MUTATIONS_SEED", "1")
SLOW = {Tee.CSV, Tee.HYGON_DCU} if importlib.util.find_spec("gmssl_pyx") is None else set()
"""TEEs whose signatures take 30 ms here, and that make do with a tenth."""
UNSIGNED = {Tee.SAMPLE, Tee.SAMPLE_DEVICE}
"""TEEs whose claims are whatever the evidence says."""

BESIDE_THE_SIGNATURE = {"trailing_bytes"}
"""Claims that speak of what no signature covers, and say so in their documentation."""

Path = tuple[Any, ...]
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1 << 31, 1 << 64, -(1 << 63), 0.5, "", "\0", "A", "é", "../../etc/passwd", [], [[]],
    [None], [256], [-1], [0.5], [True], {}, {"": 0}, {"body": None},
)  # fmt: skip


def is_octets(value: Any) -> bool:
    """A list that spells bytes."""
    return isinstance(value, list) and len(value) > 3 and all(type(item) is int for item in value)


def nodes(value: Any, path: Path = ()) -> Iterator[Path]:
    """Paths to every part of a JSON value, the whole included; bytes in a list are one part."""
    yield path
    if isinstance(value, dict) or (isinstance(value, list) and not is_octets(value)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(item, (*path, key))


@dataclass(frozen=True, slots=True)
class Parts:
    """What can be mutated, and how often: the longer a part, the oftener. Weights add up from first to last."""

    paths: Sequence[Path]
    weights: Sequence[float]


def parts_of(body: Any) -> Parts:
    """All parts of a JSON value."""
    paths = list(nodes(body))
    values = (at_path(body, path) for path in paths)
    sizes = (len(value) if isinstance(value, str) or is_octets(value) else 1 for value in values)
    return Parts(paths, list(accumulate(size**0.5 for size in sizes)))


def decoded(text: str) -> tuple[bytes, Callable[[bytes], str]] | None:
    """The bytes that a text spells, and how to spell others."""
    for decode, encode in (
        (bytes.fromhex, bytes.hex),
        (lambda given: base64.b64decode(given, validate=True), lambda raw: base64.b64encode(raw).decode()),
        (base64.urlsafe_b64decode, lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")),
    ):
        try:
            raw = decode(text)
        except ValueError:
            continue
        if len(raw) > 3:
            return raw, encode
    return None


def damaged(raw: bytes, other: bytes, random: Random) -> tuple[str, bytes]:
    """Bytes cut, made longer, changed in a bit or several, or grafted with those of another piece."""
    place = int(len(raw) * random.random() ** random.choice((1, 3)))  # what matters often stands in front
    size = random.choice((1, 2, 4, 16, random.randint(1, len(raw))))
    kind = random.choice(
        ("flip", "flip", "flip", "flips", "cut", "behead", "hollow", "extend", "insert", "graft", "zero")
    )
    made = bytearray(raw)
    if kind == "flip":
        made[place] ^= 1 << random.randrange(8)
    elif kind == "flips":
        for _ in range(random.randint(2, 8)):
            made[random.randrange(len(made))] ^= random.randint(1, 255)
    elif kind == "cut":
        del made[-size:]
    elif kind == "behead":
        del made[:size]
    elif kind == "hollow":
        del made[place : place + size]
    elif kind == "extend":
        made += random.choice((bytes(size), random.randbytes(size), raw[:size]))
    elif kind == "insert":
        made[place:place] = random.randbytes(min(size, 64))
    elif kind == "graft":
        made[place : place + size] = other[place : place + size]
    else:
        made[place : place + size] = bytes(len(made[place : place + size]))
    return f"{kind} at {place} of {len(raw)}, {size}", bytes(made)


def same_place(other: Any, path: Path) -> Any:
    """What other evidence has at a path, or None."""
    try:
        return at_path(other, path)
    except (KeyError, IndexError, TypeError):
        return None


def mutation(body: Any, parts: Parts, others: Sequence[Any], random: Random) -> tuple[str, Any]:
    """One mutated copy of `body`, and what was done. `others`: good evidence to take parts from."""
    (path,) = random.choices(parts.paths, cum_weights=parts.weights)
    value = at_path(body, path)
    other = same_place(random.choice(others), path)
    kind = random.choice(("bytes", "bytes", "bytes", "bytes", "swap", "strange", "drop", "list"))
    if kind == "bytes" and isinstance(value, int) and not isinstance(value, bool):
        return f"bit of {path}", changed(body, path, value ^ (1 << random.randrange(40)))
    if kind == "bytes" and is_octets(value) and all(0 <= item < 256 for item in value):
        done, raw = damaged(bytes(value), bytes(other) if is_octets(other) else b"", random)
        return f"{done}: {path}", changed(body, path, list(raw))
    if kind == "bytes" and isinstance(value, str) and value:
        return _text(body, path, value, other, random)
    if kind == "list" and isinstance(value, list) and value:
        again = [*value, random.choice(value)] if random.random() < 0.5 else random.sample(value, len(value))
        return f"repeated or shuffled {path}", changed(body, path, again)
    if kind == "drop" and path:
        parent = at_path(body, path[:-1])
        less: Any = [item for index, item in enumerate(parent) if index != path[-1]]
        if isinstance(parent, dict):
            less = {name: item for name, item in parent.items() if name != path[-1]}
        return f"without {path}", changed(body, path[:-1], less)
    if kind == "swap":
        return f"of the other: {path}", changed(body, path, other)
    return f"strange {path}", changed(body, path, random.choice(STRANGE))


def _text(body: Any, path: Path, value: str, other: Any, random: Random) -> tuple[str, Any]:
    found = decoded(value)
    if found is None or random.random() < 0.1:
        done, raw = damaged(value.encode(), other.encode() if isinstance(other, str) else b"", random)
        return f"text {done}: {path}", changed(body, path, raw.decode("utf-8", "replace"))
    counterpart = decoded(other) if isinstance(other, str) else None
    done, raw = damaged(found[0], b"" if counterpart is None else counterpart[0], random)
    return f"{done}: {path}", changed(body, path, found[1](raw))


@cache
def others(name: str) -> tuple[Any, ...]:
    """Good evidence of the same machine for another challenge, and of a machine under another root for this one."""
    subject, stranger = bench(name), Bench(ATTESTERS[name]())
    return subject.attester.evidence(NONCE[::-1], INIT_DATA[::-1]), stranger.body


def verify(subject: Bench, body: Any) -> list[dict[str, Any]]:
    """What is vouched for in the claims of each device."""
    evidence = Evidence(subject.attester.tee, body)
    subject.verifier.needs(evidence)
    found = subject.verifier.verify(evidence, subject.endorsements, Binding(NONCE, INIT_DATA), AT)
    return [dict(vouched_for(each.claims)) for each in found]


def vouched_for(claims: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Claims but those whose name says that nothing vouches for them. Of an event log: registers and digests.

    What an event's data say beside its digest is not authentic (attestation-service 7.2), and how many of them agree
    with their digest depends on the data.
    """
    for name, value in claims.items():
        if name == "uefi_event_logs":
            yield name, [(entry["index"], entry["digests"]) for entry in value]
        elif name == "event_log":
            yield name, [(each["index"], each["events"]) for each in value["registers"]]
            yield from [("secure_boot", value["secure_boot"])] if value["secure_boot"] is not None else []
        elif "unverified" not in name and name not in BESIDE_THE_SIGNATURE:
            yield name, value


def known(subject: Bench, foreign: Sequence[Any]) -> list[list[dict[str, Any]]]:
    """Claims of the good evidence, and of a foreign machine's where that is as good."""
    found = [verify(subject, subject.body)]
    for body in foreign:
        with suppress(EvidenceRejected):
            found.append(verify(subject, body))
    return found


def adds_nothing(found: list[dict[str, Any]], good: list[dict[str, Any]]) -> bool:
    """Whether each device claims what it claimed before, or less."""
    if len(found) != len(good):
        return False
    return all(name in old and old[name] == new[name] for new, old in zip(found, good, strict=True) for name in new)


def damage(name: str, count: int) -> int:
    """Mutate the evidence of one attester so many times; how many were refused.

    Raises:
        AssertionError: something else than a refusal with a cause, or claims that nobody may make.
    """
    subject = bench(name)
    foreign = others(name)
    accepted = known(subject, foreign)
    parts = parts_of(subject.body)
    random = Random(f"{SEED} {name}")
    refused = 0
    for number in range(count):
        done, body = mutation(subject.body, parts, foreign, random)
        try:
            found = verify(subject, body)
        except EvidenceRejected as error:
            if type(error) is EvidenceRejected:
                raise AssertionError(f"{number}: {done}: refused without a cause") from error
            refused += 1
        except Exception as error:
            raise AssertionError(f"{number}: {done}: {type(error).__name__}") from error
        else:
            fine = subject.attester.tee in UNSIGNED or any(adds_nothing(found, good) for good in accepted)
            assert fine, f"{number}: {done}: other claims"
    return refused


@pytest.mark.parametrize("name", ATTESTERS)
def test_damaged_evidence(name: str) -> None:
    tee = bench(name).attester.tee
    count = COUNT // 10 if tee in SLOW else COUNT
    assert damage(name, count) > count / 2 or tee in UNSIGNED


def do_nothing(*_: Any) -> None:
    """A check that is switched off."""


def crash(*_: Any) -> None:
    """A check with a bug."""
    raise ValueError


def give_no_cause(*_: Any) -> None:
    """A check that does not say what it found."""
    raise EvidenceRejected("no")


@pytest.mark.parametrize(
    ("check", "noticed"), [(do_nothing, "other claims"), (crash, "ValueError"), (give_no_cause, "cause")]
)
def test_a_broken_verifier_is_noticed(monkeypatch: pytest.MonkeyPatch, check: Any, noticed: str) -> None:
    others("csv-v1")
    original = csv_checks.check_signature

    def broken(report: Any, pek: Any) -> None:
        try:
            original(report, pek)
        except EvidenceRejected:
            check()

    monkeypatch.setattr(csv_verifier, "check_signature", broken)
    with pytest.raises(AssertionError, match=noticed):
        damage("csv-v1", 400)
