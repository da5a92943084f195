"""The vocabulary of `rvps.model` as JSON documents, in both directions.

Members are named as in the model; times are ISO 8601 with an offset, states are words, absent is null.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeVar

import cattrs

from rvps.errors import ProviderUnavailable
from rvps.model import State

T = TypeVar("T")


def document_of(value: Any) -> Any:
    """A value of `rvps.model` as what `rvps.strict_json.encode` takes."""
    return _CONVERTER.unstructure(value)


def read(document: Any, kind: type[T]) -> T:
    """A document of another process as a value of `rvps.model`. Unknown members are passed over.

    Raises:
        ProviderUnavailable: a member is missing or of another type.
    """
    try:
        return _CONVERTER.structure(document, kind)
    except Exception as err:  # cattrs raises what the type's constructor does, and groups of that
        raise ProviderUnavailable("its answer has another form than this release reads") from err


def _strict(kind: type) -> Any:
    def structure(value: Any, _: type) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}")
        return value

    return structure


def _moment(value: Any, _: type) -> datetime:
    if not isinstance(value, str):
        raise TypeError("expected a time")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("expected an offset")
    return moment


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _strict(kind))
    converter.register_structure_hook(State, lambda value, _: State(value))
    converter.register_structure_hook(datetime, _moment)
    converter.register_unstructure_hook(datetime, lambda moment: moment.isoformat())
    return converter


_CONVERTER: Final = _converter()
