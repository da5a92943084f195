"""From settings to verifiers: which TEEs are enabled, and what each verifier is made with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kbs import extensions, strict_json
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.config import AttestationSettings
from kbs.errors import ConfigInvalid, MalformedMessage, PayloadTooLarge
from kbs.protocol.tee import Tee

_SAMPLES: Final = ("sample", "sampledevice")  # they have no vendor


def enabled_verifiers(data: Path, settings: AttestationSettings) -> dict[Tee, Verifier]:
    """The verifiers of the TEEs that the settings name.

    Raises:
        ConfigInvalid: a TEE that nobody verifies, options or anchors that cannot be used.
    """
    found: dict[Tee, Verifier] = {}
    for name, factory in extensions.load("kbs.verifiers", settings.tees).items():
        found[Tee(name)] = factory(verifier_options(data, settings, name))
    return found


def verifier_options(data: Path, settings: AttestationSettings, name: str) -> VerifierOptions:
    """What the verifier of one TEE is made with.

    Raises:
        ConfigInvalid: a file of anchors or options that cannot be used.
    """
    path = settings.anchors.get(name)
    anchors = None if path is None else _document(f"attestation.anchors.{name}", data / path)
    options: dict[str, Any] = dict(settings.options.get(name, {}))
    if settings.insecure_test_root is not None and name not in _SAMPLES:
        setting, folder = "attestation.insecure_test_root", data / settings.insecure_test_root
        anchors = _document(setting, folder / f"{name}.anchors.json") if anchors is None else anchors
        options = {**_document(setting, folder / f"{name}.options.json"), **options}
    if name in settings.allow_unchecked_revocation:
        options["allow_unchecked_revocation"] = list(settings.allow_unchecked_revocation)
    if name in _SAMPLES:
        options["enable_sample"] = settings.insecure_sample
    return VerifierOptions(options, anchors, data)


def _document(setting: str, path: Path) -> Mapping[str, Any]:
    try:
        document = strict_json.decode(path.read_bytes())
    except OSError as err:
        raise ConfigInvalid(f"{setting}: {path}: {err.strerror}") from None
    except (MalformedMessage, PayloadTooLarge) as err:
        raise ConfigInvalid(f"{setting}: {path}: {err}") from None
    if not isinstance(document, dict):
        raise ConfigInvalid(f"{setting}: {path} is not a JSON object")
    return document
