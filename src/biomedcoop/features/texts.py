"""Texts to features through the store: each different text is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import prepack_text_tower
from biomedcoop.features.parallel import passes_on_every_core
from biomedcoop.features.passes import Floats
from biomedcoop.features.spaces import TEXT_BATCH, TEXT_STEP, text_space
from biomedcoop.features.store import FeatureStore, default_root


def encode_texts(backbone: Backbone, texts: Sequence[str], *, store_root: Path | None = None) -> Floats:
    """Raw text features, from the store where it has them.

    Args:
        texts: n texts; equal ones are encoded once.
        store_root: folder of the store; the user's cache folder by default.

    Returns:
        float32 [n, E].

    Raises:
        UserError: the store cannot be written.
    """
    store = FeatureStore(store_root or default_root(), text_space(backbone))
    keys = text_keys(texts)
    missing = store.missing(keys)
    ids = [backbone.tokenize([texts[i]])[0] for i in missing]
    # the padded length follows from the text alone, not from its neighbours
    by_length: dict[int, list[int]] = {}
    for position, row in enumerate(ids):
        by_length.setdefault(-(-len(row) // TEXT_STEP) * TEXT_STEP, []).append(position)
    if missing:
        backbone = prepack_text_tower(backbone)
    # the commonest length comes first: weights are prepacked for the shape of the first pass
    batches = (
        (length, positions[start : start + TEXT_BATCH])
        for length, positions in sorted(by_length.items(), key=lambda item: -len(item[1]))
        for start in range(0, len(positions), TEXT_BATCH)
    )

    def encode(batch_of_length: tuple[int, list[int]]) -> tuple[list[int], Floats]:
        length, positions = batch_of_length
        batch = torch.zeros(TEXT_BATCH, min(length, backbone.context_length), dtype=torch.int64)
        # rows that only fill up repeat the first: a row of padding alone has nothing to attend to
        for slot, position in enumerate(positions + [positions[0]] * (TEXT_BATCH - len(positions))):
            batch[slot, : len(ids[position])] = ids[position]
        batch = batch.to(backbone.device)
        with torch.inference_mode():
            out = backbone.encode_text_embeddings(backbone.embed_tokens(batch), backbone.mask(batch))
        return positions, out[: len(positions)].float().cpu().numpy()

    features = np.empty((len(missing), backbone.embed_dim), dtype=np.float32)
    with closing(passes_on_every_core(encode, batches, backbone.device)) as passes:
        for positions, rows in passes:
            features[positions] = rows
    store.put([keys[i] for i in missing], features)
    return store.get_all(keys, texts)


def text_keys(texts: Sequence[str]) -> list[bytes]:
    """The key of each text in the store."""
    return [hashlib.blake2b(text.encode(), digest_size=32).digest() for text in texts]
