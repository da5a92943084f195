"""Whole images through encryption and back: vectors, packings, platforms, selections, and what is left as it was."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.images.errors import ImageError, ImageRefused
from kbs.images.layer_cipher import LayerEncryptor, decrypted
from kbs.images.layer_kinds import KEYS, PUBLIC_OPTIONS
from kbs.images.layer_options import PrivateOptions, PublicOptions
from kbs.images.packet import WrapType
from kbs.images.packing import unpacked, zstd_to_gzip
from kbs.secret import Secret
from tests.fakes.oci_images import CONFIG, INDEX, LAYER, MANIFEST, Blobs, Layer, read_layout, sha256, tar_of
from tests.kbs.images.conftest import KEK, KID, OTHER, SHARED, Workshop, manifest_of
from tests.kbs.images.test_packet import CASES, VECTORS

PLAIN = bytes.fromhex(VECTORS["layer"]["plain_blob_hex"])


def given_bytes(*wanted: str) -> Any:
    left = [bytes.fromhex(each) for each in wanted]

    def take(size: int) -> bytes:
        found = left.pop(0)
        assert len(found) == size
        return found

    return take


@pytest.mark.parametrize("name", [*CASES])
def test_encryption_writes_the_manifest_of_the_vectors(name: str, work: Workshop) -> None:
    layer, case = VECTORS["layer"], CASES[name]
    blobs = Blobs()
    config = {"mediaType": CONFIG, "digest": case["manifest"]["config"]["digest"], "size": 190}
    # The config of the vectors is known by its digest only: one of our own stands in for it, and its descriptor after.
    own = blobs.add_json({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [layer["diff_id"]]}}, CONFIG)
    plain = blobs.add(PLAIN, layer["media_type_plain"])
    root = blobs.add_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": own, "layers": [plain]}, MANIFEST)
    blobs.write(work.folder / "plain", root)
    random = given_bytes(layer["lek_hex"], layer["ctr_nonce_hex"], case["kek_iv_hex"])
    kid = VECTORS["kbs_resource"]["kid"]
    work.encrypt(work.at("plain"), work.at("out"), kid=kid, wrap_type=WrapType(name), random=random)
    manifest, found = manifest_of(work.folder / "out")
    assert found[layer["encrypted_digest"]].hex() == layer["encrypted_blob_hex"]
    written = json.dumps(manifest | {"config": config}, separators=(",", ":")).encode()
    assert sha256(written) == f"sha256:{case['manifest_compact_sha256']}"
    work.decrypt(work.at("out"), work.at("back"))
    assert manifest_of(work.folder / "back")[0]["layers"] == [plain]


def test_the_layer_of_the_vectors_both_ways() -> None:
    layer = VECTORS["layer"]
    encryptor = LayerEncryptor(given_bytes(layer["lek_hex"], layer["ctr_nonce_hex"]))
    sealed = b"".join(encryptor.pieces([PLAIN[:7], PLAIN[7:]]))
    private, public = encryptor.finish(layer["plain_digest"])
    assert sealed.hex() == layer["encrypted_blob_hex"]
    assert public.mac.hex() == layer["hmac_sha256_over_ciphertext_hex"]
    assert private.encode().reveal().decode() == VECTORS["private_layer_block_cipher_options"]["json"]
    assert b"".join(decrypted([sealed[:100], sealed[100:]], private, public)) == PLAIN


def test_a_changed_layer_or_mac_is_refused() -> None:
    layer = VECTORS["layer"]
    private = PrivateOptions.decode(Secret(VECTORS["private_layer_block_cipher_options"]["json"].encode()))
    sealed = bytes.fromhex(layer["encrypted_blob_hex"])
    mac = bytes.fromhex(layer["hmac_sha256_over_ciphertext_hex"])
    for pieces, told in (([sealed[:-1] + b"\0"], mac), ([sealed], bytes(32)), ([sealed[:-1]], mac)):
        with pytest.raises(ImageRefused, match="HMAC"):
            list(decrypted(pieces, private, PublicOptions(told)))


def test_packings(work: Workshop, app: str) -> None:
    outcome = work.encrypt(app, work.at("out"))
    assert (outcome.changed, outcome.layers, outcome.platforms) == (3, 3, ["linux/amd64"])
    before, plain = manifest_of(work.folder / "app")
    after, sealed = manifest_of(work.folder / "out")
    kinds = [layer["mediaType"].removeprefix(LAYER) for layer in after["layers"]]
    assert kinds == ["+gzip+encrypted", "+encrypted", "+gzip+encrypted"]
    assert after["config"] == before["config"]
    assert sealed[after["config"]["digest"]] == plain[before["config"]["digest"]]
    assert not {layer["digest"] for layer in before["layers"]} & sealed.keys()
    work.decrypt(work.at("out"), work.at("back"))
    again, opened = manifest_of(work.folder / "back")
    assert again["layers"][:2] == before["layers"][:2]
    repacked = opened[again["layers"][2]["digest"]]
    assert gzip.decompress(repacked) == tar_of({"c": b"3" * 9000})
    assert work.progress.labels[2] == "repack and encrypt linux/amd64 layer 2"


def test_archives_and_tags(work: Workshop, app: str) -> None:
    archive = f"oci-archive:{work.folder / 'out.tar'}:v1"
    work.encrypt(app, archive)
    with pytest.raises(ImageError, match="no such image; it has the tags v1"):
        work.decrypt(f"oci-archive:{work.folder / 'out.tar'}:v2", work.at("back"))
    work.decrypt(archive, work.at("back") + ":v3")
    assert read_layout(work.folder / "back")[0]["annotations"] == {"org.opencontainers.image.ref.name": "v3"}
    assert sorted(path.name for path in work.folder.iterdir()) == ["app", "back", "out.tar"]


def multi(work: Workshop, *architectures: str, name: str = "multi", **more: Any) -> tuple[str, Blobs]:
    blobs = Blobs()
    entries: list[tuple[str | None, dict[str, Any]]] = [
        (f"linux/{each}", blobs.image([SHARED, Layer(tar_of({"bin": each.encode()}))], f"linux/{each}"))
        for each in architectures
    ]
    blobs.write(work.folder / name, blobs.index(entries, **more))
    return work.at(name), blobs


def test_all_platforms_share_what_they_shared(work: Workshop) -> None:
    source, _ = multi(work, "amd64", "arm64/v8", annotations={"a": "b"}, unknown=[1])
    outcome = work.encrypt(source, work.at("out"))
    assert outcome.platforms == ["linux/amd64", "linux/arm64/v8"]
    entry, blobs = read_layout(work.folder / "out")
    index = json.loads(blobs[entry["digest"]])
    assert (entry["mediaType"], index["annotations"], index["unknown"]) == (INDEX, {"a": "b"}, [1])
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    first, second = (json.loads(blobs[each["digest"]]) for each in index["manifests"])
    assert first["layers"][0] == second["layers"][0]
    assert first["layers"][1] != second["layers"][1]
    packets = [json.loads(base64.b64decode(each["annotations"][KEYS])) for each in first["layers"] + second["layers"]]
    assert {each["kid"] for each in packets} == {KID}
    work.decrypt(work.at("out"), work.at("back"))
    assert {each for each in read_layout(work.folder / "back")[1] if each in read_layout(work.folder / "multi")[1]}


@pytest.mark.parametrize(
    ("wanted", "left"), [("linux/amd64", ["amd64"]), ("linux/arm64", ["arm64"]), ("linux/arm64/v8", ["arm64"])]
)
def test_one_platform(wanted: str, left: list[str], work: Workshop) -> None:
    source, _ = multi(work, "amd64", "arm64/v8")
    work.encrypt(source, work.at("out"), platforms=[wanted])
    entry, blobs = read_layout(work.folder / "out")
    index = json.loads(blobs[entry["digest"]])
    assert [each["platform"]["architecture"] for each in index["manifests"]] == left
    assert len(blobs) == 5


def test_a_platform_that_is_not_there(work: Workshop, app: str) -> None:
    source, _ = multi(work, "amd64")
    assert "not for linux/s390x" in work.refused(source, platforms=["linux/s390x"])
    assert "not for linux/amd6" in work.refused(app, platforms=["linux/amd6"])


@pytest.mark.parametrize(
    ("numbers", "sealed"), [([0], [0]), ([-1], [2]), ([0, -1], [0, 2]), ([1, 1, -2], [1]), ([-3, 1, 2], [0, 1, 2])]
)
def test_layers_by_number(numbers: list[int], sealed: list[int], work: Workshop, app: str) -> None:
    work.encrypt(app, work.at("out"), layers=numbers)
    layers = manifest_of(work.folder / "out")[0]["layers"]
    assert [number for number, each in enumerate(layers) if each["mediaType"].endswith("+encrypted")] == sealed
    work.decrypt(work.at("out"), work.at("back"))


@pytest.mark.parametrize("number", [3, -4, 99])
def test_a_layer_that_is_not_there(number: int, work: Workshop, app: str) -> None:
    assert f"no layer {number}" in work.refused(app, layers=[0, number])


def test_what_leads_to_the_plain_bytes_is_left_out(work: Workshop) -> None:
    extra = {
        "data": base64.b64encode(b"plain").decode(),
        "urls": ["https://plain.test/"],
        "annotations": {"kept": "yes", "io.github.containers.zstd-chunked.manifest-position": "1"},
        "vendor": {"x": 1},
    }
    source = work.layout("app", Layer(tar_of({"a": b"1"}), "+zstd", extra=extra))
    work.encrypt(source, work.at("out"))
    [layer] = manifest_of(work.folder / "out")[0]["layers"]
    assert layer.keys() == {"mediaType", "digest", "size", "annotations", "vendor"}
    assert [*layer["annotations"]] == ["kept", KEYS, PUBLIC_OPTIONS]
    work.decrypt(work.at("out"), work.at("back"))
    [layer] = manifest_of(work.folder / "back")[0]["layers"]
    assert layer["annotations"] == {"kept": "yes"}


def test_a_docker_image_becomes_an_oci_image(work: Workshop) -> None:
    blobs = Blobs()
    made = json.loads(blobs.found[blobs.image([SHARED])["digest"]])
    docker = "application/vnd.docker"
    made["mediaType"] = f"{docker}.distribution.manifest.v2+json"
    made["config"]["mediaType"] = f"{docker}.container.image.v1+json"
    made["layers"][0]["mediaType"] = f"{docker}.image.rootfs.diff.tar.gzip"
    blobs.write(work.folder / "docker", blobs.add_json(made, made["mediaType"]))
    work.encrypt(work.at("docker"), work.at("out"))
    entry, _ = read_layout(work.folder / "out")
    after, _ = manifest_of(work.folder / "out")
    assert (entry["mediaType"], after["mediaType"], after["config"]["mediaType"]) == (MANIFEST, MANIFEST, CONFIG)
    assert after["layers"][0]["mediaType"] == f"{LAYER}+gzip+encrypted"


def test_what_is_no_image_is_kept_beside_images(work: Workshop) -> None:
    blobs = Blobs()
    statement = blobs.add(b"{}", "application/vnd.in-toto+json")
    config = blobs.add_json({"os": "unknown", "architecture": "unknown"}, CONFIG)
    attested = blobs.add_json({"schemaVersion": 2, "config": config, "layers": [statement]}, MANIFEST)
    index = blobs.index([("linux/amd64", blobs.image([SHARED])), ("unknown/unknown", attested)])
    blobs.write(work.folder / "multi", index)
    outcome = work.encrypt(work.at("multi"), work.at("out"))
    assert (outcome.platforms, len(outcome.kept)) == (["linux/amd64"], 1)
    assert attested["digest"] in read_layout(work.folder / "out")[1]
    blobs.write(work.folder / "alone", attested)
    assert "no layer to encrypt" in work.refused(work.at("alone"), "none")


def test_rekeying_leaves_every_layer_as_it_was(work: Workshop, app: str) -> None:
    work.encrypt(app, work.at("enc"))
    work.rekey(work.at("enc"), work.at("re"), OTHER, "kbs:///default/image-kek/next")
    before, _ = manifest_of(work.folder / "enc")
    after, _ = manifest_of(work.folder / "re")
    assert [each["digest"] for each in before["layers"]] == [each["digest"] for each in after["layers"]]
    for old, new in zip(before["layers"], after["layers"], strict=True):
        assert old["annotations"][PUBLIC_OPTIONS] == new["annotations"][PUBLIC_OPTIONS]
        packet = json.loads(base64.b64decode(new["annotations"][KEYS]))
        assert packet["kid"] == "kbs:///default/image-kek/next"
    work.decrypt(work.at("re"), work.at("back"), OTHER)
    with pytest.raises(ImageError, match="does not open"):
        work.decrypt(work.at("re"), work.at("not"), KEK)
    work.nothing_at("not")


def test_rekeying_repairs_a_name_that_no_guest_can_ask_for(work: Workshop, app: str) -> None:
    work.encrypt(app, work.at("enc"), layers=[0])

    def change(layer: dict[str, Any]) -> None:
        packet = json.loads(base64.b64decode(layer["annotations"][KEYS]))
        layer["annotations"][KEYS] = base64.b64encode(json.dumps(packet | {"kid": "/a/b/c"}).encode()).decode()

    changed(work.folder / "enc", work.folder / "broken", change)
    with pytest.raises(ImageError, match="lacks kbs://"):
        work.decrypt(work.at("broken"), work.at("not"))
    work.rekey(work.at("broken"), work.at("good"), KEK, "kbs:///a/b/c")
    work.decrypt(work.at("good"), work.at("back"))


def changed(source: Path, target: Path, change: Any) -> None:
    """A layout whose first layer's descriptor was changed; all digests fit."""
    manifest, found = manifest_of(source)
    change(manifest["layers"][0])
    blobs = Blobs(found)
    blobs.write(target, blobs.add_json(manifest, MANIFEST))


