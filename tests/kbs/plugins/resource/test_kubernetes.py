"""Kubernetes Secrets as a store: names, the watch behind the cache, races, what is refused."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client.rest import RESTClientObject

from kbs.errors import ConfigInvalid, KbsError, StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends.kubernetes import KubernetesBackend, build
from kbs.plugins.resource.backends.kubernetes_names import name_of, place
from kbs.plugins.resource.model import StoreContext, StoreRefuses
from tests.fakes.broker import StoppedClock
from tests.fakes.kubernetes_secrets import KUBECONFIG, FakeSecrets

LABEL = {"kbs.confidential.dev/resource": "true"}
NAME = "team-a/keys/one"
SEGMENT = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(SEGMENT, SEGMENT, SEGMENT)
def test_each_name_has_a_place_of_its_own_that_tells_it(repository: str, kind: str, tag: str) -> None:
    name = f"{repository}/{kind}/{tag}"
    assert name_of(*place(name)) == name


@given(st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?", fullmatch=True))
def test_each_place_is_that_of_its_name_or_of_none(secret: str) -> None:
    name = name_of(secret, "key")
    assert name is None or place(name) == (secret, "key")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("default/kbsres1/key1", "kbsres1"),
        ("default/Keys/one", "default.z4beys"),
        ("team-a/keys/one", "team-a.keys"),
        ("team_a/-x-/one", "teamz5fa.z2dxz2d"),
        ("puzzle/a.b/one", "puzzzzle.az2eb"),
        ("default/default/x", "default"),
    ],
)
def test_places(name: str, secret: str) -> None:
    assert place(name) == (secret, name.rsplit("/", 1)[1])


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("default.keys", "x"),
        ("a.b.c", "x"),
        ("zz41.b", "..x"),
        ("zq.b", "x"),
        ("a.z61", "x"),
        ("a.zff", "x"),
        (".a", "x"),
        ("a.", "x"),
    ],
)
def test_what_is_no_place_of_a_name(secret: str, key: str) -> None:
    assert name_of(secret, key) is None


@pytest.mark.parametrize("name", ["a/b", "a/b/../c", "a/b/.c", f"a/b/{'x' * 254}", f"{'Z' * 90}/b/c", ""])
def test_no_place(name: str) -> None:
    with pytest.raises(StoreRefuses):
        place(name)


class Bench:
    """A store over a fake, and its ticks."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, **options: Any) -> None:
        self.fake = FakeSecrets()
        self.now = 1000.0
        (folder / "kubeconfig").write_text(KUBECONFIG)
        patch.setattr(
            RESTClientObject,
            "request",
            lambda client, method, url, headers=None, **rest: self.fake.request(client, method, url, headers, **rest),
        )
        table = {"namespace": "kbs", "kubeconfig": "kubeconfig", "timeout_seconds": 2.0, **options}
        context = StoreContext("", table, folder, "resource.store[0]", StoppedClock(), lambda: self.now)
        self.backend: KubernetesBackend = build(context)

    def close(self) -> None:
        self.backend.close()
        self.fake.end()
        for thread in threading.enumerate():
            if thread.name == "kubernetes":
                thread.join(10)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.close()


