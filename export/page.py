"""One HTML file that shows something of a run, and loads nothing from anywhere.

What a model wrote is hostile. It travels as JSON in blocks that no browser runs, and the page's own
script puts it into text nodes. The content security policy lets that script and that style sheet
act, by their hashes, and nothing else; it also takes from the script the means to turn text into
markup (Trusted Types).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

SCRIPTS = ("base.js", "model.js", "rows.js", "panel.js", "tree.js", "run.js", "main.js")
"""Joined in this order; each uses what those before it define."""

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""No block of data can end its element or open a comment. ASCII-only JSON escapes all the rest."""

_NO_SCRIPT = "This page needs JavaScript to show its trees. It loads nothing from elsewhere."


def make_page(blocks: Mapping[str, Any], figures: str = "") -> bytes:
    """Returns a page; the same arguments give the same bytes.

    Args:
        blocks: JSON values by their names, which are our own; `page` says what the page shows.
        figures: Markup of our own that the script moves into place. No text of a model.
    """
    style, script = _web("page.css"), "\n".join(map(_web, SCRIPTS))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>Treeward</title><style>{style}</style></head>",
        f'<body><noscript>{_NO_SCRIPT}</noscript><div id="app"></div>',
        f'<div id="figures">{figures}</div>',
        *(
            f'<script type="application/json" id="{name}">{as_json(value)}</script>'
            for name, value in blocks.items()
        ),
        f"<script>{script}</script></body></html>",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def as_json(value: Any) -> str:
    """Returns JSON that is plain ASCII and safe inside a script element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text


def _web(name: str) -> str:
    return files("treeward.export").joinpath("web", name).read_text("ascii")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
