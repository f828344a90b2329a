"""Captions as features of the text parent, and what a step's images must find among them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.bert import Bert
from biomedcoop.backbones.tokenizer import Tokenizer
from pretraining.captions import SYNONYMS, captions, library_captions, modality_and_organ, sentences

TOGETHER = 8
"""Captions of a class whose mean is one of its texts, as an ensemble of prompts is."""
LIBRARY_CLASSES = 24
"""Classes of the whole library of which each step has two captions."""
STYLE = 0.7
"""Share of another sentence's deviation from its class that is added to a sentence while training."""
NAMES = 0.7
"""Share of a class's single captions that are templates with its name, not sentences."""


def contrastive(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """Mean over rows of the mean negative log-probability of the row's positives; rows without one do not count."""
    log_p = logits.masked_fill(ignore, -1e4).log_softmax(1)
    count = positive.sum(1)
    loss = -(log_p * positive).sum(1) / count.clamp(min=1)
    return loss[count > 0].mean()


def partners(words: Tensor) -> Tensor:
    """Contrastive loss of unit-norm texts [2n, E] of which 2i and 2i + 1 are of one class."""
    itself = torch.eye(len(words), dtype=torch.bool)
    partner = itself.view(-1, 2, len(words)).flip(1).reshape(len(words), -1)
    return contrastive(10 * words @ words.T, partner, itself)


@torch.inference_mode()
def text_features(tower: Bert, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Mean over the tokens of each text, [n, W]."""
    found = []
    for start in range(0, len(texts), 64):
        ids = tokenizer(texts[start : start + 64])
        found.append(tower(tower.embeddings.word_embeddings(ids), ids != 0))
    return torch.cat(found)


class Texts:
    """Features of some texts [n, W], and which of them are sentences (the others are templates)."""

    def __init__(self, texts: list[str], known: dict[str, Tensor]) -> None:
        self.features = torch.stack([known[text] for text in texts])
        self.sentence = torch.tensor([text in sentences() for text in texts])

    def draw(self, n: int, names: float, rng: torch.Generator) -> Tensor:
        """Indices of n texts; each is a template with a probability of ``names``, else any."""
        templates = (~self.sentence).nonzero()[:, 0]
        some = torch.randint(len(self.sentence), (n,), generator=rng)
        named = templates[torch.randint(len(templates), (n,), generator=rng)]
        return torch.where(torch.rand(n, generator=rng) < names, named, some)


class Words:
    """Captions of the pool's classes, of modalities and of the whole library.

    Args:
        classes: (dataset, class name) pairs of the pool.
        known: features of every caption by its text.
    """

    def __init__(self, classes: list[tuple[str, str]], known: dict[str, Tensor]) -> None:
        per_class, shared = captions(classes)
        library, modalities = library_captions()
        self.own = [Texts([caption.text for caption in options], known) for options in per_class]
        self.library = [Texts(options, known) for options in library]
        self.shared = torch.stack([known[caption.text] for caption in shared])
        self.shared_truth = torch.tensor([[pair in caption.classes for pair in classes] for caption in shared])
        style = [t.features[t.sentence] - t.features[t.sentence].mean(0) for t in self.library]
        self.style = torch.cat(style)
        # a text of another modality is true of no image of a class
        own = [modality_and_organ(*pair)[0].lower() for pair in classes]
        self.foreign = torch.tensor([[a != b.lower() for b in modalities] for a in own])  # [C, library classes]
        self.same_task = torch.tensor([[a == b for b, _ in classes] for a, _ in classes])
        # neither class of such a pair may serve as a negative of the other
        self.blind = torch.zeros(len(classes), len(classes), dtype=torch.bool)
        index = {pair: i for i, pair in enumerate(classes)}
        for a, b in SYNONYMS:
            if a in index and b in index:
                self.blind[index[a], index[b]] = self.blind[index[b], index[a]] = True

    def all_features(self) -> Tensor:
        """Features of the library's captions, [n, W]."""
        return torch.cat([texts.features for texts in self.library])

    def pick(self, texts: Texts, n: int, rng: torch.Generator, names: float = 0.0) -> Tensor:
        """n captions, [n, W]; a sentence gets the style of another, so that its class is what counts."""
        return self.restyled(texts, texts.draw(n, names, rng), rng)

    def restyled(self, texts: Texts, index: Tensor, rng: torch.Generator) -> Tensor:
        other = self.style[torch.randint(len(self.style), (len(index),), generator=rng)]
        return texts.features[index] + STYLE * other * texts.sentence[index][:, None]

    def pairs(self, rng: torch.Generator) -> tuple[Tensor, list[int]]:
        """Two captions each of some classes of the library, one after the other, and the class of each."""
        some = torch.randperm(len(self.library), generator=rng)[:LIBRARY_CLASSES].tolist()
        two = [
            self.restyled(self.library[c], torch.randperm(len(self.library[c].sentence), generator=rng)[:2], rng)
            for c in some
        ]
        return torch.cat(two), [c for c in some for _ in range(2)]

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One caption of every class and eight of modalities: features, and of each [n, C] the classes it is true of, those
        it may not be a negative of, and those of its task (of one class only)."""
        n = len(self.own)
        chosen = torch.randperm(len(self.shared), generator=rng)[:8]
        texts = torch.cat([*(self.pick(own, 1, rng, NAMES) for own in self.own), self.shared[chosen]])
        truth = torch.cat([torch.eye(n, dtype=torch.bool), self.shared_truth[chosen]])
        blind = ((truth.float() @ self.blind.float()) > 0) & ~truth
        task = torch.zeros_like(truth)
        task[:n] = self.same_task
        return texts, truth, blind, task

    def loss(self, features: Tensor, y: Tensor, project: TextMap, rng: torch.Generator) -> Tensor:
        """How badly images and captions find each other.

        - image-text: an image's positives are all captions that are true of its class, a caption's positives all images of
          its classes (several positives as in SupCon, Khosla et al. 2020); texts of other modalities are further negatives;
        - within the task: an image's captions against those of its own dataset's other classes, which is the question that a
          user asks; once with single captions and once with means of several;
        - text-text: two captions each of classes of the whole library find each other among the rest.

        Args:
            features: of images, unit norm [B, E].
            y: classes of the pool, [B].
        """
        chosen, truth, blind, task = self.draw(rng)
        others, whose = self.pairs(rng)
        t = project(torch.cat([chosen, others]))
        t, words = t[: len(chosen)], t[len(chosen) :]
        scale = project.scale.exp()
        logits, foreign = scale * features @ t.T, self.foreign[:, whose][y]
        positive, ignore, rival = truth[:, y].T, blind[:, y].T, task[:, y].T  # [images, captions]
        several = torch.cat([self.pick(own, TOGETHER, rng) for own in self.own])
        means = F.normalize(project(several).view(len(self.own), TOGETHER, -1).mean(1), dim=-1)
        own = torch.eye(len(self.own), dtype=torch.bool)[y]
        return (
            0.5
            * contrastive(
                torch.cat([logits, scale * features @ words.T], 1),
                torch.cat([positive, torch.zeros_like(foreign)], 1),
                torch.cat([ignore, ~foreign], 1),
            )
            + 0.5 * contrastive(logits.T, positive.T, ignore.T)
            + contrastive(logits, positive & rival, ~rival)
            + contrastive(scale * features @ means.T, own, ~self.same_task[y])
            + 0.25 * partners(words)
        )


class TextMap(nn.Module):
    """Features of the text parent [n, W] -> unit norm [n, E]: centred, scaled, one linear map; and the scale of the logits."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, texts: Tensor, embed: int) -> None:
        super().__init__()
        self.register_buffer("mean", texts.mean(0))
        self.register_buffer("deviation", texts.std(0) + 1e-3)
        self.linear = nn.Linear(texts.shape[1], embed, bias=False)
        self.scale = nn.Parameter(torch.tensor(40.0).log())

    def standardised(self, texts: Tensor) -> Tensor:
        return (texts - self.mean) / self.deviation

    def forward(self, texts: Tensor) -> Tensor:
        return F.normalize(self.linear(self.standardised(texts)), dim=-1)
