"""The names in IBM's host-key certificates, which are not always written the same way.

IBM's revocation lists name their issuer with its attributes in another order than the certificate of that issuer, and
with `Armonk` where the certificate says `Poughkeepsie`. A name only finds a candidate; signatures decide.

Source: verifiers 9.3; s390-tools, verification of host-key documents.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

_IBM: Final = "International Business Machines Corporation"
_LOCALITIES: Final = frozenset({"Poughkeepsie", "Armonk"})
_SERVICE: Final = {
    NameOID.COUNTRY_NAME: frozenset({"US"}),
    NameOID.STATE_OR_PROVINCE_NAME: frozenset({"New York"}),
    NameOID.LOCALITY_NAME: _LOCALITIES,
    NameOID.ORGANIZATION_NAME: frozenset({_IBM}),
    NameOID.COMMON_NAME: frozenset({_IBM}),
}
_SERVICE_UNIT: Final = "Key Signing Service"


def is_signing_service(name: x509.Name) -> bool:
    """Whether this is the subject of IBM's host-key signing service: exactly these six attributes."""
    attributes = {each.oid: str(each.value) for each in name}
    if len(attributes) != len(list(name)) or set(attributes) != {*_SERVICE, NameOID.ORGANIZATIONAL_UNIT_NAME}:
        return False
    return attributes[NameOID.ORGANIZATIONAL_UNIT_NAME].endswith(_SERVICE_UNIT) and all(
        attributes[oid] in values for oid, values in _SERVICE.items()
    )


def is_name_of_service(name: x509.Name, service: x509.Certificate) -> bool:
    """Whether `name` means this signing service, in whatever order and with either of its two places."""
    return _loose(name) == _loose(service.subject)


def _loose(name: x509.Name) -> list[tuple[str, str]]:
    return sorted(
        (each.oid.dotted_string, "" if each.oid == NameOID.LOCALITY_NAME and each.value in _LOCALITIES else text)
        for each in name
        for text in (str(each.value),)
    )
