"""Pod tokens verified with the cluster's public keys alone, for brokers that must not or cannot reach its API server.

A signature cannot know of a deleted Pod or service account: a token stays good here until its `exp`. Policies see which
way a token was checked.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from kbs.errors import ConfigInvalid, PodIdentityUnavailable, PodTokenRejected, TokenRejected
from kbs.identity.claims import Expected, read_identity
from kbs.identity.model import Checked, PodIdentity, PodToken
from kbs.tokens.jose import verify
from kbs.tokens.trust import TrustedKey, parse_jwk_set

_MAX_FILE: Final = 1 << 20  # octets

_Seen = tuple[int, int, int]
"""What says that a file is another one: modification time in ns, size, inode."""


class OfflineCluster:
    """`kbs.identity.model.Cluster` on a file with the issuer's JWK set, read anew when it changes.

    Raises:
        ConfigInvalid: the file is missing, or holds no usable set.
    """

    blocks = False

    def __init__(self, expected: Expected, jwks_file: Path) -> None:
        self.name, self.issuer, self.audience = expected.cluster, expected.issuer, expected.audience
        self._expected = expected
        self._file = jwks_file
        self._lock = threading.Lock()
        try:
            self._known = self._load()
        except OSError as err:
            raise ConfigInvalid(f"identity.kubernetes {self.name}: {jwks_file}: {err.strerror}") from None

    def verify(self, token: PodToken, now: float) -> PodIdentity:
        """See `kbs.identity.model.Cluster.verify`: a key of the set by `kid`, for that key's own algorithm."""
        jws = token.jws
        trusted = None if jws.kid is None else self._keys().get(jws.kid)
        if trusted is None or trusted.alg != jws.alg:
            raise PodTokenRejected("pod token is signed by no key of this cluster")
        try:
            verify(jws, trusted.key)
        except TokenRejected as err:
            raise PodTokenRejected(f"pod {err}") from None
        return read_identity(token, self._expected, now, Checked.OFFLINE)

    def close(self) -> None:
        """Nothing is open."""

    def _keys(self) -> dict[str, TrustedKey]:
        try:
            with self._lock:
                if self._known[0] != _seen(self._file):
                    self._known = self._load()
                return self._known[1]
        except (OSError, ConfigInvalid) as err:
            # without it nobody knows which keys were withdrawn: the former ones are not used on
            why = err.strerror if isinstance(err, OSError) else str(err)
            raise PodIdentityUnavailable(
                "the keys of the pod token's cluster cannot be read", operator_detail=f"{self._file}: {why}"
            ) from None

    def _load(self) -> tuple[_Seen, dict[str, TrustedKey]]:
        seen = _seen(self._file)
        if seen[1] > _MAX_FILE:
            raise ConfigInvalid(f"identity.kubernetes {self.name}: {self._file} is larger than 1 MiB")
        try:
            return seen, parse_jwk_set(self._file.read_bytes())
        except ConfigInvalid as err:
            raise ConfigInvalid(f"identity.kubernetes {self.name}: {self._file}: {err}") from None


def _seen(file: Path) -> _Seen:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
