"""`kbs k8s wire`, `check` and `webhook-cert`, as people run them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from cryptography import x509

from kbs.initdata import annotation
from kbs.k8s.api import ApiConflict, ApiKind, Object
from kbs.k8s.model import PROFILE_LABEL
from kbs.k8s.webhook.registration import REGISTERED
from tests.fakes.broker import BrokerUnderTest
from tests.fakes.profiles import CLASS, init_data, pod, profile_object, rendered
from tests.kbs.cli.conftest import Run, bad_json, good_json, invoke

Write = Callable[..., Path]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes objects to a file of YAML documents."""

    def write(name: str, *objects: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump_all(objects))
        return path

    return write


def kinds(result: Result) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(result.stdout)}


@pytest.fixture(scope="module")
def sealing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A public key, and a sealed string of its owner."""
    folder = tmp_path_factory.mktemp("sealing")
    made = invoke(None, "secret", "keygen", "kbs:///default/sealing/team", "--out", folder)
    assert made.exit_code == 0, made.output
    private = next(folder.glob("*private.json"))
    sealed = invoke(None, "secret", "seal", "vault", "--resource", "kbs:///default/key/1", "--key", private)
    assert sealed.exit_code == 0, sealed.output
    (folder / "sealed").write_text(sealed.stdout.strip())
    return next(folder.glob("*public.json")), folder / "sealed"


# --- wire -------------------------------------------------------------------------------------------------------------


def test_wire_prints_everything(write: Write, sealing: tuple[Path, Path]) -> None:
    secrets = [{"secretName": "db", "env": "DB_PASSWORD"}]
    source = write("p.yaml", profile_object(sealedSecrets=secrets))
    done = invoke(
        None, "k8s", "wire", "--profile", source, "--namespace", "shop", "--sealed", f"db/DB_PASSWORD={sealing[1]}"
    )
    assert done.exit_code == 0
    assert done.stdout.startswith(f"# Put this label on Pods, or Pod templates:   {PROFILE_LABEL}: web\n")
    found = kinds(done)
    assert set(found) == {"ServiceAccount", "Secret", "NetworkPolicy", "WorkloadProfile"}
    assert {each["metadata"]["namespace"] for each in found.values()} == {"shop"}
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    assert found["Secret"]["stringData"]["DB_PASSWORD"] == sealing[1].read_text()
    assert found["WorkloadProfile"]["spec"] == {
        "runtimeClassName": CLASS,
        "rendered": rendered(),
        "sealedSecrets": secrets,
    }
    assert found["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": {PROFILE_LABEL: "web"}}
    assert "the NetworkPolicy lets" in done.stderr
    assert "seal it" not in done.stderr


@pytest.mark.parametrize(
    ("url", "port", "peer"),
    [
        ("https://10.1.2.3", 443, {"ipBlock": {"cidr": "10.1.2.3/32"}}),
        ("http://[2001:db8::1]:8080", 8080, {"ipBlock": {"cidr": "2001:db8::1/128"}}),
        (
            "https://kbs.trusted.svc.cluster.local:8443",
            8443,
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "trusted"}}},
        ),
        ("https://kbs.example:8080", 8080, {"ipBlock": {"cidr": "0.0.0.0/0"}}),
    ],
    ids=["address", "ipv6", "service", "name"],
)
def test_the_way_to_the_kbs(write: Write, url: str, port: int, peer: dict[str, Any]) -> None:
    source = write("p.yaml", profile_object(rendered=rendered(init_data(url)), images={"pull": "host"}))
    egress = kinds(invoke(None, "k8s", "wire", "--profile", source, "--namespace", "shop"))["NetworkPolicy"]["spec"][
        "egress"
    ]
    assert len(egress) == 2
    assert egress[1]["ports"] == [{"port": port, "protocol": "TCP"}]
    assert egress[1]["to"][0] == peer


def test_wire_takes_a_profile_with_status(write: Write) -> None:
    raw = profile_object()
    made = raw["spec"].pop("rendered")
    raw["spec"]["initData"] = {"yaml": "x"}
    raw["spec"]["brokerRef"] = {"name": "kbs"}
    conditions = [
        {"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("Registered", "Ready")
    ]
    raw["status"] = {
        "observedGeneration": 1,
        "conditions": conditions,
        "initDataAnnotation": made["annotation"],
        "initDataDigest": made["digest"],
        "algorithm": "sha256",
        "kbsUrl": "https://kbs.test:8080",
    }
    listed = write("p.yaml", {"kind": "List", "items": [raw]})
    alone = ("--no-service-account", "--no-network-policy")
    done = invoke(None, "k8s", "wire", "--profile", listed, "--namespace", "shop", *alone)
    assert kinds(done) == {
        "WorkloadProfile": {
            "apiVersion": "kbs.confidential.dev/v1alpha1",
            "kind": "WorkloadProfile",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app.kubernetes.io/part-of": "kbs"}},
            "spec": {"runtimeClassName": CLASS, "kbsUrl": "https://kbs.test:8080", "rendered": made},
        }
    }
    raw["status"]["conditions"][0]["status"] = "False"
    refused = invoke(None, "k8s", "wire", "--profile", write("p.yaml", raw), "--namespace", "shop")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "[profile-not-registered]" in refused.stderr
    assert "kubectl -n shop describe workloadprofile web" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "{p}", "--namespace", "other"], "[namespace-not-allowed]"),
        (["--profile", "nowhere", "--namespace", "shop"], "--from-kubeconfig"),
        (["--profile", "{pod}", "--namespace", "shop"], "has 0 WorkloadProfiles"),
        (["--profile", "{p}", "--namespace", "shop", "--sealed", "x"], "write SECRET/KEY=FILE"),
        (["--profile", "{p}", "--namespace", "shop", "--sealed", "a/b={pod}"], "begins with sealed."),
        (["--profile", "{p}", "--namespace", "shop", "--sealed", "a/b=/nowhere"], "No such file"),
        (["--profile", "{text}", "--namespace", "shop"], "has no kind"),
        (["--profile", "{bad}", "--namespace", "shop"], "[profile-broken]"),
        (["--profile", "{unknown}", "--namespace", "shop"], "WorkloadProfile:"),
        (["--profile", "{p}"], "--namespace"),
    ],
    ids=["namespace", "no file", "pod", "sealed word", "not sealed", "no sealed", "text", "digest", "member", "option"],
)
def test_wire_refuses(write: Write, words: list[str], said: str) -> None:
    files = {
        "p": write("p.yaml", profile_object()),
        "pod": write("pod.yaml", pod()),
        "text": write("text.yaml", "hello"),
        "bad": write("bad.yaml", profile_object(rendered=rendered() | {"digest": "00" * 32})),
        "unknown": write("unknown.yaml", profile_object(runtimeClas="x")),
    }
    done = invoke(None, "k8s", "wire", *(each.format(**files) for each in words))
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert said in done.stderr


class Cluster:
    """An API server that remembers; `Api` as far as `apply_all` uses it."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], Object] = {}

    def create(self, kind: ApiKind, namespace: str, body: Object) -> Object:
        assert body["metadata"]["namespace"] == namespace
        if (kind.label, body["metadata"]["name"]) in self.there:
            raise ApiConflict("there")
        self.there[kind.label, body["metadata"]["name"]] = body
        return body

    def patch(
        self, kind: ApiKind, namespace: str, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        self.there[kind.label, name] = body
        return body


def test_wire_applies_and_may_be_run_again(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Cluster()
    monkeypatch.setattr("kbs.cli.k8s_wire.connect", lambda *_, **__: cluster)
    kubeconfig = write("kubeconfig", {})
    words = ["k8s", "wire", "--profile", write("p.yaml", profile_object()), "--namespace", "shop", "--apply"]
    first = good(invoke(None, *words, "--kubeconfig", kubeconfig, "--json"))
    again = good(invoke(None, *words, "--kubeconfig", kubeconfig, "--json"))
    assert [each.split()[-1] for each in first["applied"]] == ["created"] * 3
    assert [each.split()[-1] for each in again["applied"]] == ["configured"] * 3
    assert list(cluster.there)[-1] == ("workloadprofiles.kbs.confidential.dev", "web")


def good(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- webhook-cert -----------------------------------------------------------------------------------------------------


def test_webhook_cert_names_what_is_shipped(tmp_path: Path) -> None:
    shipped = list(yaml.safe_load_all((ROOT / "k8s/webhook/configurations.yaml").read_text()))
    assert {each["kind"]: tuple(w["name"] for w in each["webhooks"]) for each in shipped} == dict(REGISTERED)
    first = list(yaml.safe_load_all(invoke(None, "k8s", "webhook-cert").stdout))
    ca = tmp_path / "ca.pem"
    ca.write_text(first[0]["stringData"]["ca.crt"])
    secret, *bundles = yaml.safe_load_all(invoke(None, "k8s", "webhook-cert", "--with-ca", ca).stdout)
    assert secret["metadata"] == {"name": "kbs-webhook-tls", "namespace": "kbs-webhook"}
    (leaf,) = x509.load_pem_x509_certificates(secret["stringData"]["tls.crt"].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert "kbs-webhook.kbs-webhook.svc" in names
    for each, configuration in zip(bundles, shipped, strict=True):
        assert each["metadata"]["name"] == configuration["metadata"]["name"]
        for webhook in each["webhooks"]:
            trusted = x509.load_pem_x509_certificates(base64.b64decode(webhook["clientConfig"]["caBundle"]))
            assert len(trusted) == 2
            leaf.verify_directly_issued_by(trusted[0])


def test_webhook_cert_refuses(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no certificate")
    for words, code in ((["--with-ca", tmp_path / "x"], 1), (["--namespace", "A_B"], 2)):
        done = invoke(None, "k8s", "webhook-cert", *words)
        assert (done.exit_code, done.stdout) == (code, "")


# --- check ------------------------------------------------------------------------------------------------------------


def names(report: Any) -> set[str]:
    return {each["name"] for each in report["checks"] if each["verdict"] == "bad"}


def test_check_without_a_profile_looks_at_what_is_there(write: Write) -> None:
    (report,) = bad_json(invoke(None, "k8s", "check", write("pod.yaml", pod(label=None)), "--json"))["pods"]
    assert names(report) == {"runtime-class-missing", "init-data-missing"}
    wired = pod(label=None, runtimeClassName=CLASS)
    wired["metadata"]["annotations"] = {annotation.KEY: rendered()["annotation"]}
    (report,) = good_json(invoke(None, "k8s", "check", write("pod.yaml", wired), "--json"))["pods"]
    assert (report["ok"], report["tee"], report["digest"]) == (True, "sample", rendered()["digest"])


def test_check_of_a_deployment_with_all_beside_it(write: Write, sealing: tuple[Path, Path]) -> None:
    secret = {"kind": "Secret", "metadata": {"name": "db"}, "stringData": {"DB_PASSWORD": sealing[1].read_text()}}
    workload = {"kind": "Deployment", "metadata": {"name": "w", "namespace": "shop"}, "spec": {"template": pod()}}
    profile = profile_object(sealedSecrets=[{"secretName": "db", "env": "DB_PASSWORD"}])
    file = write("all.yaml", profile, secret, workload)
    (report,) = good_json(invoke(None, "k8s", "check", file, "--jwk", sealing[0], "--json"))["pods"]
    assert report["pod"] == "Deployment w"
    assert report["requests"] == ["kbs:///default/sealing/team", "kbs:///default/key/1"]
    shown = invoke(None, "k8s", "check", file, "--jwk", sealing[0])
    assert "would attest" in shown.stdout
    assert "db/DB_PASSWORD: verified" in shown.stdout


def _with(**changed: Any) -> list[Any]:
    return [profile_object(), pod(**changed)]


BAD: dict[str, tuple[list[Any], set[str]]] = {
    "host network": (_with(hostNetwork=True), {"host-network"}),
    "tag": (_with(container={"image": "nginx"}), {"image-not-pinned"}),
    "other profile": (_with(label="other"), {"profile-unknown"}),
    "malformed": ([profile_object(), pod() | {"spec": {"containers": 1}}], {"pod-malformed"}),
    "not sealed": (
        [
            profile_object(sealedSecrets=[{"secretName": "db", "env": "P"}]),
            {"kind": "Secret", "metadata": {"name": "db"}, "data": {"P": base64.b64encode(b"plain").decode()}},
            pod(),
        ],
        {"not-sealed"},
    ),
    "damaged seal": (_with(container={"env": [{"name": "X", "value": "sealed.a.b"}]}), {"sealed-refused"}),
    "two addresses": (
        [
            profile_object(
                rendered=rendered(init_data().replace(b'url = "https://kbs.test', b'url = "https://a.test', 1))
            ),
            pod(),
        ],
        {"kbs-url-differs"},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_check_says_why_not(case: str, write: Write) -> None:
    objects, expected = BAD[case]
    result = invoke(None, "k8s", "check", write("f.yaml", *objects), "-n", "shop", "--json")
    (report,) = bad_json(result)["pods"]
    assert names(report) == expected


def test_check_of_nothing(write: Write) -> None:
    done = invoke(None, "k8s", "check", write("f.yaml", profile_object()))
    assert done.exit_code == 1
    assert "no Pod in these files" in done.stderr


def test_check_asks_the_broker(
    run: Run, ready: None, broker: BrokerUnderTest, write: Write, sealing: tuple[Path, Path], tmp_path: Path
) -> None:
    raw = init_data()
    (tmp_path / "init.toml").write_bytes(raw)
    secret = {"kind": "Secret", "metadata": {"name": "db"}, "stringData": {"P": sealing[1].read_text()}}
    profile = profile_object(sealedSecrets=[{"secretName": "db", "env": "P"}])
    file = write("f.yaml", profile, secret, pod())
    words = ["k8s", "check", file, "-n", "shop", "--jwk", sealing[0], "--json"]
    (report,) = json.loads(run(*words).stdout)["pods"]
    assert names(report) == {"not-registered"}
    assert run("initdata", "register", tmp_path / "init.toml", "--name", "web", "--owner", "team").exit_code == 0
    (report,) = good_json(run(*words))["pods"]
    said = [each["text"] for each in report["checks"] if each["what"] in ("broker", "register", "policy")]
    assert said == [
        "takes evidence of sample",
        "the broker expects these init data: web",
        "kbs:///default/sealing/team: a good guest gets it",
        "kbs:///default/key/1: a good guest gets it",
    ]
    assert run("policy", "set-resource", "--shipped", "affirming").exit_code == 0
    (report,) = bad_json(run(*words))["pods"]
    assert names(report) == {"policy-denies"}
    (report,) = bad_json(run(*words, "--tee", "se"))["pods"]
    assert "tee-not-enabled" in names(report)


@pytest.mark.parametrize("member", ["metadata", "data", "stringData"])
def test_check_of_a_secret_that_is_none(write: Write, member: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, member: 1}
    done = invoke(None, "k8s", "check", write("f.yaml", profile_object(), pod(), secret), "-n", "shop")
    assert done.exit_code == 1
    assert f"{member} of a Secret is no object" in done.stderr
