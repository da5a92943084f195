"""WorkloadProfiles: the init data of Pods, rendered, and registered so that guests with exactly them match.

A profile that changes keeps the document before it registered for `keepOld`, because Pods are running with it. In
workload clusters profiles hold `rendered` and are nobody's here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import yaml

from kbs.errors import MalformedMessage
from kbs.initdata import annotation, yaml_text
from kbs.initdata.document import Document
from kbs.initdata.render import render
from kbs.k8s.controller.broker import Broker
from kbs.k8s.controller.conditions import Finding, merged, timestamp
from kbs.k8s.controller.outcome import (
    Note,
    Outcome,
    Progress,
    Removal,
    Stopped,
    Surroundings,
    broker_of,
    failure,
)
from kbs.k8s.controller.queue import Key
from kbs.k8s.controller.sources import Unmet
from kbs.k8s.documents import duration, moment
from kbs.k8s.model import RegisteredDigest, WorkloadProfile, WorkloadProfileSpec, WorkloadProfileStatus

MAX_ANNOTATION: Final = annotation.LIMIT - (8 << 10)
"""Octets; the rest is for other annotations of the Pod."""

MAX_REGISTERED: Final = 64
"""Documents of one profile at the same time, as the status has room for (`maxItems`)."""

_MAX_URL: Final = 512
_CA_FILE: Final = "kbs-ca.pem"
_MAX_OWNER: Final = 128
_NAMED: Final = 80  # characters of an entry's name that say whose it is


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do at the register, and what it holds afterwards. next_look: when the first old one goes."""

    register: bool
    remove: tuple[str, ...]
    after: tuple[RegisteredDigest, ...]
    next_look: datetime | None


def reconcile(key: Key, resource: WorkloadProfile, surroundings: Surroundings) -> Outcome | None:
    """Render and register; None: a copy, which belongs to no controller."""
    spec, before, generation = resource.spec, resource.status, resource.meta.generation
    if spec.rendered is not None:
        return None
    progress = Progress()
    status, failed, pause, after = before, False, 0.0, None
    rendered = Finding("Rendered", False, "NotRendered")
    registered = Finding("Registered", False, "NotRendered")
    try:
        document = rendering(spec, *_inputs(resource, surroundings))
        status = _described(before, document)
        rendered = Finding("Rendered", True, "Rendered", f"{document.algorithm} {document.digest.hex()}")
        status, registered, after = _register(key, resource, status, document, surroundings, progress)
    except Stopped as err:
        problem = failure(err)
        failed, pause = not problem.final, problem.pause
        if rendered.status:
            registered = _unsure(status, problem.reason, problem.message)
        else:
            rendered = Finding("Rendered", False, problem.reason, problem.message)
        progress.warn(problem.reason, problem.message)
    ready = _ready(rendered, registered)
    status = replace(
        status,
        observed_generation=generation,
        conditions=merged(before.conditions, (rendered, registered, ready), generation, surroundings.now),
    )
    return Outcome(status, tuple(progress.notes), failed=failed, pause=pause, after=after)


def remove(key: Key, resource: WorkloadProfile, surroundings: Surroundings) -> Removal:
    """Forget all documents of the profile: Pods that were started with them attest no more."""
    names = [each.name for each in entries(key, resource.status)]
    if not names or resource.spec.broker_ref is None:
        return Removal(True)
    _, broker = broker_of(resource, surroundings)
    for name in names:
        broker.remove_init_data(name)
    return Removal(True, (Note("Normal", "Removed", f"{len(names)} document(s) left the broker's register"),))


def rendering(
    spec: WorkloadProfileSpec, text: bytes, files: Mapping[str, bytes], authorities: bytes | None
) -> Document:
    """The document of a profile.

    Raises:
        Unmet: what `kbs.initdata.render` refuses, an address or a CA that stands twice and differs, a file that is
            missing, or a document that does not fit an annotation.
    """
    try:
        given = yaml_text.documents(text)
        if len(given) != 1 or not isinstance(given[0], dict):
            raise MalformedMessage("init data: expected one YAML document with members")
        whole, more = _completed(given[0], spec.kbs_url, authorities, files)
        document = render(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True).encode(), more.__getitem__)
    except MalformedMessage as err:
        raise Unmet("InitDataMalformed", str(err)) from None
    except ValueError:  # of more digits than Python writes
        raise Unmet("InitDataMalformed", "init data: a number is too long") from None
    except KeyError as err:
        raise Unmet("FileMissing", f"the YAML names a file {str(err)[:128]} that is not there") from None
    if len(annotation.encode(document.raw)) > MAX_ANNOTATION:
        raise Unmet("TooLarge", f"the annotation would be larger than {MAX_ANNOTATION} bytes")
    return document


def plan(
    name: str,
    digest: str,
    known: tuple[RegisteredDigest, ...],
    held: Mapping[str, str],
    now: datetime,
    keep_old: Any,
) -> Steps:
    """What the register needs.

    Args:
        name, digest: of the entry that is in use from now on.
        known: entries of this profile so far.
        held: digests of all entries that the broker has, by name.
        keep_old: timedelta that others stay, from the moment on at which they are first seen to be old.
    """
    kept: list[RegisteredDigest] = []
    remove: list[str] = []
    for each in known:
        if each.name == name:
            continue
        until = _until(each, now + keep_old)
        if min(until, now + keep_old) <= now:
            remove.append(each.name)
        else:
            kept.append(replace(each, until=timestamp(min(until, now + keep_old))))
    current = RegisteredDigest(name, digest)
    ends = [moment(each.until) for each in kept if each.until is not None]
    return Steps(held.get(name) != digest, tuple(remove), (*kept, current), min(ends, default=None))


