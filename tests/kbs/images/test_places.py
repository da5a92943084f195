"""Layouts, archives and their names: what is not a layout, what leads out of one, and what is in the way."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbs.images import layout
from kbs.images.archive import ArchiveTarget
from kbs.images.errors import ImageError, LocationRefused
from kbs.images.layout import LayoutTarget
from kbs.images.locations import LayoutLocation, parse_location
from kbs.images.model import MAX_DOCUMENT, Descriptor, describe
from kbs.images.registry_address import RegistryAddress
from tests.fakes.oci_images import INDEX, MANIFEST, Blobs, read_layout, sha256
from tests.kbs.images.conftest import SHARED, Workshop, manifest_of

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("oci:a/b", LayoutLocation(Path("a/b"), None, False)),
        ("oci:a/b:v1.0", LayoutLocation(Path("a/b"), "v1.0", False)),
        ("oci-archive:a.tar:x", LayoutLocation(Path("a.tar"), "x", True)),
        ("docker://h/a", RegistryAddress("h", "a", "latest")),
        ("docker://h:5000/a/b:v1", RegistryAddress("h:5000", "a/b", "v1")),
        (f"docker://[::1]:5000/a@{DIGEST}", RegistryAddress("[::1]:5000", "a", DIGEST)),
        ("docker://docker.io/alpine", RegistryAddress("docker.io", "library/alpine", "latest")),
    ],
)
def test_locations(text: str, location: object) -> None:
    assert parse_location(text) == location


@pytest.mark.parametrize(
    "text",
    [
        "", "app", "oci:", "oci::v1", "oci:a:../b", "dir:a", "docker:h/a", "docker://h", "docker://h/", "docker://h/A",
        "docker://h/a:", "docker://h/a:../x", "docker://h/a/../b", "docker://h/a//b", "docker://user@h/a",
        "docker://h/a@sha256:zz", f"docker://h/a:v1@{DIGEST}", "docker://h/a?x=1", "docker://h/a:" + "x" * 129,
        "docker://h/" + "a" * 256, "docker://h:port/a", "oci:a\0b",
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(LocationRefused):
        parse_location(text)


def test_registries_on_this_machine_are_known() -> None:
    found = {host: RegistryAddress(host, "a", "b").is_loopback for host in ("localhost", "127.0.0.2:5", "[::1]:5", "h")}
    assert found == {"localhost": True, "127.0.0.2:5": True, "[::1]:5": True, "h": False}
    assert RegistryAddress("docker.io", "a", "b").api_host == "registry-1.docker.io"


def damaged(work: Workshop, do: Callable[[Path], object]) -> str:
    """Why a layout was refused after something was done to it."""
    source = work.layout("app", SHARED)
    do(work.folder / "app")
    return work.refused(source)


def first_blob(folder: Path) -> Path:
    manifest, _ = manifest_of(folder)
    return folder / "blobs" / str(manifest["layers"][0]["digest"]).replace(":", "/")


def in_place_of_a_blob(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        path = first_blob(folder)
        path.unlink()
        make(path)

    return do


def with_index(document: Any) -> Callable[[Path], object]:
    raw = document if isinstance(document, str) else json.dumps(document)
    return lambda folder: (folder / "index.json").write_text(raw)


def to_link(path: Callable[[Path], Path]) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        here = path(folder)
        there = folder / "elsewhere"
        here.rename(there)
        here.symlink_to(there)

    return do


ENTRY = {"mediaType": MANIFEST, "digest": DIGEST, "size": 1}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no layout file": (lambda folder: (folder / "oci-layout").unlink(), "oci-layout"),
    "another version": (lambda folder: (folder / "oci-layout").write_text('{"imageLayoutVersion":"2"}'), "version 1"),
    "index of another type": (with_index([]), "JSON object"),
    "index cut short": (with_index('{"manifests":[{"medi'), "JSON"),
    "a repeated member": (with_index('{"manifests":[],"manifests":[]}'), "repeats a member"),
    "an empty index": (with_index({"manifests": []}), "no such image"),
    "several images": (with_index({"manifests": [ENTRY, ENTRY]}), "several images"),
    "no manifest": (with_index({"manifests": [ENTRY | {"mediaType": "text/plain"}]}), "neither a manifest"),
    "a traversing digest": (with_index({"manifests": [ENTRY | {"digest": "sha256:../../x"}]}), "64 hexadecimal"),
    "upper-case digest": (with_index({"manifests": [ENTRY | {"digest": DIGEST.upper()}]}), "64 hexadecimal"),
    "size of another type": (with_index({"manifests": [ENTRY | {"size": True}]}), "no size"),
    "a huge size": (with_index({"manifests": [ENTRY | {"size": 1 << 60}]}), "no size"),
    "a huge manifest": (with_index({"manifests": [ENTRY | {"size": 5 << 20}]}), "documents have at most"),
    "a huge index": (with_index("[" + " " * MAX_DOCUMENT), "octets"),
    "a missing blob": (lambda folder: first_blob(folder).unlink(), "No such file"),
    "a longer blob": (lambda folder: first_blob(folder).write_bytes(SHARED.blob + b"x"), "its descriptor names"),
    "another blob": (lambda folder: first_blob(folder).write_bytes(bytes(len(SHARED.blob))), "another digest"),
    "a linked blob": (to_link(first_blob), "links are not followed"),
    "a linked folder": (to_link(lambda folder: folder / "blobs/sha256"), "links are not followed"),
    "a linked index": (to_link(lambda folder: folder / "index.json"), "links are not followed"),
    "a folder for a blob": (in_place_of_a_blob(Path.mkdir), "regular"),
    "a pipe for a blob": (in_place_of_a_blob(os.mkfifo), "regular"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*DAMAGE])
def test_damaged_layouts(name: str, work: Workshop) -> None:
    do, text = DAMAGE[name]
    assert text in damaged(work, do)


def manifests(**changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": ENTRY, "layers": [], **changes}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (manifests(schemaVersion=1), "schemaVersion"),
        (manifests(mediaType=INDEX), "mediaType does not fit"),
        (manifests(manifests=[]), "at once"),
        (manifests(layers={}), "layers"),
        (manifests(config=None), "config"),
        (manifests(layers=[{}]), "layer 0"),
    ],
    ids=["version", "type", "both", "layers", "config", "layer"],
)
def test_manifests_of_another_shape(document: dict[str, Any], text: str, work: Workshop) -> None:
    blobs = Blobs()
    blobs.write(work.folder / "app", blobs.add_json(document, MANIFEST))
    assert text in work.refused(work.at("app"))


def test_a_manifest_that_its_descriptor_calls_an_index(work: Workshop) -> None:
    blobs = Blobs()
    blobs.write(work.folder / "app", blobs.image([SHARED]) | {"mediaType": INDEX})
    assert "where its descriptor says" in work.refused(work.at("app"))


def test_a_config_that_does_not_fit_the_layers(work: Workshop) -> None:
    blobs = Blobs()
    made = json.loads(blobs.found[blobs.image([SHARED])["digest"]])
    made["layers"] *= 2
    blobs.write(work.folder / "app", blobs.add_json(made, MANIFEST))
    assert "diff_ids" in work.refused(work.at("app"))


def test_indexes_within_indexes_end(work: Workshop) -> None:
    blobs = Blobs()
    root = blobs.image([SHARED])
    for count in range(5):
        root = blobs.index([(None, root)])
        blobs.write(work.folder / f"app{count}", root)
    work.encrypt(work.at("app2"), work.at("out"))
    assert "nested" in work.refused(work.at("app3"), "none")


def test_targets_that_are_there_are_left_alone(work: Workshop, app: str) -> None:
    (work.folder / "kept").mkdir()
    (work.folder / "kept/file").write_text("mine")
    (work.folder / "kept.tar").write_text("mine")
    (work.folder / "link").symlink_to(work.folder / "nowhere")
    for target in (work.at("kept"), f"oci-archive:{work.folder / 'kept.tar'}", work.at("link"), app):
        with pytest.raises(LocationRefused, match="is not written over"):
            work.encrypt(app, target)
    with pytest.raises(LocationRefused, match="no such folder"):
        work.encrypt(app, work.at("a/b/c"))
    assert sorted(path.name for path in work.folder.iterdir()) == ["app", "kept", "kept.tar", "link"]
    (work.folder / "empty").mkdir()
    work.encrypt(app, work.at("empty"))
    assert read_layout(work.folder / "empty")


@pytest.mark.parametrize("kind", [LayoutTarget, ArchiveTarget])
def test_a_name_that_is_taken_meanwhile(kind: type[LayoutTarget] | type[ArchiveTarget], tmp_path: Path) -> None:
    path = tmp_path / "out"
    with kind(path, None) as target:
        path.mkdir()
        (path / "theirs").write_text("theirs")
        raw = b"{}"
        with pytest.raises(LocationRefused, match="meanwhile"):
            target.commit(raw, describe(raw, MANIFEST))
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", [LayoutTarget, ArchiveTarget])
def test_what_breaks_off_leaves_nothing(kind: type[LayoutTarget] | type[ArchiveTarget], tmp_path: Path) -> None:
    def pieces() -> Any:
        yield b"some"
        raise LocationRefused("cut")

    with kind(tmp_path / "out", None) as target:
        with pytest.raises(LocationRefused, match="cut"):
            target.write_blob(pieces())
        assert target.write_blob([b"whole"]) == (sha256(b"whole"), 5)
        assert target.write_blob([b"whole"]) == (sha256(b"whole"), 5)
        target.commit(b"{}", describe(b"{}", MANIFEST))
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    if kind is LayoutTarget:
        assert len(read_layout(tmp_path / "out")[1]) == 2
    else:
        with tarfile.open(tmp_path / "out") as tar:
            blobs = [f"blobs/{sha256(raw).replace(':', '/')}" for raw in (b"whole", b"{}")]
            assert tar.getnames() == ["oci-layout", *blobs, "index.json"]


def tar_with(path: Path, members: list[tuple[str, bytes | str]]) -> str:
    """A tar; a text in place of bytes makes a link there."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return f"oci-archive:{path}"


