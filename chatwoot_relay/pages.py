"""The pages /docs and /redoc: pinned scripts under a strict policy, over a summary that is readable without them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import attrs

PAGE = Path(__file__).with_name("docs.html")  # with the viewers' starts, and the style of what is shown without them
# What `npm pack` gives, unpacked into folders of these names, is a copy to point RELAY_DOCS_ASSETS at.
SWAGGER_JS = (
    "swagger-ui-dist@5.35.0/swagger-ui-bundle.js",
    "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
)
SWAGGER_CSS = (
    "swagger-ui-dist@5.35.0/swagger-ui.css",
    "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
)
REDOC_JS = (  # 3.x renders nothing from a plain script tag
    "redoc@2.5.4/bundles/redoc.standalone.js",
    "sha384-w447zOpYfw/1Tv/5AK9NfHTlQIqE3RVR6KY62jCyy9zNDgO64cMwGGP1Fj0zJVf5",
)


@attrs.frozen
class Page:
    """A page and the headers that it is safe with."""

    html: str
    headers: dict[str, str]


def seal(html: str, *, script: str = "", style: str = "") -> Page:
    """The page under a policy that lets in its own inline code and the *script* and *style* from elsewhere."""
    policy = {
        "default-src": "'none'",
        "script-src": f"{script} {_hashes(html, 'script')}",
        "style-src": style if "unsafe" in style else f"{style} {_hashes(html, 'style')}",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    told = "; ".join(f"{name} {value}" for name, value in policy.items())
    return Page(html, {"Content-Security-Policy": told, "Referrer-Policy": "no-referrer"})


def docs_page(document: dict[str, Any], assets: str) -> Page:
    """Swagger UI over *document*; its files come from below *assets*."""
    sheet = f"{assets.rstrip('/')}/{SWAGGER_CSS[0]}"
    link = f'<link rel="stylesheet" href="{escape(sheet)}" integrity="{SWAGGER_CSS[1]}" crossorigin>'
    return _page(document, assets, "Swagger UI", SWAGGER_JS, style=sheet, link=link)


def redoc_page(document: dict[str, Any], assets: str) -> Page:
    """ReDoc over *document*; its file comes from below *assets*. It writes its styles at run time."""
    return _page(document, assets, "ReDoc", REDOC_JS, style="'unsafe-inline'")


def _page(
    document: dict[str, Any], assets: str, viewer: str, code: tuple[str, str], *, style: str, link: str = ""
) -> Page:
    script = f"{assets.rstrip('/')}/{code[0]}"
    html = Template(PAGE.read_text("utf-8")).substitute(
        title=escape(document["info"]["title"]),
        viewer=viewer,
        script=escape(script),
        integrity=code[1],
        summary="".join(_summary(document)),
        link=link,
    )
    return seal(html, script=script, style=style)


def _hashes(html: str, tag: str) -> str:
    inline = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in inline)


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _summary(document: dict[str, Any]) -> Iterator[str]:
    """The routes, what they take and what they answer, in plain HTML."""
    info = document["info"]
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_prose(info['description'])}</p>"
    yield '<p>The whole document: <a href="openapi.json">openapi.json</a></p>'
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"<section><h2><b>{method.upper()}</b> {escape(path)}</h2>"
            yield f"<p>{escape(operation['summary'])}. {_prose(operation['description'])}</p>"
            body = operation.get("requestBody", {"content": {"application/json": {"examples": {}}}})
            for example in body["content"]["application/json"]["examples"].values():
                yield f"<pre>{escape(json.dumps(example['value'], indent=2, ensure_ascii=False))}</pre>"
            for status, answer in operation["responses"].items():
                yield f"<dl><dt>{status}<dd>{escape(answer['description'])}</dl>"
            yield "</section>"
