"""Text from outside becomes markup that Telegram parses, that fits, and that calls nobody; TDLib is the judge."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from judge import live, parsed

from chatwoot_relay import markup
from chatwoot_relay.markup import _LIVE, Html, block, clean, cut, escape, guard, line, plain, short, short_line, units

JOINER = "\u2060"
CALLS = ("Mention", "BotCommand", "Hashtag")


def calls(text: str) -> list[str]:
    """What in a text would call a member, a bot or a search."""
    return [words for kind, words in live(text) if kind in CALLS]


# --- guard ---

WORDS = st.sampled_from([
    "\u0d82", "\u0d9a", "рф", "x_y.", "tg://", "ton://", "tonsite://", "$", "(https://",
    "@", "/", "#", "name", "abcd", "a", "1", "12345", "é", "½", "_", "-", ".", ",", ":", ";", "!", " ", "\n", "(", ")",
    "[", "]", "{", "}", "<", ">", '"', "'", "«", "…", "·", "\u200c", "\u0301", "日本", "http://", "https://", "ftp://",
    "HTTPS://", "ex.com", "a.b", "foo.xx", "www.", "t.me", "youtube.com/@chan", "localhost", "1.2.3.4", ":80", ":99999",
    "?q=", "&", "=", "%20", "~", "+", "*", "|", "\\", "$", "user@", "tg://", "😀", "x" * 33, "y" * 64, "gif", "and/or",
])  # fmt: skip
PLAIN_WORDS = st.sampled_from([
    "@", "@name", "@ab", "@abc", "@1234", "/", "/cmd", "/cmd@bot", "/cmd@ab", "#", "#tag", "#12", "#a#b", "#tag@name",
    "a", "é", "½", "_", "·", ",", "!", "(", ")", "<", ">", " ", "\n", "7", "and/or", "C#", "-", "日本", "\u200c",
    "@" + "b" * 33, "\u0d82", "\u0d9a",
])  # fmt: skip


@given(st.lists(WORDS, max_size=9).map("".join))
@example("http://1.2.3.299/@name1")
@example("ex.com/;(ex.com#@name1")
@example("http://ex.com/)@name1")
@example("y" * 64 + "outube.com/@name1")
@example("www.\u200c?q=http://ex.com/@name1")
@example(".https://ex.com/@name1")
@example("https://" + "п" * 32 + ".com/@name1")
@example("http://пример.user:pw@ex.example/@name1")
@example("tg://https://ex.com/@name1")
@example("see tonsite://http://ex.com/#tag")
@example("$HTTPS://12345ex.com/HTTPS://-a.'/cmd")
@example("#tag·@name1#tag")
@example("#tag\u0d82@name1#tag")
@example("https://\u09671.1.1.1/#tag")
def test_whatever_is_written_calls_nobody(text: str) -> None:
    """A stranger must not be able to ring a team's members or bots, whatever stands around the name."""
    guarded = guard(text)
    assert calls(guarded) == []
    assert guarded.replace(JOINER, "") == text
    assert calls(text) or "://" in text or "." in text or guarded == text


