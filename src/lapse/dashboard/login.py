"""Who is let in. To everybody else there is nothing here: 404, as anywhere else."""

from __future__ import annotations

import logging
import math
from typing import Final
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from starlette.responses import Response

from lapse.auth.principals import Role, current_principal
from lapse.dashboard.cookies import Attempts, Operator, Signatures
from lapse.dashboard.options import OperatorOptions

COOKIE: Final = "lapse_operator"
FORM_FIELD: Final = "form_token"
_SAFE: Final = {"GET", "HEAD"}

_log = logging.getLogger(__name__)


class Admission:
    """Decides on each request for the operators' pages and API."""

    def __init__(self, options: OperatorOptions) -> None:
        self._options = options
        self.signatures = Signatures(options.token, options.logged_in)
        self.attempts = Attempts()

    def reachable(self, request: Request) -> None:
        """Let through what comes by the right door, where there may be somebody to let in."""
        server = request.scope.get("server")
        if self._options.port is not None and (not server or server[1] != self._options.port):
            raise _nothing_here()
        if self._options.token is None and _principal() is None:
            raise _nothing_here()

    def of_page(self, request: Request) -> Operator:
        """Return who asks for a page; whoever may log in is led there instead."""
        self.reachable(request)
        operator = _principal() or self.signatures.read_cookie(request.cookies.get(COOKIE, ""))
        if operator is not None:
            return operator
        if request.headers.get("hx-request"):
            # Has the whole page fetched anew, which leads to the log-in.
            raise _nothing_here({"HX-Refresh": "true"})
        if request.method not in _SAFE or current_principal() is not None:
            raise _nothing_here()
        wanted = request.url.path.removeprefix(request.scope.get("root_path", ""))
        if request.url.query:
            wanted += f"?{request.url.query}"
        home = base_of(request)
        raise HTTPException(
            303, headers={"Location": f"{home}/login?then={quote(wanted, safe='')}"}
        )

    def of_api(self, request: Request) -> Operator:
        """Return who asks the API: a principal, or who bears the token. Cookies do not count."""
        self.reachable(request)
        if request.method not in _SAFE and is_foreign(request):
            raise HTTPException(403, "this comes from a page of another origin")
        operator = _principal()
        if operator is not None:
            return operator
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or current_principal() is not None:
            raise _nothing_here()
        if not self.try_token(request, given.strip()):
            raise _nothing_here()
        return Operator("operator", "api")

    def may_log_in(self, request: Request) -> None:
        """Let through who may try the token: nobody where there is none, nor known users."""
        self.reachable(request)
        if self._options.token is None or (current_principal() is not None and not _principal()):
            raise _nothing_here()

    def try_token(self, request: Request, given: str) -> bool:
        """Return whether it is the token.

        Raises:
            HTTPException: 429; there were too many failures from that address.
        """
        address = request.client.host if request.client else ""
        wait = self.attempts.wait(address)
        if wait:
            seconds = str(math.ceil(wait.total_seconds()))
            raise HTTPException(
                429, f"too many failed attempts; wait {seconds} s", {"Retry-After": seconds}
            )
        if self.signatures.is_token(given):
            return True
        self.attempts.failed(address)
        _log.warning("an operator's token was refused", extra={"address": address})
        return False

    def check_origin(self, request: Request) -> None:
        """Let through what one of our pages sent.

        Raises:
            HTTPException: 403.
        """
        if is_foreign(request, proof_needed=True):
            raise HTTPException(403, "this form comes from a page of another origin")

    def check_form(self, request: Request, operator: Operator, form: dict[str, str]) -> None:
        """Let through a form that our own page sent, in the name of who it was made for.

        Raises:
            HTTPException: 403.
        """
        self.check_origin(request)
        if not self.signatures.is_form_token(form.get(FORM_FIELD, ""), operator.session):
            raise HTTPException(403, "this form is not of your log-in, or too old: go back, reload")

    def set_cookie(self, request: Request, response: Response, given_name: str) -> None:
        """Log in."""
        response.set_cookie(
            COOKIE,
            self.signatures.cookie(given_name),
            max_age=int(self._options.logged_in.total_seconds()),
            path=f"{base_of(request)}/",
            secure=_is_encrypted(request),
            httponly=True,
            samesite="strict",
        )

    def delete_cookie(self, request: Request, response: Response) -> None:
        """Log out."""
        response.delete_cookie(COOKIE, path=f"{base_of(request)}/", httponly=True)


def base_of(request: Request) -> str:
    """Return the path of the pages, below whatever prefix a proxy or a parent puts before."""
    return f"{request.scope.get('root_path', '')}/lapse"


def is_foreign(request: Request, *, proof_needed: bool = False) -> bool:
    """Return whether a browser sent this from a page that is not ours.

    Where a browser says so itself, it is believed: no page can make it say anything else. With
    `proof_needed`, who says nothing counts as foreign.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("origin")
    if origin is None:
        return proof_needed
    return urlsplit(origin).netloc != request.headers.get("host")


def _is_encrypted(request: Request) -> bool:
    """Return whether the browser's connection is encrypted, as far as anybody says.

    Who lies about it only has their own cookie come back less often.
    """
    forwarded = request.headers.get("x-forwarded-proto", "")
    return "https" in {request.url.scheme, forwarded.partition(",")[0].strip().lower()}


def _principal() -> Operator | None:
    principal = current_principal()
    if principal is None or principal.role is not Role.OPERATOR:
        return None
    return Operator(principal.name, f"principal {principal.name}")


def _nothing_here(headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(404, headers=headers)
