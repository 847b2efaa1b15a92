"""The demo is the whole relay in a real process, and its page shows in a real browser what Telegram would show."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from browser import browser
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

import chatwoot_relay

STORY = 7  # messages; the customer's words to the bot are not told
REAL_TOKEN = "987654:a-real-one"
OLD = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # a machine whose own encoding is not UTF-8
HOSTILE = (
    "<img src=x onerror=document.title='gone'> </script><script>document.title='gone'</script> &amp; {b} \u202etxt"
)


@attrs.frozen
class Demo:
    process: subprocess.Popen[str]
    banner: str

    @property
    def url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+/(?=\n)", self.banner)
        assert found is not None
        return found[0]

    def messages(self, count: int) -> list[dict[str, Any]]:
        """The chat as the page is told of it, once it has so many messages."""
        with urllib.request.urlopen(f"{self.url}demo/chat", timeout=20) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    messages: list[dict[str, Any]] = json.loads(line.removeprefix(b"data: "))
                    if len(messages) >= count:
                        return messages
        raise AssertionError("the stream ended")

    def post(self, **alert: Any) -> dict[str, Any]:
        body = {"severity": "low", "reason": "R", "conversation_id": 1, "message": "m", **alert}
        request = urllib.request.Request(
            f"{self.url}api/v1/chatwoot/alerts", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


def paste(line: str) -> dict[str, Any]:
    """Run a curl line as a shell and curl would."""
    program, url, *options = shlex.split(line.replace("\\\n", ""))
    assert program == "curl"
    assert [options[0], options[2]] == ["-H", "-d"]
    name, value = options[1].split(": ")
    with urllib.request.urlopen(urllib.request.Request(url, options[3].encode(), {name: value}), timeout=20) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def start(folder: Path, **environ: str) -> subprocess.Popen[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    package = str(Path(chatwoot_relay.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "chatwoot_relay", "demo"],
        cwd=folder,
        env={**kept, **OLD, "PYTHONPATH": package, "RELAY_PORT": "0", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A demo beside a real token and a broken .env, neither of which is its business."""
    (tmp_path / ".env").write_text("RELAY_EVENTS=nonsense,\nTELEGRAM_CHAT_ID=7\n")
    process = start(
        tmp_path, TELEGRAM_BOT_TOKEN=REAL_TOKEN, RELAY_TOKEN="secret", RELAY_DATABASE=str(tmp_path / "my.db")
    )
    assert process.stdout is not None
    banner = ""
    while "Ctrl+C" not in banner:
        line = process.stdout.readline()
        assert line, process.communicate()
        banner += line
    yield Demo(process, banner)
    process.kill()
    process.communicate()


def test_it_needs_no_token_and_keeps_nothing(demo: Demo, tmp_path: Path) -> None:
    """The first command a person tries: it may not touch a real chat or a real outbox."""
    messages = demo.messages(STORY)
    begins = [
        "🟠 CHATWOOT ALERT - HIGH",
        "🟡 CHATWOOT ALERT - MEDIUM",
        "💬 Karl Müller: Hello? Is this a bot? I want a person.",
        "🙋 Anna Petrova took Karl Müller's conversation",
        "✅ Anna Petrova answered Karl Müller after ",
        "✅ Resolved: Karl Müller",
        "🔴 CHATWOOT ALERT - CRITICAL",
    ]
    assert [m["text"][: len(begin)] for m, begin in zip(messages, begins, strict=True)] == begins
    assert [message["silent"] for message in messages] == [False, False, False, True, True, True, False]
    demo.process.send_signal(signal.SIGTERM)
    told, complaints = demo.process.communicate(timeout=15)
    assert (demo.process.returncode, complaints) == (0, "")
    assert REAL_TOKEN not in demo.banner + told
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_where_it_listens_is_a_setting_from_any_source(tmp_path: Path) -> None:
    """As the service's: a name of a file, a line of .env."""
    (tmp_path / "port").write_text("70000")
    (tmp_path / ".env").write_text("RELAY_PORT_FILE=port\n")
    process = start(tmp_path, RELAY_PORT="")
    told, complaints = process.communicate(timeout=15)
    assert (process.returncode, told, "RELAY_PORT_FILE in .env" in complaints) == (78, "", True)


def test_its_curl_lines_work_as_they_stand(demo: Demo) -> None:
    """They are the first lines of ours that anybody pastes."""
    demo.messages(STORY)
    lines = re.findall(r"^  (curl .*\\\n.*)$", demo.banner, re.M)
    assert [paste(line)["message"] for line in lines] == [
        "Alert forwarded to Telegram",
        "Webhook forwarded to Telegram",
    ]
    assert "A person, please!" in demo.messages(STORY + 2)[STORY]["text"]


