"""Who may ask: the token, and what keeps web pages of others from asking through a user's browser."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from biomedcoop.deploy.server.limits import RefusedRequest

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names by which a browser on this machine reaches the server."""

PUBLIC = ("/", "/health", "/docs", "/pages/")
"""Addresses without a token: whether the server lives, and the files of the pages, which are the same on every server and ask for
the token, because a browser opens a page without a header. A final / stands for all below."""


class Guard:
    """Checks each request before it is read.

    Args:
        token: needed in the header Authorization; None asks for none.
        hosts: names under which the server is reached; None where any is fine, because a token is needed.
    """

    def __init__(self, token: str | None, hosts: tuple[str, ...] | None) -> None:
        self._token, self._hosts = token, hosts

    def check(self, scope: Scope) -> None:
        """
        Raises:
            RefusedRequest: the request must not be answered.
        """
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            raise RefusedRequest(
                403, f"the host '{host[:80]}' is not served; use localhost, or start with --allow-host"
            )
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and (
            (origin is not None and not _is_page_of(host, origin))
            or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        ):
            raise RefusedRequest(403, "a page of another address asks; use the page of this server, or no browser")
        if not self.open(scope["path"]) and not self.knows(headers.get("authorization", "")):
            raise RefusedRequest(
                401, "a token is needed; send the header 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"}
            )

    def open(self, path: str) -> bool:
        """Whether an address needs no token."""
        if path.startswith("/train/") and path.endswith("/report.html"):
            return True  # opened as a page, which sends no header; its address holds 128 random bits
        return any(
            path == known or (len(known) > 1 and known.endswith("/") and path.startswith(known)) for known in PUBLIC
        )

    def knows(self, authorization: str) -> bool:
        """Whether a header Authorization holds the token; in a time that does not depend on what it holds."""
        if self._token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())


def _is_page_of(host: str, origin: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
