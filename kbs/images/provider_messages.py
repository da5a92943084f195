"""Requests and answers of the key-provider protocol, and the parameters in them.

Byte strings come as base64 or as arrays of integers, and `optsdata` also as its own text; they go out as arrays of
integers, which every implementation reads. `null`, missing and `{}` mean the same. Source: guest-components 2.3, 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kbs import strict_json
from kbs.errors import KbsError
from kbs.images.errors import RequestRefused
from kbs.images.layer_options import from_base64
from kbs.images.packet import WrapType
from kbs.secret import Secret
from kbs.strict_json import Json

NAME: Final = "attestation-agent"
"""What the field calls its key provider in `OCICRYPT_KEYPROVIDER_CONFIG` and in the name of the annotation."""

MAX_REQUEST: Final = 1 << 20  # bytes
_LIMITS: Final = strict_json.Limits(size=MAX_REQUEST, depth=16, tokens=100_000)
_NOTHING: Final = "Enabled"  # what ocicrypt sends where nothing stands after the provider's name
_PARAMETERS: Final = ("keyid", "keypath", "algorithm", "sample")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What stands after `provider:NAME:`. keyid: as written. sample: the published test KEK."""

    keyid: str | None = None
    keypath: Path | None = None
    algorithm: WrapType = WrapType.A256GCM
    sample: bool = False


@dataclass(frozen=True, slots=True)
class WrapRequest:
    """Wrap these private options."""

    parameters: Parameters
    plbco: Secret


@dataclass(frozen=True, slots=True)
class UnwrapRequest:
    """Unwrap this packet (its JSON text). parameters: of the decryption key; empty where they are a placeholder."""

    parameters: Parameters
    packet: bytes


def parse_request(raw: bytes, *, name: str = NAME) -> WrapRequest | UnwrapRequest:
    """Read a request.

    Args:
        name: of this provider; the parameters of others are passed over.

    Raises:
        RequestRefused: not of this protocol; unknown parameters; parameters of several keys at once.
    """
    try:
        request = strict_json.decode(raw, limits=_LIMITS)
    except KbsError:  # its text may name a place within a layer's key
        raise RequestRefused("the request is not JSON, or an object in it repeats a member") from None
    if not isinstance(request, dict):
        raise RequestRefused("the request is not a JSON object")
    operation = request.get("op")
    if operation == "keywrap":
        given = _object(request, "keywrapparams")
        texts = _texts(_object(_object(given, "ec"), "Parameters"), name)
        return WrapRequest(parse_parameters(_only(texts)), Secret(_bytes(given, "optsdata", text_too=True)))
    if operation == "keyunwrap":
        given = _object(request, "keyunwrapparams")
        texts = _texts(_object(_object(given, "dc"), "Parameters"), name)
        # The field writes any word here, for there must be one: it says nothing without an equals sign.
        said = [text for text in texts if "=" in text]
        return UnwrapRequest(parse_parameters(_only(said)), _bytes(given, "annotation"))
    raise RequestRefused("op is neither keywrap nor keyunwrap")


def parse_parameters(text: str) -> Parameters:
    """Read `key=value` pairs joined by `::`.

    Raises:
        RequestRefused: an unknown key, one given twice, or a value that it cannot have.
    """
    if text in ("", _NOTHING):
        return Parameters()
    found: dict[str, str] = {}
    for pair in text.split("::"):
        key, equals, value = pair.partition("=")
        if key not in _PARAMETERS:
            raise RequestRefused(f"unknown parameter {_shown(key)}; there are {', '.join(_PARAMETERS)}, joined by ::")
        if not equals or not value:
            raise RequestRefused(f"parameter {key} has no value: write {key}=VALUE")
        if key in found:
            raise RequestRefused(f"parameter {key} is given twice")
        found[key] = value
    sample = found.get("sample", "false")
    if sample not in ("true", "false"):
        raise RequestRefused("parameter sample is true or false")
    if sample == "true" and ("keyid" in found or "keypath" in found):
        raise RequestRefused("sample=true has a name and a KEK of its own: leave keyid and keypath out")
    try:
        algorithm = WrapType(found.get("algorithm", WrapType.A256GCM))
    except ValueError:
        raise RequestRefused(f"parameter algorithm is one of {', '.join(WrapType)}") from None
    keypath = None if "keypath" not in found else _path(found["keypath"])
    return Parameters(found.get("keyid"), keypath, algorithm, sample == "true")


def wrap_answer(packet: bytes) -> bytes:
    """The answer that holds an annotation packet."""
    return strict_json.encode({"keywrapresults": {"annotation": list(packet)}})


def unwrap_answer(plbco: Secret) -> Secret:
    """The answer that holds private options."""
    return Secret(strict_json.encode({"keyunwrapresults": {"optsdata": list(plbco.reveal())}}))


def _texts(parameters: Mapping[str, Json], name: str) -> list[str]:
    """Those of this provider; where another name is the only one, the configuration calls us that."""
    values = parameters.get(name)
    if values is None and len(parameters) == 1:
        (values,) = parameters.values()
    if values is None:
        return []
    if not isinstance(values, list):
        raise RequestRefused("Parameters: not lists of byte strings")
    try:
        return [_decoded(value, text_too=False).decode("utf-8") for value in values]
    except ValueError:
        raise RequestRefused("Parameters: not base64 of text") from None


def _only(texts: list[str]) -> str:
    if len(texts) > 1:
        raise RequestRefused("the key of this provider is given more than once: an image has one KEK")
    return texts[0] if texts else ""


def _object(members: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = members.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestRefused(f"{name} is no object")
    return value


def _bytes(members: Mapping[str, Json], name: str, *, text_too: bool = False) -> bytes:
    try:
        raw = _decoded(members.get(name), text_too=text_too)
    except ValueError:
        raise RequestRefused(f"{name} is neither base64 nor an array of bytes") from None
    if not raw:
        raise RequestRefused(f"{name} is missing or empty")
    return raw


def _decoded(value: Json, *, text_too: bool) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8") if text_too and value.startswith("{") else from_base64(value)
    if isinstance(value, list) and all(type(each) is int for each in value):
        return bytes(value)
    raise ValueError("no byte string")


def _path(text: str) -> Path:
    if "\0" in text:
        raise RequestRefused("parameter keypath is no file name")
    return Path(text)


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:60]) or "(empty)"