def test_it_ends_while_a_page_is_open(demo: Demo) -> None:
    """A stream that nobody ends would hold the process until it is killed."""
    with urllib.request.urlopen(f"{demo.url}demo/chat", timeout=20) as stream:
        stream.readline()
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(timeout=15) == 0


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The likeliest accident of a first try."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, complaint = start(tmp_path, RELAY_PORT=str(port)).communicate(timeout=15)
    assert f"port {port}" in complaint
    assert "Traceback" not in complaint


def until(driver: Chrome, script: str) -> Any:
    return WebDriverWait(driver, 20).until(lambda d: d.execute_script(f"return {script}"))


@pytest.mark.browser
def test_the_page_shows_the_chat_as_telegram_would(demo: Demo) -> None:
    """Bold, links, time and the muted bell; and every word of a customer's stays text."""
    messages = demo.messages(STORY)
    with browser() as driver:
        driver.get(demo.url)
        until(driver, f"document.querySelectorAll('.said').length === {STORY}")
        texts = [element.get_attribute("textContent") for element in driver.find_elements(By.CSS_SELECTOR, ".text")]
        assert texts == [message["text"] for message in messages]
        first = driver.find_element(By.CSS_SELECTOR, ".said .text")
        assert first.find_element(By.CSS_SELECTOR, "strong").text == "🟠 CHATWOOT ALERT - HIGH"
        link = first.find_element(By.LINK_TEXT, "View in Chatwoot")
        assert link.get_attribute("href") == "https://app.chatwoot.com/app/accounts/1/conversations/12345"
        bells = ["🔕" in element.text for element in driver.find_elements(By.CSS_SELECTOR, ".when")]
        assert bells == [message["silent"] for message in messages]

        demo.post(message=HOSTILE, reason="<b>bold</b>", additional_info={"<i>": "<u>"})
        until(driver, f"document.querySelectorAll('.said').length === {STORY + 1}")
        last = driver.find_elements(By.CSS_SELECTOR, ".said .text")[-1]
        shown = last.get_attribute("textContent") or ""
        assert "<img src=x onerror=document.title='gone'>" in shown
        assert "Reason: <b>bold</b>" in shown
        assert last.find_elements(By.CSS_SELECTOR, "img, script, b, i, u") == []
        assert driver.title == "chatwoot-relay · demo"
        assert driver.get_log("browser") == []


@pytest.mark.browser
def test_an_alert_of_ones_own_is_raised_from_the_page(demo: Demo) -> None:
    """The form is how a visitor tries it; a mistake is shown as the relay tells it."""
    demo.messages(STORY)
    with browser() as driver:
        driver.get(demo.url)
        until(driver, f"document.querySelectorAll('.said').length === {STORY}")
        field = driver.find_element(By.NAME, "message")
        field.clear()
        field.send_keys('It\'s <urgent> & "mine"')
        driver.find_element(By.CSS_SELECTOR, "input[value=critical] + span").click()
        driver.find_element(By.CSS_SELECTOR, "[data-of=alert]").click()
        curl = driver.execute_script("return getSelection().toString()")
        driver.find_element(By.CSS_SELECTOR, "button.send").click()
        until(driver, f"document.querySelectorAll('.said').length === {STORY + 1}")
        assert until(driver, "document.getElementById('answer').textContent").startswith("200 {")
        told = demo.messages(STORY + 1)[-1]["text"]
        assert told.startswith("🔴 CHATWOOT ALERT - CRITICAL")
        assert 'It\'s <urgent> & "mine"' in told

        assert paste(curl)["success"] is True
        assert demo.messages(STORY + 2)[-1]["text"] == told

        number = driver.find_element(By.NAME, "conversation_id")
        number.clear()
        number.send_keys("none")
        driver.find_element(By.CSS_SELECTOR, "button.send").click()
        assert "$.conversation_id" in until(driver, "document.querySelector('#answer.bad')?.textContent")


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_dresses_for_the_night(demo: Demo, width: int) -> None:
    """It is looked at on a phone, at night, by the one on call."""
    papers = []
    for dark in (False, True):
        with browser(width=width, dark=dark) as driver:
            driver.get(demo.url)
            until(driver, f"document.querySelectorAll('.said').length === {STORY}")
            wide, window = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
            assert wide <= window
            papers.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert papers[0] != papers[1]
