"""Resource URIs as guests read them: `kbs[+plugin]://[host]/segment/…[?query]`.

A guest ignores the host and asks the broker that it is configured with, so `kbs://a/b/c` asks for `b/c`: the most
common mistake, and refused here. Source: guest-components 1.10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kbs.errors import NameNotAllowed
from kbs.protocol.resource_path import ResourcePath, parse

RESOURCE: Final = "resource"

_MAX: Final = 4096  # characters
_SCHEME: Final = re.compile(r"kbs(?:\+([a-z0-9][a-z0-9-]{0,62}))?")
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]_-]*")
_TARGET: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@%-]+(?:/[A-Za-z0-9._~!$&'()*+,=:@%-]+)*(?:\?[!-~]*)?")


@dataclass(frozen=True, slots=True)
class ResourceUri:
    """Made by `parse_uri` only.

    host: what a guest ignores. plugin: who answers. target: path and query below the plugin.
    """

    host: str
    plugin: str
    target: str

    @property
    def path(self) -> ResourcePath:
        """Of the plugin `resource`: repository, type and tag.

        Raises:
            NameNotAllowed: of another plugin.
        """
        if self.plugin != RESOURCE:
            raise NameNotAllowed(f"{self}: of the plugin {self.plugin}, not a resource kbs:///repository/type/tag")
        return parse(self.target.split("/"))

    def __str__(self) -> str:
        """The form to write, with three slashes."""
        return f"kbs:///{self.target}" if self.plugin == RESOURCE else f"kbs+{self.plugin}:///{self.target}"


def parse_uri(text: str) -> ResourceUri:
    """Read a URI. There is no form without a scheme: guests refuse one.

    Raises:
        NameNotAllowed: no such URI, or one that asks for what no broker has; the text says what to write.
    """
    shown = _shown(text)
    scheme, separator, rest = text.partition("://")
    if not separator or len(text) > _MAX:
        raise NameNotAllowed(f"{shown} is no resource URI; write kbs:///repository/type/tag")
    found = _SCHEME.fullmatch(scheme)
    if found is None:
        raise NameNotAllowed(f"{shown}: resource URIs begin with kbs:/// or kbs+PLUGIN:///")
    plugin = found[1] or RESOURCE
    host, slash, target = rest.partition("/")
    if plugin == RESOURCE and host and target.count("/") == 1:
        raise NameNotAllowed(
            f"{shown}: a guest takes {_shown(host)} for a host and asks for {_shown(target)}; "
            f"write kbs:///{_shown(rest)} with three slashes"
        )
    if not slash or not _HOST.fullmatch(host) or not _TARGET.fullmatch(target):
        raise NameNotAllowed(f"{shown} is no resource URI; write kbs:///repository/type/tag")
    uri = ResourceUri(host, plugin, target)
    if not {".", ".."}.isdisjoint(target.partition("?")[0].split("/")):
        raise NameNotAllowed(f"{shown}: a segment is . or ..")
    if plugin == RESOURCE:
        try:
            uri.path  # noqa: B018 - its grammar
        except NameNotAllowed as err:
            raise NameNotAllowed(f"{shown}: {err}") from None
    return uri


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:200])
