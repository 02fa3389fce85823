"""A message of Slack's Block Kit as HTML, roughly as Slack shows it: the kinds of block that the product sends."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

_MARKS = re.compile(
    r"```(?P<lines>[^`]+)```|`(?P<code>[^`\n]+)`|<(?P<url>https?://[^|>\s]+)(?:\|(?P<label>[^>]*))?>|(?<!\w)\*(?P<bold>[^*\n]+)\*(?!\w)"
)


def show(payload: Mapping[str, Any]) -> str:
    """The message's blocks, or its text if it has none."""
    blocks = payload.get("blocks") or [{"type": "section", "text": {"type": "plain_text", "text": payload.get("text")}}]
    return "".join(_block(block) for block in blocks if isinstance(block, Mapping))


def _block(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "header":
        return f"<h2>{_text(block.get('text'))}</h2>"
    if kind == "section":
        fields = "".join(_field(field) for field in block.get("fields") or [])
        text = f"<p>{_text(block['text'])}</p>" if block.get("text") else ""
        return text + (f"<dl>{fields}</dl>" if fields else "")
    if kind == "context":
        return "".join(f"<p><small>{_text(element)}</small></p>" for element in block.get("elements") or [])
    return f"<p><small>A block of the kind {html.escape(str(kind))}, see below.</small></p>"


def _field(field: object) -> str:
    """A field whose first line is its name, as the product makes them."""
    name, _, value = _text(field).partition("<br>")
    return f"<dt>{name}</dt><dd>{value}</dd>"


def _text(text: object) -> str:
    if not isinstance(text, Mapping):
        return ""
    content = str(text.get("text") or "")
    if text.get("type") != "mrkdwn":
        return html.escape(content)
    shown, end = "", 0
    for match in _MARKS.finditer(content):
        shown += _plain(content[end : match.start()]) + _mark(match)
        end = match.end()
    return shown + _plain(content[end:])


def _mark(match: re.Match[str]) -> str:
    if match["lines"]:
        return f"<code>{_plain(match['lines'])}</code>"
    if match["code"]:
        return f"<code>{_plain(match['code'])}</code>"
    if match["bold"]:
        return f"<b>{_plain(match['bold'])}</b>"
    return f'<a href="{_plain(match["url"])}">{_plain(match["label"] or match["url"])}</a>'


def _plain(text: str) -> str:
    """Slack's three escapes read, HTML's written."""
    read = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return html.escape(read).replace("\n", "<br>")
