"""The pages /docs and /redoc: pinned scripts under a strict policy, over a summary that is readable without them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

import attrs

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

STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5b6875; --line: #dde3e9; --paper: #fff; --code: #f4f6f8;
  --accent: #1f6fd6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #9aa7b4; --line: #2c3742; --paper: #141b22;
  --code: #1c252e; --accent: #6cb2ff } }
:root.light { color-scheme: light; --paper: #fff }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
#plain { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
#plain h1 { margin: 0; font-size: 1.6rem } #plain h2 { margin: 0; font-size: 1rem; overflow-wrap: anywhere }
#plain p { margin: .4rem 0; color: var(--soft) } #plain a { color: var(--accent) }
#plain section { margin-top: 1.2rem; padding-top: 1.2rem; border-top: 1px solid var(--line) }
#plain b { color: var(--accent) } #plain pre { background: var(--code); padding: .8rem; border-radius: .5rem;
  overflow-x: auto; font-size: .82rem }
#plain dl { display: flex; gap: .8rem; margin: .3rem 0; font-size: .9rem } #plain dd { margin: 0 }
#plain dt { font-weight: 600 }
"""
SWAGGER_START = """
addEventListener("DOMContentLoaded", () => {
  if (!window.SwaggerUIBundle) return
  const dark = matchMedia("(prefers-color-scheme: dark)")
  const dress = () => document.documentElement.classList.toggle("dark-mode", dark.matches)
  dark.addEventListener("change", dress)
  dress()
  SwaggerUIBundle({ url: "openapi.json", domNode: document.getElementById("ui"), deepLinking: true,
    onComplete: () => { document.getElementById("plain").hidden = true } })
})
"""
# Redoc has one picture, the logo of its makers, which would be fetched from them: no image gets a source.
# It has no dark dress.
REDOC_START = """
HTMLImageElement.prototype.setAttribute = () => {}
Object.defineProperty(HTMLImageElement.prototype, "src", { set() {} })
addEventListener("DOMContentLoaded", () => {
  if (!window.Redoc) return
  const [ui, plain] = [document.getElementById("ui"), document.getElementById("plain")]
  Redoc.init("openapi.json", {}, ui, (error) => {
    ui.hidden = Boolean(error)
    plain.hidden = !error
    document.documentElement.classList.toggle("light", !error)
  })
})
"""


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
    return _page(document, assets, "Swagger UI", SWAGGER_JS, SWAGGER_START, style=sheet, link=link)


def redoc_page(document: dict[str, Any], assets: str) -> Page:
    """ReDoc over *document*; its file comes from below *assets*. It writes its styles at run time."""
    return _page(document, assets, "ReDoc", REDOC_JS, REDOC_START, style="'unsafe-inline'")


def _page(
    document: dict[str, Any], assets: str, viewer: str, code: tuple[str, str], start: str, *, style: str, link: str = ""
) -> Page:
    script = f"{assets.rstrip('/')}/{code[0]}"
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(document["info"]["title"])} · {viewer}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<script src="{escape(script)}" integrity="{code[1]}" crossorigin defer></script>
<script>{start}</script>
</head>
<body>
<div id="ui"></div>
<main id="plain">
{"".join(_summary(document))}
</main>
{link}
</body>
</html>
"""
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
