"""What a Kubernetes service-account token claims, read strictly. Nothing here has verified anything.

Source: Kubernetes "Managing Service Accounts", bound service account tokens; claim names of its `pkg/serviceaccount`
(`kubernetes.io`: namespace, serviceaccount, pod, node).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from kbs import strict_json
from kbs.errors import PeerFault, PodTokenRejected, TokenRejected
from kbs.identity.model import MAX_TOKEN, Checked, PodIdentity, PodToken
from kbs.tokens.jose import split
from kbs.tokens.times import read_window

_DEPTH: Final = 8
_TYPES: Final = frozenset({None, "jwt"})
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")  # DNS-1123 subdomain
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_TOKEN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a cluster's tokens must say."""

    cluster: str
    issuer: str
    audience: str
    max_life: timedelta


def parse(text: str) -> PodToken:
    """Take a token apart.

    Raises:
        PodTokenRejected: too large, not a compact JWS, an algorithm not spoken here (`none`, every HMAC), claims that
            do not decode.
    """
    if not text.isascii():
        raise PodTokenRejected("pod token is not a compact JWS")
    try:
        jws = split(text, limit=MAX_TOKEN)
    except TokenRejected as err:
        raise PodTokenRejected(f"pod {err}") from None
    if jws.typ not in _TYPES:
        raise PodTokenRejected("pod token is of another type")
    try:
        claims = strict_json.decode(jws.payload, limits=strict_json.Limits(size=MAX_TOKEN, depth=_DEPTH))
    except PeerFault:
        raise PodTokenRejected("pod token claims do not decode") from None
    if not isinstance(claims, dict):
        raise PodTokenRejected("pod token claims are not an object")
    issuer, audience = claims.get("iss"), claims.get("aud")
    listed: list[Any] = audience if isinstance(audience, list) else [audience]
    audiences = tuple(listed) if all(isinstance(each, str) for each in listed) else ()
    return PodToken(text, jws, claims, issuer if isinstance(issuer, str) else None, audiences)


def read_identity(token: PodToken, expected: Expected, now: float, checked: Checked) -> PodIdentity:
    """The Pod that a token names. Call it before anything is believed; what it returns is worth what verified it.

    Exactly one audience: whoever else a token is for could show it here as his own.

    Raises:
        PodTokenRejected: another issuer or audience, a life that is over, has not begun or is too long, a token of no
            Pod (made with `kubectl create token` without `--bound-object-kind`, or from a Secret), claims that
            contradict each other.
    """
    if token.issuer != expected.issuer or token.audiences != (expected.audience,):
        raise PodTokenRejected("pod token is of another issuer, or not for this audience alone")
    try:
        window = read_window(token.claims, now, expected.max_life)
    except TokenRejected as err:
        raise PodTokenRejected(f"pod {err}") from None
    bound = token.claims.get("kubernetes.io")
    if not isinstance(bound, dict) or not isinstance(bound.get("pod"), dict):
        raise PodTokenRejected("pod token is bound to no Pod: it has to come from a projected volume")
    namespace = _text(bound, "namespace", _NAME)
    account, account_uid = _named(bound, "serviceaccount")
    pod, pod_uid = _named(bound, "pod")
    node = _named(bound, "node")[0] if "node" in bound else None
    if token.claims.get("sub") != f"system:serviceaccount:{namespace}:{account}":
        raise PodTokenRejected("pod token claims contradict each other")
    return PodIdentity(
        cluster=expected.cluster,
        namespace=namespace,
        service_account=account,
        service_account_uid=account_uid,
        pod=pod,
        pod_uid=pod_uid,
        node=node,
        token_id=_text(token.claims, "jti", _TOKEN_ID) if "jti" in token.claims else None,
        audiences=token.audiences,
        expires=window.expires,
        checked=checked,
    )


def _named(bound: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Name and uid of an object that the token is bound to."""
    found = bound.get(kind)
    if not isinstance(found, dict):
        raise PodTokenRejected(f"pod token claim `kubernetes.io.{kind}` is missing or not an object")
    return _text(found, "name", _NAME), _text(found, "uid", _UID)


def _text(members: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise PodTokenRejected(f"pod token claim `{name}` is missing or malformed")
    return value
