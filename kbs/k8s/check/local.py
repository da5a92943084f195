"""What can be said of a Pod without asking anybody."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from kbs.errors import KbsError, MalformedMessage
from kbs.initdata import annotation, certificates
from kbs.initdata import findings as document_findings
from kbs.initdata.check import check as check_document
from kbs.initdata.document import AA, CDH, Document, field_values, parse
from kbs.k8s.check.model import Row, Verdict, good
from kbs.k8s.check.pods import Candidate
from kbs.k8s.wiring.findings import Effect, Finding, shown
from kbs.k8s.wiring.inspection import inspect
from kbs.k8s.wiring.json_patch import apply
from kbs.k8s.wiring.pod import Pod, annotations_size, mapping, read_pod
from kbs.k8s.wiring.profile import Profile, choose
from kbs.k8s.wiring.wire import wire
from kbs.k8s.wiring.workloads import profile_name
from kbs.protocol.resource_uri import ResourceUri, parse_uri
from kbs.sealed import token
from kbs.sealed.keys import PublicKey
from kbs.sealed.token import PREFIX, SealedSecret

CLASSES: Final[Mapping[str, str | None]] = {
    "kata-qemu-coco-dev": "sample",
    "kata-qemu-snp": "snp",
    "kata-qemu-tdx": "tdx",
    "kata-qemu-se": "se",
    "kata-qemu-nvidia-gpu-snp": "snp",
    "kata-qemu-nvidia-gpu-tdx": "tdx",
    "kata-remote": None,
}
"""RuntimeClass → the TEE that the broker will see; None: that of the cloud (guest-components 6.1)."""

_TWIN: Final = "-runtime-rs"
_SEVERITIES: Final = {
    document_findings.Severity.ERROR: Verdict.BAD,
    document_findings.Severity.WARNING: Verdict.WARNING,
}


@dataclass(slots=True)
class Report:
    """rows: in the order of looking. document, tee, requests: for whoever asks a broker next, as far as known."""

    title: str
    rows: list[Row] = field(default_factory=list)
    document: Document | None = None
    tee: str | None = None
    requests: dict[str, ResourceUri] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        """Whether the Pod would not attest, or not get what it needs."""
        return any(each.verdict is Verdict.BAD for each in self.rows)


@dataclass(frozen=True, slots=True)
class Given:
    """What there is to look with. secrets: manifests of Secrets by name. key: of whoever seals. tee: in place of the
    one that the runtime class means."""

    profiles: Sequence[Profile]
    secrets: Mapping[str, Mapping[str, Any]]
    key: PublicKey | None
    tee: str | None
    at: datetime


def check_pod(candidate: Candidate, given: Given) -> Report:
    """Look at one Pod as the webhook would leave it, or, without a profile, as it stands there."""
    report = Report(candidate.title)
    try:
        found = _wired(candidate, given, report)
        if found is None:
            return report
        raw, profile = found
        pod = read_pod(raw)
    except MalformedMessage as err:
        report.rows.append(_row("Pod", Finding("pod-malformed", "Pod", str(err))))
        return report
    report.rows += _runtime_class(pod, given, report)
    report.rows += _init_data(pod, given.at, report)
    report.rows += _sealed(pod, profile, given, report)
    return report


def _wired(candidate: Candidate, given: Given, report: Report) -> tuple[Mapping[str, Any], Profile | None] | None:
    """The Pod as it will be; None: it will not be, and what else it lacks is no news."""
    name = profile_name(candidate.raw)
    if name is None or not given.profiles:
        if name is not None:
            text = f"the label names the profile {shown(name)}; looked at as if nothing wired this Pod"
            report.rows.append(Row(Verdict.UNKNOWN, "profile", text, "profile-not-given", "give it: --profile FILE"))
        elif given.profiles:
            hint = f"put the label kbs.confidential.dev/profile: {given.profiles[0].name} on it"
            report.rows.append(
                Row(Verdict.WARNING, "profile", "no label: the webhook leaves it alone", "no-label", hint)
            )
        pod = read_pod(candidate.raw)
        report.rows += _inspected(inspect(pod, require_digest=True), pod)
        return candidate.raw, None
    profile = choose([each for each in given.profiles if each.name == name], candidate.namespace, name)
    if isinstance(profile, Finding):
        report.rows.append(_row("profile", profile))
        return None
    report.rows.append(good("profile", f"{profile.name}, generation {profile.rendered.generation}"))
    made = wire(candidate.raw, profile)
    report.rows += _inspected((*made.refusals, *made.warnings), read_pod(candidate.raw))
    if made.refusals:
        return None
    text = f"the webhook makes {len(made.patch)} additions" if made.patch else "as the profile says"
    report.rows.append(good("wiring", text))
    return apply(made.patch, candidate.raw), profile


def _inspected(found: Iterable[Finding], pod: Pod) -> Iterator[Row]:
    listed = list(found)
    yield from (_row("Pod", each) for each in listed)
    if not any(each.name.startswith("image-") for each in listed):
        yield good("images", f"{len(pod.containers)} pinned by digest")


def _row(what: str, found: Finding) -> Row:
    verdict = Verdict.BAD if found.effect is Effect.REFUSED else Verdict.WARNING
    return Row(verdict, what, f"{found.where}: {found.text}", found.name, found.hint)


def _runtime_class(pod: Pod, given: Given, report: Report) -> Iterator[Row]:
    name = pod.spec.get("runtimeClassName")
    report.tee = given.tee
    if not isinstance(name, str) or not name:
        hint = "set runtimeClassName, such as kata-qemu-snp, or the label of a profile"
        yield Row(
            Verdict.BAD, "runtime class", "none: an ordinary container on the node", "runtime-class-missing", hint
        )
        return
    plain = name.removesuffix(_TWIN)
    if plain not in CLASSES:
        hint = "say with --tee which evidence its guests send"
        verdict = Verdict.WARNING if given.tee is None else Verdict.GOOD
        yield Row(verdict, "runtime class", f"{shown(name)}, none of Kata's usual ones", "runtime-class-unusual", hint)
        return
    report.tee = given.tee or CLASSES[plain]
    yield good("runtime class", f"{name}: the broker will see {report.tee or 'the TEE of the cloud'}")


def _init_data(pod: Pod, at: datetime, report: Report) -> Iterator[Row]:
    value = pod.annotations.get(annotation.KEY)
    if value is None:
        hint = "kbs initdata render --annotation, or the label of a profile"
        yield Row(Verdict.BAD, "init data", f"no annotation {annotation.KEY}", "init-data-missing", hint)
        return
    size = annotations_size(pod.annotations)
    try:
        found = parse(annotation.decode(value), "annotation", size)
    except MalformedMessage as err:
        yield Row(Verdict.BAD, "init data", str(err), "init-data-malformed", "kbs initdata render --annotation")
        return
    report.document = found
    text = f"{found.algorithm} {found.digest.hex()}; annotations {size} of {annotation.LIMIT} bytes"
    yield good("init data", text)
    if report.tee is not None and report.tee in field_values(b"") and field_values(found.digest)[report.tee] is None:
        text = f"{report.tee} has no room for a digest of {found.algorithm}"
        yield Row(Verdict.BAD, "init data", text, "digest-unfit", "use algorithm sha256")
    for each in check_document(found, at):
        if each.severity in _SEVERITIES:
            verdict = _SEVERITIES[each.severity]
            yield Row(verdict, "init data", f"{each.where}: {each.text}", each.name, each.hint)
    yield from _kbs(found)
    for uri in _uris(found.claims.get(CDH)):
        report.requests.setdefault(str(uri), uri)


def _kbs(found: Document) -> Iterator[Row]:
    kbs = found.claims.get(AA)
    for name in ("token_configs", "kbs"):
        kbs = kbs.get(name) if isinstance(kbs, dict) else None
    if not isinstance(kbs, dict) or not isinstance(kbs.get("url"), str):
        return
    try:
        count = len(certificates.read(kbs["cert"])) if isinstance(kbs.get("cert"), str) else 0
    except MalformedMessage:  # said by the findings of the document
        return
    trusted = f"{count} CA certificates of its own" if count else "the CAs of the guest image"
    yield good("KBS", f"{shown(kbs['url'])}, trusting {trusted}")


def _uris(settings: object) -> Iterator[ResourceUri]:
    """What the guest's hub will ask for by itself: policies of images, credentials …"""
    if isinstance(settings, dict):
        for each in settings.values():
            yield from _uris(each)
    elif isinstance(settings, list):
        for each in settings:
            yield from _uris(each)
    elif isinstance(settings, str) and settings.startswith(("kbs:", "kbs+")):
        try:
            yield parse_uri(settings)
        except KbsError:  # said by the findings of the document
            return


