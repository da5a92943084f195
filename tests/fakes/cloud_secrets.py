"""The secret services of three clouds in this process, on the wire that their SDKs speak.

Sources: AWS Secrets Manager API 2017-10-17 (JSON 1.1), Secret Manager API v1 (REST), Azure Key Vault REST API 7.x.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import requests
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectTimeoutError

CLIENT_SECRET = "azure-CANARY-secret"
VAULT = "https://kbs.vault.azure.net"
PROJECT = "project-1"
_TIME = 1_781_524_800


@dataclass
class FakeAws:
    """In place of `URLLib3Session.send`."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    refuse: tuple[int, str] | None = None
    fails: Exception | None = None
    raw: bytes | None = None
    before_create: Any = None
    seen: list[tuple[str, Any]] = field(default_factory=list)

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        if "Authorization" not in request.headers:  # a question for the machine's own identity, which it has none
            raise ConnectTimeoutError(endpoint_url=request.url)
        operation = request.headers["X-Amz-Target"].decode().removeprefix("secretsmanager.")
        sent = json.loads(request.body)
        self.seen.append((operation, sent))
        if self.fails is not None:
            raise self.fails
        status, document = self.refuse_or(operation, sent)
        body = json.dumps(document).encode() if self.raw is None else self.raw
        raw = urllib3.HTTPResponse(io.BytesIO(body), {}, status, preload_content=False)
        headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "1"}
        return AWSResponse(request.url, status, headers, raw)

    def refuse_or(self, operation: str, sent: Mapping[str, Any]) -> tuple[int, Any]:
        if self.refuse is not None:
            return self.refuse[0], {"__type": self.refuse[1], "Message": "CANARY"}
        if operation == "ListSecrets":
            return 200, self._list(sent)
        if operation == "CreateSecret":
            if self.before_create is not None:
                act, self.before_create = self.before_create, None
                act()
            name = sent["Name"]
            if name in self.deleted:
                return _aws("InvalidRequestException", "a secret with this name is already scheduled for deletion")
            if name in self.secrets:
                return _aws("ResourceExistsException", "exists")
            self.secrets[name] = dict(sent)
            return 200, {"ARN": "arn", "Name": name, "VersionId": "1" * 32}
        name = sent["SecretId"]
        if name in self.deleted:
            return _aws("InvalidRequestException", "because it was marked for deletion.")
        if name not in self.secrets:
            return _aws("ResourceNotFoundException", "none")
        if operation == "DeleteSecret":
            del self.secrets[name]
            if not sent.get("ForceDeleteWithoutRecovery"):
                assert 7 <= sent["RecoveryWindowInDays"] <= 30
                self.deleted.add(name)
        if operation == "PutSecretValue":
            self.secrets[name] = dict(sent)
        values = {
            each: self.secrets[name][each]
            for each in ("SecretBinary", "SecretString")
            if operation == "GetSecretValue" and each in self.secrets[name]
        }
        return 200, {"ARN": "arn", "Name": name, "VersionId": "1" * 32, **values}

    def _list(self, sent: Mapping[str, Any]) -> Any:
        prefixes = [each["Values"][0] for each in sent.get("Filters", [])]
        names = sorted(name for name in self.secrets if all(name.startswith(each) for each in prefixes))
        begin = int(sent.get("NextToken", 0))
        more = {"NextToken": str(begin + 2)} if begin + 2 < len(names) else {}
        return {"SecretList": [{"Name": name} for name in names[begin : begin + 2]], **more}


def _aws(code: str, message: str) -> tuple[int, Any]:
    return 400, {"__type": code, "Message": message}


