"""The gRPC edge of `rvps serve`: upstream's service, our own beside it, and health.

Source: rvps 5; gRPC core documentation, "Keepalive User Guide".
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from rvps import rest
from rvps.clock import Clock
from rvps.errors import NotStated, ProviderUnavailable, RvpsError, SenderRefused, SettingsUnacceptable
from rvps.messages import write_time
from rvps.model import ReferenceValue
from rvps.proto import reference_pb2, reference_pb2_grpc, values_pb2, values_pb2_grpc
from rvps.server.directory import Directory
from rvps.server.metrics import Metrics
from rvps.server.reception import Reception
from rvps.server.web import record_change
from rvps.strict_json import encode

T = TypeVar("T")

MAX_MESSAGE: Final = rest.MAX_MESSAGE + (1 << 10)
"""Octets of one gRPC message: what REST takes, in its frame; more is RESOURCE_EXHAUSTED before it is read."""

_LOG = logging.getLogger("rvps.grpc")
_THREADS: Final = 16
_SERVICES: Final = ("", "reference.ReferenceValueProviderService", "kbs.rvps.v1.ReferenceValues")
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # a second server on the same port is a mistake, not a share of the load
    ("grpc.so_reuseport", 0),
    # The field's clients ping every 10 s, also between calls; by default that is one ping too many in five minutes,
    # and the connection ends with GOAWAY too_many_pings.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
_STATUS: Final[dict[type[RvpsError], grpc.StatusCode]] = {
    ProviderUnavailable: grpc.StatusCode.UNAVAILABLE,
    SenderRefused: grpc.StatusCode.UNAUTHENTICATED,
    NotStated: grpc.StatusCode.NOT_FOUND,
    RvpsError: grpc.StatusCode.ABORTED,
}


class _Edge:
    """What both services share: counting, refusing, and who asks."""

    def __init__(self, reception: Reception, directory: Directory, clock: Clock, metrics: Metrics) -> None:
        self.reception = reception
        self.provider = reception.provider
        self.directory = directory
        self.clock = clock
        self.metrics = metrics

    def run(self, context: grpc.ServicerContext, method: str, words: str, work: Callable[[], T]) -> T:
        """Run one call; whatever it raises becomes a status whose text begins with `words`."""
        try:
            found = work()
        except RvpsError as err:
            code = next(code for kind, code in _STATUS.items() if isinstance(err, kind))
            self._refuse(context, method, code, f"{words}{err}")
        except Exception as err:  # noqa: BLE001 - the wall of this edge: a bug is a status that says nothing
            _LOG.error("internal error", exc_info=err)
            self._refuse(context, method, grpc.StatusCode.INTERNAL, f"{words}internal error")
        self.metrics.count("grpc", method, "OK")
        return found

    def sender(self, context: grpc.ServicerContext) -> str | None:
        """The issuer that the metadata `authorization` proves, or None without such.

        Raises:
            SenderRefused: a token that is not ours.
        """
        given = dict(context.invocation_metadata()).get("authorization")
        if given is None:
            return None
        authorization = given if isinstance(given, str) else given.decode("latin-1")
        if self.directory.admin.is_in(authorization):
            return f"admin:local#{self.directory.admin.id}"
        if self.directory.broker.is_in(authorization):
            return f"broker#{self.directory.broker.id}"
        raise SenderRefused("this token is neither the admin token nor the broker token of this service")

    def known_sender(self, context: grpc.ServicerContext) -> str:
        """As `sender`, of somebody."""
        found = self.sender(context)
        if found is None:
            raise SenderRefused("metadata `authorization: Bearer …` with the text of admin-token is needed")
        return found

    def _refuse(self, context: grpc.ServicerContext, method: str, code: grpc.StatusCode, text: str) -> NoReturn:
        self.metrics.count("grpc", method, code.name)
        context.abort(code, text)


class Reference(reference_pb2_grpc.ReferenceValueProviderServiceServicer):
    """Upstream's service, for upstream's clients."""

    def __init__(self, edge: _Edge) -> None:
        self._edge = edge

    def QueryReferenceValue(  # noqa: N802 - the name on the wire
        self, request: reference_pb2.ReferenceValueQueryRequest, context: grpc.ServicerContext
    ) -> reference_pb2.ReferenceValueQueryResponse:
        """One value as JSON text; the field is absent for a name without one."""
        edge, name = self._edge, request.reference_value_id

        def work() -> reference_pb2.ReferenceValueQueryResponse:
            value = edge.provider.query(name, edge.clock())
            if value is None:
                edge.metrics.missed(name)
                return reference_pb2.ReferenceValueQueryResponse()
            return reference_pb2.ReferenceValueQueryResponse(reference_value_results=encode(value).decode())

        return edge.run(context, "QueryReferenceValue", "Query reference value: ", work)

    def RegisterReferenceValue(  # noqa: N802 - the name on the wire
        self, request: reference_pb2.ReferenceValueRegisterRequest, context: grpc.ServicerContext
    ) -> reference_pb2.ReferenceValueRegisterResponse:
        """One message, all of it or nothing."""
        edge = self._edge

        def work() -> reference_pb2.ReferenceValueRegisterResponse:
            sender = edge.sender(context)
            values = edge.reception.receive(rest.message_of(request.message.encode()), sender)
            answer = rest.registered(values, edge.clock(), represent=False)
            if answer.change is not None:
                record_change(answer.change, sender)
            return reference_pb2.ReferenceValueRegisterResponse()

        return edge.run(context, "RegisterReferenceValue", "Register reference value: ", work)


class Values(values_pb2_grpc.ReferenceValuesServicer):
    """Our own service: see `rvps/proto/values.proto`."""

    def __init__(self, edge: _Edge) -> None:
        self._edge = edge

    def Get(  # noqa: N802 - the name on the wire
        self, request: values_pb2.GetRequest, context: grpc.ServicerContext
    ) -> values_pb2.ReferenceValue:
        """One value with its metadata."""

        def work() -> values_pb2.ReferenceValue:
            for value in self._edge.provider.list(self._edge.clock()):
                if value.name == request.name:
                    return self._wire(value)
            raise NotStated("no reference value of that name")

        return self._edge.run(context, "Get", "Get reference value: ", work)

    def List(  # noqa: N802 - the name on the wire
        self, request: values_pb2.ListRequest, context: grpc.ServicerContext
    ) -> Iterator[values_pb2.ReferenceValue]:
        """All values, as a stream."""

        def work() -> list[ReferenceValue]:
            self._edge.known_sender(context)
            found = self._edge.provider.list(self._edge.clock())
            return [value for value in found if value.name.startswith(request.prefix)]

        yield from map(self._wire, self._edge.run(context, "List", "List reference values: ", work))

    def Withdraw(  # noqa: N802 - the name on the wire
        self, request: values_pb2.WithdrawRequest, context: grpc.ServicerContext
    ) -> values_pb2.WithdrawResponse:
        """One name, gone at once."""

        def work() -> values_pb2.WithdrawResponse:
            sender = self._edge.known_sender(context)
            answer = rest.withdraw(self._edge.provider, request.name, issuer=sender, at=self._edge.clock())
            if answer.change is not None:
                record_change(answer.change, sender)
            return values_pb2.WithdrawResponse()

        return self._edge.run(context, "Withdraw", "Withdraw reference value: ", work)

    def Revoke(  # noqa: N802 - the name on the wire
        self, request: values_pb2.RevokeRequest, context: grpc.ServicerContext
    ) -> values_pb2.RevokeResponse:
        """One statement, void at once."""

        def work() -> values_pb2.RevokeResponse:
            sender = self._edge.known_sender(context)
            body = encode({"reason": request.reason})
            answer = rest.revoke(self._edge.provider, request.statement, body, issuer=sender, at=self._edge.clock())
            if answer.change is not None:
                record_change(answer.change, sender)
            return values_pb2.RevokeResponse()

        return self._edge.run(context, "Revoke", "Revoke statement: ", work)

    def _wire(self, value: ReferenceValue) -> values_pb2.ReferenceValue:
        return values_pb2.ReferenceValue(
            name=value.name,
            value=encode(value.value).decode(),
            issuer=value.issuer,
            statement=value.statement,
            valid_from=write_time(value.valid_from),
            valid_until=write_time(value.valid_until),
            valid=value.is_valid(self._edge.clock()),
        )


class GrpcServer:
    """Both services and health on one address.

    grpc.aio receives; a thread is taken for a call only once its whole request is here. In the threaded server of the
    same package a call that never sends its message holds a thread for ever, and sixteen of them all.

    Args:
        address: HOST:PORT; port 0 takes a free one, see `port`.
        tls: certificate and key, PEM, which were seen to load; None: plain.

    Raises:
        SettingsUnacceptable: the address is in use or not ours.
    """

    def __init__(
        self,
        address: str,
        tls: tuple[Path, Path] | None,
        *,
        reception: Reception,
        directory: Directory,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._edge = _Edge(reception, directory, clock, metrics)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc", daemon=True)
        self._thread.start()
        try:
            self.port = self._run(self._listen(address, tls))
        except RuntimeError as err:
            self._end()
            raise SettingsUnacceptable(f"{address}: this address is in use, or not one of this machine") from err
        self.show_health(well=False)

    def start(self) -> None:
        """Serve from now on."""
        self._run(self._server.start())

    def show_health(self, *, well: bool) -> None:
        """What `grpc.health.v1.Health` answers."""
        status: Any = health_pb2.HealthCheckResponse.SERVING if well else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in _SERVICES:
            self._run(self._health.set(service, status))

    def stop(self, grace: float) -> None:
        """Take no new call, let open ones end for `grace` seconds, return."""
        self._run(self._health.enter_graceful_shutdown())
        self._run(self._server.stop(grace))
        self._end()

    async def _listen(self, address: str, tls: tuple[Path, Path] | None) -> int:
        self._server = grpc.aio.server(self._threads, options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        reference_pb2_grpc.add_ReferenceValueProviderServiceServicer_to_server(Reference(self._edge), self._server)
        values_pb2_grpc.add_ReferenceValuesServicer_to_server(Values(self._edge), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, _credentials(tls))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop's thread, from any other."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._threads.shutdown()


def _credentials(tls: tuple[Path, Path]) -> grpc.ServerCredentials:
    certificate, key = (path.read_bytes() for path in tls)
    return grpc.ssl_server_credentials([(key, certificate)])
