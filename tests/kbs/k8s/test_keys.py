"""Keys for a broker in a cluster: complete, of one piece, and never twice the same."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from kbs import config
from kbs.admin.admin_tokens import AdminTokenSettings
from kbs.app import build
from kbs.errors import ConfigInvalid
from kbs.k8s.keys import POD_SECURITY, Wanted, key_manifests

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def made(**wanted: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name."""
    listed = key_manifests(Wanted(**{"namespace": "kbs", **wanted}), NOW)
    return {(each["kind"], each["metadata"]["name"]): dict(each) for each in listed}


def content(manifest: dict[str, Any]) -> dict[str, bytes]:
    """What the kubelet writes into files."""
    return {name: base64.b64decode(value, validate=True) for name, value in manifest["data"].items()}


def test_what_is_made() -> None:
    found = made()
    assert set(found) == {
        ("Secret", "kbs-keys"),
        ("Secret", "kbs-tls"),
        ("ConfigMap", "kbs-ca"),
        ("Secret", "kbs-admin-token"),
    }
    assert found["Secret", "kbs-keys"]["immutable"] is True
    assert found["Secret", "kbs-tls"]["type"] == "kubernetes.io/tls"
    assert {each["metadata"]["namespace"] for each in found.values()} == {"kbs"}


def test_the_namespace_comes_first_and_is_restricted() -> None:
    found = made(create_namespace=True)
    first = next(iter(found.values()))
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "kbs")
    assert POD_SECURITY.items() <= first["metadata"]["labels"].items()
    assert first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_each_time_they_are_others() -> None:
    first, second = (content(made()["Secret", "kbs-keys"]) for _ in range(2))
    assert set(first) == set(second) == {"sealing.key", "session.key", "token.pem", "admin.pem", "audit.pem"}
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize(
    "host", ["kbs.kbs.svc", "kbs-admin.kbs.svc.cluster.local", "kbs-metrics.kbs.svc", "kbs.example"]
)
def test_the_certificate_is_good_for_each_name(host: str) -> None:
    found = made(hosts=["kbs.example"])
    tls = content(found["Secret", "kbs-tls"])
    authority = x509.load_pem_x509_certificate(tls["ca.crt"])
    assert found["ConfigMap", "kbs-ca"]["data"]["ca.crt"].encode() == tls["ca.crt"]
    leaf = x509.load_pem_x509_certificate(tls["tls.crt"])
    policy = PolicyBuilder().store(Store([authority])).time(NOW.replace(tzinfo=None))
    policy.build_server_verifier(x509.DNSName(host)).verify(leaf, [])


def test_without_tls_there_is_none() -> None:
    assert set(made(tls=False)) == {("Secret", "kbs-keys"), ("Secret", "kbs-admin-token")}


def test_a_broker_runs_on_them_as_they_are_mounted(tmp_path: Path) -> None:
    found = made(name="broker", namespace="elsewhere")
    keys, data = tmp_path / "keys", tmp_path / "data"
    keys.mkdir()
    data.mkdir()
    for name, value in content(found["Secret", "broker-keys"]).items():
        (keys / name).write_bytes(value)
        (keys / name).chmod(0o440)
    lines = [f'{name.partition(".")[0]} = "{keys / name}"' for name in content(found["Secret", "broker-keys"])]
    settings = config.read("[keys]\n" + "\n".join(lines), {}, name="kbs.toml")
    broker = build(data, settings, clock=lambda: NOW)
    broker.close()


def test_bad_wishes_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="neither an address nor a host name"):
        made(hosts=["b\u00fccher.example"])
    assert AdminTokenSettings().max_life == timedelta(days=7)  # as the documents say
