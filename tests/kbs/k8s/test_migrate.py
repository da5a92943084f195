"""Installations of the reference, migrated: every setting is accounted for, and what comes out is taken by a broker."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs import config
from kbs.admin import data_directory
from kbs.app import build
from kbs.errors import MalformedMessage
from kbs.initdata.yaml_text import documents
from kbs.k8s.documents import read
from kbs.k8s.migrate import Draft, Given, Question, Verdict, migrate
from kbs.k8s.migrate.output import files_of, settings_of, toml
from kbs.k8s.migrate.policies import Found, Judged
from kbs.k8s.migrate.report import document, markdown
from kbs.k8s.model import BROKER_POLICY, BROKER_RESOURCE, KEY_BROKER, REFERENCE_VALUE_SET, Kind
from tests.fakes import trustee_installation as trustee

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CONFIGS = Path(__file__).parents[2] / "vectors/trustee-configs"
SAMPLES = sorted(each.name for each in CONFIGS.glob("*.toml"))
KINDS: Mapping[str, Kind[Any, Any]] = {
    each.name: each for each in (KEY_BROKER, BROKER_RESOURCE, BROKER_POLICY, REFERENCE_VALUE_SET)
}


def accept(policy: Found, paths: Sequence[str]) -> Judged:
    """A judge for tests that are about something else."""
    del paths
    return Judged(Verdict.OURS, policy.text, "taken")


def nowhere(path: str) -> bytes | None:
    del path
    return None


def of_file(text: str | bytes, name: str = "kbs-config.toml") -> Draft:
    content = text.encode() if isinstance(text, str) else text
    return migrate(Question([Given(name, content)], [], None, (), nowhere), accept, NOW)


def of_objects(objects: Sequence[trustee.Object], **changes: Any) -> Draft:
    question = {"files": [], "objects": objects, "namespace": None, "tees": (), "local": nowhere} | changes
    return migrate(Question(**question), accept, NOW)


def entries(draft: Draft) -> dict[str, tuple[Verdict, str]]:
    return {each.setting: (each.verdict, each.ours) for each in draft.entries}


def leaves(content: Any, path: str = "") -> Iterator[str]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        for number, value in enumerate(content):
            yield from leaves(value, f"{path}[{number}]")
    elif content not in ({}, None):
        yield path


def unaccounted(content: Mapping[str, Any], draft: Draft) -> list[str]:
    """Settings that no entry speaks of, by their name or that of a table that they are in."""
    named = {each.setting for each in draft.entries}
    return [
        leaf
        for leaf in leaves(content)
        if not any(leaf == each or leaf.startswith((f"{each}.", f"{each}[")) for each in named)
    ]


# --- settings files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory, for its keys."""
    folder = tmp_path_factory.mktemp("broker") / "data"
    data_directory.make(
        folder,
        names=["localhost"],
        tees=("snp",),
        insecure_sample=False,
        insecure_http=False,
        token_lifetime=timedelta(hours=1),
        now=NOW,
    )
    return folder


def start(draft: Draft, data: Path, tmp_path: Path) -> None:
    """A broker with the settings that came out, its files where the test has them."""
    text = toml(settings_of(draft)).replace("/etc/kbs/keys", str(data / "keys"))
    text = text.replace("/etc/kbs/from", str(tmp_path / "from"))
    for ref in draft.mounted:
        target = tmp_path / "from" / f"{ref.kind.lower()}-{ref.name}" / ref.key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content_of(ref.name, ref.key))
    tmp_path.mkdir(exist_ok=True)
    overrides = {"KBS__STORAGE__PATH": str(tmp_path / "store"), "KBS__AUDIT__LOG": str(tmp_path / "log")}
    if draft.token_key is not None:
        (tmp_path / "token.pem").write_bytes(content_of(draft.token_key.name, draft.token_key.key))
        (tmp_path / "token.pem").chmod(0o600)
        overrides["KBS__KEYS__TOKEN"] = str(tmp_path / "token.pem")
    overrides["KBS__AUDIT__HEAD"] = str(tmp_path / "head")
    build(data, config.read(text, overrides, name="kbs.toml")).close()


