"""Sentences for new classes, written by a language model behind any OpenAI-compatible endpoint.

Nothing but class names, modality and organ is sent. A request asks for a few sentences about one aspect of one class; the answers
pass the checks of ``checks.py`` or are dropped, until every class has n different sentences. Every answer is kept on disk with
what was asked, so an interrupted run goes on where it was, and asking for more sentences sends only what is new.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from biomedcoop.errors import UserError
from biomedcoop.output import check_writable, explain, replace_file
from biomedcoop.prompts.checks import FEWEST_WORDS, MOST_WORDS, Collection

if TYPE_CHECKING:
    from openai import OpenAI

DEFAULT_MODEL = "gpt-4.1-mini"
DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"

PRICES = {"gpt-4.1-mini": (0.40, 1.60), "gpt-4.1": (2.00, 8.00), "gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.50, 10.00)}
"""US dollars per million tokens (input, output) at api.openai.com as published in mid-2026; ``--price`` overrides them."""

PER_REQUEST = 8
ASPECTS = (
    "shape and border",
    "texture and internal structure",
    "intensity, colour or stain, as this modality shows them",
    "location and orientation",
    "relation to neighbouring structures",
    "extent, number and distribution",
    "uncommon forms of the class and what the image then shows",
    "typical artefacts of this modality and how the class looks through them",
)
MOST_IN_VAIN = 4
"""Requests in a row that bring a class nothing new before it is given up."""

SYSTEM = (
    "You write short descriptions of medical images for a vision-language model that matches images with text. "
    "Describe only what a reader sees in a single image. Say nothing of prognosis, treatment, symptoms or history."
)
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "sentences",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
            "required": ["sentences"],
            "additionalProperties": False,
        },
    },
}

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, sentences there, sentences wanted)."""


@dataclass(frozen=True)
class Wanted:
    """What sentences are wanted; all of it that is sent.

    Attributes:
        class_names: of the task, at least two.
        modality, organ: e.g. "CT", "kidney".
        n: different sentences per class.
    """

    class_names: Sequence[str]
    modality: str
    organ: str
    n: int = 50


@dataclass(frozen=True)
class Endpoint:
    """Where requests go and how.

    Attributes:
        model: name of the model at the endpoint.
        base_url: of an OpenAI-compatible API, up to and including its "/v1".
        temperature: None leaves it to the endpoint.
        structured: demand the JSON schema; endpoints that refuse it are asked in words only.
        timeout: seconds that one answer may take.
        retries: of a request that met a rate limit, an error of the server or a broken connection; waiting times grow, and
            those that the server names are kept.
        per_minute: most requests a minute; 0 for no limit.
    """

    model: str = DEFAULT_MODEL
    base_url: str = DEFAULT_URL
    temperature: float | None = None
    structured: bool = True
    timeout: float = 120.0
    retries: int = 6
    per_minute: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What a run will send and cost, roughly. ``dollars`` is None where the price is not known."""

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


@dataclass
class _Log:
    """Provenance of one run: a line per answer."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    tokens: Counter[str] = field(default_factory=Counter)


def messages(wanted: Wanted, class_name: str, round_number: int) -> list[dict[str, str]]:
    """The request of one round for one class; rounds go through the aspects again and again."""
    turn, aspect = divmod(round_number, len(ASPECTS))
    others = [name for name in wanted.class_names if name != class_name]
    lines = [
        f"Modality: {wanted.modality}",
        f"Organ: {wanted.organ}",
        f"Class to describe: {class_name}",
        f"Other classes of the task: {'; '.join(others)}",
        f"Aspect: {ASPECTS[aspect]}",
        "",
        f"Write {PER_REQUEST} sentences about this aspect of the class to describe. Each has {FEWEST_WORDS + 2} to "
        f"{MOST_WORDS - 5} words, stands alone, and tells the class from the others without naming any of them. Begin each "
        "sentence with other words, build each one differently, and let no two say the same.",
    ]
    if turn:
        lines.append(f"This is set {turn + 1}: use findings and words that a first set would not have used.")
    lines.append('Answer with a JSON object {"sentences": ["...", ...]} and nothing else.')
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(lines)}]


def request_body(wanted: Wanted, endpoint: Endpoint, class_name: str, round_number: int) -> dict[str, Any]:
    """What is sent, as JSON."""
    body: dict[str, Any] = {"model": endpoint.model, "messages": messages(wanted, class_name, round_number)}
    if endpoint.temperature is not None:
        body["temperature"] = endpoint.temperature
    if endpoint.structured:
        body["response_format"] = SCHEMA
    return body