@dataclass
class FakeHttp:
    """In place of `HTTPAdapter.send`."""

    refuse: tuple[int, str] | None = None
    fails: Exception | None = None
    raw: bytes | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def send(self, _adapter: Any, request: requests.PreparedRequest, **_options: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        self.seen.append((str(request.method), unquote(parts.path)))
        if self.fails is not None:
            raise self.fails
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body or "")
        status, document, headers = self.answer(str(request.method), parts, body, request.headers)
        response = requests.Response()
        response.status_code = status
        response.headers.update({"Content-Type": "application/json", **headers})
        response.url, response.request = str(request.url), request
        raw = json.dumps(document).encode() if self.raw is None else self.raw
        response.raw = urllib3.HTTPResponse(io.BytesIO(raw), headers, status, preload_content=False)
        return response

    def answer(self, method: str, parts: Any, body: str, headers: Any) -> tuple[int, Any, Mapping[str, str]]:
        raise NotImplementedError


@dataclass
class FakeAzure(FakeHttp):
    """A vault with soft delete, and the log-in before it."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: dict[str, dict[str, Any]] = field(default_factory=dict)
    login: int = 200

    def answer(self, method: str, parts: Any, body: str, headers: Any) -> tuple[int, Any, Mapping[str, str]]:
        if parts.hostname == "login.microsoftonline.com":
            return (*self._log_in(parts.path, body), {})
        if not headers.get("Authorization"):
            told = (
                'Bearer authorization="https://login.microsoftonline.com/tenant-1", resource="https://vault.azure.net"'
            )
            return 401, {"error": {"code": "Unauthorized"}}, {"WWW-Authenticate": told}
        assert headers["Authorization"] == "Bearer azure-token"
        if self.refuse is not None:
            return self.refuse[0], {"error": {"code": self.refuse[1], "message": "CANARY"}}, {}
        return (*self._secrets(method, parts, json.loads(body) if body else {}), {})

    def _log_in(self, path: str, body: str) -> tuple[int, Any]:
        base = "https://login.microsoftonline.com/tenant-1"
        if path.endswith("/openid-configuration"):
            ends = {"authorization_endpoint": "authorize", "token_endpoint": "oauth2/v2.0/token"}
            return 200, {"issuer": f"{base}/v2.0", **{each: f"{base}/{end}" for each, end in ends.items()}}
        if "/discovery/" in path:
            return 200, {"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration", "metadata": []}
        if self.login != 200:
            return self.login, {"error": "invalid_client", "error_description": "CANARY"}
        assert parse_qs(body)["client_secret"] == [CLIENT_SECRET]
        return 200, {"token_type": "Bearer", "expires_in": 3600, "access_token": "azure-token"}

    def _secrets(self, method: str, parts: Any, sent: Any) -> tuple[int, Any]:
        pieces = [each for each in unquote(parts.path).split("/") if each]
        if pieces == ["secrets"]:
            names = sorted(self.secrets)
            begin = int(parse_qs(parts.query).get("skip", ["0"])[0])
            more = f"{VAULT}/secrets?api-version=7.6&skip={begin + 2}" if begin + 2 < len(names) else None
            return 200, {
                "value": [{"id": f"{VAULT}/secrets/{name}"} for name in names[begin : begin + 2]],
                "nextLink": more,
            }
        name = pieces[1].lower()
        if method == "PUT":
            if name in self.deleted:
                return 409, {"error": {"code": "Conflict", "message": "CANARY"}}
            times = {"created": _TIME, "updated": _TIME}
            self.secrets[name] = {**sent, "id": f"{VAULT}/secrets/{name}/v1", "attributes": {"enabled": True, **times}}
        if name not in self.secrets:
            return 404, {"error": {"code": "SecretNotFound", "message": "none"}}
        if method == "DELETE":
            gone = self.deleted[name] = self.secrets.pop(name)
            bare = {each: gone[each] for each in gone if each != "value"}
            dates: dict[str, Any] = {
                "recoveryId": f"{VAULT}/deletedsecrets/{name}",
                "deletedDate": _TIME,
                "scheduledPurgeDate": _TIME,
            }
            return 200, {**bare, **dates}
        return 200, self.secrets[name]


@dataclass
class FakeGcp(FakeHttp):
    """One project. secrets: id → annotations, etag and versions (None: destroyed)."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    between: Any = None
    """Called once before a change of a secret."""

    def answer(self, method: str, parts: Any, body: str, headers: Any) -> tuple[int, Any, Mapping[str, str]]:
        if parts.hostname == "oauth2.googleapis.com":
            return 200, {"access_token": "gcp-token", "expires_in": 3600, "token_type": "Bearer"}, {}
        if parts.hostname != "secretmanager.googleapis.com":  # the SDK looks for regions of the account on its own
            return (*_gcp(404, "NOT_FOUND"), {})
        assert headers["authorization"].startswith("Bearer ")
        if self.refuse is not None:
            return (*_gcp(*self.refuse), {})
        path = unquote(parts.path).removeprefix(f"/v1/projects/{PROJECT}/secrets")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return (*self._secrets(method, path, query, json.loads(body) if body else {}), {})

    def _secrets(self, method: str, path: str, query: Mapping[str, str], sent: Any) -> tuple[int, Any]:
        if not path:
            return self._create(query["secretId"]) if method == "POST" else (200, self._page(query))
        name, _, rest = path.strip("/").partition("/")
        adding = name.endswith(":addVersion")
        name = name.removesuffix(":addVersion")
        if name not in self.secrets:
            return _gcp(404, "NOT_FOUND")
        secret = self.secrets[name]
        if adding:
            secret["versions"].append(base64.b64decode(sent["payload"]["data"]))
            return 200, {"name": f"projects/1/secrets/{name}/versions/{len(secret['versions'])}", "state": "ENABLED"}
        if method == "PATCH":
            if self.between is not None:
                act, self.between = self.between, None
                act()
            if secret["etag"] != sent["etag"]:
                return _gcp(400, "FAILED_PRECONDITION")
            secret.update(annotations=sent["annotations"], etag=f'"{int(secret["etag"].strip(chr(34))) + 1}"')
        if method == "DELETE":
            del self.secrets[name]
            return 200, {}
        if rest.endswith(":access"):
            return self._access(name, rest.removeprefix("versions/").removesuffix(":access"))
        if rest == "versions":
            states = ["DESTROYED" if each is None else "ENABLED" for each in secret["versions"]]
            listed = [
                {
                    "name": f"projects/1/secrets/{name}/versions/{at + 1}",
                    "state": state,
                    "createTime": "2026-06-15T12:00:00Z",
                }
                for at, state in enumerate(states)
            ]
            return 200, {"versions": listed[::-1]}
        return 200, {"name": f"projects/1/secrets/{name}", "etag": secret["etag"], "annotations": secret["annotations"]}

    def _create(self, name: str) -> tuple[int, Any]:
        if name in self.secrets:
            return _gcp(409, "ALREADY_EXISTS")
        self.secrets[name] = {"etag": '"1"', "annotations": {}, "versions": []}
        return 200, {"name": f"projects/1/secrets/{name}", "etag": '"1"'}

    def _page(self, query: Mapping[str, str]) -> Any:
        names, begin = sorted(self.secrets), int(query.get("pageToken", 0))
        listed = [{"name": f"projects/1/secrets/{name}"} for name in names[begin : begin + 2]]
        return {"secrets": listed, "nextPageToken": str(begin + 2) if begin + 2 < len(names) else ""}

    def _access(self, name: str, wanted: str) -> tuple[int, Any]:
        versions = self.secrets[name]["versions"]
        number = len(versions) if wanted == "latest" else int(wanted)
        if not 0 < number <= len(versions):
            return _gcp(404, "NOT_FOUND")
        if versions[number - 1] is None:
            return _gcp(400, "FAILED_PRECONDITION")
        data = base64.b64encode(versions[number - 1]).decode()
        return 200, {"name": f"projects/1/secrets/{name}/versions/{number}", "payload": {"data": data}}


def _gcp(status: int, code: str) -> tuple[int, Any]:
    return status, {"error": {"code": status, "status": code, "message": "CANARY"}}
