"""Reference values of a ConfigMap: those that still hold become ReferenceValueSets, one for each end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kbs.errors import MalformedMessage
from kbs.k8s.documents import moment
from kbs.k8s.migrate.model import Verdict
from kbs.k8s.migrate.paths import Reading
from kbs.k8s.migrate.resources import BROKER, new_object
from kbs.k8s.migrate.sources import DOMAIN, decode

_YEAR: Final = timedelta(days=365)
_MOST: Final = 512  # values in one object


def read_values(reading: Reading, name: str, source: str, setting: str, now: datetime) -> None:
    """The ConfigMap of that name: in each key a list of `{name, expiration, value}` (rvps 7).

    Raises:
        MalformedMessage: a key that holds something else.
    """
    texts = reading.found.config_maps.get(name)
    if texts is None:
        reading.draft.note(source, setting, Verdict.UNKNOWN, f"ConfigMap {name} is not in the input: give it, too")
        return
    reading.found.used.add(("ConfigMap", name))
    reading.draft.note(source, setting, Verdict.OURS, f"see ConfigMap {name}")
    for key, text in sorted(texts.items()):
        _read_key(reading, name, key, text, now)


def _read_key(reading: Reading, name: str, key: str, text: str, now: datetime) -> None:
    where = f"ConfigMap/{name} {key}"
    content = decode(key if key.endswith(".json") else f"{key}.json", b'{"values": %s}' % text.encode()).content
    listed = content["values"]
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise MalformedMessage(f"{where}: is no list of reference values")
    groups: dict[datetime, dict[str, Any]] = {}
    for each in listed:
        found = _value(reading, where, each, now)
        if found is not None:
            until, value_name, value = found
            groups.setdefault(until, {})[value_name] = value
    base = name if DOMAIN.fullmatch(name) else "reference-values"
    for number, (until, values) in enumerate(sorted(groups.items()), 1):
        for part in range(0, len(values), _MOST):
            some = dict([*values.items()][part : part + _MOST])
            suffix = f"-{number}" if len(groups) > 1 else ""
            suffix += f"-{part // _MOST + 1}" if len(values) > _MOST else ""
            spec = {
                "brokerRef": {"name": BROKER},
                "unsigned": True,
                "values": some,
                "expires": until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            reading.draft.objects.append(
                new_object("ReferenceValueSet", reading.draft.namespace, f"{base}{suffix}", spec)
            )
    if not listed:
        reading.draft.note(f"ConfigMap/{name}", key, Verdict.NOT_NEEDED, "an empty list")


def _value(reading: Reading, where: str, entry: dict[str, Any], now: datetime) -> tuple[datetime, str, Any] | None:
    source, _, key = where.partition(" ")
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise MalformedMessage(f"{where}: a reference value without a name")
    setting = f"{key}: {name}"
    value = entry["value"] if "value" in entry else _hashes(entry.get("hash-value"))
    if value is None:
        reading.draft.note(source, setting, Verdict.REFUSED, "has no value")
        return None
    try:
        until = moment(entry["expiration"]) if "expiration" in entry else now + _YEAR
    except (ValueError, TypeError):
        raise MalformedMessage(f"{where}: {name} has an expiration that is no time with a zone") from None
    if until <= now:
        why = f"ended {until.date()}: the reference went on using it, here it would say nothing"
        reading.draft.note(source, setting, Verdict.REFUSED, why)
        return None
    why = "nobody signed it: the controller's administrator vouches for it"
    if not isinstance(value, list):
        why += ". It is no list; default policies that look for a member of one do not find it"
    reading.draft.note(source, setting, Verdict.OURS, why, "ReferenceValueSet")
    return until, name, value


def _hashes(entries: Any) -> list[Any] | None:
    """The form before 2025: `[{"alg": …, "value": …}]`."""
    if not isinstance(entries, list):
        return None
    found = [each.get("value") for each in entries if isinstance(each, dict)]
    return found if found and all(isinstance(each, str) for each in found) else None
