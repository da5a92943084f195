"""The SGX extension of a make-believe PCK certificate.

Source: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat import asn1

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"


@dataclass(frozen=True, slots=True)
class Platform:
    """What a PCK certificate says. `instance_id`, `flags`: Platform CA only."""

    fmspc: bytes = bytes.fromhex("20a06f000000")
    pce_id: bytes = bytes(2)
    components: tuple[int, ...] = (10,) * 16
    pce_svn: int = 16
    ppid: bytes = bytes(range(16))
    sgx_type: int = 1
    instance_id: bytes = bytes(range(16, 32))
    flags: tuple[bool, bool, bool] = (True, False, True)  # dynamic platform, cached keys, SMT


@asn1.sequence
class _Pair:
    oid: x509.ObjectIdentifier
    value: asn1.TLV


def sgx_extension(platform: Platform, *, with_platform: bool, type_tag: int = 0x0A) -> bytes:
    """The SGX extension of a PCK certificate. `with_platform`: with the members that only the Platform CA writes."""
    tcb = [_pair(f"2.{index}", asn1.encode_der(svn)) for index, svn in enumerate(platform.components, start=1)]
    tcb.append(_pair("2.17", asn1.encode_der(platform.pce_svn)))
    tcb.append(_pair("2.18", asn1.encode_der(bytes(platform.components))))
    members = [
        _pair("1", asn1.encode_der(platform.ppid)),
        _pair("2", _sequence(tcb)),
        _pair("3", asn1.encode_der(platform.pce_id)),
        _pair("4", asn1.encode_der(platform.fmspc)),
        _pair("5", bytes((type_tag, 1, platform.sgx_type))),  # the library has no ENUMERATED
    ]
    if with_platform:
        flags = [_pair(f"7.{index}", asn1.encode_der(flag)) for index, flag in enumerate(platform.flags, start=1)]
        members += [_pair("6", asn1.encode_der(platform.instance_id)), _pair("7", _sequence(flags))]
    return _sequence(members)


def _pair(part: str, value: bytes) -> _Pair:
    return _Pair(oid=x509.ObjectIdentifier(f"{SGX_EXTENSION}.{part}"), value=asn1.decode_der(asn1.TLV, value))


def _sequence(pairs: Sequence[_Pair]) -> bytes:
    members = {f"member_{index}": pair for index, pair in enumerate(pairs)}
    return asn1.encode_der(_sequence_of(len(pairs))(**members))


@cache
def _sequence_of(count: int) -> Any:
    """The library encodes classes only, so one for each number of members."""
    annotations = {f"member_{index}": _Pair for index in range(count)}
    return asn1.sequence(type(f"_Sequence{count}", (), {"__annotations__": annotations}))