TAMPERED: dict[str, tuple[Any, str]] = {
    "another mac": (
        lambda layer: layer["annotations"].update(
            {PUBLIC_OPTIONS: base64.b64encode(PublicOptions(bytes(32)).encode()).decode()}
        ),
        "HMAC differs",
    ),
    "no public options": (lambda layer: layer["annotations"].pop(PUBLIC_OPTIONS), "pubopts is missing"),
    "no packet": (lambda layer: layer["annotations"].pop(KEYS), "no annotation"),
    "no annotations": (lambda layer: layer.pop("annotations"), "is missing"),
    "no base64": (lambda layer: layer["annotations"].update({KEYS: "*"}), "base64"),
    "many packets": (lambda layer: layer["annotations"].update({KEYS: "," * 100}), "more than 64"),
    "flipped packet": (
        lambda layer: layer["annotations"].update({KEYS: flipped(layer["annotations"][KEYS])}), "does not open",
    ),
    "plain media type": (lambda layer: layer.update({"mediaType": f"{LAYER}+gzip"}), "no layer of this image"),
    "size": (lambda layer: layer.update({"size": layer["size"] + 1}), "its descriptor names"),
    "negative size": (lambda layer: layer.update({"size": -1}), "size"),
    "traversal": (lambda layer: layer.update({"digest": "sha256:../../../etc/passwd"}), "64 hexadecimal"),
    "digest of another algorithm": (lambda layer: layer.update({"digest": "md5:00"}), "64 hexadecimal"),
    "annotations of another type": (lambda layer: layer.update({"annotations": {"a": 1}}), "texts by name"),
    "blob missing": (lambda layer: layer.update({"digest": "sha256:" + "0" * 64}), "No such file"),
}  # fmt: skip


