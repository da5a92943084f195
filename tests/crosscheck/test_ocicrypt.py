"""ocicrypt, under containers/image, as skopeo has it: encrypts through our key provider, and opens what ours made.

The provider answers over gRPC in this process, and as the command, which ocicrypt starts for each layer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.images.layer_options import from_base64
from kbs.images.packet import parse_packet, unwrap
from kbs.images.provider import KeyProvider
from kbs.images.provider_grpc import ProviderServer
from kbs.images.provider_keks import Keks
from kbs.secret import Secret
from tests.crosscheck.programs import FOLDER
from tests.fakes.oci_images import Blobs, Layer, read_layout, tar_of
from tests.kbs.cli.conftest import invoke
from tests.kbs.images.test_provider import KEK, FakeBroker

KEYS = "org.opencontainers.image.enc.keys.provider.attestation-agent"
KEY = "provider:attestation-agent:"
KID = "kbs:///default/image-kek/app"
PATH = "default/image-kek/app"
LAYERS = [Layer(tar_of({name: name.encode() * 5000})) for name in ("a", "b", "c")]
pytestmark = pytest.mark.enable_socket


class Images:
    """A folder with the plain image `app`, a KEK, and the program."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = folder
        self.kek = folder / "kek.bin"
        self.kek.write_bytes(KEK)
        self._program = program
        blobs = Blobs()
        blobs.write(folder / "app", blobs.image(LAYERS))

    def copy(self, provider: Any, source: str, target: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the program with this key provider."""
        config = self.folder / "providers.json"
        config.write_text(json.dumps({"key-providers": {"attestation-agent": provider}}))
        places = [f"oci:{self.folder / name}" for name in (source, target)]
        environment = os.environ | {"OCICRYPT_KEYPROVIDER_CONFIG": str(config), "HOME": str(self.folder)}
        return subprocess.run(
            [self._program, *options, *places], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def layers(self, name: str) -> list[Any]:
        """The descriptors of its layers."""
        entry, blobs = read_layout(self.folder / name)
        found: list[Any] = json.loads(blobs[entry["digest"]])["layers"]
        return found

    def packets(self, name: str) -> list[bytes]:
        return [from_base64(layer["annotations"][KEYS]) for layer in self.layers(name)]

    def is_plain(self, name: str) -> bool:
        """Whether it has the layers of `app` again."""
        return [layer["digest"] for layer in self.layers(name)] == [layer["digest"] for layer in self.layers("app")]


def command(*options: object) -> Any:
    """The provider as a command."""
    return {"cmd": {"path": sys.executable, "args": ["-m", "kbs", "key-provider", "run", *map(str, options)]}}


@pytest.fixture
def images(tmp_path: Path) -> Images:
    folder = os.environ.get(FOLDER)
    if not folder:
        pytest.skip("needs a cross-check program")
    return Images(tmp_path, Path(folder) / "imagecopy")


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def served(broker: FakeBroker) -> Iterator[Any]:
    """The provider over gRPC, which stores KEKs and reads them as a guest would."""
    server = ProviderServer(KeyProvider(Keks(registration=broker.registration(), fetch=broker.fetch)), "127.0.0.1:0")
    server.start()
    yield {"grpc": server.address}
    server.stop()


def done(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stderr


def test_ocicrypt_encrypts_through_grpc_with_one_kek_for_the_image(
    images: Images, served: Any, broker: FakeBroker
) -> None:
    done(images.copy(served, "app", "enc", "-encrypt", f"{KEY}keyid={KID}"))
    assert list(broker.stored) == [PATH]
    assert [request for request in broker.requests if request.startswith("store")] == [f"store {PATH}"]
    assert all(layer["mediaType"].endswith("+gzip+encrypted") for layer in images.layers("enc"))
    for packet in images.packets("enc"):
        assert parse_packet(packet).kid == KID
        unwrap(packet, Secret(broker.stored[PATH]))
    done(images.copy(served, "enc", "back", "-decrypt", f"{KEY}x"))
    assert images.is_plain("back")
    images.kek.write_bytes(broker.stored[PATH])
    arguments = ("image", "decrypt", f"oci:{images.folder}/enc", f"oci:{images.folder}/ours", "--kek-file", images.kek)
    assert invoke(None, *arguments).exit_code == 0
    assert images.is_plain("ours")


@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
def test_ocicrypt_encrypts_and_decrypts_through_the_command(images: Images, algorithm: str) -> None:
    key = f"{KEY}keyid={KID}::keypath={images.kek}::algorithm={algorithm}"
    done(images.copy(command(), "app", "enc", "-encrypt", key))
    assert [parse_packet(packet).wrap_type for packet in images.packets("enc")] == [algorithm] * 3
    done(images.copy(command("--kek-file", images.kek), "enc", "back", "-decrypt", f"{KEY}any"))
    assert images.is_plain("back")
    done(images.copy(command(), "enc", "named", "-decrypt", f"{KEY}keypath={images.kek}"))
    assert images.is_plain("named")


def test_a_folder_of_keks_serves_a_process_for_each_layer(images: Images) -> None:
    provider = command("--keys", images.folder / "keys")
    done(images.copy(provider, "app", "enc", "-encrypt", f"{KEY}keyid={KID}"))
    kek = Secret((images.folder / "keys/keks" / PATH).read_bytes())
    assert len([unwrap(packet, kek) for packet in images.packets("enc")]) == 3
    done(images.copy(provider, "enc", "back", "-decrypt", f"{KEY}x"))
    assert images.is_plain("back")


@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
def test_ocicrypt_decrypts_what_our_encryptor_made(
    images: Images, served: Any, broker: FakeBroker, algorithm: str
) -> None:
    arguments = ("image", "encrypt", f"oci:{images.folder}/app", f"oci:{images.folder}/enc", "--kek", KID)
    more = () if algorithm == "A256GCM" else ("--insecure-a256ctr",)
    result = invoke(None, *arguments, "--kek-file", images.kek, *more)
    assert result.exit_code == 0, result.stderr
    broker.stored[PATH] = KEK
    for name, provider in (("grpc", served), ("cmd", command("--kek-file", images.kek))):
        done(images.copy(provider, "enc", name, "-decrypt", f"{KEY}x"))
        assert images.is_plain(name)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ("keyid=kbs://a/b/c", "with three slashes"),
        ("", "keyid is missing"),
        ("keyid=a/b/c::algorithm=A128GCM", "A256GCM, A256CTR"),
        ("keyid=a/b/c", "each layer is a process of its own"),
        ("sample=true", "--insecure-sample-kek"),
    ],
)
def test_what_we_refuse_ocicrypt_says_and_writes_no_image(images: Images, parameters: str, says: str) -> None:
    ended = images.copy(command(), "app", "enc", "-encrypt", KEY + parameters)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert not (images.folder / "enc/index.json").exists()


def test_a_broker_that_refuses_fails_the_copy(images: Images, served: Any, broker: FakeBroker) -> None:
    broker.fails = True
    ended = images.copy(served, "app", "enc", "-encrypt", f"{KEY}keyid={KID}")
    assert ended.returncode == 1
    assert "did not store it" in ended.stderr
    assert not (images.folder / "enc/index.json").exists()


def test_a_wrong_kek_decrypts_nothing(images: Images) -> None:
    done(images.copy(command(), "app", "enc", "-encrypt", f"{KEY}keyid={KID}::keypath={images.kek}"))
    images.kek.write_bytes(bytes(32))
    ended = images.copy(command("--kek-file", images.kek), "enc", "back", "-decrypt", f"{KEY}x")
    assert ended.returncode == 1
    assert not (images.folder / "back/index.json").exists()
