"""Structured log: one JSON object per line, control characters escaped by the encoder."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime

_FRAMES = 12  # of one exception
_MAX_TRACE = 48


class JsonFormatter(logging.Formatter):
    """`extra={"members": {...}}` of a record goes into its object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        members = getattr(record, "members", None)
        if isinstance(members, dict):
            line.update({name: value for name, value in members.items() if value is not None})
        if record.exc_info:
            line["trace"] = _trace(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, default=str, separators=(",", ":"))


def _trace(err: BaseException | None) -> list[str]:
    """Classes and places of an exception and its causes. Never its text: that may hold what a peer sent."""
    found: list[str] = []
    while err is not None and len(found) < _MAX_TRACE:
        found.append(type(err).__name__)
        found += [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(err.__traceback__)[-_FRAMES:]
        ]
        err = err.__cause__ or err.__context__
    return found


def configure(level: str = "INFO") -> None:
    """Send everything to stderr in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
