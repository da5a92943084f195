"""An administrator's requests about the register of init-data documents, over an `AdminClient`."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from kbs.client.admin import AdminClient, condition, version_in
from kbs.client.errors import ClientMisconfigured, UnexpectedAnswer
from kbs.protocol import base64url
from kbs.strict_json import Json

_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_DIGESTS: Final = (32, 48, 64)  # octets


class InitDataClient:
    """What `kbs initdata` asks a broker. Methods raise as `AdminClient` says."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    def register(self, name: str, owner: str, raw: bytes, *, expected: int | None = None) -> int | None:
        """Keep the exact text of a document; the version of the entry. expected: the one that must be current."""
        message: dict[str, Json] = {"owner": owner, "document": base64url.encode(raw).decode("ascii")}
        return version_in(self._admin.request("PUT", f"admin/init-data/{name}", message, headers=condition(expected)))

    def all(self) -> list[dict[str, Json]]:
        """Every entry without its text."""
        return self._admin.objects("admin/init-data", "init data")

    def get(self, name: str) -> dict[str, Json]:
        """One entry with its text and the fields of all TEEs."""
        found = self._admin.members("GET", f"admin/init-data/{name}")
        if not isinstance(found.get("text"), str):
            raise UnexpectedAnswer("an entry of the register has no text")
        return found

    def remove(self, name: str, *, expected: int | None = None) -> None:
        """Forget a document."""
        self._admin.request("DELETE", f"admin/init-data/{name}", headers=condition(expected))

    def origin(self, asked: str) -> dict[str, Json]:
        """Which entries a value, or the guest of a decision, comes from.

        asked: hex, the id, or base64 as claims of `sample` have it, which is hex on the way: paths do not take it.
        """
        return self._admin.members("GET", f"admin/init-data-origin/{_in_hex(asked)}")


def _in_hex(asked: str) -> str:
    if _HEX.fullmatch(asked):
        return asked
    try:
        value = base64.b64decode(asked, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) in _DIGESTS:
        return value.hex()
    raise ClientMisconfigured(
        f"{asked[:100]!r} is neither the claim init_data, in hex or base64, nor the id of a decision"
    )
