"""CBOR as manifests and their signatures use it: one item, bounded before and while it is read.

cbor2 reads; decided here is what may be read at all. Left alone it takes bignums of megabytes, regular expressions,
shared and cyclic values, and whatever else a tag asks for, and says nothing of what follows the item.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

import cbor2

from rvps.errors import StatementUnacceptable

Cbor = Any
"""A decoded item: int, str, bytes, bool, None, list or tuple, mapping with int or str keys, or `cbor2.CBORTag`."""

MAX_DEPTH: Final = 32

_LEAVES: Final = frozenset({int, str, bytes, bool, type(None)})
_KEYS: Final = frozenset({int, str})


class _Tags(dict[int, Callable[..., Any]]):
    """What each tag becomes: itself if it is allowed, whatever the library would make of it; else a refusal."""

    def __init__(self, allowed: frozenset[int]) -> None:
        super().__init__({tag: _kept(tag) for tag in allowed})

    def __missing__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag


def _kept(tag: int) -> Callable[..., Any]:
    return lambda value, *_: cbor2.CBORTag(tag, value)


def _refuse_tag(*_: object) -> Any:
    raise ValueError("a tag that is not expected")


def decode(data: bytes, *, what: str, tags: frozenset[int], max_size: int) -> Cbor:
    """Read exactly one CBOR item.

    Args:
        data: untrusted.
        what: names the item in refusals, e.g. `CoRIM`.
        tags: those that may occur; they come back as `cbor2.CBORTag`, none of them has a meaning here.
        max_size: octets.

    Raises:
        StatementUnacceptable: larger, nested deeper than `MAX_DEPTH`, not well-formed, of indefinite length, with a
            repeated key, another tag (bignums, shared values and regular expressions are tags), floating point, other
            rare types, keys that are neither integer nor text, or with anything behind the item.

    Source: RFC 8949 sections 3, 5.6 and 10.
    """
    if len(data) > max_size:
        raise StatementUnacceptable(f"{what}: more than {max_size} bytes")
    item, size = decode_first(data, what=what, tags=tags)
    if size != len(data):
        raise StatementUnacceptable(f"{what}: bytes follow the CBOR item")
    return item


def decode_first(data: bytes, *, what: str, tags: frozenset[int]) -> tuple[Cbor, int]:
    """Read the CBOR item that `data` begins with; it, and how many octets it has. The caller has bounded `data`.

    Raises:
        StatementUnacceptable: as `decode`.
    """
    stream = io.BytesIO(data)
    try:
        item = cbor2.CBORDecoder(
            stream,
            semantic_decoders=_Tags(tags),
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        ).decode()
    # Every kind of malformed input is CBORDecodeError; a repeated key that no hash can be made of is TypeError.
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as err:
        raise StatementUnacceptable(
            f"{what}: not the CBOR that is read here (well-formed, definite lengths, each key once, known tags, "
            f"at most {MAX_DEPTH} deep)"
        ) from err
    _check_types(item, what)
    return item, stream.tell()


def _check_types(item: Cbor, what: str) -> None:
    open_items = [item]
    while open_items:
        each = open_items.pop()
        if type(each) in _LEAVES:
            continue
        if isinstance(each, list | tuple):
            open_items.extend(each)
        elif isinstance(each, Mapping):
            if not all(type(key) in _KEYS for key in each):
                raise StatementUnacceptable(f"{what}: a map has a key that is neither integer nor text")
            open_items.extend(each.values())
        elif isinstance(each, cbor2.CBORTag):
            open_items.append(each.value)
        else:
            raise StatementUnacceptable(f"{what}: CBOR of a type that is not expected")
