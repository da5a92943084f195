"""Signed CoRIM: a COSE_Sign1 message by a publisher's key, or by a certificate under a publisher's root."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import cbor2

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import chain
from rvps.intake.model import Artifact, Content, Verified
from rvps.manifests import corim, corim_names, cose
from rvps.manifests.cbor import Cbor, decode
from rvps.publishers.model import Publisher, Publishers

CONTENT_TYPE: Final = "application/rim+cbor"
_MAX_META: Final = 16 * 1024  # octets
_CWT_UNTIL, _CWT_FROM, _CWT_ISSUED = 4, 5, 6  # claims exp, nbf, iat: RFC 8392 section 3.1
_SERIES: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}", re.ASCII)
_MAX_SERIAL: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SignedCorim:
    """`rvps.intake.model.Intake` of one message type.

    kind: the message type. names: what the values are called; ours for `signed-corim`, upstream's for `corim`.
    """

    kind: str
    names: Callable[[corim.Manifest], Mapping[str, Any]]

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:
        """Check signature, publisher and the dates beside the signature; the manifest stays unread.

        With certificates in the message (x5chain) only they count: they lead to a publisher's root. Without, a key of a
        publisher must have signed.

        Raises:
            SignatureRefused: not a signed CoRIM, nobody's signature, or not valid at `at`.

        Source: rvps 12.5; draft-ietf-rats-corim, signed CoRIM.
        """
        message = cose.read(payload)
        if message.header.get(cose.CONTENT_TYPE) != CONTENT_TYPE:
            raise SignatureRefused(f"signed CoRIM: the content type is not {CONTENT_TYPE}")
        expires: list[datetime] = []
        if message.certificates:
            signer = chain.find_signer(chain.load(message.certificates), publishers, self.kind, at)
            cose.verify(message, signer.key)
            publisher, identity = signer.publisher, signer.identity
            expires.append(signer.expires)
        else:
            publisher, identity = self._by_key(message, publishers)
        signed_at, until = _dates(message.header, at)
        expires.extend(() if until is None else (until,))
        return Verified(
            publisher=publisher,
            signer=identity,
            kind=self.kind,
            content=message.payload,
            digest=hashlib.sha256(message.payload).hexdigest(),
            signed_at=signed_at,
            expires=min(expires, default=None),
        )

    def extract(self, verified: Verified, at: datetime) -> Content:
        """Read the manifest: values by name, tag-identity as series and serial, rim-validity as their life.

        The serial is one more than the version of the tag; of several tags, than the sum of their versions.

        Raises:
            StatementUnacceptable: not a CoRIM, no reference values, outside its rim-validity, or what
                `rvps.manifests.corim_names` refuses.
        """
        manifest = corim.read(verified.content)
        ends = [end for end in (manifest.valid_until, verified.expires) if end is not None]
        valid_until = min(ends, default=None)
        if valid_until is not None and valid_until <= at:
            raise StatementUnacceptable("CoRIM: its rim-validity has ended")
        values = self.names(manifest)
        if not values:
            raise StatementUnacceptable("CoRIM: no reference values in it")
        artifact = Artifact(manifest.id[:255] if manifest.id.isprintable() else "CoRIM", {"sha256": verified.digest})
        return Content(
            series=series(manifest),
            serial=serial(manifest),
            tee=None,
            artifacts=(artifact,),
            values=values,
            known_bad={},
            together=False,
            valid_from=manifest.valid_from,
            valid_until=valid_until,
        )

    def _by_key(self, message: cose.Sign1, publishers: Publishers) -> tuple[Publisher, str]:
        for known in publishers.keys.values():
            if not cose.fits(message.algorithm, known.key):
                continue
            try:
                cose.verify(message, known.key)
            except SignatureRefused:
                continue
            if self.kind not in known.publisher.types:
                raise SignatureRefused(f"publisher {known.publisher.name!r} may not send messages of type {self.kind}")
            return known.publisher, known.id
        raise SignatureRefused("signed CoRIM: no key of any publisher made the signature")


def series(manifest: corim.Manifest) -> str:
    """The id of the one tag, or of the manifest where there are several. Ids of other characters than a series may have
    are written with `-` for each, and part of their SHA-256 behind, so that two do not fall together."""
    text = manifest.comids[0].id if len(manifest.comids) == 1 else manifest.id
    if _SERIES.fullmatch(text):
        return text
    readable = re.sub(r"[^A-Za-z0-9._+-]", "-", text)[:80]
    return f"corim-{readable}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def serial(manifest: corim.Manifest) -> int:
    """From 1 on; rises when the version of any tag rises.

    Raises:
        StatementUnacceptable: versions beyond what a serial can be.
    """
    found = 1 + sum(comid.version for comid in manifest.comids)
    if found > _MAX_SERIAL:
        raise StatementUnacceptable("CoRIM: the version of a tag is too large")
    return found


def _dates(header: Mapping[Any, Cbor], at: datetime) -> tuple[datetime | None, datetime | None]:
    """When it was signed and until when the signer stands by it, from corim-meta or CWT claims: one must be there.

    Raises:
        SignatureRefused: neither, malformed, not valid yet at `at`, or no longer.
    """
    meta, claims = header.get(cose.CORIM_META), header.get(cose.CWT_CLAIMS)
    signed_at = start = end = None
    try:
        if meta is not None:
            start, end = _meta(meta)
        if claims is not None:
            if not isinstance(claims, Mapping):
                raise StatementUnacceptable("signed CoRIM: CWT claims are not a map")
            signed_at, claimed_start, claimed_end = (
                _numeric_date(claims, claim) for claim in (_CWT_ISSUED, _CWT_FROM, _CWT_UNTIL)
            )
            start = max((each for each in (start, claimed_start) if each is not None), default=None)
            end = min((each for each in (end, claimed_end) if each is not None), default=None)
    except StatementUnacceptable as err:
        raise SignatureRefused(str(err)) from err
    if meta is None and claims is None:
        raise SignatureRefused("signed CoRIM: neither corim-meta (8) nor CWT claims (15) under protection")
    if start is not None and at < start:
        raise SignatureRefused("signed CoRIM: the signer's validity has not begun")
    if end is not None and end <= at:
        raise SignatureRefused("signed CoRIM: the signer's validity has ended")
    return signed_at, end


def _meta(item: Cbor) -> tuple[datetime | None, datetime | None]:
    if not isinstance(item, bytes):
        raise StatementUnacceptable("signed CoRIM: corim-meta is not a byte string")
    meta = decode(item, what="corim-meta", tags=corim.TAGS, max_size=_MAX_META)
    if not isinstance(meta, Mapping) or not isinstance(meta.get(0), Mapping):
        raise StatementUnacceptable("signed CoRIM: corim-meta names no signer")
    return corim.validity(meta[1], "signature-validity") if 1 in meta else (None, None)


def _numeric_date(claims: Mapping[Any, Cbor], claim: int) -> datetime | None:
    value = claims.get(claim)
    if value is None:
        return None
    seconds = value.value if isinstance(value, cbor2.CBORTag) and value.tag == corim.TAG_EPOCH else value
    if type(seconds) is not int or not 0 <= seconds < 253_402_300_800:
        raise StatementUnacceptable("signed CoRIM: a date of its CWT claims is not whole seconds")
    return datetime.fromtimestamp(seconds, UTC)


SIGNED_CORIM: Final = SignedCorim("signed-corim", corim_names.own_values)
UPSTREAM_NAMES: Final = SignedCorim("corim", corim_names.upstream_values)
