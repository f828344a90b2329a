"""A classifier as one ONNX file: crops in, probabilities out, and how an image becomes a crop in the metadata.

The graph comes from torch's own exporter. Normalisation, image tower, head and temperature are inside. The file is compared with
torch before it appears under its name.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.extras import imported
from biomedcoop.classifier.artefact import RESIZES
from biomedcoop.classifier.card_header import licence_of
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.readers.named import user_path
from biomedcoop.errors import UserError
from biomedcoop.methods import get_method
from biomedcoop.output import check_new_file, new_file
from biomedcoop.version import __version__

if TYPE_CHECKING:
    from torch import nn

OPSET = 17
"""Version of ONNX's operators in the file: the first with layer normalisation."""

TOLERANCE = 1e-4
"""Largest difference of a probability from torch's."""

INPUT, OUTPUT = "images", "probabilities"

Crops = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Exported(NamedTuple):
    """What :func:`export_onnx` wrote.

    Attributes:
        path: the file.
        difference: largest difference of a probability from torch's, of the float32 graph on three crops of noise.
        int8: for int8, "images" (number of test images), "accuracy" and "accuracy_float32" (shares) and "same" (share of images
            with the same predicted class); None for float32.
    """

    path: Path
    difference: float
    int8: dict[str, float] | None = None