ENTRIES = json.dumps({"manifests": [ENTRY]}).encode()
LAYOUT_FILE = ("oci-layout", layout.LAYOUT)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([], "no file oci-layout"),
        ([LAYOUT_FILE], "no file index.json"),
        ([LAYOUT_FILE, LAYOUT_FILE], "twice"),
        ([LAYOUT_FILE, ("index.json", "/etc/passwd")], "no file index.json"),
        ([LAYOUT_FILE, ("../index.json", b"{}")], "no file index.json"),
        ([("./oci-layout", layout.LAYOUT), ("./index.json", ENTRIES)], "no file blobs"),
        ([LAYOUT_FILE, ("index.json", b" " * (MAX_DOCUMENT + 1))], "more than"),
    ],
    ids=["empty", "no index", "twice", "link", "outside", "no blob", "huge"],
)  # fmt: skip
def test_archives_that_are_none(members: list[tuple[str, bytes | str]], text: str, work: Workshop) -> None:
    assert text in work.refused(tar_with(work.folder / "a.tar", members), "none")


def test_archives_cut_short_or_compressed(work: Workshop, app: str) -> None:
    work.encrypt(app, f"oci-archive:{work.folder / 'good.tar'}")
    raw = (work.folder / "good.tar").read_bytes()
    (work.folder / "cut.tar").write_bytes(raw[:700])
    assert work.refused(f"oci-archive:{work.folder / 'cut.tar'}", "none")
    (work.folder / "packed.tar").write_bytes(b"\x1f\x8b" + raw)
    assert "unpack it first" in work.refused(f"oci-archive:{work.folder / 'packed.tar'}", "none")
    assert "No such file" in work.refused(f"oci-archive:{work.folder / 'absent.tar'}", "none")
    assert "No such file" in work.refused(work.at("absent"), "none")


def test_large_members_have_heads_that_tar_reads(tmp_path: Path) -> None:
    member = tarfile.TarInfo("blobs/sha256/" + "a" * 64)
    member.size = 9 << 30
    head = member.tobuf(tarfile.GNU_FORMAT)
    assert len(head) == tarfile.BLOCKSIZE
    assert tarfile.TarInfo.frombuf(head, "utf-8", "strict").size == 9 << 30


def test_descriptors_of_bytes() -> None:
    found = describe(b"{}", MANIFEST)
    assert found == Descriptor.read(dict(found.members), "own")
    with pytest.raises(ImageError):
        Descriptor.read([], "own")
