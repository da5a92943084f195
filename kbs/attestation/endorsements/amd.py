"""AMD's words for endorsements: products, TCB versions, and the names that endorsements are asked for by.

Shared by the SNP verifier, which builds the names from a parsed report, and by the endorser, which turns them into
addresses. Knows neither certificates nor the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "amd/"


class AmdProduct(StrEnum):
    """Processor generations as AMD's Key Distribution Service spells them (AMD 57230)."""

    MILAN = "Milan"
    GENOA = "Genoa"  # Bergamo and Siena too
    TURIN = "Turin"
    VENICE = "Venice"  # known by its CPUID, but no roots are pinned: refused


class VekKind(StrEnum):
    """What signed a report: a key of one chip, or a key that AMD loaded for one cloud provider."""

    VCEK = "vcek"
    VLEK = "vlek"


@dataclass(frozen=True, slots=True)
class TcbVersion:
    """TCB_VERSION, components 0..255. `fmc` exists from Turin on, else None."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def components(self) -> tuple[int, ...]:
        """In the order that names and comparisons use: fmc first where it exists."""
        rest = (self.bootloader, self.tee, self.snp, self.microcode)
        return rest if self.fmc is None else (self.fmc, *rest)

    def is_at_most(self, other: TcbVersion) -> bool:
        """Whether no component is above the other's. Versions of different layouts do not compare: False."""
        mine, theirs = self.components(), other.components()
        return len(mine) == len(theirs) and all(a <= b for a, b in zip(mine, theirs, strict=True))


def hwid_size(product: AmdProduct) -> int:
    """Bytes of the hardware id in a VCEK: the whole CHIP_ID, from Turin on its first 8 bytes."""
    return 64 if product in (AmdProduct.MILAN, AmdProduct.GENOA) else 8


@dataclass(frozen=True, slots=True)
class VcekRef:
    """One chip's key for one TCB version."""

    product: AmdProduct
    hwid: bytes
    tcb: TcbVersion

    @property
    def name(self) -> str:
        """`amd/vcek/Milan/<hex of hwid>/04-00-18-db`; TCB components in hex."""
        return f"amd/vcek/{self.product}/{self.hwid.hex()}/{_tcb_text(self.tcb)}"


@dataclass(frozen=True, slots=True)
class VlekRef:
    """A cloud provider's key for one TCB version. AMD serves it to that provider only: offline stores, not the KDS."""

    product: AmdProduct
    tcb: TcbVersion

    @property
    def name(self) -> str:
        """`amd/vlek/Milan/04-00-18-db`."""
        return f"amd/vlek/{self.product}/{_tcb_text(self.tcb)}"


@dataclass(frozen=True, slots=True)
class CrlRef:
    """The revocation list of a product's ARK. AMD serves one beside each kind of key."""

    product: AmdProduct
    kind: VekKind

    @property
    def name(self) -> str:
        """`amd/crl/Milan`, beside VLEKs `amd/vlek-crl/Milan`."""
        return f"amd/{'crl' if self.kind is VekKind.VCEK else 'vlek-crl'}/{self.product}"


AmdRef = VcekRef | VlekRef | CrlRef

_BYTE = "[0-9a-f]{2}"
_PRODUCT = "(?P<product>Milan|Genoa|Turin)"
_TCB = f"(?P<tcb>{_BYTE}(?:-{_BYTE}){{3,4}})"
_VCEK_NAME = re.compile(f"amd/vcek/{_PRODUCT}/(?P<hwid>[0-9a-f]{{16}}|[0-9a-f]{{128}})/{_TCB}")
_VLEK_NAME = re.compile(f"amd/vlek/{_PRODUCT}/{_TCB}")
_CRL_NAME = re.compile(f"amd/(?P<kind>crl|vlek-crl)/{_PRODUCT}")


def parse_name(name: str) -> AmdRef:
    """Read a name back. Exact inverse of the `name` properties; nothing else has a meaning.

    Raises:
        ValueError: any other text.
    """
    if match := _VCEK_NAME.fullmatch(name):
        product = AmdProduct(match["product"])
        hwid = bytes.fromhex(match["hwid"])
        if len(hwid) != hwid_size(product):
            raise ValueError("hardware id of another product's length")
        return VcekRef(product, hwid, _tcb_from_text(product, match["tcb"]))
    if match := _VLEK_NAME.fullmatch(name):
        product = AmdProduct(match["product"])
        return VlekRef(product, _tcb_from_text(product, match["tcb"]))
    if match := _CRL_NAME.fullmatch(name):
        return CrlRef(AmdProduct(match["product"]), VekKind.VCEK if match["kind"] == "crl" else VekKind.VLEK)
    raise ValueError("not a name of an AMD endorsement")


def _tcb_text(tcb: TcbVersion) -> str:
    return "-".join(f"{component:02x}" for component in tcb.components())


def _tcb_from_text(product: AmdProduct, text: str) -> TcbVersion:
    values = [int(part, 16) for part in text.split("-")]
    if len(values) != (5 if product is AmdProduct.TURIN else 4):
        raise ValueError("TCB version of another product's layout")
    fmc = values.pop(0) if product is AmdProduct.TURIN else None
    bootloader, tee, snp, microcode = values
    return TcbVersion(bootloader, tee, snp, microcode, fmc)