def export_onnx(
    classifier: Classifier,
    path: str | os.PathLike[str],
    *,
    int8: Dataset | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a classifier as one ONNX file that runs with onnxruntime alone.

    Input "images": uint8 [N, S, S, 3], RGB crops. Output "probabilities": float32 [N, C]. N is free. The metadata state how an
    image becomes a crop, the class names, the origin of the model and its licence. The file holds the image tower; its weights
    keep their own licence.

    Args:
        classifier: with a float32 backbone on the CPU.
        path: file to write, ``.onnx``.
        int8: a dataset; the weights are stored as 8-bit integers, and the images of its test split show what the rounding costs.
        overwrite: replace an existing file.

    Raises:
        UserError: the method makes prompts for each image; the backbone is not float32 on a CPU; the file cannot be written; a
            package of the extra ``onnx`` is missing; torch cannot export the backbone; or the file gives other probabilities.
        ImageError: an image of ``int8`` cannot be read.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> classifier = bc.fit(data, method="zero-shot")
        >>> written = bc.export_onnx(classifier, "model.onnx")
        >>> written.difference < 1e-4
        True
    """
    target = user_path(path)
    if target.suffix.lower() != ".onnx":
        raise UserError(f"{target}: the name of an ONNX file ends in .onnx")
    _check(classifier)
    if int8 is not None:
        _check_int8(classifier, int8)
    check_new_file(target, overwrite)
    for module in ("onnx", "onnxruntime"):
        imported(module, module, "onnx", "an export to ONNX")
    with new_file(target) as temporary:
        _write_graph(classifier, temporary)
        _describe(classifier, temporary, "float32")
        difference = _difference(classifier, temporary)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{target}: the exported graph differs from torch by {difference:.1e} in a probability, more than "
                f"{TOLERANCE:.0e}; it is not written. Report this with 'biomedcoop doctor'"
            )
        cost = None
        if int8 is not None:
            cost = _quantise(classifier, temporary, int8)
    return Exported(target, difference, cost)


def _check(classifier: Classifier) -> None:
    """Refuse a classifier that no graph of image features can replace."""
    backbone = classifier.backbone
    if get_method(classifier.method).abilities.prompts_per_image:
        raise UserError(
            f"{classifier.method} runs the text tower for each image and cannot be exported; train another method, e.g. biomedcoop"
        )
    if backbone.device.type != "cpu" or backbone.precision != "float32":
        raise UserError(
            f"the backbone {backbone.name} is in {backbone.precision} on {backbone.device}; load it in float32 on the cpu"
        )


def _check_int8(classifier: Classifier, data: Dataset) -> None:
    check_dataset(data)
    if data.class_names != classifier.class_names:
        raise UserError("the data for int8 have other classes than the classifier; give data with the same classes")
    if not len(data.indices("test")):
        raise UserError("the data for int8 have no test images; give data with a test split")


def _module(classifier: Classifier) -> nn.Module:
    """The classifier as one module: crops uint8 [N, S, S, 3] -> probabilities [N, C]."""
    import torch
    from torch import Tensor, nn

    backbone = classifier.backbone

    class Prediction(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = backbone.image_tower  # its tensors are those of the graph

        def forward(self, images: Tensor) -> Tensor:
            pixels = images.permute(0, 3, 1, 2).float() / 255.0
            mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
            features = backbone.encode_image((pixels - mean) / std)
            return classifier.logits(features).softmax(-1)

    return Prediction().eval()


def _write_graph(classifier: Classifier, file: Path) -> None:
    import torch

    size = classifier.backbone.image_size
    crops = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                _module(classifier),
                (crops,),
                file,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
                opset_version=OPSET,
                dynamo=False,  # the exporter by torch.export takes seven times as long and needs one package more
            )
    except torch.onnx.OnnxExporterError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.startswith("<class")]
        reason = lines[0][:200] if lines else type(error).__name__
        raise UserError(
            f"torch {torch.__version__} cannot export {classifier.method} on {classifier.backbone.name} to ONNX ({reason}); "
            "try a newer torch, or another backbone"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantiser talk to developers: about operators of torchvision, deprecations and steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # torch's loggers have handlers and levels of their own
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def metadata_of(classifier: Classifier, precision: str) -> dict[str, str]:
    """Metadata of the ONNX file: each value is a text, a number or a list in JSON."""
    import torch

    backbone = classifier.backbone
    values: dict[str, Any] = {
        "class_names": list(classifier.class_names),
        "input": "uint8 [N, S, S, 3], RGB; the normalisation is inside the graph",
        "output": "float32 [N, C], probabilities in the order of class_names",
        "image_size": backbone.image_size,
        "orientation": "that of EXIF is applied before all else, as Pillow's ImageOps.exif_transpose does",
        "transparency": "put on black before the resizing, as Pillow's Image.alpha_composite does",
        **RESIZES[backbone.resize],
        "interpolation": "Pillow's BICUBIC, antialiased, on 8-bit RGB",
        "window": classifier.reading.window,  # how values of DICOM files and volumes became 8-bit pixels
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "temperature": classifier.temperature,
        "method": classifier.method,
        "backbone": backbone.original.name,
        "fingerprint": backbone.fingerprint,
        "precision": precision,
        "opset": OPSET,
        "biomedcoop_version": __version__,
        "torch_version": torch.__version__,
        "licence": licence_of(backbone.original.name) or "that of the backbone's weights",
        "disclaimer": "Not a medical device. For research; not for diagnosis or treatment.",
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _describe(classifier: Classifier, file: Path, precision: str) -> None:
    import onnx

    model = onnx.load(file)
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "biomedcoop", __version__
    for node in model.graph.node:  # the exporter leaves stack traces with the paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    onnx.helper.set_model_props(model, metadata_of(classifier, precision))
    onnx.save(model, file)


def _run(file: Path, crops: Crops) -> Floats:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    rows = [session.run([OUTPUT], {INPUT: crops[i : i + 16]})[0] for i in range(0, len(crops), 16)]
    return np.concatenate(rows).astype(np.float32)


def _difference(classifier: Classifier, file: Path) -> float:
    """Largest difference of a probability on three crops of noise: another number of images than that of the export."""
    import torch

    size = classifier.backbone.image_size
    crops = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        features = classifier.backbone.encode_image(classifier.backbone.normalize(crops))
    return float(np.abs(_run(file, crops) - classifier.probabilities(features.numpy())).max())


def _crops(classifier: Classifier, data: Dataset) -> Crops:
    backbone = classifier.backbone
    return np.stack([resize_and_crop(read_image(image), backbone.image_size, backbone.resize) for image in data.images])


def _quantise(classifier: Classifier, file: Path, data: Dataset) -> dict[str, float]:
    """Replace a float32 file by its int8 twin; returns the cost on the test images."""
    test = data.part("test")
    crops = _crops(classifier, test)
    before = _run(file, crops).argmax(1)
    _round_weights(file)
    _describe(classifier, file, "int8")
    after = _run(file, crops).argmax(1)
    return {
        "images": len(crops),
        "accuracy": float((after == test.labels).mean()),
        "accuracy_float32": float((before == test.labels).mean()),
        "same": float((after == before).mean()),
    }


def _round_weights(file: Path) -> None:
    """Store the weights of convolutions and products as int8 with a scale for each output; onnxruntime multiplies them out once,
    when it loads the file, which it would do anew for each batch with DequantizeLinear.

    Activations stay float32. Rounded too, they change many predictions of small towers, and integers are hardly quicker on a
    processor without instructions for them.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(file)
    stored = {one.name: one for one in model.graph.initializer}
    nodes = []
    for node in list(model.graph.node):
        weights = stored.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if weights is None or weights.data_type != onnx.TensorProto.FLOAT or len(weights.dims) < 2:
            continue
        del stored[weights.name]  # of several nodes that share it, the first says which axis holds the outputs
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        axis = 0 if node.op_type == "Conv" or turned else len(weights.dims) - 1
        values = numpy_helper.to_array(weights)
        largest = np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis), keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        rounded, scales, whole = (f"{weights.name}_{part}" for part in ("int8", "scale", "whole"))
        model.graph.initializer.remove(weights)
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(np.rint(values / scale).astype(np.int8), rounded),
                numpy_helper.from_array(scale, scales),
            ]
        )
        nodes += [
            helper.make_node("Cast", [rounded], [whole], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [whole, scales], [weights.name]),
        ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, file)
