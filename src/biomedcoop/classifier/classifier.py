"""A fitted classifier: class names, the method's tensors, and the frozen backbone they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.sources import ImageSource, as_sources
from biomedcoop.errors import ImageError, notify
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.methods.base import State

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Classifier:
    """What :func:`biomedcoop.fit` returns and :func:`biomedcoop.load` reads.

    Attributes:
        class_names: C names; column c of every probability belongs to ``class_names[c]``.
        method: name of the adaptation method.
        state: its tensors; for text-based methods the class embeddings [C, E], so that no text tower runs.
        backbone: the frozen model the tensors belong to.
        settings: the method's settings, JSON values.
        facts: what it was trained on, JSON values (dataset, shots, seed, notes, digests of the training images, metrics, and as
            ``depths`` the bits that were guessed for training images above 8 bits).
        temperature: number above 0 by which the method's logits are divided; 1 leaves them as they are.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> classifier = bc.fit(data, method="zero-shot")
        >>> classifier.class_names
        ('benign tumor', 'malignant tumor', 'normal scan')
    """

    class_names: tuple[str, ...]
    method: str
    state: State
    backbone: Backbone
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0

    def logits(self, features: Tensor) -> Tensor:
        """Raw image features [N, E] -> logits [N, C], on the device of the features and differentiable in them.

        Example:
            >>> import biomedcoop as bc
            >>> import torch
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> features = torch.ones(4, classifier.backbone.embed_dim, requires_grad=True)
            >>> logits = classifier.logits(features)
            >>> logits.shape, logits.requires_grad
            (torch.Size([4, 3]), True)
        """
        from biomedcoop.methods import get_method

        state = {name: tensor.to(features.device) for name, tensor in self.state.items()}
        logits = get_method(self.method).logits(state, features, self.backbone)
        return logits if self.temperature == 1 else logits / self.temperature

    def probabilities(self, features: Floats) -> Floats:
        """Raw image features [N, E] -> probabilities float32 [N, C].

        Example:
            >>> import biomedcoop as bc
            >>> import numpy as np
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> features = np.ones((4, classifier.backbone.embed_dim), dtype=np.float32)
            >>> classifier.probabilities(features).shape
            (4, 3)
        """
        import torch

        # a product this small is over before a second thread has helped, and threads are of no use in a forked process
        with torch_threads(1), torch.inference_mode():
            return self.logits(torch.from_numpy(features)).softmax(-1).numpy()

    def predict_stream(self, sources: Iterable[Any]) -> Iterator[tuple[ImageSource, Floats | ImageError]]:
        """Predict any number of images in order; memory does not grow with their number.

        After the last one a warning (:class:`biomedcoop.errors.Note`) tells what a user should know of the images: depths that
        differ, images of one colour, files with several frames.

        Args:
            sources: images as :meth:`predict_proba` takes them.

        Yields:
            The source and its probabilities [C], or the error that says why the image cannot be used.

        Raises:
            UserError: an element that is no image at all.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> for image, answer in classifier.predict_stream([data.images[0], b"no image"]):
            ...     print("skipped" if isinstance(answer, bc.ImageError) else answer.shape)
            (3,)
            skipped
        """
        from biomedcoop.features.parallel import batched
        from biomedcoop.features.passes import image_batch
        from biomedcoop.features.stream import stream_features

        tally, size = Tally(tuple(self.facts.get("depths", ()))), image_batch(self.backbone)
        for batch in batched(stream_features(self.backbone, as_sources(sources), tally=tally), size):
            found = [feature for _, feature in batch if not isinstance(feature, ImageError)]
            rows = iter(self._answers(found, size) if found else ())
            for source, feature in batch:
                yield source, feature if isinstance(feature, ImageError) else next(rows)
        notify(tally.notes())

    def _answers(self, features: Sequence[Floats], size: int) -> Floats:
        """Probabilities [n, C] of at most ``size`` features [E].

        Zeros fill up to ``size`` rows, because the bits of a product can depend on its shape, and an answer must not depend on
        its neighbours. They are left out where each row costs a pass of the text tower.
        """
        from biomedcoop.methods import get_method

        n = len(features)
        rows = n if get_method(self.method).abilities.prompts_per_image else size
        filled = np.zeros((rows, self.backbone.embed_dim), dtype=np.float32)
        filled[:n] = features
        return self.probabilities(filled)[:n]

    def predict_proba(self, images: Any) -> Floats:
        """Probabilities of images, float32 [N, C], columns in the order of ``class_names``.

        Args:
            images: one image or several. One is a path, a Pillow image, a file's bytes, an open file, or a uint8 or uint16
                array or tensor [H, W], [H, W, 3] in the order red, green, blue, or [H, W, 4] with alpha. Several are a list, a
                pandas column or any iterable of those, or an array [N, H, W, 3] or [N, H, W].
                See :func:`biomedcoop.data.images.sources.as_sources`.

        Raises:
            ImageError: an image cannot be read.
            UserError: an element is no image, or an array has its channels first.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> probabilities = classifier.predict_proba(list(data.part("test").images))
            >>> probabilities.shape
            (3, 3)
            >>> probabilities.sum(axis=1).round(5).tolist()
            [1.0, 1.0, 1.0]
        """
        rows = []
        for _, row in self.predict_stream(images):
            if isinstance(row, ImageError):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), dtype=np.float32)

    def predict(self, images: Any) -> list[str]:
        """Most probable class name of each image (the first of equals); images as in :meth:`predict_proba`.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> answers = classifier.predict(list(data.part("test").images))
            >>> len(answers), set(answers) <= set(classifier.class_names)
            (3, True)
        """
        return [self.class_names[i] for i in self.predict_proba(images).argmax(1)]

    def for_classes(self, class_names: Sequence[str], prompts: str | os.PathLike[str] = "auto") -> Classifier:
        """The same classifier for other classes, of which no image is needed: what it learned is put before their names.

        Args:
            class_names: all classes that the new classifier tells apart, known or new.
            prompts: sentences of the classes, for a method that is made of nothing else; see
                :func:`biomedcoop.prompts.sentences_for`.

        Raises:
            UserError: the method learned its classes from images (the line names methods that can do it), fewer than two
                names, one twice, or one that does not fit into the backbone's context.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> classifier.for_classes(["cyst", "fibroadenoma"]).class_names
            ('cyst', 'fibroadenoma')
        """
        from biomedcoop.classifier.new_classes import for_classes

        return for_classes(self, class_names, prompts)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the artefact; see :func:`biomedcoop.classifier.artefact.save`.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> bc.fit(data, method="zero-shot").save("model")
            >>> bc.load("model").class_names
            ('benign tumor', 'malignant tumor', 'normal scan')
        """
        from biomedcoop.classifier.artefact import save

        save(self, Path(folder), overwrite=overwrite)
