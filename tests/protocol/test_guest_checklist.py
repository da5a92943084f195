"""The acceptance checklist for a server (guest-components 8): each point with the tests that prove it, which exist.

Where one small thing of a point has no home elsewhere, its test is in here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.broker import TEE_KEY, BrokerUnderTest, Edge, session

TESTS: Final = Path(__file__).parents[1]
POINTS: Final[Mapping[int, tuple[str, tuple[str, ...]]]] = {
    1: (
        "auth accepts 0.2.0 to 0.4.0; the nonce is base64 of 32 octets; the cookie works on clear HTTP",
        (
            "protocol/test_old_guests.py::test_every_generation_reads_its_secret",
            "protocol/test_handshake.py::test_a_challenge_has_both_members_in_order_and_a_cookie",
            "protocol/test_handshake.py::test_a_jar_keeps_one_cookie_and_sends_it_to_every_path",
            "protocol/test_guest_checklist.py::test_the_cookie_of_a_plain_http_listener_is_not_secure",
        ),
    ),
    2: (
        "attest accepts init data that are null, absent and TOML; bodies of 8 MiB, and many of them do no harm",
        (
            "protocol/test_guest_checklist.py::test_init_data_null_absent_and_present",
            "protocol/test_old_guests.py::test_large_evidence_up_to_a_limit_of_eight_mebibytes",
            "kbs/web/test_body.py::test_many_slow_large_senders",
        ),
    ),
    3: (
        'the primary binding has "additional-evidence":"" without devices',
        (
            "kbs/protocol/test_runtime_data.py::test_guest_vectors",
            "protocol/test_old_guests.py::test_evidence_is_bound_by_the_rule_of_its_version_alone",
        ),
    ),
    4: (
        "both spellings of the Azure TEEs",
        ("protocol/test_old_guests.py::test_both_spellings_of_azure_in_every_version",),
    ),
    5: (
        "the token holds the TEE key; Bearer works on a process that never saw the handshake",
        (
            "protocol/test_release.py::test_the_answer_is_sealed_to_the_key_in_the_token",
            "protocol/test_old_guests.py::test_a_passport_opens_the_door_of_a_broker_that_never_saw_the_handshake",
        ),
    ),
    6: (
        "answers are those of the vectors, octet for octet",
        (
            "kbs/protocol/test_jwe.py::test_guest_vectors",
            "kbs/protocol/test_jwe.py::test_recorded_ec_bodies_are_reproduced",
            "kbs/protocol/test_jwe.py::test_form",
        ),
    ),
    7: (
        "error bodies begin with type and detail; 401, 403 and 404 as guests retry",
        (
            "protocol/test_guest_checklist.py::test_what_a_guest_repeats_and_what_it_does_not",
            "protocol/test_release.py::test_fresh_guests_are_asked_to_attest",
            "protocol/test_release.py::test_a_denial_does_not_say_whether_the_resource_exists",
            "kbs/client/test_guest.py::test_three_rounds_and_then_the_last_refusal",
        ),
    ),
    8: (
        "resources of three segments; kbs+name is /kbs/v0/name/… with its query",
        (
            "kbs/protocol/test_resource_path.py::test_resource_path_table",
            "protocol/test_paths.py::test_the_policy_sees_what_was_asked",
            "protocol/test_whoami.py::test_nothing_at_all_for_every_kind_of_guest",
        ),
    ),
    9: (
        "a KEK of 32 octets is served as it is",
        (
            "protocol/test_guest_checklist.py::test_a_kek_is_served_as_it_is",
            "kbs/cli/test_image.py::test_a_key_is_made_registered_and_asked_for_by_a_guest",
        ),
    ),
    10: (
        "the public JWK and the value of a sealed secret, to one guest under policy",
        ("kbs/cli/test_secret.py::test_one_command_stores_publishes_and_seals_and_a_guest_unseals",),
    ),
    11: (
        "init data: digest of the raw text, fit by TEE, PCR 8, claims; vectors",
        (
            "kbs/attestation/test_init_data.py::test_vectors_of_whole_documents",
            "kbs/initdata/test_document.py::test_vectors",
            "protocol/test_every_tee.py::test_other_init_data_are_refused",
            "kbs/attestation/tpm/test_pcrs.py::test_init_data_is_extended_once_from_zero",
            "protocol/test_every_tee.py::test_a_guest_that_sends_none_has_the_registered_document_of_its_pcr_8",
        ),
    ),
    12: (
        "agent_policy_claims as the reference extracts them; the digest of the rules beside them",
        (
            "kbs/attestation/test_init_data.py::test_policy_data_is_found_by_its_text_alone",
            "kbs/attestation/test_init_data.py::test_the_rules_are_all_of_the_text_before_the_data",
        ),
    ),
    13: (
        "AAEL replays with the register mapping; PullImage is parsed although not canonical",
        (
            "kbs/attestation/event_log/test_replay.py::test_published_events_of_the_attestation_agent",
            "kbs/attestation/event_log/test_vectors.py::test_runtime_events_of_a_real_log",
            "kbs/client/test_guest_rest.py::test_events_show_in_later_evidence_which_still_verifies",
        ),
    ),
    14: (
        "the key provider: gRPC and command, arrays of integers, one KEK an image, what the broker said",
        (
            "kbs/images/test_provider.py::test_the_answers_are_those_of_the_vectors",
            "kbs/images/test_provider.py::test_one_kek_for_all_layers_of_an_image_and_another_for_the_next",
            "kbs/images/test_provider_grpc.py::test_a_broker_that_refuses_fails_the_call",
            "kbs/cli/test_key_provider.py::test_what_the_broker_refuses_fails_the_wrap",
            "server/test_registry.py::test_an_attested_guest_decrypts_what_was_pushed",
        ),
    ),
    15: (
        "the encryptor and the vectors, both ways",
        (
            "kbs/images/test_layers.py::test_encryption_writes_the_manifest_of_the_vectors",
            "kbs/images/test_layers.py::test_the_layer_of_the_vectors_both_ways",
            "kbs/images/test_packet.py::test_negative_vectors",
        ),
    ),
    16: (
        "sealed secrets verify; negative cases fail",
        (
            "kbs/sealed/test_token.py::test_vectors_verify",
            "kbs/sealed/test_token.py::test_every_negative_vector_is_refused",
        ),
    ),
    17: (
        "administration as kbs-client does it",
        (
            "protocol/test_admin.py::test_set_resource_policy",
            "protocol/test_admin.py::test_set_attestation_policy",
            "protocol/test_admin.py::test_set_and_delete_resource",
            "protocol/test_admin.py::test_reference_values",
        ),
    ),
    18: (
        "no restart for secrets, policies, reference values and certificates",
        (
            "server/test_rotation.py::test_a_renewed_certificate_is_served_without_a_restart",
            "kbs/web/test_certificate.py::test_a_new_certificate_is_shown_by_the_same_context",
            "kbs/plugins/test_spiffe_rotation.py::test_processes_on_one_database_and_a_restart",
            "protocol/test_release.py::test_a_deleted_resource_is_gone",
            "protocol/test_guest_checklist.py::test_changes_count_at_once",
        ),
    ),
}


@cache
def named_tests(path: str) -> frozenset[str]:
    """Names of the tests of one file."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return frozenset(
        each.name for each in tree.body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")
    )


