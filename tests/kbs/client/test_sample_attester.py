"""Evidence of the software TEE."""

from __future__ import annotations

from kbs.client.sample_attester import SampleAttester


def test_by_default_it_says_what_the_fields_guests_say() -> None:
    assert SampleAttester().evidence_for(b"\x01\x02", init_data=b"ignored") == {"svn": "1", "report_data": "AQI="}


def test_every_outcome_can_be_played() -> None:
    attester = SampleAttester(svn="9", launch_digest="other", platform_version={"major": 1, "minor": 0}, debug=False)
    assert attester.evidence_for(b"") == {
        "svn": "9",
        "report_data": "",
        "launch_digest": "other",
        "platform_version": {"major": 1, "minor": 0},
        "debug": False,
    }
