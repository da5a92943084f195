"""Log of `rvps serve`: one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """`extra={"members": {…}}` of a record goes into its object. Of exceptions only class and places are shown: their
    texts may hold what a peer sent."""

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
        if record.exc_info and record.exc_info[1] is not None:
            err = record.exc_info[1]
            frames = traceback.extract_tb(err.__traceback__)[-8:]
            line["trace"] = [type(err).__name__, *(f"{frame.filename}:{frame.lineno}" for frame in frames)]
        return json.dumps(line, default=str)


def configure() -> None:
    """Send everything from level INFO on to stderr in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("uvicorn", "uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
