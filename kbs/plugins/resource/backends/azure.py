"""Resources in Azure Key Vault, as its secrets (extra `azure`).

A resource `repository/type/tag` is the secret whose name is that with `--` for a slash and `-XX` for the octet XX of
whatever is neither a lower-case letter nor a digit: names there do not tell cases apart. The service keeps text: octets
are written in base64 with the tag `file-encoding: base64`, as `az keyvault secret set --encoding base64` does, and text
without that tag is read as its UTF-8 octets. Versions have no numbers, and nothing there creates exactly once.
Source: Key Vault REST API 7.x.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import SecretClient

from kbs import config
from kbs.errors import ConfigInvalid
from kbs.plugins.resource.backends.cloud import (
    MOST_NAMES,
    PerProcess,
    check_timeout,
    check_value,
    checked_name,
    is_name,
    no_numbers,
    too_many,
    unavailable,
)
from kbs.plugins.resource.model import StoreContext, StoreRefuses
from kbs.storage.model import Entry, Record

_T = TypeVar("_T")
_SERVICE: Final = "Azure Key Vault"
_ENCODING: Final = {"file-encoding": "base64"}
_ESCAPED: Final = re.compile(r"-(-|[0-9a-f]{2})")
_PLAIN: Final = re.compile(r"[a-z0-9]")
_MOST_NAME: Final = 127  # characters
_MOST: Final = 18_750  # octets; 25 000 characters in base64
_REFUSALS: Final = {
    400: "the store does not accept it",
    403: "the vault does not allow it to this broker",
    409: "a deleted secret of this name can still be recovered: recover or purge it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedIdentitySettings:
    """The identity of the machine; client_id: one of several."""

    client_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadIdentitySettings:
    """A federated service account's token."""

    tenant_id: str
    client_id: str
    token_file: Path = Path("/var/run/secrets/azure/tokens/azure-identity-token")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecretSettings:
    """An application with a secret."""

    tenant_id: str
    client_id: str
    secret_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings:
    """Options of `type = "azure"`. Exactly one way to log in."""

    vault_url: str
    managed_identity: ManagedIdentitySettings | None = None
    workload_identity: WorkloadIdentitySettings | None = None
    client_secret: ClientSecretSettings | None = None
    timeout_seconds: float = 5.0


def build(context: StoreContext) -> AzureBackend:
    """A store from its options.

    Raises:
        ConfigInvalid: unknown or contradicting options.
    """
    settings, where = config.structure(context.options, AzureSettings, context.where), context.where
    try:
        address = urlsplit(settings.vault_url)
    except ValueError:
        raise ConfigInvalid(f"settings: {where}.vault_url is no address") from None
    if (
        address.scheme != "https"
        or not address.hostname
        or address.path.strip("/")
        or address.query
        or address.username
    ):
        raise ConfigInvalid(f"settings: {where}.vault_url: such as https://NAME.vault.azure.net")
    if [settings.managed_identity, settings.workload_identity, settings.client_secret].count(None) != 2:
        raise ConfigInvalid(f"settings: {where}: exactly one of managed_identity, workload_identity and client_secret")
    check_timeout(settings.timeout_seconds, where)
    return AzureBackend(context.prefix, PerProcess(lambda: _client(settings, context.data)))


def _client(settings: AzureSettings, data: Path) -> SecretClient:
    def limits() -> dict[str, Any]:
        seconds = settings.timeout_seconds
        transport = RequestsTransport(connection_timeout=seconds, read_timeout=seconds, use_env_settings=False)
        return {"transport": transport, "retry_total": 0, "permit_redirects": False}

    credential: Any
    if settings.client_secret is not None:
        by = settings.client_secret
        secret = (data / by.secret_file).read_text(encoding="ascii").strip()
        credential = ClientSecretCredential(by.tenant_id, by.client_id, secret, **limits())
    elif settings.workload_identity is not None:
        own = settings.workload_identity
        file = str(data / own.token_file)
        credential = WorkloadIdentityCredential(
            tenant_id=own.tenant_id, client_id=own.client_id, token_file_path=file, **limits()
        )
    else:
        assert settings.managed_identity is not None
        credential = ManagedIdentityCredential(client_id=settings.managed_identity.client_id, **limits())
    return SecretClient(settings.vault_url, credential, **limits())


