"""State of a long training in the cache folder, from which the same training continues after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from biomedcoop.lazy import torch
from biomedcoop.output import TEMPORARY_PREFIX, cache_root, explain
from biomedcoop.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

WRITING_SHARE = 20
"""After a state is written, training goes on for at least this many times as long as the writing took."""

KEPT_DAYS = 14
"""Age at which the state of a training that nobody continued is removed."""


class Resumption:
    """What is known of one training, so that it continues where it was and ends with the same bits.

    Args:
        described: JSON values that decide the result, such as settings and seed.
        deciding: tensors that decide it, such as features and labels.
    """

    def __init__(self, described: Any, deciding: Iterable[Tensor]) -> None:
        digest = hashlib.sha256(json.dumps([described, __version__, str(torch.__version__)], sort_keys=True).encode())
        for tensor in deciding:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        folder = cache_root() / "training"
        self.file = folder / f"{digest.hexdigest()[:32]}.safetensors"
        self._next = 0.0
        for old in folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > KEPT_DAYS * 24 * 3600:
                    old.unlink()

    def restore(self, tensors: Sequence[Tensor]) -> int:
        """Put the kept values into tensors; the number of finished epochs, 0 if nothing is kept."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.file, "pt") as file, torch.no_grad():
                kept = [file.get_tensor(str(number)) for number in range(len(tensors))]
                epochs = int(file.metadata()["epochs"])
        except (OSError, SafetensorError):  # none, or one that a full disk cut off
            return 0
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.detach().copy_(value)
        return epochs

    def keep(self, tensors: Sequence[Tensor], epochs: int, *, last: bool = False) -> None:
        """Write the state after some epochs, unless writing would take much of the time; ``last`` is always written.

        Raises:
            UserError: the cache folder cannot be written.
        """
        from safetensors.torch import save_file

        begin = time.monotonic()
        if begin < self._next and not last:
            return
        unfinished = self.file.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{self.file.name}")
        values = {str(number): tensor.detach().cpu().contiguous() for number, tensor in enumerate(tensors)}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file(values, unfinished, {"epochs": str(epochs)})
            unfinished.replace(self.file)
        except OSError as error:
            raise explain(self.file, error) from error
        now = time.monotonic()
        self._next = now + WRITING_SHARE * (now - begin)

    def forget(self) -> None:
        """Remove the state of a training that has ended."""
        self.file.unlink(missing_ok=True)
