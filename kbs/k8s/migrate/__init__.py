"""From an installation of the reference (Trustee: its operator, its Helm chart, or its settings files alone) to ours.

Pure: bytes and objects in, files and a report out. Every setting that is read gets a verdict; what nobody knows is an
error and never dropped. Bytes of Secrets are looked at where that tells whether the broker could use them, and are
never part of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kbs.errors import MalformedMessage
from kbs.k8s.migrate import operator, sources
from kbs.k8s.migrate.broker import read_admin, read_server, read_storage, read_tokens, unflatten
from kbs.k8s.migrate.model import Draft, Entry, Table, Verdict
from kbs.k8s.migrate.paths import Reading
from kbs.k8s.migrate.plugins import read_plugins
from kbs.k8s.migrate.policies import Found, Judge, add_policy
from kbs.k8s.migrate.sources import Config, Given, Installation, Object
from kbs.k8s.migrate.values import read_values
from kbs.k8s.migrate.verifier import read_attestation, read_provider, read_verifier

__all__ = ["Draft", "Entry", "Given", "Question", "Verdict", "migrate"]

_TEES: Final = ("snp", "tdx")
_NAMES: Final = ("StatefulSet/kbs", "Service/kbs", "Service/kbs-admin", "Service/kbs-metrics")
_SETTINGS: Final = (".toml", ".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be migrated.

    Attributes:
        files: manifests and settings files.
        objects: of a cluster that was asked.
        namespace: of the new broker; None: that of the objects, else `kbs`.
        tees: to accept; empty: those that the settings speak of, else snp and tdx.
        local: a file of the old broker by its path, from this machine.
    """

    files: Sequence[Given]
    objects: Sequence[Object]
    namespace: str | None
    tees: Sequence[str]
    local: Callable[[str], bytes | None]


def migrate(question: Question, judge: Judge, now: datetime) -> Draft:
    """Read everything and put the new installation together.

    Raises:
        MalformedMessage: input that cannot be decoded, has a member of another type, or is more than one installation.
        PolicyCompilerMissing: there are policies, and no `opa`.
    """
    draft = Draft(question.namespace or "kbs")
    found = sources.read(question.files, question.objects, draft)
    draft.namespace = question.namespace or found.namespace or "kbs"
    reading = Reading(draft, found, question.local)
    policies = [*_read_objects(reading, now)]
    _read_settings(reading)
    operator.read_mounted_resources(reading)
    operator.read_services(reading)
    if found.specs and not draft.hosts:
        draft.hosts.append("kbs-service")
    paths = [each["spec"]["path"] for each in draft.objects if each["kind"] == "BrokerResource"]
    samples = [path if path.count("/") == 2 else f"{path}/key" for path in paths][:50]
    for policy in policies:
        add_policy(draft, policy, judge(policy, [*samples, "default/key/1"]))
    _settle_tees(draft, question.tees)
    _account_for_the_rest(reading)
    _last_steps(reading)
    return draft


def _read_objects(reading: Reading, now: datetime) -> Iterator[Found]:
    found = reading.found
    for document in found.workloads:
        operator.read_workload(document, reading)
    for document in found.specs:
        spec = document.get("spec")
        if not isinstance(spec, dict):
            raise MalformedMessage(f"{document['kind']}/{sources.name_of(document)} has no spec")
        table = Table(reading.draft, f"{document['kind']}/{sources.name_of(document)}", spec)
        values = table.take("kbsRvpsRefValuesConfigMapName", str)
        if values is not None:
            read_values(reading, values, table.source, "kbsRvpsRefValuesConfigMapName", now)
        yield from operator.read_spec(table, document["kind"], reading)
        table.close()


def _read_settings(reading: Reading) -> None:
    found = reading.found
    _take_config_maps(found)
    kbs, verifier, provider = found.kbs, found.verifier, found.provider
    if not kbs and not verifier and not provider:
        if found.specs or found.workloads or found.secrets or found.config_maps:
            raise MalformedMessage("no settings of a KBS among the input: give the ConfigMap with kbs-config.toml, too")
        raise MalformedMessage("nothing to migrate: the input holds neither settings nor objects of an installation")
    if len(kbs) > 1:
        named = ", ".join(each.source for each in kbs)
        raise MalformedMessage(f"several settings files of a KBS ({named}): give those of one installation")
    for config in kbs:
        _read_kbs(unflatten(config), reading)
    for config in verifier:
        table = Table(reading.draft, config.source, config.content)
        read_verifier(table, reading)
        table.close()
    for config in provider:
        table = Table(reading.draft, config.source, config.content)
        read_provider(table)
        table.close()


