"""Reads what an installation of the reference consists of: objects of its namespace as `kubectl get -o yaml` prints
them, or its settings files alone.

Everything that is given is accounted for: an object or file that nothing is made of gets an entry, too.
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from kbs import strict_json
from kbs.errors import MalformedMessage
from kbs.initdata.yaml_text import documents
from kbs.k8s.migrate.model import Draft, FileRef, Verdict

Object = Mapping[str, Any]
GROUP: Final = "confidentialcontainers.org"
SPECS: Final = ("KbsConfig", "TrusteeConfig")
WORKLOADS: Final = ("Deployment", "StatefulSet")
DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_JSON: Final = strict_json.Limits(size=8 << 20, depth=32, tokens=200_000)
_KBS: Final = frozenset({"http_server", "attestation_service", "attestation_token", "admin", "plugins"})
_FLAT_KBS: Final = frozenset({"as_config", "repository_config", "auth_public_key", "insecure_api"})
_AS: Final = frozenset({"attestation_token_broker", "rvps_config", "verifier_config", "work_dir", "policy_engine"})
_RVPS: Final = frozenset({"storage", "extractors", "storage_type", "address", "store_type"})
_MADE_AGAIN: Final = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "ControllerRevision",
        "CronJob",
        "Endpoints",
        "EndpointSlice",
        "Event",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Job",
        "Lease",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "ReplicaSet",
        "Role",
        "RoleBinding",
        "Route",
        "ServiceAccount",
        "ServiceMonitor",
    }
)
_SYSTEM_SECRETS: Final = ("helm.sh/", "kubernetes.io/service-account-token", "kubernetes.io/docker")


@dataclass(frozen=True, slots=True)
class Config:
    """One settings file, decoded."""

    source: str
    content: Mapping[str, Any] = field(repr=False)


@dataclass(slots=True)
class Installation:
    """What was found. secrets: name → key → bytes, looked at and never written anywhere."""

    namespace: str | None = None
    kbs: list[Config] = field(default_factory=list)
    verifier: list[Config] = field(default_factory=list)
    provider: list[Config] = field(default_factory=list)
    specs: list[Object] = field(default_factory=list)
    config_maps: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    secrets: dict[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    services: list[Object] = field(default_factory=list)
    workloads: list[Object] = field(default_factory=list, repr=False)
    used: set[tuple[str, str]] = field(default_factory=set)
    """Kind and name of ConfigMaps and Secrets that something was made of."""

    def secret_keys(self, name: str) -> list[str]:
        """Keys of a Secret, sorted; none if it was not given."""
        return sorted(self.secrets.get(name, {}))

    def content(self, ref: FileRef) -> bytes | None:
        """What a reference names, if it was given."""
        if ref.kind == "Secret":
            return self.secrets.get(ref.name, {}).get(ref.key)
        text = self.config_maps.get(ref.name, {}).get(ref.key)
        return None if text is None else text.encode()


@dataclass(frozen=True, slots=True)
class Given:
    """A file of the input. name: for people."""

    name: str
    content: bytes = field(repr=False)


def read(files: Sequence[Given], objects: Sequence[Object], draft: Draft) -> Installation:
    """Everything that was given, sorted by what it is. Objects that become nothing are entries of the draft.

    Raises:
        MalformedMessage: a file that cannot be decoded, or is neither settings nor objects; objects of several
            namespaces.
    """
    found = Installation()
    listed = [*objects]
    for file in files:
        _read_file(file, found, listed)
    _one_namespace(listed, found)
    for each in listed:
        _sort(each, found, draft)
    return found


def _read_file(file: Given, found: Installation, listed: list[Object]) -> None:
    for each in _documents(file):
        if not isinstance(each, Mapping):
            raise MalformedMessage(f"{file.name}: holds neither objects of Kubernetes nor settings")
        if isinstance(each.get("kind"), str) and isinstance(each.get("apiVersion"), str):
            listed += _opened(each, file.name)
        else:
            _put(found, Config(file.name, each))


def _documents(file: Given) -> list[Any]:
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix in (".toml", ".json"):
        return [decode(file.name, file.content).content]
    try:
        found = [each for each in documents(file.content) if each is not None]
    except MalformedMessage as err:
        raise MalformedMessage(f"{file.name}: {err}") from None
    if not found:
        raise MalformedMessage(f"{file.name}: is empty")
    return found


def _opened(document: Object, name: str) -> Iterable[Object]:
    if not document["kind"].endswith("List") or not isinstance(document.get("items"), list):
        yield document
        return
    for each in document["items"]:
        if not isinstance(each, Mapping) or not isinstance(each.get("kind"), str):
            raise MalformedMessage(f"{name}: a list holds what is no object of Kubernetes")
        yield from _opened(each, name)


def decode(name: str, content: bytes) -> Config:
    """A settings file by its extension: TOML, JSON or YAML.

    Raises:
        MalformedMessage: it cannot be decoded, or is no table.
    """
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".toml":
            found: Any = tomllib.loads(content.decode("utf-8"))
        elif suffix == ".json":
            found = strict_json.decode(content, limits=_JSON)
        else:
            (found,) = documents(content)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise MalformedMessage(f"{name} is not TOML: {_place(err)}") from None
    except MalformedMessage as err:
        raise MalformedMessage(f"{name}: {err}") from None
    except ValueError:
        raise MalformedMessage(f"{name}: is not one document") from None
    if not isinstance(found, Mapping):
        raise MalformedMessage(f"{name}: is no table of settings")
    return Config(name, found)


def _place(err: Exception) -> str:
    """Where, without what stands there: settings files hold secrets."""
    found = re.search(r"line \d+, column \d+", str(err))
    return f"at {found[0]}" if found else "not UTF-8 text, or cut off"


def _put(found: Installation, config: Config) -> None:
    kind = kind_of(config.content)
    if kind is None:
        raise MalformedMessage(
            f"{config.source}: is no settings file of the KBS, the attestation service or the reference value provider"
        )
    getattr(found, kind).append(config)


def kind_of(content: Mapping[str, Any]) -> str | None:
    """Whose settings these are: `kbs`, `verifier`, `provider`, or nobody's."""
    names = set(content)
    if names & _KBS or names & _FLAT_KBS:
        return "kbs"
    if names & _AS:
        return "verifier"
    return "provider" if names & _RVPS else None


