"""Objects of the Trustee operator, `KbsConfig` and `TrusteeConfig` (guest-components 6.4), and what a Helm chart's
Deployments say beside their settings files (6.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kbs.k8s.lint.objects import members, place, table
from kbs.k8s.migrate.keys import keep_certificate, keep_token_key
from kbs.k8s.migrate.model import FileRef, Table, Verdict
from kbs.k8s.migrate.paths import Reading, secret_mounts
from kbs.k8s.migrate.policies import Found
from kbs.k8s.migrate.resources import add_resource
from kbs.k8s.migrate.sources import name_of
from kbs.policy.engine import PolicyKind

_KEYS: Final = ("token.key", "tls.key", "privateKey", "key.pem")
_CERTIFICATES: Final = ("token.crt", "tls.crt", "certificate", "cert.pem")
_REPOSITORY: Final = re.compile(r".*/repository/([^/]+)/([^/]+)/?")
_POLICIES: Final[Mapping[str, tuple[PolicyKind, str]]] = {
    "kbsAttestationPolicyConfigMapName": (PolicyKind.EVIDENCE, "default_cpu"),
    "kbsGpuAttestationPolicyConfigMapName": (PolicyKind.EVIDENCE, "default_gpu"),
    "kbsResourcePolicyConfigMapName": (PolicyKind.RESOURCE, "resource-policy"),
}
_SPECS_OF_POD: Final = ("nodeSelector", "tolerations", "affinity", "imagePullSecrets", "priorityClassName")
_IBM: Final = re.compile(r"(DEFAULT_)?SE_[A-Z_]+|CERTS_OFFLINE_VERIFICATION")


def read_spec(spec: Table, kind: str, reading: Reading) -> Iterator[Found]:
    """A `KbsConfig` or `TrusteeConfig`; the policies that it names."""
    if kind == "TrusteeConfig":
        _trustee(spec, reading)
    spec.drop(Verdict.NOT_NEEDED, "broker, verifier and reference values are one program", "kbsDeploymentType")
    for member in ("kbsConfigMapName", "kbsAsConfigMapName", "kbsRvpsConfigMapName"):
        name = spec.take(member, str)
        if name is not None:
            given = name in reading.found.config_maps
            why = "its settings are below" if given else f"ConfigMap {name} is not in the input: give it, too"
            spec.note(member, Verdict.OURS if given else Verdict.UNKNOWN, why)
    _service(spec)
    _secrets(spec, reading)
    _keys(spec, reading)
    _local(spec)
    _environment(spec.table("KbsEnvVars"))
    deployment = spec.table("KbsDeploymentSpec") or spec.table("kbsDeploymentSpec")
    replicas = None if deployment is None else deployment.take("replicas", int)
    if deployment is not None and replicas is not None:
        _replicas(deployment, "replicas", replicas)
    for member, (policy, policy_id) in _POLICIES.items():
        name = spec.take(member, str)
        if name is not None:
            yield from _named_policies(spec, member, name, policy, policy_id, reading)


def _trustee(spec: Table, reading: Reading) -> None:
    profile = spec.take("profileType", str)
    if profile == "Permissive":
        why = "plain HTTP, tokens believed by their own key, a policy that gives everybody everything"
        spec.note("profileType", Verdict.REFUSED, why, "the strict defaults")
    elif profile is not None:
        spec.note("profileType", Verdict.OURS, "the defaults here are strict")
    for member, use in (("httpsSpec", keep_certificate), ("attestationTokenVerificationSpec", None)):
        inner = spec.table(member)
        name = None if inner is None else inner.take("tlsSecretName", str)
        if inner is None or name is None:
            continue
        if use is not None:
            use(
                reading,
                _ref(reading, name, _CERTIFICATES),
                _ref(reading, name, _KEYS),
                spec.source,
                inner.name("tlsSecretName"),
            )
        else:
            _token(reading, name, name, spec.source, inner.name("tlsSecretName"))
    storage = spec.table("ibmSE")
    if storage is not None:
        storage.drop(Verdict.BY_HAND, _SE, "pvName")
    tls = spec.table("tlsConfig")
    if tls is not None:
        why = (
            "TLS 1.2 and 1.3 with the suites and groups that OpenSSL offers by default; there is no setting for others"
        )
        tls.drop(Verdict.NOT_OFFERED, why, "profile", "minVersion", "maxVersion", "ciphers", "groups")


_SE: Final = (
    "host-key documents, lists and image headers go into the folder attestation.options.se.se_directory, and se into "
    "attestation.tees (docs/verifiers/se.md)"
)


def _ref(reading: Reading, name: str, keys: tuple[str, ...]) -> FileRef:
    """The key of a Secret that is there, else the usual one."""
    present = reading.found.secret_keys(name)
    return FileRef(
        "Secret", name, next((key for key in keys if key in present), present[0] if len(present) == 1 else keys[0])
    )


def _token(reading: Reading, key: str, chain: str | None, source: str, setting: str) -> None:
    if reading.draft.token_key is not None:
        reading.draft.note(source, setting, Verdict.OURS, "the key that the settings name, see there")
        return
    certificates = None if chain is None else _ref(reading, chain, _CERTIFICATES)
    keep_token_key(reading, _ref(reading, key, _KEYS), certificates, source, setting)


def _service(spec: Table) -> None:
    kind = spec.take("kbsServiceType", str)
    if kind in ("NodePort", "LoadBalancer"):
        spec.draft.service_type = kind
        spec.note(
            "kbsServiceType",
            Verdict.OURS,
            "of the guests' Service; TLS ends in the broker",
            f"Service kbs: type {kind}",
        )
    elif kind is not None:
        spec.note("kbsServiceType", Verdict.NOT_NEEDED, "the default")


def _secrets(spec: Table, reading: Reading) -> None:
    for name in spec.texts("kbsSecretResources"):
        add_resource(reading, "default", name, name, spec.source, spec.name("kbsSecretResources"))


def _keys(spec: Table, reading: Reading) -> None:
    auth = spec.take("kbsAuthSecretName", str)
    if auth is not None:
        reading.found.used.add(("Secret", auth))
        why = "a public key of administrators: where [admin] names it as that of a provider, it stays in use"
        spec.note("kbsAuthSecretName", Verdict.OURS, why)
    certificate, key = spec.take("kbsHttpsCertSecretName", str), spec.take("kbsHttpsKeySecretName", str)
    if certificate is not None and key is not None:
        cert_ref, key_ref = _ref(reading, certificate, _CERTIFICATES), _ref(reading, key, _KEYS)
        keep_certificate(reading, cert_ref, key_ref, spec.source, spec.name("kbsHttpsCertSecretName"))
        spec.note("kbsHttpsKeySecretName", Verdict.OURS, "goes with the certificate, see there")
    elif certificate is not None or key is not None:
        member = "kbsHttpsCertSecretName" if key is None else "kbsHttpsKeySecretName"
        spec.note(member, Verdict.REFUSED, "certificate and key go together")
    chain, signing = spec.take("kbsAttestationCertSecretName", str), spec.take("kbsAttestationKeySecretName", str)
    if signing is not None:
        _token(reading, signing, chain, spec.source, spec.name("kbsAttestationKeySecretName"))
    if chain is not None:
        reading.found.used.add(("Secret", chain))
        spec.note("kbsAttestationCertSecretName", Verdict.OURS, "goes with the key of tokens, where that is kept")


def _local(spec: Table) -> None:
    ibm = spec.table("ibmSEConfigSpec")
    if ibm is not None:
        ibm.drop(Verdict.BY_HAND, _SE, "certStorePvc")
    tdx = spec.table("tdxConfigSpec")
    if tdx is not None:
        spec.draft.tee("tdx")
        why = "Intel's library is not used; another cache than Intel's own: endorsements.intel_urls"
        tdx.drop(Verdict.BY_HAND, why, "kbsTdxConfigMapName")
    cache = spec.table("kbsLocalCertCacheSpec")
    for secret in [] if cache is None else cache.tables("secrets"):
        spec.draft.tee("snp")
        why = "certificates of processors: kbs endorsements import, or a volume named by endorsements.offline"
        secret.drop(Verdict.BY_HAND, why, "secretName", "mountPath")


def _replicas(where: Table, member: str, replicas: int) -> None:
    if replicas > 1:
        where.draft.replicated = True
        why = "several brokers share PostgreSQL: the overlay ha scales from 3 to 8"
        where.note(member, Verdict.OURS, why, 'storage.kind = "postgres"')
    else:
        where.note(member, Verdict.NOT_NEEDED, "the default")


def _environment(variables: Table | None) -> None:
    if variables is None:
        return
    for name in variables.members():
        if name.startswith("RUST_"):
            verdict, why = Verdict.NOT_NEEDED, "of programs in Rust"
        elif name == "POSTGRES_URL":
            verdict, why = (
                Verdict.BY_HAND,
                "an empty database of its own; its address goes into the Secret kbs-postgres",
            )
            variables.draft.replicated = True
        elif name == "REDIS_URL":
            verdict, why = Verdict.NOT_OFFERED, "replicas share PostgreSQL here"
        elif name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            verdict, why = (
                Verdict.NOT_OFFERED,
                "proxies do not count; a cache inside: endorsements.intel_urls and stores",
            )
        elif _IBM.fullmatch(name):
            verdict, why = Verdict.BY_HAND, _SE
        elif name == "CCA_CONFIG_FILE":
            verdict, why = Verdict.BY_HAND, "anchors of Arm CCA: attestation.options.cca (docs/verifiers/cca.md)"
        elif name == "KBS_CONFIG_FILE":
            verdict, why = Verdict.NOT_NEEDED, "the settings are below"
        else:
            continue
        variables.drop(verdict, why, name)


def _named_policies(
    spec: Table, member: str, name: str, kind: PolicyKind, policy_id: str, reading: Reading
) -> Iterator[Found]:
    texts = reading.found.config_maps.get(name)
    if texts is None:
        spec.note(member, Verdict.UNKNOWN, f"ConfigMap {name} is not in the input: give it, too")
        return
    reading.found.used.add(("ConfigMap", name))
    spec.note(member, Verdict.OURS, "see its keys")
    for key, text in sorted(texts.items()):
        named = key.removesuffix(".rego")
        own = named if kind is PolicyKind.EVIDENCE and named.startswith("default_") else policy_id
        yield Found(f"ConfigMap/{name}", key, kind, own, text)


# --- Deployments ------------------------------------------------------------------------------------------------------


def read_workload(document: Mapping[str, Any], reading: Reading) -> None:
    """A Deployment or StatefulSet: replicas, variables, mounted resources, and where its Pods run."""
    draft, where = reading.draft, place(document)
    owners = [str(each.get("kind")) for each in members(document, "metadata", "ownerReferences")]
    draft.note(where, "", Verdict.NOT_NEEDED, "what is installed brings its own Pods; below is what was looked at")
    is_broker = "as" not in name_of(document).split("-") and "rvps" not in name_of(document)
    replicas = table(document, "spec").get("replicas")
    if is_broker and isinstance(replicas, int) and "KbsConfig" not in owners:
        _replicas(Table(draft, where, {}, "spec"), "replicas", replicas)
    pod = table(document, "spec", "template", "spec")
    for member in _SPECS_OF_POD:
        if pod.get(member):
            why = "patch it into the StatefulSet kbs"
            draft.note(where, f"spec.template.spec.{member}", Verdict.BY_HAND, why)
    for container in members(pod, "containers"):
        names = {str(each.get("name")): "" for each in members(container, "env")}
        variables = Table(draft, where, names, f"container {container.get('name')}: env")
        _environment(variables)
        variables.close()


def read_mounted_resources(reading: Reading) -> None:
    """Secrets that a chart mounted into the folder of resources."""
    for path, name in dict.fromkeys(secret_mounts(reading.found)):
        found = _REPOSITORY.fullmatch(path)
        if found is not None:
            add_resource(reading, found[1], found[2], name, "volumeMounts", path)


def read_services(reading: Reading) -> None:
    """The names by which guests call the old broker, and how they come in."""
    for document in reading.found.services:
        name, spec = name_of(document), table(document, "spec")
        words = name.split("-")
        if "kbs" not in words or "as" in words or "rvps" in words:
            reading.draft.note(f"Service/{name}", "", Verdict.NOT_NEEDED, "what is installed brings its own")
            continue
        reading.draft.hosts.append(name)
        kind = spec.get("type")
        if kind in ("NodePort", "LoadBalancer") and reading.draft.service_type is None:
            reading.draft.service_type = str(kind)
        why = "guests call this name: see the steps"
        reading.draft.note(f"Service/{name}", "", Verdict.OURS, why, "Service kbs")
