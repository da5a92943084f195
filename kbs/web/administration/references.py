"""Reference values: query, register, list, withdraw; statements: submit, look at, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kbs.admin.reference_use import DEFAULT_LAST, MAX_LAST, ReferenceUse
from kbs.audit.events import AdminRead, ReferenceValueChanged
from kbs.audit.gate import Decided
from kbs.clock import Clock
from kbs.errors import MalformedMessage, ReferenceValuesUnavailable, ReferenceValueUnacceptable, ResourceNotFound
from kbs.web.administration.decode import JSON, actor, document_response, json_object, only_parameter
from kbs.web.model import Call, HttpResponse
from rvps import rest
from rvps.client import ReferenceValueProvider
from rvps.errors import NotStated, ProviderUnavailable, StatementUnacceptable
from rvps.rest import Answer

_FAILED = "RVPS configuration failed: "


class ReferenceRoutes:
    """Reference values."""

    def __init__(self, provider: ReferenceValueProvider, use: ReferenceUse, clock: Clock) -> None:
        self._provider = provider
        self._use = use
        self._clock = clock

    def query(self, call: Call) -> Decided[HttpResponse]:
        """GET reference-value/<id…>: the value itself."""
        name = "/".join(call.parameters)
        with worded("Failed to get reference_values: "):
            return _read(call, f"reference-value {name}", rest.query(self._provider, name, self._clock()))

    def register(self, call: Call) -> Decided[HttpResponse]:
        """POST reference-value: an RVPS message; an unsigned one is vouched for by this administrator."""
        message = json_object(call.request.body)
        with worded("Failed to register reference value: "):
            values = self._provider.register(message, issuer=issuer_of(call), at=self._clock())
        return _changed(call, rest.registered(values, self._clock(), represent=False))

    def list_all(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values[?name=…|?prefix=…]: stored values with issuer and validity."""
        query = call.target.query
        with worded():
            found = rest.list_values(
                self._provider, self._clock(), name=query.get("name"), prefix=query.get("prefix", "")
            )
        return _read(call, "reference-values", found)

    def withdraw(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/reference-values/<name…>."""
        return self._withdraw(call, "/".join(call.parameters))

    def withdraw_named(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/reference-values?name=…: for names that do not fit a path, such as `rvps:///…`."""
        return self._withdraw(call, only_parameter(call, "name"))

    def submit(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/reference-values/submit: a signed statement, approval or revocation."""
        with worded():
            return _changed(call, rest.submit(self._provider, call.request.body, self._clock()))

    def dry_run(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/reference-values/dry-run: what a message would do."""
        with worded():
            found = rest.dry_run(self._provider, call.request.body, issuer=issuer_of(call), at=self._clock())
        return _read(call, "dry run of reference values", found)

    def statements(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/statements[?state=…]."""
        with worded():
            found = rest.statements(self._provider, self._clock(), state=call.target.query.get("state"))
        return _read(call, "statements", found)

    def statement(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/statements/<id or digest>."""
        with worded():
            found = rest.statement(self._provider, call.parameters[0], self._clock())
        return _read(call, f"statement {call.parameters[0]}", found)

    def revoke(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/reference-values/statements/<id or digest>/revoke {"reason": …}."""
        wanted, body = call.parameters[0], call.request.body
        with worded():
            answer = rest.revoke(self._provider, wanted, body, issuer=issuer_of(call), at=self._clock())
        return _changed(call, answer)

    def why(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/why?name=…[&value=<JSON>]: with the decisions that looked it up."""
        query = call.target.query
        name, text = query.get("name", ""), query.get("value")
        with worded():
            found = rest.why_document(self._provider, name, text, self._clock())
            usage = self._use.usage(name, rest.value_of(text))
        return document_response(call, f"why {name}", {**found, "decisions": usage})

    def names(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/names?value=<JSON>."""
        with worded():
            return _read(call, "names of a value", rest.names_of(self._provider, call.target.query.get("value")))

    def stated(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/statements/<id or digest>/values."""
        with worded():
            return _read(call, f"values of {call.parameters[0]}", rest.stated(self._provider, call.parameters[0]))

    def expiring(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/expiring[?within=<seconds>]."""
        with worded():
            found = rest.expiring(self._provider, call.target.query.get("within"), self._clock())
        return _read(call, "expiring reference values", found)

    def misses(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/misses: look-ups by name in this process; `drift` has those of policies."""
        return _read(call, "misses", rest.misses(self._provider))

    def drift(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/drift[?last=<decisions>]: what guests present and nobody states."""
        text = call.target.query.get("last", str(DEFAULT_LAST))
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_LAST):
            raise MalformedMessage(f"last: a number of decisions from 1 to {MAX_LAST}")
        return document_response(call, "drift", self._use.drift(int(text)).document())

    def claims(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/decisions/<id>/claims: what a kept decision was made of."""
        decision = call.parameters[0]
        return document_response(call, f"claims of {decision}", self._use.claims(decision))

    def message(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/reference-values/messages/<SHA-256>: a signed message as it arrived."""
        with worded():
            found = rest.signed_message(self._provider, call.parameters[0])
        return _read(call, f"message {call.parameters[0]}", found)

    def _withdraw(self, call: Call, name: str) -> Decided[HttpResponse]:
        with worded():
            return _changed(call, rest.withdraw(self._provider, name, issuer=issuer_of(call), at=self._clock()))


def issuer_of(call: Call) -> str:
    """Who vouches for what this administrator states."""
    return f"admin:{actor(call).name}"


def _read(call: Call, what: str, answer: Answer) -> Decided[HttpResponse]:
    event = AdminRead(decision=call.decision, actor=actor(call).name, what=what, peer=call.request.peer)
    return Decided((event,), HttpResponse(answer.status, answer.body, answer.content_type, answer.headers))


def _changed(call: Call, answer: Answer) -> Decided[HttpResponse]:
    change = answer.change
    assert change is not None
    event = ReferenceValueChanged(
        decision=call.decision,
        actor=actor(call).name,
        action=change.action,
        names=change.names,
        statement=change.statement,
        peer=call.request.peer,
    )
    return Decided((event,), HttpResponse(answer.status, answer.body, JSON))


@contextmanager
def worded(doing: str = "") -> Iterator[None]:
    """The provider's refusals in the broker's words."""
    try:
        yield
    except NotStated as err:
        raise ResourceNotFound(f"{_FAILED}{doing}{err}") from err
    except StatementUnacceptable as err:
        raise ReferenceValueUnacceptable(f"{_FAILED}{doing}{err}") from err
    except ProviderUnavailable as err:
        raise ReferenceValuesUnavailable(str(err)) from err
