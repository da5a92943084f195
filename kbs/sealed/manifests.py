"""Kubernetes manifests around a sealed secret, as YAML text.

Every scalar that is not ours is quoted as JSON does, which YAML reads alike. The sealed string stands under
`stringData` and ends without a newline: guests unseal the whole content of a file. Source: guest-components 3.4;
Kubernetes API v1 (Secret, Pod), RFC 1123 names.
"""

from __future__ import annotations

import json
import re
from typing import Final

from kbs.sealed.errors import ValueRefused
from kbs.sealed.token import SealedSecret

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_NOT_LETTERS: Final = re.compile(r"[^A-Z0-9]+")


def secret_manifest(sealed: SealedSecret, name: str, key: str, *, namespace: str | None = None) -> str:
    """A Secret with the sealed string under one key.

    Raises:
        ValueRefused: names that Kubernetes would not take.
    """
    _check(name, key, namespace)
    where = "" if namespace is None else f"  namespace: {json.dumps(namespace)}\n"
    return (
        "apiVersion: v1\n"
        "kind: Secret\n"
        "metadata:\n"
        f"  name: {json.dumps(name)}\n{where}"
        "type: Opaque\n"
        "stringData:\n"
        f"  {json.dumps(key)}: {json.dumps(str(sealed))}\n"
    )


def pod_fragment(name: str, key: str) -> str:
    """What a Pod says to use that Secret: as an environment variable, and as a file. Take one of the two.

    Raises:
        ValueRefused: names that Kubernetes would not take.
    """
    _check(name, key, None)
    variable = _NOT_LETTERS.sub("_", key.upper()).strip("_") or "SECRET"
    variable = f"_{variable}" if variable[0].isdigit() else variable
    return (
        "# Part of a Pod: take the variable or the volume. A variable's value must be UTF-8; where unsealing fails,\n"
        "# the container starts all the same and finds the sealed string in it.\n"
        "spec:\n"
        "  containers:\n"
        "    - name: app\n"
        "      env:\n"
        f"        - name: {json.dumps(variable)}\n"
        "          valueFrom:\n"
        "            secretKeyRef:\n"
        f"              name: {json.dumps(name)}\n"
        f"              key: {json.dumps(key)}\n"
        "      volumeMounts:\n"
        "        - name: sealed\n"
        f"          mountPath: {json.dumps('/etc/' + name)}\n"
        "          readOnly: true\n"
        "  volumes:\n"
        "    - name: sealed\n"
        "      secret:\n"
        f"        secretName: {json.dumps(name)}\n"
    )


def _check(name: str, key: str, namespace: str | None) -> None:
    if not _NAME.fullmatch(name) or (namespace is not None and not _NAME.fullmatch(namespace)):
        raise ValueRefused("Kubernetes names are lower-case letters, digits, - and dots, up to 253 characters")
    if not _KEY.fullmatch(key) or key in (".", ".."):
        raise ValueRefused("keys of a Secret are letters, digits, - _ and dots, up to 253 characters")