def content_of(name: str, key: str) -> bytes:
    (found,) = (
        each
        for each in [*trustee.by_operator(), *trustee.by_chart()]
        if each["kind"] == "Secret" and each["metadata"]["name"] == name
    )
    return base64.b64decode(found["data"][key])


def test_all_samples_are_here() -> None:
    assert len(SAMPLES) == 26


@pytest.mark.parametrize("name", SAMPLES)
def test_every_setting_of_a_sample_is_accounted_for(name: str) -> None:
    raw = (CONFIGS / name).read_bytes()
    draft = of_file(raw, name)
    assert not draft.of(Verdict.UNKNOWN)
    assert unaccounted(tomllib.loads(raw.decode()), draft) == []
    files = files_of(draft, "../k8s")
    written = tomllib.loads(files["kbs.toml"].decode())
    assert written == settings_of(draft)
    assert config.parse(written).insecure_switches() == ()


def test_brokers_start_with_what_came_out(data: Path, tmp_path: Path) -> None:
    """Every outcome once: files that differ in bounds and lifetimes alone start the same broker."""
    outcomes = {}
    for name in SAMPLES:
        draft = of_file((CONFIGS / name).read_bytes(), name)
        outcomes[json.dumps([draft.settings.get(each) for each in ("admin", "attestation", "plugins")])] = draft
    assert len(outcomes) > 5
    for number, draft in enumerate(outcomes.values()):
        start(draft, data, tmp_path / str(number))


@pytest.mark.parametrize(
    ("name", "setting", "verdict", "ours"),
    [
        ("coco-as-builtin-1.toml", "admin.authorization_mode", Verdict.REFUSED, 'admin.mode = "authenticated"'),
        ("coco-as-builtin-2.toml", "admin.authorization_mode", Verdict.REFUSED, 'admin.mode = "authenticated"'),
        ("coco-as-builtin-2.toml", "http_server.insecure_http", Verdict.REFUSED, ""),
        ("coco-as-builtin-2.toml", "attestation_token.insecure_header_jwk", Verdict.NOT_NEEDED, ""),
        ("coco-as-grpc-1.toml", "plugins[0].name", Verdict.NOT_OFFERED, ""),
        ("example-kbs-config.toml", "attestation_token.insecure_header_jwk", Verdict.REFUSED, ""),
        ("intel-ta-1.toml", "attestation_service.allow_unmatched_policy", Verdict.REFUSED, ""),
        ("intel-ta-1.toml", "attestation_service.api_key", Verdict.NOT_NEEDED, ""),
        ("intel-ta-1.toml", "attestation_token.trusted_jwk_sets", Verdict.BY_HAND, ""),
        ("e2e-kbs.toml", "attestation_service.verifier_config.tpm_verifier", Verdict.BY_HAND, ""),
        ("e2e-external-plugin-tls.toml", "plugins[0].name", Verdict.BY_HAND, ""),
        ("e2e-external-plugin.toml", "plugins[0].name", Verdict.OURS, 'plugins.enabled has "external"'),
        ("tls-profile-modern.toml", "http_server.tls_profile", Verdict.NOT_OFFERED, ""),
        ("operator-permissive.toml", "http_server.worker_count", Verdict.OURS, "server.workers = 4"),
        (
            "operator-permissive.toml",
            "attestation_service.verifier_config.dcap_verifier.collateral_service",
            Verdict.OURS,
            "endorsements.intel_urls = https://api.trustedservices.intel.com",
        ),
    ],
)
def test_what_becomes_of_it(name: str, setting: str, verdict: Verdict, ours: str) -> None:
    assert entries(of_file((CONFIGS / name).read_bytes(), name))[setting] == (verdict, ours)


