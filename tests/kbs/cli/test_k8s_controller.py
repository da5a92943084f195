"""`kbs k8s controller`: what is said about wrong use, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.cli import main

CLUSTER = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
"""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "say --namespace NS"),
        (["--namespace", "a", "--all-namespaces"], 2, "one of them"),
        (["--all-namespaces"], 2, "--lease-namespace NS"),
        (["--namespace", "a", "--metrics-listen", "8082"], 2, "HOST:PORT"),
        (["--namespace", "a", "--metrics-listen", "host:99999"], 2, "HOST:PORT"),
        (["--namespace", "a", "--resync", "often"], 2, "--resync"),
        (["--namespace", "a", "--workers", "0"], 2, "--workers"),
        (["--namespace", "a", "--kubeconfig", "/none"], 2, "/none"),
        (["--namespace", "a"], 1, "name a file with --kubeconfig"),
        (["--namespace", "a", "--kubeconfig", "{empty}"], 1, "no way to an API server"),
        (["--namespace", "a", "--kubeconfig", "{good}", "--context", "other"], 1, "no way to an API server"),
    ],
    ids=["none", "both", "no lease", "no host", "port", "time", "workers", "no file", "no pod", "empty", "context"],
)
def test_wrong_use(
    arguments: list[str], status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"{empty}": tmp_path / "empty", "{good}": tmp_path / "good"}
    files["{empty}"].write_text("")
    files["{good}"].write_text(CLUSTER)
    given = [str(files.get(each, each)) for each in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["k8s", "controller", *given])
    assert ended.value.code == status
    assert words in " ".join(capsys.readouterr().err.split())
