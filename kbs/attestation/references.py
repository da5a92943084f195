"""Where this broker's reference values are: in its own store, or at a provider of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kbs.config import ReferenceSettings
from kbs.errors import ConfigInvalid, StorageUnavailable, VersionConflict
from kbs.storage.model import KeyValueStore
from rvps.client import NOBODY, ReferenceValueProvider, RemoteSettings, embedded, publishers_on_disk, remote
from rvps.errors import SettingsUnacceptable

_NEWEST: Final = "newest-reference-event"
"""Outside the store, beside the audit log's head: a store that was set back is not used until somebody says so."""


def reference_provider(
    settings: ReferenceSettings, data: Path, store: KeyValueStore, *, durable: bool = True
) -> ReferenceValueProvider:
    """The provider that the settings name. Relative paths are under `data`. It connects at its first use, not here.

    Args:
        durable: whether the store outlives this process. Then what was newest in it is remembered beside it.

    Raises:
        ConfigInvalid: a file that does not read, a token that is none, roots that do not load.
    """
    if settings.url is None or settings.token_file is None:
        return _embedded(settings, data, store, data / _NEWEST if durable else None)
    path = data / settings.token_file
    try:
        return remote(
            RemoteSettings(
                url=settings.url,
                token=path.read_text("ascii").strip(),
                ca_file=None if settings.ca_file is None else data / settings.ca_file,
                poll_seconds=settings.poll_seconds,
                max_age_seconds=settings.max_age_seconds,
            )
        )
    except OSError as err:
        raise ConfigInvalid(f"references.token_file {path}: {err.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigInvalid(f"references.token_file {path}: holds no token") from None
    except SettingsUnacceptable as err:
        raise ConfigInvalid(f"references: {err}") from None


def _embedded(
    settings: ReferenceSettings, data: Path, store: KeyValueStore, witness: Path | None
) -> ReferenceValueProvider:
    try:
        publishers = None if settings.publishers is None else publishers_on_disk(data / settings.publishers)
    except SettingsUnacceptable as err:
        raise ConfigInvalid(f"references.publishers: {err}") from None
    return embedded(
        store,
        conflict=VersionConflict,
        unavailable=StorageUnavailable,
        publishers=publishers or (lambda: NOBODY),
        witness=witness,
    )