def _one_namespace(listed: Sequence[Object], found: Installation) -> None:
    namespaces = {
        str(_metadata(each)["namespace"])
        for each in listed
        if _metadata(each).get("namespace") and each["kind"] in (*SPECS, *WORKLOADS, "ConfigMap", "Secret", "Service")
    }
    if len(namespaces) > 1:
        named = ", ".join(sorted(namespaces))
        raise MalformedMessage(f"objects of the namespaces {named}: an installation is in one; give those of one")
    found.namespace = next(iter(namespaces), None)
    if found.namespace is not None and not DOMAIN.fullmatch(found.namespace):
        raise MalformedMessage("metadata.namespace of an object is no name of a namespace")


def _metadata(document: Object) -> Mapping[str, Any]:
    found = document.get("metadata")
    return found if isinstance(found, Mapping) else {}


def name_of(document: Object) -> str:
    """`metadata.name`, which is text.

    Raises:
        MalformedMessage: it is not.
    """
    name = _metadata(document).get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.:-]{0,252}", name):
        raise MalformedMessage(f"an object of kind {document['kind']} has no metadata.name, or one that is none")
    return name


def _sort(document: Object, found: Installation, draft: Draft) -> None:
    kind, name = document["kind"], name_of(document)
    if kind in SPECS and str(document.get("apiVersion", "")).startswith(GROUP):
        found.specs.append(document)
    elif kind == "ConfigMap":
        found.config_maps[name] = _texts(document, name)
    elif kind == "Secret":
        _sort_secret(document, name, found, draft)
    elif kind == "Service":
        found.services.append(document)
    elif kind in WORKLOADS:
        found.workloads.append(document)
    elif kind in _MADE_AGAIN:
        draft.note(f"{kind}/{name}", "", Verdict.NOT_NEEDED, "what is installed brings its own")
    else:
        why = f"objects of this kind ({document.get('apiVersion', '')}) are not known here"
        draft.note(f"{kind}/{name}", "", Verdict.UNKNOWN, why)


def _texts(document: Object, name: str) -> Mapping[str, str]:
    found = document.get("data") or {}
    if not isinstance(found, Mapping) or not all(isinstance(each, str) for each in found.values()):
        raise MalformedMessage(f"ConfigMap/{name}: data is not a table of texts")
    return found


def _sort_secret(document: Object, name: str, found: Installation, draft: Draft) -> None:
    if str(document.get("type", "")).startswith(_SYSTEM_SECRETS):
        draft.note(f"Secret/{name}", "", Verdict.NOT_NEEDED, "made by Helm or by Kubernetes for itself")
        return
    encoded, plain = document.get("data") or {}, document.get("stringData") or {}
    values = (
        [*encoded.values(), *plain.values()] if isinstance(encoded, Mapping) and isinstance(plain, Mapping) else [0]
    )
    if not all(isinstance(each, str) for each in values):
        raise MalformedMessage(f"Secret/{name}: data is not a table of texts")
    try:
        content = {key: base64.b64decode(value, validate=True) for key, value in encoded.items()}
    except (binascii.Error, ValueError):
        raise MalformedMessage(f"Secret/{name}: data is not base64") from None
    found.secrets[name] = content | {key: value.encode() for key, value in plain.items()}
