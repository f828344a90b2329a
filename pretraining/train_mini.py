"""Train the ``mini`` backbone from scratch: a small ViT and a small BERT, matched by a multi-positive contrastive loss.

    python -m pretraining.train_mini --pool POOL --work WORK
    python -m pretraining.train_mini --pool POOL --work WORK --export src/biomedcoop/backbones/mini

POOL holds ``manifest.csv`` (file, shard, dataset, class_name) and the tar shards. Every epoch ends with a checkpoint in WORK
(safetensors, written by replacement), so a killed run goes on from there with the same numbers (given the same machine,
versions and threads). Before the first epoch each tower learns alone, for a few minutes.

Four losses share each step:

- image-text: a batch (a class of n images is drawn as often as the root of n) and captions of every class; an image's positives
  are all captions that are true of its class, a caption's positives all images of its classes (InfoNCE with several
  positives, as in SupCon, Khosla et al. 2020); texts of the library about other modalities are further negatives of an image;
- within the task: the same, an image's captions against those of its own dataset's other classes only, which is the question
  that a user asks; against all captions, the modality decides nearly everything;
- text-text: two captions each of some classes of the whole library, those without images too, find each other among the
  rest, so that words the images never taught still lie apart;
- image-descriptor: a linear layer on the standardised image feature predicts what the eye would measure first (a thumbnail,
  gradient directions and fine texture on a grid), so that a feature keeps more of an image than its class.

A random part of the patches is dropped while training (FLIP, Li et al. 2023), which costs less and regularises.
Products run in bfloat16. The exported weights are an exponential moving average.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.errors import UserError
from pretraining.captions import (
    SYNONYMS,
    Caption,
    captions,
    library_captions,
    modality_and_organ,
    new_tokenizer,
    vocabulary_texts,
)
from pretraining.pool import read_manifest, read_pool
from pretraining.towers import CONTEXT, SCALE_RANGE, Settings, export, image_features, new_towers, text_features
from pretraining.views import Describe, augment, centre

DESCRIBED_VIEWS = 4096


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


class Captions:
    """Captions of a step, and which classes of the pool each is true of."""

    def __init__(self, classes: list[tuple[str, str]]) -> None:
        self.per_class, self.shared = captions(classes)
        self.library, modalities = library_captions()
        # a text of another modality is true of no image of a class
        own = [modality_and_organ(*pair)[0].lower() for pair in classes]
        self.foreign = torch.tensor([[a != b.lower() for b in modalities] for a in own])  # [C, library classes]
        self.index = {pair: i for i, pair in enumerate(classes)}
        datasets = [dataset for dataset, _ in classes]
        self.same_task = torch.tensor([[a == b for b in datasets] for a in datasets])
        # neither class of such a pair may serve as a negative of the other
        self.blind = torch.zeros(len(classes), len(classes), dtype=torch.bool)
        for a, b in SYNONYMS:
            if a in self.index and b in self.index:
                self.blind[self.index[a], self.index[b]] = self.blind[self.index[b], self.index[a]] = True

    def draw(self, rng: torch.Generator) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """One caption of every class and eight of modalities: texts, and of each [n, C] the classes it is true of, those it
        may not be a negative of, and those of its task (of one class only)."""
        chosen = [options[int(torch.randint(len(options), (), generator=rng))] for options in self.per_class]
        chosen += [self.shared[int(i)] for i in torch.randperm(len(self.shared), generator=rng)[:8]]
        truth = torch.stack([self.row(caption) for caption in chosen])
        blind = ((truth.float() @ self.blind.float()) > 0) & ~truth
        task = torch.zeros_like(truth)
        task[: len(self.per_class)] = self.same_task
        return [caption.text for caption in chosen], truth, blind, task

    def row(self, caption: Caption) -> Tensor:
        row = torch.zeros(len(self.index), dtype=torch.bool)
        row[[self.index[pair] for pair in caption.classes]] = True
        return row

    def draw_pairs(self, n: int, rng: torch.Generator) -> tuple[list[str], list[int]]:
        """Two captions each of n classes of the library, one after the other, and the class of each."""
        some = torch.randperm(len(self.library), generator=rng)[:n].tolist()
        pairs = [self.library[c][int(i)] for c in some for i in torch.randperm(len(self.library[c]), generator=rng)[:2]]
        return pairs, [c for c in some for _ in range(2)]


class Pretraining:
    """State of one run: towers, their moving average, AdamW moments, epoch."""

    def __init__(self, work: Path, settings: Settings) -> None:
        self.work, self.settings = work, settings
        self.tokenizer = Tokenizer(new_tokenizer(), CONTEXT)
        torch.manual_seed(settings.seed)  # first weights
        self.towers = new_towers(settings, self.tokenizer.rust.get_vocab_size())
        self.describe = Describe(settings.embed)
        self.average = {k: v.detach().clone() for k, v in self.towers.state_dict().items()}
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, p in self.parameters():
            lr = settings.text_lr if name.startswith("text.") else settings.lr
            groups.setdefault((lr, 0.05 if p.ndim >= 2 else 0.0), []).append(p)
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.epoch, self.seconds = 0, 0.0
        self.inputs: dict[str, str] = {}
        self.restore()

    def stream(self, purpose: str) -> torch.Generator:
        """Random numbers of their own for one purpose."""
        digest = hashlib.sha256(f"{self.settings.seed} {purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def parameters(self) -> list[tuple[str, Tensor]]:
        """All that is trained, by name."""
        return [*self.towers.named_parameters(), *self.describe.named_parameters(prefix="describe")]

    def save(self) -> None:
        params = dict(self.parameters())
        tensors = {f"model.{k}": v.detach() for k, v in params.items()}
        tensors |= {f"model.describe.{k}": v for k, v in self.describe.named_buffers()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for name, p in params.items():
            tensors |= {f"adam.{key}.{name}": value for key, value in self.optimizer.state[p].items()}
        state = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "settings": dataclasses.asdict(self.settings),
            "inputs": self.inputs,
        }
        temporary = self.work / "checkpoint.tmp"
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata={"state": json.dumps(state)})
        temporary.replace(self.work / "checkpoint.safetensors")

    def restore(self) -> None:
        path = self.work / "checkpoint.safetensors"
        if not path.is_file():
            return
        tensors = load_file(path)
        with torch.no_grad():
            for name, p in [*self.parameters(), *self.describe.named_buffers(prefix="describe")]:
                p.copy_(tensors[f"model.{name}"])
        self.average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
        for name, p in self.parameters():
            self.optimizer.state[p] = {key: tensors[f"adam.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
        state = saved_state(self.work)
        self.epoch, self.seconds, self.inputs = state["epoch"], state["seconds"], state["inputs"]
        print(f"resumed after epoch {self.epoch}", flush=True)

    def set_rate(self, share: float) -> None:
        """Learning rates at a share of their peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = max(group["peak"] * share, 1e-6)

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of a loss.

        Raises:
            UserError: it is not finite; the last checkpoint stays.
        """
        if not bool(loss.isfinite()):
            raise UserError(f"the loss became {loss.item()} in epoch {self.epoch + 1}; begin anew with a lower --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in self.parameters()], 1.0)
        self.optimizer.step()

    def warm_up(self, images: Tensor, texts: Captions) -> None:
        """Each tower alone: the texts by the text-text loss, since together with the images from the start they stay one
        point for epochs; then the images by the image-descriptor loss, since classes alone need little of an image."""
        settings, rng = self.settings, self.stream("towers alone")
        self.describe.fit_axes(augment(part, rng, settings.colour) for part in images[:DESCRIBED_VIEWS].split(256))
        for name, steps in (("text", settings.text_steps), ("image", settings.image_steps)):
            total = 0.0
            for step in range(steps):
                self.set_rate(min(1.0, (step + 1) / 100))
                if name == "text":
                    pairs, _ = texts.draw_pairs(len(texts.library), rng)
                    with torch.autocast("cpu", torch.bfloat16):
                        t = text_features(self.towers, self.tokenizer, pairs, settings.drop_words, rng)
                    loss = partners(t)
                else:
                    some = torch.randint(len(images), (settings.batch,), generator=rng)
                    pixels = augment(images[some], rng, settings.colour)
                    with torch.autocast("cpu", torch.bfloat16):
                        f = image_features(self.towers, pixels, settings.keep, rng)
                    loss = self.describe.loss(f, pixels)
                self.step(loss)
                total += loss.item()
                if (step + 1) % 50 == 0:
                    print(f"{name} tower alone, step {step + 1}: loss {total / 50:.3f}", flush=True)
                    total = 0.0
        self.average = {k: v.detach().clone() for k, v in self.towers.state_dict().items()}

    def run(self, pool: Path) -> None:
        settings = self.settings
        inputs = {
            "pool": hashlib.sha256(json.dumps(read_manifest(pool)).encode()).hexdigest(),
            "texts": hashlib.sha256(json.dumps([vocabulary_texts(), library_captions()]).encode()).hexdigest(),
        }
        for what in inputs:
            if self.epoch and inputs[what] != self.inputs[what]:
                raise UserError(f"the {what} changed since the run in {self.work} began: name another --work folder")
        self.inputs = inputs
        images, labels, classes = read_pool(pool, settings.simulated)
        order = torch.randperm(len(labels), generator=self.stream("held-out images"))
        if settings.limit:
            order = order[: settings.limit]
        held, train = order[: len(order) // 25], order[len(order) // 25 :]
        texts = Captions(classes)
        self.work.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        if self.epoch == 0:
            self.warm_up(images[train], texts)
        weight = 1 / torch.bincount(labels[train], minlength=len(classes)).clamp(min=1).float().sqrt()[labels[train]]
        steps = math.ceil(len(train) / settings.batch)
        print(f"{len(train)} images, {len(classes)} classes, {steps} steps per epoch", flush=True)
        while self.epoch < settings.epochs:
            rng = self.stream(f"epoch {self.epoch}")
            start, total = time.monotonic(), torch.zeros(5)
            picks = torch.multinomial(weight, steps * settings.batch, replacement=True, generator=rng)
            for step, batch in enumerate(train[picks].split(settings.batch)):
                done = (self.epoch + step / steps) / settings.epochs
                # a warm-up, then a cosine
                self.set_rate(done / 0.04 if done < 0.04 else 0.5 * (1 + math.cos(math.pi * (done - 0.04) / 0.96)))
                keep = settings.keep if done < settings.whole else 1.0
                losses = self.losses(images[batch], labels[batch], texts, keep, rng)
                self.step(losses @ torch.tensor([0.5, 0.5, settings.within, 0.25, settings.describe]))
                with torch.no_grad():
                    self.towers.logit_scale.clamp_(math.log(SCALE_RANGE[0]), math.log(SCALE_RANGE[1]))
                    for k, v in self.towers.state_dict().items():
                        self.average[k].lerp_(v, settings.average)
                total += losses.detach()
                if step and step % 25 == 0:
                    each = (time.monotonic() - start) / (step + 1)
                    left = each * (steps * (settings.epochs - self.epoch) - step) / 60
                    print(f"\r  step {step}/{steps}, {each:.2f} s each, {left:.0f} min to go ", end="", flush=True)
            self.epoch += 1
            self.seconds += time.monotonic() - began
            began = time.monotonic()
            self.save()
            parts = zip(("image-text", "text-image", "within", "text-text", "describe"), total / steps, strict=True)
            note = f"\repoch {self.epoch}: " + ", ".join(f"{name} {value:.3f}" for name, value in parts)
            note += f", scale {self.towers.logit_scale.exp():.0f}, {time.monotonic() - start:.0f} s"
            if self.epoch % 4 == 0 or self.epoch == settings.epochs:
                note += f", held-out class-name accuracy {self.held_out(images[held], labels[held], classes, texts)}"
            print(note, flush=True)
        print(f"{self.epoch} epochs in {self.seconds / 60:.0f} minutes of training", flush=True)

    def losses(self, images: Tensor, y: Tensor, texts: Captions, keep: float, rng: torch.Generator) -> Tensor:
        """The losses of a step, [5]: image-text, text-image, within the task, text-text, image-descriptor.

        Args:
            images: uint8 [B, STORED, STORED, 3].
            y: classes of the pool, [B].
            keep: share of patches seen.
        """
        chosen, truth, blind, task = texts.draw(rng)
        pairs, whose = texts.draw_pairs(self.settings.library_classes, rng)
        pixels = augment(images, rng, self.settings.colour)
        with torch.autocast("cpu", torch.bfloat16):
            f = image_features(self.towers, pixels, keep, rng)
            t = text_features(self.towers, self.tokenizer, chosen + pairs, self.settings.drop_words, rng)
        t, words = t[: len(chosen)], t[len(chosen) :]
        scale = self.towers.logit_scale.exp()
        logits, others = scale * f @ t.T, scale * f @ words.T
        positive, ignore, rival = truth[:, y].T, blind[:, y].T, task[:, y].T  # [images, captions]
        foreign = texts.foreign[:, whose][y]
        return torch.stack(
            [
                contrastive(
                    torch.cat([logits, others], 1),
                    torch.cat([positive, torch.zeros_like(foreign)], 1),
                    torch.cat([ignore, ~foreign], 1),
                ),
                contrastive(logits.T, positive.T, ignore.T),
                contrastive(logits, positive & rival, ~rival),
                partners(words),
                self.describe.loss(f, pixels),
            ]
        )

    @torch.no_grad()
    def held_out(self, images: Tensor, labels: Tensor, classes: list[tuple[str, str]], texts: Captions) -> str:
        """Accuracy of "a photo of a {name}." among the classes of an image's own dataset, averaged weights."""
        towers = new_towers(self.settings, self.tokenizer.rust.get_vocab_size())
        towers.load_state_dict(self.average)
        t = text_features(towers, self.tokenizer, [f"a photo of a {name}." for _, name in classes])
        f = torch.cat([image_features(towers, centre(chunk)) for chunk in images.split(256)])
        right = (f @ t.T).masked_fill(~texts.same_task[labels], -9).argmax(1) == labels
        datasets = [classes[int(y)][0] for y in labels]
        parts = []
        for dataset in dict.fromkeys(dataset for dataset, _ in classes):
            own = torch.tensor([d == dataset for d in datasets])
            if own.any():
                parts.append(f"{dataset} {right[own].float().mean():.0%}")
        return ", ".join(parts)


