"""The two use cases of RCAR: `challenge` (auth) and `admit` + `judge` (attest).

`attest` is in two steps so that an event loop can run `judge` in a thread when it may wait on a vendor service:
`admit` decodes the body and claims the challenge, `judge` looks at evidence. Once claimed, a challenge is spent,
whatever the outcome; only a fault of a dependency frees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import msgspec

from kbs.attestation.abridged import abridgements
from kbs.attestation.ear import EarSettings, ear_claims, ear_json
from kbs.attestation.init_data import InitData, parse_init_data
from kbs.attestation.service import AttestationService, Attested
from kbs.audit.events import EvidenceAccepted, EvidenceRefused
from kbs.audit.gate import Decided
from kbs.clock import Clock
from kbs.errors import (
    BindingMismatch,
    ChallengeUsed,
    DependencyFault,
    HandshakeExpired,
    HandshakeUnknown,
    KbsError,
    NonceMismatch,
    PayloadTooLarge,
    PeerFault,
    ServerFault,
    UnsupportedVersion,
)
from kbs.handshake.cookie import CookieSealer, OpenChallenge, nonce_digest
from kbs.handshake.forms import Form, Message, Requests, forms
from kbs.lockstep import Steps
from kbs.policy.decisions import DecisionInput, DecisionInputs
from kbs.policy.engine import PolicyKind
from kbs.protocol import rcar
from kbs.protocol.tee import Tee
from kbs.protocol.version import ProtocolVersion
from kbs.storage.model import Claim, HandshakeStore
from kbs.tokens.acceptor import TokenAcceptor
from kbs.tokens.issuer import IssuedToken, TokenIssuer

_MAX_RECENT = 512
_KEPT_REQUEST = 512  # octets
_LARGE_BODY = 64 << 10  # octets; an event log in it has some hundred entries, which take tens of milliseconds


class Opened(msgspec.Struct, frozen=True):
    """A fresh challenge: the message for the guest and the cookie that carries the state."""

    message: bytes
    cookie: str
    expires: datetime

    def __repr__(self) -> str:
        """Without nonce and cookie."""
        return f"Opened(expires={self.expires!r})"


class TokenAnswer(msgspec.Struct, frozen=True):
    """The end of a handshake: the token and the cookie to set again."""

    token: str
    cookie: str
    expires: datetime

    def __repr__(self) -> str:
        """Without token and cookie."""
        return f"TokenAnswer(expires={self.expires!r})"


class Admitted(msgspec.Struct, frozen=True):
    """A decoded attestation whose challenge is claimed for it.

    readings: what to verify; of several, the evidence has to fit one.
    is_large: there is enough in it to keep a processor busy for longer than others should wait.
    """

    decision: str
    challenge: OpenChallenge
    message: Message
    readings: Sequence[Requests]
    init_data: InitData | None
    cookie: str
    peer: str | None
    is_large: bool

    def __repr__(self) -> str:
        """Without evidence and cookie."""
        return f"Admitted(decision={self.decision!r}, challenge={self.challenge!r}, peer={self.peer!r})"


class _Recent(msgspec.Struct, frozen=True):
    """What a cookie led to in this process a moment ago."""

    token: str
    expires: datetime

    def __repr__(self) -> str:
        """Without the token."""
        return f"_Recent(expires={self.expires!r})"


class _RecentTokens:
    """Spares the guest that asks on the same connection the look-up of its token. Bounded; the oldest leave first."""

    def __init__(self) -> None:
        self._found: dict[str, _Recent] = {}

    def keep(self, cookie: str, recent: _Recent) -> None:
        """Remember the end of one handshake."""
        if len(self._found) >= _MAX_RECENT:
            self._found.pop(next(iter(self._found), ""), None)
        self._found[cookie] = recent

    def forget(self, cookie: str) -> None:
        """The handshake did not end after all."""
        self._found.pop(cookie, None)

    def find(self, cookie: str | None) -> _Recent | None:
        """What is known of a cookie, compared as a whole: only the value that was sealed here is found."""
        return None if cookie is None else self._found.get(cookie)


class Handshakes:
    """Runs handshakes. What outlives a request is in the cookie or in the store; a little is remembered for speed."""

    def __init__(
        self,
        *,
        cookies: CookieSealer,
        store: HandshakeStore,
        attestation: AttestationService,
        issuer: TokenIssuer,
        acceptor: TokenAcceptor,
        enabled: frozenset[Tee],
        spoken: Collection[ProtocolVersion],
        max_body: int,
        challenge_ttl: timedelta,
        token_life: timedelta,
        ear: EarSettings,
        issuer_name: str,
        clock: Clock,
        random: Callable[[int], bytes],
        inputs: DecisionInputs,
    ) -> None:
        self._inputs = inputs
        self._cookies = cookies
        self._store = store
        self._attestation = attestation
        self._challenging = attestation.challenging
        self._issuer = issuer
        self._acceptor = acceptor
        self._enabled = enabled
        self._forms = forms(spoken, max_body)
        self._newest = self._forms[max(spoken)]
        self._challenge_ttl = challenge_ttl
        self._token_life = token_life
        self._ear = ear
        self._issuer_name = issuer_name
        self._clock = clock
        self._random = random
        self._recent = _RecentTokens()
        self._decode_any_request = partial(rcar.decode_request, enabled=enabled, spoken=spoken)
        # guests of one release send the same octets; only what decoded is kept
        self._decode_request = lru_cache(maxsize=256)(self._decode_any_request)

    def challenge(self, body: bytes) -> Opened | Callable[[], Opened]:
        """Answer `POST auth`; for a TEE whose verifier makes the challenge, with work of milliseconds that makes one.

        Raises:
            MalformedMessage, UnsupportedVersion, TeeNotEnabled: the request was at fault; no cookie is made.
        """
        request = self._decode_request(body) if len(body) <= _KEPT_REQUEST else self._decode_any_request(body)
        extra_params = rcar.challenge_extra_params(request.tee, request.extra_params)
        if request.tee in self._challenging:
            return partial(self._ask, request, extra_params)
        nonce = rcar.new_nonce(self._random)
        message = rcar.Challenge(nonce, extra_params).encode()
        expires = self._clock() + self._challenge_ttl
        opened = OpenChallenge(self._random(16).hex(), nonce, request.tee, str(request.version), expires)
        return Opened(message, self._cookies.seal(opened), expires)

    def _ask(self, request: rcar.Request, extra_params: rcar.Json) -> Opened:
        """A challenge that the TEE's verifier made. What it wants back is sealed, so no worker keeps anything.

        Its answer repeats it, which guests before 0.4.0 do not; nor did they bind it.
        """
        if request.version is not ProtocolVersion.V0_4_0:
            raise UnsupportedVersion(
                f"the TEE {request.tee} needs protocol 0.4.0: guests before it do not bind their key"
            )
        now = self._clock()
        asked = self._attestation.challenge(request.tee, self._random, now)
        opened = OpenChallenge(
            id=self._random(16).hex(),
            nonce=nonce_digest(asked.nonce),
            tee=request.tee,
            version=str(request.version),
            expires=now + self._challenge_ttl,
            kept=asked.kept,
        )
        return Opened(rcar.Challenge(asked.nonce, extra_params).encode(), self._cookies.seal(opened), opened.expires)

    def admit(
        self, body: bytes, cookie: str | None, *, decision: str, peer: str | None
    ) -> Steps[Admitted | TokenAnswer]:
        """Decode an Attestation and claim its challenge, in steps; or the token again, for the body that earned it.

        Raises:
            MalformedMessage, TeeNotEnabled: the body does not decode; the challenge is untouched.
            HandshakeUnknown, HandshakeExpired, ChallengeUsed: attest again from the start.
            StorageUnavailable: try later.
        """
        now = self._clock()
        opened = self._cookies.open(cookie)
        yield
        form = None if opened is None else self._forms.get(opened.version)
        message = self._decode(body, form)
        yield
        rcar.require_enabled([tee for tee, _ in message.additional], self._enabled)
        if opened is None or form is None or cookie is None:
            raise _unknown()
        if now >= opened.expires:
            raise HandshakeExpired("the challenge has expired; start again with auth")
        # after the cookie: only who holds an open challenge may make us read a large document
        init_data = None if message.init_data is None else parse_init_data(message.init_data.body)
        yield
        claim = self._store.claim(opened.id, hashlib.sha256(body).digest(), opened.expires, now, opened.epoch)
        yield
        if claim is Claim.FINISHED:
            token = self._store.token(opened.id, now)
            if token is not None:
                return TokenAnswer(token, cookie, opened.expires)
        if claim is Claim.VOID:
            raise _unknown()
        if claim is not Claim.CLAIMED:
            raise ChallengeUsed("the challenge was answered before; start again with auth")
        readings = form.readings(opened, message, init_data)
        return Admitted(decision, opened, message, readings, init_data, cookie, peer, len(body) > _LARGE_BODY)

    def _decode(self, body: bytes, form: Form[Any] | None) -> Message:
        """In the form of the challenge's version. Without a challenge: whoever speaks an older one is to attest again,
        and what is nobody's form is refused as such.
        """
        try:
            message: Message = (form or self._newest).decode(body)
        except UnsupportedVersion:
            if form is None:
                raise _unknown() from None
            raise
        return message

    def blocks(self, admitted: Admitted) -> bool:
        """True when `judge` may wait on something outside this process, or take long."""
        return admitted.is_large or self._attestation.blocks(admitted.readings[0])

    def judge(self, admitted: Admitted) -> Steps[Decided[TokenAnswer]]:
        """Verify, appraise, issue, in steps. Never raises: every outcome is a decision with its record."""
        store, identifier = self._store, admitted.challenge.id
        spend, free = partial(store.refuse, identifier), partial(store.release, identifier)
        try:
            nonce = admitted.message.nonce  # none before 0.4.0: there the binding alone names the challenge
            if nonce is not None and not admitted.challenge.is_answered_with(nonce):
                raise NonceMismatch("the nonce is not the challenge's")
            attested = yield from self._attest(admitted.readings, self._clock())
            yield
            issued = yield from self._issue(attested, admitted.decision)
        except DependencyFault as err:
            return _refused(admitted, err, settle=free, undo=free)
        except (PeerFault, ServerFault) as err:
            return _refused(admitted, err, settle=spend, undo=free)
        except Exception as err:  # noqa: BLE001 - the wall: a bug in a verifier refuses, it never accepts
            fault = ServerFault("internal error", operator_detail=f"{type(err).__name__} while judging evidence")
            fault.__cause__ = err
            return _refused(admitted, fault, settle=spend, undo=free)

        yield
        self._keep_inputs(admitted.decision, attested)

        def settle() -> None:
            self._acceptor.remember(issued, admitted.message.tee_key)
            store.finish(identifier, issued.text)
            self._recent.keep(admitted.cookie, _Recent(issued.text, admitted.challenge.expires))

        def undo() -> None:  # also after `settle`, when the write it took part in failed as a whole
            self._recent.forget(admitted.cookie)
            store.release(identifier)

        answer = TokenAnswer(issued.text, admitted.cookie, admitted.challenge.expires)
        event = _accepted(admitted, attested, issued)
        return Decided((event,), answer, settle=settle, undo=undo)

    def _attest(self, readings: Sequence[Requests], at: datetime) -> Steps[Attested]:
        for requests in readings[:-1]:
            with suppress(BindingMismatch):
                return (yield from self._attestation.attesting(requests, at))
        return (yield from self._attestation.attesting(readings[-1], at))

    def _keep_inputs(self, decision: str, attested: Attested) -> None:
        """Leave what the policies saw, for replays; nobody waits for it."""
        references = attested.result.references_version
        for given, appraisal in zip(attested.inputs, attested.result.appraisals, strict=True):
            outcome: dict[str, Any] = {"status": str(appraisal.status), "vector": appraisal.vector}
            if attested.shadow:
                outcome["shadow"] = {given.policy_id: attested.shadow.get(appraisal.submod, {})}
            self._inputs.keep(
                DecisionInput(
                    decision,
                    PolicyKind.EVIDENCE,
                    given.policy_id,
                    appraisal.policy_digest,
                    given.claims,
                    outcome,
                    part=appraisal.submod,
                    references=references,
                    extensions=appraisal.extensions,
                )
            )

    def token_of(self, cookie: str | None) -> str | None:
        """The token of the finished handshake a cookie names; None for every other cookie."""
        recent = self._recent.find(cookie)
        if recent is not None and self._clock() < recent.expires:
            return recent.token
        opened = self._cookies.open(cookie)
        if opened is None:
            return None
        now = self._clock()
        return self._store.token(opened.id, now) if now < opened.expires else None

    def _issue(self, attested: Attested, decision: str) -> Steps[IssuedToken]:
        issued_at = self._clock()
        expires = issued_at + self._token_life
        claims = ear_claims(
            attested.result,
            self._ear,
            issued_at=int(issued_at.timestamp()),
            expires=int(expires.timestamp()),
            issuer=self._issuer_name,
            token_id=decision,
        )
        refusal: PayloadTooLarge | None = None
        for fewer in abridgements(claims):
            try:
                claims_json = ear_json(claims, attested.result) if fewer is claims else None
                return (yield from self._issuer.issuing(fewer, claims_json))
            except PayloadTooLarge as err:
                refusal = err
        assert refusal is not None  # there is always a first
        raise refusal


def _unknown() -> HandshakeUnknown:
    return HandshakeUnknown("no open handshake; start with auth")


def _accepted(admitted: Admitted, attested: Attested, issued: IssuedToken) -> EvidenceAccepted:
    appraisals = attested.result.appraisals
    return EvidenceAccepted(
        decision=admitted.decision,
        tee=str(admitted.challenge.tee),
        protocol=admitted.challenge.version,
        status={each.submod: str(each.status) for each in appraisals},
        vectors={each.submod: dict(each.vector) for each in appraisals},
        policies={each.submod: each.policy_digest for each in appraisals},
        policy_names={each.submod: each.policy_name for each in appraisals},
        references=attested.result.references_version,
        findings=tuple(
            {"submod": submod, **asdict(finding)}
            for submod, findings in attested.findings.items()
            for finding in findings
        ),
        shadow=attested.shadow,
        claims_digest=hashlib.sha256(issued.claims_json).hexdigest(),
        init_data=None if admitted.init_data is None else admitted.init_data.digest.hex(),
        key=admitted.message.tee_key.thumbprint,
        peer=admitted.peer,
    )


def _refused(
    admitted: Admitted, err: KbsError, *, settle: Callable[[], None], undo: Callable[[], None]
) -> Decided[TokenAnswer]:
    event = EvidenceRefused(
        decision=admitted.decision,
        tee=admitted.challenge.tee.value,
        protocol=admitted.challenge.version,
        reason=err.reason,
        detail=err.operator_detail or str(err),
        peer=admitted.peer,
    )
    return Decided((event,), err, settle=settle, undo=undo)
