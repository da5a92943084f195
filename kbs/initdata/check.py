"""What will go wrong with a document, before a guest is started with it.

Source: guest-components 4.1 to 4.7, 5.1, 5.2, 7.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from kbs.attestation.init_data import DATA_CLAIM, RULES_CLAIM
from kbs.errors import NameNotAllowed
from kbs.initdata import agent_policy, annotation, certificates
from kbs.initdata.document import AA, CDH, ENTRIES, POLICY, Document
from kbs.initdata.findings import Finding, Severity
from kbs.initdata.render import VERSION
from kbs.protocol.resource_path import parse as parse_path

_KATA: Final = ("sha256", "sha384", "sha512")
_LARGE: Final = annotation.LIMIT * 3 // 4
_ORDER: Final = {severity: number for number, severity in enumerate(Severity)}
_REQUESTS: Final = {
    "CopyFileRequest": "copy-file-allowed",
    "CreateContainerRequest": "create-allowed",
    "ExecProcessRequest": "exec-allowed",
    "AllowRequestsFailingPolicy": "failing-policy-allowed",
    "SetPolicyRequest": "set-policy-allowed",
}
_DANGEROUS: Final = frozenset({"CreateContainerRequest", "ExecProcessRequest", "SetPolicyRequest"})
_RESOURCE_SEGMENTS: Final = 3
_SHOWN: Final = 120


def check(document: Document, at: datetime) -> Sequence[Finding]:
    """Everything there is to say, worst first.

    at: aware; for the certificates.
    """
    settings = {name: _settings(document, name) for name in (AA, CDH)}
    found = [
        *_head(document),
        *_size(document),
        *_entries(document, settings),
        *_kbs(settings, at),
        *(each for name in (AA, CDH) for each in _uris(name, settings[name])),
        *_policy(document.data.get(POLICY)),
    ]
    return sorted(found, key=lambda each: (_ORDER[each.severity], each.where, each.name))


def _head(document: Document) -> Iterator[Finding]:
    if document.version != VERSION:
        yield Finding("version-not-started", "document", f"version {_shown(document.version)}")
    if document.algorithm not in _KATA:
        yield Finding("algorithm-unknown", "document", f"algorithm {document.algorithm}")
    elif document.algorithm != "sha256":
        yield Finding("algorithm-cut", "document", f"algorithm {document.algorithm}")
        yield Finding("algorithm-refused", "document", f"algorithm {document.algorithm}")
    for name in document.others:
        yield Finding("member-ignored", "document", f"member {_shown(name)}")
    if b"\r\n" in document.raw:
        yield Finding("carriage-returns", "document", "ends of lines are CR LF")
    if "PRIVATE KEY-----" in document.text:
        yield Finding("private-key", "document", "a private key in PEM")


def _size(document: Document) -> Iterator[Finding]:
    """As Kubernetes counts: keys and values of all annotations of the object."""
    size = document.annotations_size
    if size is None:
        size = len(annotation.KEY) + len(annotation.encode(document.raw))
    text = f"{size} of {annotation.LIMIT} bytes"
    if size > annotation.LIMIT:
        yield Finding("annotation-too-large", "document", text)
    elif size > _LARGE:
        yield Finding("annotation-large", "document", text)


def _entries(document: Document, settings: Mapping[str, Any]) -> Iterator[Finding]:
    for name, missing, broken in ((AA, "aa-missing", "aa-unreadable"), (CDH, "cdh-missing", "cdh-unreadable")):
        if name not in document.data:
            yield Finding(missing, "document", f"no entry {name}")
        elif settings[name] is None:
            yield Finding(broken, name, "not TOML")
    for name in document.data:
        if name in (DATA_CLAIM, RULES_CLAIM):
            yield Finding("name-reserved", _shown(name), "brokers derive a claim of this name")
        elif name not in ENTRIES:
            close = difflib.get_close_matches(name.lower()[:64], ENTRIES, 1, 0.75)
            if close or name.lower().endswith((".toml", ".rego")):
                yield Finding("entry-misspelt", _shown(name), f"meant {close[0]}?" if close else "not a known entry")
            else:
                yield Finding("label", _shown(name), "an entry of your own")


def _settings(document: Document, name: str) -> Mapping[str, Any] | None:
    """The settings of an entry as claims have them; empty for no entry, None for one that is no TOML."""
    text = document.data.get(name)
    if text is None:
        return {}
    found = document.claims.get(name)
    return found if isinstance(found, dict) else None


def _kbs(settings: Mapping[str, Mapping[str, Any] | None], at: datetime) -> Iterator[Finding]:
    aa, cdh = _at(settings[AA], "token_configs", "kbs"), _at(settings[CDH], "kbc")
    urls = {AA: aa.get("url"), CDH: cdh.get("url")}
    pems = {AA: aa.get("cert"), CDH: cdh.get("kbs_cert")}
    for name, url in urls.items():
        if settings[name]:
            yield from _url(name, url)
    if settings[AA] and settings[CDH]:
        if None not in urls.values() and urls[AA] != urls[CDH]:
            yield Finding("kbs-url-differs", "document", f"aa.toml: {_shown(urls[AA])}, cdh.toml: {_shown(urls[CDH])}")
        if not _same_certificates(pems[AA], pems[CDH]):
            without = [name for name, pem in pems.items() if pem is None]
            yield Finding("ca-differs", "document", f"only {without[0]} has none" if without else "two certificates")
    for name, pem in pems.items():
        if isinstance(pem, str):
            yield from certificates.look_at(name, pem, at)
        elif pem is not None:
            yield Finding("ca-malformed", name, "not a text")


def _same_certificates(one: Any, other: Any) -> bool:
    def plain(pem: Any) -> Any:
        return "".join(pem.split()) if isinstance(pem, str) else pem

    return bool(plain(one) == plain(other))


def _url(name: str, url: Any) -> Iterator[Finding]:
    if url is None:
        yield Finding("kbs-url-missing", name, "no address of a KBS")
        return
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, good = None, False
    if not good or parts is None:
        yield Finding("kbs-url-malformed", name, _shown(url))
    elif parts.scheme == "http":
        yield Finding("kbs-url-http", name, _shown(url))


def _uris(name: str, value: Any) -> Iterator[Finding]:
    """Every resource URI in the settings, wherever it stands."""
    for text in dict.fromkeys(_texts(value)):
        scheme, found, rest = text.partition("://")
        if not found or not (scheme == "kbs" or scheme.startswith("kbs+")):
            continue
        host, _, path = rest.partition("/")
        segments = path.partition("?")[0].split("/")
        if host and len(segments) == _RESOURCE_SEGMENTS - 1:
            yield Finding("resource-uri-host", name, _shown(text))
        elif scheme in ("kbs", "kbs+resource") and not _is_path(segments):
            yield Finding("resource-uri", name, _shown(text))


def _is_path(segments: Sequence[str]) -> bool:
    try:
        parse_path(tuple(segments))
    except NameNotAllowed:
        return False
    return True


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _policy(text: str | None) -> Iterable[Finding]:
    if text is None:
        return [Finding("policy-missing", "document", "no entry policy.rego")]
    seen = agent_policy.look_at(text)
    found: list[Finding] = []
    if seen.package != "agent_policy":
        found.append(
            Finding("policy-package", POLICY, f"package {_shown(seen.package)}" if seen.package else "no package")
        )
    if set(seen.allowed) >= _DANGEROUS:
        found.append(Finding("policy-allows-all", POLICY, f"true without conditions: {', '.join(sorted(_DANGEROUS))}"))
    found += [Finding(name, POLICY, f"{rule} is true without conditions")
              for rule, name in _REQUESTS.items() if rule in seen.allowed]  # fmt: skip
    if not seen.mentions_set_policy:
        found.append(Finding("set-policy-undeclared", POLICY, "no rule SetPolicyRequest"))
    if seen.hidden_data:
        found.append(Finding("policy-data-commented", POLICY, "policy_data is in a comment or a string"))
    if seen.misplaced_data:
        found.append(Finding("policy-data-not-last", POLICY, "something follows policy_data, or it is not strict JSON"))
    return found


def _at(settings: Mapping[str, Any] | None, *path: str) -> Mapping[str, Any]:
    found: Any = settings or {}
    for name in path:
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _shown(value: Any) -> str:
    """What a stranger wrote, as one short printable text."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(each if each.isprintable() else "\ufffd" for each in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
