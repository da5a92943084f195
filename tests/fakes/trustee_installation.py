"""An installation of the reference as `kubectl get -o yaml` prints it: by its operator, or by its Helm chart.

Made here, after the published definitions of `KbsConfig` and the chart's values; all keys are throw-away.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

Object = dict[str, Any]
NAMESPACE = "trustee-operator-system"
SECRET = b"PASSWORD-OF-THE-DATABASE"
HELD = "2049-01-01T00:00:00Z"

SETTINGS = """
[http_server]
sockets = ["0.0.0.0:8080"]
insecure_http = false
private_key = "/etc/https-key/privateKey"
certificate = "/etc/https-cert/certificate"

[admin]
authorization_mode = "AuthenticatedAuthorization"

[admin.authentication.bearer_jwt]
identity_providers = [{ issuer = "people", public_key_uri = "/etc/auth-secret/publicKey" }]

[admin.authorization.regex_acl]
acls = [{ role = "admin", allowed_endpoints = "^/kbs/.+$" }]

[attestation_token]
trusted_certs_paths = ["/etc/attestation-cert/token.crt"]

[attestation_service]
type = "coco_as_builtin"

[attestation_service.attestation_token_broker]
duration_min = 7

[attestation_service.attestation_token_broker.signer]
key_path = "/etc/attestation-key/token.key"
cert_path = "/etc/attestation-cert/token.crt"

[attestation_service.rvps_config]
type = "BuiltIn"

[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
"""

OLD_REGO = """package policy

default allow = false

allow {
  input["submods"]["cpu0"]["ear.status"] == "affirming"
}
"""
PERMISSIVE = """package policy

import rego.v1

default allow = false

allow if data.plugin == "resource"
"""
VALUES = f"""[
  {{"name": "svn", "expiration": "{HELD}", "value": [1]}},
  {{"name": "snp_launch_measurement", "expiration": "2048-06-01T00:00:00+00:00", "value": ["00ff"]}},
  {{"name": "gone", "expiration": "2020-01-01T00:00:00Z", "value": [3]}},
  {{"name": "older", "expiration": "{HELD}", "hash-value": [{{"alg": "sha384", "value": "aa"}}]}}
]"""


@cache
def new_pair(*names: str, ca: bool = False) -> tuple[bytes, bytes]:
    """A self-signed certificate for host names, and its key; both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2049, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM), pem


@cache
def public_key() -> bytes:
    """Of an administrator; PEM."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def new(kind: str, name: str, *, group: str = "v1", namespace: str = NAMESPACE, **members: Any) -> Object:
    """An object."""
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **members}


def secret(name: str, **content: bytes) -> Object:
    """A Secret; `__` in a key stands for a dot."""
    data = {key.replace("__", "."): base64.b64encode(value).decode() for key, value in content.items()}
    return new("Secret", name, type="Opaque", data=data)


def config_map(name: str, **content: str) -> Object:
    """A ConfigMap; `__` in a key stands for a dot, `_0_` for a hyphen."""
    return new(
        "ConfigMap", name, data={key.replace("_0_", "-").replace("__", "."): text for key, text in content.items()}
    )


def by_operator(
    *,
    settings: str = SETTINGS,
    policy: str = OLD_REGO,
    hosts: Sequence[str] = ("kbs-service", f"kbs-admin.{NAMESPACE}.svc"),
    **changes: Any,
) -> list[Object]:
    """What the operator's namespace holds."""
    certificate, key = new_pair(*hosts)
    token_certificate, token_key = new_pair("token")
    spec = {
        "kbsConfigMapName": "kbs-config",
        "kbsAuthSecretName": "kbs-auth",
        "kbsDeploymentType": "AllInOneDeployment",
        "kbsServiceType": "NodePort",
        "kbsHttpsKeySecretName": "https-key",
        "kbsHttpsCertSecretName": "https-cert",
        "kbsAttestationKeySecretName": "token-key",
        "kbsAttestationCertSecretName": "token-cert",
        "kbsSecretResources": ["database", "disk"],
        "kbsRvpsRefValuesConfigMapName": "rvps-reference-values",
        "kbsResourcePolicyConfigMapName": "resource-policy",
        "KbsEnvVars": {"RUST_LOG": "debug"},
        "KbsDeploymentSpec": {"replicas": 1},
        **changes,
    }
    return [
        new("KbsConfig", "kbsconfig", group="confidentialcontainers.org/v1alpha1", spec=spec, status={"isReady": True}),
        config_map("kbs-config", kbs_0_config__toml=settings),
        config_map("rvps-reference-values", reference_0_values__json=VALUES),
        config_map("resource-policy", policy__rego=policy),
        config_map("kube-root-ca.crt", ca__crt="-"),
        secret("kbs-auth", publicKey=public_key()),
        secret("https-cert", certificate=certificate),
        secret("https-key", privateKey=key),
        secret("token-key", token__key=token_key),
        secret("token-cert", token__crt=token_certificate),
        secret("database", password=SECRET, user=b"kbs"),
        secret("disk", **{"key__1": bytes(32)}),
        new("Service", "kbs-service", spec={"type": "NodePort", "ports": [{"port": 8080}]}),
        new("Pod", "trustee-deployment-0", spec={}),
    ]


