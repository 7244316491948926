"""The templates of the pages, their static files and their security headers."""

from __future__ import annotations

import gzip
import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from lapse.core.keys import visible
from lapse.core.numbers import sessions
from lapse.dashboard import words
from lapse.dashboard.actions import WORDS
from lapse.dashboard.cookies import Operator, Signatures
from lapse.dashboard.login import FORM_FIELD, base_of

_HERE: Final = Path(__file__).parent
FILES: Final = _HERE / "static"

SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer` browsers would send forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Pages:
    """Renders the templates; `files` are the static files by name, also `compressed`.

    Args:
        signatures: signs the forms of whoever is logged in.
        store: the store's address, shown on each page to operators; may be empty.
    """

    def __init__(self, signatures: Signatures, store: str | None) -> None:
        self._signatures, self._store = signatures, store
        self.files = {
            file.name: file.read_bytes()
            for file in sorted(FILES.iterdir())
            if file.suffix in MEDIA_TYPES
        }
        self.compressed = {name: gzip.compress(text, mtime=0) for name, text in self.files.items()}
        self._release = hashlib.sha256(b"".join(self.files.values())).hexdigest()[:12]
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        self._templates.globals |= {
            "release": self._release,
            "version": version("lapse"),
            "form_field": FORM_FIELD,
            "acts_in_words": WORDS,
        }
        self._templates.filters |= {
            "span": words.span,
            "stamp": words.stamp,
            "iso": words.iso,
            "sessions": sessions,
            "coded": coded,
            "exact": exact,
            "short": words.short,
        }
        self._templates.globals |= {"when": words.when, "clock": words.clock}

    def page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Return a rendered template with the security headers."""
        operator: Operator | None = getattr(request.state, "operator", None)
        form_token = self._signatures.form_token(operator.session) if operator else ""
        text = self._templates.get_template(template).render(
            base=base_of(request),
            operator=operator,
            form_token=form_token,
            store=self._store if operator else None,
            **values,
        )
        return HTMLResponse(text, status, headers=SECURITY)


def coded(text: str) -> Markup:
    """Return text as HTML, with the parts between backticks as code."""
    parts = visible(text).split("`")
    code = Markup("<code>{}</code>")
    return Markup("").join(
        code.format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def exact(text: str) -> Markup:
    """Return text as HTML with every character as it is, for the value of a field of a form."""
    return escape(text)


def _shown(value: object) -> object:
    """Return what an expression of a template shows: of text, all characters visible."""
    return visible(value) if type(value) is str else value
