"""Vendor services of make-believe vendors: what they answer, and what they were asked, without a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.amd_roots import roots_from_anchors
from kbs.attestation.endorsements.wiring import Roots
from kbs.attestation.x509 import load_certificate
from kbs.client.attesters.intel import SoftwareIntel
from kbs.client.attesters.snp import SoftwareSnp


class FakeVendors(httpx.BaseTransport):
    """AMD's KDS, Intel's PCS, a PCCS, Azure's cache and Hygon's server, by host and path.

    intel, snp: whose collateral they serve; None: that vendor answers 404. hygon: pairs by serial number.
    changed: by a part of the address, what to answer instead. delay: seconds before each answer.
    """

    def __init__(
        self,
        *,
        intel: SoftwareIntel | None = None,
        snp: SoftwareSnp | None = None,
        hygon: dict[str, bytes] | None = None,
        delay: float = 0.0,
    ) -> None:
        self.intel = intel
        self.snp = snp
        self.hygon = hygon or {}
        self.changed: dict[str, Callable[[], httpx.Response]] = {}
        self.asked: list[str] = []
        # Made once: their signatures are not deterministic.
        self.vcek = b"" if snp is None else snp.certificate()
        self.crl = b"" if snp is None else snp.crl()
        self._delay = delay
        self._lock = threading.Lock()

    @property
    def roots(self) -> Roots:
        """The roots of these vendors."""
        return Roots(
            amd=None if self.snp is None else roots_from_anchors(self.snp.anchors),
            intel=None if self.intel is None else self.intel.root_certificate,
        )

    def client(self) -> httpx.Client:
        return httpx.Client(transport=self)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        with self._lock:
            self.asked.append(url)
        time.sleep(self._delay)
        for part, answer in self.changed.items():
            if part in url:
                return _streamed(answer())
        return _streamed(self._answer(request.url))

    def _answer(self, url: httpx.URL) -> httpx.Response:
        path = url.path
        if path == "/hsk_cek":
            found = self.hygon.get(url.params["snumber"])
            return httpx.Response(404) if found is None else httpx.Response(200, content=found)
        if path.startswith("/SevSnpVM/") and self.snp is not None:
            return httpx.Response(200, content=vcek_chain(self.snp, self.vcek))
        if path.startswith(("/vcek/", "/vlek/")) and self.snp is not None:
            return httpx.Response(200, content=self.crl if path.endswith("/crl") else self.vcek)
        if self.intel is not None and ("/certification/v4/" in path or path.startswith("/IntelSGXRootCA")):
            return self._intel(self.intel, url)
        return httpx.Response(404)

    def _intel(self, intel: SoftwareIntel, url: httpx.URL) -> httpx.Response:
        tee = "TDX" if url.path.startswith("/tdx/") else "SGX"
        bundle = intel.collateral(tee)
        what = url.path.rpartition("/certification/v4/")[2]
        if what == "tcb" and url.params["fmspc"] == intel.platform.fmspc.hex():
            return document(bundle, "tcb_info")
        if what == "qe/identity":
            return document(bundle, "qe_identity")
        if what == "pckcrl" and url.params["ca"] == intel.ca:
            headers = {"SGX-PCK-CRL-Issuer-Chain": quote(bundle["pck_crl_issuer_chain"])}
            return httpx.Response(200, headers=headers, content=bytes.fromhex(bundle["pck_crl"]))
        if what == "rootcacrl":
            return httpx.Response(200, text=bundle["root_ca_crl"].upper())
        if url.path.startswith("/IntelSGXRootCA"):
            return httpx.Response(200, content=bytes.fromhex(bundle["root_ca_crl"]))
        return httpx.Response(404)


def document(bundle: dict[str, Any], member: str) -> httpx.Response:
    """`tcb_info` or `qe_identity` of a collateral bundle as the PCS answers it."""
    outer, header = {
        "tcb_info": ("tcbInfo", "TCB-Info-Issuer-Chain"),
        "qe_identity": ("enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"),
    }[member]
    body = f'{{"{outer}":{bundle[member]},"signature":"{bundle[f"{member}_signature"]}"}}'
    return httpx.Response(200, headers={header: quote(bundle[f"{member}_issuer_chain"])}, content=body.encode())


def vcek_chain(snp: SoftwareSnp, vcek: bytes) -> bytes:
    """VCEK, ASK, ARK in PEM, as Azure's cache answers."""
    roots = next(iter(roots_from_anchors(snp.anchors).values()))
    chain = (load_certificate(vcek), roots.ask, roots.ark)
    return b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def _streamed(answer: httpx.Response) -> httpx.Response:
    headers = [(name, value) for name, value in answer.headers.items() if name.lower() != "content-length"]
    return httpx.Response(answer.status_code, headers=headers, stream=httpx.ByteStream(answer.content))
