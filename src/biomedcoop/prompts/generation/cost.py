"""What a run sends and costs, estimated before anything is sent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from biomedcoop.errors import UserError
from biomedcoop.prompts.generation.endpoint import DEFAULT_URL, Endpoint
from biomedcoop.prompts.generation.request import PER_REQUEST, Wanted, request_body

PRICES = {"gpt-4.1-mini": (0.40, 1.60), "gpt-4.1": (2.00, 8.00), "gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.50, 10.00)}
"""US dollars per million tokens (input, output) at api.openai.com, as published in mid-2026; ``--price`` overrides them."""


@dataclass(frozen=True)
class Estimate:
    """What a run sends and costs, roughly. ``dollars`` is None where the price is unknown."""

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


def estimate(wanted: Wanted, endpoint: Endpoint, price: tuple[float, float] | None = None) -> Estimate:
    """Estimate requests, tokens and dollars, at four characters per token and with a tenth of the sentences dropped.

    Args:
        price: US dollars per million tokens, input and output; by default the list price, known for OpenAI's own endpoint only.
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


def parse_price(text: str) -> tuple[float, float]:
    """``"0.40,1.60"`` -> (0.4, 1.6): US dollars per million tokens, input and output.

    Raises:
        UserError: it is not two numbers of 0 or more.
    """
    try:
        of_input, of_output = map(float, text.split(","))
        if not (0 <= of_input < 1e6 and 0 <= of_output < 1e6):
            raise ValueError
    except ValueError as error:
        raise UserError(f"--price '{text}': want two numbers, US dollars per million tokens, e.g. 0.40,1.60") from error
    return of_input, of_output
