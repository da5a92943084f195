"""What a broker says of a Pod to come: whether it knows its init data, and what its policy would hand out.

The evidence is made up: that of a good guest of the TEE, with the Pod's own init data. So a yes means that the policy
stands in nobody's way, not that a real guest is measured as expected.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from kbs.initdata.document import Document, field_values
from kbs.k8s.check.local import Report
from kbs.k8s.check.model import Row, Verdict, good
from kbs.policy.workbench import fixture_data
from kbs.protocol.resource_uri import ResourceUri

Json = Any

_EVIDENCE: Final = "ear.veraison.annotated-evidence"
_MOST: Final = 64  # requests of one Pod that are tried


class Broker(Protocol):
    """An administrator's questions; answers are the broker's documents. Each may raise `Failure` of the caller."""

    def tees(self) -> list[str]:
        """Enabled ones."""

    def origin(self, value: str) -> Mapping[str, Json]:
        """As `kbs.client.init_data.InitDataClient.origin`."""

    def allows(self, claims: Mapping[str, Json], request: Mapping[str, Json]) -> Mapping[str, Json]:
        """The active resource policy over these claims: `allow`, or `error`, and `findings`."""


Failure = Callable[[Callable[[], Any]], "tuple[Any, str | None]"]
"""Runs a question: its answer, or None and why there is none."""


def ask(report: Report, broker: Broker, guarded: Failure) -> Iterator[Row]:
    """Ask about one Pod."""
    if report.document is None:
        return
    tees, problem = guarded(broker.tees)
    if problem is not None:
        yield Row(Verdict.UNKNOWN, "broker", problem, "broker-unreachable")
        return
    if report.tee is None:
        hint = "say with --tee which evidence its guests send"
        yield Row(Verdict.UNKNOWN, "broker", "which TEE is not known, so no policy was asked", "tee-unknown", hint)
        return
    if report.tee in tees:
        yield good("broker", f"takes evidence of {report.tee}")
    else:
        hint = f"add {report.tee} to attestation.tees of the broker's settings"
        yield Row(Verdict.BAD, "broker", f"takes no evidence of {report.tee}", "tee-not-enabled", hint)
    yield from _known(report.document, report.tee, broker, guarded)
    claims = claims_of(report.tee, report.document)
    for uri in list(report.requests.values())[:_MOST]:
        yield _allowed(uri, claims, broker, guarded)


def claims_of(tee: str, document: Document) -> dict[str, Json]:
    """Claims of a token for a good guest that was started with this document."""
    claims: dict[str, Json] = copy.deepcopy(fixture_data()["tokens"][tee]["good"])
    evidence = claims["submods"]["cpu0"][_EVIDENCE]
    evidence["init_data"] = field_values(document.digest).get(tee) or document.digest.hex()
    evidence["init_data_claims"] = dict(document.claims)
    return claims


def _known(document: Document, tee: str, broker: Broker, guarded: Failure) -> Iterator[Row]:
    value = field_values(document.digest).get(tee) or document.digest.hex()
    found, problem = guarded(lambda: broker.origin(value))
    if problem is not None:
        yield Row(Verdict.UNKNOWN, "register", problem, "register-unknown")
    elif found.get("approved"):
        names = ", ".join(str(each.get("name")) for each in found.get("matches") or ()) or "by a reference value"
        yield good("register", f"the broker expects these init data: {names}")
    else:
        hint = "kbs initdata register, or let the controller do it: kubectl describe workloadprofile"
        yield Row(Verdict.BAD, "register", "the broker does not expect these init data", "not-registered", hint)


def _allowed(uri: ResourceUri, claims: Mapping[str, Json], broker: Broker, guarded: Failure) -> Row:
    path, _, query = uri.target.partition("?")
    pairs = dict(each.partition("=")[::2] for each in query.split("&") if each)
    request = {"plugin": uri.plugin, "resource-path": path.split("/"), "query": pairs}
    answer, problem = guarded(lambda: broker.allows(claims, request))
    if problem is not None:
        return Row(Verdict.UNKNOWN, "policy", f"{uri}: {problem}", "policy-unknown")
    if "error" in answer:
        return Row(Verdict.BAD, "policy", f"{uri}: the policy gives no proper answer", "policy-error")
    if answer.get("allow") is True:
        return good("policy", f"{uri}: a good guest gets it")
    failed = [each for each in answer.get("findings") or () if not each.get("ok")]
    why = f"; it fails at {failed[0].get('rule')}: {failed[0].get('claim')}" if failed else ""
    hint = "kbs policy show, and change it; the claims of this check are those of a good guest"
    return Row(Verdict.BAD, "policy", f"{uri}: denied even to a good guest{why}", "policy-denies", hint)
