"""``evaluation.json``: where the model and the images of an evaluation are, so that its page can be written again.

It holds full paths and stays on the user's machine; no other file of the folder needs it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedcoop.classifier.origin import Origin
from biomedcoop.errors import UserError
from biomedcoop.report.reading import read_json

INPUTS = "evaluation.json"

FORMAT_VERSION = 1


@dataclass(frozen=True)
class EvaluationInputs:
    """What an evaluation was given.

    Attributes:
        data: absolute path or name of the data; None for a loaded dataset.
        split_file: absolute path of the split JSON, or None.
        images: whether its page shows images, maps and names of images.
        model: where the classifier was read from; None for one that was not saved, or was changed since.
    """

    data: str | None
    split_file: str | None
    images: bool
    model: Origin | None

    def to_dict(self) -> dict[str, Any]:
        """The inputs as plain JSON values."""
        return {"format": FORMAT_VERSION, **dataclasses.asdict(self)}


def read_inputs(folder: Path) -> EvaluationInputs | None:
    """The inputs of the evaluation in a folder; None if the folder lacks the file.

    Raises:
        UserError: the file holds something else.
    """
    file = folder / INPUTS
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        if content.pop("format") != FORMAT_VERSION:
            raise TypeError("another format")
        model = content.pop("model")
        inputs = EvaluationInputs(**content, model=None if model is None else Origin(**model))
        texts = [inputs.data, inputs.split_file, *([] if model is None else model.values())]
        if type(inputs.images) is not bool or not all(text is None or isinstance(text, str) for text in texts):
            raise TypeError("a value of another type")
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not the inputs of an evaluation ({error}); evaluate again") from error
    return inputs
