"""What an attestation of each protocol version looks like, and what its evidence has to be bound to.

The version is that of the challenge, sealed in the cookie: what a guest sends cannot choose another. `forms` is looked
into once for each attestation.

Source: KBS protocol 2.5 and 12.5; guest-components 1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from kbs.attestation.init_data import InitData
from kbs.attestation.model import Binding, Evidence
from kbs.attestation.service import VerificationRequest
from kbs.handshake.cookie import OpenChallenge
from kbs.protocol import old_rcar, rcar, runtime_data
from kbs.protocol.version import ProtocolVersion
from kbs.strict_json import Limits

Message = rcar.Attestation | old_rcar.OldAttestation
Requests = Sequence[VerificationRequest]
_M = TypeVar("_M", rcar.Attestation, old_rcar.OldAttestation)


@dataclass(frozen=True, slots=True)
class Form(Generic[_M]):
    """One version.

    decode: the body of `attest`. readings: each way in which guests of this version bind their evidence; of more than
    one, the evidence has to fit one.
    """

    decode: Callable[..., _M]
    readings: Callable[[OpenChallenge, _M, InitData | None], Sequence[Requests]]


def forms(spoken: Collection[ProtocolVersion], max_body: int) -> Mapping[str, Form[Any]]:
    """The forms of the versions that are spoken, by their names on the wire.

    Args:
        max_body: octets of a body, as the web lets them in.
    """
    limits = Limits(size=max_body)
    return {
        version.value: Form(partial(form.decode, limits=limits), form.readings)
        for version, form in _FORMS.items()
        if version in spoken
    }


def _current(
    opened: OpenChallenge, message: rcar.Attestation, init_data: InitData | None
) -> Sequence[Sequence[VerificationRequest]]:
    """Primary evidence first, then devices by TEE name (kbs-protocol 2.5).

    The digest of a device's report data is made with the algorithm that the challenge selected, as guests do: one for
    all their evidence. The reference takes each device's own, so that no guest of `se` can show it a device.
    """
    algorithm = runtime_data.hash_for(opened.tee)
    primary = runtime_data.primary_runtime_data(message.nonce, message.tee_key, message.additional_evidence)
    found = [
        VerificationRequest(
            evidence=Evidence(opened.tee, message.primary_evidence),
            binding=Binding(
                runtime_data.digest(primary, algorithm),
                None if init_data is None else init_data.digest,
                opened.kept or None,
            ),
            runtime_data=primary,
            init_data=init_data,
            protocol_version=opened.version,
        )
    ]
    if not message.additional:
        return (found,)
    device = runtime_data.device_runtime_data(message.nonce, message.tee_key)
    found += [
        VerificationRequest(
            evidence=Evidence(tee, body),
            binding=Binding(runtime_data.digest(device, algorithm)),
            runtime_data=device,
            init_data=None,
            protocol_version=opened.version,
        )
        for tee, body in message.additional
    ]
    return (found,)


def _old(opened: OpenChallenge, message: old_rcar.OldAttestation, init_data: InitData | None) -> Sequence[Requests]:
    """Nonce and key, as JSON; the nonce is the challenge's, since the guest did not repeat it."""
    del init_data
    bound = runtime_data.device_runtime_data(opened.nonce, message.tee_key)
    return (_old_request(opened, message, runtime_data.digest(bound, runtime_data.hash_for(opened.tee))),)


def _oldest(opened: OpenChallenge, message: old_rcar.OldAttestation, init_data: InitData | None) -> Sequence[Requests]:
    """Guests of v0.8 and v0.9 say the same version and hash differently; each way binds the nonce and the whole key."""
    concatenated = runtime_data.concatenated_digest(opened.nonce, message.tee_key)
    return (*_old(opened, message, init_data), _old_request(opened, message, concatenated))


def _old_request(opened: OpenChallenge, message: old_rcar.OldAttestation, report_data: bytes) -> Requests:
    return (
        VerificationRequest(
            evidence=Evidence(opened.tee, message.primary_evidence),
            binding=Binding(report_data),
            runtime_data=runtime_data.device_runtime_data(opened.nonce, message.tee_key),
            protocol_version=opened.version,
        ),
    )


_FORMS: Mapping[ProtocolVersion, Form[Any]] = {
    ProtocolVersion.V0_1_0: Form(old_rcar.decode_0_1_0, _oldest),
    ProtocolVersion.V0_1_1: Form(old_rcar.decode_0_1_1, _old),
    ProtocolVersion.V0_2_0: Form(old_rcar.decode_0_2_0, _old),
    ProtocolVersion.V0_4_0: Form(rcar.decode_attestation, _current),
}