def test_every_point_is_here() -> None:
    assert list(POINTS) == list(range(1, 19))
    assert all(said and named for said, named in POINTS.values())


@pytest.mark.parametrize("point", POINTS)
def test_its_tests_exist(point: int) -> None:
    for named in POINTS[point][1]:
        path, _, name = named.partition("::")
        assert name in named_tests(path), named


def test_the_cookie_of_a_plain_http_listener_is_not_secure(tmp_path: Path, shared_modules: None) -> None:
    """A `Secure` cookie would never come back over clear HTTP."""
    broker = BrokerUnderTest(tmp_path / "data", Edge.ASGI, settings={"KBS__SERVER__INSECURE_HTTP": "true"})
    answer = broker.call("POST", "/kbs/v0/auth", body=b'{"version":"0.4.0","tee":"sample","extra-params":""}')
    header = answer.header("set-cookie")
    assert header is not None
    attributes = {part.partition("=")[0].strip().lower() for part in header.split(";")[1:]}
    assert attributes == {"expires"}
    broker.close()


def test_init_data_null_absent_and_present(standing: BrokerUnderTest) -> None:
    text = 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n'
    for init_data in (None, {"format": "toml", "body": text}):
        handshake = standing.handshake()
        assert handshake.attest(body=handshake.changed(init_data=init_data)).status == 200
    handshake = standing.handshake()
    assert b'"init-data":null,' in handshake.body
    assert handshake.attest(body=handshake.body.replace(b'"init-data":null,', b"")).status == 200


@pytest.mark.parametrize(
    ("path", "name", "asked", "attested"),
    [("default/key/1", "PolicyDeny", 2, 1), ("nowhere/key/1", "PolicyDeny", 2, 1)],
)
def test_what_a_guest_repeats_and_what_it_does_not(
    tmp_path: Path, shared_modules: None, path: str, name: str, asked: int, attested: int
) -> None:
    """A denial costs the one attestation that found it out: 403 ends what 401 would repeat (guest-components 1.3)."""
    broker = BrokerUnderTest(tmp_path / "data", Edge.ASGI)
    broker.put_secret()
    broker.use_policy("deny-all")
    sent: list[str] = []
    call = broker.call

    def counted(method: str, target: str, *more: object) -> object:
        sent.append(f"{method} {target.removeprefix('/kbs/v0/').partition('/')[0]}")
        return call(method, target, *more)  # type: ignore[arg-type]

    broker.call = counted  # type: ignore[method-assign,assignment]
    with pytest.raises(Exception, match=name):
        broker.guest().get_resource(path)
    assert (sent.count("GET resource"), sent.count("POST attest")) == (asked, attested)
    broker.close()


@pytest.mark.parametrize(
    "kek", [bytes(32), b"\n" * 32, bytes(range(224, 256)), b"\r\n" + b"k" * 28 + b"\0\n"], ids=range(4)
)
def test_a_kek_is_served_as_it_is(broker: BrokerUnderTest, kek: bytes) -> None:
    broker.put_secret("default/image-kek/0d3f", kek)
    assert broker.guest().get_resource("kbs:///default/image-kek/0d3f") == kek


def test_changes_count_at_once(broker: BrokerUnderTest) -> None:
    guest = broker.attested(key=TEE_KEY)
    assert guest.cookie is not None
    wanted = ("GET", "/kbs/v0/resource/default/key/1", session(guest.cookie))
    broker.put_secret(value=b"another")
    assert guest.get_resource("default/key/1") == b"another"
    broker.use_policy("deny-all")
    assert broker.call(*wanted).status == 403
    broker.use_policy("sample-demo")
    assert broker.call(*wanted).status == 200
    answer = broker.admin("DELETE", "admin/reference-values/launch_digest")
    assert answer.status == 200, answer.body
    later = broker.attested()
    assert later.cookie is not None
    assert broker.call("GET", "/kbs/v0/resource/default/key/1", session(later.cookie)).status == 403
