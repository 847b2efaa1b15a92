"""The command line: reads settings, runs a command, says what went wrong and with which exit code."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import click

from . import __version__, chatwoot, control, door, notices, routing
from .clock import Clock
from .errors import ConfigurationError, Refused, RelayError
from .markup import text_of
from .openapi import openapi
from .render import Links, render, trim
from .server import run
from .settings import Settings, help_text, load, unknown
from .telemetry import is_journal, set_up_logs

click.UsageError.exit_code = 1  # 2 has no meaning of its own here
as_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


class Group(click.Group):
    """Turns every failure into words and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read has read enough, which click keeps quiet about
        except (RelayError, OSError, sqlite3.Error) as error:
            level = "<3>" if is_journal(sys.stderr.buffer, os.environ.get("JOURNAL_STREAM", "")) else ""
            for complaint in getattr(error, "complaints", (error,)):
                click.echo(f"{level}chatwoot-relay: {complaint}", err=True)
            ctx.exit(getattr(error, "exit_code", 1))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="chatwoot-relay")
def main() -> None:
    """No customer who needs a human is ever missed.

    Takes alerts and Chatwoot's webhooks, has each on disk before it says yes, and tells your team's Telegram chat.

    See it work, without a token:  chatwoot-relay demo
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our signs


@main.command(epilog="\b\n" + help_text())
def serve() -> None:
    """Run the service. Its settings are environment variables or lines of .env, listed below."""
    for warning in unknown(os.environ, directory=Path.cwd()):  # first, for it is why another is missing
        click.echo(f"chatwoot-relay: warning: {warning}", err=True)
    settings = load(os.environ, directory=Path.cwd())
    secrets = [settings.telegram_bot_token, *settings.chatwoot_webhook_secret, settings.relay_token]
    set_up_logs(
        level=settings.relay_log_level,
        form=settings.relay_log_format,
        secrets=[secret.reveal() for secret in secrets if secret is not None],
    )
    asyncio.run(run(settings))


@main.command()
def demo() -> None:
    """Run all of it without a token, on a Telegram built in. A page shows the chat.

    Of all settings only RELAY_HOST and RELAY_PORT count. Ctrl+C ends it, and nothing is kept.
    """
    from .demo import run_demo  # its page and its Telegram are no part of the service

    run_demo(os.environ)


@main.command()
@click.option("--send", is_flag=True, help="Prove it with a silent message, deleted again.")
@as_json_option
def doctor(send: bool, as_json: bool) -> None:
    """Check everything, and say what to do about what is wrong.

    Settings, token, chat, thread, rights, outbox, secrets, clock and the base of links.
    """
    from .doctor import examine, report

    findings = asyncio.run(examine(os.environ, directory=Path.cwd(), send=send, now=Clock().wall()))
    well = all(finding.verdict != "fail" for finding in findings)  # a warning is no failure
    if as_json:
        click.echo(json.dumps({"ok": well, "checks": [attrs.asdict(finding) for finding in findings]}, indent=2))
    else:
        width = min(100, max(40, shutil.get_terminal_size().columns))
        fancy = "utf" in (sys.stdout.encoding or "").lower()
        click.echo(report(findings, width=width, fancy=fancy), color=False if os.environ.get("NO_COLOR") else None)
    sys.exit(0 if well else 1)


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask before asking Telegram.")
def chats(yes: bool) -> None:
    """List the chats and topics that the bot has seen, ready to paste."""
    from .chats import find, open_bot, report

    settings = load(os.environ, directory=Path.cwd(), only={"telegram_bot_token", "telegram_api_url"})

    def confirm(question: str) -> bool:
        """Ask who typed the command. Where nobody can answer, it is no."""
        with contextlib.suppress(click.Abort):
            return yes or click.confirm(question, default=False, err=True)
        return False

    async def look() -> list[Any]:
        async with open_bot(settings) as bot:
            return await find(bot, confirm=confirm)

    click.echo(report(asyncio.run(look())))


@main.group()
def outbox() -> None:
    """See what is owed, told or dead; send dead letters again. Also while the service runs."""


@outbox.command("list")
@click.option("--state", type=click.Choice(["pending", "sent", "dead"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json_option
def list_(state: str | None, limit: int, as_json: bool) -> None:
    """The newest deliveries, and how many there are of each state. Times are UTC."""
    rows, tally = _perform("list", state=state, limit=limit), _perform("tally")
    if as_json:
        click.echo(json.dumps({"tally": tally, "deliveries": rows}))
        return
    click.echo("  ".join(f"{tally[name]} {name}" for name in ("pending", "sending", "sent", "dead")))
    for row in rows:
        when = _time(row["accepted_at"])[:19].replace("T", " ")
        why = f"  {row['reason']}" if row["reason"] and row["state"] != "sent" else ""
        about = f"#{row['conversation']}" if row["conversation"].isdigit() else row["conversation"]
        click.echo(f"{row['id']}  {row['state']:<8}{when}  {about:<11}{why}"[:200])
    if not rows:
        click.echo("Nothing here." if state is None else f"Nothing is {state}.")


@outbox.command()
@click.argument("id")
def show(id: str) -> None:
    """One delivery whole: its content and what happened to it. This shows the customer's words. Times are UTC."""
    row = _perform("show", id=id)
    if row is None:
        raise RelayError(f"no delivery {id}; chatwoot-relay outbox list shows the ids")
    row["accepted_at"] = _time(row["accepted_at"])
    row["history"] = [[_time(at), *happened] for at, *happened in row["history"]]
    click.echo(json.dumps(row, indent=2, ensure_ascii=False))


