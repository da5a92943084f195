"""Value sets: what a computation of reference values gives, and what a publisher signs. One form, read strictly."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rvps import messages
from rvps.errors import StatementUnacceptable
from rvps.json_values import same_as
from rvps.strict_json import NotStrictJson, decode, encode

MAX_DOCUMENT: Final = 16 << 20  # bytes; a set of 10 000 values has about two million
MAX_ARTIFACTS: Final = 1024
DIGEST_LENGTHS: Final[Mapping[str, int]] = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Algorithms that an artifact may be known by, with the number of hex digits."""

_CHUNK: Final = 1 << 20  # bytes
_HEX: Final = re.compile(r"[0-9a-f]+", re.ASCII)
_SERIES: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}", re.ASCII)
_TEE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_MEMBERS: Final = frozenset({"series", "tee", "values", "artifacts", "together", "known_bad"})
_REQUIRED: Final = frozenset({"series", "values"})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that values were computed from.

    name: for people, e.g. `OVMF.fd`; nothing is matched by it.
    digest: algorithm (`sha256`, `sha384`, `sha512`) to lower-case hex; at least one.
    """

    name: str
    digest: Mapping[str, str]

    def __post_init__(self) -> None:
        check_artifact_name(self.name)
        if not self.digest:
            raise StatementUnacceptable("an artifact has no digest")
        for algorithm, digits in self.digest.items():
            check_digest(algorithm, digits)

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        name: str | None = None,
        algorithms: Sequence[str] = ("sha256",),
        progress: Callable[[int], None] | None = None,
    ) -> Artifact:
        """Hash a file, 1 MiB at a time, under `name` (default: the last part of its path).

        Args:
            progress: told the number of bytes of each chunk after it was hashed.

        Raises:
            OSError: the file does not read.
            StatementUnacceptable: a name that cannot be shown, or an algorithm that is not accepted.
        """
        unknown = [algorithm for algorithm in algorithms if algorithm not in DIGEST_LENGTHS]
        if unknown or not algorithms:
            raise StatementUnacceptable(f"artifacts are hashed with {', '.join(DIGEST_LENGTHS)}")
        hashes = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                for running in hashes.values():
                    running.update(chunk)
                if progress is not None:
                    progress(len(chunk))
        return cls(path.name if name is None else name, {key: running.hexdigest() for key, running in hashes.items()})


@dataclass(frozen=True, slots=True)
class ValueSet:
    """Values of one release, not signed yet. Whatever makes one has had every name and value checked.

    series: the line of releases it belongs to, e.g. `kata-guest`.
    values: name to JSON value (digests as lower-case hex; a list where policies look for one of several).
    artifacts: what the values were computed from.
    tee: the one TEE that the values are about, or None.
    together: the values hold as a set only; mixing them with those of another release matches nothing.
    known_bad: name to values that must never be accepted, whoever else states them.
    """

    series: str
    values: Mapping[str, Any] = field(repr=False)
    artifacts: tuple[Artifact, ...] = ()
    tee: str | None = None
    together: bool = False
    known_bad: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_series(self.series)
        if self.tee is not None:
            check_tee(self.tee)
        check_values(self.values, self.known_bad)
        if len(self.artifacts) > MAX_ARTIFACTS:
            raise StatementUnacceptable(f"more than {MAX_ARTIFACTS} artifacts")


def read(raw: bytes) -> ValueSet:
    """Read a value set document: `series` and `values` are required, the other members of `ValueSet` are optional.

    Raises:
        StatementUnacceptable: not such a document; unknown members, of an artifact too, are refused.

    Source: rvps 2.3 for the shape of values, rvps 12.2 for digests.
    """
    try:
        document = decode(raw, max_bytes=MAX_DOCUMENT)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"value set: {err}") from err
    if not isinstance(document, dict):
        raise StatementUnacceptable("value set: not a JSON object")
    members = document.keys()
    if not members <= _MEMBERS:
        raise StatementUnacceptable(f"value set: an unknown member; there are {', '.join(sorted(_MEMBERS))}")
    if not members >= _REQUIRED:
        raise StatementUnacceptable(f"value set: `{min(_REQUIRED - members)}` is missing")
    artifacts = document.get("artifacts", [])
    if not isinstance(artifacts, list):
        raise StatementUnacceptable("value set: `artifacts` is not an array")
    return ValueSet(
        series=document["series"],
        values=document["values"],
        artifacts=tuple(_artifact(item) for item in artifacts),
        tee=document.get("tee"),
        together=check_flag(document.get("together", False), "together"),
        known_bad=document.get("known_bad", {}),
    )


def write(value_set: ValueSet) -> bytes:
    """The one form of a value set: all members, sorted, compact, UTF-8, without a line end. `read` takes it back."""
    return encode(
        {
            "series": value_set.series,
            "tee": value_set.tee,
            "values": dict(value_set.values),
            "artifacts": [{"name": item.name, "digest": dict(item.digest)} for item in value_set.artifacts],
            "together": value_set.together,
            "known_bad": {name: list(values) for name, values in value_set.known_bad.items()},
        }
    )


def check_values(values: object, known_bad: object) -> None:
    """Every name as `rvps.messages.check_name` says, every value something, nothing both stated and known bad.

    Raises:
        StatementUnacceptable: any of these, or neither a value nor a known bad one.
    """
    if not isinstance(values, Mapping) or not isinstance(known_bad, Mapping):
        raise StatementUnacceptable("values and known bad values are objects with a member per name")
    if not values and not known_bad:
        raise StatementUnacceptable("neither a value nor a known bad one")
    for name, value in values.items():
        messages.check_name(name)
        if value is None:
            raise StatementUnacceptable("a value is null, which policies read as none; leave the name out")
    for name, bad in known_bad.items():
        messages.check_name(name)
        if not isinstance(bad, list | tuple) or not bad or any(value is None for value in bad):
            raise StatementUnacceptable("known bad values are lists of at least one value, none of them null")
        if name in values:
            stated = values[name] if isinstance(values[name], list) else [values[name]]
            if not {same_as(value) for value in stated}.isdisjoint(same_as(value) for value in bad):
                raise StatementUnacceptable("a value is both stated and known bad")


def check_series(series: object) -> None:
    """A series is 1 to 128 ASCII letters, digits and `._/+-`, beginning with a letter or digit.

    Raises:
        StatementUnacceptable: it is not.
    """
    if not isinstance(series, str) or not _SERIES.fullmatch(series):
        raise StatementUnacceptable("`series` is 1 to 128 letters, digits and ._/+- (first a letter or digit)")


def check_tee(tee: object) -> None:
    """A TEE is named as in evidence, e.g. `snp`, `az-tdx-vtpm`.

    Raises:
        StatementUnacceptable: no such name.
    """
    if not isinstance(tee, str) or not _TEE.fullmatch(tee):
        raise StatementUnacceptable("`tee` is the lower-case name of a TEE, such as snp")


def check_flag(value: object, member: str) -> bool:
    """A JSON boolean.

    Raises:
        StatementUnacceptable: anything else; 0 and "false" are not read as one.
    """
    if not isinstance(value, bool):
        raise StatementUnacceptable(f"`{member}` is true or false")
    return value


def check_digest(algorithm: str, digits: object) -> None:
    """One member of a digest map.

    Raises:
        StatementUnacceptable: an algorithm that is not accepted, or not exactly its lower-case hex.
    """
    length = DIGEST_LENGTHS.get(algorithm)
    if length is None:
        raise StatementUnacceptable(f"a digest is none of {', '.join(DIGEST_LENGTHS)}")
    if not isinstance(digits, str) or len(digits) != length or not _HEX.fullmatch(digits):
        raise StatementUnacceptable(f"a {algorithm} digest is not {length} lower-case hex digits")


def check_artifact_name(name: object) -> None:
    """Printable text of at most 255 characters.

    Raises:
        StatementUnacceptable: it is not.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 255 or not name.isprintable():
        raise StatementUnacceptable("an artifact's name is empty, longer than 255 characters or not printable")


def _artifact(item: object) -> Artifact:
    if not isinstance(item, dict) or item.keys() != {"name", "digest"}:
        raise StatementUnacceptable("value set: an artifact has exactly `name` and `digest`")
    if not isinstance(item["digest"], dict):
        raise StatementUnacceptable("value set: an artifact's `digest` is an object")
    return Artifact(item["name"], item["digest"])
