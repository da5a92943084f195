"""Whole exchanges: auth, attest, resource."""

from tests.fakes.broker import BrokerUnderTest


def test_a_guest_attests_and_reads_its_secret(standing: BrokerUnderTest) -> None:
    guest = standing.guest()
    assert guest.get_resource("default/key/1") == b"a secret"
