"""The key provider as gRPC, over HTTP/2 in clear, as ocicrypt speaks it.

Whoever reaches the socket has layer keys wrapped and unwrapped, so it is for this machine's own users only.
Source: guest-components 2.3.
"""

from __future__ import annotations

import ipaddress
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from kbs.images.errors import BrokerRefused, ImageError, KekRefused, LocationRefused
from kbs.images.proto import keyprovider_pb2, keyprovider_pb2_grpc
from kbs.images.provider import KeyProvider, text_of
from kbs.images.provider_messages import MAX_REQUEST

_LOG = logging.getLogger("kbs.key_provider")
_THREADS: Final = 8
_GRACE: Final = 10.0  # seconds
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.so_reuseport", 0),  # a second provider on the port is a mistake, not a share of the load
)


class _Service(keyprovider_pb2_grpc.KeyProviderServiceServicer):
    def __init__(self, provider: KeyProvider) -> None:
        self._provider = provider

    def WrapKey(  # noqa: N802 - the name on the wire
        self, request: keyprovider_pb2.KeyProviderKeyWrapProtocolInput, context: grpc.ServicerContext
    ) -> keyprovider_pb2.KeyProviderKeyWrapProtocolOutput:
        """Wrap."""
        return self._answer(request, context)

    def UnWrapKey(  # noqa: N802 - the name on the wire
        self, request: keyprovider_pb2.KeyProviderKeyWrapProtocolInput, context: grpc.ServicerContext
    ) -> keyprovider_pb2.KeyProviderKeyWrapProtocolOutput:
        """Unwrap."""
        return self._answer(request, context)

    def _answer(
        self, request: keyprovider_pb2.KeyProviderKeyWrapProtocolInput, context: grpc.ServicerContext
    ) -> keyprovider_pb2.KeyProviderKeyWrapProtocolOutput:
        try:
            answer = self._provider.answer(request.KeyProviderKeyWrapProtocolInput)
        except (ImageError, OSError) as err:
            text = text_of(err)
            self._provider.tell(f"refused: {text}")
            context.abort(_status(err), text)
        except Exception as err:  # noqa: BLE001 - the wall of this edge: a bug is a status that says nothing
            _LOG.error("internal error", exc_info=err)
            context.abort(grpc.StatusCode.INTERNAL, "internal error")
        return keyprovider_pb2.KeyProviderKeyWrapProtocolOutput(KeyProviderKeyWrapProtocolOutput=answer.reveal())


class ProviderServer:
    """Listens from `start` to `stop`.

    Args:
        listen: HOST:PORT, port 0 for any; or unix:PATH.
        insecure_remote: listen on an address that other machines reach.
    """

    def __init__(self, provider: KeyProvider, listen: str, *, insecure_remote: bool = False) -> None:
        if not insecure_remote and not _is_local(listen):
            raise LocationRefused(
                f"{listen}: whoever reaches a key provider gets layer keys from it, in clear",
                next_step="--listen 127.0.0.1:50000 or unix:PATH; --insecure-remote if you must",
            )
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
        keyprovider_pb2_grpc.add_KeyProviderServiceServicer_to_server(_Service(provider), self._server)
        try:
            self.port = self._server.add_insecure_port(listen)
        except RuntimeError:
            raise LocationRefused(f"{listen}: taken, or not an address of this machine") from None
        self.address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{self.port}"

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def stop(self) -> None:
        """Finish what is being answered, at most ten seconds, and end."""
        self._server.stop(_GRACE).wait()


def _is_local(listen: str) -> bool:
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _status(err: ImageError | OSError) -> grpc.StatusCode:
    if isinstance(err, BrokerRefused):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(err, (KekRefused, OSError)):
        return grpc.StatusCode.FAILED_PRECONDITION
    return grpc.StatusCode.INVALID_ARGUMENT
