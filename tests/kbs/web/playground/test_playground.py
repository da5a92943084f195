"""The page: what it does, what it shows as text, whom it refuses."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from kbs.admin.policy_scenario import read_scenario
from kbs.cli.policy_playground import playground_server
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.web.playground.app import create_playground
from kbs.web.playground.run import Runner
from kbs.web.playground.sources import Sources, SourceUnavailable
from tests.fakes.broker import POLICIES
from tests.kbs.policy.support import NOW

CPU = (POLICIES / "evidence/cpu.rego").read_text()
HOST = "127.0.0.1:5000"
ORIGIN = {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
MARKUP = (
    "<script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'><iframe src='javascript:alert(1)'>",
    "<a href=javascript:alert(1)>x</a>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&#60;script&#62;",
    "<!--", "]]>", "\u202e<b>", "\u0000<i>", "<style>*{display:none}</style>", "<base href=https://example.org>",
    "<form action=https://example.org><button>", "<meta http-equiv=refresh content=0>",
)  # fmt: skip


class Broker:
    """A broker of these tests."""

    name = "https://broker.example"
    down = False

    def policies(self) -> list[tuple[PolicyKind, str]]:
        if self.down:
            raise SourceUnavailable("the broker's policies: <b>down</b>")
        return [(PolicyKind.RESOURCE, "path:team-a")]

    def text(self, kind: PolicyKind, policy_id: str) -> str:
        assert (kind, policy_id) == (PolicyKind.RESOURCE, "path:team-a")
        return "package policy\n\ndefault allow := false\n# of the broker\n"

    def values(self) -> Mapping[str, Any]:
        return {"svn": ["7"]}


def client(opa: Path | None = None, broker: Broker | None = None) -> FlaskClient:
    runner = Runner(Compiler(opa, lambda: 0), lambda: NOW)
    app = create_playground(runner, Sources(broker), key="KEY", form_token="TOKEN", hosts={HOST})
    app.testing = True
    return app.test_client()


@pytest.fixture(scope="module")
def page() -> FlaskClient:
    return client()


def post(page: FlaskClient, /, **members: Any) -> TestResponse:
    return sent(page, ORIGIN, members)


def sent(page: FlaskClient, headers: Mapping[str, str], members: Mapping[str, Any]) -> TestResponse:
    data = {"token": "TOKEN", "kind": "evidence", "policy": CPU, "claims": "{}", "values": "{}", "do": "run"}
    return page.post("/KEY/", data={**data, **members}, headers=headers, content_type="multipart/form-data")


class _Read(HTMLParser):
    """Elements of a page, and what stands in its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._in: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = dict(attrs).get("name") if tag == "textarea" else self._in
        if tag == "textarea" and self._in is not None:
            self.texts[self._in] = ""

    def handle_endtag(self, tag: str) -> None:
        self._in = None if tag == "textarea" else self._in

    def handle_data(self, data: str) -> None:
        if self._in is not None:
            self.texts[self._in] += data


def texts(answer: TestResponse) -> dict[str, str]:
    """What a browser has in its fields: the line break after the tag is not part of it."""
    return {name: text.removeprefix("\n") for name, text in _Read(answer.text).texts.items()}


def test_it_begins_with_a_good_guest(page: FlaskClient) -> None:
    answer = page.get("/KEY/", headers={"Host": HOST})
    assert answer.status_code == 200
    shown = texts(answer)
    assert shown["policy"] == CPU
    ran = post(page, **shown)
    assert '<p class="good">affirming</p>' in ran.text
    assert "Without opa" in ran.text
    assert texts(ran) == shown


def test_browsers_end_lines_otherwise(page: FlaskClient) -> None:
    claims = json.dumps(read_fixture("snp.debug"), indent=2)
    answer = post(page, policy=CPU.replace("\n", "\r\n"), claims=claims.replace("\n", "\r\n"))
    assert texts(answer)["policy"] == CPU
    assert '<p class="bad">' in answer.text
    assert "snp.policy_debug_allowed" in answer.text


def read_fixture(name: str) -> Any:
    tee, _, variant = name.partition(".")
    return json.loads((POLICIES / "fixtures" / f"{tee}.json").read_text())[variant]


