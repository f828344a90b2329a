"""A fitted classifier: class names, the method's tensors, and the frozen backbone they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.domain import Domain, closing_notes
from biomedcoop.classifier.origin import Origin
from biomedcoop.classifier.sets import PredictionSets
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.images.stacks import Reading
from biomedcoop.data.names import list_names
from biomedcoop.display import shown
from biomedcoop.errors import ImageError, UserError, notify, whole_number
from biomedcoop.notebook import fragment
from biomedcoop.progress import ProgressOption
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.methods.base import State

Floats = npt.NDArray[np.float32]


MOST_TOGETHER = 1024
"""Largest number of images that may be encoded in one pass: 200 MB of crops, and some GB of maps in a tower."""


class Answer(NamedTuple):
    """The prediction of one image.

    Attributes:
        source: the image.
        probabilities: probabilities float32 [C], or the error that says why the image cannot be used.
        unlike_training: True if the image is unlike the training images; None for an image that cannot be used, and for a
            classifier that cannot tell.
        members: whether each class is in the prediction set, bool [C]; None for an image that cannot be used, and for a classifier
            without sets.
    """

    source: ImageSource
    probabilities: Floats | ImageError
    unlike_training: bool | None
    members: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """A fitted classifier; :func:`biomedcoop.fit` returns it and :func:`biomedcoop.load` reads it.

    Attributes:
        class_names: C names; column c of the probabilities belongs to ``class_names[c]``.
        method: name of the adaptation method.
        state: tensors of the method; for text-based methods the class embeddings [C, E], so that prediction needs no text tower.
        backbone: model whose features ``logits`` takes: the frozen one that the tensors belong to, or, after a method that trains
            the towers, its changed copy (``backbone.original`` is the frozen one).
        settings: settings of the method, JSON values.
        facts: origin of the classifier, JSON values: dataset, shots, seed, notes, digests of the training images, metrics, in
            ``depths`` the bit depths guessed for training images above 8 bits, in ``reading`` the window and frames of DICOM files.
        temperature: number above 0 that divides the logits; 1 leaves them unchanged.
        domain: mean features of the training images, which show whether an image is unlike them; None without training images,
            with too few of them, or after a change of classes.
        sets: what its prediction sets need; None for a classifier without them, and after a change of classes.
        origin: where it was read from; None for one that was not read, and for a changed copy.

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
    domain: Domain | None = None
    sets: PredictionSets | None = None
    origin: Origin | None = field(default=None, init=False)  # dataclasses.replace leaves it out

    def __repr__(self) -> str:
        known = [f"{name}={self.facts[name]!r}" for name in ("dataset", "shots", "seed") if name in self.facts]
        facts = [f"method={self.method!r}", f"backbone={self.backbone.name!r}", *known]
        return f"Classifier({', '.join(facts)}, {list_names(self.class_names)})"

    def _repr_html_(self) -> str:
        """What the classifier is and where it comes from, for a notebook."""
        known = ("dataset", "shots", "seed", "recipe", "sentences", "simulated")
        rows = [["method", self.method], ["backbone", self.backbone.name], ["classes", ", ".join(self.class_names)]]
        rows += [[name, str(self.facts[name])] for name in known if self.facts.get(name) is not None]
        rows += [[name, str(value)] for name, value in self.settings.items()]
        return fragment("Classifier", ["", ""], rows, ["Not a medical device."])

    @property
    def reading(self) -> Reading:
        """How it reads files with windows and frames: as its training images were read."""
        return Reading.of(self.facts.get("reading") or {})

    def read_with(self, window: str | None = None, frame: str | None = None) -> Classifier:
        """The same classifier with another window or choice of frames; None keeps its own.

        Args:
            window, frame: see :func:`biomedcoop.load_dataset`.

        Raises:
            UserError: there is no such window or choice of frames.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:kidney-ct?train=1&val=0&test=1")
            >>> bc.fit(data, method="zero-shot").read_with(window="soft").reading.window
            'soft'
        """
        own = self.reading
        other = Reading(own.window if window is None else window, own.frame if frame is None else frame)
        return self if other == own else replace(self, facts={**self.facts, "reading": vars(other)})

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits [N, C] from raw image features [N, E], on the features' device and with their gradient.

        Args:
            features: as the backbone's ``encode_image`` gives them, without a norm of 1.

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
        from biomedcoop.methods.base import state_on

        state = state_on(self.state, features.device)
        logits = get_method(self.method).logits(state, features, self.backbone)
        return logits if self.temperature == 1 else logits / self.temperature

    def probabilities(self, features: Floats) -> Floats:
        """Compute probabilities float32 [N, C] from raw image features [N, E].

        Args:
            features: those of :func:`biomedcoop.embed`, for example; float32.

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

    def predict_stream(
        self, sources: Iterable[Any], batch: int | None = None, tally: Tally | None = None
    ) -> Iterator[Answer]:
        """Predict images one by one, in order; memory does not grow with the number of images.

        After the last image, warnings (:class:`biomedcoop.errors.Note`) tell of unusual images: different bit depths, images of
        one colour, files with several frames, images unlike the training images.

        Args:
            sources: images in any form that :meth:`predict_proba` accepts.
            batch: images that go through the image tower together; by default as many as suit the backbone and the device. The
                last bits of probabilities can depend on it.
            tally: counts unusual images; with it there are no warnings, see :func:`biomedcoop.classifier.domain.closing_notes`.

        Yields:
            An :class:`Answer` for each image: the image, its probabilities [C] or the :class:`ImageError` that says why it cannot
            be used, whether it is unlike the training images, and which classes are in its prediction set.

        Raises:
            UserError: an element is not an image.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> for image, answer, unlike, _ in classifier.predict_stream([data.images[0], b"no image"]):
            ...     print("skipped" if isinstance(answer, bc.ImageError) else answer.shape, unlike)
            (3,) None
            skipped None
        """
        from biomedcoop.features.parallel import batched
        from biomedcoop.features.passes import image_batch, rows_of_a_pass
        from biomedcoop.features.stream import stream_features

        batch = None if batch is None else whole_number("batch", batch, 16, 1, MOST_TOGETHER)
        if batch not in (None, 1) and self.backbone.precision == "int8":
            raise UserError("with precision int8 images are encoded one by one; leave --batch out")
        told, tally = tally is not None, tally or Tally.after(self.facts)
        ahead, size = max(16, 2 * (batch or 0)), batch or image_batch(self.backbone)
        for part in batched(stream_features(self.backbone, self.reading.sources(sources), ahead, tally, size), size):
            features = [feature for _, feature in part if not isinstance(feature, ImageError)]
            rows_of_answers = rows_of_a_pass(len(features), size, self.backbone)
            answers = (
                self._answers(features, rows_of_answers)
                if features
                else np.zeros((0, len(self.class_names)), np.float32)
            )
            rows = iter(answers)
            sets = iter(self.members(np.stack(features), answers) if self.sets is not None and features else ())
            unlike = self.domain.unlike(np.stack(features)).tolist() if self.domain is not None and features else []
            tally.unlike += sum(unlike)
            marks = iter(unlike)
            for source, feature in part:
                if isinstance(feature, ImageError):
                    yield Answer(source, feature, None, None)
                else:
                    yield Answer(source, next(rows), next(marks, None), next(sets, None))
        if not told:
            notify(closing_notes(tally, self.facts))

    def _answers(self, features: Sequence[Floats], size: int) -> Floats:
        """Probabilities [n, C] of at most ``size`` features [E].

        The features are padded with zeros to ``size`` rows: the last bits of a matrix product can depend on its shape, and the
        prediction of an image must not depend on its neighbours. Padding is left out if each row costs a pass of the text tower.
        """
        from biomedcoop.methods import get_method

        n = len(features)
        rows = n if get_method(self.method).abilities.prompts_per_image else size
        filled = np.zeros((rows, self.backbone.embed_dim), dtype=np.float32)
        filled[:n] = features
        return self.probabilities(filled)[:n]

    def predict_proba(self, images: Any, *, progress: ProgressOption = None) -> Floats:
        """Predict the probabilities of images, float32 [N, C], columns in the order of ``class_names``.

        Args:
            images: one image or several. One image is a path, a Pillow image, a file's bytes, an open file, or a uint8 or uint16
                array or tensor: [H, W], [H, W, 3] in the order red, green, blue, or [H, W, 4] with alpha. Several images are a
                list, a pandas column or another iterable of those, a table or an array of paths with one column, or an array
                [N, H, W, 3] or [N, H, W]. "film.dcm#3" is frame 3 of a file; see :meth:`read_with` for a window and a frame.
                See :func:`biomedcoop.data.images.sources.as_sources`.
            progress: see :func:`biomedcoop.fit`.

        Raises:
            ImageError: an image cannot be read.
            UserError: an element is not an image, a file holds several, or the channels of an array are not its last axis.

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
        rows: list[Floats] = []
        total = len(images) if isinstance(images, (list, tuple)) else 0
        with shown(progress) as tell:
            for answer in self.predict_stream(images):
                if isinstance(answer.probabilities, ImageError):
                    raise answer.probabilities
                rows.append(answer.probabilities)
                tell("predicting", len(rows), total)
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), dtype=np.float32)

    def members(self, features: Floats, probabilities: Floats | None = None) -> npt.NDArray[np.bool_]:
        """Whether each class is in the prediction set of each image, bool [N, C], from raw image features [N, E].

        The predicted class is always in it: a set without it would contradict the prediction, and coverage only rises.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=12&val=0&test=1")
            >>> classifier = bc.fit(data, method="simpleshot", alpha=0.2)
            >>> features = np.random.default_rng(1).normal(size=(2, classifier.backbone.embed_dim)).astype("float32")
            >>> classifier.members(features).shape
            (2, 3)

        Args:
            features: raw features.
            probabilities: their :meth:`probabilities`, if they are known.

        Raises:
            UserError: the classifier was fitted without ``alpha``.
        """
        if self.sets is None:
            raise UserError("this classifier has no prediction sets; fit it with alpha, e.g. alpha=0.1")
        p = self.probabilities(features) if probabilities is None else probabilities
        found = self.sets.members(self, features, p)
        found[np.arange(len(p)), p.argmax(1)] = True
        return found

    def predict_sets(self, images: Any, *, progress: ProgressOption = None) -> list[tuple[str, ...]]:
        """Predict a set of classes for each image, which misses the true class in at most a share ``alpha`` of images.

        Abstain where a set has not exactly one class. The promise holds for images that are exchangeable with the calibration
        images: of the same source, and in the same class mix unless the sets are by class. Arguments are those of
        :meth:`predict_proba`.

        Returns:
            The class names of each set, in the order of ``class_names``.

        Raises:
            UserError: the classifier was fitted without ``alpha``.
            ImageError: an image cannot be read.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=8&val=0&test=1")
            >>> classifier = bc.fit(data, method="tip-adapter", shots=8, alpha=0.3)
            >>> sets = classifier.predict_sets(list(data.part("test").images))
            >>> len(sets), all(set(one) <= set(classifier.class_names) for one in sets)
            (3, True)
        """
        self.members(np.zeros((0, self.backbone.embed_dim), dtype=np.float32))  # before the images are encoded
        found = []
        total = len(images) if isinstance(images, (list, tuple)) else 0
        with shown(progress) as tell:
            for answer in self.predict_stream(images):
                if isinstance(answer.probabilities, ImageError):
                    raise answer.probabilities
                assert answer.members is not None
                found.append(
                    tuple(name for name, inside in zip(self.class_names, answer.members, strict=True) if inside)
                )
                tell("predicting", len(found), total)
        return found

    def predict(self, images: Any, *, progress: ProgressOption = None) -> list[str]:
        """Predict the class name of each image; the first class wins a tie. Arguments are those of :meth:`predict_proba`.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> classifier = bc.fit(data, method="zero-shot")
            >>> answers = classifier.predict(list(data.part("test").images))
            >>> len(answers), set(answers) <= set(classifier.class_names)
            (3, True)
        """
        return [self.class_names[i] for i in self.predict_proba(images, progress=progress).argmax(1)]

    def for_classes(self, class_names: Sequence[str], prompts: str | os.PathLike[str] = "auto") -> Classifier:
        """Make a classifier for other classes without images of them: the learned context is combined with the new names.

        Args:
            class_names: all classes of the new classifier, known or new.
            prompts: sentences about the classes; only for a method that uses sentences and no images, see
                :func:`biomedcoop.prompts.sentences_for`.

        Raises:
            UserError: the method cannot take new classes (the message names methods that can), there are fewer than two names,
                a name appears twice, or a name does not fit into the backbone's context.

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

    def push_to_hub(self, name: str, *, private: bool = True, overwrite: bool = False) -> str:
        """Publish the artefact on the Hugging Face hub; see :func:`biomedcoop.classifier.on_hub.publish`.

        Example:
            >>> import biomedcoop as bc
            >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
            >>> bc.fit(data, method="zero-shot").push_to_hub("ultrasound")
            Traceback (most recent call last):
            biomedcoop.errors.UserError: 'ultrasound' names no model of the Hugging Face hub; write it as hf://owner/name or hf://owner/name@revision
        """
        from biomedcoop.classifier.on_hub import publish

        return publish(self, name, private=private, overwrite=overwrite)
