"""The list of ingredients (CycloneDX 1.6, JSON): every Python distribution, Python, and the base's packages in use."""

from __future__ import annotations

import argparse
import json
import platform
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_NAMESPACE: Final = uuid.UUID("8d0f1c1e-6a6b-5d0c-9a43-5e1f1d2a7c55")  # ours; the serial number follows from content
_OWN: Final = "kbs"
_MAX_LICENCE: Final = 100  # octets; whole texts stand in this field, too


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder of distributions")
    parser.add_argument("--files", type=Path, required=True, help="JSON list of files copied from the base")
    parser.add_argument("--moment", type=int, required=True, help="seconds since 1970")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    files = [Path(name) for name in json.loads(options.files.read_text())]
    bom = describe([*distributions(path=[str(options.packages)])], [_python(), *_base(files)], options.moment)
    options.out.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n", encoding="utf-8")


def describe(found: Sequence[Distribution], base: Iterable[Component], moment: int) -> Bom:
    """One document; the same input gives the same octets."""
    components = {component.bom_ref.value: component for component in [*map(_distribution, found), *base]}
    names = "\n".join(sorted(str(ref) for ref in components))
    (own,) = (component for component in components.values() if component.name == _OWN)
    bom = Bom(components=components.values(), serial_number=uuid.uuid5(_NAMESPACE, names))
    bom.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    bom.metadata.component = Component(
        name="kbs image", version=own.version, type=ComponentType.CONTAINER, bom_ref=BomRef("image")
    )
    bom.register_dependency(bom.metadata.component, components.values())
    return bom


def _distribution(found: Distribution) -> Component:
    url = PackageURL("pypi", None, found.name.lower().replace("_", "-"), found.version)
    return _component(found.name, found.version, url, _licence(found))


def _licence(found: Distribution) -> str | None:
    metadata = found.metadata
    named = (metadata[field] for field in ("License-Expression", "License") if field in metadata)
    text = next(named, None)
    return text if text and len(text) <= _MAX_LICENCE and "\n" not in text else None


def _python() -> Component:
    url = PackageURL("generic", None, "python", platform.python_version())
    return _component("python", platform.python_version(), url, "PSF-2.0")


def _base(files: Sequence[Path]) -> Iterable[Component]:
    """Packages of Debian that own these files; of a base without dpkg nothing is known."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return
    for package, version, architecture in owners(files):
        qualifiers = {"arch": architecture, "distro": f"{release['ID']}-{release.get('VERSION_ID', '')}"}
        yield _component(package, version, PackageURL("deb", release["ID"], package, version, qualifiers), None)


def owners(files: Sequence[Path], database: Path = Path("/var/lib/dpkg")) -> Iterable[tuple[str, str, str]]:
    """Name, version and architecture, as dpkg's status file and lists have them (deb822)."""
    info = database / "info"
    wanted = {str(path) for path in files} | {str(path).removeprefix("/usr") for path in files}
    owning = {
        listed.name.removesuffix(".list").partition(":")[0]
        for listed in info.glob("*.list")
        if wanted & {*listed.read_text().splitlines()}
    }
    status = database / "status"
    for paragraph in status.read_text().split("\n\n") if status.exists() else ():
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") in owning:
            yield fields["Package"], fields["Version"], fields["Architecture"]


def _component(name: str, version: str, url: PackageURL, licence: str | None) -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=BomRef(url.to_string()),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else (),
    )


if __name__ == "__main__":
    main()
