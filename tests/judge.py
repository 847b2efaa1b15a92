"""TDLib, Telegram's own library, as the judge of what a chat shows."""

from __future__ import annotations

import json
from typing import Any

from tdjson import td_execute

td_execute(b'{"@type": "setLogVerbosityLevel", "new_verbosity_level": 0}')


def parsed(html: str) -> tuple[str, list[tuple[str, str, str | None]]]:
    """The text that Telegram shows of *html*, and its marks: kind, the words marked, and where a link leads."""
    answer = verdict(html)
    assert answer["@type"] == "formattedText", (answer, html)
    return answer["text"], [(_kind(found), *_marked(answer["text"], found)) for found in answer["entities"]]


def verdict(html: str) -> dict[str, Any]:
    """TDLib's own answer: a formattedText, or an error."""
    return _ask({"@type": "parseTextEntities", "text": html, "parse_mode": {"@type": "textParseModeHTML"}})


def live(text: str) -> list[tuple[str, str]]:
    """What Telegram makes live in a text by itself: kind and words."""
    entities = _ask({"@type": "getTextEntities", "text": text})["entities"]
    return [(_kind(found), _marked(text, found)[0]) for found in entities]


def pings(text: str) -> list[tuple[str, str]]:
    """Who or what a text would call: members, bots, searches."""
    return [found for found in live(text) if found[0] in ("Mention", "BotCommand", "Hashtag", "Cashtag")]


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(td_execute(json.dumps(question).encode()))
    return answer


def _kind(entity: dict[str, Any]) -> str:
    return str(entity["type"]["@type"].removeprefix("textEntityType"))


def _marked(text: str, entity: dict[str, Any]) -> tuple[str, str | None]:
    """Telegram counts UTF-16 units."""
    units = text.encode("utf-16-le")
    begin, end = 2 * entity["offset"], 2 * (entity["offset"] + entity["length"])
    return units[begin:end].decode("utf-16-le"), entity["type"].get("url")
