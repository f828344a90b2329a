"""Answers of the language model: kept on disk under a hash of the request, and read with care.

Asking again is therefore resuming, adding sentences and repeating at once: only a request without a kept answer is sent.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from biomedcoop.output import explain, replace_file
from biomedcoop.prompts.generation.client import Client
from biomedcoop.prompts.generation.endpoint import Endpoint
from biomedcoop.prompts.generation.request import Wanted, request_body


class Answers:
    """Answers of one endpoint, from a folder or, where it lacks one, from the endpoint.

    Args:
        endpoint: where requests go.
        folder: where answers are kept.
    """

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.client = Client(endpoint)

    def ask(self, wanted: Wanted, class_name: str, number: int) -> dict[str, Any]:
        """The answer of one round: ``sentences``, date, model and usage; without sentences, ``unusable`` says why."""
        body = request_body(wanted, self.endpoint, class_name, number)
        key = hashlib.sha256(json.dumps([self.endpoint.base_url, body], sort_keys=True).encode()).hexdigest()[:24]
        path = self.folder / f"{key}.json"
        if (kept := _read_answer(path)) is not None:
            return {**kept, "key": key}
        text = self.client.send(body)
        answer = {"key": key, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **_read_reply(text)}
        if answer["sentences"]:
            record = {**answer, "request": body, "endpoint": self.endpoint.address, "reply": text}
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                replace_file(path, [json.dumps(record, indent=1, ensure_ascii=False).encode()])
            except OSError as error:
                raise explain(path, error) from error
        return answer


def _read_answer(path: Path) -> dict[str, Any] | None:
    """A kept answer; None if it is missing or damaged, so that it is asked for again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"sentences": list, "date": str, "model": str, "usage": dict}
        usable = content["sentences"] and all(isinstance(content[key], kind) for key, kind in kinds.items())
        usable = usable and all(isinstance(sentence, str) for sentence in content["sentences"])
        return {key: content[key] for key in kinds} if usable else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _read_reply(text: str) -> dict[str, Any]:
    """Sentences, model and usage of a reply; no sentences and the reason where it cannot be used."""
    try:
        reply = json.loads(text)
        json.dumps(reply, ensure_ascii=False).encode()  # half a character is JSON but no text
        choice = reply["choices"][0]
        content = str(choice["message"].get("content") or "")
        about = {"model": str(reply.get("model") or ""), "usage": dict(reply.get("usage") or {})}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return {"sentences": [], "unusable": "the reply is not a chat completion"}
    if refusal := choice["message"].get("refusal"):
        return {"sentences": [], "unusable": f"the model refuses: {str(refusal)[:200]}", **about}
    # a model that was asked in words may think aloud first, and put its JSON into a code block or a sentence
    content = content.rpartition("</think>")[2]
    start, end = content.find("{"), content.rfind("}")
    try:
        listed = json.loads(content[start : end + 1])["sentences"]
        sentences = [" ".join(s.split()) for s in list.copy(listed) if isinstance(s, str) and s.strip()]
        "".join(sentences).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        cut = choice.get("finish_reason") == "length"
        return {
            "sentences": [],
            "unusable": "the answer was cut short" if cut else "the answer is not the JSON that was asked for",
            **about,
        }
    return {"sentences": sentences, **({} if sentences else {"unusable": "the answer holds no sentence"}), **about}
