"""n different sentences for every class of a task.

The answers pass the checks of ``checks.py`` or are dropped, until every class has n different sentences.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomedcoop.errors import UserError
from biomedcoop.output import check_writable
from biomedcoop.prompts.checks import Collection
from biomedcoop.prompts.generation.answers import Answers
from biomedcoop.prompts.generation.endpoint import Endpoint
from biomedcoop.prompts.generation.request import ASPECTS, PER_REQUEST, SYSTEM, Wanted, check_wanted

MOST_IN_VAIN = 4
"""Requests in a row without a new sentence after which a class is given up."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, sentences so far, sentences wanted)."""


@dataclass
class _Log:
    """Provenance of one run: a line per answer."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    tokens: Counter[str] = field(default_factory=Counter)

    def note(self, answer: dict[str, Any], class_name: str, number: int, kept: int, dropped: Counter[str]) -> None:
        self.requests.append(
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
            self.models.add(answer["model"])
        self.tokens.update({key: value for key, value in answer.get("usage", {}).items() if isinstance(value, int)})


def generate(
    wanted: Wanted, endpoint: Endpoint, cache: Path, progress: Progress | None = None
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """n different sentences for every class, and where they come from.

    Args:
        cache: folder of the answers; a kept answer is not asked for again.
        progress: called before each request.

    Returns:
        Class name -> n sentences; and the provenance: endpoint, models, dates, a line per request, tokens.

    Raises:
        UserError: no key, no endpoint, or an endpoint that does not give enough sentences. Answers so far are kept.
    """
    check_wanted(wanted)
    check_writable(cache)
    answers, log, collection = Answers(endpoint, cache), _Log(), Collection(wanted.class_names)
    total = wanted.n * len(wanted.class_names)

    def tell() -> None:
        if progress is not None:
            progress("writing sentences", sum(map(len, collection.sentences.values())), total)

    for name in wanted.class_names:
        _collect(name, wanted, answers, collection, log, tell)
    tell()
    dates = sorted(request["date"] for request in log.requests)
    provenance = {
        "endpoint": endpoint.address,
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


def _collect(
    name: str, wanted: Wanted, answers: Answers, collection: Collection, log: _Log, tell: Callable[[], None]
) -> None:
    """Ask for sentences of one class until the collection holds n of them."""
    sentences = collection.sentences[name]
    in_vain, reason = 0, ""
    for number in range(_most_rounds(wanted.n)):
        tell()
        before = len(sentences)
        if before >= wanted.n or in_vain >= MOST_IN_VAIN:
            break
        answer = answers.ask(wanted, name, number)
        dropped: Counter[str] = Counter()
        for sentence in answer["sentences"]:
            if len(sentences) == wanted.n:
                break
            if faults := collection.faults(name, sentence):
                dropped[faults[0].kind] += 1
                reason = f"the last: '{textwrap.shorten(sentence, 200)}' {faults[0].text}"
            else:
                collection.add(name, sentence)
        kept = len(sentences) - before
        in_vain = 0 if kept else in_vain + 1
        reason = answer.get("unusable", reason)
        log.note(answer, name, number, kept, dropped)
    if len(sentences) < wanted.n:
        _give_up(name, len(sentences), wanted, answers.endpoint.model, in_vain, reason)


def _give_up(name: str, have: int, wanted: Wanted, model: str, in_vain: int, reason: str) -> None:
    what = "brings no new ones" if in_vain >= MOST_IN_VAIN else "brings too few at a time"
    what += f" ({reason})" if reason else ""
    way = f"ask for fewer with --n {have}, or choose another --model" if have else "see --model and --base-url"
    raise UserError(
        f"class '{name}' has {have} of {wanted.n} sentences and {model} {what}; {way}; the answers so far are kept"
    )


def _most_rounds(n: int) -> int:
    """Most requests for n sentences: five times as many as suffice if none is dropped, plus those that may be in vain."""
    return 5 * math.ceil(n / PER_REQUEST) + MOST_IN_VAIN + 1


def about_file(wanted: Wanted, endpoint: Endpoint, provenance: dict[str, Any], version: str) -> dict[str, Any]:
    """What a file of generated sentences says of itself, beside the sentences.

    Args:
        version: of this package.
    """
    return {
        "modality": wanted.modality,
        "organ": wanted.organ,
        "author": f"language model {endpoint.model}",
        "date": provenance["last_answer"][:10],
        "version": 1,
        "provenance": {"biomedcoop": version, **provenance},
    }