def test_values_have_our_units_and_names() -> None:
    draft = of_file(
        """
[http_server]
payload_request_size = 3
[admin]
authorization_mode = "DenyAll"
[attestation_service]
type = "coco_as_builtin"
timeout = 7
[attestation_service.attestation_token_broker]
issuer_name = "https://kbs.example"
developer_name = "people"
verbose_token = false
[attestation_service.verifier_config.dcap_verifier]
collateral_service = "https://pccs.example:8081/sgx/certification/v4/"
tcb_update_type = "standard"
use_secure_cert = false
[attestation_service.verifier_config.snp_verifier]
vcek_sources = [{ type = "KDS", base_url = "https://kds.example/" }]
[[plugins]]
name = "provisioner"
key_length = 64
"""
    )
    found = config.parse(settings_of(draft))
    assert (found.server.max_attest_body, found.server.max_resource_body) == (3 << 20, 3 << 20)
    assert (found.server.public_url, found.token.developer) == ("https://kbs.example", "people")
    assert found.handshake.challenge_ttl_seconds == 420
    assert not found.attestation.verbose_token
    assert found.attestation.tees == ("snp", "tdx")
    assert found.endorsements.intel_urls == ("https://pccs.example:8081",)
    assert (found.endorsements.tcb_update, found.endorsements.amd_url) == ("standard", "https://kds.example")
    assert found.plugins.enabled == ("resource", "provisioner")
    assert found.plugins.options["provisioner"] == {"key_length": 64}
    assert entries(draft)["attestation_service.verifier_config.dcap_verifier.use_secure_cert"][0] is Verdict.REFUSED


def test_settings_of_the_first_versions() -> None:
    """JSON without tables."""
    old = {
        "insecure_http": True,
        "sockets": ["0.0.0.0:8080"],
        "auth_public_key": "/etc/auth-secret/kbs.pem",
        "attestation_token_config": {"attestation_token_type": "CoCo"},
        "repository_config": {"type": "LocalFs", "dir_path": "/opt/repository"},
        "as_config": {
            "work_dir": "/opt/as",
            "attestation_token_broker": "Simple",
            "attestation_token_config": {"duration_min": 5},
            "rvps_config": {"store_type": "LocalFs", "remote_addr": ""},
        },
        "policy_engine_config": {"policy_path": "/opt/policy.rego"},
    }
    draft = of_file(json.dumps(old), "kbs-config.json")
    assert not draft.of(Verdict.UNKNOWN)
    assert draft.settings["token"] == {"lifetime_seconds": 300}
    assert entries(draft)["admin.auth_public_key"][0] is Verdict.BY_HAND


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ('[http_server]\nsokets = ["a:1"]', "http_server.sokets"),
        ("[http_server]\n[surprise]\na = 1", "surprise.a"),
        ('[admin]\nauthorization_mode = "Sometimes"', "admin.authorization_mode"),
        ('[attestation_service]\ntype = "other"', "attestation_service.type"),
        ('[[plugins]]\nname = "mine"\nurl = "x"', "plugins[0].url"),
        ('[http_server]\n[storage_backend]\nstorage_type = "Tape"', "storage_backend.storage_type"),
        (
            '[attestation_service]\nverifier_config.snp_verifier.vcek_sources = [{ type = "X" }]',
            "attestation_service.verifier_config.snp_verifier.vcek_sources[0].type",
        ),
    ],
)
def test_what_nobody_knows_is_said(text: str, setting: str) -> None:
    assert setting in {each.setting for each in of_file(text).of(Verdict.UNKNOWN)}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "[http_server", "a.toml is not TOML"),
        ("a.toml", "x = 1", "is no settings file"),
        ("a.toml", "[http_server]\nsockets = 8080", "http_server.sockets is not of the type list"),
        ("a.toml", "[http_server]\nsockets = [1]", "http_server.sockets is not a list of texts"),
        ("a.toml", "[http_server]\nworker_count = true", "http_server.worker_count is not of the type integer"),
        ("a.toml", "http_server = 1", "http_server is not of the type table"),
        ("a.toml", "plugins = [1]", "plugins is not a list of tables"),
        ("a.json", "{", "a.json"),
        ("a.json", "[]", "is no table of settings"),
        ("a.yaml", "- 1", "neither objects of Kubernetes nor settings"),
        ("a.yaml", "", "is empty"),
        ("a.yaml", "a: &x 1\nb: *x", "aliases"),
        ("a.yaml", "kind: Secret\napiVersion: v1\nmetadata: {name: s}\ndata: {a: '%'}", "Secret/s: data is not base64"),
        ("a.yaml", "kind: Secret\napiVersion: v1\nmetadata: {name: s}\ndata: [1]", "Secret/s: data is not a table"),
        ("a.yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: ../x}", "metadata.name"),
        ("a.yaml", "kind: List\napiVersion: v1\nitems: [1]", "a list holds what is no object"),
        ("a.yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: s}", "no settings of a KBS"),
        ("a.yaml", "kind: Pod\napiVersion: v1\nmetadata: {name: s}", "nothing to migrate"),
    ],
)
def test_bad_input_is_refused(name: str, text: str, says: str) -> None:
    with pytest.raises(MalformedMessage, match=says.replace(".", r"\.")):
        of_file(text, name)


