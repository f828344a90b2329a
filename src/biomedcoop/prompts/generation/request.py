"""What is asked of the language model: a few sentences about one aspect of one class.

Nothing but class names, modality and organ is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from biomedcoop.errors import UserError
from biomedcoop.prompts.checks import FEWEST_WORDS, MOST_WORDS
from biomedcoop.prompts.generation.endpoint import Endpoint

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


@dataclass(frozen=True)
class Wanted:
    """The sentences that are wanted; nothing else of the user's is sent.

    Attributes:
        class_names: classes of the task, at least two.
        modality, organ: e.g. "CT", "kidney".
        n: different sentences per class.
    """

    class_names: Sequence[str]
    modality: str
    organ: str
    n: int = 50


def messages(wanted: Wanted, class_name: str, round_number: int) -> list[dict[str, str]]:
    """The request of one round for one class; rounds repeat the list of aspects."""
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
    """The request as JSON."""
    body: dict[str, Any] = {"model": endpoint.model, "messages": messages(wanted, class_name, round_number)}
    if endpoint.temperature is not None:
        body["temperature"] = endpoint.temperature
    if endpoint.structured:
        body["response_format"] = SCHEMA
    return body


def check_wanted(wanted: Wanted) -> None:
    """Refuse a request that cannot be made, before anything is sent.

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
            raise UserError(f"{what} '{text}' must be one or more words, on one line")
