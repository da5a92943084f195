"""Everything below k8s/ renders, is what four releases of Kubernetes take, passes our own lint, and says the same
whether kustomize or Helm renders it. Combinations that are unsafe are refused, with what to do."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import utils as schemas

from kbs import __version__
from kbs.config import Settings
from kbs.k8s.lint import Rendered, Severity, lint
from kbs.k8s.lint.broker import configured
from tests.k8s.rendering import CHART, K8S, Object, Refused, helm, kustomize, kustomize_with, values

VERSIONS = ("1.34", "1.35", "1.36", "1.37")
OVERLAYS = ("dev", "prod", "ha", "air-gapped", "opa")  # and the chart says the same

FILES = ("dev", "ha", "air-gapped", "opa", "outside", "workload")
OURS = ("kbs.confidential.dev", "cert-manager.io", "gateway.networking.k8s.io", "monitoring.coreos.com")
EVERYTHING = """
resources: [K8S/overlays/prod]
components: [K8S/components/cert-manager, K8S/components/gateway, K8S/components/monitoring, K8S/components/opa]
configMapGenerator:
  - {name: kbs-settings, namespace: kbs, behavior: replace, files: [kbs.toml]}
images:
  - {name: ghcr.io/confidential-key-broker/kbs, digest: "sha256:DIGEST"}
"""


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    """The library reads 5 MB of JSON for each object; the text is the same each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas, "schema_contents", functools.cache(schemas.schema_contents))
        patch.setattr(schemas, "all_versions", functools.cache(schemas.all_versions))
        yield


def rendered(name: str) -> tuple[Object, ...]:
    """`kustomize FOLDER`, or `helm` with a file of values, or without."""
    program, _, what = name.partition(" ")
    if program == "kustomize":
        return kustomize(what)
    return helm(*(values(what) if what else ()))


ALL = [
    *(f"kustomize overlays/{each}" for each in (*OVERLAYS, "workload")),
    "kustomize webhook",
    "helm",
    *(f"helm {each}" for each in FILES),
]


@pytest.mark.parametrize("name", ALL)
def test_it_is_valid_and_passes_our_lint(name: str) -> None:
    objects = rendered(name)
    assert_valid(objects)
    dev = name.endswith("dev")
    findings = lint(Rendered(objects, dev=dev))
    assert {each.rule for each in findings} <= {"image-by-tag", "rights-all-secrets"}, findings
    assert not any(each.severity is Severity.ERROR for each in findings)


def assert_valid(objects: Iterable[Object]) -> None:
    """For every version, by the strict schemas: no member that it does not know."""
    for each in objects:
        if not each["apiVersion"].startswith(OURS):
            for version in VERSIONS:
                schemas.validate(each, version, strict=True)


def test_all_components_at_once_with_settings_of_a_users_own(tmp_path: Path) -> None:
    (tmp_path / "kbs.toml").write_text((K8S / "base/kbs.toml").read_text().replace('"tdx"', '"se"'))
    objects = kustomize_with(tmp_path, EVERYTHING.replace("DIGEST", "0" * 64))
    assert_valid(objects)
    found = Rendered(objects)
    assert {each.place for each in lint(found)} == {"StatefulSet/kbs container opa"}  # an image by tag
    (settings,) = (each.settings for each in configured(found))
    assert settings is not None
    assert settings.attestation.tees == ("snp", "se")
    assert settings.policy.engine == "opa-server"
    assert {"Gateway", "TLSRoute", "Certificate", "Issuer", "ServiceMonitor", "PrometheusRule"} <= {
        each["kind"] for each in objects
    }


def test_the_lint_sees_that_a_shipped_overlay_was_made_unsafe(tmp_path: Path) -> None:
    text = "resources: [K8S/overlays/prod]\nreplicas: [{name: kbs, count: 3}]\n"
    rules = {each.rule for each in lint(Rendered(kustomize_with(tmp_path, text)))}
    assert "replicas-without-postgres" in rules


def test_dev_is_seen_to_be_insecure() -> None:
    assert {"insecure-switch", "store-not-lasting"} <= {each.rule for each in lint(Rendered(kustomize("overlays/dev")))}
    for name in ("kustomize overlays/dev", "helm dev"):
        labels = next(each["metadata"]["labels"] for each in rendered(name) if each["kind"] == "StatefulSet")
        assert labels["kbs.confidential.dev/insecure"] == "true"


