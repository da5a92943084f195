"""A document in whatever form somebody has it: TOML, gzip, the annotation's value, or a manifest with the annotation.

The octets of the TOML text are kept exactly: one blank more is another digest.
Source: guest-components 4.1 to 4.3.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.attestation.init_data import MAX_DOCUMENT, parse_init_data
from kbs.attestation.model import Json
from kbs.errors import MalformedMessage
from kbs.initdata import annotation, yaml_text
from rvps.compute import init_data as computed
from rvps.errors import ArtifactUnusable

MAX_FILE: Final = 4 << 20
"""Octets that are read of any file."""

AA, CDH, POLICY = "aa.toml", "cdh.toml", "policy.rego"
ENTRIES: Final = (AA, CDH, POLICY)
"""The entries of `[data]` that Kata hands to somebody. Others are labels."""

_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \t\r\n"
_GZIP_IN_BASE64: Final = b"H4sI"
_MANIFEST: Final = re.compile(rb"^[ \t]*[\"']?(?:apiVersion|kind|metadata|annotations)[\"']?[ \t]*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read.

    raw: exact octets of the TOML text. form: what it was found in, `toml`, `gzip`, `annotation` or `manifest`.
    digest: by its own algorithm. data: the entries, texts. others: members beside version, algorithm and data.
    claims: what policies would see as `init_data_claims`. annotations_size: octets of all annotations of a manifest.
    """

    raw: bytes = field(repr=False)
    form: str
    version: str
    algorithm: str
    digest: bytes
    data: Mapping[str, str] = field(repr=False)
    others: tuple[str, ...]
    claims: Mapping[str, Json] = field(repr=False)
    annotations_size: int | None = None

    @property
    def text(self) -> str:
        """The TOML text."""
        return self.raw.decode("utf-8")


def read(raw: bytes) -> Document:
    """Read a file in any of the forms.

    Raises:
        MalformedMessage: too long, none of the forms, a manifest without the annotation or with several that differ,
            or a document that a broker would not take either.
    """
    if len(raw) > MAX_FILE:
        raise MalformedMessage(f"init data: more than {MAX_FILE} bytes")
    if raw.startswith(annotation.GZIP_MAGIC):
        return parse(annotation.decompress(raw), "gzip")
    stripped = raw.strip()
    if stripped.startswith(_GZIP_IN_BASE64) or (stripped and not stripped.translate(None, _BASE64)):
        return parse(annotation.decode(stripped.decode("ascii", "replace")), "annotation")
    try:
        return parse(raw, "toml")
    except MalformedMessage:  # of documents that are TOML a policy may well have lines that look like a manifest
        if not stripped.startswith(b"{") and not _MANIFEST.search(raw):
            raise
    return _of_manifest(raw)


def parse(raw: bytes, form: str = "toml", annotations_size: int | None = None) -> Document:
    """Read the octets of a TOML text.

    Raises:
        MalformedMessage: longer than `MAX_DOCUMENT`, or not such a document; the text says where, where it is known.
    """
    if len(raw) > MAX_DOCUMENT:
        raise MalformedMessage(f"init data: more than {MAX_DOCUMENT} bytes")
    try:
        found = computed.read(raw)
    except ArtifactUnusable as err:
        raise MalformedMessage(str(err)) from None
    text = raw.decode("utf-8")
    claims = parse_init_data(text).claims
    members = tomllib.loads(text)
    return Document(
        raw=raw,
        form=form,
        version=found.version,
        algorithm=found.algorithm,
        digest=found.digest,
        data=members["data"],
        others=tuple(name for name in members if name not in ("version", "algorithm", "data")),
        claims=claims,
        annotations_size=annotations_size,
    )


def _of_manifest(raw: bytes) -> Document:
    """The annotation of a Pod, or of what makes Pods; several that hold the same text are one."""
    found: dict[bytes, int] = {}
    old = False
    for document in yaml_text.documents(raw):
        for held in _annotations(document):
            old = old or any(key in held for key in annotation.OLD_KEYS)
            value = held.get(annotation.KEY)
            if value is None:
                continue
            if not isinstance(value, str):
                raise MalformedMessage(f"init data: the annotation {annotation.KEY} is not a text")
            size = sum(len(str(key).encode()) + len(str(each).encode()) for key, each in held.items())
            text = annotation.decode(value)
            found[text] = max(size, found.get(text, 0))
    if len(found) > 1:
        raise MalformedMessage("init data: the manifest has several annotations, with different documents")
    if not found:
        hint = f"; {annotation.OLD_KEYS[0]} is an old name that is not read any more" if old else ""
        raise MalformedMessage(f"init data: the manifest has no annotation {annotation.KEY}{hint}")
    ((text, size),) = found.items()
    return parse(text, "manifest", size)


def _annotations(value: Any) -> Iterator[Mapping[Any, Any]]:
    """`metadata.annotations` wherever it stands: of the Pod, or of the template in a Deployment, a Job …"""
    if isinstance(value, list):
        for each in value:
            yield from _annotations(each)
    if not isinstance(value, dict):
        return
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        yield metadata["annotations"]
    for each in value.values():
        yield from _annotations(each)


def field_values(digest: bytes) -> dict[str, str | None]:
    """What each TEE's evidence shows as the claim `init_data`, by TEE; None where the TEE cannot take the digest."""
    found: dict[str, str | None] = {}
    for tee in computed.FIELDS:
        try:
            found[tee] = computed.field_value(tee, digest).hex()
        except ArtifactUnusable:
            found[tee] = None
    return found


TEES: Final = tuple(computed.FIELDS)
"""TEEs whose evidence shows init data."""


def field_of(tee: str) -> str:
    """The name of the field that holds it."""
    return computed.FIELDS[tee].what


def field_value(tee: str, digest: bytes) -> str:
    """The value of one TEE's field in lower-case hex.

    Raises:
        MalformedMessage: a TEE without such a field, or one that cannot take this digest.
    """
    try:
        return computed.field_value(tee, digest).hex()
    except ArtifactUnusable as err:
        raise MalformedMessage(str(err)) from None


def claims_of(digest: bytes) -> tuple[str, ...]:
    """Every form that the claim `init_data` may have for this document, sorted, each once."""
    found = set()
    for tee, where in computed.FIELDS.items():
        if not where.is_claimed:
            continue
        try:
            found.add(computed.claim(tee, digest))
        except ArtifactUnusable:
            continue
    return tuple(sorted(found))