def flipped(text: str) -> str:
    packet = json.loads(base64.b64decode(text))
    wrapped = bytearray(base64.b64decode(packet["wrapped_data"]))
    wrapped[3] ^= 1
    packet["wrapped_data"] = base64.b64encode(wrapped).decode()
    return base64.b64encode(json.dumps(packet).encode()).decode()


@pytest.mark.parametrize("name", [*TAMPERED])
def test_tampered_annotations_and_descriptors(name: str, work: Workshop, app: str) -> None:
    change, text = TAMPERED[name]
    work.encrypt(app, work.at("enc"), layers=[0])
    changed(work.folder / "enc", work.folder / "bad", change)
    with pytest.raises(ImageError, match=text):
        work.decrypt(work.at("bad"), work.at("not"))
    work.nothing_at("not")


def test_the_second_of_two_packets_opens(work: Workshop, app: str) -> None:
    work.encrypt(app, work.at("enc"), layers=[0])

    def change(layer: dict[str, Any]) -> None:
        good = layer["annotations"].pop(KEYS)
        layer["annotations"]["org.opencontainers.image.enc.keys.provider.other"] = f"{flipped(good)},{good}"
        layer["annotations"]["org.opencontainers.image.enc.keys.jwe"] = "YQ=="

    changed(work.folder / "enc", work.folder / "two", change)
    work.decrypt(work.at("two"), work.at("back"))
    assert "annotations" not in manifest_of(work.folder / "back")[0]["layers"][0]


