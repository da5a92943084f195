"""Plugin `pkcs11`: secrets on a hardware token, and what a token's RSA key wraps (kbs-protocol 8.5).

GET, POST, DELETE pkcs11/resource/REPOSITORY/TYPE/TAG   generic secret keys, labelled with that path
POST              pkcs11/wrap-key                       administrators; the body, encrypted with the public key
GET               pkcs11/wrap-key                       guests; the body, decrypted with the private key
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pkcs11
from pkcs11 import MGF, Attribute, Mechanism, ObjectClass, exceptions

from kbs import config
from kbs.errors import ConfigInvalid, MalformedMessage, NameNotAllowed, ResourceNotFound
from kbs.plugins.model import Access, Guard, PluginAnswer, PluginContext, PluginRequest
from kbs.plugins.pkcs11.objects import Kind, TokenObjects, find_key
from kbs.plugins.pkcs11.token import Pkcs11Token, TokenSettings
from kbs.protocol.resource_path import parse as parse_path
from kbs.secret import Secret

_WHERE: Final = "plugins.options.pkcs11"
_GUARDS: Final[Mapping[str, Guard]] = {
    "GET": Guard(Access.TOKEN),
    "POST": Guard(Access.ADMIN, "plugin.admin"),
    "DELETE": Guard(Access.ADMIN, "plugin.admin"),
}
_PADDINGS: Final[Mapping[str, tuple[tuple[Mechanism, MGF, None], int]]] = {
    "RsaPkcsOaep": ((Mechanism.SHA256, MGF.SHA256, None), 32),
    "RsaPkcsTest": ((Mechanism.SHA_1, MGF.SHA1, None), 20),
}
"""OAEP by the reference's names: hash and mask generation, no label; octets of the hash."""
_UNFIT: Final = (
    exceptions.DataInvalid,
    exceptions.DataLenRange,
    exceptions.EncryptedDataInvalid,
    exceptions.EncryptedDataLenRange,
    exceptions.FunctionFailed,
    exceptions.GeneralError,  # what some tokens say to a wrong padding
)
_ABSENT: Final = "pkcs11 has resource/REPOSITORY/TYPE/TAG and wrap-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Settings(TokenSettings):
    """Options of the plugin. lookup_label: of the RSA key pair for wrap-key."""

    rsa_mechanism: str = "RsaPkcsOaep"
    lookup_label: str = ""


class Pkcs11Plugin:
    """Answers from one token."""

    blocks = True

    def __init__(self, settings: Pkcs11Settings, token: Pkcs11Token) -> None:
        self._label = settings.lookup_label
        self._padding, self._digest = _PADDINGS[settings.rsa_mechanism]
        self._token = token
        self._objects = TokenObjects(token, Kind.SECRET_KEY)

    def guards(self) -> Mapping[str, Guard]:
        """GET for guests; POST and DELETE for administrators."""
        return _GUARDS

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Answer one request."""
        match (request.method, *request.segments):
            case ("GET", "wrap-key"):
                return PluginAnswer(self._unwrap(request.body))
            case ("POST", "wrap-key"):
                return PluginAnswer(Secret(self._wrap(request.body)), action="wrap")
            case ("GET", "resource", *rest):
                return self._read(tuple(rest))
            case ("POST", "resource", *rest):
                self._objects.put(str(parse_path(rest)), request.body)
                return PluginAnswer(Secret(b""), action="write")
            case ("DELETE", "resource", *rest):
                name = str(parse_path(rest))
                if not self._objects.delete(name):
                    raise ResourceNotFound(f"no resource {name}")
                return PluginAnswer(Secret(b""), action="delete")
        raise ResourceNotFound(_ABSENT)

    def _read(self, segments: tuple[str, ...]) -> PluginAnswer:
        try:
            name = str(parse_path(segments))
        except NameNotAllowed as err:  # to a guest a name outside the grammar is one that does not exist
            raise ResourceNotFound(str(err)) from None
        value = self._objects.get(name)
        if value is None:
            raise ResourceNotFound(f"no resource {name}")
        return PluginAnswer(Secret(value))

    def _wrap(self, body: bytes) -> bytes:
        def encrypt(session: pkcs11.Session) -> bytes | None:
            key = find_key(session, ObjectClass.PUBLIC_KEY, self._label)
            if not 0 < len(body) <= _size(key) - 2 * self._digest - 2:  # RFC 8017, 7.1.1
                return None
            return bytes(key.encrypt(body, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=self._padding))

        wrapped = self._token.use(encrypt)
        if wrapped is None:
            raise MalformedMessage("the key does not encrypt a body of this size")
        return wrapped

    def _unwrap(self, body: bytes) -> Secret:
        """One text for whatever does not decrypt, so that it tells nothing about the padding."""

        def decrypt(session: pkcs11.Session) -> bytes | None:
            key = find_key(session, ObjectClass.PRIVATE_KEY, self._label)
            if len(body) != _size(key):
                return None
            try:
                return bytes(key.decrypt(body, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=self._padding))
            except _UNFIT:
                return None

        opened = self._token.use(decrypt)
        if opened is None:
            raise MalformedMessage("the body is not what this broker's key wrapped")
        return Secret(opened)


def _size(key: Any) -> int:
    """Octets of the modulus."""
    return len(bytes(key[Attribute.MODULUS]))


def build(context: PluginContext) -> Pkcs11Plugin:
    """Entry point `kbs.plugins: pkcs11`. The token is not asked before the first request.

    Raises:
        ConfigInvalid: options that cannot work.
    """
    settings = config.structure(context.options, Pkcs11Settings, _WHERE)
    if settings.rsa_mechanism not in _PADDINGS:
        raise ConfigInvalid(f"settings: {_WHERE}.rsa_mechanism: expected one of {', '.join(_PADDINGS)}")
    return Pkcs11Plugin(settings, Pkcs11Token(settings, context.data, _WHERE))
