"""From a small YAML to a document: the broker's address and CA stand once, and come out wherever a guest wants them.

    kbs:
      url: https://kbs.example:8080
      ca: [ca.pem]                  # files with certificates
    algorithm: sha256               # the default
    agent_policy: policy.rego       # file
    image:
      policy: kbs:///default/security-policy/production
      credentials: kbs:///default/credential/production
      registries: kbs:///default/registry-configuration/production
      mirrors: {docker.io: [mirror.example/library]}   # in place of `registries`
    attestation_agent: {log: {level: debug}}           # more of aa.toml
    confidential_data_hub: {…}                         # more of cdh.toml
    labels: {workload: payments-frontend}

The text is decided here once and for all: `version`, `algorithm`, an empty line, `[data]`, then `aa.toml`, `cdh.toml`
and `policy.rego` with an empty line between them, then the labels sorted by name (`toml_text` writes them). The same
YAML and the same files give the same octets. Source: guest-components 4.1, 5.1, 5.2, 1.11.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

from kbs.errors import MalformedMessage
from kbs.initdata import toml_text, yaml_text
from kbs.initdata.document import AA, CDH, ENTRIES, POLICY, Document, parse

VERSION: Final = "0.1.0"
"""The only one that Kata starts."""

ReadFile = Callable[[str], bytes]
"""The octets of a file that the YAML names. May raise OSError."""

_ALGORITHMS: Final = ("sha256", "sha384", "sha512")  # what Kata computes
_MEMBERS: Final = frozenset(
    {"kbs", "algorithm", "agent_policy", "image", "attestation_agent", "confidential_data_hub", "labels"}
)
_IMAGE: Final = {
    "policy": "image_security_policy_uri",
    "credentials": "authenticated_registry_credentials_uri",
    "registries": "registry_configuration_uri",
    "sigstore": "sigstore_config_uri",
}
_DERIVED: Final = frozenset({"agent_policy_claims", "agent_policy_rules_sha256"})


def render(raw: bytes, read_file: ReadFile) -> Document:
    """Make the document of a YAML.

    Raises:
        MalformedMessage: YAML that is not taken, a member that is unknown, missing or of another type, a file that is
            no text, a setting that stands twice.
        OSError: a file that cannot be read.
    """
    found = yaml_text.documents(raw)
    if len(found) != 1:
        raise MalformedMessage("init data: expected one YAML document")
    given = _object(found[0], "the YAML")
    _only(given, _MEMBERS, "the YAML")
    algorithm = given.get("algorithm", _ALGORITHMS[0])
    if algorithm not in _ALGORITHMS:
        raise MalformedMessage(f"init data: algorithm must be one of {', '.join(_ALGORITHMS)}")
    text = _text(algorithm, _data(given, read_file), _labels(given))
    document = parse(text.encode("utf-8"))
    assert document.data == _data(given, read_file) | _labels(given), "the text does not say what was put in"
    return document


def _text(algorithm: str, entries: Mapping[str, str], labels: Mapping[str, str]) -> str:
    head = f'version = "{VERSION}"\nalgorithm = "{algorithm}"\n\n[data]\n'
    known = "\n".join(toml_text.entry(name, text) for name, text in entries.items())
    return head + known + "".join(toml_text.entry(name, text) for name, text in sorted(labels.items()))


def _data(given: Mapping[str, Any], read_file: ReadFile) -> dict[str, str]:
    kbs = _object(given.get("kbs"), "kbs")
    _only(kbs, frozenset({"url", "ca"}), "kbs")
    url = _word(kbs.get("url"), "kbs.url")
    certificate = _certificates(kbs, read_file)
    aa: dict[str, Any] = {"token_configs": {"kbs": {"url": url}}}
    cdh: dict[str, Any] = {"kbc": {"name": "cc_kbc", "url": url}}
    if certificate is not None:
        aa["token_configs"]["kbs"]["cert"] = certificate
        cdh["kbc"]["kbs_cert"] = certificate
    image = _image(given)
    if image:
        cdh["image"] = image
    _merge(aa, _object(given.get("attestation_agent", {}), "attestation_agent"), "attestation_agent")
    _merge(cdh, _object(given.get("confidential_data_hub", {}), "confidential_data_hub"), "confidential_data_hub")
    entries = {AA: toml_text.table(aa), CDH: toml_text.table(cdh)}
    for name, text in entries.items():
        try:
            tomllib.loads(text)
        except ValueError:  # numbers such as .inf that YAML has otherwise, or of thousands of digits
            raise MalformedMessage(f"init data: a setting for {name} has no form in TOML") from None
    if given.get("agent_policy") is not None:
        entries[POLICY] = _file(read_file, _word(given["agent_policy"], "agent_policy"))
    return entries


def _certificates(kbs: Mapping[str, Any], read_file: ReadFile) -> str | None:
    """The text of all files, one after another."""
    named = kbs.get("ca")
    if named is None:
        return None
    names = named if isinstance(named, list) else [named]
    if not names:
        raise MalformedMessage("init data: kbs.ca names no file")
    texts = [_file(read_file, _word(name, "kbs.ca")) for name in names]
    if any("PRIVATE KEY" in text for text in texts):
        raise MalformedMessage("init data: a file of kbs.ca holds a private key; init data are no secret")
    if not all("-----BEGIN CERTIFICATE-----" in text for text in texts):
        raise MalformedMessage("init data: a file of kbs.ca holds no certificate in PEM")
    return "".join(text.replace("\r\n", "\n").strip("\n") + "\n" for text in texts)


def _image(given: Mapping[str, Any]) -> dict[str, Any]:
    image = _object(given.get("image", {}), "image")
    _only(image, frozenset({*_IMAGE, "mirrors"}), "image")
    found: dict[str, Any] = {key: _word(image[name], f"image.{name}") for name, key in _IMAGE.items() if name in image}
    if "mirrors" in image:
        if "registries" in image:
            raise MalformedMessage("init data: image.registries and image.mirrors say the same: write one of them")
        found["registry_config"] = {"registry": [_mirrored(*each) for each in _mirrors(image["mirrors"]).items()]}
    return found


def _mirrors(value: Any) -> Mapping[str, Any]:
    mirrors = _object(value, "image.mirrors")
    if not mirrors:
        raise MalformedMessage("init data: image.mirrors names no registry")
    return mirrors


def _mirrored(registry: str, locations: Any) -> dict[str, Any]:
    """As registries.conf has it: asked in this order, and the registry itself at the end."""
    given = locations if isinstance(locations, list) else [locations]
    mirrors = [{"location": _word(each, f"image.mirrors.{registry}")} for each in given]
    return {"prefix": registry, "location": registry, "mirror": mirrors}


def _labels(given: Mapping[str, Any]) -> dict[str, str]:
    labels = _object(given.get("labels", {}), "labels")
    for name, text in labels.items():
        if not isinstance(text, str):
            raise MalformedMessage(f"init data: label {name[:64]!r} is not a text; put it in quotes")
        if name in ENTRIES or name in _DERIVED or not name:
            raise MalformedMessage(f"init data: {name[:64]!r} is not a name for a label")
    return dict(labels)


def _merge(into: dict[str, Any], more: Mapping[str, Any], where: str) -> None:
    """Add settings. One that stands already is refused: nobody can tell which of the two was meant."""
    for name, each in more.items():
        if name not in into:
            into[name] = each
        elif isinstance(each, dict) and isinstance(into[name], dict):
            _merge(into[name], each, f"{where}.{name}")
        else:
            raise MalformedMessage(f"init data: {where}.{name} stands already elsewhere in the YAML")


def _file(read_file: ReadFile, name: str) -> str:
    try:
        text = read_file(name).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage(f"init data: {name[:128]} is not UTF-8 text") from None
    if "\0" in text or text.startswith("\ufeff"):
        raise MalformedMessage(f"init data: {name[:128]} has NUL or a byte order mark in it")
    return text


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MalformedMessage(f"init data: {where} is missing or not a table of members")
    return value


def _only(given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        raise MalformedMessage(f"init data: {where} has the unknown member {unknown[0][:64]!r}; known: "
                               f"{', '.join(sorted(known))}")  # fmt: skip


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise MalformedMessage(f"init data: {where} is missing or not a text of one line")
    return value