def test_refusals_do_not_show_what_stands_there() -> None:
    """A settings file may hold a password where the mistake is."""
    with pytest.raises(MalformedMessage) as refused:
        of_file('[http_server]\npassword = "secret-value')
    assert "secret-value" not in str(refused.value)


NAMES = [
    "http_server",
    "admin",
    "attestation_service",
    "plugins",
    "storage_backend",
    "attestation_token",
    "type",
    "x",
    "a.b",
]
NAMES += [
    "verifier_config",
    "snp_verifier",
    "vcek_sources",
    "name",
    "sockets",
    "insecure_http",
    "timeout",
    "rvps_config",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "resource", "KDS", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_nothing_is_dropped_in_silence_and_nothing_else_escapes(content: dict[str, Any]) -> None:
    try:
        draft = of_file(json.dumps({"http_server": {}, **content}), "kbs-config.json")
    except MalformedMessage:
        return
    assert unaccounted(content, draft) == []
    files_of(draft, "../k8s")


# --- objects of a cluster ---------------------------------------------------------------------------------------------


def test_an_installation_of_the_operator(data: Path, tmp_path: Path) -> None:
    draft = of_objects(trustee.by_operator())
    assert not draft.of(Verdict.UNKNOWN)
    assert draft.namespace == trustee.NAMESPACE
    named = [(each["kind"], each["metadata"]["name"]) for each in draft.objects]
    assert named == [
        ("ReferenceValueSet", "rvps-reference-values-1"),
        ("ReferenceValueSet", "rvps-reference-values-2"),
        ("BrokerResource", "database"),
        ("BrokerResource", "disk"),
        ("BrokerPolicy", "resource-policy"),
    ]
    for each in draft.objects:
        read(KINDS[each["kind"]], each)
    assert draft.objects[0]["spec"]["values"] == {"snp_launch_measurement": ["00ff"]}
    assert draft.objects[1]["spec"]["values"] == {"svn": [1], "older": ["aa"]}
    assert draft.objects[1]["spec"]["expires"] == trustee.HELD
    assert draft.objects[2]["spec"] == {
        "brokerRef": {"name": "kbs"},
        "path": "default/database",
        "secretRef": {"name": "database"},
    }
    assert entries(draft)["reference-values.json: gone"][0] is Verdict.REFUSED
    assert draft.settings["admin"]["identity_providers"] == [
        {"issuer": "people", "public_key": "/etc/kbs/from/secret-kbs-auth/publicKey"}
    ]
    start(draft, data, tmp_path)


def test_keys_stay_where_they_are_and_are_mounted() -> None:
    draft = of_objects(trustee.by_operator())
    text = files_of(draft, "../k8s")["kustomization.yaml"].decode()
    for expected in ("token-key", "key: token.key", "path: token.pem", "https-cert", "path: tls.crt", "NodePort"):
        assert expected in text
    broker = read(KEY_BROKER, next(iter(_yaml(files_of(draft, "../k8s")["objects/broker.yaml"]))))
    assert broker.spec.url == f"https://kbs-admin.{trustee.NAMESPACE}.svc:8081"
    assert broker.spec.ca_bundle is not None
    assert broker.spec.ca_bundle.secret_ref is not None
    assert broker.spec.ca_bundle.secret_ref.name == "https-cert"
    assert "--without-tls" in document(draft, "new")["steps"][0]


def _yaml(content: bytes) -> list[Any]:
    return documents(content)


def test_no_bytes_of_a_secret_come_out() -> None:
    for objects in (trustee.by_operator(), trustee.by_chart()):
        draft = of_objects(objects)
        files = files_of(draft, "../k8s") | {
            "report.md": markdown(draft, "new").encode(),
            "report.json": json.dumps(document(draft, "new")).encode(),
        }
        written = b"".join(files.values()) + repr(draft).encode()
        for each in objects:
            for value in each.get("data", {}).values() if each["kind"] == "Secret" else ():
                raw = base64.b64decode(value)
                assert len(raw) < 4 or raw not in written
                assert value not in written.decode()
        assert trustee.SECRET not in written


def test_an_installation_by_the_chart(data: Path, tmp_path: Path) -> None:
    draft = of_objects(trustee.by_chart())
    assert not draft.of(Verdict.UNKNOWN)
    assert draft.replicated
    assert "overlays/ha" in files_of(draft, "../k8s")["kustomization.yaml"].decode()
    resources = [each["spec"] for each in draft.objects if each["kind"] == "BrokerResource"]
    assert [(each["path"], each["secretRef"]) for each in resources] == [("team/web", {"name": "web"})]
    assert draft.token_key is not None
    assert (draft.token_key.name, draft.token_key.key) == ("kbs-user-keys", "token.key")
    assert entries(draft)["spec.template.spec.nodeSelector"][0] is Verdict.BY_HAND
    assert "another namespace" in draft.steps[0]
    assert "postgres" in "".join(document(draft, "new")["steps"])
    start(draft, data, tmp_path)


def test_another_namespace_says_which_secrets_to_copy() -> None:
    draft = of_objects(trustee.by_chart(), namespace="kbs")
    assert "web" in draft.steps[0]
    assert draft.steps[0].startswith(f"Copy these Secrets from {trustee.NAMESPACE} to kbs")
    assert "names" not in entries(draft)


@pytest.mark.parametrize(
    ("hosts", "ca", "says"),
    [
        (("kbs-service",), False, "does not name kbs-admin"),
        ((), False, "does not name kbs-admin"),
        ((f"kbs-admin.{trustee.NAMESPACE}.svc",), True, "one of an authority"),
    ],
)
def test_a_certificate_that_nobody_could_check_is_not_kept(hosts: tuple[str, ...], ca: bool, says: str) -> None:
    certificate, key = trustee.new_pair(*hosts, ca=ca)
    objects = [each for each in trustee.by_operator() if not each["metadata"]["name"].startswith("https-")]
    objects += [trustee.secret("https-cert", certificate=certificate), trustee.secret("https-key", privateKey=key)]
    draft = of_objects(objects)
    assert draft.tls is None
    (entry,) = (each for each in draft.entries if each.setting == "kbsHttpsCertSecretName")
    assert entry.verdict is Verdict.BY_HAND
    assert says in entry.why
    step = document(draft, "new")["steps"][0]
    assert f"--host kbs-service.{trustee.NAMESPACE}.svc" in step


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"-----BEGIN", "is no plain PEM private key"), (trustee.public_key(), "is no plain PEM private key")],
)
def test_a_key_of_tokens_that_cannot_sign_is_not_kept(content: bytes, says: str) -> None:
    objects = [each for each in trustee.by_operator() if each["metadata"]["name"] != "token-key"]
    draft = of_objects([*objects, trustee.secret("token-key", token__key=content)])
    assert draft.token_key is None
    assert any(says in each.why for each in draft.of(Verdict.REFUSED))


