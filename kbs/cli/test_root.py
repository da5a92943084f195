"""Makes the folder of make-believe vendors that `kbs init --insecure-test-root` and `kbs guest` share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import click

from kbs import extensions, strict_json
from kbs.attestation.endorsements.model import Obtained
from kbs.attestation.endorsements.wiring import imported_file
from kbs.attestation.model import Evidence, VerifierOptions
from kbs.client.attesters.catalogue import SOFTWARE_ATTESTERS
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.config import EndorsementSettings
from kbs.protocol.tee import Tee
from kbs.storage.private_files import make_private_directory

NAME: Final = "insecure-test-root"
"""The folder below a data directory."""
_LIFE: Final = timedelta(days=3650)  # of what the make-believe vendors serve


def playable(names: Sequence[str]) -> tuple[Tee, ...]:
    """These TEEs, all of which software can play.

    Raises:
        UsageError: one of them it cannot.
    """
    if unknown := [name for name in names if name not in SOFTWARE_ATTESTERS]:
        known = ", ".join(sorted(SOFTWARE_ATTESTERS))
        raise click.UsageError(f"no software plays the TEE {', '.join(unknown)}; there are {known}")
    return tuple(Tee(name) for name in names)


def make_test_root(data: Path, tees: Sequence[Tee], now: datetime) -> None:
    """Make the vendors of these TEEs below a data directory, and import what they would serve.

    Args:
        tees: of `playable`.

    Raises:
        OSError: the folder cannot be written.
    """
    served: dict[str, Obtained] = {}
    for tee in tees:
        attester = software_attester(data / NAME, tee)
        for name, members in (("anchors", attester.anchors or {}), ("options", attester.settings)):
            encoded = strict_json.encode(dict(members))
            TestRoot(data / NAME).document(f"{tee}.{name}.json", lambda: encoded)  # noqa: B023  called at once
        factory = extensions.load("kbs.verifiers", [tee])[tee]
        verifier = factory(VerifierOptions(attester.options, attester.anchors))
        evidence = Evidence(tee, attester.evidence(bytes(48)))
        items = verifier.endorsements_from(evidence, attester.endorsements).items
        served |= {name: Obtained(item, now + _LIFE, now + _LIFE) for name, item in items.items()}
    if served:
        settings = EndorsementSettings()
        make_private_directory(data / settings.cache)
        imported_file(settings, data).take(served, {}, now, all_or_nothing=False)


def software_attester(folder: Path, tee: Tee) -> SoftwareAttester:
    """The machine of one TEE under the vendors in `folder`, the same one every time."""
    return SOFTWARE_ATTESTERS[tee](TestRoot(folder))