def test_a_key_of_another_kind_only(work: Workshop, app: str) -> None:
    work.encrypt(app, work.at("enc"), layers=[0])

    def change(layer: dict[str, Any]) -> None:
        layer["annotations"]["org.opencontainers.image.enc.keys.jwe"] = layer["annotations"].pop(KEYS)

    changed(work.folder / "enc", work.folder / "jwe", change)
    with pytest.raises(ImageError, match="wrapped by jwe only"):
        work.decrypt(work.at("jwe"), work.at("not"))


def test_an_encrypted_layer_is_not_encrypted_again(work: Workshop, app: str) -> None:
    work.encrypt(app, work.at("enc"), layers=[0])
    assert "encrypted already" in work.refused(work.at("enc"))
    work.encrypt(work.at("enc"), work.at("rest"), layers=[1, 2])
    work.decrypt(work.at("rest"), work.at("back"))


def test_a_layer_that_no_guest_decrypts(work: Workshop) -> None:
    odd = work.layout("odd", SHARED, Layer(b"x", "", media_type="application/vnd.example.model"))
    assert "none that guests decrypt" in work.refused(odd)
    work.encrypt(odd, work.at("out"), layers=[0])


@pytest.mark.parametrize("wrong", ["cut", "other", "diff_id"])
def test_zstd_that_is_not_what_it_should_be(wrong: str) -> None:
    tar = tar_of({"a": bytes(300_000)})
    packed = Layer(tar, "+zstd").blob
    pieces = {"cut": [packed[:-9]], "other": [b"no zstd at all"], "diff_id": [packed]}[wrong]
    with pytest.raises(ImageRefused, match=r"zstd|diff_id"):
        list(zstd_to_gzip(pieces, sha256(b"" if wrong == "diff_id" else tar)))


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
def test_layers_of_several_members_unpack(packing: str) -> None:
    parts = [Layer(tar_of({"a": bytes(2_000_000)}), packing), Layer(tar_of({"b": b"2"}), packing)]
    whole = b"".join(each.blob for each in parts)
    for size in (1, 1000, len(whole)) if len(whole) < 100_000 else (len(whole),):
        pieces = (whole[at : at + size] for at in range(0, len(whole), size))
        assert b"".join(unpacked(pieces, LAYER + packing)) == b"".join(each.tar for each in parts)


