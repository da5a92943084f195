"""SLSA provenance over a file of values: was that file built by whom, from what and how the publisher's rules say?

The file is CoCo's `reference-values.json` (name to text) or a value set document. A number that rises with each release
is in neither, so the rules say where it comes from:

    version  the tag in `workflow.ref`, `refs/tags/v1.2.3` or without the `v`: 1 * 10^12 + 2 * 10^6 + 3. Versions only
             rise, so what is built again needs a new version. Pre-releases have no number and are refused.
    run      the run in `runDetails.metadata.invocationId`: its id * 1000 + attempt; both rise with time at GitHub.
    time     the second in which a transparency log or timestamp authority saw the signature.

Source: SLSA v1.0, provenance and verifying artifacts; rvps 12.1, 12.3.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import re2

from rvps import value_set
from rvps.errors import StatementUnacceptable
from rvps.intake.model import MAX_MESSAGE, Artifact, Content, Verified
from rvps.publishers.model import ProvenanceRules
from rvps.strict_json import NotStrictJson, decode

PREDICATE: Final = "https://slsa.dev/provenance/v1"
_STEP: Final = 10**6
_ATTEMPTS: Final = 1000
_VERSION: Final = re.compile(r"refs/tags/v?(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})", re.ASCII)
_RUN: Final = re.compile(r"/actions/runs/([1-9][0-9]{0,14})/attempts/([1-9][0-9]{0,2})", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one attestation brings.

    predicate: signed. artifact: the file, not signed itself. source_digest: the signing certificate's commit, or None.
    """

    subjects: Sequence[Artifact]
    predicate: Mapping[str, Any] = field(repr=False)
    artifact: bytes = field(repr=False)
    source_digest: str | None


def read(evidence: Evidence, verified: Verified) -> Content:
    """The values of the file, if its provenance is what the publisher's rules ask for.

    1. the file's digest is a subject's  2. builder  3. build type and every external parameter  4. source repository
    and commit  5. the file itself. Valid from arrival, for as long as the publisher may state values.

    Raises:
        StatementUnacceptable: the first of these that does not hold, or the publisher has no such rules.
    """
    rules = verified.publisher.provenance
    if rules is None:
        raise StatementUnacceptable(
            f"publisher {verified.publisher.name!r} has no rules for SLSA provenance in the settings"
        )
    _check_subject(evidence)
    _check_builder(evidence, verified, rules)
    ref = _check_build(evidence, verified, rules)
    _check_source(evidence, rules, ref)
    values = _read_values(evidence.artifact, rules)
    return Content(
        series=values.series,
        serial=_serial(evidence, verified, rules, ref),
        tee=values.tee,
        artifacts=_artifacts(evidence, values),
        values=values.values,
        known_bad={name: tuple(bad) for name, bad in values.known_bad.items()},
        together=values.together,
        valid_from=None,
        valid_until=None,
    )


def is_match(raw: bytes, digests: Mapping[str, str]) -> bool:
    """Whether bytes have the digests of a digest set: all of its algorithms known here agree, and there is one.

    Source: in-toto attestation framework, DigestSet; rvps 12.2.
    """
    known = {algorithm: digits for algorithm, digits in digests.items() if algorithm in value_set.DIGEST_LENGTHS}
    agreed = [
        hmac.compare_digest(hashlib.new(algorithm, raw).hexdigest(), digits) for algorithm, digits in known.items()
    ]
    return bool(agreed) and all(agreed)


def _check_subject(evidence: Evidence) -> None:
    if not any(is_match(evidence.artifact, subject.digest) for subject in evidence.subjects):
        raise StatementUnacceptable("SLSA provenance: it is about another file; no subject has the artifact's digest")


def _check_builder(evidence: Evidence, verified: Verified, rules: ProvenanceRules) -> None:
    builder = _member(evidence.predicate, "runDetails", "builder", "id")
    if not isinstance(builder, str) or re2.fullmatch(rules.builder, builder) is None:
        raise StatementUnacceptable("SLSA provenance: the builder is not one that this publisher may build with")
    keyless = verified.publisher.trust.sigstore
    if keyless is not None and keyless.builder_ids and builder not in keyless.builder_ids:
        raise StatementUnacceptable("SLSA provenance: the builder is not in the publisher's `builder_ids`")