def until(holds: Callable[[], object]) -> None:
    """Something a thread does soon."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def value(bench: Bench, name: str = NAME) -> bytes | None:
    record = bench.backend.get(name)
    return None if record is None else record.value


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def test_a_changed_secret_is_served_without_a_question(bench: Bench) -> None:
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"first")})
    assert value(bench) == b"first"
    until(lambda: bench.fake.watching)
    asked = len(bench.fake.seen)
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"second")})
    until(lambda: value(bench) == b"second")
    bench.fake.drop("team-a.keys")
    until(lambda: value(bench) is None)
    for _ in range(100):
        bench.backend.get(NAME)
    assert len(bench.fake.seen) == asked


def test_upstreams_layout_is_readable(bench: Bench) -> None:
    bench.fake.apply("kbsres1", LABEL, {"key1": b64(b"res1val1"), "key2": b64(b"res1val2")})
    assert value(bench, "default/kbsres1/key1") == b"res1val1"
    assert [entry.key for entry in bench.backend.entries()] == ["default/kbsres1/key1", "default/kbsres1/key2"]


@pytest.mark.parametrize("labels", [{}, {"kbs.confidential.dev/resource": "false"}], ids=["none", "another"])
def test_what_lacks_the_label_is_neither_read_nor_written(bench: Bench, labels: Mapping[str, str]) -> None:
    bench.fake.apply("team-a.keys", labels, {"one": b64(b"not ours")})
    assert value(bench) is None
    with pytest.raises(StoreRefuses, match="without the label"):
        bench.backend.put(NAME, b"x", meta={})
    assert bench.backend.delete(NAME) is False
    assert bench.fake.secrets["team-a.keys"]["data"] == {"one": b64(b"not ours")}


def test_one_that_loses_its_label_is_gone(bench: Bench) -> None:
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"x")})
    assert value(bench) == b"x"
    until(lambda: bench.fake.watching)
    document = bench.fake.secrets["team-a.keys"]
    document["metadata"] = {**document["metadata"], "resourceVersion": "900"}
    bench.fake.tell("DELETED", document)  # so the API tells whoever selects by label
    until(lambda: value(bench) is None)


@pytest.mark.parametrize("how", ["410", "broken", "ended", "garbage", "error"])
def test_a_watch_that_ends_misses_nothing(bench: Bench, how: str) -> None:
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"first")})
    assert value(bench) == b"first"
    until(lambda: bench.fake.watching)
    bench.fake.refuse["WATCH"] = 503
    events: dict[str, tuple[str, Any]] = {
        "410": ("ERROR", {"kind": "Status", "code": 410}),
        "garbage": ("ADDED", {"metadata": []}),
        "error": ("ERROR", {"kind": "Status", "code": 500}),
    }
    if how in events:
        bench.fake.tell(*events[how])
    bench.fake.end_watches(broken=how == "broken")
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"second")})
    bench.fake.refuse.clear()
    until(lambda: value(bench) == b"second")


def test_a_bookmark_is_a_proof_and_moves_the_version(bench: Bench) -> None:
    value(bench)
    until(lambda: bench.fake.watching)
    bench.now += 50
    bench.fake.tell("BOOKMARK", {"metadata": {"resourceVersion": "5000"}})
    until(lambda: bench.backend._cache._proved == 1050.0)
    bench.now += 50
    assert value(bench) is None


def test_old_news_are_not_served(bench: Bench) -> None:
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"first")})
    assert value(bench) == b"first"
    until(lambda: bench.fake.watching)
    bench.fake.fails = ConnectionError("refused")
    bench.fake.end_watches()
    until(lambda: isinstance(bench.backend._cache._trouble, StorageUnavailable))
    bench.now += 60
    assert value(bench) == b"first"
    bench.now += 1
    with pytest.raises(StorageUnavailable) as caught:
        bench.backend.get(NAME)
    assert "ConnectionError" in str(caught.value.operator_detail)
    bench.fake.fails = None
    until(lambda: bench.fake.watching)
    assert value(bench) == b"first"


def test_a_first_list_that_fails_is_an_outage_not_an_absence(bench: Bench) -> None:
    bench.fake.fails = ConnectionError("refused")
    with pytest.raises(StorageUnavailable):
        bench.backend.get(NAME)
    with pytest.raises(StorageUnavailable):
        bench.backend.entries()


def test_a_forbidden_list_is_told_to_operators(bench: Bench) -> None:
    bench.fake.refuse["LIST"] = 403
    with pytest.raises(StoreRefuses, match="403: the cluster does not allow it"):
        bench.backend.get(NAME)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, StoreRefuses) for status in (401, 403, 413, 422)),
        *((status, StorageUnavailable) for status in (302, 429, 500)),
    ],
)
def test_a_refused_write_writes_nothing(bench: Bench, status: int, error: type[Exception]) -> None:
    bench.fake.refuse["POST"] = status
    with pytest.raises(error) as caught:
        bench.backend.put(NAME, b"secret-CANARY", meta={})
    assert "CANARY" not in str(caught.value) + repr(caught.value)
    assert bench.fake.secrets == {}


def test_exactly_one_of_many_makes_it(bench: Bench) -> None:
    results: list[object] = []

    def make(octet: int) -> None:
        try:
            results.append(bench.backend.put(NAME, bytes([octet]), meta={}, expected=0))
        except VersionConflict:
            results.append(None)

    threads = [threading.Thread(target=make, args=(octet,)) for octet in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 8
    assert sum(result is not None for result in results) == 1
    assert value(bench) is not None


def test_the_loser_reads_the_winner_at_once(bench: Bench) -> None:
    assert value(bench) is None
    until(lambda: bench.fake.watching)
    streams, bench.fake._streams = bench.fake._streams, []  # a watch that is slow
    bench.fake.interfere = lambda: bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"theirs")})
    with pytest.raises(VersionConflict):
        bench.backend.put(NAME, b"mine", meta={}, expected=0)
    assert value(bench) == b"theirs"
    bench.fake._streams = streams


def test_another_tag_of_the_same_secret_is_kept(bench: Bench) -> None:
    bench.backend.put("team-a/keys/two", b"2", meta={})
    bench.fake.interfere = lambda: bench.fake.apply("team-a.keys", LABEL, {"two": b64(b"3"), "three": b64(b"4")})
    bench.backend.put(NAME, b"1", meta={}, expected=0)
    assert bench.fake.secrets["team-a.keys"]["data"] == {"one": b64(b"1"), "two": b64(b"3"), "three": b64(b"4")}


def test_a_secret_of_others_is_emptied_not_removed(bench: Bench) -> None:
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"x")})
    assert bench.backend.delete(NAME) is True
    assert bench.fake.secrets["team-a.keys"]["data"] == {}
    bench.backend.put("team-a/more/one", b"x", meta={})
    assert bench.backend.delete("team-a/more/one") is True
    assert "team-a.more" not in bench.fake.secrets
    assert bench.backend.get("team-a/more/one") is None


def test_one_that_changes_all_the_time_is_busy(bench: Bench) -> None:
    bench.backend.put(NAME, b"x", meta={})
    bench.fake.refuse["PATCH"] = 409
    with pytest.raises(StorageUnavailable):
        bench.backend.put(NAME, b"y", meta={})


def test_a_late_event_brings_nothing_back(bench: Bench) -> None:
    bench.backend.put(NAME, b"x", meta={})
    assert value(bench) == b"x"
    until(lambda: bench.fake.watching)
    old = {**bench.fake.secrets["team-a.keys"]}
    bench.backend.delete(NAME)
    bench.fake.tell("MODIFIED", old)
    bench.fake.apply("marker", LABEL, {"one": b64(b"x")})
    until(lambda: bench.backend.get("default/marker/one"))
    assert value(bench) is None


def test_a_forked_process_watches_for_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fake.apply("team-a.keys", LABEL, {"one": b64(b"x")})
    assert value(bench) == b"x"
    until(lambda: bench.fake.watching == 1)
    own, before = os.getpid(), bench.backend._cache._stop
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    assert value(bench) == b"x"
    until(lambda: bench.fake.watching == 2)
    before.set()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"namespace": "../x"}, "namespace"),
        ({"namespace": ""}, "namespace"),
        ({"label": "all"}, "label"),
        ({"label": "a=b,c=d"}, "label"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"),
        ({"max_stale_seconds": 1.0}, "max_stale_seconds"),
        ({"kubeconfig": None, "context": "c"}, "context"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda each: each if isinstance(each, str) else "-".join(each),
)
def test_settings_that_cannot_work(tmp_path: Path, options: Mapping[str, Any], told: str) -> None:
    table = {name: each for name, each in {"namespace": "kbs", **options}.items() if each is not None}
    with pytest.raises(ConfigInvalid, match=told):
        build(StoreContext("", table, tmp_path, "resource.store[0]", StoppedClock(), lambda: 0.0))


@pytest.mark.parametrize("change", ["http", "insecure", "missing", "garbage"])
def test_a_kubeconfig_that_would_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    made = Bench(tmp_path, monkeypatch)
    file = tmp_path / "kubeconfig"
    if change == "missing":
        file.unlink()
    else:
        text = {
            "http": KUBECONFIG.replace("https:", "http:"),
            "insecure": KUBECONFIG.replace(':6443"', ':6443", insecure-skip-tls-verify: true'),
            "garbage": "x: 1\n",
        }
        file.write_text(text[change])
    with pytest.raises(KbsError) as caught:
        made.backend.get(NAME)
    assert "TLS" in str(caught.value.operator_detail) or "no way" in str(caught.value.operator_detail)
    made.close()