def test_air_gapped_has_no_way_out_but_names_and_its_controller() -> None:
    for name in ("kustomize overlays/air-gapped", "helm air-gapped"):
        (policy,) = (
            each for each in rendered(name) if (each["kind"], each["metadata"]["name"]) == ("NetworkPolicy", "kbs")
        )
        assert [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]] == [53, 53]


# --- one text, two programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_and_helm_say_the_same(overlay: str) -> None:
    mine = kustomize(f"overlays/{overlay}")
    theirs = helm(*(values(overlay) if overlay != "prod" else ()))
    assert _settings(mine) == _settings(theirs)
    left, right = _plain(mine), _plain(theirs)
    assert set(left) == set(right)
    for key in left:
        assert left[key] == right[key], key


def _settings(objects: Iterable[Object]) -> Settings:
    (found,) = (each.settings for each in configured(Rendered(tuple(objects), dev=True)))
    assert found is not None
    return found


LEFT_OUT = {
    ("ConfigMap", "kbs-settings"),
    ("Namespace", "kbs-webhook"),
}  # settings are compared as the broker reads them


def _plain(objects: Iterable[Object]) -> dict[tuple[str, str], Any]:
    """By kind and name, without what the two may differ in: labels, where settings stand, order, names of versions."""
    found = {}
    for each in objects:
        each = copy.deepcopy(each)
        name = re.sub(r"^(kbs-settings)-[a-z0-9]{10}$", r"\1", each["metadata"]["name"])
        if (each["kind"], name) in LEFT_OUT or each["kind"] == "CustomResourceDefinition":
            continue
        found[each["kind"], name] = _simple(each)
    return found


_NOISE = ("labels", "annotations", "namespace", "imagePullPolicy", "creationTimestamp")
_SETTING = re.compile(r"KBS__")


def _simple(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _simple(each) for name, each in value.items() if name not in _NOISE}
    if isinstance(value, list):
        kept = [_simple(each) for each in value if not (isinstance(each, dict) and _is_setting(each))]
        return sorted(kept, key=lambda each: json.dumps(each, sort_keys=True))
    if isinstance(value, str):
        return re.sub(r"^(kbs-settings)-[a-z0-9]{10}$", r"\1", value)
    return value


def _is_setting(each: dict[str, Any]) -> bool:
    return bool(_SETTING.match(str(each.get("name", ""))))


