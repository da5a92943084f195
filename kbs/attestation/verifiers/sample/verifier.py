"""Evidence of the sample TEEs, believed on request.

The only thing checked is that it carries this handshake's report data, so that flows can be tried without hardware.
Absent members become the constants that the field's policies for the sample TEE expect (attestation-service 6.1).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kbs.attestation.model import (
    Binding,
    EndorsementNeed,
    Endorsements,
    Evidence,
    Json,
    VerifiedClaims,
    VerifierOptions,
)
from kbs.errors import BindingMismatch, ConfigInvalid, EvidenceMalformed, TeeDisabled
from kbs.protocol.tee import Tee

_LAUNCH_DIGEST: Final = "abcde"
_PLATFORM_MAJOR: Final = 1
_PLATFORM_MINOR: Final = 4
_MAX_TEXT: Final = 1024  # characters
_MAX_REPORT_DATA: Final = 256  # bytes; a SHA-512 digest has 64


class SampleVerifier:
    """Implements `kbs.attestation.model.Verifier` for `sample` and `sampledevice`."""

    def __init__(self, tee: Tee, device_class: str, *, enabled: bool) -> None:
        self._tee = tee
        self._device_class = device_class
        self._enabled = enabled

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:  # noqa: ARG002 - the port's signature
        """Nothing endorses sample evidence.

        Raises:
            TeeDisabled: no setting switched the sample TEEs on.
        """
        self._require_enabled()
        return ()

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,  # noqa: ARG002 - the port's signature
        binding: Binding,
        at: datetime,  # noqa: ARG002 - the port's signature
    ) -> Sequence[VerifiedClaims]:
        """Compare the report data, exactly and without padding; copy the rest.

        Raises:
            TeeDisabled, EvidenceMalformed, BindingMismatch.
        """
        self._require_enabled()
        body = evidence.body
        if not isinstance(body, dict):
            raise EvidenceMalformed("sample evidence is not an object")
        report_data_b64 = _text(body, "report_data")
        report_data = _decode(report_data_b64)
        if binding.report_data is not None and (
            not binding.report_data or not hmac.compare_digest(report_data, binding.report_data)
        ):
            raise BindingMismatch("report data of the sample evidence does not bind this challenge and key")
        claims: dict[str, Json] = {
            "svn": _text(body, "svn"),
            "report_data": report_data_b64,
            "revocation": "not_applicable",
            "binding": "not_checked" if binding.report_data is None else "checked",
        }
        if self._tee is Tee.SAMPLE:
            claims |= _platform_claims(body)
            if binding.init_data is not None:
                claims["init_data"] = base64.b64encode(binding.init_data).decode()
        return [VerifiedClaims(self._tee, self._device_class, claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:  # noqa: ARG002
        """Nothing endorses sample evidence; what is given is ignored."""
        return Endorsements()

    def _require_enabled(self) -> None:
        if not self._enabled:
            raise TeeDisabled("the sample TEE is switched off")


def is_enabled(options: VerifierOptions) -> bool:
    """Read the one option, `enable_sample`: absent means off.

    Raises:
        ConfigInvalid: an unknown option, one of a wrong type, or anchors, of which there are none.
    """
    if unknown := set(options.options) - {"enable_sample"}:
        raise ConfigInvalid(f"sample: unknown options {sorted(unknown)}")
    if options.anchors:
        raise ConfigInvalid("sample: nothing is signed, so there are no anchors")
    enabled = options.options.get("enable_sample", False)
    if not isinstance(enabled, bool):
        raise ConfigInvalid("sample: enable_sample is not a boolean")
    return enabled


def _platform_claims(body: Mapping[str, Any]) -> dict[str, Json]:
    """Present members become the claims, so that every outcome of a policy can be played."""
    debug = body.get("debug", False)
    if not isinstance(debug, bool):
        raise EvidenceMalformed("debug is not a boolean")
    version = body.get("platform_version", {"major": _PLATFORM_MAJOR, "minor": _PLATFORM_MINOR})
    if not isinstance(version, dict) or set(version) != {"major", "minor"}:
        raise EvidenceMalformed("platform_version is not an object of major and minor")
    for part in version.values():
        if type(part) is not int or not 0 <= part < 1 << 32:
            raise EvidenceMalformed("platform_version has a part that is not an integer of 32 bits")
    digest = _text(body, "launch_digest") if "launch_digest" in body else _LAUNCH_DIGEST
    return {"launch_digest": digest, "platform_version": dict(version), "debug": debug}


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise EvidenceMalformed(f"{name} is not a short text")
    return value


def _decode(value: str) -> bytes:
    try:
        decoded = binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError) as err:
        raise EvidenceMalformed("report_data is not base64") from err
    if len(decoded) > _MAX_REPORT_DATA:
        raise EvidenceMalformed("report_data is too long")
    return decoded