@pytest.mark.parametrize(
    "text",
    [
        "@name https://" + "a." * 240, "@name " + "http://" * 70, "@name https://" + "a" * 480, "#" + "1" * 490,
        "@name https://" + "a_-" * 160, "@name https://" + "п." * 240, "@name https://" + "a@" * 240, "/@" * 250,
        "see https://www.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z and ask @anna",
    ],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """A pattern that tries again and again would stop everything for a hundred characters; it is given up then."""
    assert _LIVE.search(text, timeout=1.0) or True  # raises TimeoutError
    assert calls(guard(text)) == []


@given(st.lists(PLAIN_WORDS, max_size=8).map("".join))
def test_the_joiner_stands_exactly_where_telegram_finds_a_call(text: str) -> None:
    """One more is a letter that the customer did not write; one less is a ping."""
    more = len(re.findall("[·\u200c\u0d82]@", text))  # a broken name there makes a tag of what stands before it
    assert 0 <= guard(text).count(JOINER) - len(calls(text)) <= more


@pytest.mark.parametrize(
    "text",
    [
        "jane.doe@example.com", "and/or 1/2 24/7", "C# F#", "#12345", "a @ b # c / d", "@ab", "email@", "x@y",
        "https://example.com/@jane/#top?x=/y&z=#a", "http://ex.com:8080/#/inbox", "youtube.com/@channel",
        "t.me/@jane/5", "(https://en.wikipedia.org/wiki/Foo_(bar)#History)", "http://10.0.0.1:3000/#login", "https://bücher.de/#tag",
        "[track it](https://shop.example.com/orders/#track)", "链接https://example.com/#abc", "link:https://ex.com/#abc",
        "https://пример.рф/#abc", "https://my_shop.example.com/#abc",
        "see https://app.chatwoot.com/app/accounts/1/conversations/2#message, thanks", "/path/to/file", "</b>", "",
    ],
)  # fmt: skip
def test_what_is_no_call_stays_as_it_was_written(text: str) -> None:
    """Addresses and links are copied; a sign nobody sees inside them breaks them."""
    assert guard(text) == text
    assert calls(text) == []


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("@anna", "@!anna"),
        ("(@anna) /start@help_bot #urgent", "(@!anna) /!start@help_bot #!urgent"),
        ("#12345a", "#!12345a"),
        ("#\u0d82\u0d9a #\u0dcaword a\u0dcf#tag", "#!\u0d82\u0d9a #!\u0dcaword a\u0dcf#tag"),  # signs of Sinhala
        ("##tag", "##!tag"),
        ("@gif", "@!gif"),
        ("\u0345@alice\u0345", "\u0345@!alice\u0345"),  # a mark whose capital is a letter
        ("\u0345#tag /cmd\u0345", "\u0345#!tag /!cmd\u0345"),
        ("#\U00031350 #1\u1c89", "#!\U00031350 #!1\u1c89"),  # letters that are younger than Python 3.11
        ("5€/day", "5€/!day"),
        ("http://localhost/@anna", "http://localhost/@!anna"),
        ("https://ex.com)@anna", "https://ex.com)@!anna"),
        ("https://ex.com/@inner @outer", "https://ex.com/@inner @!outer"),
    ],
)
def test_a_call_is_broken_behind_its_sign(text: str, guarded: str) -> None:
    """There it is invisible and the words stay whole; outside of what Telegram takes as a link it goes in too."""
    assert guard(text) == guarded.replace("!", JOINER)


# --- clean and cut ---

NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\r\n\t\x00\x7f\x85\u2028\u202e\u2066\u200f\u061c\ud800\udfff\u0301\u0323\u200d👩👨🏽🇩🇪e각ก\u0e33\u0600"
        ),
    ),
    max_size=80,
)


def graphemes_of(text: str) -> list[str]:
    return markup.regex.findall(r"\X", text)


@given(NASTY, st.integers(1, 12))
@example("\u0600\nx", 1)
@example("a" + "\u0301" * 40, 5)
@example("🇩🇪🇩🇪", 3)
@example("ab\u0323\u0301c", 2)
def test_a_text_is_cut_at_its_limit_and_through_no_grapheme(text: str, limit: int) -> None:
    """Half an emoji is another emoji, and a mark without its letter lands on the next."""
    whole = unicodedata.normalize("NFC", clean(text))
    shown = short(text, limit)
    if len(whole) <= limit:
        assert shown == whole
        return
    kept = shown.removesuffix("…")
    assert len(kept) <= limit
    assert whole.startswith(kept)
    graphemes = graphemes_of(whole)
    if len(graphemes[0]) > limit:
        assert kept == whole[:limit]
    else:
        fitting = 0
        while len("".join(graphemes[: fitting + 1])) <= limit:
            fitting += 1
        assert kept == "".join(graphemes[:fitting])


@given(NASTY, st.integers(1, 12))
@example("\u0600\nx", 1)
@example(" x " + " " * 20 + "y", 3)
def test_what_was_cut_once_is_not_cut_again(text: str, limit: int) -> None:
    """What the outbox keeps is cut; rendering cuts it again and must not show less."""
    assert short(short(text, limit), limit) == short(text, limit)
    assert short_line(short_line(text, limit), limit) == short_line(text, limit)


