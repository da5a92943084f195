"""How a document must agree with the moment and the handshake.

What a policy may weigh (debug mode, measurements) is not refused here but told in the claims.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from kbs.attestation.model import Binding
from kbs.attestation.verifiers.nitro.document import Document
from kbs.errors import BindingMismatch, EndorsementExpired, InitDataMismatch


def check_age(document: Document, at: datetime, max_age: timedelta) -> None:
    """The document was made within `max_age` of `at`, before or, by a clock that runs ahead, after.

    Raises:
        EndorsementExpired.
    """
    if abs(at - document.time) > max_age:
        raise EndorsementExpired("Nitro document is older than allowed, or from the future")


def check_binding(document: Document, binding: Binding) -> None:
    """`nonce` is the report data and `user_data` the init-data digest: the whole member, without padding.

    AWS leaves the meaning of all three optional members to those who verify. Its nonce is what whoever consumes the
    document chose, as is report data; user data is what the protocol says it is. `public_key` binds nothing here: the
    TEE key is part of the report data.

    Raises:
        BindingMismatch, InitDataMismatch.
    """
    if binding.report_data is not None and not _is_same(document.nonce, binding.report_data):
        raise BindingMismatch("nonce of the Nitro document does not bind this challenge and key")
    if binding.init_data is not None and not _is_same(document.user_data, binding.init_data):
        raise InitDataMismatch("user data of the Nitro document is not the init-data digest")


def _is_same(member: bytes | None, digest: bytes) -> bool:
    return member is not None and any(digest) and hmac.compare_digest(member, digest)
