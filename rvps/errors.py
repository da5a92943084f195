"""Errors of the reference value provider. `str(err)` is safe to show the peer."""

from __future__ import annotations


class RvpsError(Exception):
    """Root of the tree."""


class StatementUnacceptable(RvpsError):
    """A statement that is malformed, expired, of an unknown type, or not allowed for its sender."""


class ProviderUnavailable(RvpsError):
    """The store or the remote provider did not answer."""
