"""What the pages of the local cloud make of messages: readable, and never more than text and links."""

from __future__ import annotations

from local import slackblocks


def section(text: str) -> dict[str, object]:
    return {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]}


def test_a_link_a_code_and_bold_words_look_so() -> None:
    shown = slackblocks.show(section("*Link* <https://127.0.0.20:8888|Open thesis> `AA:BB`"))
    assert shown == '<p><b>Link</b> <a href="https://127.0.0.20:8888">Open thesis</a> <code>AA:BB</code></p>'


def test_fields_are_names_with_values() -> None:
    fields = [{"type": "mrkdwn", "text": "*Machine*\nt3.medium, 30 GiB disk"}]
    shown = slackblocks.show({"blocks": [{"type": "section", "fields": fields}]})
    assert shown == "<dl><dt><b>Machine</b></dt><dd>t3.medium, 30 GiB disk</dd></dl>"


def test_what_slack_escapes_is_text_and_not_markup() -> None:
    shown = slackblocks.show(section("&lt;b&gt; &amp;amp; &lt;https://evil.example|here&gt;"))
    assert shown == "<p>&lt;b&gt; &amp;amp; &lt;https://evil.example|here&gt;</p>"


def test_markup_that_is_not_slacks_is_text() -> None:
    for hostile in ('<script>alert(1)</script>"', "<javascript:alert(1)|here>", '<https://a"onclick="x|y>'):
        shown = slackblocks.show(section(hostile))
        assert "<script" not in shown
        assert 'href="javascript' not in shown
        assert 'onclick="' not in shown


def test_without_blocks_the_text_is_shown() -> None:
    assert slackblocks.show({"text": "a < b"}) == "<p>a &lt; b</p>"
