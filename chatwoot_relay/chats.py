"""What a bot has seen of chats and topics, for who looks for an id. Ends no other program's poll unasked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import attrs

from .errors import RelayError
from .settings import Settings
from .telegram import Answer, Telegram, open_session

PATIENCE = 10.0  # seconds for one answer
PAGES = (100, 20, 4)  # updates asked for at once; fewer where so many are more than is read of an answer
QUESTION = """\
Nothing waits for this bot at Telegram: nobody wrote where it can see it, or another
program reads it. Asking for more would end that program's poll. Ask all the same?"""
NOTHING = """\
{said} Let it see a chat, then ask again:
  group    add @{name}, and write there: /start@{name}
           (anything else stays hidden from it by privacy mode)
  topic    write the same in the topic
  channel  make it an administrator, and post something
  person   open https://t.me/{name} and press Start"""


class Unusable(RelayError):
    """Telegram could not be asked; the words say why and what to do."""


class Busy(Unusable):
    """Not now."""


@attrs.frozen
class Reply:
    """What Telegram says to a question."""

    status: int
    body: Mapping[str, Any]
    date: str

    @property
    def result(self) -> Any:
        """What was asked for, an object or a list, or None where Telegram refuses."""
        result = self.body.get("result")
        return result if self.body.get("ok") is True and isinstance(result, dict | list) else None

    @property
    def words(self) -> str:
        """Why it refuses."""
        words = str(self.body.get("description") or "")
        return printable(words.removeprefix("Bad Request: ").removeprefix("Forbidden: ")) or f"HTTP {self.status}"


class Bot(Telegram):
    """Telegram, asked by a person who waits."""

    async def ask(self, method: str, **payload: Any) -> Reply:
        """Telegram's reply. Raises Unusable where none came, or one that says nothing of what was asked."""
        answer = await self.call(method, payload, timeout=PATIENCE)
        if not isinstance(answer, Answer):
            raise Unusable(f"Telegram does not answer ({answer.reason})")
        if answer.body is None:
            raise Unusable(f"Telegram does not answer (HTTP {answer.status} without JSON)")
        reply = Reply(answer.status, answer.body, answer.headers.get("Date", ""))
        if reply.status == 429:
            raise Busy(f"Telegram asks us to wait ({reply.words})")
        if reply.status >= 500:
            raise Unusable(f"Telegram does not answer ({reply.words})")
        return reply


@contextlib.asynccontextmanager
async def open_bot(settings: Settings) -> AsyncIterator[Bot]:
    async with open_session() as session:
        yield Bot(session, api_url=settings.telegram_api_url, token=settings.telegram_bot_token.reveal())


def printable(text: str) -> str:
    """Names of chats come from outside: they must not steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:200]


def title(chat: Mapping[str, Any]) -> str:
    return printable(str(chat.get("title") or chat.get("first_name") or chat.get("username") or chat.get("id")))


@attrs.frozen(kw_only=True)
class Place:
    """Where an alert could go."""

    chat_id: int
    title: str
    kind: str  # Telegram's word: private, group, supergroup, channel
    thread_id: int | None = None
    topic: str = ""


async def find(bot: Bot, *, confirm: Callable[[str], bool]) -> list[Place]:
    """The chats and topics in what Telegram keeps for the bot. Confirms nothing, so that its reader misses nothing.

    Raises Unusable, with what to do, where there is nothing to see.
    """
    me = (await bot.ask("getMe")).result
    if me is None:
        raise Unusable("Telegram refuses the token: copy it whole from @BotFather (/mybots).")
    name = printable(str(me.get("username")))
    hook = (await bot.ask("getWebhookInfo")).result or {}
    if hook.get("url"):
        raise Unusable(
            f"Another program has a webhook on @{name}, and sees alone what is written to it.\n"
            "Make a bot of its own for alerts: /newbot at @BotFather."
        )
    said, places = "Telegram was not asked (--yes asks).", list[Place]()
    if hook.get("pending_update_count") or confirm(QUESTION):
        said, places = f"@{name} has seen no chat since yesterday.", gather(await updates(bot))
    if not places:
        raise Unusable(NOTHING.format(said=said, name=name))
    return places


async def updates(bot: Bot) -> list[Any]:
    """What waits for the bot. Without an offset nothing is confirmed, without allowed_updates nothing is changed."""
    for limit in PAGES:
        with contextlib.suppress(Unusable):
            reply = await bot.ask("getUpdates", limit=limit)
            if isinstance(reply.result, list):
                return reply.result
            if reply.status == 409:
                break
    else:
        raise Unusable("Telegram does not say what the bot has seen. Try again in a minute.")
    raise Unusable("Another program polls this bot: stop it for a moment, or make a bot of its own for alerts.")


def gather(found: Iterable[Any]) -> list[Place]:
    """Every chat and topic of a message, or of a change of membership, in the updates."""
    places: dict[tuple[int, int], Place] = {}
    for part in (part for update in found if isinstance(update, dict) for part in update.values()):
        chat = part.get("chat") if isinstance(part, dict) else None
        if not isinstance(chat, dict) or not isinstance(chat.get("id"), int):
            continue
        place = Place(chat_id=chat["id"], title=title(chat), kind=printable(str(chat.get("type"))))
        places[place.chat_id, 0] = place
        if part.get("is_topic_message") and isinstance(thread := part.get("message_thread_id"), int):
            made = part.get("forum_topic_created") or (part.get("reply_to_message") or {}).get("forum_topic_created")
            topic = printable(str((made or {}).get("name") or ""))
            if topic or (place.chat_id, thread) not in places:
                places[place.chat_id, thread] = attrs.evolve(place, thread_id=thread, topic=topic)
    return [places[key] for key in sorted(places)]


def report(places: Iterable[Place]) -> str:
    """Ready to paste into an environment file."""
    told = ""
    for place in places:
        topic = "" if place.thread_id is None else f", topic {place.topic or place.thread_id}"
        told += f"# {place.title} ({place.kind}){topic}\nTELEGRAM_CHAT_ID={place.chat_id}\n"
        told += "\n" if place.thread_id is None else f"TELEGRAM_THREAD_ID={place.thread_id}\n\n"
    return told.rstrip()
