"""The documentation is true: what it lists is what there is, and its links lead somewhere."""

from __future__ import annotations

import configparser
import re
import textwrap
from pathlib import Path

import click
import pytest

from chatwoot_relay import settings
from chatwoot_relay.cli import main

HOME = Path(__file__).parent.parent
PAGES = sorted([*HOME.glob("*.md"), *HOME.glob("docs/**/*.md")])
TEXTS = {str(page.relative_to(HOME)): page.read_text() for page in PAGES}
README = TEXTS["README.md"]


def outside_of_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(text: str) -> set[str]:
    """The headings of a page as a forge makes links of them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table() -> str:
    """A Markdown table of all settings."""
    told = "| name | default | meaning |\n|---|---|---|\n"
    for name, default, meaning in settings.ROWS:
        shown = default if default == "required" or "`" in default else f"`{default}`" if default else "–"
        told += f"| `{name}` | {shown} | {meaning} |\n"
    return told


def env_example() -> str:
    """An ``.env`` to copy: every setting with its meaning; those that are not required stay commented out."""
    told = []
    for name, default, meaning in settings.ROWS:
        told += textwrap.wrap(meaning.replace("`", ""), 100, initial_indent="# ", subsequent_indent="# ")
        told += [f"{name}=\n" if default == "required" else f"#{name}={'' if '`' in default else default}\n"]
    return "\n".join(told)


def test_the_readme_lists_every_setting_as_it_is() -> None:
    """The table is made from the declaration; by hand it would be wrong within a month."""
    assert README.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0] == table()


def test_the_example_of_an_env_file_is_as_it_is() -> None:
    """People copy it."""
    assert (HOME / ".env.example").read_text() == env_example()


def test_the_example_of_an_env_file_loads_once_its_gaps_are_filled(tmp_path: Path) -> None:
    """It is copied, filled in and must work; uncommenting a default changes nothing."""
    filled = env_example().replace("BOT_TOKEN=\n", "BOT_TOKEN=123:abc\n").replace("CHAT_ID=\n", "CHAT_ID=-1001\n")
    (tmp_path / ".env").write_text(filled)
    plain = settings.load({}, directory=tmp_path)
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z_]+=)", "", filled, flags=re.MULTILINE))
    assert settings.load({}, directory=tmp_path) == plain


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_between_pages_leads_somewhere(page: str) -> None:
    """To a file that is there, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_of_code(TEXTS[page])):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (HOME / page).parent / path if path else HOME / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_that_is_named_exists(page: str) -> None:
    """A command that is not there is the first thing that a new user sees."""
    assert isinstance(main, click.Group)
    for first, second in re.findall(r"\bchatwoot-relay (?:-\S+ )*([a-z]+)(?: ([a-z]+))?\b", TEXTS[page]):
        within_code = re.search(rf"`[^`]*chatwoot-relay {first}|^ *\S*chatwoot-relay {first}", TEXTS[page], flags=re.M)
        if not within_code or first in ("is", "and", "does", "on", "runs", "service", "package"):
            continue
        command = main.commands.get(first)
        assert command is not None, (page, first)
        if isinstance(command, click.Group) and second:
            assert second in command.commands, (page, first, second)


def test_the_readme_lists_every_command() -> None:
    """What is not listed is not found."""
    assert isinstance(main, click.Group)
    assert set(re.findall(r"^\| `chatwoot-relay ([a-z]+)", README, flags=re.M)) == set(main.commands)


def test_the_floors_are_told_as_they_are() -> None:
    """A map that puts a module on another floor is worse than none."""
    read = configparser.ConfigParser()
    read.read(HOME / "setup.cfg")
    layers = read["importlinter:contract:floors"]["layers"].strip().splitlines()
    table = TEXTS["docs/architecture.md"].split("| floor | modules |")[1].split("\n\n")[0].splitlines()[2:]
    assert [re.findall(r"`(\w+)`", row.split("|")[2]) for row in table] == [re.findall(r"\w+", row) for row in layers]


def test_the_decisions_are_numbered_short_and_whole() -> None:
    """Context, decision, price, and when to think again; a page nobody finishes records nothing."""
    pages = sorted((HOME / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {int(page.name[:4])}. "), page
        assert re.findall(r"^\*\*(\w+)", text, flags=re.M) == ["Context", "Decision", "Price", "Revisit"], page
        assert len(text.splitlines()) <= 25, page


def test_every_variable_that_is_named_exists() -> None:
    """A mistyped name in a guide sets nothing and says nothing."""
    known = {*settings.NAMES, *(f"{name}_FILE" for name in settings.NAMES), "RELAY_URL"}  # the last is the bot's own
    for page, text in TEXTS.items():
        named = set(re.findall(r"(?<![\w.-])(?:RELAY|TELEGRAM|CHATWOOT)_[A-Z_]*[A-Z](?![\w*…])", text))
        assert named <= known, (page, named - known)
