"""Our reading of our own HTML agrees with Telegram's parser, which TDLib carries, and is never kinder."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tdjson import td_execute

from chatwoot_relay.faketelegram import Complaint, checked_link, parse_html
from chatwoot_relay.markup import Html, escape

TDLIB_NAMES = {"Bold": "bold", "Code": "code", "TextUrl": "text_link"}

td_execute(b'{"@type": "setLogVerbosityLevel", "new_verbosity_level": 0}')


def judge(html: str) -> tuple[str, list[tuple[Any, ...]]] | None:
    """What Telegram's parser makes of *html*; None where it refuses."""
    question = {"@type": "parseTextEntities", "text": html, "parse_mode": {"@type": "textParseModeHTML"}}
    answer = json.loads(td_execute(json.dumps(question).encode()))
    if answer["@type"] == "error":
        return None
    found = []
    for entity in answer["entities"]:
        kind = entity["type"]
        name = kind["@type"].removeprefix("textEntityType")
        found.append((TDLIB_NAMES.get(name, name), entity["offset"], entity["length"], kind.get("url")))
    return answer["text"], found


def ours(html: str) -> tuple[str, list[tuple[Any, ...]]] | None:
    try:
        text, entities = parse_html(html)
    except Complaint:
        return None
    return text, [(e.type, e.offset, e.length, e.url) for e in entities]


VALUES = st.text(
    st.sampled_from("a 😀<>&\"'é\n\u2060") | st.characters(exclude_categories=["C"], exclude_characters="[")
)
TEMPLATES = ["{x}", "<b>{x}</b>", "<code>{x}</code>", '<a href="http://x.de/{x}">{x}</a>', '<a href="{x}">y</a>']
OWN = st.lists(
    st.builds(lambda template, x: Html(template.format(x=escape(x))), st.sampled_from(TEMPLATES), VALUES), max_size=5
)


@given(OWN.map("".join))
def test_what_we_write_is_read_as_telegram_reads_it(html: Html) -> None:
    """Values are anything; offsets in UTF-16 units and dead links are where a parser goes wrong."""
    assert ours(html) == judge(html) != None  # noqa: E711


PIECES = [
    "<b>", "</b>", "<code>", "</code>", "<a href='https://ex.de/p?q=1&amp;r'>", '<a href="https://ex.de/p?q=1&amp;r">',
    "<a>", "</a>", "<b/>", "<i>", "</i>", "<", ">", "&", ";", "&lt;", "&gt", "&#", "&#x1F600;", "&#x27;", "&amp;lt;",
    "&apos;", "=", "'", '"', "/", " ", "\n", "a", "é", "😀", "e\u0301", "\u2060", "x.de", "href", "1", "_", "</",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_whatever_comes_it_is_never_kinder_than_telegram(html: str) -> None:
    """A fake that takes what Telegram refuses, or shows another picture, hides the relay's mistakes."""
    assert ours(html) in (None, judge(html))


@pytest.mark.parametrize(
    "html", ["a < b", "<b>x", "x</b>", "<b>x</i>", "<br>", "<b><b>x</b></b>", "&nbsp;", "&", "\ud800"]
)
def test_what_is_not_ours_is_refused(html: str) -> None:
    """A value that nobody escaped is found out."""
    with pytest.raises(Complaint, match="can't parse entities"):
        parse_html(html)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.b", "HTTP://Ex.Com/Y?a=b#c", "1.2.3.4:80", "http://localhost/", "http://[::1]/", "http://a.b/ü x",
        "javascript:alert(1)", "http://u:p@ex.com", "http://ex.com:99999", "http://a_b.com", "ftp://ex.com", "//ex.com",
        "http://ex.com?x", "https://", "", "a.", "..", "a<b.c", " a.b", "a.b/ ", "É.de", "%@a.b", "a b.c", "https://app.chatwoot.com/app/accounts/1/conversations/12345",
    ],
)  # fmt: skip
def test_a_link_is_live_exactly_where_telegram_makes_it_so(url: str) -> None:
    """A bad link is dropped in silence by Telegram; the demo must show that."""
    judged = judge(Html(f'<a href="{escape(url)}">\u00a0</a>'))
    assert judged is not None
    assert checked_link(url) == next((found[3] for found in judged[1]), None)
