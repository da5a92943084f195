"""An administrator's requests: upstream's as upstream sends them, and ours below `/kbs/v0/admin/`.

Source: KBS protocol 1.3, 6.4, 13.3.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx

from kbs import strict_json
from kbs.client.connection import TIMEOUT, Connection, is_private_path, is_success
from kbs.client.errors import ClientMisconfigured, NotFound, Problem, UnexpectedAnswer, VersionsUnknown, refusal
from kbs.client.model import (
    IssuedToken,
    PolicyInfo,
    PolicyText,
    ReferenceValueInfo,
    ResourceVersions,
    VersionInfo,
    array,
)
from kbs.errors import KbsError
from kbs.protocol import base64url
from kbs.secret import Secret
from kbs.strict_json import Json

USER_AGENT: Final = "kbs-client/0.1.0"

_MAX_TOKEN_FILE: Final = 16 << 10  # bytes, what brokers take
_LISTS: Final = strict_json.Limits(size=256 << 20, depth=80, tokens=20_000_000)  # a broker that is trusted to be ours
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750 b64token
_PATH_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")  # admin paths have one spelling: nothing is encoded
_ETAG: Final = re.compile(r'"([0-9]{1,15})"')
_JSON: Final = {"Content-Type": "application/json"}


class AdminClient:
    """Talks to a broker's admin listener. Safe from several threads.

    Args:
        base_url: the admin listener's.
        token: the admin token; or `token_file` holding it (surrounding whitespace does not matter); or neither, for a
            broker that lets everybody in.
        ca_file: PEM of the only roots to trust; None: the system's.
        insecure_http: send the token over plain HTTP to another machine than this one.
        on_warning: told what the broker has to say about a change that it made all the same.

    Methods raise `ClientError`: `Refused` and its classes for a no, `Unreachable`, `UnexpectedAnswer`.
    `expected` is the version that must be current for a change to be made (0: there must be none); a lost
    compare-and-set is `Conflict`. Of resources the current version is asked for first: brokers of another make ignore
    the condition, and would write over what is there (`VersionsUnknown`; nothing was sent).
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        insecure_http: bool = False,
        user_agent: str = USER_AGENT,
        timeout: float = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self._token = _token(token, token_file)
        self._on_warning = on_warning
        self._connection = Connection(
            base_url, ca_file=ca_file, user_agent=user_agent, timeout=timeout, transport=transport
        )
        if self._token is not None and not insecure_http and not is_private_path(self._connection.base_url):
            raise ClientMisconfigured("an admin token is not sent over plain HTTP to another machine: use https://")

    # --- resources ----------------------------------------------------------------------------------------------------

    def set_resource(self, path: str, value: bytes, *, expected: int | None = None) -> int | None:
        """Write `repository/type/tag`; the new version, if the broker tells it."""
        if expected is not None:
            self.current_resource(path)
        headers = {"Content-Type": "application/octet-stream", **condition(expected)}
        return version_in(self._send("POST", f"resource/{_segments(path)}", content=value, headers=headers))

    def delete_resource(self, path: str, *, expected: int | None = None) -> None:
        """Remove a resource with all its versions."""
        if expected is not None:
            self.current_resource(path)
        self._send("DELETE", f"resource/{_segments(path)}", headers=condition(expected))

    def resources(self, prefix: str = "") -> tuple[VersionInfo, ...]:
        """Current versions of all resources whose path begins with `prefix`. Never their bytes."""
        query = f"?prefix={quote(prefix, safe='')}" if prefix else ""
        return tuple(
            VersionInfo.read(each) for each in array(self._json("GET", f"admin/resources{query}"), "resources")
        )

    def resource_versions(self, path: str) -> ResourceVersions:
        """The kept versions of one resource."""
        return ResourceVersions.read(self._json("GET", f"admin/resources/{_segments(path)}"))

    def current_resource(self, path: str) -> VersionInfo | None:
        """The current version of one resource; None where the broker says that there is none.

        Raises:
            VersionsUnknown: the broker has no versions, or does not tell of them.
        """
        try:
            found = self.resource_versions(path)
        except NotFound as err:
            if err.problem.name == "ResourceNotFound":
                return None
            raise VersionsUnknown(
                f"{path}: this broker does not tell whether it has that already, so nothing was written"
            ) from err
        return next((each for each in found.versions if each.version == found.version), None)

    def rollback_resource(self, path: str, version: int, *, expected: int | None = None) -> int:
        """Make a past version current again, as a new version; its number."""
        return self._rollback(f"admin/resources/{_segments(path)}/rollback", version, expected=expected)

    def generate_resource(
        self, path: str, *, size: int | None = None, encoding: str | None = None, rotate: bool = False
    ) -> int:
        """Have the broker make random bytes the value; the version's number. The bytes are nobody's to see.

        size: octets; None: as a rule of the broker says, or as the version before was made. rotate: a next version of
        what was generated before.
        """
        message: dict[str, Json] = {"rotate": rotate}
        if size is not None:
            message["bytes"] = size
        if encoding is not None:
            message["encoding"] = encoding
        members = self.members("POST", f"admin/resources/{path}/generate", message)
        version = members.get("version")
        if type(version) is not int:
            raise UnexpectedAnswer("the answer names no version")
        return version

    # --- policies -----------------------------------------------------------------------------------------------------

    def set_resource_policy(
        self,
        text: str | bytes,
        *,
        tests: bytes | None = None,
        reason: str | None = None,
        expected: int | None = None,
    ) -> int | None:
        """Replace the resource policy; the new version, if the broker tells it. tests: Rego tests that must pass."""
        return self._set_policy("resource-policy", _tests(tests), text, reason, expected)

    def set_attestation_policy(
        self,
        policy_id: str,
        text: str | bytes,
        *,
        tests: bytes | None = None,
        reason: str | None = None,
        expected: int | None = None,
    ) -> int | None:
        """Replace one evidence policy, e.g. `default_cpu`; the new version, if the broker tells it. tests: as above."""
        named = {"type": "rego", "policy_id": policy_id, **_tests(tests)}
        return self._set_policy("attestation-policy", named, text, reason, expected)

    def resource_policy_ids(self) -> tuple[str, ...]:
        """Ids of resource policies (upstream's request)."""
        ids = array(self._json("GET", "resource-policy"), "resource policies")
        if not all(isinstance(policy_id, str) for policy_id in ids):
            raise UnexpectedAnswer("resource policies: not an array of ids")
        return tuple(ids)

    def policies(self) -> tuple[PolicyInfo, ...]:
        """All policies of both kinds."""
        return tuple(PolicyInfo.read(each) for each in array(self._json("GET", "admin/policies"), "policies"))

    def policy(self, kind: str, policy_id: str) -> PolicyText:
        """The active text of one policy with its history. kind: `evidence` or `resource`."""
        return PolicyText.read(self._json("GET", f"admin/policies/{_segments(kind)}/{_segments(policy_id)}"))

    def rollback_policy(
        self, kind: str, policy_id: str, version: int, *, reason: str | None = None, expected: int | None = None
    ) -> int:
        """Make a past version of a policy active again, as a new version; its number."""
        target = f"admin/policies/{_segments(kind)}/{_segments(policy_id)}/rollback"
        return self._rollback(target, version, reason, expected)

    # --- reference values ---------------------------------------------------------------------------------------------

    def register_reference_values(self, message: Mapping[str, Json]) -> None:
        """Send one RVPS message (`version`, `type`, `payload`) as it is."""
        self._send("POST", "reference-value", content=strict_json.encode(dict(message)), headers=_JSON)

    def set_reference_values(self, values: Mapping[str, Json], *, expires: datetime | None = None) -> None:
        """State values by name, all of them or none; each replaces what its name had. Policies compare most of them
        with `in`, so a single value is a list of one.

        expires: aware; None: the broker's default, twelve months.
        """
        payload = base64.b64encode(strict_json.encode(dict(values))).decode("ascii")
        message = {"version": "0.1.0", "type": "sample", "payload": payload}
        if expires is not None:
            whole = expires.astimezone(UTC).replace(tzinfo=None)
            message["expiration"] = whole.isoformat(timespec="seconds") + "Z"
        self.register_reference_values(message)

    def reference_value(self, name: str) -> Json:
        """The value that is valid now under one name.

        Raises:
            NotFound: there is none.
        """
        if _fits_path(name):
            return self._json("GET", f"reference-value/{name}")
        for found in self.reference_values(name):
            if found.name == name and found.valid:
                return found.value
        raise NotFound(Problem(404, "RvpsError", f"no reference value {name}"))

    def reference_values(self, name: str | None = None) -> tuple[ReferenceValueInfo, ...]:
        """All stored values, expired ones too; with `name` a broker may answer with that one alone."""
        query = "" if name is None else f"?name={quote(name, safe='')}"
        listed = array(self._json("GET", f"admin/reference-values{query}"), "reference values")
        return tuple(ReferenceValueInfo.read(each) for each in listed)

    def withdraw_reference_value(self, name: str) -> None:
        """Take one name away at once. Names that do not fit a path (`rvps:///…`) travel in the query."""
        target = f"/{name}" if _fits_path(name) else f"?name={quote(name, safe='')}"
        self._send("DELETE", f"admin/reference-values{target}")

    # --- tokens, decisions, status ------------------------------------------------------------------------------------

    def issue_token(self, subject: str, role: str, *, lifetime: timedelta | None = None) -> IssuedToken:
        """A new admin token for somebody else. lifetime: whole seconds; None: the broker's default."""
        message: dict[str, Json] = {"subject": subject, "role": role}
        if lifetime is not None:
            message["lifetime_seconds"] = int(lifetime.total_seconds())
        return IssuedToken.read(self._json("POST", "admin/tokens", message))

    def revoke_token(self, token_id: str) -> None:
        """End a token before its time. Ids that do not fit a path travel in the query."""
        if not token_id:
            raise ClientMisconfigured("the id of a token is not empty")
        fits = "/" not in token_id and _fits_path(token_id)
        self._send("DELETE", f"admin/tokens/{token_id}" if fits else f"admin/tokens?id={quote(token_id, safe='')}")

    def decision(self, decision_id: str) -> dict[str, Json]:
        """The explanation of one decision, as `kbs explain --json` prints it."""
        return self.members("GET", f"admin/decisions/{_segments(decision_id)}")

    def status(self) -> dict[str, Json]:
        """What the broker says about itself."""
        return self.members("GET", "admin/status")

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set_policy(
        self, endpoint: str, named: Mapping[str, Json], text: str | bytes, reason: str | None, expected: int | None
    ) -> int | None:
        raw = text.encode() if isinstance(text, str) else text
        message = {**named, "policy": base64url.encode(raw).decode("ascii")}
        if reason is not None:
            message["reason"] = reason
        headers = {**_JSON, **condition(expected)}
        return version_in(self._send("POST", endpoint, content=strict_json.encode(message), headers=headers))

    def request(
        self, method: str, target: str, message: Json = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request to a path of the admin API, with a JSON body if there is a message."""
        content = None if message is None else strict_json.encode(message)
        kind = {} if message is None else _JSON
        return self._send(method, _segments(target), content=content, headers={**kind, **(headers or {})})

    def members(self, method: str, target: str, message: Json = None) -> dict[str, Json]:
        """The same, for an answer that is a JSON object."""
        value = self._json(method, _segments(target), message)
        if not isinstance(value, dict):
            raise UnexpectedAnswer(f"{target}: the answer is not an object")
        return value

    def objects(self, target: str, what: str) -> list[dict[str, Json]]:
        """GET, for an answer that is an array of JSON objects."""
        found = array(self._json("GET", _segments(target)), what)
        if not all(isinstance(each, dict) for each in found):
            raise UnexpectedAnswer(f"{what}: not an array of objects")
        return list(found)

    def _rollback(self, target: str, version: int, reason: str | None = None, expected: int | None = None) -> int:
        message: dict[str, Json] = {"version": version}
        if reason is not None:
            message["reason"] = reason
        response = self.request("POST", target, message, headers=condition(expected))
        found = version_in(response)
        if found is None:
            raise UnexpectedAnswer("the answer to a rollback names no version")
        return found

    def _json(self, method: str, target: str, message: Json = None) -> Json:
        content, headers = (None, {}) if message is None else (strict_json.encode(message), _JSON)
        response = self._send(method, target, content=content, headers=headers)
        try:
            return strict_json.decode(response.content, limits=_LISTS)
        except KbsError as err:
            raise UnexpectedAnswer(f"the answer does not decode: {err}") from err

    def _send(
        self, method: str, target: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        authorized = {} if self._token is None else {"Authorization": f"Bearer {self._token.reveal().decode('ascii')}"}
        response = self._connection.send(method, target, content=content, headers={**(headers or {}), **authorized})
        if not is_success(response):
            raise refusal(response)
        if self._on_warning is not None:
            for warning in response.headers.get_list("Kbs-Warning"):
                self._on_warning(warning)
        return response


def _token(token: str | None, token_file: Path | None) -> Secret | None:
    if token is not None and token_file is not None:
        raise ClientMisconfigured("give a token or a file with one, not both")
    if token_file is not None:
        try:
            with token_file.open("rb") as opened:
                token = opened.read(_MAX_TOKEN_FILE + 1).decode("ascii")
        except (OSError, UnicodeDecodeError) as err:
            raise ClientMisconfigured(f"{token_file}: no readable token file ({type(err).__name__})") from None
    if token is None:
        return None
    stripped = token.strip()
    if not _TOKEN.fullmatch(stripped) or len(stripped) > _MAX_TOKEN_FILE:
        raise ClientMisconfigured("the admin token is not of the form of a Bearer token")
    return Secret(stripped.encode("ascii"))


def _tests(tests: bytes | None) -> dict[str, Json]:
    return {} if tests is None else {"tests": base64url.encode(tests).decode("ascii")}


def condition(expected: int | None) -> dict[str, str]:
    """Headers of a compare-and-set."""
    if expected is None:
        return {}
    return {"If-None-Match": "*"} if expected == 0 else {"If-Match": f'"{expected}"'}


def version_in(response: httpx.Response) -> int | None:
    """The version that an answer names."""
    found = _ETAG.fullmatch(response.headers.get("ETag", ""))
    return int(found[1]) if found else None


def _fits_path(path: str) -> bool:
    return all(_PATH_SEGMENT.fullmatch(part) and part not in (".", "..") for part in path.split("/"))


def _segments(path: str) -> str:
    if not _fits_path(path):
        raise ClientMisconfigured(f"{path!r} does not fit a path of the admin API, where nothing is percent-encoded")
    return path