def _read_kbs(config: Config, reading: Reading) -> None:
    root = Table(reading.draft, config.source, config.content)
    read_server(root, reading)
    read_tokens(root)
    read_attestation(root, reading)
    read_admin(root, reading)
    read_storage(root.table("storage_backend"))
    read_plugins(root, reading)
    why = "of older versions: policies and resources are in the store"
    root.drop(Verdict.NOT_NEEDED, why, "policy_engine", "policy_engine_config", "repository_config", "timeout")
    root.close()


def _take_config_maps(found: Installation) -> None:
    """ConfigMaps that hold settings files, by what is in them; those that a KbsConfig names go before."""
    wanted = {
        str(spec["spec"].get(member))
        for spec in found.specs
        for member in ("kbsConfigMapName", "kbsAsConfigMapName", "kbsRvpsConfigMapName")
        if isinstance(spec.get("spec"), dict)
    }
    named = {name: texts for name, texts in found.config_maps.items() if name in wanted}
    for name, texts in (named or found.config_maps).items():
        for key, text in texts.items():
            if ("ConfigMap", name) in found.used or not key.endswith(_SETTINGS):
                continue
            config = _settings_in(f"ConfigMap/{name} {key}", key, text, strict=name in wanted)
            kind = None if config is None else sources.kind_of(config.content)
            if config is not None and kind is not None:
                getattr(found, kind).append(config)
    for config in (*found.kbs, *found.verifier, *found.provider):
        kind_name, _, rest = config.source.partition("/")
        if kind_name == "ConfigMap":
            found.used.add(("ConfigMap", rest.partition(" ")[0]))


def _settings_in(source: str, key: str, text: str, *, strict: bool) -> Config | None:
    try:
        return Config(source, sources.decode(key, text.encode()).content)
    except MalformedMessage as err:
        if strict:
            raise MalformedMessage(f"{source}: {err}") from None
        return None


def _settle_tees(draft: Draft, wanted: Sequence[str]) -> None:
    tees = [*wanted] or [*draft.tees] or [*_TEES]
    draft.set("attestation.tees", tees)
    said = "given by --tee" if wanted else ("the settings speak of them" if draft.tees else "the usual ones")
    why = f"the reference verifies every TEE it was built for; here they are listed ({said}): name yours with --tee"
    named = ", ".join(f'"{each}"' for each in tees)
    draft.note("", "TEEs", Verdict.OURS if wanted else Verdict.BY_HAND, why, f"attestation.tees = [{named}]")


def _account_for_the_rest(reading: Reading) -> None:
    found = reading.found
    for kind, names in (("ConfigMap", found.config_maps), ("Secret", found.secrets)):
        for name in names:
            if (kind, name) not in found.used:
                why = "nothing of the installation names it; it stays where it is"
                reading.draft.note(f"{kind}/{name}", "", Verdict.NOT_NEEDED, why)


def _is_named(document: Object, name: str) -> bool:
    return f"{document['kind']}/{sources.name_of(document)}" == name


def _last_steps(reading: Reading) -> None:
    draft, found = reading.draft, reading.found
    draft.steps.append(
        "Resources and policies that were uploaded to the old broker are in its store, which is not read: "
        "set them again with `kbs resource set` and `kbs policy set`."
    )
    if draft.tls is None:
        draft.steps.append("Guests need the new CA in their init data, and https:// in the address: docs/init-data.md.")
    if draft.refused_policies:
        draft.steps.append("Policies in `not-taken/` are not in force; the strict defaults are.")
    if any(each["kind"] == "ReferenceValueSet" for each in draft.objects):
        draft.steps.append("Have reference values signed by their publishers in future: docs/reference-values/.")
    same = [name for name in _NAMES if any(_is_named(each, name) for each in (*found.workloads, *found.services))]
    if same and found.namespace == draft.namespace:
        why = (
            f"{' and '.join(same)} of the old installation have the names of ours: install into another namespace "
            "(--namespace), or remove the old one first"
        )
        draft.note("", "names", Verdict.BY_HAND, why)
        draft.steps.insert(0, f"Before anything is applied: {why}.")
    foreign = {name for kind, name in found.used if kind == "Secret"}
    if foreign and found.namespace is not None and found.namespace != draft.namespace:
        draft.steps.insert(
            0, f"Copy these Secrets from {found.namespace} to {draft.namespace} first: {', '.join(sorted(foreign))}."
        )
    if found.specs or found.workloads:
        draft.steps.append("When guests have moved, remove the old installation; its Secrets named here stay in use.")
