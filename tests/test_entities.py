"""Our reading of Telegram's HTML agrees with Telegram's own parser, which TDLib carries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tdjson import td_execute

from chatwoot_relay.entities import Unparsable, checked_link, parse_html, utf16_length

TDLIB_NAMES = {
    "Bold": "bold",
    "Italic": "italic",
    "Underline": "underline",
    "Strikethrough": "strikethrough",
    "Spoiler": "spoiler",
    "BlockQuote": "blockquote",
    "ExpandableBlockQuote": "expandable_blockquote",
    "Code": "code",
    "Pre": "pre",
    "PreCode": "pre",
    "TextUrl": "text_link",
}


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
        name = TDLIB_NAMES[kind["@type"].removeprefix("textEntityType")]
        found.append((name, entity["offset"], entity["length"], kind.get("url"), kind.get("language")))
    return answer["text"], sorted(found, key=str)


def ours(html: str) -> tuple[str, list[tuple[Any, ...]]] | None:
    try:
        text, entities = parse_html(html)
    except Unparsable:
        return None
    return text, sorted(
        (
            (e.type, e.offset, e.length, e.url, e.language if e.type == "pre" else None)  # a plain code has none there
            for e in entities
        ),
        key=str,
    )


FORMS = [
    "plain", "", "<b>x</b>", "<b>x<i>y</i></b>z", "<b>x<b>y</b></b>", "<code>a<b>c</b>d</code>", "<pre>x</pre>",
    '<pre><code class="language-py">x</code></pre>', "<code class='language-py'><pre>x</pre></code>",
    "<pre><code class='language-py'>x</code>y</pre>", '<code class="language-py">x</code>', "<pre><code>x</code></pre>",
    "a < b", "a &lt b &apos; &nbsp; &#x41;&#66 &#0;", "&#xD800;", "&#x10ffff;x", "&#x10fffe;", "&#000000065;", "&&lt;",
    "<a>ex.com</a>", "<a href=ex.com>x</a>", "<a href='tel'>x</a>", "<B>x</b>", "<b >x</b >", "<b>x</>", "<b/>", "<br>",
    "<b a>x</b>", "<b a=1 c='2'>x</b>", "<b a=1_>x</b>", "<b =>x</b>", "<span class='tg-spoiler'>x</span>",
    "<span>x</span>", "<span class=tg-spoiler>x</span>", "<blockquote expandable>x</blockquote>", "<b></b>x", "<b>x",
    "<blockquote expandable=''>x</blockquote>", "x</b>", "<b>x</i></b>", "<b", "<", "</", "</b", "<b>x</b", "<b a='x",
    "<b a", "<b a=", "😀<b>x😀</b>", "  <b> x </b> ", "<i>a</i><i>b</i>", "<b>a<i>b</b>c</i>", "<b HREF='q.de'>x</b>",
    "<a HREF='q.de'>x</a>", "<a href='q.de' href='r.de'>x</a>", "a\r\nb<b>c</b>", "<tg-spoiler>x</tg-spoiler>",
    "<b>x<blockquote>y</blockquote></b>", "<a href='a.de'>x<code>y</code>z</a>", "a > b & c \" d ' e", "<b a'b'>x</b>",
]  # fmt: skip


@pytest.mark.parametrize("html", FORMS)
def test_every_known_form_is_read_as_telegram_reads_it(html: str) -> None:
    """These are the corners of the grammar; a wrong one would show a picture that no chat shows."""
    assert ours(html) == judge(html)


TAGS = ["b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "tg-spoiler", "blockquote"]
PIECES = [
    *(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), "<a href='https://ex.de/p?q=1&amp;r'>", "</a>",
    '<span class="tg-spoiler">', "</span>", "<code class='language-c'>", "<", ">", "&", ";", "&lt;", "&gt", "&#",
    "&#x1F600;", "&amp;lt;", "=", "'", '"', "/", " ", "\n", "a", "é", "😀", "e\u0301", "\u2060", "x.de", "language-",
    "class", "href", "1", "_",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_whatever_comes_is_read_as_telegram_reads_it(html: str) -> None:
    """Customers write anything; demo, `render` and the tests may not be kinder or harsher than Telegram."""
    assert ours(html) == judge(html)


BALANCED = st.recursive(
    st.sampled_from(["a", "😀", " ", "&lt;b&gt;", "é", "\n"]),
    lambda inner: st.builds(
        lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag.split()[0]}>",
        st.sampled_from(
            ["b", "i", "u", "s", "code", "pre", "blockquote", "a href='http://x.de'", "code class='language-c'"]
        ),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


@given(st.lists(BALANCED, max_size=4).map("".join))
def test_nested_markup_gives_the_same_entities_as_telegram(html: str) -> None:
    """Offsets in UTF-16 units and the pairing of pre with code are where a parser goes wrong."""
    assert ours(html) == judge(html)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.b", "HTTP://Ex.Com/Y?a=b#c", "1.2.3.4:80", "http://localhost/", "http://[::1]/", "http://a.b/ü x",
        "javascript:alert(1)", "http://u:p@ex.com", "http://ex.com:99999", "http://a_b.com", "ftp://ex.com", "//ex.com",
        "http://ex.com?x", "https://", "", "https://app.chatwoot.com/app/accounts/1/conversations/12345",
    ],
)  # fmt: skip
def test_a_link_is_live_exactly_where_telegram_makes_it_so(url: str) -> None:
    """A bad link is dropped in silence by Telegram; the demo and `render` must show that."""
    judged = judge(f'<a href="{url}">\u00a0</a>')
    assert judged is not None
    assert checked_link(url) == next((found[3] for found in judged[1]), None)


def test_length_counts_as_telegram_counts() -> None:
    """An emoji is two units in every offset of the Bot API."""
    assert utf16_length("a😀") == 3
