"""The attestation service's settings, built in or in a file of its own (attestation-service 5, kbs-protocol 9.2), and
those of the reference value provider (rvps 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from kbs.k8s.migrate.broker import read_storage
from kbs.k8s.migrate.keys import take_signer
from kbs.k8s.migrate.model import Table, Verdict
from kbs.k8s.migrate.paths import Reading

_HERE: Final = "the broker verifies evidence itself"
_INTEL: Final = "/sgx/certification/v4"
_TOKEN_TEXTS: Final[Mapping[str, str]] = {
    "developer_name": "token.developer",
    "profile_name": "token.eat_profile",
}
_OLD: Final = ("work_dir", "policy_dir", "policy_engine", "rvps_store_type")
_TYPES: Final[Mapping[str, str]] = {
    "coco_as_builtin": "built in",
    "CoCoASBuiltIn": "built in",
    "coco_as_grpc": "grpc",
    "CoCoASGrpc": "grpc",
    "intel_ta": "intel",
    "IntelTA": "intel",
}


def read_attestation(root: Table, reading: Reading) -> None:
    """`[attestation_service]` of the KBS."""
    service = root.table("attestation_service")
    if service is None:
        return
    kind = service.take("type", str)
    if kind is not None:
        _kind(service, kind)
    minutes = service.take("timeout", int)
    if minutes is not None:
        seconds = max(minutes, 1) * 60
        service.draft.set("handshake.challenge_ttl_seconds", seconds)
        why = "was in minutes"
        service.note("timeout", Verdict.OURS, why, f"handshake.challenge_ttl_seconds = {seconds}")
    service.drop(Verdict.NOT_NEEDED, _HERE, "as_addr", "pool_size", "base_url", "certs_file")
    if service.has("api_key"):
        service.take("api_key", str)
        why = f"{_HERE}. The key stood in a settings file in clear: withdraw it at Intel"
        service.note("api_key", Verdict.NOT_NEEDED, why)
    if service.has("policy_ids"):
        ids = service.take("policy_ids", list)
        why = "policies kept at Intel do not come along: write them as evidence policies (docs/policies)"
        verdict = Verdict.BY_HAND if ids else Verdict.NOT_NEEDED
        service.note("policy_ids", verdict, why if ids else "is empty")
    if service.has("allow_unmatched_policy"):
        if service.take("allow_unmatched_policy", bool):
            why = "evidence that matches no policy would be good: nothing affirms here unless a policy says so"
            service.note("allow_unmatched_policy", Verdict.REFUSED, why)
        else:
            service.note("allow_unmatched_policy", Verdict.NOT_NEEDED, "nothing affirms unless a policy says so")
    read_verifier(service, reading)


def _kind(service: Table, kind: str) -> None:
    how = _TYPES.get(kind)
    if how is None:
        service.note("type", Verdict.UNKNOWN, "no attestation service of any version that is known here")
    elif how == "built in":
        service.note("type", Verdict.OURS, _HERE)
    elif how == "grpc":
        why = f"{_HERE}: the service of its own is needed no more. Give its settings file too, if you have one"
        service.note("type", Verdict.NOT_NEEDED, why)
    else:
        service.draft.tee("tdx", "sgx")
        why = f"Intel Trust Authority is not asked: {_HERE}, with Intel's collateral, and default policies decide"
        service.note("type", Verdict.NOT_OFFERED, why, 'attestation.tees = ["tdx", "sgx"]')


def read_verifier(service: Table, reading: Reading) -> None:
    """What a built-in service and one of its own have in common."""
    service.drop(Verdict.NOT_NEEDED, "of older versions, which had files where there is a store now", *_OLD)
    if service.has("storage_type"):
        service.drop(Verdict.NOT_NEEDED, "there is one store for all", "storage_type")
    for name in ("attestation_token_broker", "attestation_token_config"):
        if not service.has(name):
            continue
        if isinstance(service.peek(name), str):
            service.drop(Verdict.NOT_NEEDED, "the only kind of token is EAR", name)
            continue
        broker = service.table(name)
        if broker is not None:
            _token_broker(broker, reading)
    provider = service.table("rvps_config")
    if provider is not None:
        read_provider(provider)
    verifiers = service.table("verifier_config")
    if verifiers is not None:
        _verifiers(verifiers)
    read_storage(service.table("storage_backend"))


def _token_broker(broker: Table, reading: Reading) -> None:
    minutes = broker.take("duration_min", int)
    if minutes is not None:
        seconds = max(minutes, 1) * 60
        broker.draft.set("token.lifetime_seconds", seconds)
        broker.note("duration_min", Verdict.OURS, "in seconds", f"token.lifetime_seconds = {seconds}")
    for member, setting in _TOKEN_TEXTS.items():
        text = broker.take(member, str)
        if text is not None:
            broker.draft.set(setting, text)
            broker.note(member, Verdict.OURS, "word for word", setting)
    issuer = broker.take("issuer_name", str)
    if issuer == "CoCo-Attestation-Service":
        broker.note("issuer_name", Verdict.OURS, "the default, as long as server.public_url is not set")
    elif issuer is not None:
        _issuer(broker, issuer)
    verbose = broker.take("verbose_token", bool)
    if verbose is not None:
        broker.draft.set("attestation.verbose_token", verbose)
        broker.note("verbose_token", Verdict.OURS, "as before", "attestation.verbose_token")
    broker.drop(Verdict.NOT_NEEDED, "tokens name this broker's version", "build_name")
    broker.drop(Verdict.NOT_NEEDED, "the only kind of token is EAR", "type")
    broker.drop(Verdict.NOT_NEEDED, "policies are in the store", "policy_dir")
    signer = broker.table("signer")
    if signer is not None:
        take_signer(signer, reading)


def _issuer(broker: Table, issuer: str) -> None:
    address = urlsplit(issuer)
    if address.scheme == "https" and address.hostname:
        broker.draft.set("server.public_url", issuer)
        why = "the `iss` of tokens; OIDC discovery answers there, too"
        broker.note("issuer_name", Verdict.OURS, why, "server.public_url")
    else:
        why = (
            "the `iss` of tokens is CoCo-Attestation-Service or server.public_url, an address; tell whoever compares it"
        )
        broker.note("issuer_name", Verdict.NOT_OFFERED, why)


def read_provider(provider: Table) -> None:
    """Where reference values were kept."""
    why = "reference values are in the broker's own store; a service of their own: docs/reference-values/service.md"
    provider.drop(Verdict.NOT_NEEDED, why, "type", "address", "storage_type", "store_type", "remote_addr")
    for name in ("storage", "storage_backend"):
        if provider.has(name):
            provider.take(name, dict)
            provider.note(name, Verdict.NOT_NEEDED, f"{why}. Values in it are not read: give them as a file")
    if provider.has("extractors"):
        provider.take("extractors", dict)
        why = "signed SWID documents count when a publisher's keys or roots are listed (docs/reference-values)"
        provider.note("extractors", Verdict.BY_HAND, why)


def _verifiers(verifiers: Table) -> None:
    snp = verifiers.table("snp_verifier")
    if snp is not None:
        verifiers.draft.tee("snp")
        _snp(snp)
    dcap = verifiers.table("dcap_verifier")
    if dcap is not None:
        verifiers.draft.tee("tdx")
        _dcap(dcap)
    if verifiers.has("tpm_verifier"):
        verifiers.take("tpm_verifier", dict)
        why = (
            "the reference believes whatever attestation key evidence brings along, whatever this says. Here keys are "
            "enrolled: a JSON file as attestation.anchors.tpm, and tpm in attestation.tees (docs/verifiers/tpm.md)"
        )
        verifiers.note("tpm_verifier", Verdict.BY_HAND, why)
    why = "evidence of GPUs and DPUs of NVIDIA is not verified here; guests that send it are refused"
    for name in ("nvidia_verifier", "nvidia_dpu_verifier"):
        if verifiers.has(name):
            verifiers.take(name, dict)
            verifiers.note(name, Verdict.NOT_OFFERED, why)


def _snp(snp: Table) -> None:
    for source in snp.tables("vcek_sources"):
        kind = source.take("type", str)
        if kind == "KDS":
            url = source.take("base_url", str)
            if url is not None:
                _address(source, "base_url", url.rstrip("/"), "endorsements.amd_url")
            source.note("type", Verdict.OURS, "AMD is asked after what is at hand", "endorsements.amd_url")
        elif kind == "OfflineStore":
            source.drop(Verdict.BY_HAND, "the path of the store, see type", "path")
            why = (
                "certificates that were imported are used first: kbs endorsements import, or a volume with the same "
                "layout as endorsements.offline (docs/verifiers/endorsements.md)"
            )
            source.note("type", Verdict.BY_HAND, why)
        else:
            source.note("type", Verdict.UNKNOWN, "not a source of any version of the reference that is known here")


def _dcap(dcap: Table) -> None:
    url = dcap.take("collateral_service", str)
    if url is not None:
        base = url.rstrip("/").removesuffix(_INTEL)
        if base.startswith("file://"):
            why = "collateral from a file: kbs endorsements import, and endorsements.network = false"
            dcap.note("collateral_service", Verdict.BY_HAND, why)
        else:
            _address(dcap, "collateral_service", base, "endorsements.intel_urls")
    if dcap.has("use_secure_cert"):
        if dcap.take("use_secure_cert", bool) is False:
            why = "certificates are always checked; a cache with its own authority: endorsements.ca_file"
            dcap.note("use_secure_cert", Verdict.REFUSED, why)
        else:
            dcap.note("use_secure_cert", Verdict.NOT_NEEDED, "certificates are always checked")
    update = dcap.take("tcb_update_type", str)
    if update in ("early", "standard"):
        dcap.draft.set("endorsements.tcb_update", update)
        dcap.note("tcb_update_type", Verdict.OURS, "as before", f'endorsements.tcb_update = "{update}"')
    elif update is not None:
        dcap.note("tcb_update_type", Verdict.UNKNOWN, "Intel has `early` and `standard`")


def _address(where: Table, member: str, url: str, setting: str) -> None:
    address = urlsplit(url)
    if address.scheme != "https" or not address.hostname or address.username is not None:
        where.note(member, Verdict.REFUSED, "only https://HOST[:PORT] is asked")
        return
    value: Any = [url] if setting.endswith("s") else url
    where.draft.set(setting, value)
    where.note(member, Verdict.OURS, "without the path, which the broker adds itself", f"{setting} = {url}")