def test_higher_level_objects_of_the_operator() -> None:
    certificate, key = trustee.new_pair(f"kbs-admin.{trustee.NAMESPACE}.svc")
    spec = {
        "profileType": "Permissive",
        "kbsServiceType": "LoadBalancer",
        "httpsSpec": {"tlsSecretName": "pair"},
        "attestationTokenVerificationSpec": {"tlsSecretName": "pair"},
        "ibmSE": {"pvName": "certs"},
        "tlsConfig": {"profile": "modern", "ciphers": ["a"]},
    }
    group = "confidentialcontainers.org/v1alpha1"
    settings_text = (CONFIGS / "operator-permissive.toml").read_text()
    objects = [
        trustee.new("TrusteeConfig", "easy", group=group, spec=spec),
        trustee.config_map("generated", kbs_0_config__toml=settings_text),
        trustee.secret("pair", tls__crt=certificate, tls__key=key),
    ]
    draft = of_objects(objects)
    found = entries(draft)
    assert not draft.of(Verdict.UNKNOWN)
    assert found["profileType"][0] is Verdict.REFUSED
    assert found["httpsSpec.tlsSecretName"][0] is Verdict.OURS
    assert found["attestationTokenVerificationSpec.tlsSecretName"][0] is Verdict.OURS
    assert found["ibmSE.pvName"][0] is Verdict.BY_HAND
    assert found["tlsConfig.profile"][0] is Verdict.NOT_OFFERED
    assert draft.service_type == "LoadBalancer"
    assert draft.tls is not None


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"kbsNewThing": 1}, "kbsNewThing"),
        ({"kbsConfigMapName": "absent"}, "kbsConfigMapName"),
        ({"kbsResourcePolicyConfigMapName": "absent"}, "kbsResourcePolicyConfigMapName"),
        ({"kbsRvpsRefValuesConfigMapName": "absent"}, "kbsRvpsRefValuesConfigMapName"),
        ({"KbsEnvVars": {"SURPRISE": "1"}}, "KbsEnvVars.SURPRISE"),
    ],
)
def test_objects_with_what_nobody_knows(change: dict[str, Any], setting: str) -> None:
    draft = of_objects(trustee.by_operator(**change))
    assert setting in {each.setting for each in draft.of(Verdict.UNKNOWN)}