def check_wanted(wanted: Wanted) -> None:
    """Refuse what makes no request, before anything is sent.

    Raises:
        UserError: fewer than two classes, an empty word, or n out of range.
    """
    if len(wanted.class_names) < 2:
        raise UserError("name at least two classes: a sentence must tell its class from the others")
    if not 1 <= wanted.n <= 500:
        raise UserError(f"n={wanted.n} must be between 1 and 500 sentences per class")
    for what, text in (
        ("modality", wanted.modality),
        ("organ", wanted.organ),
        *(("class", c) for c in wanted.class_names),
    ):
        if not text.strip() or not text.isprintable():
            raise UserError(f"{what} '{text}' must be a word or a few, on one line")


def estimate(wanted: Wanted, endpoint: Endpoint, price: tuple[float, float] | None = None) -> Estimate:
    """Requests, tokens and dollars before anything is sent: four characters a token, a tenth of the sentences dropped.

    Args:
        price: US dollars per million tokens, input and output; by default the list price, at OpenAI's own endpoint only.
    """
    rounds = math.ceil(11 * wanted.n / (10 * PER_REQUEST))
    characters = sum(
        len(json.dumps(request_body(wanted, endpoint, name, r))) for name in wanted.class_names for r in range(rounds)
    )
    requests = rounds * len(wanted.class_names)
    output = requests * PER_REQUEST * 30
    if price is None and endpoint.base_url == DEFAULT_URL:
        price = PRICES.get(endpoint.model)
    dollars = None if price is None else (characters / 4 * price[0] + output * price[1]) / 1e6
    return Estimate(requests, round(characters / 4), output, dollars)