@pytest.mark.parametrize("pieces", [[], [b"\x1f\x8b"], [b"plain"], [gzip.compress(b"x" * 1000)[:-4]]])
def test_damaged_gzip_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(ImageRefused, match="gzip"):
        list(unpacked(pieces, f"{LAYER}+gzip"))


def test_bombs_come_out_in_pieces() -> None:
    bomb = tar_of({"a": bytes(8_000_000)})
    for packing in ("+gzip", "+zstd"):
        sizes = [len(piece) for piece in unpacked([Layer(bomb, packing).blob], LAYER + packing)]
        assert max(sizes) <= 1 << 20
        assert sum(sizes) == len(bomb)


files = st.dictionaries(st.sampled_from("abc"), st.binary(max_size=40), max_size=2)
some_layers = st.lists(st.tuples(files, st.sampled_from(["", "+gzip", "+zstd"])), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None)
@given(layers=some_layers, data=st.data())
def test_any_small_image_comes_back(
    layers: list[tuple[dict[str, bytes], str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = Workshop(tmp_path_factory.mktemp("image"))
    made = [Layer(tar_of(content), packing) for content, packing in layers]
    numbers = data.draw(st.lists(st.integers(-len(made), len(made) - 1), max_size=3))
    source = work.layout("app", *made)
    work.encrypt(source, work.at("enc"), layers=numbers)
    work.rekey(work.at("enc"), work.at("re"))
    work.decrypt(work.at("re"), work.at("back"), OTHER)
    before, after = manifest_of(work.folder / "app")[0], manifest_of(work.folder / "back")
    for old, new, layer in zip(before["layers"], after[0]["layers"], made, strict=True):
        tar = b"".join(unpacked([after[1][new["digest"]]], new["mediaType"]))
        assert tar == layer.tar
        assert old["digest"] == new["digest"] or layer.packing == "+zstd"
    assert after[0]["config"] == before["config"]
