"""The language model's endpoint: where requests go, how, and with which key."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from biomedcoop.errors import UserError

DEFAULT_MODEL = "gpt-4.1-mini"
DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and how.

    Attributes:
        model: name of the model at the endpoint.
        base_url: of an OpenAI-compatible API, up to and including its "/v1".
        temperature: None for the endpoint's own.
        structured: demand the JSON schema; an endpoint that refuses it is asked in words only.
        timeout: longest time for one answer, s.
        retries: further tries after a rate limit, an error of the server or a broken connection; waiting times grow, unless
            the server states one.
        per_minute: largest number of requests a minute; 0 for no limit.
    """

    model: str = DEFAULT_MODEL
    base_url: str = DEFAULT_URL
    temperature: float | None = None
    structured: bool = True
    timeout: float = 120.0
    retries: int = 6
    per_minute: float = 0.0

    @property
    def address(self) -> str:
        """``base_url`` without user, password and query, which may be secrets."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_endpoint(endpoint: Endpoint) -> None:
    """Refuse numbers out of range, by the option that sets them.

    Raises:
        UserError: the temperature, the timeout, the retries or the requests per minute are out of range.
    """
    for name, value, least in (
        ("--per-minute", endpoint.per_minute, 0),
        ("--timeout", endpoint.timeout, 0.001),
        ("--retries", endpoint.retries, 0),
    ):
        if not least <= value < 1e6:
            raise UserError(f"{name} {value:g}: must be {least:g} or more")
    if endpoint.temperature is not None and not 0 <= endpoint.temperature <= 2:
        raise UserError(f"--temperature {endpoint.temperature:g}: must be between 0 and 2")


def check_access(endpoint: Endpoint) -> None:
    """Refuse a run that cannot send anything.

    Raises:
        UserError: the client is not installed, the address or the key cannot be used, or OpenAI's endpoint has no key.
    """
    if importlib.util.find_spec("openai") is None:
        raise UserError("the openai client is not installed; pip install 'biomedcoop[llm]'")
    try:
        parts = urlsplit(endpoint.base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"--base-url {endpoint.base_url}: want an address such as http://localhost:11434/v1")
    key = api_key()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"the key in {KEY_VARIABLE} holds characters that no key has; set it again, without spaces or quotes"
        )
    if endpoint.base_url == DEFAULT_URL and not key:
        raise UserError(
            f"no key: set the environment variable {KEY_VARIABLE}, or name another endpoint with --base-url or {URL_VARIABLE} "
            "(a local server needs no key); --dry-run shows what would be sent"
        )


def api_key() -> str:
    """The user's key, without the line end that reading it from a file leaves behind."""
    return os.environ.get(KEY_VARIABLE, "").strip()