def by_chart() -> list[Object]:
    """What a release of the chart consists of: three programs, keys in one Secret, resources mounted as files."""
    certificate, key = new_pair("token")
    keys = "/opt/confidential-containers/kbs/user-keys"
    settings = f"""
session_storage_type = "Redis"
[http_server]
sockets = ["0.0.0.0:8080"]
insecure_http = true
[attestation_token]
trusted_certs_paths = ["{keys}/token-cert-chain.pem"]
[attestation_service]
type = "coco_as_grpc"
as_addr = "http://as:50004"
timeout = 30
[admin]
authorization_mode = "AuthenticatedAuthorization"
[admin.authentication.bearer_jwt]
identity_providers = [{{ issuer = "release", public_key_uri = "{keys}/public.pub" }}]
[admin.authorization.regex_acl]
acls = [{{ role = "admin", allowed_endpoints = "^/kbs/.+$" }}]
[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
[storage_backend]
storage_type = "Postgres"
"""
    verifier = f"""{{
  "work_dir": "/opt/as", "policy_engine": "opa",
  "rvps_config": {{"type": "GrpcRemote", "address": "http://rvps:50003"}},
  "attestation_token_broker": {{"duration_min": 5,
    "signer": {{"key_path": "{keys}/token.key", "cert_path": "{keys}/token-cert-chain.pem"}}}}
}}"""
    provider = '{"storage": {"storage_type": "Postgres", "backends": {}}, "extractors": {"swid_extractor": {}}}'
    resources = "/opt/confidential-containers/kbs/repository/team/web"
    pod = {
        "nodeSelector": {"role": "trusted"},
        "containers": [
            {
                "name": "kbs",
                "env": [
                    {"name": "RUST_LOG", "value": "info"},
                    {"name": "POSTGRES_URL", "value": "postgres://u:p@db/kbs"},
                ],
                "volumeMounts": [
                    {"name": "user-keys", "mountPath": keys},
                    {"name": "team-web", "mountPath": resources},
                ],
            }
        ],
        "volumes": [
            {"name": "user-keys", "secret": {"secretName": "kbs-user-keys"}},
            {"name": "team-web", "secret": {"secretName": "web"}},
        ],
    }
    files = {
        "public__pub": public_key(),
        "token__key": key,
        "token_0_cert_0_chain__pem": certificate,
    }
    user_keys = secret("kbs-user-keys")
    user_keys["data"] = {
        name.replace("_0_", "-").replace("__", "."): base64.b64encode(value).decode() for name, value in files.items()
    }
    return [
        new("StatefulSet", "kbs", group="apps/v1", spec={"replicas": 2, "template": {"spec": pod}}),
        new("StatefulSet", "rvps", group="apps/v1", spec={"replicas": 2, "template": {"spec": {"containers": []}}}),
        config_map("kbs-config", kbs_0_config__toml=settings),
        config_map("as-config", as_0_config__json=verifier),
        config_map("rvps-config", rvps__json=provider),
        user_keys,
        secret("web", certificate=SECRET),
        new("Secret", "sh.helm.release.v1.trustee.v1", type="helm.sh/release.v1", data={"release": "H4s="}),
        new("Service", "kbs", spec={"ports": [{"port": 8080}]}),
        new("Service", "as", spec={"ports": [{"port": 50004}]}),
    ]
