"""The picture that the demo shows of our own HTML is the one that Telegram's parser makes, which TDLib carries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge import verdict

from chatwoot_relay.faketelegram import shown
from chatwoot_relay.markup import Html, escape

TDLIB_NAMES = {"Bold": "bold", "Code": "code", "TextUrl": "text_link"}


def judged(html: str) -> tuple[str, list[tuple[Any, ...]]]:
    """The text, and its marks: kind, offset, length, and whether it leads anywhere."""
    answer = verdict(html)
    kinds = [entity["type"] for entity in answer["entities"]]
    names = [TDLIB_NAMES[kind["@type"].removeprefix("textEntityType")] for kind in kinds]
    places = [(entity["offset"], entity["length"]) for entity in answer["entities"]]
    return answer["text"], [(n, *p, bool(k.get("url"))) for n, p, k in zip(names, places, kinds, strict=True)]


def ours(html: str) -> tuple[str, list[tuple[Any, ...]]]:
    text, entities = shown(html)
    marks = [(e.type, e.offset, e.length, bool(e.url)) for e in entities if e.type in TDLIB_NAMES.values()]
    return text, marks


VALUES = st.text(
    st.sampled_from("a 😀<>&\"'é\n\u2060") | st.characters(exclude_categories=["C"], exclude_characters="[")
)
TEMPLATES = ["{x}", "<b>{x}</b>", "<code>{x}</code>", '<a href="http://x.de/{x}">{x}</a>']
OWN = st.lists(
    st.builds(lambda template, x: Html(template.format(x=escape(x))), st.sampled_from(TEMPLATES), VALUES), max_size=5
)


@given(OWN.map("".join))
def test_what_we_write_is_shown_as_telegram_shows_it(html: Html) -> None:
    """Values are anything; offsets in UTF-16 units are where a parser goes wrong."""
    assert ours(html) == judged(html)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.b", "HTTP://Ex.Com/Y?a=b#c", "http://1.2.3.4:80/x", "http://localhost/", "http://localhost:3000/a.b",
        "http://[::1]/", "http://u:p@ex.com", "http://ex.com?x",
        "https://app.chatwoot.com/app/accounts/1/conversations/12345",
    ],
)  # fmt: skip
def test_a_link_is_live_exactly_where_telegram_makes_it_so(url: str) -> None:
    """A link to a host without a dot is dropped in silence by Telegram; the demo must show that."""
    html = Html(f'<a href="{escape(url)}">y</a>')
    assert ours(html) == judged(html)
