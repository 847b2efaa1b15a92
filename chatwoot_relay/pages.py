"""The pages /docs and /redoc: pinned scripts under a strict policy, over a summary that is readable without them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
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
#plain table { border-collapse: collapse; width: 100%; font-size: .9rem }
#plain td { padding: .2rem .8rem .2rem 0; vertical-align: top } #plain td:first-child { font-weight: 600 }
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


def docs_page(document: dict[str, Any], assets: str) -> Page:
    """Swagger UI over *document*; its files come from below *assets*."""
    return _page(document, assets, "Swagger UI", SWAGGER_JS, SWAGGER_START, styles=SWAGGER_CSS)


def redoc_page(document: dict[str, Any], assets: str) -> Page:
    """ReDoc over *document*; its file comes from below *assets*."""
    return _page(document, assets, "ReDoc", REDOC_JS, REDOC_START, styles=None)


def _page(
    document: dict[str, Any],
    assets: str,
    viewer: str,
    code: tuple[str, str],
    start: str,
    *,
    styles: tuple[str, str] | None,
) -> Page:
    script, script_hash = f"{assets.rstrip('/')}/{code[0]}", code[1]
    sheet = f"{assets.rstrip('/')}/{styles[0]}" if styles else ""
    link = f'<link rel="stylesheet" href="{escape(sheet)}" integrity="{styles[1]}" crossorigin>' if styles else ""
    policy = {
        "default-src": "'none'",
        "script-src": f"{script} {_hash(start)}",
        # Redoc writes its styles at run time, Swagger UI brings a file
        "style-src": f"{sheet} {_hash(STYLE)}" if styles else "'unsafe-inline'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(document["info"]["title"])} · {viewer}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<script src="{escape(script)}" integrity="{script_hash}" crossorigin defer></script>
<script>{start}</script>
</head>
<body>
<div id="ui"></div>
<main id="plain">
{_summary(document)}
</main>
{link}
</body>
</html>
"""
    return Page(
        html,
        {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _hash(inline: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _summary(document: dict[str, Any]) -> str:
    """The routes, what they take and what they answer, in plain HTML."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{_prose(info['description'])}</p>",
        '<p>The whole document: <a href="openapi.json">openapi.json</a></p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            told = [f"<h2><b>{method.upper()}</b> {escape(path)}</h2>", f"<p>{escape(operation['summary'])}.</p>"]
            if operation["description"]:
                told.append(f"<p>{_prose(operation['description'])}</p>")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in body.get("examples", {}).values():
                told += [f"<pre>{escape(json.dumps(example['value'], indent=2, ensure_ascii=False))}</pre>"]
            rows = "".join(
                f"<tr><td>{status}</td><td>{escape(answer['description'])}</td></tr>"
                for status, answer in operation["responses"].items()
            )
            parts.append(f"<section>{''.join(told)}<table>{rows}</table></section>")
    return "\n".join(parts)
