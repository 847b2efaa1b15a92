"""/docs and /redoc show the document in a real browser under their policy, and are readable without their scripts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from browser import browser
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from chatwoot_relay import pages
from chatwoot_relay.openapi import openapi
from chatwoot_relay.pages import Page, docs_page, redoc_page

OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"
CDN = "https://cdn.example/npm"


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the viewers' files, made as the operator's documentation says, and as the pages want it."""
    assert shutil.which("npm"), "the documentation pages are tested with their files from npm"
    folder = tmp_path_factory.mktemp("assets")
    (block,) = re.findall(r"(?s)```sh\n([^`]*npm pack.*?)```", OPERATIONS.read_text())
    subprocess.run(["sh", "-euc", block], cwd=folder, check=True)
    return folder


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[str, Path | None], object]]:
    """Start a site with both pages and, where there is a folder of them, their files."""
    runners = []

    async def start(base: str, folder: Path | None) -> str:
        app = web.Application()

        def add(path: str, make: Callable[[dict[str, object], str], Page]) -> None:
            async def answer(request: web.Request) -> web.Response:
                page = make(openapi(), base or f"{request.url.origin()}/assets")
                return web.Response(text=page.html, content_type="text/html", headers=page.headers)

            app.router.add_get(path, answer)

        async def document(request: web.Request) -> web.Response:
            return web.json_response(openapi())

        add("/docs", docs_page)
        add("/redoc", redoc_page)
        app.router.add_get("/openapi.json", document)
        if folder is not None:
            app.router.add_static("/assets", folder)
        runner = web.AppRunner(app, access_log=None)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("path", "sign"),
    [("/docs", "#ui .swagger-ui .opblock-summary-path"), ("/redoc", "#ui .menu-content, #ui [data-section-id]")],
)
async def test_a_page_renders_without_breaking_its_policy(
    serve: Callable[..., object], assets: Path, path: str, sign: str, dark: bool
) -> None:
    """A policy that the viewer breaks leaves a blank page, and only a browser finds out."""
    url = await serve("", assets)  # type: ignore[misc]

    def look() -> tuple[str, bool, list[str]]:
        with browser(dark=dark) as driver:
            driver.get(f"{url}{path}")
            WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, sign))
            plain = driver.find_element(By.ID, "plain")
            WebDriverWait(driver, 20).until(lambda d: not plain.is_displayed())
            text = driver.find_element(By.ID, "ui").text
            return text, plain.is_displayed(), [entry["message"] for entry in driver.get_log("browser")]

    text, plain, complaints = await asyncio.to_thread(look)
    assert "Chatwoot Integration" in text
    assert (plain, complaints) == (False, [])


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_is_readable_where_the_scripts_cannot_load(serve: Callable[..., object], path: str) -> None:
    """The relay stands in closed networks; its routes are told there too."""
    url = await serve("", None)  # type: ignore[misc]

    def look() -> tuple[str, int, int]:
        with browser(width=390) as driver:
            driver.get(f"{url}{path}")
            text = driver.find_element(By.ID, "plain").text
            return text, *driver.execute_script("return [document.body.scrollWidth, innerWidth]")

    text, wide, window = await asyncio.to_thread(look)
    for route in openapi()["paths"]:
        assert route in text
    assert "THIS IS RIDICULOUS" in text
    assert wide <= window


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_is_readable_while_the_scripts_hang(serve: Callable[..., object], path: str) -> None:
    """A firewall that swallows packets must not leave a white page for minutes."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as hole:
        base = f"http://127.0.0.1:{hole.sockets[0].getsockname()[1]}"
        url = await serve(base, None)  # type: ignore[misc]

        def look() -> tuple[list[str], str]:
            with browser(patient=False) as driver:
                driver.get(f"{url}{path}")
                painted = "return performance.getEntriesByType('paint').map((entry) => entry.name)"
                WebDriverWait(driver, 20).until(lambda d: d.execute_script(painted))
                return driver.execute_script(painted), driver.find_element(By.ID, "plain").text

        painted, text = await asyncio.to_thread(look)
    assert "first-contentful-paint" in painted
    assert "/api/v1/chatwoot/alerts" in text


@pytest.mark.browser
def test_the_pinned_hashes_are_those_of_the_published_files(assets: Path) -> None:
    """A wrong hash blocks the script for everybody; none would let anybody's script in."""
    for path, integrity in (pages.SWAGGER_JS, pages.SWAGGER_CSS, pages.REDOC_JS):
        digest = hashlib.sha384((assets / path).read_bytes()).digest()
        assert integrity == f"sha384-{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize("make", [docs_page, redoc_page])
def test_the_policy_lets_in_the_pinned_files_and_nothing_else(make: Callable[..., Page]) -> None:
    """A page on the relay's own origin must not become a way into it."""
    page = make(openapi(), f"{CDN}/")
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    script, inline = policy["script-src"].split()
    assert script.startswith(f"{CDN}/")
    assert f'src="{script}" integrity="sha384-' in page.html
    assert inline.startswith("'sha256-")


@pytest.mark.parametrize("make", [docs_page, redoc_page])
def test_the_document_is_escaped(make: Callable[..., Page]) -> None:
    """Wording holds < and & one day."""
    document = {**openapi(), "info": {**openapi()["info"], "description": "<script>1</script> & `a<b`"}}
    html = make(document, CDN).html
    assert "<script>1" not in html
    assert "&lt;script&gt;1&lt;/script&gt; &amp; <code>a&lt;b</code>" in html
