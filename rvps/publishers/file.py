"""The file of publishers, read strictly: see `rvps.publishers.model` for its form."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import re2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rvps.errors import SettingsUnacceptable, SignatureRefused, StatementUnacceptable
from rvps.intake.sigstore import check_trusted_root
from rvps.messages import check_name
from rvps.publishers.model import DEFAULT_LIFE, ProvenanceRules, PublicKey, Publisher, SigstoreTrust, Trust
from rvps.value_set import check_series, check_tee

MIN_RSA_BITS: Final = 3072
MAX_KEEPS: Final = 8
MAX_LIFE_DAYS: Final = 3660
_MAX_FILE: Final = 4 << 20  # bytes
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_TRUST: Final = frozenset({"keys", "roots", "sigstore"})
_RULES: Final = frozenset(
    {"tees", "max_life_days", "approvals", "approvers", "self_approval", "keeps", "merge", "provenance"}
)
_KEYLESS_TEXTS: Final = ("source_repository", "source_digest", "build_trigger", "runner_environment")
_KEYLESS_PATTERNS: Final = ("workflow_ref", "build_config")
_SERIALS: Final[Mapping[str, Literal["version", "run", "time"]]] = {"version": "version", "run": "run", "time": "time"}
_NOBODY_IN_PARTICULAR: Final = "https://nobody.invalid/in/particular@refs/heads/nothing"
_T = TypeVar("_T")


def read(path: Path) -> list[Publisher]:
    """The publishers and approvers of one file, each checked by itself.

    Raises:
        SettingsUnacceptable: see `rvps.publishers.model.load`.
    """
    try:
        tables = tomllib.loads(_contents(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SettingsUnacceptable(f"{path}: not TOML: {err}") from err
    top = _Table(str(path), tables, path.parent)
    top.only({"publishers", "approvers"})
    stating = [
        _publisher(name, _Table(f"{path}: publishers.{name}", table, path.parent))
        for name, table in top.table("publishers").items()
    ]
    approving = [
        _approver(name, _Table(f"{path}: approvers.{name}", table, path.parent))
        for name, table in top.table("approvers").items()
    ]
    return [*stating, *approving]


@dataclass(frozen=True, slots=True)
class _Table:
    """One table with the place to name in refusals."""

    where: str
    members: Any
    folder: Path

    def refuse(self, what: str) -> SettingsUnacceptable:
        return SettingsUnacceptable(f"{self.where}: {what}")

    def only(self, known: frozenset[str] | set[str]) -> None:
        if not isinstance(self.members, dict):
            raise self.refuse("not a table")
        for member in self.members:
            if member not in known:
                raise self.refuse(f"unknown member {member!r}; known: {', '.join(sorted(known))}")

    def get(self, member: str, kind: type[_T], default: _T | None = None) -> _T:
        found = self.members.get(member, default)
        if found is None:
            raise self.refuse(f"`{member}` is missing")
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise self.refuse(f"`{member}` is not of type {kind.__name__}")
        return found

    def table(self, member: str) -> Mapping[str, Any]:
        return self.get(member, dict, {})

    def number(self, member: str, default: int, lowest: int, highest: int) -> int:
        found = self.get(member, int, default)
        if not lowest <= found <= highest:
            raise self.refuse(f"`{member}` is not between {lowest} and {highest}")
        return found

    def texts(self, member: str) -> tuple[str, ...]:
        found = self.get(member, list, [])
        if not all(isinstance(text, str) and text for text in found):
            raise self.refuse(f"`{member}` is not a list of strings that say something")
        if len(set(found)) != len(found):
            raise self.refuse(f"`{member}` says something twice")
        return tuple(found)

    def some_texts(self, member: str) -> tuple[str, ...]:
        found = self.texts(member)
        if not found:
            raise self.refuse(f"`{member}` is missing or empty")
        return found

    def pattern(self, member: str) -> str:
        found = self.get(member, str)
        options = re2.Options()
        options.log_errors = False
        try:
            compiled = re2.compile(found, options)
        except re2.error as err:
            raise self.refuse(f"`{member}` is no pattern that google-re2 reads") from err
        if compiled.fullmatch(_NOBODY_IN_PARTICULAR):
            raise self.refuse(f"`{member}` matches everybody")
        return found

    def pem(self, member: str, label: str, decode: Callable[[bytes], _T]) -> list[_T]:
        """Every PEM block of the listed files or texts."""
        found: list[_T] = []
        for place in self.texts(member):
            text = place if "-----BEGIN" in place else self.file(place).decode("ascii", "replace")
            blocks = list(_PEM.finditer(text))
            if not blocks:
                raise self.refuse(f"`{member}`: no PEM in {_short(place)}")
            for block in blocks:
                if block[1] != label:
                    raise self.refuse(f"`{member}`: {_short(place)} holds a {block[1]}, expected a {label}")
                try:
                    found.append(decode(block[0].encode()))
                except (ValueError, UnsupportedAlgorithm) as err:
                    raise self.refuse(f"`{member}`: {_short(place)} does not read as a {label}") from err
        return found

    def file(self, name: str) -> bytes:
        return _contents(self.folder / name)


def _publisher(name: str, table: _Table) -> Publisher:
    table.only(_TRUST | _RULES | {"types", "namespaces"})
    _check_publisher_name(name, table)
    namespaces = table.some_texts("namespaces")
    for namespace in namespaces:
        try:
            check_name(namespace)
        except StatementUnacceptable as err:
            raise table.refuse(f"`namespaces`: {err}") from err
    days = table.number("max_life_days", DEFAULT_LIFE.days, 1, MAX_LIFE_DAYS)
    merge = table.get("merge", str, "replace")
    if merge not in ("replace", "append"):
        raise table.refuse("`merge` is neither `replace` nor `append`")
    approvers = table.texts("approvers")
    self_approval = table.get("self_approval", bool, False)
    if self_approval != (name in approvers):
        raise table.refuse("to approve its own statements it must be in `approvers` and `self_approval` be true")
    return Publisher(
        name=name,
        types=frozenset(table.some_texts("types")),
        namespaces=namespaces,
        trust=_trust(table),
        tees=frozenset(table.some_texts("tees")) if "tees" in table.members else None,
        max_life=timedelta(days=days),
        approvals=table.number("approvals", 0, 0, len(approvers)),
        approvers=frozenset(approvers),
        self_approval=self_approval,
        keeps=table.number("keeps", 1, 1, MAX_KEEPS),
        merge="append" if merge == "append" else "replace",
        provenance=_provenance(table) if "provenance" in table.members else None,
    )


def _approver(name: str, table: _Table) -> Publisher:
    table.only(_TRUST | {"types"})
    _check_publisher_name(name, table)
    types = frozenset(table.texts("types")) or frozenset({"dsse"})
    return Publisher(name=name, types=types, namespaces=(), trust=_trust(table))


def _check_publisher_name(name: str, table: _Table) -> None:
    if not _NAME.fullmatch(name):
        raise table.refuse("a name is made of a-z, 0-9, `.`, `_` and `-`, at most 64")


def _trust(table: _Table) -> Trust:
    keys = tuple(table.pem("keys", "PUBLIC KEY", load_pem_public_key))
    trust = Trust(
        keys=tuple(_strong(key, table) for key in keys),
        roots=tuple(table.pem("roots", "CERTIFICATE", x509.load_pem_x509_certificate)),
        sigstore=_sigstore(table) if "sigstore" in table.members else None,
    )
    for root in trust.roots:
        try:
            _strong(root.public_key(), table)
        except (ValueError, UnsupportedAlgorithm) as err:
            raise table.refuse("`roots`: a certificate with a key that does not read") from err
    if not (trust.keys or trust.roots or trust.sigstore):
        raise table.refuse("nothing to verify signatures with: `keys`, `roots` or `sigstore`")
    return trust


def _sigstore(outer: _Table) -> SigstoreTrust:
    table = _Table(f"{outer.where}.sigstore", outer.members["sigstore"], outer.folder)
    lists = {"builder_ids", "build_types"}
    table.only({"trusted_root", "issuer", "identity", *lists, *_KEYLESS_TEXTS, *_KEYLESS_PATTERNS})
    given = table.members
    trusted_root = table.file(table.get("trusted_root", str))
    try:
        check_trusted_root(trusted_root)
    except SignatureRefused as err:
        raise table.refuse(f"`trusted_root`: {err}") from err
    return SigstoreTrust(
        trusted_root=trusted_root,
        issuer=table.get("issuer", str),
        identity=table.pattern("identity"),
        builder_ids=frozenset(table.texts("builder_ids")),
        build_types=frozenset(table.texts("build_types")),
        **{member: table.get(member, str) for member in _KEYLESS_TEXTS if member in given},
        **{member: table.pattern(member) for member in _KEYLESS_PATTERNS if member in given},
    )


def _provenance(outer: _Table) -> ProvenanceRules:
    table = _Table(f"{outer.where}.provenance", outer.members["provenance"], outer.folder)
    table.only({item.name for item in fields(ProvenanceRules)})
    serial_from = _SERIALS.get(table.get("serial_from", str, "version"))
    if serial_from is None:
        raise table.refuse(f"`serial_from` is none of {', '.join(_SERIALS)}")
    series, tee, rename = table.get("series", str), table.members.get("tee"), dict(table.table("rename"))
    try:
        check_series(series)
        if tee is not None:
            check_tee(tee)
        for name in rename.values():
            check_name(name if isinstance(name, str) else "")
    except StatementUnacceptable as err:
        raise table.refuse(str(err)) from err
    return ProvenanceRules(
        builder=table.pattern("builder"),
        build_type=table.get("build_type", str),
        repository=table.get("repository", str),
        ref=table.pattern("ref"),
        path=table.get("path", str),
        series=series,
        serial_from=serial_from,
        tee=tee,
        rename=rename,
    )


def _strong(key: object, table: _Table) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return key
    raise table.refuse("a key that is not accepted: P-256, P-384, Ed25519, or RSA from 3072 bits on")


def _contents(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for a writer
            raise SettingsUnacceptable(f"{path}: not a file")
        if mode & stat.S_IWOTH:
            raise SettingsUnacceptable(f"{path}: writable by everybody, and says whom to trust: chmod o-w")
        with path.open("rb") as file:
            found = file.read(_MAX_FILE + 1)
    except OSError as err:
        raise SettingsUnacceptable(f"{path}: {err.strerror}") from err
    if len(found) > _MAX_FILE:
        raise SettingsUnacceptable(f"{path}: more than {_MAX_FILE} bytes")
    return found


def _short(place: str) -> str:
    return "the text" if "-----BEGIN" in place else place
