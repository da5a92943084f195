"""A guest with a real TPM 2.0 (swtpm): whole handshakes with a whole broker, and every way to cheat live."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.tpm.public import check_attestation_attributes, parse_public
from kbs.client.admin import AdminClient
from kbs.client.errors import AttestationRefused, PolicyDenied
from kbs.client.guest import GuestClient
from tests.fakes.broker import BrokerUnderTest, Edge, reference_message
from tests.fakes.running_broker import RunningBroker
from tests.fakes.swtpm import AttestationKey, Swtpm, SwtpmAttester, TpmError, evidence

INIT_DATA = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = "x = 1"\n'
INIT_DATA_DIGEST = hashlib.sha256(INIT_DATA.encode()).digest()
NewTpm = Callable[[], Swtpm]


class Machine:
    """A booted TPM with an attestation key and the log of its boot."""

    def __init__(self, tpm: Swtpm, scheme: str = "ecdsa") -> None:
        self.tpm = tpm
        self.log = tpm.boot()
        self.key = tpm.create_ak(scheme)

    def attester(self) -> SwtpmAttester:
        return SwtpmAttester(self.tpm, self.key, self.log)


@pytest.fixture
def machine(new_tpm: NewTpm) -> Machine:
    return Machine(new_tpm())


class Site:
    """A broker that enrolled attestation keys, with a secret for guests that run the known kernel."""

    def __init__(self, data: Path, keys: list[AttestationKey], pcr11: bytes) -> None:
        anchors = {"trusted_aks": [base64.b64encode(key.public).decode() for key in keys]}
        self.anchors = data.parent / "aks.json"
        self.anchors.write_text(json.dumps(anchors))
        settings = {"KBS__ATTESTATION__TEES": '["tpm"]', "KBS__ATTESTATION__ANCHORS__TPM": str(self.anchors)}
        self.broker = BrokerUnderTest(data, Edge.ASGI, settings=settings)
        self.broker.put_secret("default/key/1", b"a secret")
        values = {"tpm_pcr11": [pcr11.hex()]}
        assert self.broker.admin("POST", "reference-value", reference_message(values)).status == 200
        self.broker.use_policy("affirming")

    def guest(self, attester: Any, **arguments: Any) -> Any:
        return self.broker.guest(tee="tpm", attester=attester, **arguments)

    def refusal(self, attester: Any, **arguments: Any) -> str:
        """The stable code that the refused guest is told."""
        with pytest.raises(AttestationRefused) as refused:
            self.guest(attester, **arguments).attest()
        return refused.value.problem.reason or ""


@pytest.fixture
def site(tmp_path: Path, machine: Machine) -> Iterator[Site]:
    found = Site(tmp_path / "data", [machine.key], machine.tpm.read_pcrs()[11])
    yield found
    found.broker.close()


def test_an_enrolled_tpm_gets_the_secret(site: Site, machine: Machine) -> None:
    guest = site.guest(machine.attester())
    assert guest.get_resource("default/key/1") == b"a secret"


def test_with_init_data(site: Site, machine: Machine) -> None:
    guest = site.guest(machine.attester(), init_data=INIT_DATA)
    assert guest.get_resource("default/key/1") == b"a secret"
    assert machine.tpm.read_pcrs()[8] == hashlib.sha256(bytes(32) + INIT_DATA_DIGEST).digest()


def test_init_data_that_pcr8_does_not_hold(site: Site, machine: Machine) -> None:
    machine.tpm.extend(8, hashlib.sha256(b"other init data").digest())
    assert site.refusal(machine.attester(), init_data=INIT_DATA) == "init_data_mismatch"


def test_every_challenge_has_its_own_quote(site: Site, machine: Machine) -> None:
    """The quote of one challenge, played again at the next."""

    class Replay:
        first: Any = None

        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            self.first = self.first or machine.attester().evidence_for(report_data, init_data=init_data)
            return self.first

    replay = Replay()
    site.guest(replay).attest()
    assert site.refusal(replay) == "binding_mismatch"


def test_a_pcr_extended_between_quote_and_reading(site: Site, machine: Machine) -> None:
    class Late(SwtpmAttester):
        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            message, signature = self.tpm.quote(self.key, report_data[:32])
            self.tpm.extend(14, bytes(32))
            return evidence(self.key.spki, message, signature, self.tpm.read_pcrs(), self.log)

    assert site.refusal(Late(machine.tpm, machine.key, machine.log)) == "signature_invalid"


def test_a_pcr_extended_beyond_the_log(site: Site, machine: Machine) -> None:
    machine.tpm.extend(4, hashlib.sha256(b"something that nobody logged").digest())
    assert site.refusal(machine.attester()) == "event_log_mismatch"


def test_another_kernel_attests_and_gets_nothing(site: Site, machine: Machine) -> None:
    machine.tpm.extend(11, hashlib.sha256(b"a change to the kernel").digest())
    guest = site.guest(SwtpmAttester(machine.tpm, machine.key))
    assert guest.attest()
    with pytest.raises(PolicyDenied):
        guest.get_resource("default/key/1")


def test_another_tpm_is_a_stranger(site: Site, new_tpm: NewTpm) -> None:
    assert site.refusal(Machine(new_tpm()).attester()) == "signer_not_trusted"


def test_another_tpm_under_an_enrolled_name(site: Site, machine: Machine, new_tpm: NewTpm) -> None:
    stranger = Machine(new_tpm())

    class Impostor(SwtpmAttester):
        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            body = super().evidence_for(report_data, init_data=init_data)
            return {**body, "ak_public": base64.b64encode(machine.key.spki).decode()}

    assert site.refusal(Impostor(stranger.tpm, stranger.key, stranger.log)) == "signature_invalid"


def test_another_key_of_the_same_tpm_is_not_enrolled(site: Site, machine: Machine) -> None:
    other = machine.tpm.create_ak("rsassa")
    assert site.refusal(SwtpmAttester(machine.tpm, other, machine.log)) == "signer_not_trusted"


def test_a_resettable_pcr_in_the_place_of_pcr8(site: Site, machine: Machine) -> None:
    """PCR 16 may be reset by anybody; a selection with a hole puts it where a careless verifier looks for PCR 8."""
    machine.tpm.extend(8, hashlib.sha256(b"the real init data").digest())
    machine.tpm.reset(16)
    machine.tpm.extend(16, INIT_DATA_DIGEST)
    with pytest.raises(TpmError):
        machine.tpm.reset(8)
    selection = [*range(8), 16]

    class Swap(SwtpmAttester):
        def evidence_for(self, report_data: bytes, *, init_data: bytes | None = None) -> Any:
            del init_data
            message, signature = self.tpm.quote(self.key, report_data[:32], selection)
            values = [self.tpm.read_pcrs()[index] for index in selection]
            return evidence(self.key.spki, message, signature, [*values, *[bytes(32)] * self.padding])

        padding = 0

    for padding in (0, 24 - len(selection)):
        attester = Swap(machine.tpm, machine.key)
        attester.padding = padding
        assert site.refusal(attester, init_data=INIT_DATA) == "evidence_malformed"


def test_a_key_withdrawn_from_the_settings(site: Site, machine: Machine, new_tpm: NewTpm) -> None:
    assert site.guest(machine.attester()).attest()
    other = new_tpm().create_ak()
    site.anchors.write_text(json.dumps({"trusted_aks": [base64.b64encode(other.public).decode()]}))
    site.broker.restart()
    assert site.refusal(machine.attester()) == "signer_not_trusted"


@pytest.mark.parametrize("scheme", ["rsassa", "rsapss", "ecdsa"])
def test_every_scheme(scheme: str, new_tpm: NewTpm, tmp_path: Path) -> None:
    machine = Machine(new_tpm(), scheme)
    public = parse_public(machine.key.public)
    check_attestation_attributes(public)
    site = Site(tmp_path / "data", [machine.key], machine.tpm.read_pcrs()[11])
    try:
        assert site.guest(machine.attester()).get_resource("default/key/1") == b"a secret"
    finally:
        site.broker.close()


@pytest.mark.server
@pytest.mark.enable_socket
def test_over_tls_with_worker_processes(tmp_path: Path, machine: Machine) -> None:
    anchors = tmp_path / "aks.json"
    anchors.write_text(json.dumps({"trusted_aks": [base64.b64encode(machine.key.spki).decode()]}))
    settings = {"KBS__ATTESTATION__TEES": '["tpm"]', "KBS__ATTESTATION__ANCHORS__TPM": str(anchors)}
    server = RunningBroker(tmp_path / "data", settings=settings)
    try:
        with AdminClient(server.url, token=server.admin_token, ca_file=server.ca) as admin:
            admin.set_resource("default/key/1", b"a secret")
            admin.set_reference_values({"tpm_pcr11": [machine.tpm.read_pcrs()[11].hex()]})
        with GuestClient(server.url, ca_file=server.ca, tee="tpm", attester=machine.attester()) as guest:
            assert guest.get_resource("default/key/1") == b"a secret"
            machine.tpm.extend(4, bytes(32))
            with pytest.raises(AttestationRefused, match="event log"):
                guest.attest()
    finally:
        assert server.stop() == 0