def test_every_sample_and_every_policy_can_be_taken(page: FlaskClient) -> None:
    listed = _Read(page.get("/KEY/", headers={"Host": HOST}).text).elements
    values = [str(attributes["value"]) for tag, attributes in listed if tag == "option" and "value" in attributes]
    policies = [each for each in values if each.startswith(("evidence/", "resource/"))]
    samples = [each for each in values if each not in policies]
    assert {path.stem for path in (POLICIES / "fixtures").glob("*.json")} - {"references", "tokens", "claims"} <= {
        each.partition(".")[0] for each in samples
    }
    for name in policies:
        answer = post(page, do="policy", **{"chosen-policy": name})
        assert texts(answer)["policy"] == (POLICIES / f"{name}.rego").read_text()
        assert f"<option selected>{name.partition('/')[0]}</option>" in answer.text
    for name in samples:
        assert post(page, do="sample", **{"chosen-sample": name}).status_code == 200
    token = texts(post(page, do="sample", **{"chosen-sample": "token:snp.good"}))["claims"]
    allowed = post(page, kind="resource", policy=(POLICIES / "resource/affirming.rego").read_text(), claims=token)
    assert '<p class="good">allowed</p>' in allowed.text


def test_what_is_downloaded_opens_again(page: FlaskClient) -> None:
    members = {"claims": '{"snp": {"x": "<&>\\u0000é"}}', "values": '{"a": [1]}', "policy": "package policy\n# <b>\n"}
    answer = post(page, do="save", **members)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="policy-scenario.json"'
    scenario = read_scenario(answer.data)
    assert (scenario.policy, scenario.claims, scenario.values) == (
        members["policy"],
        {"snp": {"x": "<&>\0é"}},
        {"a": [1]},
    )
    opened = post(page, do="open", file=(io.BytesIO(answer.data), "x.json"))
    assert texts(opened)["policy"] == members["policy"]
    assert json.loads(texts(opened)["claims"]) == scenario.claims


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"claims": '{"a": 1,\n  "b": nope}'}, "the claims: JSON: malformed near line 2, column 12"),
        ({"claims": "[]"}, "the claims are not a JSON object"),
        ({"claims": ""}, "the claims: JSON: malformed"),
        ({"claims": '{"a": 1, "a": 2}'}, "repeats a member name"),
        ({"claims": '{"a": NaN}'}, "malformed near line 1"),
        ({"claims": '{"a":' + "[" * 100 + "]" * 100 + "}"}, "nest deeper"),
        ({"claims": '{"a": ' + "9" * 100 + "}"}, "more than 64 digits"),
        ({"values": "7"}, "the reference values are not a JSON object"),
        ({"sets": "[7]"}, "not a list of objects"),
        ({"sets": "[{]"}, "the compound sets: JSON: malformed"),
        ({"request": '{"other": 1}'}, "unknown member"),
        ({"request": '{"resource-path": "a"}'}, "not a list of texts"),
        ({"kind": "x"}, "neither evidence nor resource"),
        ({"do": "policy", "chosen-policy": "evidence/../cpu"}, "choose a policy of the list"),
        ({"do": "policy", "chosen-policy": "broker:resource/path:team-a"}, "choose a policy of the list"),
        ({"do": "sample", "chosen-sample": "token:nobody.good"}, "choose a sample of the list"),
        ({"do": "values"}, "without a broker"),
        ({"do": "open"}, "choose a file first"),
    ],
)
def test_what_is_wrong_is_said(page: FlaskClient, members: dict[str, str], words: str) -> None:
    answer = post(page, **members)
    assert answer.status_code == 400
    assert words in html.unescape(answer.text)
    assert texts(answer)["policy"] == CPU  # nothing that was typed is lost


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"[]", b'{"kbs-policy-scenario": 2}', b'{"kbs-policy-scenario": 1}', b"\xff", CPU.encode()],
    ids=["empty", "nothing", "array", "version", "members", "octets", "rego"],
)
def test_other_files_do_not_open(page: FlaskClient, document: bytes) -> None:
    assert post(page, do="open", file=(io.BytesIO(document), "x.json")).status_code == 400