@outbox.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def redrive(ids: tuple[str, ...], everything: bool) -> None:
    """Send dead letters again."""
    if bool(ids) == everything:
        raise click.UsageError("name deliveries, or --all")
    redriven = _perform("redrive", ids=None if everything else list(dict.fromkeys(ids)))
    click.echo(f"{len(redriven)} will be sent again.")
    if missing := sorted(set(ids) - set(redriven)):
        raise RelayError(f"not a dead letter: {', '.join(missing)}; chatwoot-relay outbox list --state dead has them")


@main.command("render")
@click.argument("file", type=click.File("rb"))
@click.option("--html", "as_html", is_flag=True, help="The markup that is sent.")
def render_(file: Any, as_html: bool) -> None:
    """Show what Telegram would show of a payload.

    FILE holds an alert or a Chatwoot event; - is standard input. Links are made as the service makes them.
    """
    settings = Settings()
    with contextlib.suppress(ConfigurationError):  # it needs none
        settings = load(os.environ, directory=Path.cwd(), only={"chatwoot_url", "chatwoot_account_id", "relay_events"})
    base, account = settings.chatwoot_url, settings.chatwoot_account_id
    try:
        document = door.parse(file.read())
        if isinstance(document, dict) and isinstance(document.get("event"), str) and "severity" not in document:
            event = chatwoot.read_event(document, base_url=base, account_id=account)
            decision = routing.decide(event, None, events=frozenset({"all"}), now=0.0)
            if decision.what is None:
                click.echo(f"Nothing would be told: {decision.ignored}.")
                return
            if by_itself := routing.decide(event, None, events=settings.relay_events, now=0.0).ignored:
                click.echo(f"Shown all the same; by itself it would not be told ({by_itself}).", err=True)
            content: Any = notices.word(event, decision)
        else:
            content = trim(door.read_alert(document))
    except Refused as refused:
        for error in refused.errors:
            click.echo(f"{error.path}: {error.message}", err=True)
        cause = refused.__context__  # the reader's own complaint knows the place
        place = f", line {cause.lineno}, column {cause.colno}" if isinstance(cause, json.JSONDecodeError) else ""
        raise RelayError(f"{getattr(file, 'name', '-')}{place}: {refused.detail}") from None
    html = render(content, links=Links(base=base, account=account))
    click.echo(html if as_html else text_of(html))


@main.command("openapi")
def openapi_() -> None:
    """Print the OpenAPI 3.1 document."""
    click.echo(json.dumps(openapi(), indent=2, ensure_ascii=False))


# --- what commands share ---


def _perform(verb: str, **args: Any) -> Any:
    database = load(os.environ, directory=Path.cwd(), only={"relay_database"}).relay_database
    if not database.exists():
        raise RelayError(f"no outbox at {database}; set RELAY_DATABASE as the service has it")
    return asyncio.run(control.perform(database, verb, **args))


def _time(seconds: float) -> str:
    """ISO 8601, for people."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
