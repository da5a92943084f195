"""Encrypted layers through `ocicrypt`, the library behind skopeo, buildah and containerd: theirs here, ours there.

The program writes and opens annotation packets with Go's own ciphers, so it is a second opinion on them too.
It compares no digest after decryption; guests compare `diff_id`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from kbs.images.errors import ImageError
from kbs.images.layer_cipher import LayerEncryptor, decrypted
from kbs.images.layer_kinds import KEYS, PUBLIC_OPTIONS, read_sealed, sealed_annotations
from kbs.images.layer_options import PrivateOptions
from kbs.images.model import Descriptor
from kbs.images.packet import WrapType, unwrap, wrap
from kbs.secret import Secret
from tests.crosscheck.programs import COUNT, SEED, Program, start
from tests.fakes.oci_images import LAYER, sha256

KID = "kbs:///default/image-kek/app"
KEK = Secret(bytes(range(32)))


@dataclass(frozen=True, slots=True)
class Sealed:
    """A layer as it stands in an image."""

    blob: bytes
    annotations: Mapping[str, str]


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    running = start("images")
    yield running
    running.close()


def sealed_here(plain: bytes, wrap_type: WrapType) -> Sealed:
    encryptor = LayerEncryptor()
    blob = b"".join(encryptor.pieces([plain[:1000], plain[1000:]]))
    private, public = encryptor.finish(sha256(plain))
    packet = wrap(private.encode(), KEK, KID, wrap_type)
    return Sealed(blob, sealed_annotations(descriptor(plain, {}), packet, public))


def opened_here(sealed: Sealed) -> bytes | None:
    """The layer; None where it is refused."""
    try:
        read = read_sealed(descriptor(sealed.blob, sealed.annotations), "layer")
        private = PrivateOptions.decode(unwrap(read.packets[0], KEK))
        plain = b"".join(decrypted([sealed.blob], private, read.public))
    except ImageError:
        return None
    return plain if sha256(plain) == private.digest else None


def descriptor(blob: bytes, annotations: Mapping[str, str]) -> Descriptor:
    members = {"mediaType": LAYER, "digest": sha256(blob), "size": len(blob), "annotations": dict(annotations)}
    return Descriptor.read(members, "layer")


def asked(program: Program, layer: bytes, wrap_type: WrapType, annotations: Mapping[str, str] | None = None) -> Any:
    """What the program makes of a layer: its facts, or None."""
    opinion = program.ask(
        {
            "layer": layer,
            "digest": sha256(layer),
            "annotations": dict(annotations or {}),
            "kek": KEK.reveal(),
            "kid": KID,
            "wrap_type": wrap_type.value,
        }
    )
    return opinion.facts if opinion.accepted else None


def layers() -> Iterator[tuple[bytes, WrapType]]:
    random = Random(f"{SEED} images")
    for number in range(COUNT):
        yield random.randbytes(random.choice([0, 1, 15, 16, 17, 4096, 70_000])), list(WrapType)[number % 2]


def test_ours_there(program: Program) -> None:
    for plain, wrap_type in layers():
        sealed = sealed_here(plain, wrap_type)
        facts = asked(program, sealed.blob, wrap_type, sealed.annotations)
        assert base64.b64decode(facts["layer"] or "") == plain


def test_theirs_here(program: Program) -> None:
    for plain, wrap_type in layers():
        facts = asked(program, plain, wrap_type)
        sealed = Sealed(base64.b64decode(facts["layer"] or ""), facts["annotations"])
        assert facts["annotations"].keys() == {KEYS, PUBLIC_OPTIONS}
        assert opened_here(sealed) == plain


def test_both_refuse_what_was_changed(program: Program) -> None:
    random = Random(f"{SEED} changed images")
    for plain, _ in layers():
        sealed = changed(sealed_here(plain or b"x", WrapType.A256GCM), random)
        assert opened_here(sealed) is None
        assert asked(program, sealed.blob, WrapType.A256GCM, sealed.annotations) is None


def changed(sealed: Sealed, random: Random) -> Sealed:
    """The same with one bit of the layer, its MAC or its wrapped key turned."""
    which = random.choice(["layer", "hmac", "wrapped_data", "iv"])
    if which == "layer":
        return Sealed(turned(sealed.blob, random), sealed.annotations)
    name = PUBLIC_OPTIONS if which == "hmac" else KEYS
    members = json.loads(base64.b64decode(sealed.annotations[name]))
    members[which] = base64.b64encode(turned(base64.b64decode(members[which]), random)).decode()
    text = base64.b64encode(json.dumps(members).encode()).decode()
    return Sealed(sealed.blob, {**sealed.annotations, name: text})


def turned(raw: bytes, random: Random) -> bytes:
    place = random.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1 << random.randrange(8)]) + raw[place + 1 :]