def test_markup_is_text_wherever_it_stands(page: FlaskClient) -> None:
    usual = _tags(post(page)) | {"bdi", "table", "tr", "th", "td", "p", "h2", "h3", "section"}
    named = {f"{number}{hostile}": hostile for number, hostile in enumerate(MARKUP)}
    claims = json.dumps({"snp": {**read_fixture("snp.debug")["snp"], "measurement": "".join(MARKUP), **named}})
    values = json.dumps({"snp_launch_measurement": list(MARKUP), **named})
    answer = post(page, claims=claims, values=values)
    assert _tags(answer) <= usual
    elements = _Read(answer.text).elements
    assert [each for each in elements if each[0] == "script"] == [
        ("script", {"src": "/KEY/static/page.js", "defer": None})
    ]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert json.loads(texts(answer)["claims"]) == json.loads(claims)
    for hostile in MARKUP:
        for name in ("policy", "claims", "request", "kind", "sets", "values"):
            members = {name: hostile}
            saved = post(page, do="save", **members)
            assert saved.mimetype == "application/json" or _tags(saved) <= usual
        for button in ("policy", "sample"):
            refused = post(page, do=button, **{f"chosen-{button}": hostile})
            assert (refused.status_code, _tags(refused) <= usual) == (400, True)


@pytest.mark.opa
def test_markup_in_a_policy_and_its_result_is_text(opa: Path) -> None:
    quoted = json.dumps("".join(MARKUP).replace("\0", ""))
    policy = f"package policy\n\ndefault trust_claims := {{{quoted}: 2}}\n\nfindings := [{quoted}]\n"
    answer = post(client(opa), policy=policy, trace="on")
    assert _tags(answer) <= _tags(post(client())) | {"div", "span", "code", "pre", "h3"}
    assert "&lt;script&gt;alert(1)" in answer.text


def test_compound_sets(page: FlaskClient) -> None:
    same = (POLICIES / "evidence/same-release.rego").read_text()
    shown = texts(post(page, do="sample", policy=same, **{"chosen-sample": "tdx.good"}))
    assert '<p class="good">affirming</p>' in post(page, **shown).text
    saved = read_scenario(post(page, do="save", **shown).data)
    assert [each["release"] for each in saved.sets] == ["good"]
    opened = post(page, do="open", file=(io.BytesIO(saved.encoded()), "x.json"))
    assert texts(opened)["sets"] == shown["sets"]
    refused = post(page, **{**shown, "sets": ""})
    assert '<p class="bad">contraindicated</p>' in refused.text
    assert "tdx[one set]" in refused.text


def _tags(answer: TestResponse) -> set[str]:
    return {tag for tag, _ in _Read(answer.text).elements}


def test_every_answer_has_the_headers_and_no_cookie(page: FlaskClient) -> None:
    plain = {"Host": HOST}
    answers = [
        page.get("/KEY/", headers=plain),
        page.get("/KEY/static/page.css", headers=plain),
        page.get("/KEY/static/page.js", headers=plain),
        page.get("/", headers=plain),
        page.get("/KEY/", headers={"Host": "evil.example"}),
        page.delete("/KEY/", headers=ORIGIN),
        post(page),
        post(page, do="save"),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers
        answer.close()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 421, 403, 200, 200]


def test_the_page_needs_nothing_from_elsewhere(page: FlaskClient) -> None:
    text = page.get("/KEY/", headers={"Host": HOST}).text
    named = re.findall(r'(?:href|src|action)="([^"]*)"', text)
    assert set(named) == {"/KEY/static/page.css", "/KEY/static/page.js", "/KEY/"}
    assert "style=" not in text
    for name in ("page.css", "page.js"):
        answer = page.get(f"/KEY/static/{name}", headers={"Host": HOST})
        assert "//" not in re.sub(r"^// .*$", "", answer.text, flags=re.MULTILINE)
        answer.close()


@pytest.mark.parametrize(
    ("headers", "members"),
    [
        ({"Host": HOST}, {"token": "other"}),
        ({"Host": HOST}, {"token": ""}),
        ({"Host": HOST, "Origin": "http://evil.example"}, {}),
        ({"Host": HOST, "Origin": "null"}, {}),
        ({"Host": HOST, "Origin": f"https://{HOST}.evil.example"}, {}),
        ({"Host": HOST, "Sec-Fetch-Site": "cross-site"}, {}),
        ({"Host": HOST, "Sec-Fetch-Site": "same-site"}, {}),
    ],
    ids=["token", "no-token", "origin", "null", "suffix", "cross-site", "same-site"],
)
def test_forged_requests_are_refused(page: FlaskClient, headers: dict[str, str], members: dict[str, str]) -> None:
    assert sent(page, headers, members).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5000", "127.0.0.1", "127.0.0.1:5001", "localhost", ""])
