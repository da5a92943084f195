"""The SE verifier: asks a machine with a request only it can read, and compares what it answers.

There is no signature and no certificate in the evidence. What vouches for it is that the measurement was made with a
key that this broker drew for this one handshake and encrypted to verified host keys.
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from kbs import strict_json
from kbs.attestation.model import (
    Binding,
    EndorsementNeed,
    Endorsements,
    Evidence,
    Json,
    VerifiedClaims,
    VerifierChallenge,
)
from kbs.attestation.verifiers.se.arcb import (
    ADDITIONAL_SIZE,
    SECRET_OCTETS,
    VERSION,
    RequestSecrets,
    build_arcb,
)
from kbs.attestation.verifiers.se.evidence import Presented, read_evidence
from kbs.attestation.verifiers.se.host_keys import UsableHostKeys
from kbs.attestation.verifiers.se.issued import ECHO_SIZE, Issued
from kbs.attestation.verifiers.se.material import Folder, Material
from kbs.attestation.verifiers.se.measurement import MEASUREMENT_SIZE, measure
from kbs.attestation.verifiers.se.options import SeOptions
from kbs.errors import (
    BindingMismatch,
    ConfigInvalid,
    EndorsementsUnavailable,
    SignatureInvalid,
    SignerNotTrusted,
)
from kbs.protocol.tee import Tee

_LOG: Final = logging.getLogger("kbs.attestation")
_REPORT_DATA_SIZE: Final = 64
_MIN_REPORT_DATA: Final = 32  # a shorter digest would bind less than it seems to


class SeVerifier:
    """Implements `kbs.attestation.model.ChallengingVerifier` for `se`. Threads may share it.

    Trusted: the operator's files and options, and what this broker kept of its own challenge. Not trusted: evidence.
    """

    def __init__(self, options: SeOptions, material: Folder | Material | None) -> None:
        self._options = options
        self._material = material
        self._reported: frozenset[str] = frozenset()

    def challenge(self, random: Callable[[int], bytes], at: datetime) -> VerifierChallenge:
        """A request with a fresh measurement key and nonce, for every machine whose host-key document is good at `at`.

        The members that the reference implementation fills with the encrypted key and nonce hold random octets.

        Raises:
            EndorsementsUnavailable: no host-key document may be used now, or the files cannot be.
        """
        material, usable = self._usable(at)
        customer_key = ec.generate_private_key(ec.SECP521R1())
        secrets = RequestSecrets.cut(random(SECRET_OCTETS), customer_key)
        echo = random(ECHO_SIZE)
        issued = Issued(
            secrets.measurement_key,
            secrets.nonce,
            echo,
            tuple(key.hash for key in usable.keys),
            usable.is_revocation_checked,
        )
        key_echo, nonce_echo = _halves(echo)
        question = {
            "request_blob": _b64(build_arcb(secrets, [key.public_key for key in usable.keys])),
            "measurement_size": MEASUREMENT_SIZE,
            "additional_size": ADDITIONAL_SIZE,
            "encr_measurement_key": _b64(key_echo),
            "encr_request_nonce": _b64(nonce_echo),
            "image_hdr_tags": _b64(material.headers[0].tags),
        }
        return VerifierChallenge(strict_json.encode(question).decode(), issued.pack())

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:  # noqa: ARG002  the port's signature
        """Nothing: what vouches for a machine was checked before it was asked."""
        return ()

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,  # noqa: ARG002  the port's signature
        binding: Binding,
        at: datetime,
    ) -> Sequence[VerifiedClaims]:
        """Check measurement, hosts and binding; dates were compared when the machine was asked. Numbers: verifiers 9.5.

        Raises:
            EvidenceRejected: the subclass names the cause. Whatever is wrong with the measurement, or with what went
                into it, is one and the same refusal.
        """
        presented = read_evidence(evidence.body)
        headers = self._headers(at)
        # 1, 2, and of 4 the image header.
        issued, tags = self._recognise(presented, binding, headers)
        # 4.
        is_hosts_listed = self._check_hosts(presented, issued, tags, headers)
        # 3.
        _check_binding(presented, binding)
        claims: dict[str, Json] = {
            "cuid": presented.cuid.hex(),
            "version": VERSION,
            "image_phkh": presented.image_phkh.hex(),
            "attestation_phkh": presented.attestation_phkh.hex(),
            "pld": tags[:64].hex(),
            "ald": tags[64:128].hex(),
            "tld": tags[128:192].hex(),
            "tag": tags[192:].hex(),
            "image_listed": headers is not None,
            "host_keys_listed": is_hosts_listed,
            "report_data": presented.user_data.hex(),
            "binding": "not_checked" if binding.report_data is None else "checked",
            **_revocation(issued),
        }
        return [VerifiedClaims(Tee.SE, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:  # noqa: ARG002  the port
        """There are none for this TEE."""
        return Endorsements()

    def _usable(self, at: datetime) -> tuple[Material, UsableHostKeys]:
        try:
            material = self._material.current(at) if isinstance(self._material, Folder) else self._material
        except ConfigInvalid as err:
            raise EndorsementsUnavailable("SE: host keys are not to be had", operator_detail=str(err)) from err
        if material is None:
            raise EndorsementsUnavailable("SE: host keys are not to be had", operator_detail="se: none are configured")
        usable = material.host_keys.usable(at)
        if (refused := frozenset(usable.refused)) != self._reported:
            self._reported = refused
            for each in sorted(refused):
                _LOG.warning("SE host-key document is not used: %s", each)
        if not usable.keys:
            raise EndorsementsUnavailable(
                "SE: no host key may be used now", operator_detail=f"se: {'; '.join(usable.refused)}"
            )
        return material, usable

    def _headers(self, at: datetime) -> Mapping[bytes, frozenset[bytes]] | None:
        """Tags of the images that may run, with the hosts they were made for; None: no list is configured."""
        material = self._material.latest(at) if isinstance(self._material, Folder) else self._material
        return None if material is None else {header.tags: header.host_keys for header in material.headers}

    def _recognise(
        self, presented: Presented, binding: Binding, headers: Mapping[bytes, frozenset[bytes]] | None
    ) -> tuple[Issued, bytes]:
        """What was issued and the image that answers it.

        A guest sends back the tags it was sent, whichever of the images it runs; the measurement tells.
        """
        if binding.kept is None:
            issued = self._options.issued
        else:
            own = Issued.unpack(binding.kept)
            issued = () if own is None else (own,)
        if headers is None:
            candidates: Sequence[bytes] = (presented.image_hdr_tags,)
        else:
            candidates = tuple(headers) if presented.image_hdr_tags in headers else ()
        found = [
            (each, tags)
            for each in issued
            for tags in candidates
            if _is_answer(presented, each, tags) and _is_echo(presented, each)
        ]
        if not found:
            detail = None
            if not issued:
                detail = "se: nothing was issued for this exchange"
            elif not candidates:
                detail = "se: the evidence names an image header that is not configured"
            raise SignatureInvalid("the SE measurement does not verify", operator_detail=detail)
        return found[0]

    def _check_hosts(
        self,
        presented: Presented,
        issued: Issued,
        tags: bytes,
        headers: Mapping[bytes, frozenset[bytes]] | None,
    ) -> bool:
        """Whether both host keys stood on a list; raises when one is not on its own."""
        image_lists = [self._options.image_hosts, None if headers is None else headers[tags]]
        attestation_lists = [
            self._options.attestation_hosts,
            None if issued.host_keys is None else frozenset(issued.host_keys),
        ]
        if any(each is not None and presented.image_phkh not in each for each in image_lists):
            raise SignerNotTrusted("SE image was unpacked with a host key that is not allowed")
        if any(each is not None and presented.attestation_phkh not in each for each in attestation_lists):
            raise SignerNotTrusted("SE request was read with a host key that was not asked")
        return any(each is not None for each in image_lists) and any(each is not None for each in attestation_lists)


def _is_answer(presented: Presented, issued: Issued, tags: bytes) -> bool:
    expected = measure(
        issued.measurement_key, tags, presented.cuid, presented.user_data, issued.nonce, presented.additional_data
    )
    return hmac.compare_digest(expected, presented.measurement)


def _is_echo(presented: Presented, issued: Issued) -> bool:
    """Whether the opaque members came back as they were sent. Nothing in them is decrypted, so nothing can tell."""
    if issued.echo is None:
        return True
    return hmac.compare_digest(presented.encr_measurement_key + presented.encr_request_nonce, issued.echo)


def _check_binding(presented: Presented, binding: Binding) -> None:
    """User data is the digest and zeros up to 64 octets, and nothing else.

    Raises:
        BindingMismatch.
    """
    if binding.report_data is None:
        return
    expected = binding.report_data.ljust(_REPORT_DATA_SIZE, b"\0")
    is_long_enough = len(binding.report_data) >= _MIN_REPORT_DATA
    if not is_long_enough or not hmac.compare_digest(presented.user_data, expected):
        raise BindingMismatch("user data of the SE evidence does not bind this challenge and key")


def _revocation(issued: Issued) -> dict[str, Json]:
    """Of the host keys that were asked. Evidence judged by hand has no scheme of revocation of its own."""
    if issued.is_revocation_checked is None:
        return {"revocation": "not_applicable"}
    if issued.is_revocation_checked:
        return {"revocation": "checked"}
    return {"revocation": "not_checked", "revocation_waived": True}


def _halves(echo: bytes) -> tuple[bytes, bytes]:
    return echo[: ECHO_SIZE // 2], echo[ECHO_SIZE // 2 :]


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
