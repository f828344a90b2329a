"""Train the ``mini`` backbone from scratch: a small ViT and a small BERT, matched by a multi-positive contrastive loss.

    python pretraining/train_mini.py --pool POOL --work WORK [--minutes 60 | --epochs 40] [--threads 2]
    python pretraining/train_mini.py --pool POOL --work WORK --export src/biomedcoop/backbones/mini

POOL holds ``manifest.csv`` (file, shard, dataset, class_name) and the tar shards. Every epoch ends with a checkpoint in WORK
(safetensors + JSON, written by replacement), so a killed run goes on from there with the same numbers.

Four losses share each step:

- image-text: a class-balanced batch and captions of every class; an image's positives are all captions that are true of its
  class, a caption's positives all images of its classes (InfoNCE with several positives, as in SupCon, Khosla et al. 2020);
- within the task: the same, an image's captions against those of its own dataset's other classes only, which is the question
  that a user asks; against all captions, the modality decides nearly everything;
- text-text: two captions each of some classes of the whole library, those without images too, find each other among the
  rest, so that words the images never taught still lie apart;
- image-descriptor: a linear layer on the unit-norm image feature predicts what the eye would measure first (a 12 x 12
  thumbnail, gradient directions and fine texture on a 4 x 4 grid), so that a feature keeps more of an image than its class.

A random half of the patches is dropped while training (FLIP, Li et al. 2023), which halves the cost and regularises.
The exported weights are an exponential moving average.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from captions import SYNONYMS, captions, library_captions, vocabulary_texts
from PIL import Image
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.bert import BertConfig
from biomedcoop.backbones.open_clip import Towers
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.backbones.vit import ViTConfig
from biomedcoop.data.simulate import TASKS, draw_scan

SIZE, STORED, CONTEXT = 96, 112, 64
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
IMAGE = ViTConfig(image_size=SIZE, patch_size=12, width=192, layers=6, heads=3, mlp_width=768)
SIMULATED_SEED = 20_000_001  # no one draws a demo with it
SCALE_RANGE = (40.0, 100.0)  # left free, the scale falls to 12, too flat for a few prompts to be learned by later
WIDTH, TEXT_LAYERS, EMBED = 192, 3, 256


def read_pool(pool: Path, simulated: int) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """All images as uint8 [N, STORED, STORED, 3] (short edge resized, centre crop), labels [N] and the (dataset, class) list."""
    with (pool / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({(r["dataset"], r["class_name"]) for r in rows})
    if simulated:
        classes += [(f"simulated {task}", name) for task in TASKS for name in TASKS[task].class_names]
    label = {r["file"]: classes.index((r["dataset"], r["class_name"])) for r in rows}
    images, labels = [], []
    for pair, pixels in simulated_images(simulated):
        images.append(np.asarray(Image.fromarray(pixels).convert("RGB").resize((STORED, STORED), 3)))
        labels.append(classes.index(pair))
    for shard in sorted({r["shard"] for r in rows}):
        with tarfile.open(pool / shard) as tar:
            for member in tar:
                if member.name not in label:
                    continue
                data = tar.extractfile(member)
                assert data is not None
                image = Image.open(io.BytesIO(data.read())).convert("RGB")
                scale = STORED / min(image.size)
                image = image.resize(
                    (max(STORED, round(image.width * scale)), max(STORED, round(image.height * scale))), 3
                )
                left, top = (image.width - STORED) // 2, (image.height - STORED) // 2
                images.append(np.asarray(image.crop((left, top, left + STORED, top + STORED))))
                labels.append(label[member.name])
    return torch.from_numpy(np.stack(images)), torch.tensor(labels), classes


def simulated_images(per_class: int) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Scans that the package draws itself, of a seed of their own and every difficulty, so that the demo has a backbone that
    knows the two simulated tasks (and none of the images the demo draws)."""
    scans = [(task, c, i) for task in TASKS for c in range(len(TASKS[task].class_names)) for i in range(per_class)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for (task, c, _), pixels in zip(scans, pool.map(simulated_image, scans, chunksize=20), strict=True):
            yield (f"simulated {task}", TASKS[task].class_names[c]), pixels


def simulated_image(scan: tuple[str, int, int]) -> np.ndarray:
    task, label, index = scan
    return draw_scan(task, label, SIMULATED_SEED, index, difficulty=index % 11 / 10)[0]


def train_tokenizer() -> RustTokenizer:
    """Uncased WordPiece on the project's own text."""
    rust = RustTokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    rust.train_from_iterator(
        vocabulary_texts(), trainers.WordPieceTrainer(vocab_size=3072, special_tokens=special, show_progress=False)
    )
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    rust.decoder = decoders.WordPiece()
    return rust


def new_towers(vocab_size: int) -> Towers:
    text = BertConfig(vocab_size, WIDTH, TEXT_LAYERS, 3, 768, CONTEXT, 2)
    towers = Towers(IMAGE, text, 224, EMBED)
    for name, p in towers.named_parameters():
        if p.ndim >= 2:
            torch.nn.init.trunc_normal_(p, std=0.02)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)
    with torch.no_grad():
        towers.logit_scale.fill_(math.log(1 / 0.07))
    return towers


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """uint8 [B, STORED, STORED, 3] -> normalised [B, 3, SIZE, SIZE]: random affine crop, flip, exposure, colour, blur, noise."""
    b = len(images)

    def u(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(b, *shape, generator=rng)

    x = images.permute(0, 3, 1, 2).float() / 255
    side = u(0.35, 1.0).sqrt()
    ratio = torch.exp(u(-0.25, 0.25))
    sx, sy = (side * ratio).clamp(max=1.0), (side / ratio).clamp(max=1.0)
    angle = u(-0.35, 0.35)
    flip = torch.where(u(0, 1) < 0.5, -1.0, 1.0)
    cx, cy = u(-1, 1) * (1 - sx), u(-1, 1) * (1 - sy)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([sx * cos * flip, -sy * sin, cx, sx * sin * flip, sy * cos, cy], 1).view(b, 2, 3)
    grid = F.affine_grid(theta, [b, 3, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    gamma, gain, offset = u(0.6, 1.6, 1, 1, 1), u(0.7, 1.3, 1, 1, 1), u(-0.15, 0.15, 1, 1, 1)
    x = x.clamp(1e-3, 1).pow(gamma) * gain + offset
    tint = 1 + 0.12 * (2 * torch.rand(b, 3, 1, 1, generator=rng) - 1)
    grey = (u(0, 1, 1, 1, 1) < 0.15).float()
    x = x * tint
    x = x * (1 - grey) + x.mean(1, keepdim=True) * grey
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = u(0, 1, 1, 1, 1) * (u(0, 1, 1, 1, 1) < 0.4)
    x = x * (1 - mix) + soft * mix
    x = x + torch.randn(x.shape, generator=rng) * u(0, 0.05, 1, 1, 1)
    return (x.clamp(0, 1) - MEAN) / STD


def centre(images: Tensor) -> Tensor:
    """The test view: SIZE pixels from the stored STORED by antialiased resize."""
    x = (
        F.interpolate(images.permute(0, 3, 1, 2).float(), (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
        / 255
    )
    return (x - MEAN) / STD


def image_features(towers: Towers, pixels: Tensor, keep: float, rng: torch.Generator) -> Tensor:
    """Unit-norm image features with a random share ``keep`` of the patches."""
    trunk = towers.visual.trunk
    x = trunk.embed(pixels)
    if keep < 1:
        b, t, w = x.shape
        order = torch.rand(b, t - 1, generator=rng).argsort(1)[:, : round(keep * (t - 1))]
        x = torch.cat([x[:, :1], x[:, 1:].gather(1, order[:, :, None].expand(-1, -1, w))], 1)
    for block in trunk.blocks:
        x = block(x)
    return F.normalize(towers.visual.head.proj(trunk.norm(x)[:, 0]), dim=-1)


def text_features(towers: Towers, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    ids = tokenizer(texts)
    return F.normalize(towers.text(towers.text.transformer.embeddings.word_embeddings(ids), ids != 0), dim=-1)


def descriptors(pixels: Tensor) -> Tensor:
    """What the image feature must tell, [B, 592]: a thumbnail, gradient directions and fine texture on a grid, about unit size.

    Args:
        pixels: normalised views [B, 3, SIZE, SIZE].
    """
    thumbnail = F.adaptive_avg_pool2d(pixels, 12)
    grey = pixels.mean(1, keepdim=True)
    dx, dy = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    size, angle = (dx.square() + dy.square() + 1e-8).sqrt(), torch.atan2(dy, dx) * 2
    waves = [size * angle.cos(), size * angle.sin(), size * (2 * angle).cos(), size * (2 * angle).sin(), size]
    fine = (grey - F.avg_pool2d(grey, 3, 1, 1)).abs()[..., 1:-1, 1:-1]
    coarse = (F.avg_pool2d(grey, 3, 1, 1) - F.avg_pool2d(grey, 9, 1, 4)).abs()[..., 1:-1, 1:-1]
    maps = F.adaptive_avg_pool2d(torch.cat([*waves, fine, coarse], 1), 4)
    spread = (F.adaptive_avg_pool2d(pixels.square(), 4) - F.adaptive_avg_pool2d(pixels, 4).square()).clamp(min=0).sqrt()
    gains = torch.tensor([6.0, 6.0, 6.0, 6.0, 4.0, 12.0, 6.0])[:, None, None]
    return torch.cat([thumbnail.flatten(1), (maps * gains).flatten(1), spread.flatten(1)], 1)


def contrastive(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """Mean over rows of the mean negative log-probability of the row's positives; rows without one do not count."""
    log_p = logits.masked_fill(ignore, -1e4).log_softmax(1)
    count = positive.sum(1)
    loss = -(log_p * positive).sum(1) / count.clamp(min=1)
    return loss[count > 0].mean()


class Pretraining:
    """State of one run: towers, their moving average, AdamW moments, epoch."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, args.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.vocabulary = self.work / "tokenizer.json"
        if not self.vocabulary.is_file():
            train_tokenizer().save(str(self.vocabulary))
        self.tokenizer = Tokenizer(RustTokenizer.from_file(str(self.vocabulary)), CONTEXT)
        torch.manual_seed(args.seed)
        self.towers = new_towers(self.tokenizer.rust.get_vocab_size())
        self.describe = torch.nn.Linear(EMBED, descriptors(torch.zeros(1, 3, SIZE, SIZE)).shape[1])
        self.average = {k: v.detach().clone() for k, v in self.towers.state_dict().items()}
        decay = [p for _, p in self.parameters() if p.ndim >= 2]
        rest = [p for _, p in self.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
            lr=args.lr,
            betas=(0.9, 0.98),
        )
        self.epoch, self.seconds = 0, 0.0
        self.restore()

    def parameters(self) -> list[tuple[str, Tensor]]:
        """All that is trained, by name."""
        return [*self.towers.named_parameters(), *self.describe.named_parameters(prefix="describe")]

    def save(self) -> None:
        params = dict(self.parameters())
        tensors = {f"model.{k}": v.detach().contiguous() for k, v in params.items()}
        tensors |= {f"average.{k}": v.contiguous() for k, v in self.average.items()}
        for name, p in params.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if p in self.optimizer.state:
                    tensors[f"adam.{key}.{name}"] = self.optimizer.state[p][key].contiguous()
        temporary = self.work / "checkpoint.tmp"
        save_file(tensors, temporary, metadata={"state": json.dumps({"epoch": self.epoch, "seconds": self.seconds})})
        temporary.replace(self.work / "checkpoint.safetensors")

    def restore(self) -> None:
        path = self.work / "checkpoint.safetensors"
        if not path.is_file():
            return
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
        tensors = load_file(path)
        with torch.no_grad():
            for name, p in self.parameters():
                p.copy_(tensors[f"model.{name}"])
        self.average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
        for name, p in self.parameters():
            if f"adam.step.{name}" in tensors:
                self.optimizer.state[p] = {k: tensors[f"adam.{k}.{name}"] for k in ("exp_avg", "exp_avg_sq", "step")}
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        print(f"resumed after epoch {self.epoch}", flush=True)

    def progress(self, fraction_of_epoch: float, epoch_seconds: float) -> float:
        """Share of the schedule done, by epochs or by training minutes."""
        if self.args.minutes:
            return min(1.0, (self.seconds + epoch_seconds) / (60 * self.args.minutes))
        return (self.epoch + fraction_of_epoch) / self.args.epochs

    def run(self) -> None:
        args = self.args
        images, labels, classes = read_pool(args.pool, args.simulated)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(args.seed))
        if args.limit:
            order = order[: args.limit]
        held, train = order[: len(order) // 25], order[len(order) // 25 :]
        per_class, shared = captions(classes)
        library = library_captions()
        index = {pair: i for i, pair in enumerate(classes)}
        ignore_pairs = [(index[a], index[b]) for a, b in SYNONYMS] + [(index[b], index[a]) for a, b in SYNONYMS]
        weight = 1 / torch.bincount(labels[train], minlength=len(classes)).clamp(min=1).float().sqrt()[labels[train]]
        steps = math.ceil(len(train) / args.batch)
        print(f"{len(train)} images, {len(classes)} classes, {steps} steps per epoch", flush=True)
        while self.progress(0, 0) < 1 - 1e-9:
            rng = torch.Generator().manual_seed(args.seed * 1000 + self.epoch)
            start, total = time.monotonic(), 0.0
            picks = torch.multinomial(weight, steps * args.batch, replacement=True, generator=rng)
            for step in range(steps):
                done = self.progress(step / steps, time.monotonic() - start)
                rate = args.lr * (
                    min(1.0, done / 0.04) if done < 0.04 else 0.5 * (1 + math.cos(math.pi * (done - 0.04) / 0.96))
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = max(rate, 1e-6)
                batch = train[picks[step * args.batch : (step + 1) * args.batch]]
                chosen = [
                    options[int(torch.randint(len(options), (), generator=rng))]
                    for options in per_class
                    for _ in range(args.captions)
                ]
                chosen += [shared[int(i)] for i in torch.randperm(len(shared), generator=rng)[:8]]
                truth = torch.zeros(len(chosen), len(classes), dtype=torch.bool)  # [captions, classes]
                blind = torch.zeros_like(truth)
                for i, caption in enumerate(chosen):
                    for pair in caption.classes:
                        truth[i, index[pair]] = True
                    for a, b in ignore_pairs:
                        blind[i, b] |= bool(truth[i, a])
                y = labels[batch]
                positive, ignore = truth[:, y].T, (blind & ~truth)[:, y].T  # [images, captions]
                # the last part of the schedule sees whole images, as the test will
                keep = args.keep if done < 0.92 else 1.0
                pixels = augment(images[batch], rng)
                f = image_features(self.towers, pixels, keep, rng)
                some = torch.randperm(len(library), generator=rng)[: args.library_classes].tolist()
                pairs = [library[c][int(i)] for c in some for i in torch.randperm(len(library[c]), generator=rng)[:2]]
                both = text_features(self.towers, self.tokenizer, [c.text for c in chosen] + pairs)
                t, words = both[: len(chosen)], both[len(chosen) :]
                scale = self.towers.logit_scale.exp()
                logits = scale * f @ t.T
                rival = torch.tensor(
                    [[classes[int(i)][0] in c.datasets and len(c.classes) == 1 for c in chosen] for i in y]
                )
                loss = 0.5 * contrastive(logits, positive & rival, ~rival)
                loss = (
                    loss
                    + 0.5 * contrastive(logits, positive, ignore)
                    + 0.5 * contrastive(logits.T, positive.T, ignore.T)
                )
                itself = torch.eye(len(pairs), dtype=torch.bool)
                partner = itself.view(-1, 2, len(pairs)).flip(1).reshape(len(pairs), -1)
                loss = loss + 0.25 * contrastive(10 * words @ words.T, partner, itself)
                loss = loss + 0.5 * F.mse_loss(self.describe(f * EMBED**0.5), descriptors(pixels))
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_([p for _, p in self.parameters()], 1.0)
                self.optimizer.step()
                with torch.no_grad():
                    self.towers.logit_scale.clamp_(math.log(SCALE_RANGE[0]), math.log(SCALE_RANGE[1]))
                    for k, v in self.towers.state_dict().items():
                        self.average[k].lerp_(v, args.average)
                total += loss.item()
            self.epoch += 1
            self.seconds += time.monotonic() - start
            self.save()
            note = f"epoch {self.epoch}: loss {total / steps:.3f}, {time.monotonic() - start:.0f} s"
            if self.epoch % 5 == 0 or self.progress(0, 0) >= 1 - 1e-9:
                note += f", held-out class-name accuracy {self.held_out(images[held], labels[held], classes):.1%}"
            print(note, flush=True)

    @torch.no_grad()
    def held_out(self, images: Tensor, labels: Tensor, classes: list[tuple[str, str]]) -> float:
        """Accuracy of "a photo of a {name}." among the classes of the image's own dataset, averaged weights."""
        towers = new_towers(self.tokenizer.rust.get_vocab_size())
        towers.load_state_dict(self.average)
        t = text_features(towers, self.tokenizer, [f"a photo of a {name}." for _, name in classes])
        rng = torch.Generator()
        f = torch.cat([image_features(towers, centre(chunk), 1.0, rng) for chunk in images.split(256)])
        datasets = [dataset for dataset, _ in classes]
        same = torch.tensor([[a == b for b in datasets] for a in datasets])[labels]
        return float(((f @ t.T).masked_fill(~same, -9).argmax(1) == labels).float().mean())

    def export(self, folder: Path) -> None:
        """Write the averaged weights in open_clip layout, half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = to_bytes({k: v.half().contiguous() for k, v in self.average.items()})
        (folder / "open_clip_model.safetensors").write_bytes(weights)
        (folder / "tokenizer.json").write_bytes(self.vocabulary.read_bytes())
        config = {
            "model_cfg": {
                "embed_dim": EMBED,
                "vision_cfg": {
                    "timm_model_name": "vit_tiny_patch16_224",
                    "timm_model_pretrained": False,
                    "timm_pool": "",
                    "timm_proj": "linear",
                    "image_size": SIZE,
                    "timm_model_kwargs": {
                        "img_size": SIZE,
                        "patch_size": IMAGE.patch_size,
                        "embed_dim": IMAGE.width,
                        "depth": IMAGE.layers,
                        "num_heads": IMAGE.heads,
                    },
                },
                "text_cfg": {
                    "hf_model_name": ".",
                    "hf_tokenizer_name": ".",
                    "hf_proj_type": "mlp",
                    "hf_pooler_type": "cls_last_hidden_state_pooler",
                    "context_length": CONTEXT,
                },
            },
            "preprocess_cfg": {"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()},
        }
        bert = {
            "model_type": "bert",
            "vocab_size": self.tokenizer.rust.get_vocab_size(),
            "hidden_size": WIDTH,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "hidden_act": "gelu",
            "max_position_embeddings": CONTEXT,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        }
        (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(bert, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {folder} after epoch {self.epoch}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="checkpoint and vocabulary")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="length of the schedule in training time")
    length.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--captions", type=int, default=1, help="captions per class and step")
    parser.add_argument(
        "--library-classes", type=int, default=12, help="classes of the library whose captions meet each step"
    )
    parser.add_argument("--simulated", type=int, default=400, help="simulated images per class drawn into the pool")
    parser.add_argument("--average", type=float, default=0.005, help="step of the moving average of the weights")
    parser.add_argument("--keep", type=float, default=0.5, help="share of patches kept")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="use only this many images (a quick check of the script)")
    parser.add_argument("--export", type=Path, help="write the averaged weights of WORK to this folder and stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Pretraining(args)
    if args.export:
        run.export(args.export)
    else:
        run.run()


if __name__ == "__main__":
    main()
