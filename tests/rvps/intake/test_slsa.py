"""SLSA provenance over a file of values: the file, its builder, its source and its number, or nothing."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from rvps import signing, value_set
from rvps.errors import StatementUnacceptable
from rvps.intake import INTAKES, in_toto, slsa
from rvps.intake.in_toto import Attested
from rvps.intake.model import Content
from rvps.messages import read_payload
from rvps.publishers.model import ProvenanceRules, Publisher, SigstoreTrust, Trust, gather
from rvps.value_set import Artifact, ValueSet
from tests.fakes import sigstore as fakes

AT = datetime(2026, 6, 1, tzinfo=UTC)
REPOSITORY = "https://github.com/acme/guest"
REF = "refs/tags/v1.2.3"
PATH = ".github/workflows/release.yml"
COMMIT = "ab" * 20
MR_TD = "rvps:///github.com/acme/tdx/mr_td"
FLAT = json.dumps({f"{MR_TD}:1.2.3": "aa", "rvps:///github.com/acme/tdx/kernel:1.2.3": "bb"}, indent=2).encode() + b"\n"
RULES = ProvenanceRules(
    builder=r"https://github\.com/acme/guest/\.github/workflows/release\.yml@refs/tags/v.*",
    build_type="https://actions.github.io/buildtypes/workflow/v1",
    repository=REPOSITORY,
    ref="refs/tags/v.*",
    path=PATH,
    series="guest",
    tee="tdx",
    rename={MR_TD: "mr_td"},
)


def provenance(artifact: bytes = FLAT, ref: str = REF) -> dict[str, Any]:
    return {
        "_type": in_toto.STATEMENT,
        "subject": [{"name": "reference-values.json", "digest": {"sha256": hashlib.sha256(artifact).hexdigest()}}],
        "predicateType": slsa.PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": RULES.build_type,
                "externalParameters": {"workflow": {"ref": ref, "repository": REPOSITORY, "path": PATH}},
                "internalParameters": {"github": {"event_name": "release"}},
                "resolvedDependencies": [{"uri": f"git+{REPOSITORY}@{ref}", "digest": {"gitCommit": COMMIT}}],
            },
            "runDetails": {
                "builder": {"id": f"{REPOSITORY}/{PATH}@{ref}"},
                "metadata": {"invocationId": f"{REPOSITORY}/actions/runs/1234/attempts/2"},
            },
        },
    }


def read(
    statement: Any,
    artifact: bytes = FLAT,
    rules: ProvenanceRules | None = RULES,
    *,
    commit: str | None = None,
    signed_at: datetime | None = None,
    sigstore: SigstoreTrust | None = None,
) -> Content:
    publisher = Publisher("acme", frozenset({"dsse"}), ("mr_",), Trust(sigstore=sigstore), provenance=rules)
    content = json.dumps(statement).encode()
    found = in_toto.read(
        Attested(publisher, "x", "dsse", content, "", signed_at, artifact=artifact, source_digest=commit), AT
    )
    assert isinstance(found, Content)
    return found


def test_a_flat_file_becomes_lists_of_one_with_the_policies_names() -> None:
    content = read(provenance())
    assert content.values == {"mr_td": ["aa"], "rvps:///github.com/acme/tdx/kernel:1.2.3": ["bb"]}
    assert (content.series, content.serial, content.tee) == ("guest", 1_000_002_000_003, "tdx")
    assert (content.valid_from, content.valid_until) == (None, None)
    assert content.artifacts[0].name == "reference-values.json"


def test_a_value_set_says_itself_what_it_is() -> None:
    made = ValueSet("guest", {"mr_td": ["aa"]}, (Artifact("td.fd", {"sha384": "ab" * 48}),), "tdx", True, {"x": ["y"]})
    document = value_set.write(made)
    content = read(provenance(document), document)
    assert (content.values, content.known_bad, content.together) == ({"mr_td": ["aa"]}, {"x": ("y",)}, True)
    assert content.artifacts[0].name == "td.fd"
    other = value_set.write(replace(made, series="other"))
    with pytest.raises(StatementUnacceptable, match="another series"):
        read(provenance(other), other)


def test_numbers_rise_with_versions() -> None:
    refs = ("refs/tags/v0.0.1", "refs/tags/0.21.0", "refs/tags/v0.21.1", "refs/tags/v1.0.0", "refs/tags/v1.10.0")
    rules = replace(RULES, ref=".*", builder=".*")
    serials = [read(provenance(ref=ref), rules=rules).serial for ref in refs]
    assert serials == sorted(set(serials))


@pytest.mark.parametrize(
    "ref",
    ["v1.2", "v1.2.3-rc1", "v01.2.3", "v0.0.0", "v1.2.3.4", "v1.2.3\n", "v1000000.0.0", "v\u0661.2.3", "latest"],
)
def test_other_tags_have_no_number(ref: str) -> None:
    with pytest.raises(StatementUnacceptable, match="no tag of a release"):
        read(provenance(ref=f"refs/tags/{ref}"), rules=replace(RULES, ref="(?s).*", builder="(?s).*"))


def test_numbers_of_runs_and_of_time() -> None:
    assert read(provenance(), rules=replace(RULES, serial_from="run")).serial == 1_234_002
    by_time = replace(RULES, serial_from="time")
    assert read(provenance(), rules=by_time, signed_at=AT).serial == int(AT.timestamp())
    with pytest.raises(StatementUnacceptable, match="clock"):
        read(provenance(), rules=by_time)


def definition(statement: Any) -> Any:
    return statement["predicate"]["buildDefinition"]


def details(statement: Any) -> Any:
    return statement["predicate"]["runDetails"]


WRONG: list[tuple[str, Callable[[Any], Any], str]] = [
    ("digest", lambda s: s["subject"][0]["digest"].update(sha256="00" * 32), "another file"),
    ("one digest of two", lambda s: s["subject"][0]["digest"].update(sha512="00" * 64), "another file"),
    ("builder", lambda s: details(s)["builder"].update(id="https://github.com/eve/x@refs/tags/v1"), "builder"),
    ("builder of a branch", lambda s: details(s)["builder"].update(id=f"{REPOSITORY}/{PATH}@main"), "builder"),
    (
        "builder around it",
        lambda s: details(s)["builder"].update(id=f"https://eve.example/?{REPOSITORY}/{PATH}@{REF}"),
        "builder",
    ),
    ("builder id", lambda s: details(s)["builder"].update(id=5), "builder"),
    ("no builder", lambda s: s["predicate"].pop("runDetails"), "builder"),
    ("build type", lambda s: definition(s).update(buildType="https://x"), "build type"),
    ("no definition", lambda s: s["predicate"].pop("buildDefinition"), "build type"),
    ("parameter", lambda s: definition(s)["externalParameters"].update(inputs={"a": 1}), "external parameters"),
    (
        "workflow member",
        lambda s: definition(s)["externalParameters"]["workflow"].update(more="x"),
        "external parameters",
    ),
    ("no workflow", lambda s: definition(s)["externalParameters"].pop("workflow"), "external parameters"),
    ("path", lambda s: definition(s)["externalParameters"]["workflow"].update(path="x.yml"), "another workflow"),
    (
        "repository",
        lambda s: definition(s)["externalParameters"]["workflow"].update(repository="https://github.com/eve/x"),
        "another repository",
    ),
    ("ref", lambda s: definition(s)["externalParameters"]["workflow"].update(ref="refs/heads/main"), "the ref"),
    (
        "ref around it",
        lambda s: definition(s)["externalParameters"]["workflow"].update(ref=f"refs/heads/{REF}"),
        "releases from",
    ),
    ("no source", lambda s: definition(s).update(resolvedDependencies=[]), "resolved dependencies"),
    ("sources", lambda s: definition(s)["resolvedDependencies"][0].update(uri="git+https://x"), "resolved dep"),
    ("commit", lambda s: definition(s)["resolvedDependencies"][0]["digest"].update(gitCommit="x"), "resolved dep"),
    ("no digests", lambda s: definition(s)["resolvedDependencies"][0].pop("digest"), "resolved dep"),
    (
        "two commits",
        lambda s: definition(s)["resolvedDependencies"].append(
            {"uri": f"git+{REPOSITORY}@{REF}", "digest": {"gitCommit": "cd" * 20}}
        ),
        "resolved dep",
    ),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_other_provenance_is_refused(change: Callable[[Any], Any], said: str) -> None:
    statement = copy.deepcopy(provenance())
    change(statement)
    with pytest.raises(StatementUnacceptable, match=said):
        read(statement)


@pytest.mark.parametrize(
    "run",
    [
        None,
        5,
        "",
        f"{REPOSITORY}/actions/runs/1",
        "https://github.com/eve/x/actions/runs/1/attempts/1",
        f"{REPOSITORY}-evil/actions/runs/1/attempts/1",
        f"{REPOSITORY}/actions/runs/1/attempts/1000",
    ],
    ids=["none", "number", "empty", "no attempt", "other", "longer", "attempts"],
)
def test_other_runs_have_no_number(run: Any) -> None:
    statement = copy.deepcopy(provenance())
    details(statement)["metadata"]["invocationId"] = run
    with pytest.raises(StatementUnacceptable, match="invocationId"):
        read(statement, rules=replace(RULES, serial_from="run"))


@pytest.mark.parametrize(
    ("artifact", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "neither"),
        (b'{"a": 1}', "not a text"),
        (b'{"a": ""}', "not a text"),
        (b'{"a": ["b"]}', "not a text"),
        (b'{"a": "1", "a": "2"}', "repeated"),
        (b'{"": "1"}', "name"),
        (f'{{"{MR_TD}:1": "a", "{MR_TD}:2": "b"}}'.encode(), "renamed to one"),
        (b'{"series": "guest", "values": {"a": 1}, "x": 1}', "unknown member"),
    ],
    ids=[f"{number}" for number in range(10)],
)
def test_other_files_are_refused(artifact: bytes, said: str) -> None:
    with pytest.raises(StatementUnacceptable, match=said):
        read(provenance(artifact), artifact)


def test_another_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(StatementUnacceptable, match="another file"):
        read(provenance(), b"not JSON")


def test_a_publisher_without_rules_has_no_provenance() -> None:
    with pytest.raises(StatementUnacceptable, match="no rules"):
        read(provenance(), rules=None)


def test_the_certificate_names_the_same_commit() -> None:
    assert read(provenance(), commit=COMMIT).serial
    with pytest.raises(StatementUnacceptable, match="another commit"):
        read(provenance(), commit="00" * 20)


def test_a_file_with_the_bundle_of_the_workflow_that_made_it() -> None:
    ours, intake = fakes.Sigstore(), INTAKES["sigstore-bundle"]
    trust = SigstoreTrust(ours.trusted_root(), fakes.ISSUER, RULES.builder, source_repository=REPOSITORY)
    publishers = gather(
        [Publisher("acme", frozenset({"sigstore-bundle"}), ("mr_",), Trust(sigstore=trust), provenance=RULES)]
    )

    def received(commit: str) -> Any:
        statement = copy.deepcopy(provenance())
        definition(statement)["resolvedDependencies"][0]["digest"]["gitCommit"] = commit
        bundle = ours.bundle(json.dumps(statement).encode())
        message = json.loads(signing.message(bundle, "sigstore-bundle", FLAT))
        return intake.extract(intake.verify(read_payload(message), publishers, fakes.SIGNED), fakes.SIGNED)

    assert received(fakes.COMMIT).values["mr_td"] == ["aa"]
    with pytest.raises(StatementUnacceptable, match="another commit"):
        received("00" * 20)


def test_exact_builders_and_types_of_keyless_publishers() -> None:
    keyless = SigstoreTrust(b"", "issuer", "identity")
    builder = f"{REPOSITORY}/{PATH}@{REF}"
    good = replace(keyless, builder_ids=frozenset({builder}), build_types=frozenset({RULES.build_type}))
    assert read(provenance(), sigstore=good).serial
    with pytest.raises(StatementUnacceptable, match="builder_ids"):
        read(provenance(), sigstore=replace(good, builder_ids=frozenset({"x"})))
    with pytest.raises(StatementUnacceptable, match="build type"):
        read(provenance(), sigstore=replace(good, build_types=frozenset({"x"})))


def test_digest_sets_match_when_all_known_ones_agree() -> None:
    good = {"sha256": hashlib.sha256(b"x").hexdigest(), "sha384": hashlib.sha384(b"x").hexdigest()}
    assert slsa.is_match(b"x", good)
    assert slsa.is_match(b"x", {**good, "md5": "?"})
    assert not slsa.is_match(b"x", {**good, "sha384": "00" * 48})
    assert not slsa.is_match(b"x", {"md5": hashlib.md5(b"x").hexdigest()})
    assert not slsa.is_match(b"x", {})
