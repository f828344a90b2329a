"""The published example of BiomedCLIP's model card: nine images, nine classes, no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from biomedcoop.backbones.catalogue import BACKBONES, HubFiles
from biomedcoop.backbones.fetch import download, get_files
from biomedcoop.backbones.registry import load_backbone, weights_root
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.errors import UserError
from biomedcoop.progress import Progress

EXAMPLE_OF = "biomedclip"
TEMPLATE = "this is a photo of {}"
FOLDER = "example_data/biomed_image_classification_example_data"
IMAGES: Mapping[str, str] = {
    "squamous_cell_carcinoma_histopathology.jpeg": "squamous cell carcinoma histopathology",
    "H_and_E_histopathology.jpg": "hematoxylin and eosin histopathology",
    "bone_X-ray.jpg": "bone X-ray",
    "adenocarcinoma_histopathology.jpg": "adenocarcinoma histopathology",
    "covid_line_chart.png": "covid line chart",
    "IHC_histopathology.jpg": "immunohistochemistry histopathology",
    "chest_X-ray.jpg": "chest X-ray",
    "brain_MRI.jpg": "brain MRI",
    "pie_chart.png": "pie chart",
}
"""Image -> its class; the classes of the example are these nine."""


@dataclass(frozen=True)
class Answer:
    """What the backbone says about one image of the example.

    Attributes:
        image: name of the file.
        expected: its class.
        answer: the class with the highest probability.
        probability: of the answer.
    """

    image: str
    expected: str
    answer: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the image's class came first."""
        return self.answer == self.expected


def selftest(name: str = EXAMPLE_OF, *, offline: bool = False, progress: Progress | None = None) -> list[Answer]:
    """Run the published example; backbone and images are downloaded if they are not here.

    Source: model card of microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224.

    Args:
        offline: use no network.

    Returns:
        The answer for each image. The example shows that each image's class comes first.

    Raises:
        UserError: no example is known for the backbone, or a file cannot be had.
    """
    import torch
    from torch.nn.functional import normalize

    if name != EXAMPLE_OF:
        raise UserError(f"'{name}' has no published example; only {EXAMPLE_OF} has one ('backbones verify' checks any)")
    (source,) = BACKBONES[name].sources
    download(name, offline=offline, progress=progress)
    images = HubFiles(source.repo, tuple(f"{FOLDER}/{image}" for image in IMAGES), source.kind, source.revision)
    folder = get_files([images], weights_root() / f"{name}-example", offline=offline, progress=progress)
    backbone = load_backbone(name)
    crops = [resize_and_crop(read_image(folder / image), backbone.image_size) for image in IMAGES]
    classes = list(IMAGES.values())
    with torch.inference_mode():
        seen = normalize(backbone.encode_image(backbone.normalize(np.stack(crops))).float(), dim=-1)
        told = normalize(backbone.encode_text([TEMPLATE.format(one) for one in classes]).float(), dim=-1)
        best = (backbone.logit_scale * seen @ told.T).softmax(dim=1).max(dim=1)
    return [
        Answer(image, expected, classes[place], probability)
        for (image, expected), place, probability in zip(
            IMAGES.items(), best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