def entry_name(key: Key, digest: str) -> str:
    """The name of an entry of the register: whose it is, and which; the same document has the same name."""
    whole = hashlib.sha256(f"{key.namespace}/{key.name}/{digest}".encode()).hexdigest()[:16]
    return f"k8s.{key.namespace}.{key.name}"[:_NAMED].rstrip(".-") + f".{whole}"


def entries(key: Key, status: WorkloadProfileStatus) -> tuple[RegisteredDigest, ...]:
    """What the status says was registered for the profile, as far as the names are the profile's own.

    Whoever may write a status must not have the controller take away what others registered.
    """
    return tuple(each for each in status.registered if each.name == entry_name(key, each.digest))


def _completed(
    given: Mapping[str, Any], url: str | None, authorities: bytes | None, files: Mapping[str, bytes]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The YAML with the profile's address and CA in it, and the files with the CA's."""
    more = dict(files)
    kbs = given.get("kbs", {})
    if not isinstance(kbs, dict):
        raise MalformedMessage("init data: kbs is not a table of members")
    kbs = dict(kbs)
    if url is not None and kbs.setdefault("url", url) != url:
        raise MalformedMessage("init data: kbs.url is another address than spec.kbsUrl")
    if authorities is not None:
        if "ca" in kbs:
            raise MalformedMessage("init data: kbs.ca and spec.caBundle say the same: write one of them")
        if _CA_FILE in more:
            raise MalformedMessage(f"init data: a file must not have the name {_CA_FILE}")
        kbs["ca"] = [_CA_FILE]
        more[_CA_FILE] = authorities
    return {**given, "kbs": kbs}, more


def _inputs(resource: WorkloadProfile, surroundings: Surroundings) -> tuple[bytes, Mapping[str, bytes], bytes | None]:
    spec, namespace = resource.spec, resource.meta.namespace
    authorities = None if spec.ca_bundle is None else surroundings.sources.bundle(namespace, spec.ca_bundle)
    source = spec.init_data
    if source is None:
        raise Unmet("InitDataMissing", "spec.initData is not there")
    if source.config_map_ref is None:
        return (source.yaml or "").encode(), {name: text.encode() for name, text in source.files.items()}, authorities
    ref = source.config_map_ref
    text = surroundings.sources.config_map_value(namespace, ref)
    files = surroundings.sources.config_map(namespace, ref.name)
    return text, {name: content for name, content in files.items() if name != ref.key}, authorities


def _described(before: WorkloadProfileStatus, document: Document) -> WorkloadProfileStatus:
    claims = document.claims.get("aa.toml")
    token = claims.get("token_configs") if isinstance(claims, dict) else None
    kbs = token.get("kbs") if isinstance(token, dict) else None
    url = kbs.get("url") if isinstance(kbs, dict) else None
    return replace(
        before,
        init_data_annotation=annotation.encode(document.raw),
        init_data_digest=document.digest.hex(),
        algorithm=document.algorithm,
        kbs_url=url if isinstance(url, str) and len(url) <= _MAX_URL else None,
    )


def _register(
    key: Key,
    resource: WorkloadProfile,
    status: WorkloadProfileStatus,
    document: Document,
    surroundings: Surroundings,
    progress: Progress,
) -> tuple[WorkloadProfileStatus, Finding, float | None]:
    if resource.spec.broker_ref is None:
        return status, Finding("Registered", None, "NoBroker", "spec.brokerRef is not set: register it yourself"), None
    found, broker = broker_of(resource, surroundings)
    digest, place = document.digest.hex(), "/".join(found.meta.key)
    known = entries(key, status) if status.broker in (None, place) else ()
    try:
        keep_old = duration(resource.spec.keep_old)
    except MalformedMessage as err:
        raise Unmet("KeepOldMalformed", str(err)) from None
    name = entry_name(key, digest)
    steps = plan(name, digest, known, broker.init_data(), surroundings.now, keep_old)
    if len(steps.after) > MAX_REGISTERED:
        text = f"{MAX_REGISTERED} documents before this one are still registered: make spec.keepOld shorter"
        raise Unmet("TooManyKept", text)
    _carry_out(steps, broker, name, f"WorkloadProfile {key.namespace}/{key.name}"[:_MAX_OWNER], document, progress)
    status = replace(status, registered=steps.after, broker=place)
    after = None if steps.next_look is None else max(1.0, (steps.next_look - surroundings.now).total_seconds())
    return status, Finding("Registered", True, "Registered", f"entry {name} at {place}"), after


def _carry_out(steps: Steps, broker: Broker, name: str, owner: str, document: Document, progress: Progress) -> None:
    if steps.register:
        broker.register_init_data(name, owner, document.raw)
        progress.say("Registered", f"{document.algorithm} {document.digest.hex()} as {name}")
    for old in steps.remove:
        broker.remove_init_data(old)
        progress.say("Removed", f"{old} left the broker's register")


def _unsure(status: WorkloadProfileStatus, reason: str, message: str) -> Finding:
    """What is known of the registration when the broker could not be asked: what was registered stays so."""
    current = any(each.digest == status.init_data_digest and each.until is None for each in status.registered)
    return Finding("Registered", current, reason, message)


def _ready(rendered: Finding, registered: Finding) -> Finding:
    if not rendered.status:
        return Finding("Ready", False, rendered.reason, rendered.message)
    if registered.status is False:
        return Finding("Ready", False, registered.reason, registered.message)
    return Finding("Ready", True, registered.reason, registered.message)


def _until(entry: RegisteredDigest, otherwise: datetime) -> datetime:
    if entry.until is None:
        return otherwise
    try:
        return moment(entry.until)
    except ValueError:
        return otherwise