def _sealed(pod: Pod, profile: Profile | None, given: Given, report: Report) -> Iterator[Row]:
    """Every sealed string of the Pod and of the Secrets beside it; the profile's ones must be sealed."""
    for container in pod.lasting:
        for variable in container.raw.get("env") or ():
            value = variable.get("value")
            if isinstance(value, str) and value.startswith(PREFIX):
                yield _sealed_row(f"{container.where} {variable.get('name')}", value, given, report)
    must = {} if profile is None else {each.secret_name: each.key or each.env for each in profile.sealed}
    for name, manifest in given.secrets.items():
        for key, value in _values(manifest):
            if value.startswith(PREFIX):
                yield _sealed_row(f"{name}/{key}", value, given, report)
            elif name in must and must[name] in (None, key):
                text = f"{name}/{key} is not sealed: whoever runs the cluster reads it"
                yield Row(Verdict.BAD, "sealed secret", text, "not-sealed", "kbs secret seal vault")
    for name in must:
        if name not in given.secrets:
            text = f"the Secret {name} is not among the files"
            yield Row(Verdict.UNKNOWN, "sealed secret", text, "secret-not-given", "give its manifest as well")


def _sealed_row(where: str, value: str, given: Given, report: Report) -> Row:
    try:
        found: SealedSecret = token.parse(value)
        for uri in found.requests:
            report.requests.setdefault(str(uri), uri)
        if given.key is None:
            text = f"{where}: the key {shown(found.kid)} signed it, not verified"
            return Row(Verdict.UNKNOWN, "sealed secret", text, "not-verified", "give the public key: --jwk FILE")
        token.verify(found, given.key)
    except MalformedMessage as err:
        return Row(Verdict.BAD, "sealed secret", f"{where}: {err}", "sealed-refused", "kbs secret verify says more")
    return good("sealed secret", f"{where}: verified, asks for {' and '.join(map(str, found.requests))}")


def _values(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a Secret; what is no text is no sealed string."""
    for key, value in mapping(manifest.get("stringData"), "stringData of a Secret").items():
        yield str(key), str(value)
    for key, value in mapping(manifest.get("data"), "data of a Secret").items():
        try:
            yield str(key), base64.b64decode(str(value), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            yield str(key), ""
