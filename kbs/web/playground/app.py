"""The playground's Flask application.

Whoever reaches the port must know the address: it has a random part, so that neither other users of the machine nor
pages of other origins find it. Beyond that: a Host header that is ours (against DNS rebinding), a token in each form
and an origin that is ours (against forged requests), a policy of content without inline script or foreign resources.
No cookie is set. Source: threat model P-ADM-3.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Final

from flask import Flask, Response, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from kbs.admin.policy_scenario import LIMITS, read_scenario
from kbs.errors import KbsError, MalformedMessage
from kbs.policy.engine import PolicyKind
from kbs.web.playground.form import Form
from kbs.web.playground.run import Ran, Runner
from kbs.web.playground.sources import Choice, Sources, SourceUnavailable

MAX_BODY: Final = 3 * LIMITS.size  # the page's texts, or a document
FILE_NAME: Final = "policy-scenario.json"
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers name no origin of a form either
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OWN_SITE: Final = frozenset({None, "same-origin", "none"})


def create_playground(
    runner: Runner, sources: Sources, *, key: str, form_token: str, hosts: Set[str], first: Form | None = None
) -> Flask:
    """Make the application.

    Args:
        key: the secret part of the address. form_token: another secret, in each form.
        hosts: values of the Host header that are ours, with port.
        first: what the page begins with.
    """
    app = Flask(__name__, static_url_path=f"/{key}/static")
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, MAX_FORM_MEMORY_SIZE=MAX_BODY, MAX_FORM_PARTS=32)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["json_text"] = partial(json.dumps, ensure_ascii=False)  # a string: it is escaped like any
    page = _Page(runner, sources, key, form_token, first)

    @app.before_request
    def guard() -> Response | None:
        if request.headers.get("Host") not in hosts:
            return _plain(421, "this address is not the playground's")
        if request.method not in ("GET", "HEAD") and not _is_own(form_token, hosts):
            return _plain(403, "the form is not of this page, or the playground was started anew: load the page again")
        return None

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response

    @app.errorhandler(HTTPException)
    def refuse(err: HTTPException) -> Response:
        return _plain(err.code or 500, err.name)

    app.add_url_rule(f"/{key}/", "show", page.show, methods=["GET"])
    app.add_url_rule(f"/{key}/", "use", page.use, methods=["POST"])
    return app


def _is_own(form_token: str, hosts: Set[str]) -> bool:
    origin = request.headers.get("Origin")
    if origin is not None and origin.removeprefix("http://") not in hosts:
        return False
    if request.headers.get("Sec-Fetch-Site") not in _OWN_SITE:
        return False
    return hmac.compare_digest(request.form.get("token", "").encode(), form_token.encode())


class _Page:
    """GET shows it, POST does what the button that was pressed says."""

    def __init__(self, runner: Runner, sources: Sources, key: str, form_token: str, first: Form | None) -> None:
        self._runner = runner
        self._sources = sources
        self._key = key
        self._form_token = form_token
        self._first = first or sources.first()
        self._buttons: Mapping[str, Callable[[Form], Form]] = {
            "policy": lambda form: sources.with_policy(form, request.form.get("chosen-policy", "")),
            "sample": lambda form: sources.with_sample(form, request.form.get("chosen-sample", "")),
            "values": sources.with_broker_values,
            "open": self._opened,
        }

    def show(self) -> Response:
        """The page as it begins."""
        return self._render(self._first)

    def use(self) -> Response:
        """Run, download, or change what stands in the form."""
        form, button = Form.sent(request.form), request.form.get("do", "run")
        try:
            if button in self._buttons:
                return self._render(self._buttons[button](form))
            scenario = form.scenario()
            if button == "save":
                return _download(scenario.encoded())
            return self._render(form, self._runner.run(scenario, trace=form.trace))
        except (KbsError, SourceUnavailable) as err:
            return self._render(form, problem=str(err), status=400)

    def _opened(self, form: Form) -> Form:
        file = request.files.get("file")
        if file is None or not file.filename:
            raise MalformedMessage("choose a file first")
        try:
            return Form.of(read_scenario(file.stream.read(LIMITS.size + 1)), trace=form.trace)
        finally:
            file.close()

    def _render(self, form: Form, ran: Ran | None = None, *, problem: str | None = None, status: int = 200) -> Response:
        notices = [problem] if problem is not None else []
        offered: list[Choice] = []
        try:
            offered = self._sources.of_broker()
        except SourceUnavailable as err:
            notices.append(str(err))
        text = render_template(
            "page.html",
            key=self._key,
            form_token=self._form_token,
            form=form,
            kinds=[kind.value for kind in PolicyKind],
            shipped=self._sources.shipped(),
            offered=offered,
            samples=self._sources.samples(),
            broker=self._sources.broker,
            notices=notices,
            ran=ran,
            marked=_marked(form.policy, ran),
        )
        return make_response(text, status)


def _marked(policy: str, ran: Ran | None) -> list[tuple[int, str, list[str]]]:
    """Number, text and findings of each line, where there is a finding to show; else nothing."""
    if ran is None or not ran.findings:
        return []
    of: dict[int, list[str]] = {}
    for each in ran.findings:
        of.setdefault(each.line, []).append(f"column {each.column}: {each.severity.value}: {each.text} [{each.rule}]")
    lines = [(number, line, of.get(number, [])) for number, line in enumerate(policy.split("\n"), 1)]
    return [(0, "", of[0]), *lines] if 0 in of else lines


def _download(document: bytes) -> Response:
    response = Response(document, mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{FILE_NAME}"'
    return response


def _plain(status: int, text: str) -> Response:
    return Response(f"{text}\n", status, mimetype="text/plain")
