"""Access to the operators' pages and API. Everybody else gets the 404 of an unknown path."""

from __future__ import annotations

import logging
import math
from typing import Final
from urllib.parse import quote

from fastapi import HTTPException, Request
from starlette.responses import Response

from lapse.auth.addresses import current_address, site_of
from lapse.auth.origins import is_encrypted, is_own_origin
from lapse.auth.principals import Role, current_principal
from lapse.core.log_rate import LogRateLimit
from lapse.core.request import root_of, route_path, tell_known
from lapse.dashboard.cookies import Attempts, Operator, Signatures
from lapse.dashboard.options import OperatorOptions

COOKIE: Final = "lapse_operator"
FORM_FIELD: Final = "form_token"
_SAFE: Final = {"GET", "HEAD"}
_OTHER_ORIGIN: Final = (
    "a page of another origin asks; go to the pages of this server, and ask there"
)

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())


class Login:
    """Checks who sends a request for the operators' pages or API, and logs browsers in and out."""

    def __init__(self, options: OperatorOptions) -> None:
        self._options = options
        self.signatures = Signatures(options.token, options.logged_in)
        self.attempts = Attempts()

    def check_reachable(self, request: Request) -> None:
        """Check the port, and that a token or an operator's principal can open the pages.

        Raises:
            HTTPException: 404.
        """
        server = request.scope.get("server")
        if self._options.port is not None and (not server or server[1] != self._options.port):
            raise _not_found()
        if self._options.token is None and _principal() is None:
            raise _not_found()

    def operator_of_page(self, request: Request) -> Operator:
        """Return the operator who asks for a page, by principal or cookie.

        Raises:
            HTTPException: 403 if a script of another origin's page asks, which CORS might let read
                the answer; 303 to the log-in form if the browser may log in; else 404.
        """
        self.check_reachable(request)
        operator = _principal() or self.signatures.read_cookie(request.cookies.get(COOKIE, ""))
        if operator is not None:
            if "origin" in request.headers and is_foreign(request):
                raise HTTPException(403, _OTHER_ORIGIN)
            request.state.operator = operator  # error pages keep the navigation
            tell_known(request.scope)
            return operator
        if request.method not in _SAFE or current_principal() is not None:
            raise _not_found()
        wanted = route_path(request.scope)
        if request.url.query:
            wanted += f"?{request.url.query}"
        home = base_of(request)
        raise HTTPException(
            303, headers={"Location": f"{home}/login?then={quote(wanted, safe='')}"}
        )

    def operator_of_api(self, request: Request) -> Operator:
        """Return the operator who asks the API, by principal or bearer token; cookies do not count.

        Raises:
            HTTPException: 403 for a change from another origin's page, 404 without access, 429
                after too many wrong tokens.
        """
        self.check_reachable(request)
        if request.method not in _SAFE and is_foreign(request):
            raise HTTPException(403, _OTHER_ORIGIN)
        operator = _principal()
        if operator is not None:
            return operator
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or current_principal() is not None:
            raise _not_found()
        if not self.try_token(given.strip()):
            raise _not_found()
        tell_known(request.scope)
        return Operator("operator", "api")

    def check_may_log_in(self, request: Request) -> None:
        """Check that the log-in form is open to whoever asks.

        Raises:
            HTTPException: 404 if no token is set, or if authentication knows the client as a user.
        """
        self.check_reachable(request)
        if self._options.token is None or (current_principal() is not None and not _principal()):
            raise _not_found()

    def try_token(self, given: str) -> bool:
        """Return whether `given` is the token; count a wrong one against the client's address.

        The right token passes at all times: nobody locks an operator out by wrong ones, and a
        token of SHORTEST_TOKEN characters cannot be guessed. Addresses are told apart as quotas
        do it.

        Raises:
            HTTPException: 429 for a wrong token after too many from that address.
        """
        if self.signatures.is_token(given):
            return True
        address = current_address()
        site = "" if address is None else site_of(address)
        wait = self.attempts.wait(site)
        if wait:
            seconds = str(math.ceil(wait.total_seconds()))
            raise HTTPException(
                429, f"too many failed attempts; wait {seconds} s", {"Retry-After": seconds}
            )
        self.attempts.failed(site)
        _log.warning("an operator's token was refused", extra={"address": str(address)})
        return False

    def check_origin(self, request: Request) -> None:
        """Check that a form was sent from a page of this origin.

        Raises:
            HTTPException: 403.
        """
        if is_foreign(request, proof_needed=True):
            raise HTTPException(403, _OTHER_ORIGIN)

    def check_form(self, request: Request, operator: Operator, form: dict[str, str]) -> None:
        """Check that a form was sent from a page of this origin, made for this operator.

        Raises:
            HTTPException: 403.
        """
        self.check_origin(request)
        if not self.signatures.is_form_token(form.get(FORM_FIELD, ""), operator.session):
            raise HTTPException(403, "the form is too old or of another log-in: go back and reload")

    def set_cookie(self, request: Request, response: Response, given_name: str) -> None:
        """Log a browser in: set the signed cookie in the answer."""
        tell_known(request.scope)
        response.set_cookie(
            COOKIE,
            self.signatures.cookie(given_name),
            max_age=int(self._options.logged_in.total_seconds()),
            path=f"{base_of(request)}/",
            secure=is_encrypted(request),
            httponly=True,
            samesite="strict",
        )

    def delete_cookie(self, request: Request, response: Response) -> None:
        """Log a browser out: delete the cookie. A copy of the cookie stays valid."""
        response.delete_cookie(COOKIE, path=f"{base_of(request)}/", httponly=True)


def base_of(request: Request) -> str:
    """Return the path of the pages, with the prefix of a proxy or a parent application."""
    return f"{root_of(request.scope)}/lapse"


def is_foreign(request: Request, *, proof_needed: bool = False) -> bool:
    """Return whether a browser sent this request from a page of another origin.

    `Sec-Fetch-Site` decides if it is there, because no page can set it; else `Origin` does. A
    request with neither header counts as foreign only with `proof_needed`.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("origin")
    if origin is None:
        return proof_needed
    return not is_own_origin(origin, request)


def _principal() -> Operator | None:
    principal = current_principal()
    if principal is None or principal.role is not Role.OPERATOR:
        return None
    return Operator(principal.name, f"principal {principal.name}")


def _not_found() -> HTTPException:
    return HTTPException(404)
