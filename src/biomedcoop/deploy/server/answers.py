"""The answers of a server as JSON values: probabilities of images, and the reasons for one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from biomedcoop.classifier.domain import closing_notes
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.stacks import single_frame_notes
from biomedcoop.deploy.server.images import UploadedImage
from biomedcoop.deploy.server.limits import RefusedFile, RefusedRequest
from biomedcoop.deploy.server.models import ServedModel
from biomedcoop.deploy.server.work import Deadline
from biomedcoop.errors import ImageError, UserError
from biomedcoop.explain.case import case
from biomedcoop.explain.kinds import DEFAULT_MAP
from biomedcoop.explain.saliency import SaliencyMap, saliency

MOST_PIXELS = 900
"""Longest side of an overlay, px."""

MOST_CELLS = 64
"""Longest side of the values of a map, cells."""

NOT_A_DEVICE = "Not a medical device. For research; not for diagnosis or treatment."


def predictions(
    model: ServedModel, images: Sequence[UploadedImage], deadline: Deadline, *, skip_bad: bool = False
) -> dict[str, Any]:
    """A row for each image, in order.

    Raises:
        RefusedRequest: an image cannot be used (unless ``skip_bad``), or the time is over.
    """
    own, rows = model.classifier, []
    tally = Tally.after(own.facts)
    usable = [image.source for image in images if not isinstance(image.source, RefusedFile)]
    answers = iter(own.predict_stream(usable, tally=tally))
    for image in images:
        deadline.check()
        row: dict[str, Any] = {"name": image.name}
        if isinstance(image.source, RefusedFile):
            rows.append({**row, "error": image.source.fault})
            continue
        answer = next(answers)
        if isinstance(answer.probabilities, ImageError):
            if not skip_bad:
                raise RefusedRequest(422, f"{image.name}: {answer.probabilities.reason}")
            rows.append({**row, "error": answer.probabilities.reason})
            continue
        row["prediction"] = own.class_names[int(answer.probabilities.argmax())]
        row["probabilities"] = {
            name: round(float(p), 6) for name, p in zip(own.class_names, answer.probabilities, strict=True)
        }
        if answer.unlike_training is not None:
            row["unlike_training"] = bool(answer.unlike_training)
        if answer.members is not None:
            row["set"] = [name for name, inside in zip(own.class_names, answer.members, strict=True) if inside]
            row["abstain"] = len(row["set"]) != 1
        rows.append(row)
    next(answers, None)  # the stream ends its threads
    notes = [*_frame_notes(model, images), *closing_notes(tally, own.facts, named=False)]
    return {"model": model.name, "predictions": rows, "notes": notes, "note": NOT_A_DEVICE}


def _frame_notes(model: ServedModel, images: Sequence[UploadedImage]) -> list[str]:
    alone = any(image.alone for image in images if not isinstance(image.source, RefusedFile))
    return single_frame_notes(model.classifier.reading, alone)


def explanation(model: ServedModel, image: UploadedImage, class_name: str | None, map: str | None) -> dict[str, Any]:
    """Where in an image the score of a class comes from, and the sentences that the image agrees with.

    Raises:
        RefusedRequest: the image cannot be used, or there is no such class or map.
    """
    if isinstance(image.source, RefusedFile):
        raise image.source
    try:
        (found,) = saliency(model.classifier, image.source, class_name, map or DEFAULT_MAP, progress=False)
        about = case(model.classifier, image.source).to_dict()
    except ImageError as error:
        raise RefusedRequest(422, f"{image.name}: {error.reason}") from None
    except UserError as error:
        raise RefusedRequest(422, str(error)) from None
    sentences = {side: about[side] for side in ("predicted", "rival")}
    return {
        "model": model.name,
        "name": image.name,
        **found.to_dict(),
        "values": _values(found),
        "overlay": _png(found.overlay()),
        "sentences": {"from": about["sentences"], "difference": about["difference"], **sentences},
        "notes": [*_frame_notes(model, [image]), *about["notes"]],
        "note": NOT_A_DEVICE,
    }


def _values(found: SaliencyMap) -> list[list[float | None]]:
    """The map on at most 64 cells along its longest side; None where the model does not see the image."""
    height, width = found.values.shape
    step = max(1, -(-max(height, width) // MOST_CELLS))
    rows = found.values[step // 2 :: step, step // 2 :: step]
    return [[None if np.isnan(value) else round(float(value), 3) for value in row] for row in rows]


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    """An image as a data address."""
    image, content = Image.fromarray(pixels), BytesIO()
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