def test_selectors_of_the_chart_choose_its_pods() -> None:
    """Labels are left out of the comparison above."""
    objects = helm(*values("workload"))
    for service in (each for each in objects if each["kind"] == "Service"):
        chosen = [
            each["metadata"]["name"]
            for each in objects
            if each["kind"] in ("StatefulSet", "Deployment")
            and service["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert chosen == ["kbs-webhook" if "webhook" in service["metadata"]["name"] else "kbs"]


def test_another_release_in_another_namespace_has_other_names_everywhere() -> None:
    objects = helm(*values("workload"), *values("outside"), release="broker", namespace="elsewhere")
    assert_valid(objects)
    text = yaml.safe_dump_all(objects)
    assert "namespace: kbs" not in text
    assert ".kbs.svc" not in text
    assert 'job="broker-metrics"' in text
    assert {"broker-keys", "broker-tls"} <= set(re.findall(r"secretName: (\S+)", text))


def test_the_version_is_the_packages() -> None:
    images = {
        container["image"]
        for name in ("kustomize overlays/prod", "kustomize webhook", "helm workload")
        for each in rendered(name)
        if each["kind"] in ("StatefulSet", "Deployment")
        for container in each["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"ghcr.io/confidential-key-broker/kbs:{__version__}"}
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_definitions_are_in_the_chart() -> None:
    mine, theirs = kustomize("crds"), helm("--include-crds")
    definitions = [each for each in theirs if each["kind"] == "CustomResourceDefinition"]
    assert len(mine) == 5
    assert sorted(mine, key=_name) == sorted(definitions, key=_name)


def _name(each: Object) -> str:
    return str(each["metadata"]["name"])


# --- values ----------------------------------------------------------------------------------------------------------

UNSAFE: dict[str, tuple[str, str]] = {
    "replicas on SQLite": ("replicas=3", "Set settings.storage.kind: postgres"),
    "autoscaled on SQLite": ("autoscaling.enabled=true", "autoscaling.enabled: false"),
    "emptyDir": ("volume.kind=emptyDir", "Set volume.kind: claim"),
    "memory": ("settings.storage.kind=memory", "Set it to sqlite or postgres"),
    "postgres without an address": ("settings.storage.kind=postgres", "Set settings.storage.dsn_file"),
    "sample": ("settings.attestation.insecure_sample=true", "or set dev: true"),
    "database without TLS": ("settings.storage.insecure_transport=true", "or set dev: true"),
    "test root": ("settings.attestation.insecure_test_root=x", "or set dev: true"),
    "anybody is admin": ("settings.admin.mode=insecure-allow-all", "or set dev: true"),
    "plain HTTP": ("settings.server.insecure_http=true", "or set dev: true"),
    "HTTP behind a load balancer": (
        "dev=true,settings.server.insecure_http=true,service.type=LoadBalancer",
        "Remove settings.server.insecure_http",
    ),
    "HTTP on a node's port": (
        "dev=true,settings.server.insecure_http=true,service.type=NodePort",
        "Remove settings.server.insecure_http",
    ),
    "HTTP behind a gateway": (
        "dev=true,settings.server.insecure_http=true,gateway.enabled=true,gateway.host=a.b,gateway.className=c",
        "disable gateway and ingress",
    ),
    "no admin listener": ("settings.server.admin_listen=null", "missing property 'admin_listen'"),
    "admin beside guests": ("settings.server.admin_listen=0.0.0.0:8080", "/settings/server/admin_listen"),
    "no metrics listener": ("settings.server.metrics_listen=", "/settings/server/metrics_listen"),
    "keys in the image": ("settings.keys.sealing=/usr/key", "/settings/keys/sealing"),
    "gateway without a name": ("gateway.enabled=true", "Set gateway.host and gateway.className"),
    "ingress without a name": ("ingress.enabled=true", "Set ingress.host and ingress.className"),
    "OPA elsewhere": ("settings.policy.engine=opa-server", "Set settings.policy.opa_url"),
    "certificate that is not used": (
        "dev=true,settings.server.insecure_http=true,tls.certManager.enabled=true",
        "Remove one of them",
    ),
    "autoscaler upside down": ("autoscaling.minReplicas=9", "Set minReplicas to at most maxReplicas"),
    "image latest": ("image.tag=latest", "/image/tag"),
    "image by half a digest": ("image.digest=sha256:12", "/image/digest"),
    "no memory limit": ("resources.limits.memory=null", "missing property 'memory'"),
    "admin for every namespace": ("networkPolicy.adminNamespaceLabels=null", "missing property 'adminNamespaceLabels'"),
    "replicas in words": ("replicas=two", "/replicas"),
    "no replica": ("replicas=0", "/replicas"),
    "a value that is none": ("replicaCount=1", "'replicaCount' not allowed"),
    "a section that is none": ("settings.server=1", "/settings/server"),
    "a TEE that is no list": ("settings.attestation.tees=snp", "/settings/attestation/tees"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_values_are_refused_with_what_to_do(name: str) -> None:
    given, advice = UNSAFE[name]
    with pytest.raises(Refused) as caught:
        helm("--set", given)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        '{"server":{"max_body":12582912},"endorsements":{"timeout_seconds":2.5,"stores":["https://a","https://b"]}}',
        '{"token":{"trusted":[{"issuer":"it\'s \\"x\\"","jwks":"/a/b","max_life_seconds":60}]}}',
        '{"attestation":{"tees":["cca"],"options":{"cca":{"cca_sw_components":[{"type":"a","n":{"m":[1,true]}}]}}}}',
        '{"policy":{"tenants":{"a.b":["r1","r2"]}},"compat":{"allow_rsa1_5":true}}',
    ],
    ids=["numbers", "tables in lists", "deep", "names"],
)
def test_any_setting_goes_through_the_values_unchanged(given: str) -> None:
    found = dataclasses.asdict(_settings(helm("--set-json", f"settings={given}")))
    for section, members in json.loads(given).items():
        for name, value in members.items():
            assert json.loads(json.dumps(found[section][name], default=str)) == _with_defaults(
                value, found[section][name]
            )


def _with_defaults(value: Any, found: Any) -> Any:
    """Lists of tables have their defaults filled in."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and isinstance(found, tuple):
        return [
            json.loads(json.dumps({**full, **given}, default=str)) for given, full in zip(value, found, strict=True)
        ]
    return value