class AzureBackend:
    """`Backend` over one vault."""

    remote = True
    creates_once = False

    def __init__(self, prefix: str, client: PerProcess[SecretClient]) -> None:
        self._prefix = prefix
        self._client = client

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The newest version."""
        if version is not None:
            raise no_numbers()
        place = _place(name)
        found = self._ask(lambda client: client.get_secret(place))
        if found is None:
            return None
        if not isinstance(found.value, str):
            raise unavailable(_SERVICE, "an answer without a value")
        return Record(name, 0, {}, _octets(found.value, found.properties.tags or {}))

    def put(self, name: str, value: bytes, *, meta: object, expected: int | None = None) -> int:
        """Overwrite. meta has no place here: the audit log says who wrote."""
        del meta
        if expected is not None:
            raise no_numbers()
        check_value(value, _MOST)
        place, text = _place(name), base64.b64encode(value).decode("ascii")
        self._ask(
            lambda client: client.set_secret(place, text, tags=_ENCODING, content_type="application/octet-stream")
        )
        return 0

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Delete, as far as the service does: a vault with soft delete keeps it recoverable, and the name is taken."""
        if expected is not None:
            raise no_numbers()
        place = _place(name)
        return self._ask(lambda client: client.begin_delete_secret(place)) is not None

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names below this store's prefix."""
        names = (_name(each) for each in self._ask(_all_names) or ())
        fitting = (name for name in names if name and name.startswith(self._prefix) and name.startswith(prefix))
        return [Entry(name, 0, {}) for name in sorted(fitting)]

    def history(self, name: str) -> Sequence[Entry]:
        """The current version alone."""
        return [] if self.get(name) is None else [Entry(name, 0, {})]

    def _ask(self, question: Callable[[SecretClient], _T]) -> _T | None:
        """An answer; None: there is no such secret."""
        try:
            return question(self._client())
        except ResourceNotFoundError:
            return None
        except ClientAuthenticationError as err:
            self._client.drop()  # its secret or token may be another one by now
            raise unavailable(_SERVICE, f"the log-in is refused: {type(err).__name__}") from None
        except HttpResponseError as err:
            if err.status_code in _REFUSALS:
                raise StoreRefuses(f"{err.status_code}: {_REFUSALS[err.status_code]}") from None
            raise unavailable(_SERVICE, f"status {err.status_code}") from None
        except (AzureError, OSError, ValueError) as err:
            self._client.drop()
            raise unavailable(_SERVICE, type(err).__name__) from None


def _all_names(client: SecretClient) -> Sequence[str]:
    found: list[str] = []
    for each in client.list_properties_of_secrets():
        found.append(each.name or "")
        if len(found) > MOST_NAMES:
            raise too_many()
    return found


def _octets(text: str, tags: dict[str, str]) -> bytes:
    if tags.get("file-encoding") != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise StoreRefuses("the secret there says that it is base64, and is not") from None


def _place(name: str) -> str:
    place = "".join(_character(each) for each in checked_name(name))
    if len(place) > _MOST_NAME:
        raise StoreRefuses(f"the name is too long: the store takes {_MOST_NAME} characters, {len(place)} with escapes")
    return place


def _character(each: str) -> str:
    if each == "/":
        return "--"
    return each if _PLAIN.fullmatch(each) else f"-{ord(each):02x}"


def _name(place: str) -> str | None:
    """The resource that a secret is; None if it is none."""
    name = _ESCAPED.sub(lambda found: "/" if found[1] == "-" else chr(int(found[1], 16)), place)
    return name if is_name(name) and "".join(map(_character, name)) == place else None
