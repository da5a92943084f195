"""Objects of the five kinds, and members of any object, to and from what the API server sends.

Reading is strict for `spec` (a member that this release does not know changes the meaning of the others) and lenient
for `status`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, get_args, get_origin

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from kbs.errors import MalformedMessage
from kbs.k8s.model import API_VERSION, DeletionPolicy, Kind, Meta, Resource, Spec, Status


def read(kind: Kind[Spec, Status], raw: Mapping[str, Any]) -> Resource[Spec, Status]:
    """An object as the API server, or a file, has it.

    Raises:
        MalformedMessage: another kind or version, a member that is missing, unknown in `spec` or of another type.
    """
    if raw.get("kind", kind.name) != kind.name or raw.get("apiVersion", API_VERSION) != API_VERSION:
        raise MalformedMessage(f"not a {kind.name} of {API_VERSION}")
    try:
        spec = _STRICT.structure(raw.get("spec"), kind.spec)
        status = _LENIENT.structure(raw.get("status") or {}, kind.status)
        meta = read_meta(raw)
    except (cattrs.BaseValidationError, TypeError, ValueError, KeyError, AttributeError) as err:
        raise MalformedMessage(f"{kind.name}: {_first(err)}") from None
    return Resource(kind.name, meta, spec, status)


def read_meta(raw: Mapping[str, Any]) -> Meta:
    """`metadata` of any object; members that are not there have their empty value."""
    found = raw.get("metadata") or {}
    return Meta(
        namespace=found.get("namespace") or "",
        name=found.get("name") or "",
        uid=found.get("uid") or "",
        generation=found.get("generation") or 0,
        resource_version=found.get("resourceVersion") or "",
        created=found.get("creationTimestamp") or "",
        deleting=bool(found.get("deletionTimestamp")),
        finalizers=tuple(found.get("finalizers") or ()),
        annotations=found.get("annotations") or {},
    )


def write(value: Any) -> dict[str, Any]:
    """A spec or a status as JSON; members at their default are left out."""
    found: dict[str, Any] = _LENIENT.unstructure(value)
    return found


_DURATION: Final = re.compile(r"(?:[0-9]{1,9}[smh])+")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours"}


def duration(text: str) -> timedelta:
    """`90m`, `1h30m`, `0s`.

    Raises:
        MalformedMessage: of another form.
    """
    if not _DURATION.fullmatch(text):
        raise MalformedMessage("a duration has the form 90m, 1h30m or 24h")
    found = timedelta()
    for number, unit in re.findall(r"([0-9]+)([smh])", text):
        found += timedelta(**{_UNITS[unit]: int(number)})
    return found


def moment(text: str) -> datetime:
    """A time of the API, RFC 3339.

    Raises:
        ValueError: none, or one without a zone.
    """
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found


# --- converters -------------------------------------------------------------------------------------------------------


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _exactly(kind: type) -> Any:
    def structure(value: Any, _: type) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}")
        return value

    return structure


def _is_tuple(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is tuple


def _listed(converter: cattrs.Converter) -> Any:
    def structure(value: Any, kind: Any) -> Any:
        if type(value) is not list:
            raise TypeError("expected a list")
        return tuple(converter.structure(each, get_args(kind)[0]) for each in value)

    return structure


def _converter(strict: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))

    converter.register_structure_hook(DeletionPolicy, lambda value, _: DeletionPolicy(value))
    converter.register_unstructure_hook(DeletionPolicy, lambda value: value.value)
    converter.register_structure_hook_func(_is_tuple, _listed(converter))

    def names(cls: type) -> Any:
        return {each.name: override(rename=_camel(each.name)) for each in dataclasses.fields(cls)}

    converter.register_structure_hook_factory(
        dataclasses.is_dataclass,
        lambda cls: make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=strict, **names(cls)),
    )
    converter.register_unstructure_hook_factory(
        dataclasses.is_dataclass,
        lambda cls: make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True, **names(cls)),
    )
    return converter


_STRICT: Final = _converter(strict=True)
_LENIENT: Final = _converter(strict=False)


def _first(err: BaseException) -> str:
    """Where, without what stood there."""
    if isinstance(err, cattrs.BaseValidationError):
        return cattrs.transform_error(err)[0].replace(" @ $.", " at ").removesuffix(" @ $")
    return str(err)