def saved_state(work: Path) -> dict[str, Any]:
    """What the checkpoint in a folder says of its run.

    Raises:
        UserError: it is no checkpoint of this script.
    """
    path = work / "checkpoint.safetensors"
    try:
        with safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged or no checkpoint of this script; begin anew in another --work") from error
    if set(state["settings"]) != {field.name for field in dataclasses.fields(Settings)}:
        raise UserError(f"{path} is of another version of this script; begin anew in another --work folder")
    return state


def train(args: argparse.Namespace) -> None:
    """Begin a run or go on with it, or export what it gave."""
    started = (args.work / "checkpoint.safetensors").is_file()
    if args.export:
        if not started:
            raise UserError(f"{args.work} holds no checkpoint yet: train first, with --pool and --work")
        run = Pretraining(args.work, Settings(**saved_state(args.work)["settings"]))
        if args.export.exists() and not args.export.is_dir():
            raise UserError(f"--export {args.export}: is a file; name a folder")
        if run.epoch < run.settings.epochs:
            raise UserError(f"{args.work} is at epoch {run.epoch} of {run.settings.epochs}: let it train to the end")
        export(run.towers, run.average, run.tokenizer.rust.to_str(pretty=True).encode(), args.export)
        print(f"wrote {args.export} after epoch {run.epoch}")
        return
    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    if args.pool is None:
        raise UserError("--pool is missing: name the folder that holds manifest.csv and the shards")
    if started:
        before = saved_state(args.work)["settings"]
        changed = [name for name, value in dataclasses.asdict(settings).items() if before[name] != value]
        if changed:
            raise UserError(f"{args.work} holds a run with other settings ({', '.join(changed)}): name another folder")
    elif args.work.exists() and (
        not args.work.is_dir() or any(p.name != "checkpoint.tmp" for p in args.work.iterdir())
    ):
        raise UserError(f"--work {args.work}: holds something else; name a new or empty folder")
    Pretraining(args.work, settings).run(args.pool)


def main() -> None:
    about = f"{__doc__}\nSettings:\n{(Settings.__doc__ or '').split('Attributes:')[1].split('Raises:')[0]}"
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="folder with manifest.csv and the shards")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export", type=Path, help="write the averaged weights of WORK to this folder and stop")
    for field in dataclasses.fields(Settings):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=type(field.default), default=field.default, help="%(default)s"
        )
    args = parser.parse_args()
    torch.set_num_threads(max(1, args.threads))
    try:
        train(args)
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
