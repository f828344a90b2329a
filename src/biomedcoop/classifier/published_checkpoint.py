"""What a checkpoint of the published code holds: the learned tensors of a context method, and copies of frozen ones.

BiomedCoOp's trainer saves the whole model, with ``prompt_learner.ctx`` among both frozen towers; the trainers of CoOp, CoCoOp,
KgCoOp and ProGrad save the prompt learner alone. Beside the context stand the word embeddings of the class names in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.restricted_pickle import StoredTensor
from biomedcoop.backbones.torch_archive import TorchArchive
from biomedcoop.errors import UserError
from biomedcoop.methods.base import State

if TYPE_CHECKING:
    from torch import Tensor

LEARNER = "prompt_learner."
NETWORK = {
    "meta_net.linear1.weight": "network.weight1",
    "meta_net.linear1.bias": "network.bias1",
    "meta_net.linear2.weight": "network.weight2",
    "meta_net.linear2.bias": "network.bias2",
}
"""CoCoOp's tensors in a checkpoint -> in a state of :mod:`biomedcoop.methods.cocoop`."""

SAME_PREDICTION = ("biomedcoop", "coop", "kgcoop", "prograd")
"""Methods that predict in the same way from their context; their training differs."""


class PublishedCheckpoint:
    """The tensors of a checkpoint by their purpose.

    Attributes:
        whole: the file holds the whole model, as BiomedCoOp's trainer saves it.
        learner: tensors of the prompt learner, without "prompt_learner.".
        towers: all other tensors: copies of the frozen model.
        epochs: number of passes over the training images, or None where the file does not say.

    Raises:
        UserError: the file holds no learned context.
    """

    def __init__(self, archive: TorchArchive) -> None:
        self.archive, self.path = archive, archive.path
        content = archive.content
        state = content.get("state_dict") if type(content) is dict else None
        if type(state) is not dict or not all(
            type(key) is str and type(value) is StoredTensor for key, value in state.items()
        ):
            raise UserError(
                f"{self.path}: has no 'state_dict' of tensors; give a model.pth.tar file of prompt learning"
            )
        state = {key.removeprefix("module."): value for key, value in state.items()}
        self.whole = f"{LEARNER}ctx" in state
        self.learner: dict[str, StoredTensor] = {}
        self.towers: dict[str, StoredTensor] = {}
        for key, value in state.items():
            # the prompt learner of the whole model also holds a copy of the image tower
            if self.whole and (not key.startswith(LEARNER) or "image_encoder" in key):
                self.towers[key] = value
            else:
                self.learner[key.removeprefix(LEARNER)] = value
        if "ctx" not in self.learner:
            held = ", ".join(sorted(state)[:3]) or "nothing"
            raise UserError(
                f"{self.path}: has no learned context ('{LEARNER}ctx' or 'ctx'), but {held}; give another file"
            )
        epoch = content.get("epoch")
        self.epochs = epoch if type(epoch) is int and epoch > 0 else None

    def method(self, named: str | None) -> tuple[str, bool]:
        """The method that the tensors are of, and whether the file leaves a choice that ``named`` did not make.

        Args:
            named: the method's name from the user or the path.

        Raises:
            UserError: the tensors are of another method than the named one.
        """
        if NETWORK.keys() <= self.learner.keys():
            own = "cocoop"
        else:
            own = "biomedcoop" if self.whole else "kgcoop" if "bias_vectors" in self.learner else "coop"
        fits = (own,) if own == "cocoop" else SAME_PREDICTION
        if named is not None and named not in fits:
            raise UserError(
                f"{self.path}: its tensors can be of {', '.join(fits)}, not of {named}; name one of these with --method"
            )
        return named or own, named is None and own == "coop"

    def learned(self, method: str, backbone: Backbone) -> State:
        """The learned tensors under the names of the method's state, float32.

        The context is [M, D], or [C, M, D] where each class has its own (CSC).

        Raises:
            UserError: a tensor has another shape than the backbone needs, or holds values that are not finite.
        """
        d, e = backbone.token_dim, backbone.embed_dim
        context = self.learner["ctx"]
        if len(context.shape) == 3 and method == "cocoop":
            raise UserError(
                f"{self.path}: has a context for each class (CSC), which CoCoOp does not know; get the file again"
            )
        if len(context.shape) not in (2, 3) or 0 in context.shape or context.shape[-1] != d:
            raise UserError(
                f"{self.path}: 'ctx' has the shape {list(context.shape)}, {backbone.name} takes vectors of {d}; name the backbone "
                "that it was trained on with --backbone"
            )
        state = {"context": self.values("ctx")}
        if method != "cocoop":
            return state
        hidden = self.learner["meta_net.linear1.bias"].shape[:1]
        shapes = ((*hidden, e), hidden, (d, *hidden), (d,))
        for (key, own), shape in zip(NETWORK.items(), shapes, strict=True):
            if self.learner[key].shape != shape:
                raise UserError(
                    f"{self.path}: '{key}' has the shape {list(self.learner[key].shape)}, {backbone.name} needs {list(shape)}; "
                    "name the backbone that it was trained on with --backbone"
                )
            state[own] = self.values(key)
        return state

    def values(self, key: str) -> Tensor:
        """A tensor of the prompt learner, float32.

        Raises:
            UserError: it holds no floating-point numbers, or some that are not finite.
        """
        tensor = self.archive.tensor(self.learner[key])
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise UserError(f"{self.path}: '{key}' holds values that are not finite numbers; get the file again")
        return tensor.float()
