"""PCR events outside unified kernel images: GRUB, command lines, phases."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.event_log.algorithms import SHA256
from kbs.attestation.event_log.records import parse_crypto_agile
from rvps.compute import pcr
from rvps.errors import ArtifactUnusable

LOGS = Path(__file__).parents[2] / "vectors/tpm/eventlog"
UBUNTU = parse_crypto_agile((LOGS / "ubuntu-1804-amd-sev.bin").read_bytes(), SHA256)
REPLAYED = json.loads((LOGS / "replay.json").read_text())


def test_grub_as_a_real_machine_logged_it() -> None:
    """Each command of the log, as the log shows it, gives the digest beside it and all of them the register."""
    found = [(event[2], event[3][:-1].decode()) for event in UBUNTU if event[0] == 8]
    assert len(found) > 50
    events = list(pcr.grub_commands([text.replace("\n", "\\n") for _, text in found], "sha256"))
    assert [event.digest for event in events] == [digest for digest, _ in found]
    values = pcr.replay(events, "sha256")
    assert values[8].hex() in json.dumps(REPLAYED)


def test_boot_applications_as_a_real_machine_logged_them() -> None:
    digests = [event[2] for event in UBUNTU if event[0] == 4]
    events = list(pcr.boot_applications([("shim", digests[2]), ("grub", digests[3])], "sha256"))
    assert [event.digest for event in events] == digests


@pytest.mark.parametrize("line", ["", "set root=x", "grub_cmd:x", "grub_cmd: a\0b", "grub_cmd: \udc80"], ids=range(5))
def test_lines_that_grub_does_not_log(line: str) -> None:
    with pytest.raises(ArtifactUnusable, match="line 2"):
        list(pcr.grub_commands(["grub_cmd: a", line], "sha256"))


@pytest.mark.parametrize(("path", "words"), [("", 0), ("a", 1), (":a::b:", 2)])
def test_empty_words_of_a_phase_do_not_count(path: str, words: int) -> None:
    assert len(list(pcr.phase_events(path, "sha256"))) == words


def test_phases_are_measured_without_an_end() -> None:
    (event,) = pcr.phase_events("ready", "sha384")
    assert event.digest == hashlib.sha384(b"ready").digest()


@pytest.mark.parametrize("text", ["", "  \t ", "a\0b", "x" * 70_000], ids=["empty", "blank", "NUL", "long"])
def test_command_lines_that_no_stub_measures(text: str) -> None:
    with pytest.raises(ArtifactUnusable):
        pcr.stub_command_line(text, "command line", "sha256")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_command_line_is_cleaned_once(text: str) -> None:
    once = pcr.stripped(text)
    assert pcr.stripped(once) == once
    assert not any(one < " " for one in once)


def test_a_digest_of_another_bank_is_refused() -> None:
    with pytest.raises(ArtifactUnusable, match="sha384 bank"):
        pcr.replay([pcr.Event(4, bytes(32), "")], "sha384")
