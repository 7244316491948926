"""Who asks, and what they may ask for."""

from lapse.auth.authenticator import Authentication, Authenticator
from lapse.auth.gate import CallerMiddleware, OwnershipMiddleware
from lapse.auth.header import HeaderAuthenticator
from lapse.auth.options import AuthOptions, HeaderOptions, JwtOptions
from lapse.auth.tokens import TokenAuthenticator

__all__ = [
    "Authentication",
    "Authenticator",
    "CallerMiddleware",
    "HeaderAuthenticator",
    "OwnershipMiddleware",
    "TokenAuthenticator",
    "authentication_of",
]


def authentication_of(
    options: AuthOptions, *, origins: tuple[str, ...] = ()
) -> Authentication | None:
    """Return how callers are known as the settings say; None: not at all.

    Raises:
        InvalidValueError: what it needs is not installed.
    """
    match options.by:
        case None:
            return None
        case JwtOptions():
            authenticator: Authenticator = TokenAuthenticator(options.by)
        case HeaderOptions():
            authenticator = HeaderAuthenticator(options.by)
    open_paths = ["/metrics"] if options.metrics_open else []
    return Authentication(
        authenticator,
        open_paths=open_paths,
        origins=origins,
        metrics_tokens=options.metrics_tokens,
    )
