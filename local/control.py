"""The pages `/_local/…` on the AWS port: inbox, Slack, faults, machines, the installer."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from local import slackblocks
from local.faults import MEANINGS, Faults, UnknownFaultError
from local.mail import Inbox
from local.slack import Slack

STYLE = (
    ":root{color-scheme:light dark;--line:#8885;--dim:color-mix(in srgb,currentColor 65%,transparent)}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:0 auto;padding:1rem}"
    "nav{display:flex;gap:1rem;flex-wrap:wrap;border-bottom:1px solid var(--line);padding-bottom:.5rem}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin:.2rem 0}"
    "article{border:1px solid var(--line);border-radius:8px;padding:.6rem 1rem;margin:1rem 0}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.6rem 0;font-size:.85rem}code{overflow-wrap:anywhere}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem;margin:.6rem 0}dt{font-weight:600}dd{margin:0}"
    "small,summary{color:var(--dim)}p{margin:.6rem 0}"
)
# Else a browser asks the AWS APIs for one.
NO_ICON = '<link rel="icon" href="data:,">'
PAGES = ("inbox", "slack", "faults", "machines", "health")


class Control:
    """Answers the pages. What they show is handed in."""

    def __init__(self, faults: Faults, inbox: Inbox, slack: Slack, state: Path) -> None:
        self._faults = faults
        self._inbox = inbox
        self._slack = slack
        self._state = state
        self.installer: Path | None = None
        self.machines: Callable[[], list[dict[str, Any]]] = list
        self.confirm: Callable[[str], str] | None = None
        self.unsubscribe: Callable[[str], None] | None = None
        self.health: Callable[[], dict[str, Any]] = dict

    def __call__(self, request: Request) -> Response:
        path = request.path.removeprefix("/_local/")
        if path.startswith("slack/"):
            return self._webhook(request, path.removeprefix("slack/"))
        pages: dict[str, Callable[[Request], Response]] = {
            "": self._index,
            "health": lambda _: _json({"status": "ok", **self.health()}),
            "inbox": self._show_inbox,
            "inbox.json": lambda _: _json(self._inbox.to_json()),
            "slack": self._show_slack,
            "slack.json": lambda _: _json(self._slack.messages()),
            "faults": self._change_faults,
            "machines": lambda _: _json(self.machines()),
            "installer.sh": self._installer,
            "sns/confirm": self._confirm,
            "sns/unsubscribe": self._unsubscribe,
        }
        page = pages.get(path)
        if page is None:
            return Response("There is no such page.\n", 404, content_type="text/plain; charset=utf-8")
        return page(request)

    def _index(self, _: Request) -> Response:
        return _page("Local cloud", "<p>Inbox and Slack show what arrived, newest first; the others are JSON.")

    def _show_inbox(self, _: Request) -> Response:
        articles = []
        for mail in reversed(self._inbox.messages()):
            text = html.escape(mail.text)
            for link in sorted(set(mail.links), key=len, reverse=True):
                shown = html.escape(link)
                text = text.replace(shown, f'<a href="{quote(link, safe=":/?&=%#@")}">{shown}</a>', 1)
            articles.append(
                f"<article><h2>{html.escape(mail.subject)}</h2><small>{_moment(mail.at)}, to "
                f"{html.escape(', '.join(mail.recipients))}</small><pre>{text}</pre></article>"
            )
        return _page("Inbox", "".join(articles) or "<p>Nothing arrived yet.")

    def _show_slack(self, _: Request) -> Response:
        articles = [
            f"<article><small>{_moment(post['at'])}, channel {html.escape(post['channel'])}</small>"
            f"{slackblocks.show(post['payload'])}"
            "<details><summary>As it was posted</summary>"
            f"<pre>{html.escape(json.dumps(post['payload'], indent=1, ensure_ascii=False))}</pre></details></article>"
            for post in reversed(self._slack.messages())
        ]
        return _page("Slack", "".join(articles) or "<p>Nothing arrived yet.")

    def _webhook(self, request: Request, path: str) -> Response:
        if request.method != "POST":
            return Response("invalid_method", 405, content_type="text/plain")
        status, headers, text = self._slack.receive(path, request.get_data())
        return Response(text, status, headers, content_type="text/plain")

    def _change_faults(self, request: Request) -> Response:
        if request.method == "PUT":
            try:
                wanted = json.loads(request.get_data())
                if not isinstance(wanted, dict):
                    raise UnknownFaultError('faults are an object such as {"no_capacity": true}')
                self._faults.change(wanted)
            except ValueError as error:
                return _json({"error": str(error)}, 422)
        elif request.method not in {"GET", "HEAD"}:
            return _json({"error": "GET or PUT"}, 405)
        return _json({"on": self._faults.names(), "faults": dict(MEANINGS)})

    def _installer(self, request: Request) -> Response:
        if self.installer is None:
            return Response("There is no installer.\n", 404, content_type="text/plain")
        path = self.installer
        if self._faults.active("installer_checksum"):
            altered = self._state / "installer-altered.sh"
            if not altered.exists():
                shutil.copyfile(path, altered)
                with altered.open("ab") as file:
                    file.write(b"\n# altered\n")
            path = altered
        # Conditional: an interrupted download goes on with a Range request.
        return send_file(path, request.environ, mimetype="application/x-sh", conditional=True)

    def _confirm(self, request: Request) -> Response:
        try:
            arn = self.confirm(request.args["Token"]) if self.confirm else None
        except KeyError:
            return _page("Subscription", "<p>This link is not, or no longer, valid.", 400)
        return _page("Subscription confirmed", f"<p>Subscribed: <code>{html.escape(str(arn))}</code>")

    def _unsubscribe(self, request: Request) -> Response:
        try:
            if self.unsubscribe:
                self.unsubscribe(request.args["SubscriptionArn"])
        except Exception:  # noqa: BLE001 - whatever is wrong with the link, the page says so
            return _page(
                "Subscription not removed", "<p>Your subscription could not be removed because of an error.", 400
            )
        return _page("Subscription removed", "<p>No more mail will come.")


def _moment(at: str) -> str:
    return html.escape(at.replace("T", " ").replace("Z", " UTC"))


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, indent=1, default=str) + "\n", status, content_type="application/json")


def _page(title: str, body: str, status: int = 200) -> Response:
    links = "".join(f'<a href="/_local/{name}">{name.title()}</a>' for name in PAGES)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{NO_ICON}<style>{STYLE}</style>'
        f"<header><nav>{links}</nav></header><main><h1>{html.escape(title)}</h1>{body}</main></html>"
    )
    headers = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
    return Response(text, status, headers, content_type="text/html; charset=utf-8")
