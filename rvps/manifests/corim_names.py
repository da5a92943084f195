"""What the measurements of a CoRIM are called as reference values: our names, and those of upstream.

Ours say all that tells two measurements apart, and two with one name are a mistake. Upstream's leave out class, layer,
index, instance and hash algorithm, and of several measurements with one name only the last is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import cbor2

from rvps.errors import StatementUnacceptable
from rvps.manifests.cbor import Cbor
from rvps.manifests.corim import TAG_BYTES, TAG_OID, TAG_UEID, TAG_UUID, Digest, Manifest, Measurement, uuid_text

_SIZES: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_KINDS: Final = {TAG_UUID: "", TAG_BYTES: "", TAG_OID: "oid-", TAG_UEID: "ueid-"}
_KEPT: Final = " !$&'()*+,:;=@"  # beside letters, digits and -._~; `/` parts a name, `%` begins what stands for another


def own_values(manifest: Manifest) -> dict[str, Any]:
    """Name to value, by names that keep all that is told apart.

    `VENDOR/MODEL/class-ID/layerN/indexN/instance-ID/group-ID/KEY/NAME/SERIAL/WHAT`, parts that are not there left out;
    `/`, `%` and what is not ASCII percent-encoded in each part. WHAT and its value: `digests/ALGORITHM` and
    `registers/ID/ALGORITHM`: list of hex; `raw_bytes`: hex; `svn`, `min_svn`: number.

    Raises:
        StatementUnacceptable: two measurements under one name, digests of unknown algorithms or wrong length,
            identifiers of other kinds, measurements that hold under a condition only.
    """
    values: dict[str, Any] = {}
    for measurement in _measurements(manifest):
        if measurement.is_conditional:
            raise StatementUnacceptable(
                "CoRIM: a measurement holds only for evidence that certain keys signed (authorized-by), "
                "which a reference value cannot say"
            )
        prefix = "/".join(_own_parts(measurement))
        for what, value in _own_records(measurement):
            name = f"{prefix}/{what}" if prefix else what
            if name in values:
                raise StatementUnacceptable(
                    f"CoRIM: two measurements are both named {name[:200]!r}; tell them apart by measurement key, "
                    "layer or index, put alternatives into one list of digests, or send type `corim` for upstream's "
                    "names, of which the last wins"
                )
            values[name] = value
    return values


def upstream_records(manifest: Manifest) -> list[tuple[str, Any]]:
    """Names and values as upstream's extractor makes them, in order; a name may come again.

    Source: rvps 4.3.
    """
    found: list[tuple[str, Any]] = []
    for measurement in _measurements(manifest):
        environment = measurement.environment
        parts = (environment.vendor, environment.model, _key(measurement.key), measurement.name, measurement.serial)
        prefix = [part for part in parts if part is not None]
        if measurement.digests:
            found.append(("/".join([*prefix, "digests"]), [digest.value.hex() for digest in measurement.digests]))
        if measurement.raw is not None:
            found.append(("/".join([*prefix, "raw_bytes"]), measurement.raw.hex()))
    return found


def upstream_values(manifest: Manifest) -> dict[str, Any]:
    """`upstream_records` as they end up in upstream's store: the last of a name."""
    return dict(upstream_records(manifest))


def _measurements(manifest: Manifest) -> Iterator[Measurement]:
    for comid in manifest.comids:
        yield from comid.measurements


def _own_parts(measurement: Measurement) -> Iterator[str]:
    environment = measurement.environment
    for text in (environment.vendor, environment.model):
        if text is not None:
            yield _quoted(text)
    if environment.class_id is not None:
        yield f"class-{_identifier(environment.class_id, 'a class id')}"
    if environment.layer is not None:
        yield f"layer{environment.layer}"
    if environment.index is not None:
        yield f"index{environment.index}"
    if environment.instance is not None:
        yield f"instance-{_identifier(environment.instance, 'an instance')}"
    if environment.group is not None:
        yield f"group-{_identifier(environment.group, 'a group')}"
    if measurement.key is not None:
        yield _quoted(_key(measurement.key) or _identifier(measurement.key, "a measurement key"))
    for text in (measurement.name, measurement.serial):
        if text is not None:
            yield _quoted(text)


def _own_records(measurement: Measurement) -> Iterator[tuple[str, Any]]:
    yield from _by_algorithm("digests", measurement.digests)
    for register, digests in measurement.registers.items():
        yield from _by_algorithm(f"registers/{_quoted(register)}", digests)
    if measurement.raw is not None:
        yield "raw_bytes", measurement.raw.hex()
    if measurement.svn is not None:
        yield "svn", measurement.svn
    if measurement.min_svn is not None:
        yield "min_svn", measurement.min_svn


def _by_algorithm(what: str, digests: tuple[Digest, ...]) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for digest in digests:
        if _SIZES.get(digest.algorithm) != len(digest.value):
            raise StatementUnacceptable("CoRIM: a digest is not one of sha-256, sha-384, sha-512, or of another length")
        found.setdefault(digest.algorithm, []).append(digest.value.hex())
    for algorithm, values in found.items():
        yield f"{what}/{algorithm}", values


def _key(key: Cbor) -> str | None:
    """Upstream's text for a measurement key; None for kinds that it leaves out."""
    if isinstance(key, str):
        return key
    if type(key) is int and key >= 0:
        return f"claim{key}"
    if isinstance(key, cbor2.CBORTag) and key.tag == TAG_UUID:
        return uuid_text(key.value)
    return None


def _identifier(item: Cbor, what: str) -> str:
    if isinstance(item, cbor2.CBORTag) and item.tag in _KINDS and isinstance(item.value, bytes):
        found = uuid_text(item.value) if item.tag == TAG_UUID else item.value.hex()
        if found is not None:
            return _KINDS[item.tag] + found
    raise StatementUnacceptable(f"CoRIM: {what} is of a kind that names nothing here (UUID, OID, UEID or tagged bytes)")


def _quoted(text: str) -> str:
    return quote(text, safe=_KEPT)
