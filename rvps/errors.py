"""Errors of the reference value provider. `str(err)` is safe to show the peer."""

from __future__ import annotations


class RvpsError(Exception):
    """Root of the tree."""


class StatementUnacceptable(RvpsError):
    """A statement that is malformed, expired, of an unknown type, or not allowed for its sender."""


class SignatureRefused(StatementUnacceptable):
    """A signature that does not verify under any publisher that may send this type of message. No content was read."""


class SettingsUnacceptable(RvpsError):
    """The file of publishers says something that is malformed, weak or ambiguous."""


class ArtifactUnusable(RvpsError):
    """A file that no reference value can be computed from: cut, contradicting itself, or of another kind."""


class NotStated(RvpsError):
    """There is no such name or statement."""


class SenderRefused(RvpsError):
    """Who asks did not say who they are, or may not ask for this."""


class ProviderUnavailable(RvpsError):
    """The store or the remote provider did not answer."""