def test_other_hosts_are_refused(page: FlaskClient, host: str) -> None:
    assert page.get("/KEY/", headers={"Host": host}).status_code == 421
    assert sent(page, {"Host": host}, {}).status_code == 421


def test_without_the_address_there_is_nothing(page: FlaskClient) -> None:
    for path in ("/", "/key/", "/KEY", "/static/page.css", "/KEY/static/../app.py", "/KEY/static/%2e%2e/app.py"):
        assert page.get(path, headers={"Host": HOST}).status_code in (308, 404), path


def test_a_large_body_is_refused(page: FlaskClient) -> None:
    body, kind = b"token=TOKEN&claims=" + b"x" * (13 << 20), "application/x-www-form-urlencoded"
    assert page.post("/KEY/", data=body, content_type=kind, headers=ORIGIN).status_code == 413


def test_policies_and_values_of_a_broker() -> None:
    broker = Broker()
    page = client(broker=broker)
    answer = post(page, do="policy", **{"chosen-policy": "broker:resource/path:team-a"})
    assert "# of the broker" in texts(answer)["policy"]
    assert json.loads(texts(post(page, do="values"))["values"]) == {"svn": ["7"]}
    broker.down = True
    shown = post(page)
    assert "&lt;b&gt;down&lt;/b&gt;" in shown.text
    assert "contraindicated" in shown.text


@pytest.mark.opa
def test_own_policies_with_lint_syntax_and_trace(opa: Path) -> None:
    page = client(opa)
    doubtful = "package policy\n\ndefault allow := false\n\nallow if not input.a.b\n"
    answer = post(page, kind="resource", policy=doubtful, trace="on")
    assert '<p class="good">allowed</p>' in answer.text
    assert "line 5, column 10: warning:" in answer.text
    assert "[negated-claim]" in answer.text
    assert "policy.rego:5" in answer.text
    wrong = html.unescape(post(page, kind="resource", policy="package policy\n\nallow if {\n").text)
    assert "line 3, column" in wrong or "line 4, column" in wrong
    assert "[syntax]" in wrong
    unsafe = post(
        page, kind="resource", policy='package policy\ndefault allow := false\nallow if http.send({"url": "x"})\n'
    )
    assert "http.send" in unsafe.text
    markup = post(page, kind="resource", policy="package policy\n# <script>alert(1)</script>\nallow if not input.a\n")
    assert "# &lt;script&gt;alert(1)" in markup.text


@pytest.mark.opa
@pytest.mark.parametrize(
    "body",
    [
        "allow if count([x | some x in numbers.range(1, 1000000000)]) == 7",
        'allow if count(concat("", [s | some i in numbers.range(1, 5000000); s := "xxxxxxxxxx"])) == 7',
    ],
    ids=["range", "memory"],
)
def test_endless_policies_end(opa: Path, body: str) -> None:
    """What an input reaches; without it the trial runs of the compiler would."""
    text = f"package policy\n\ndefault allow := false\n\n{body.replace('allow if', 'allow if input.go == 1; ', 1)}\n"
    text = text.replace("allow if input.go == 1;  ", "allow if {\n\tinput.go == 1\n\t").replace(" == 7", " == 7\n}", 1)
    answer = post(client(opa), kind="resource", policy=text, claims='{"go": 1}')
    assert answer.status_code == 200
    assert 'class="bad"' in answer.text
    assert "allowed" not in answer.text


@pytest.fixture
def running() -> Iterator[str]:
    server, address = playground_server("127.0.0.1:0", None, Sources())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.server
@pytest.mark.enable_socket
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_shows_the_page(running: str, tmp_path: Path) -> None:
    """Style and script are its own and are let in: the content security policy stops nothing that is needed."""
    chromium = shutil.which("chromium")
    assert chromium is not None
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--enable-logging=stderr")
    done = subprocess.run([chromium, *options, "--dump-dom", running], capture_output=True, timeout=60, check=True)
    assert b"Policy playground" in done.stdout
    assert b"Content Security Policy" not in done.stderr
