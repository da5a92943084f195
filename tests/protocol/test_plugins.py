"""The other plugins behind the release door of a whole broker, on both edges.

`spiffe` has its own in tests/kbs/plugins/test_spiffe.py, `whoami` in test_whoami.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass

import grpc
import pytest
from pkcs11 import KeyType

from kbs.client.errors import NotFound
from kbs.plugins.external.proto import plugin_pb2, plugin_pb2_grpc
from kbs.plugins.pkcs11.token import Pkcs11Token, TokenSettings
from tests.fakes.broker import Answer, BrokerUnderTest, Edge
from tests.kbs.plugins.test_external import Program
from tests.kbs.plugins.test_nebula_ca import stand_in
from tests.softhsm import SoftToken

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]
VM1 = "78b1edaf-eba1-5733-85cc-baaa1810211c"  # default/vm1, kbs-protocol 8.3
DISK = f"kbs+provisioner:///default/{VM1}/root"
INIT_DATA = f'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n"trustee.kbs.resource" = "{DISK}"\n'
KEY = "behind-the-door"


@dataclass
class House:
    broker: BrokerUnderTest
    program: Program


@pytest.fixture(scope="module")
def program() -> Iterator[tuple[Program, int]]:
    made = Program(answer=lambda asked, _context: plugin_pb2.PluginResponse(body=b"made from " + asked.body))
    server = grpc.server(futures.ThreadPoolExecutor(2))
    plugin_pb2_grpc.add_KbsPluginServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, port
    server.stop(None).wait()


@pytest.fixture(scope="module", params=list(Edge))
def house(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    program: tuple[Program, int],
    token: SoftToken,
    shared_modules: None,
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("plugins")
    hsm = TokenSettings(module=token.module, pin_file=token.folder / "pin")
    Pkcs11Token(hsm, folder, "here").use(
        lambda session: session.generate_keypair(KeyType.RSA, 2048, store=True, label=f"{KEY}-{request.param}")
    )
    on_token = (
        f'{{module = "{token.module}", pin_file = "{token.folder}/pin", rsa_mechanism = "RsaPkcsTest", '
        f'lookup_label = "{KEY}-{request.param}"}}'
    )
    settings = {
        "KBS__PLUGINS__ENABLED": '["resource", "external", "nebula-ca", "pkcs11", "provisioner"]',
        "KBS__PLUGINS__OPTIONS__EXTERNAL": f'{{backends = [{{name = "one", endpoint = "http://127.0.0.1:{program[1]}"}}]}}',
        "KBS__PLUGINS__OPTIONS__NEBULA-CA": f'{{work_dir = "nebula", nebula_cert_bin_path = "{stand_in(folder)}"}}',
        "KBS__PLUGINS__OPTIONS__PKCS11": on_token,
    }
    made = BrokerUnderTest(folder / "data", request.param, settings=settings)
    made.approve_sample()
    made.use_policy("upstream/affirming")  # of the shipped ones the one that opens plugins to the software TEE
    yield House(made, program[0])
    made.close()


def ask(broker: BrokerUnderTest, path: str, *, body: bytes = b"", attested: bool = True) -> Answer:
    headers = {"Cookie": f"kbs-session-id={broker.attested().cookie}"} if attested else {}
    return broker.call("GET", f"/kbs/v0/{path}", headers, body)


PATHS = [
    "external/one/a",
    "nebula-ca/credential?name=web-1&ip=10.1.2.3/24",
    "pkcs11/resource/team-a/keys/door",
    f"provisioner/default/{VM1}/root",
]


@pytest.mark.parametrize("path", PATHS, ids=[path.partition("/")[0] for path in PATHS])
def test_nobody_gets_past_token_and_policy(house: House, path: str) -> None:
    broker, asked = house.broker, len(house.program.seen)
    assert ask(broker, path, attested=False).status == 401
    broker.use_policy("sample-demo")  # resources only
    refused = ask(broker, path)
    broker.use_policy("upstream/affirming")
    assert (refused.status, refused.name) == (403, "PolicyDeny")
    assert len(house.program.seen) == asked


def test_external(house: House) -> None:
    assert house.broker.attested().get_resource("kbs+external:///one/a/b?q=1") == b"made from "
    seen = house.program.seen[-1]
    assert (list(seen.path), dict(seen.query), seen.method) == (["a", "b"], {"q": "1"}, "GET")
    assert ask(house.broker, "external/two/a").status == 404


def test_nebula_ca(house: House) -> None:
    guest = house.broker.attested()
    made = json.loads(guest.get_resource("kbs+nebula-ca:///credential?name=web-1&ip=10.1.2.3/24"))
    assert {name: bytes(octets)[:3] for name, octets in made.items()} == {
        "node_crt": b"CRT",
        "node_key": b"KEY",
        "ca_crt": b"CRT",
    }
    assert ask(house.broker, "nebula-ca/credential?name=-ca&ip=x").status == 400


def test_provisioner(house: House) -> None:
    broker = house.broker
    made = broker.admin("POST", "provisioner/provision", json.dumps({"vm_name": "vm1"}).encode())
    assert (made.status, made.json["uuid"]) == (200, VM1)
    text = broker.attested(init_data=INIT_DATA).get_resource(DISK)
    assert b"io.cryptsetup.key.text.root" in text
    assert broker.attested(init_data=INIT_DATA).get_resource(DISK) == text
    with pytest.raises(NotFound):
        broker.attested().get_resource(DISK)


def test_pkcs11(house: House) -> None:
    broker = house.broker
    assert broker.admin("POST", "pkcs11/resource/team-a/keys/door", b"on the token").status == 200
    assert broker.attested().get_resource("kbs+pkcs11:///resource/team-a/keys/door") == b"on the token"
    wrapped = broker.admin("POST", "pkcs11/wrap-key", b"disk key")
    assert wrapped.status == 200
    opened = ask(broker, "pkcs11/wrap-key", body=wrapped.body)
    assert (opened.status, set(opened.json)) == (200, {"protected", "encrypted_key", "iv", "ciphertext", "tag"})
    assert ask(broker, "pkcs11/wrap-key", body=b"x" * 256).status == 400
    assert broker.admin("DELETE", "pkcs11/resource/team-a/keys/door").status == 200
    assert ask(broker, "pkcs11/resource/team-a/keys/door").status == 404
    for method in ("POST", "DELETE"):
        headers = {"Cookie": f"kbs-session-id={broker.attested().cookie}"}
        assert broker.call(method, "/kbs/v0/pkcs11/resource/a/b/c", headers, b"x").status == 401


def test_each_release_is_on_record_without_what_was_released(house: House) -> None:
    broker = house.broker
    broker.admin("POST", "provisioner/provision", json.dumps({"vm_name": "vm1"}).encode())
    broker.admin("POST", "pkcs11/resource/team-a/keys/record", b"on the token")
    guest = broker.attested(init_data=INIT_DATA)
    for path in (*PATHS[:2], "pkcs11/resource/team-a/keys/record", PATHS[3]):
        plugin, _, rest = path.partition("/")
        before = len(broker.audit_records())
        secret = guest.get_resource(f"kbs+{plugin}:///{rest}")
        new = json.dumps(broker.audit_records()[before:])
        assert f'"{plugin}"' in new
        assert secret.decode() not in new
    broker.admin("DELETE", "pkcs11/resource/team-a/keys/record")
