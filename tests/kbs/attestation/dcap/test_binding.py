"""What the fields of a quote are compared with, and what is too little to compare with."""

from __future__ import annotations

import pytest

from kbs.attestation.dcap.binding import check_binding
from kbs.attestation.model import Binding
from kbs.errors import BindingMismatch, InitDataMismatch

DIGEST = bytes(range(1, 49))
FIELD = DIGEST.ljust(64, b"\0")


def test_a_digest_binds_nothing_when_it_is_empty() -> None:
    """An empty one fits the report data of every guest that asks for none."""
    with pytest.raises(BindingMismatch):
        check_binding(bytes(64), bytes(48), Binding(b""))
    check_binding(bytes(64), bytes(48), Binding(None))


@pytest.mark.parametrize("digest", [DIGEST[:-1], DIGEST + b"\1", DIGEST.ljust(65, b"\0"), b"\0" * 64])
def test_another_digest_is_refused(digest: bytes) -> None:
    check_binding(FIELD, bytes(48), Binding(DIGEST))
    with pytest.raises(BindingMismatch):
        check_binding(FIELD, bytes(48), Binding(digest))


@pytest.mark.parametrize("size", [0, 1, 20, 31])
@pytest.mark.parametrize("field", [48, 64])
def test_a_short_init_data_digest_is_refused_even_where_it_fits(size: int, field: int) -> None:
    """What is filled with zeros from so few octets could be found by trying."""
    with pytest.raises(InitDataMismatch, match="too short"):
        check_binding(FIELD, DIGEST[:size].ljust(field, b"\0"), Binding(DIGEST, DIGEST[:size]))
    check_binding(FIELD, DIGEST[:32].ljust(field, b"\0"), Binding(DIGEST, DIGEST[:32]))