@given(NASTY)
def test_a_clean_text_is_what_telegram_shows(text: str) -> None:
    """What Telegram would drop or turn round is gone before it is counted."""
    shown = short(text, 500)
    assert unicodedata.is_normalized("NFC", shown)
    assert not [sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cs") and sign != "\n"]
    assert not set(shown) & set("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert parsed(escape(shown)) == (shown, [])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("cafe\u0301", "café"),
        ("A\u030a", "Å"),
        ("e\u202e\u0301", "é"),
        ("a\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\ne"),
        ("a\tb\x00c\x85d", "a b c d"),
        ("\ud83d\ude00", "\ufffd\ufffd"),
        ("👨\u200d👩\u200d👧 \u0915\u094d\u200d\u0937", "👨\u200d👩\u200d👧 \u0915\u094d\u200d\u0937"),
    ],
)
def test_a_text_is_cleaned_and_its_language_kept(written: str, shown: str) -> None:
    """Controls, bidi and half characters go; joiners that write a family or a language stay."""
    assert short(written, 500) == shown


def test_a_line_has_no_break_and_no_edge() -> None:
    """A name with a line break in it would forge a labelled line."""
    assert line(" John\nEmail: x\r\n", 100) == "John Email: x"
    assert line("\u202e \n\t", 100) == ""
    assert line(" " * 5000 + "John", 100) == "John"


def test_a_block_keeps_its_lines() -> None:
    """What a customer wrote in paragraphs is read in paragraphs."""
    assert block("one\n\n  two", 100) == "one\n\n  two"


def test_a_hostile_run_of_marks_is_read_no_further_than_can_be_shown() -> None:
    """Normalising takes the square of a run's length: what is not shown must not be sorted."""
    run = "a" + "\u0301\u0323" * 500_000
    assert cut(run, 500) == cut(run[:3000], 500)
    assert len(clean(run)) == markup.READ
    assert len(short(run, 500)) == 501


@given(st.text(st.sampled_from("가각힣ệǖΐᾂשּׁ𝅘𝅥𝅮क़ﷺ€e\u0301"), min_size=1, max_size=4))
def test_four_decomposed_code_points_are_enough_for_one(piece: str) -> None:
    """The bound of what is read must hide no character that the limit has room for."""
    text = unicodedata.normalize("NFD", piece * 200)
    whole = unicodedata.normalize("NFC", text)
    kept = cut(text, 20).removesuffix("…")
    assert whole.startswith(kept)
    assert len(kept) > 20 - 4 * len(piece) or len(graphemes_of(whole)[0]) > 20


# --- markup ---


@given(st.text())
def test_escaped_text_is_shown_letter_for_letter(text: str) -> None:
    """No word of a customer may become markup."""
    text = markup.sane(text).replace("\r", "")
    assert parsed(f"<b>{escape(text)}</b>")[0] == text
    assert markup.text_of(escape(text)) == text


def test_a_brace_in_a_value_stays_text() -> None:
    """A value is never a template, and its tags are text."""
    assert line("{b} %s {0} <i>", 99) == block("{b} %s {0} <i>", 99) == "{b} %s {0} &lt;i&gt;"


@given(st.text())
def test_length_counts_utf_16_units(text: str) -> None:
    """Staying within 4096 of them satisfies every reading of Telegram's limit."""
    assert units(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2


def test_plain_text_writes_the_link_out() -> None:
    """Where markup cannot be parsed the way to the conversation must still be there."""
    url = escape("https://x.de/?a=1&b=2")
    linked = Html(f'<b>a &amp; b</b> {escape("<i>&lt;")} <a href="{url}">View</a>')
    assert plain(linked) == "a & b <i>&lt; View: https://x.de/?a=1&b=2"


def test_plain_text_leaves_a_link_out_that_has_no_room() -> None:
    """What was sent as markup fitted; its plain text has to fit as well."""
    linked = Html("x" * 4000 + '<a href="https://x.de/' + "y" * 100 + '">View</a>')
    assert plain(linked) == "x" * 4000 + "View"
