"""Signed messages without cryptography: `PUBLISHER/KEY` on the first line stands for a signature, JSON follows."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake.model import Approval, Artifact, Content, Revocation, Verified
from rvps.messages import read_time, write_time
from rvps.publishers.model import Publisher, Publishers, Trust, gather

KIND = "fake"


class FakeIntake:
    """`rvps.intake.model.Intake`. extracted: how often content was looked at."""

    def __init__(self) -> None:
        self.extracted = 0

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:
        signer, _, content = payload.partition(b"\n")
        publisher = publishers.by_name.get(signer.decode("ascii", "replace").partition("/")[0])
        if publisher is None or KIND not in publisher.types:
            raise SignatureRefused("nobody known signed this")
        return Verified(publisher, signer.decode(), KIND, content, hashlib.sha256(content).hexdigest(), at)

    def extract(self, verified: Verified, at: datetime) -> Content | Approval | Revocation:
        self.extracted += 1
        said = json.loads(verified.content)
        if "approve" in said:
            return Approval(said["approve"], said.get("serial"))
        if "revoke" in said:
            return Revocation(said["revoke"], said["reason"])
        if said.get("malformed"):
            raise StatementUnacceptable("content does not have the form")
        return Content(
            series=said["series"],
            serial=said["serial"],
            tee=said.get("tee"),
            artifacts=(Artifact("OVMF.fd", {"sha256": "00" * 32}),),
            values=said["values"],
            known_bad={name: tuple(values) for name, values in said.get("bad", {}).items()},
            together=said.get("together", False),
            valid_from=_time(said.get("begins")),
            valid_until=_time(said.get("until")),
        )


def _time(text: str | None) -> datetime | None:
    return None if text is None else read_time(text, "time")


def publisher(
    name: str,
    *,
    namespaces: tuple[str, ...] = ("n",),
    approvals: int = 0,
    approvers: tuple[str, ...] = (),
    self_approval: bool = False,
    keeps: int = 1,
    merge: Literal["replace", "append"] = "replace",
    tees: frozenset[str] | None = None,
    max_life: timedelta = timedelta(days=30),
) -> Publisher:
    return Publisher(
        name=name,
        types=frozenset({KIND}),
        namespaces=namespaces,
        trust=Trust(),
        tees=tees,
        max_life=max_life,
        approvals=approvals,
        approvers=frozenset(approvers),
        self_approval=self_approval,
        keeps=keeps,
        merge=merge,
    )


def approver(name: str) -> Publisher:
    return publisher(name, namespaces=())


def message(signer: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope; `signer` is `PUBLISHER/KEY`."""
    payload = signer.encode() + b"\n" + json.dumps(said).encode()
    return {"version": "0.1.0", "type": KIND, "payload": base64.b64encode(payload).decode()}


def digest(said: Mapping[str, Any]) -> str:
    """By which approvals name the statement."""
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def stating(serial: int, values: Mapping[str, Any], series: str = "s", **members: Any) -> dict[str, Any]:
    """Content of a statement; moments as datetimes."""
    written = {name: write_time(each) if isinstance(each, datetime) else each for name, each in members.items()}
    return {"series": series, "serial": serial, "values": dict(values), **written}


def everybody(*publishers: Publisher) -> Publishers:
    return gather(publishers)
