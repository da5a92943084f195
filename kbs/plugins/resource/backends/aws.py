"""Resources in AWS Secrets Manager (extra `aws`).

A resource `repository/type/tag` is the secret `<path>/repository/type/tag`, one to one. Written as `SecretBinary`; of
a secret with `SecretString` the UTF-8 octets are read. Its versions have no numbers, so there is no compare-and-set but
that of creation. Source: AWS Secrets Manager API Reference, 2017-10-17.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kbs import config
from kbs.errors import ConfigInvalid, StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends.cloud import (
    MOST_NAMES,
    PerProcess,
    check_endpoint,
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

_SERVICE: Final = "AWS Secrets Manager"
_REGION: Final = re.compile(r"[a-z0-9-]{4,32}")
_PATH: Final = re.compile(r"(?:[A-Za-z0-9_+=.@-]+(?:/[A-Za-z0-9_+=.@-]+)*)?")
_MOST_NAME: Final = 512  # characters
_MOST: Final = 65_536  # octets
_REFUSALS: Final = {
    "AccessDeniedException": "the account's policy does not allow it to this broker",
    "DecryptionFailure": "the secret does not decrypt with its KMS key",
    "EncryptionFailure": "the KMS key does not encrypt",
    "InvalidParameterException": "the store does not accept it",
    "InvalidRequestException": "the store does not accept it; is a secret of this name scheduled for deletion?",
    "LimitExceededException": "a quota of the account is reached",
    "ValidationException": "the store does not accept it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """Options of `type = "aws"`. recovery_days: until a deleted secret is gone for good; 0: at once."""

    region: str
    path: str = ""
    endpoint_url: str | None = None
    credentials_file: Path | None = None
    profile: str | None = None
    kms_key_id: str | None = None
    recovery_days: int = 30
    timeout_seconds: float = 5.0


def build(context: StoreContext) -> AwsBackend:
    """A store from its options.

    Raises:
        ConfigInvalid: unknown or contradicting options.
    """
    settings, where = config.structure(context.options, AwsSettings, context.where), context.where
    if not _REGION.fullmatch(settings.region):
        raise ConfigInvalid(f"settings: {where}.region: such as eu-central-1")
    if not _PATH.fullmatch(settings.path):
        raise ConfigInvalid(f"settings: {where}.path: names with / between them, not around them")
    if settings.endpoint_url is not None:
        check_endpoint(settings.endpoint_url, f"{where}.endpoint_url")
    if settings.recovery_days != 0 and not 7 <= settings.recovery_days <= 30:
        raise ConfigInvalid(f"settings: {where}.recovery_days: 7 to 30, or 0")
    check_timeout(settings.timeout_seconds, where)
    return AwsBackend(settings, context.prefix, PerProcess(lambda: _client(settings, context.data)))


def _client(settings: AwsSettings, data: Path) -> Any:
    session = botocore.session.Session(profile=settings.profile)
    if settings.credentials_file is not None:
        session.set_config_variable("credentials_file", str(data / settings.credentials_file))
    limits = Config(
        connect_timeout=settings.timeout_seconds,
        read_timeout=settings.timeout_seconds,
        retries={"total_max_attempts": 1},
        max_pool_connections=16,
    )
    made = boto3.Session(botocore_session=session, region_name=settings.region)
    return made.client("secretsmanager", endpoint_url=settings.endpoint_url, config=limits)


class AwsBackend:
    """`Backend` over one account and region."""

    remote = True
    creates_once = True

    def __init__(self, settings: AwsSettings, prefix: str, client: PerProcess[Any]) -> None:
        self._settings = settings
        self._prefix = prefix
        self._client = client
        self._root = f"{settings.path}/" if settings.path else ""

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The version that the store calls AWSCURRENT."""
        if version is not None:
            raise no_numbers()
        place = self._place(name)
        answer = self._ask(lambda client: client.get_secret_value(SecretId=place), absent=None)
        if answer is None:
            return None
        binary, text = answer.get("SecretBinary"), answer.get("SecretString")
        if isinstance(binary, bytes):
            return Record(name, 0, {}, binary)
        if isinstance(text, str):
            return Record(name, 0, {}, text.encode())
        raise unavailable(_SERVICE, "an answer without a value")

    def put(self, name: str, value: bytes, *, meta: object, expected: int | None = None) -> int:
        """Overwrite, or with expected=0 create. meta has no place here: the audit log says who wrote."""
        del meta
        if expected:
            raise no_numbers()
        check_value(value, _MOST)
        place = self._place(name)
        if expected == 0:
            self._create(place, value)
        elif not self._replace(place, value):
            try:
                self._create(place, value)
            except VersionConflict:
                if not self._replace(place, value):
                    raise unavailable(_SERVICE, "a secret that comes and goes") from None
        return 0

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Schedule deletion, or with `recovery_days = 0` delete at once. The name is free after that only."""
        if expected is not None:
            raise no_numbers()
        if self.get(name) is None:
            return False
        days, place = self._settings.recovery_days, self._place(name)
        how: dict[str, Any] = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
        return self._ask(lambda client: client.delete_secret(SecretId=place, **how), absent=None) is not None

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names below this store's prefix that are not scheduled for deletion."""
        wanted = self._root + max(self._prefix, prefix, key=len)
        query: dict[str, Any] = {"MaxResults": 100, "Filters": [{"Key": "name", "Values": [wanted]}]} if wanted else {}
        found: list[str] = []
        while True:
            answer = self._ask(lambda client: client.list_secrets(**query), absent={})
            found += [str(each.get("Name")) for each in answer.get("SecretList", [])]
            if len(found) > MOST_NAMES:
                raise too_many()
            if not answer.get("NextToken"):
                break
            query["NextToken"] = answer["NextToken"]
        names = sorted(name.removeprefix(self._root) for name in found if name.startswith(self._root))
        fitting = (name for name in names if name.startswith(self._prefix) and name.startswith(prefix))
        return [Entry(name, 0, {}) for name in fitting if is_name(name)]

    def history(self, name: str) -> Sequence[Entry]:
        """The current version alone."""
        return [] if self.get(name) is None else [Entry(name, 0, {})]

    def _place(self, name: str) -> str:
        place = self._root + checked_name(name)
        if len(place) > _MOST_NAME:
            raise StoreRefuses(f"the name is too long: the store takes {_MOST_NAME} characters")
        return place

    def _create(self, place: str, value: bytes) -> None:
        key = {} if self._settings.kms_key_id is None else {"KmsKeyId": self._settings.kms_key_id}
        self._ask(lambda client: client.create_secret(Name=place, SecretBinary=value, **key), absent={})

    def _replace(self, place: str, value: bytes) -> bool:
        """False: there is none."""
        made = self._ask(lambda client: client.put_secret_value(SecretId=place, SecretBinary=value), absent=None)
        return made is not None

    def _ask(self, question: Callable[[Any], Any], absent: Any) -> Any:
        """An answer; `absent` where there is no such secret, or none any more."""
        try:
            answer = question(self._client())
        except ClientError as err:
            return _failed(err, absent)
        except (BotoCoreError, OSError, ValueError) as err:
            self._client.drop()
            raise unavailable(_SERVICE, type(err).__name__) from None
        if not isinstance(answer, dict) or not {"Name", "SecretList"} & answer.keys():  # one of them is in every answer
            raise unavailable(_SERVICE, "an answer of another shape")
        return answer


def _failed(err: ClientError, absent: Any) -> Any:
    told, operation = err.response.get("Error", {}), err.operation_name
    code = str(told.get("Code", ""))
    reading = operation in ("GetSecretValue", "DeleteSecret")
    deleted = code == "InvalidRequestException" and "marked for deletion" in str(told.get("Message", ""))
    if code == "ResourceNotFoundException" or (reading and deleted):
        return absent
    if code == "ResourceExistsException":
        raise VersionConflict("there is one already") from None
    if code in _REFUSALS:
        raise StoreRefuses(f"{code}: {_REFUSALS[code]}") from None
    raise _outage(code) from None


def _outage(code: str) -> StorageUnavailable:
    return unavailable(_SERVICE, code if re.fullmatch(r"[A-Za-z]{1,64}", code) else "an error without a code")