def test_unknown_kinds_and_several_namespaces() -> None:
    objects = trustee.by_operator()
    draft = of_objects([*objects, trustee.new("Gadget", "g", group="example.org/v1")])
    assert [each.source for each in draft.of(Verdict.UNKNOWN)] == ["Gadget/g"]
    with pytest.raises(MalformedMessage, match=r"namespaces elsewhere, trustee-operator-system"):
        of_objects([*objects, trustee.new("ConfigMap", "c", namespace="elsewhere")])
    with pytest.raises(MalformedMessage, match="several settings files"):
        of_objects(objects, files=[Given("a.toml", b"[http_server]")])


def test_keys_that_are_no_tags_stay_behind() -> None:
    objects = [each for each in trustee.by_operator() if each["metadata"]["name"] != "disk"]
    draft = of_objects([*objects, trustee.secret("disk", good=b"1", **{"__hidden": b"2"})])
    paths = [each["spec"]["path"] for each in draft.objects if each["kind"] == "BrokerResource"]
    assert paths == ["default/database", "default/disk/good"]
    assert any(".hidden" in each.why for each in draft.of(Verdict.REFUSED))


@pytest.mark.parametrize(
    "values", ['{"a": 1}', "[1]", '[{"value": 1}]', '[{"name": "a", "value": 1, "expiration": "soon"}]', "["]
)
def test_reference_values_of_another_form_are_refused(values: str) -> None:
    objects = [each for each in trustee.by_operator() if each["metadata"]["name"] != "rvps-reference-values"]
    with pytest.raises(MalformedMessage, match="reference-values"):
        of_objects([*objects, trustee.config_map("rvps-reference-values", reference_0_values__json=values)])


def test_public_files_are_found_on_this_machine_and_private_ones_are_not() -> None:
    (sample,) = (name for name in SAMPLES if name == "coco-as-grpc-2.toml")
    given_files = {"/opt/confidential-containers/trustee/admin1-pubkey.pem": trustee.public_key()}
    given_files["/opt/confidential-containers/trustee/admin2-pubkey.pem"] = trustee.new_pair("x")[1]
    question = Question([Given(sample, (CONFIGS / sample).read_bytes())], [], None, (), given_files.get)
    draft = migrate(question, accept, NOW)
    files = files_of(draft, "../k8s")
    assert files["files/admin1-pubkey.pem"] == trustee.public_key()
    assert not any(b"PRIVATE" in each for each in files.values())
    providers = config.parse(settings_of(draft)).admin.identity_providers
    assert [each.issuer for each in providers] == ["admin1-issuer"]


def test_toml_of_any_text_is_read_back() -> None:
    odd = {"section": {"a b": 'x"\\\n\x7f', "list": [{"k": ["v", True, 3]}], "table": {"n": -1}}}
    assert tomllib.loads(toml(odd)) == odd