def _check_build(evidence: Evidence, verified: Verified, rules: ProvenanceRules) -> str:
    """The ref that was built."""
    keyless, kind = verified.publisher.trust.sigstore, _member(evidence.predicate, "buildDefinition", "buildType")
    if kind != rules.build_type or (keyless is not None and keyless.build_types and kind not in keyless.build_types):
        raise StatementUnacceptable("SLSA provenance: the build type is not the expected one")
    parameters = _member(evidence.predicate, "buildDefinition", "externalParameters")
    workflow = parameters.get("workflow") if isinstance(parameters, dict) else None
    if not isinstance(workflow, dict) or len(parameters) != 1 or workflow.keys() != {"ref", "repository", "path"}:
        raise StatementUnacceptable(
            "SLSA provenance: the external parameters are not exactly `workflow` with `ref`, `repository` and `path`"
        )
    if workflow["repository"] != rules.repository or workflow["path"] != rules.path:
        raise StatementUnacceptable("SLSA provenance: another repository's or another workflow built it")
    ref = workflow["ref"]
    if not isinstance(ref, str) or re2.fullmatch(rules.ref, ref) is None:
        raise StatementUnacceptable("SLSA provenance: the ref is not one that this publisher releases from")
    return ref


def _check_source(evidence: Evidence, rules: ProvenanceRules, ref: str) -> None:
    dependencies = _member(evidence.predicate, "buildDefinition", "resolvedDependencies")
    source = f"git+{rules.repository}@{ref}"
    commits = [
        _member(dependency, "digest", "gitCommit")
        for dependency in (dependencies if isinstance(dependencies, list) else [])
        if isinstance(dependency, dict) and dependency.get("uri") == source
    ]
    if len(commits) != 1 or not isinstance(commits[0], str) or not _COMMIT.fullmatch(commits[0]):
        raise StatementUnacceptable("SLSA provenance: the resolved dependencies do not name the source and its commit")
    if evidence.source_digest is not None and commits[0] != evidence.source_digest:
        raise StatementUnacceptable("SLSA provenance: it names another commit than the signing certificate")


def _read_values(artifact: bytes, rules: ProvenanceRules) -> value_set.ValueSet:
    try:
        document = decode(artifact, max_bytes=MAX_MESSAGE)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"file of values: {err}") from err
    if not isinstance(document, dict):
        raise StatementUnacceptable("file of values: not a JSON object")
    if "series" in document and "values" in document:
        found = value_set.read(artifact)
        if found.series != rules.series:
            raise StatementUnacceptable("file of values: it is of another series than the publisher's rules name")
        return found
    values: dict[str, list[str]] = {}
    for published, value in document.items():
        if not isinstance(value, str) or not value:
            raise StatementUnacceptable("file of values: a value is not a text; neither a flat file nor a value set")
        name = _renamed(published, rules.rename)
        if name in values:
            raise StatementUnacceptable("file of values: two entries are renamed to one name")
        values[name] = [value]
    return value_set.ValueSet(rules.series, values, tee=rules.tee)


def _renamed(published: str, names: Mapping[str, str]) -> str:
    untagged = published.rpartition(":")[0]
    return names.get(published) or names.get(untagged) or published


def _artifacts(evidence: Evidence, values: value_set.ValueSet) -> tuple[Artifact, ...]:
    """The artifacts that the file names, else the file itself."""
    named = tuple(Artifact(item.name, item.digest) for item in values.artifacts)
    return named or tuple(subject for subject in evidence.subjects if is_match(evidence.artifact, subject.digest))


def _serial(evidence: Evidence, verified: Verified, rules: ProvenanceRules, ref: str) -> int:
    if rules.serial_from == "time":
        if verified.signed_at is None:
            raise StatementUnacceptable("SLSA provenance: no verified clock says when it was signed")
        return int(verified.signed_at.timestamp())
    if rules.serial_from == "run":
        run = _member(evidence.predicate, "runDetails", "metadata", "invocationId")
        own = isinstance(run, str) and run.startswith(rules.repository)
        found = _RUN.fullmatch(str(run).removeprefix(rules.repository)) if own else None
        if found is None:
            raise StatementUnacceptable("SLSA provenance: `invocationId` is no run of this repository")
        return int(found[1]) * _ATTEMPTS + int(found[2])
    version = _VERSION.fullmatch(ref)
    if version is None or not any(map(int, version.groups())):
        raise StatementUnacceptable("SLSA provenance: the ref is no tag of a release such as refs/tags/v1.2.3")
    major, minor, patch = map(int, version.groups())
    return (major * _STEP + minor) * _STEP + patch


def _member(document: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document
