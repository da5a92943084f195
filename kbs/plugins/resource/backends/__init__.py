"""Stores of resources by type; each module is imported only when a setting names its type."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, cast

from kbs.clock import Clock
from kbs.config import ResourceSettings
from kbs.errors import ConfigInvalid
from kbs.plugins.resource.backends.breaker import Breaker
from kbs.plugins.resource.model import Backend, StoreContext

_PREFIX: Final = re.compile(
    r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}/){0,2}|(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}/){2}[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}"
)
_TYPES: Final[Mapping[str, tuple[str, str | None]]] = {
    "aws": ("kbs.plugins.resource.backends.aws", "aws"),
    "azure": ("kbs.plugins.resource.backends.azure", "azure"),
    "gcp": ("kbs.plugins.resource.backends.gcp", "gcp"),
    "kubernetes": ("kbs.plugins.resource.backends.kubernetes", None),
    "pkcs11": ("kbs.plugins.resource.backends.pkcs11", "pkcs11"),
    "vault": ("kbs.plugins.resource.backends.vault", "vault"),
}
"""Type → module and the extra of this package that it needs, if any."""


def external_stores(
    settings: ResourceSettings, data: Path, clock: Clock, ticks: Callable[[], float] = monotonic
) -> Sequence[tuple[str, Backend]]:
    """Prefix and store of each `[[resource.store]]`, longest prefix first. Nothing is asked over the network.

    Raises:
        ConfigInvalid: a prefix that ends inside a segment or comes twice, a type nobody knows or whose library is not
            installed, options of the type that do not fit.
    """
    found: dict[str, Backend] = {}
    for number, table in enumerate(settings.store):
        where = f"resource.store[{number}]"
        options = dict(table)
        prefix, kind = options.pop("prefix", None), options.pop("type", None)
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigInvalid(f'settings: {where}.prefix: expected "", "REPOSITORY/", "REPOSITORY/TYPE/" or a path')
        if prefix in found:
            raise ConfigInvalid(f"settings: {where}.prefix: {prefix!r} has a store already")
        found[prefix] = Breaker(_build(kind, StoreContext(prefix, options, data, where, clock, ticks)), ticks)
    return sorted(found.items(), key=lambda each: -len(each[0]))


def _build(kind: object, context: StoreContext) -> Backend:
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ConfigInvalid(f"settings: {context.where}.type: expected one of {', '.join(sorted(_TYPES))}")
    module, extra = _TYPES[kind]
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as err:
        package = "kbs" if extra is None else f"kbs[{extra}]"
        missing = f"type {kind} needs {err.name}, which is not installed: pip install '{package}'"
        raise ConfigInvalid(f"settings: {context.where}: {missing}") from None
    return cast(Backend, loaded.build(context))
