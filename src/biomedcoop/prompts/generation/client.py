"""The client that sends requests to the endpoint, and says in one line why one failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from biomedcoop.errors import UserError
from biomedcoop.prompts.generation.endpoint import KEY_VARIABLE, Endpoint, api_key, check_access

if TYPE_CHECKING:
    from openai import OpenAI, OpenAIError


class Client:
    """Sends requests to one endpoint.

    Args:
        endpoint: where requests go. An endpoint that refuses the JSON schema is asked without it from then on.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.structured = endpoint.structured
        self.next_time = 0.0
        self._client: OpenAI | None = None

    def send(self, body: dict[str, Any]) -> str:
        """The reply of the endpoint as text.

        Raises:
            UserError: the endpoint refuses, or does not answer after all retries.
        """
        client = self.client()
        import openai

        body = dict(body)
        if not self.structured:
            body.pop("response_format", None)
        if self.endpoint.per_minute:
            time.sleep(max(0.0, self.next_time - time.monotonic()))
            self.next_time = time.monotonic() + 60 / self.endpoint.per_minute
        try:
            return str(client.chat.completions.with_raw_response.create(**body).http_response.text)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self.structured and "response_format" in body and _about_the_schema(error):
                self.structured = False
                return self.send(body)
            raise UserError(_failure(error, self.endpoint)) from error
        except openai.OpenAIError as error:
            raise UserError(_failure(error, self.endpoint)) from error

    def client(self) -> OpenAI:
        if self._client is None:
            check_access(self.endpoint)
            import openai

            self._client = openai.OpenAI(
                api_key=api_key() or "none",
                base_url=self.endpoint.base_url,
                timeout=self.endpoint.timeout,
                max_retries=self.endpoint.retries,
                http_client=openai.DefaultHttpxClient(
                    # a redirect would send the request to an endpoint that the user has not named
                    follow_redirects=False,
                    event_hooks={"request": [_silence], "response": [_no_credit]},
                ),
            )
        return self._client


def _silence(request: Any) -> None:
    """Drop the headers in which the client describes this machine: system, processor, versions."""
    for name in [name for name in request.headers if name.lower().startswith("x-stainless-")]:
        if name.lower() != "x-stainless-raw-response":  # the client itself reads this one
            del request.headers[name]
    request.headers["user-agent"] = "biomedcoop"


def _no_credit(response: Any) -> None:
    """Do not retry where the account has no credit: the endpoint reports it like a rate limit."""
    if response.status_code == 429 and b"insufficient_quota" in response.read():
        response.headers["x-should-retry"] = "false"


def _failure(error: OpenAIError, endpoint: Endpoint) -> str:
    """One line: what went wrong, and what the user can do."""
    import openai

    where, said = f"{endpoint.model} at {endpoint.address}", _said(error)
    kept = "answers so far are kept, and the same command continues there"
    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return f"{where} refuses the request: {said}; see --model and --temperature"
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"{where} refuses the key ({said}); set {KEY_VARIABLE} to a key of this endpoint"
    if isinstance(error, openai.NotFoundError):
        return f"{where} does not exist ({said}); see --model and --base-url"
    if isinstance(error, openai.RateLimitError):
        if error.code == "insufficient_quota":
            return f"{where}: the account of this key has no credit left ({said}); see its billing; {kept}"
        return f"{where} still limits the rate after {endpoint.retries} retries ({said}); try later or with --per-minute; {kept}"
    if isinstance(error, openai.APITimeoutError):
        return (
            f"{where} gave no answer within {endpoint.timeout:g} s, {endpoint.retries + 1} times; raise --timeout or try later; "
            f"{kept}"
        )
    if isinstance(error, openai.APIConnectionError):
        return f"{where} cannot be reached ({error.__cause__ or error}); see --base-url; {kept}"
    if isinstance(error, openai.APIStatusError):
        tried = f" after {endpoint.retries} retries" if error.status_code >= 500 else ""  # others are not retried
        return f"{where} failed with status {error.status_code}{tried} ({said}); try later; {kept}"
    return f"{where}: {said}; {kept}"


def _about_the_schema(error: Any) -> bool:
    said = _said(error).lower()
    return any(word in said for word in ("response_format", "json_schema", "schema", "structured"))


def _said(error: Any) -> str:
    """The endpoint's message in one short line, without the key, which some endpoints repeat."""
    body = getattr(error, "body", None)
    text = str((body.get("message") or body) if isinstance(body, dict) else error)
    return " ".join((text.replace(key, "…") if (key := api_key()) else text).split())[:200]