def generate(
    wanted: Wanted, endpoint: Endpoint, cache: Path, progress: Progress | None = None
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """n different sentences for every class, and where they come from.

    Args:
        cache: folder of the answers; those that are there are not asked for again.
        progress: told how many sentences there are.

    Returns:
        Class name -> n sentences; and the provenance: endpoint, models, dates, a line per request, tokens.

    Raises:
        UserError: no key, no endpoint, or the endpoint does not give what is wanted. Answers so far are kept.
    """
    check_wanted(wanted)
    check_writable(cache)
    asker = _Asker(endpoint, cache)
    log = _Log()
    collection = Collection(wanted.class_names)
    total = wanted.n * len(wanted.class_names)
    for name in wanted.class_names:
        in_vain, reason = 0, ""
        for number in _rounds(wanted.n):
            have = len(collection.sentences[name])
            if progress is not None:
                progress("writing sentences", sum(map(len, collection.sentences.values())), total)
            if have >= wanted.n or in_vain >= MOST_IN_VAIN:
                break
            answer = asker.ask(wanted, name, number)
            dropped: Counter[str] = Counter()
            for sentence in answer["sentences"]:
                if len(collection.sentences[name]) == wanted.n:
                    break
                if faults := collection.faults(name, sentence):
                    dropped[faults[0].kind] += 1
                    reason = f"the last: '{textwrap.shorten(sentence, 200)}' {faults[0].text}"
                else:
                    collection.add(name, sentence)
            kept = len(collection.sentences[name]) - have
            in_vain = 0 if kept else in_vain + 1
            reason = answer.get("unusable", reason)
            _note(log, answer, name, number, kept, dropped)
        if (have := len(collection.sentences[name])) < wanted.n:
            what = "brings no new ones" if in_vain >= MOST_IN_VAIN else "brings too few at a time"
            what += f" ({reason})" if reason else ""
            way = f"ask for fewer with --n {have}, or choose another --model" if have else "see --model and --base-url"
            raise UserError(
                f"class '{name}' has {have} of {wanted.n} sentences and {endpoint.model} {what}; {way}; "
                "the answers so far are kept"
            )
    if progress is not None:
        progress("writing sentences", total, total)
    dates = sorted(request["date"] for request in log.requests)
    provenance = {
        "endpoint": _without_secrets(endpoint.base_url),
        "model": endpoint.model,
        "model_reported": sorted(log.models),
        "first_answer": dates[0],
        "last_answer": dates[-1],
        "settings": {"temperature": endpoint.temperature, "per_request": PER_REQUEST, "n": wanted.n},
        "system": SYSTEM,
        "tokens": dict(log.tokens),
        "requests": log.requests,
    }
    return collection.sentences, provenance


def _rounds(n: int) -> Iterator[int]:
    """Round numbers for n sentences: five times as many as would do if none were dropped, plus those that may be in vain."""
    return iter(range(5 * math.ceil(n / PER_REQUEST) + MOST_IN_VAIN + 1))


def _note(log: _Log, answer: dict[str, Any], class_name: str, number: int, kept: int, dropped: Counter[str]) -> None:
    log.requests.append(
        {
            "class": class_name,
            "aspect": ASPECTS[number % len(ASPECTS)],
            "answer": answer["key"],
            "date": answer["date"],
            "kept": kept,
            "dropped": dict(dropped),
            **({"unusable": answer["unusable"]} if "unusable" in answer else {}),
        }
    )
    if answer.get("model"):
        log.models.add(answer["model"])
    log.tokens.update({key: value for key, value in answer.get("usage", {}).items() if isinstance(value, int)})


class _Asker:
    """Gets answers: from the cache, or from the endpoint, which then go into the cache."""

    def __init__(self, endpoint: Endpoint, cache: Path) -> None:
        self.endpoint, self.cache = endpoint, cache
        self.structured = endpoint.structured
        self.next_time = 0.0
        self._client: OpenAI | None = None

    def ask(self, wanted: Wanted, class_name: str, number: int) -> dict[str, Any]:
        """The answer of one round: ``sentences`` (none where it was unusable, and ``unusable`` says why), date, model, usage."""
        body = request_body(wanted, self.endpoint, class_name, number)
        key = hashlib.sha256(json.dumps([self.endpoint.base_url, body], sort_keys=True).encode()).hexdigest()[:24]
        path = self.cache / f"{key}.json"
        if (kept := _read_answer(path)) is not None:
            return {**kept, "key": key}
        text = self.send(body)
        answer = {"key": key, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **_read_reply(text)}
        if answer["sentences"]:
            record = {**answer, "request": body, "endpoint": _without_secrets(self.endpoint.base_url), "reply": text}
            try:
                self.cache.mkdir(parents=True, exist_ok=True)
                replace_file(path, [json.dumps(record, indent=1, ensure_ascii=False).encode()])
            except OSError as error:
                raise explain(path, error) from error
        return answer

    def send(self, body: dict[str, Any]) -> str:
        """The reply of the endpoint as text.

        Raises:
            UserError: it refuses, or does not answer in spite of the retries.
        """
        client = self.client()
        import openai

        body = dict(body)
        if not self.structured:
            body.pop("response_format", None)
        if self.endpoint.per_minute:
            time.sleep(max(0.0, self.next_time - time.monotonic()))
            self.next_time = time.monotonic() + 60 / self.endpoint.per_minute
        where = f"{self.endpoint.model} at {_without_secrets(self.endpoint.base_url)}"
        kept = "answers so far are kept, and the same command goes on from there"
        try:
            return str(client.chat.completions.with_raw_response.create(**body).http_response.text)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self.structured and "response_format" in body and _about_the_schema(error):
                self.structured = False
                return self.send(body)
            raise UserError(f"{where} refuses the request: {_said(error)}; see --model and --temperature") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(
                f"{where} refuses the key ({_said(error)}); set {KEY_VARIABLE} to a key of this endpoint"
            ) from error
        except openai.NotFoundError as error:
            raise UserError(f"{where} is not there ({_said(error)}); see --model and --base-url") from error
        except openai.RateLimitError as error:
            if error.code == "insufficient_quota":
                raise UserError(
                    f"{where} says that the account of this key has no credit left ({_said(error)}); see its billing; {kept}"
                ) from error
            raise UserError(
                f"{where} still limits the rate after {self.endpoint.retries} retries ({_said(error)}); try later or with "
                f"--per-minute; {kept}"
            ) from error
        except openai.APITimeoutError as error:
            raise UserError(
                f"{where} gave no answer within {self.endpoint.timeout:g} s, {self.endpoint.retries + 1} times; raise --timeout "
                f"or try later; {kept}"
            ) from error
        except openai.APIConnectionError as error:
            raise UserError(
                f"{where} cannot be reached ({error.__cause__ or error}); see --base-url; {kept}"
            ) from error
        except openai.APIStatusError as error:
            tried = (
                f" after {self.endpoint.retries} retries" if error.status_code >= 500 else ""
            )  # others are not retried
            raise UserError(
                f"{where} failed with status {error.status_code}{tried} ({_said(error)}); try later; {kept}"
            ) from error
        except openai.OpenAIError as error:
            raise UserError(f"{where}: {_said(error)}; {kept}") from error

    def client(self) -> OpenAI:
        if self._client is None:
            check_access(self.endpoint)
            import openai

            self._client = openai.OpenAI(
                api_key=_key() or "none",
                base_url=self.endpoint.base_url,
                timeout=self.endpoint.timeout,
                max_retries=self.endpoint.retries,
                http_client=openai.DefaultHttpxClient(
                    # an endpoint that sends elsewhere is not the one that was named
                    follow_redirects=False,
                    event_hooks={"request": [_silence], "response": [_no_credit]},
                ),
            )
        return self._client


def check_access(endpoint: Endpoint) -> None:
    """Refuse a run that could not send anything.

    Raises:
        UserError: the client is not installed, or OpenAI's endpoint is meant and there is no key.
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
    key = _key()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"the key in {KEY_VARIABLE} holds signs that no key has; set it again, without spaces or quotes"
        )
    if endpoint.base_url == DEFAULT_URL and not key:
        raise UserError(
            f"no key: set the environment variable {KEY_VARIABLE}, or name another endpoint with --base-url or {URL_VARIABLE} "
            "(a local server needs no key); --dry-run shows what would be sent"
        )


def _silence(request: Any) -> None:
    """Drop the headers in which the client tells about this machine: system, processor, versions."""
    for name in [name for name in request.headers if name.lower().startswith("x-stainless-")]:
        if name.lower() != "x-stainless-raw-response":  # by which the client itself knows how to hand over the answer
            del request.headers[name]
    request.headers["user-agent"] = "biomedcoop"


def _no_credit(response: Any) -> None:
    """An account without credit answers like a rate limit; waiting does not fill it."""
    if response.status_code == 429 and b"insufficient_quota" in response.read():
        response.headers["x-should-retry"] = "false"


def _key() -> str:
    """The user's key; the line end that a file leaves behind is no part of it."""
    return os.environ.get(KEY_VARIABLE, "").strip()


def _read_answer(path: Path) -> dict[str, Any] | None:
    """A kept answer, or None if there is none that can be used; a damaged one is asked for again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"sentences": list, "date": str, "model": str, "usage": dict}
        usable = content["sentences"] and all(isinstance(content[key], kind) for key, kind in kinds.items())
        usable = usable and all(isinstance(sentence, str) for sentence in content["sentences"])
        return {key: content[key] for key in kinds} if usable else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _read_reply(text: str) -> dict[str, Any]:
    """Sentences, model and usage of a reply; of one that cannot be used, no sentences and the reason."""
    try:
        reply = json.loads(text)
        json.dumps(reply, ensure_ascii=False).encode()  # half a character is JSON but no text
        choice = reply["choices"][0]
        content = str(choice["message"].get("content") or "")
        about = {"model": str(reply.get("model") or ""), "usage": dict(reply.get("usage") or {})}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return {"sentences": [], "unusable": "the reply is no chat completion"}
    if refusal := choice["message"].get("refusal"):
        return {"sentences": [], "unusable": f"the model refuses: {str(refusal)[:200]}", **about}
    # a model that was asked in words may think aloud first, and put its JSON into a code block or a sentence
    content = content.rpartition("</think>")[2]
    start, end = content.find("{"), content.rfind("}")
    try:
        found = json.loads(content[start : end + 1])["sentences"]
        sentences = [" ".join(s.split()) for s in list.copy(found) if isinstance(s, str) and s.strip()]
        "".join(sentences).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        cut = choice.get("finish_reason") == "length"
        return {
            "sentences": [],
            "unusable": "the answer was cut short" if cut else "the answer is not the JSON asked for",
            **about,
        }
    return {"sentences": sentences, **({} if sentences else {"unusable": "the answer holds no sentence"}), **about}


def _about_the_schema(error: Any) -> bool:
    said = _said(error).lower()
    return any(word in said for word in ("response_format", "json_schema", "schema", "structured"))


def _said(error: Any) -> str:
    """What an endpoint said, in one short line, without the key, which some repeat."""
    body = getattr(error, "body", None)
    text = str((body.get("message") or body) if isinstance(body, dict) else error)
    return " ".join((text.replace(key, "…") if (key := _key()) else text).split())[:200]


def _without_secrets(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
