"""Reference values: query, register, list, withdraw."""

from __future__ import annotations

from kbs.audit.events import ReferenceValueChanged
from kbs.audit.gate import Decided
from kbs.clock import Clock
from kbs.errors import ReferenceValuesUnavailable, ReferenceValueUnacceptable, ResourceNotFound
from kbs.web.administration.decode import JSON, actor, document_response, json_object, only_parameter
from kbs.web.model import Call, HttpResponse
from rvps.client import ReferenceValueProvider
from rvps.errors import ProviderUnavailable, StatementUnacceptable


class ReferenceRoutes:
    """Reference values."""

    def __init__(self, provider: ReferenceValueProvider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock

    def query(self, call: Call) -> Decided[HttpResponse]:
        """GET reference-value/<id…>: the value itself."""
        name = "/".join(call.parameters)
        try:
            value = self._provider.query(name, self._clock())
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err
        if value is None:
            raise ResourceNotFound(
                "RVPS configuration failed: Failed to get reference_values: "
                f"No reference value found for the given id: {name}"
            )
        return document_response(call, f"reference-value {name}", value)

    def register(self, call: Call) -> Decided[HttpResponse]:
        """POST reference-value: an RVPS message, vouched for by this administrator."""
        message = json_object(call.request.body)
        try:
            values = self._provider.register(message, issuer=f"admin:{actor(call).name}", at=self._clock())
        except StatementUnacceptable as err:
            raise ReferenceValueUnacceptable(
                f"RVPS configuration failed: Failed to register reference value: {err}"
            ) from err
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err
        event = ReferenceValueChanged(
            decision=call.decision,
            actor=actor(call).name,
            action="register",
            names=tuple(value.name for value in values),
            statement=values[0].statement if values else None,
            peer=call.request.peer,
        )
        return Decided((event,), HttpResponse(200, b"", JSON))

    def list_all(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values: every stored value with issuer and validity."""
        try:
            values = self._provider.list(self._clock())
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err
        now = self._clock()
        listed = [
            {
                "name": value.name,
                "value": value.value,
                "issuer": value.issuer,
                "statement": value.statement,
                "valid_from": value.valid_from.isoformat(),
                "valid_until": value.valid_until.isoformat(),
                "valid": value.is_valid(now),
            }
            for value in values
        ]
        return document_response(call, "reference-values", listed)

    def withdraw(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/reference-values/<name…>."""
        return self._withdraw(call, "/".join(call.parameters))

    def withdraw_named(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/reference-values?name=…: for names that do not fit a path, such as `rvps:///…`."""
        return self._withdraw(call, only_parameter(call, "name"))

    def _withdraw(self, call: Call, name: str) -> Decided[HttpResponse]:
        try:
            found = self._provider.withdraw(name, issuer=f"admin:{actor(call).name}", at=self._clock())
        except ProviderUnavailable as err:
            raise ReferenceValuesUnavailable(str(err)) from err
        if not found:
            raise ResourceNotFound(f"no reference value {name}")
        event = ReferenceValueChanged(
            decision=call.decision,
            actor=actor(call).name,
            action="withdraw",
            names=(name,),
            peer=call.request.peer,
        )
        return Decided((event,), HttpResponse(200, b"", JSON))
