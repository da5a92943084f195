"""The key provider itself: one request in, one answer out, for gRPC and for the command alike.

Source: guest-components 2.3, 2.5.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kbs.images.errors import ImageError, ImageRefused, RequestRefused
from kbs.images.kek import Random
from kbs.images.kid import guest_resource, resolve_kid
from kbs.images.layer_options import PrivateOptions
from kbs.images.packet import PROVIDER, parse_packet, unwrap, wrap
from kbs.images.provider_keks import KEK_OF_THE_FIELD, KID_OF_THE_FIELD, Keks
from kbs.images.provider_messages import (
    NAME,
    Parameters,
    UnwrapRequest,
    WrapRequest,
    parse_request,
    unwrap_answer,
    wrap_answer,
)
from kbs.secret import Secret

_SAMPLE: Final = Secret(KEK_OF_THE_FIELD)


def _tell_nobody(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True)
class KeyProvider:
    """Wraps and unwraps layer keys.

    keks: KEKs by name. only_kek: unwraps whatever comes. name: of this provider in requests.
    default_kid: of images whose request names none. insecure_sample_kek: also the published one.
    tell: what was done, for a log; never a secret.
    """

    keks: Keks
    only_kek: Secret | None = None
    name: str = NAME
    default_kid: str | None = None
    insecure_sample_kek: bool = False
    random: Random = secrets.token_bytes
    tell: Callable[[str], None] = _tell_nobody

    def answer(self, raw: bytes) -> Secret:
        """The JSON answer to a JSON request of either kind.

        Raises:
            RequestRefused: not of this protocol, or more than it allows.
            KidRefused, KekRefused, PacketRefused, BrokerRefused: why there is no answer. OSError: files.
        """
        request = parse_request(raw, name=self.name)
        if isinstance(request, WrapRequest):
            return Secret(wrap_answer(self.wrap(request)))
        return unwrap_answer(self.unwrap(request))

    def wrap(self, request: WrapRequest) -> bytes:
        """The annotation packet (JSON) for a layer."""
        try:
            PrivateOptions.decode(request.plbco)
        except ImageRefused as err:
            raise RequestRefused(f"optsdata: {err}") from None
        parameters = request.parameters
        if parameters.sample:
            self._check_sample()
            kid, kek = KID_OF_THE_FIELD, _SAMPLE
        else:
            kid = resolve_kid(self._keyid(parameters))
            kek = self.keks.to_wrap(kid, parameters.keypath)
        packet = wrap(request.plbco, kek, kid, parameters.algorithm, random=self.random)
        self.tell(f"wrapped a layer key with {kid}")
        return packet

    def unwrap(self, request: UnwrapRequest) -> Secret:
        """The private options of a layer."""
        packet = parse_packet(request.packet)
        kid, kek = packet.kid, self.only_kek
        if packet.provider != PROVIDER:
            kek = _SAMPLE  # unwrap names the provider and refuses
        elif self._is_sample(kid) and request.parameters.keypath is None:
            self._check_sample()
            kek = _SAMPLE
        elif kek is None or request.parameters.keypath is not None:
            kek = self.keks.to_unwrap(kid, request.parameters.keypath)
        found = unwrap(packet, kek)
        self.tell(f"unwrapped a layer key with {kid}")
        return found

    def _keyid(self, parameters: Parameters) -> str:
        keyid = parameters.keyid or self.default_kid
        if keyid is None:
            raise RequestRefused(
                "keyid is missing: it is what tells one image from another, and each layer comes alone; "
                f"write provider:{self.name}:keyid=kbs:///default/image-kek/NAME"
            )
        return keyid

    def _is_sample(self, kid: str) -> bool:
        return f"kbs:///{guest_resource(kid)}" == KID_OF_THE_FIELD and self.only_kek is None

    def _check_sample(self) -> None:
        if not self.insecure_sample_kek:
            raise RequestRefused("sample=true takes a KEK that is published: it needs --insecure-sample-kek")


def text_of(err: ImageError | OSError) -> str:
    """One line for the other side: what is wrong and what to do."""
    if isinstance(err, OSError):
        return f"{err.filename}: {err.strerror}" if err.filename and err.strerror else type(err).__name__
    return str(err) if err.next_step is None else f"{err}; try: {err.next_step}"
