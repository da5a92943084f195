"""Alerts, by promtool; and a real Prometheus that scrapes a broker at work: every panel of the dashboard has data, and
every alert looks at series that are there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from kbs.client.admin import AdminClient
from kbs.client.errors import AttestationRefused, PolicyDenied
from kbs.client.guest import GuestClient
from kbs.client.sample_attester import SampleAttester
from tests import prometheus_binary
from tests.architecture.documents import anchors
from tests.fakes.running_broker import ROOT, RunningBroker, free_port

MONITORING = ROOT / "k8s/monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
ALERTS = {rule["alert"]: rule for group in RULES for rule in group["rules"]}
PANELS = {panel["title"]: panel for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules as Prometheus has them, beside their unit tests."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": RULES}))
    (folder / "rules.test.yaml").write_text((MONITORING / "rules.test.yaml").read_text())
    return folder


def test_alerts_fire_when_they_should_and_alone(rules: Path) -> None:
    promtool = prometheus_binary.program("promtool")
    done = subprocess.run([promtool, "test", "rules", "rules.test.yaml"], cwd=rules, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire() -> None:
    tests = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]
    fired = {
        re.findall(r'"(\w+)"', sample["labels"])[0]
        for test in tests
        for asked in test["promql_expr_test"]
        for sample in asked["exp_samples"]
    }
    assert fired == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_its_runbook(name: str) -> None:
    address, _, anchor = ALERTS[name]["annotations"]["runbook_url"].partition("#")
    assert address.endswith("/blob/main/docs/runbooks.md")
    assert anchor == name.lower()
    assert anchor in anchors((ROOT / "docs/runbooks.md").read_text())


class Prometheus:
    """A server that scrapes one broker once a second."""

    def __init__(self, program: Path, folder: Path, broker: RunningBroker, metrics: int) -> None:
        self.port = free_port()
        static = [{"targets": [f"127.0.0.1:{metrics}"], "labels": {"namespace": "kbs"}}]
        tls = {"ca_file": str(broker.ca)}
        scrape = {"job_name": "kbs-metrics", "scheme": "https", "tls_config": tls, "static_configs": static}
        settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series at this moment."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Until it has data; what it has at the end of a long wait, if that is nothing."""
        for _ in range(300):
            with suppress(OSError):
                if found := self.query(expression):
                    return found
            time.sleep(0.2)
        return []

    def stop(self) -> None:
        """At once: its data is nobody's."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen a broker that gives a secret, denies one, refuses evidence, and whose reference values end."""
    program = prometheus_binary.program("prometheus")
    port = free_port()
    listen = {"KBS__SERVER__METRICS_LISTEN": f"127.0.0.1:{port}"}
    broker = RunningBroker(tmp_path_factory.mktemp("broker") / "data", workers=1, settings=listen)
    try:
        prepare(broker)
        restart(broker, listen)  # what expires is looked for at the start, and later once a minute
        running = Prometheus(program, tmp_path_factory.mktemp("prometheus"), broker, port)
        try:
            assert running.wait_for("kbs_build_info"), running.log.read_text()
            for _ in range(3):  # counters must be seen to grow
                load(broker)
                time.sleep(1.1)
            yield running
        finally:
            running.stop()
    finally:
        broker.stop()


def prepare(broker: RunningBroker) -> None:
    """A secret, a policy that gives it to good samples, and what a good one is."""
    shipped = (ROOT / "policies/resource/sample-demo.rego").read_bytes()
    with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
        admin.set_resource("default/key/1", b"open sesame")
        admin.set_reference_values(
            {"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4}
        )
        admin.set_resource_policy(shipped)


def restart(broker: RunningBroker, settings: dict[str, str]) -> None:
    """With the same settings as before."""
    words: Any = broker.process.args
    broker.stop()
    environment = {**os.environ, "KBS__ENDORSEMENTS__NETWORK": "false", **settings}
    with broker.log.open("ab") as log:
        broker.process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)
    broker._wait_until_it_answers()


def load(broker: RunningBroker) -> None:
    """A handshake that ends with a secret, one that ends with a denial, and one whose evidence is refused."""
    with broker.guest() as guest:
        assert guest.get_resource("default/key/1") == b"open sesame"
    wrong = GuestClient(broker.url, ca_file=broker.ca, attester=SampleAttester(launch_digest="0badc0de"))
    with wrong as guest, pytest.raises(PolicyDenied):
        guest.get_resource("default/key/1")
    with broker.guest() as guest, pytest.raises(AttestationRefused):
        guest.submit(guest.attestation_for(guest.challenge()).replace(b'"report_data"', b'"report_date"'))


def _here(expression: str) -> str:
    """With Grafana's variables filled in as it would, for a range that the whole test is in."""
    return expression.replace("$__rate_interval", "15m").replace("$namespace", ".*")


@pytest.mark.server
@pytest.mark.enable_socket
def test_panels_have_data_and_alerts_look_at_what_is_there(prometheus: Prometheus) -> None:
    """One test, so that test processes do not each start a broker and a Prometheus."""
    panels_have_data(prometheus)
    what_was_done_is_shown(prometheus)
    for rule in ALERTS.values():
        series_are_there(prometheus, rule["expr"])
    due = {name for name, rule in ALERTS.items() if prometheus.query(rule["expr"])}
    assert due == {"KbsInsecure"}  # this broker has the software TEE on


def panels_have_data(prometheus: Prometheus) -> None:
    """Each expression of each panel."""
    for title, panel in PANELS.items():
        for target in panel["targets"]:
            found = prometheus.wait_for(_here(target["expr"]))
            assert found, (title, target["expr"])
            assert not any(each["value"][1] == "NaN" for each in found), (title, target["expr"])


def what_was_done_is_shown(prometheus: Prometheus) -> None:
    """Three rounds of `load`."""
    for reason in ("policy_denied", "evidence_malformed"):
        assert prometheus.wait_for(f'kbs_refusals_total{{reason="{reason}"}} >= 3'), reason
    assert prometheus.wait_for("kbs_attestation_successes_total >= 6")
    assert prometheus.wait_for("kbs_policy_approvals_total == 3")


def series_are_there(prometheus: Prometheus, expression: str) -> None:
    """Each selector of an alert, by itself, finds series: no name, label or reason is misspelt."""
    selectors = re.findall(r"\b(?:kbs_\w+|up)(?:\{[^}]*\})?", expression)
    assert selectors
    for selector in selectors:
        assert prometheus.wait_for(selector), selector
        for reasons in re.findall(r'reason=~?"([^"]+)"', selector):
            for reason in reasons.split("|"):
                assert prometheus.query(f'kbs_refusals_total{{reason="{reason}"}}'), reason
