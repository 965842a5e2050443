"""One training stage: batches, loss, learning rates, states, accuracy.

The state is written whole every minute and after each epoch, so a run that ends in any way goes on
from there when the same command is given again, and comes to the same network.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model.common.errors import UserError
from train import data, files
from train.muon import Muon
from train.net import Net, to_input
from train.recipe import Training
from train.sources import Images
from train.workers import Workers, autocast, rank

SAVE_SECONDS = 60
MOMENTUM = 0.8
WARMUP = 0.1
# Batch norm's scale in quantized stages: the file's mult cannot be zero or negative.
MIN_SCALE = 0.01
# Seeds of what is drawn beside the order and the augmentation of a batch.
MIXING, DROPPING = 1, 2


@dataclass
class Job:
    """A stage to train. net: in the mode to begin with. teachers: networks to learn from. seed: of
    all that is drawn. flip, shift: augmentation."""

    net: Net
    settings: Training
    train: Images
    val: Images
    seed: int
    flip: bool = True
    shift: int = 4
    teachers: list[Net] = field(default_factory=list)
    name: str = "training"


def learning_factor(done: float) -> float:
    """Linear warm-up, then linear to zero; `done` in 0..1."""
    return done / WARMUP if done < WARMUP else (1 - done) / (1 - WARMUP)


def targets(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Labels, int64 [N], as probabilities, float32 [N, classes]."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


class Run:
    """The state of a job: network, optimizers, epoch, step, history."""

    def __init__(self, job: Job, workers: Workers, path: Path) -> None:
        self.job, self.workers, self.path, self.net = job, workers, path, job.net
        self.batch = min(job.settings.batch, len(job.train))
        self.steps = len(job.train) // self.batch  # of an epoch
        self.sizes = job.settings.sizes
        self.weights, self.others = optimizers(self.net, job.settings.rate)
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, float]] = []
        self.loss = [0.0, 0.0]  # sum and count of the epoch
        self.fake = self.net.mode == "fake"
        self.began = self.saved = time.monotonic()

    def save(self) -> None:
        """Write the state, whole."""
        now = time.monotonic()
        self.seconds, self.began, self.saved = self.seconds + now - self.began, now, now
        state = {name: getattr(self, name).state_dict() for name in ("net", "weights", "others")}
        for name in ("epoch", "step", "seconds", "loss", "history"):
            state[name] = getattr(self, name)
        if rank() == 0:
            files.write(self.path, state)

    def resume(self) -> None:
        """Take up the state that is there, if one is. Raises StateError."""
        if self.path.exists():
            with files.reading(self.path) as state:
                for part in ("net", "weights", "others"):
                    getattr(self, part).load_state_dict(state[part])
                self.epoch, self.step = int(state["epoch"]), int(state["step"])
                self.seconds, self.loss = float(state["seconds"]), list(state["loss"])
                self.history = list(state["history"])

    def train(self) -> None:
        """To the end of the stage. The bar's time left is right: a step costs what its pixels
        do."""
        height, width = self.job.train.pixels.shape[2:]
        cost = [size * size if size else height * width for size in self.sizes]
        done = self.steps * sum(cost[: self.epoch])
        done += self.step * cost[self.epoch] if self.epoch < len(cost) else 0
        with tqdm(
            desc=self.job.name,
            total=self.steps * sum(cost),
            initial=done,
            mininterval=5,
            disable=rank() > 0,
            bar_format="{l_bar}{bar}| {elapsed}, {remaining} left{postfix}",
        ) as bar:
            while self.epoch < len(self.sizes):
                size = self.sizes[self.epoch]
                for step, *batch in prefetch(self._batches(size)):
                    loss = self._step(*batch)
                    self.loss = [self.loss[0] + loss, self.loss[1] + 1]
                    self.step = step + 1
                    bar.update(cost[self.epoch])
                    if time.monotonic() - self.saved > SAVE_SECONDS and self.step < self.steps:
                        self.save()
                bar.set_postfix_str(self._end_epoch(size))
                self.save()

    def _end_epoch(self, size: int | None) -> str:
        reached = accuracy(self.workers, self.job.val, None if self.fake else size)
        self.epoch, self.step = self.epoch + 1, 0
        loss, self.loss = self.loss[0] / max(1, self.loss[1]), [0.0, 0.0]
        self.history.append({"epoch": self.epoch, "loss": loss, "val": reached})
        return f"epoch {self.epoch}: loss {loss:.4f}, validation {100 * reached:.2f} %"

    @torch.no_grad()
    def check(self) -> None:
        """Raise UserError where a network does not take the images, or the shift is too large."""
        shape = self.job.train.pixels.shape[1:]
        try:
            data.augment(self.job.train.pixels[:1], data.generator(0), False, self.job.shift)
            for size in set(self.sizes):
                one = data.resize(torch.zeros(1, *shape, device=self.workers.device), size)
                for net in (self.net, *self.job.teachers):
                    net.eval()(one)
        except RuntimeError as error:
            raise UserError(
                f"{self.job.name}: images of {list(shape)} do not fit a shift of {self.job.shift}, "
                f"the sizes {self.sizes[:9]} or the network: {' '.join(str(error).split())[:200]}"
            ) from error

    def _batches(self, size: int | None) -> Iterator[tuple[Any, ...]]:
        job, settings, seed = self.job, self.job.settings, self.job.seed
        classes = self.net.blocks()[-1][1].spec["channels"][1]
        for step, chosen in data.order(len(job.train), self.batch, seed, self.epoch, self.step):
            batch = job.train.take(chosen.to(job.train.labels.device))
            rng = data.generator(seed, self.epoch, step + 1)
            x = data.augment(batch.pixels, rng, job.flip, job.shift, settings.cutout)
            expected = targets(batch.labels, classes, settings.smoothing)
            draw = data.generator(seed, self.epoch, step + 1, MIXING)
            mixed = bool(torch.rand((), generator=draw) < settings.mix)
            if mixed:
                shares = data.mixture(len(x), draw)
                x, expected = data.mix(x, *shares), data.mix(expected, *shares)
            x = to_input(data.resize(x, size), self.net.spec["input"])
            count = -(-len(x) // settings.statistics)
            seeds = [data.generator(seed, self.epoch, step, DROPPING, k) for k in range(count)]
            # Mixed images have other statistics: only plain ones set the running ones.
            yield step, x, expected, not mixed, seeds

    def _step(self, x: Tensor, expected: Tensor, tracking: bool, seeds: list[Any]) -> float:
        settings = self.job.settings
        progress = min(1.0, (self.epoch + self.step / self.steps) / len(self.sizes))
        if self.fake:
            exact = progress >= 1 - settings.exact and self.net.has_codebooks
            self.net.mode = "exact" if exact else "fake"
        for group in (*self.weights.param_groups, *self.others.param_groups):
            group["lr"] = settings.rate * learning_factor(progress)
        pieces = list(zip(x.split(settings.statistics), expected.split(settings.statistics)))
        loss = self.workers.gradients(pieces, self._loss, tracking, seeds)
        if not math.isfinite(loss):
            raise UserError(
                f"{self.job.name}: the loss is {loss} in epoch {self.epoch + 1}; "
                "a lower rate may help"
            )
        self.weights.step(self.workers.pool.map)
        self.others.step()
        for _, block in self.net.blocks() if self.fake else ():
            if block.spec["norm"] == "batch":
                block.bn.weight.data.clamp_(min=MIN_SCALE)
        return loss

    def _loss(self, logits: Tensor, x: Tensor, expected: Tensor) -> Tensor:
        """Cross entropy with the labels' probabilities and those that the teachers give the very
        same inputs."""
        teachers = self.job.teachers
        if teachers:
            with torch.no_grad(), autocast(x.device.type):
                soft = torch.stack([teacher(x).softmax(1) for teacher in teachers]).sum(0)
            expected = torch.lerp(soft / len(teachers), expected, self.job.settings.labels)
        return F.cross_entropy(logits, expected)


def accuracy(workers: Workers, images: Images, size: int | None = None) -> float:
    """Top-1 accuracy 0..1 of the workers' network in its mode, of images resized to `size`."""

    def prepare(part: Tensor) -> Tensor:
        # uint8 as long as they are: `to_input` rounds what the file's user gives as pixels
        keep = size in (None, part.shape[-1])
        return to_input(
            part if keep else data.resize(part.float(), size), workers.net.spec["input"]
        )

    logits = workers.logits(images.pixels, prepare)
    return (logits.argmax(1) == images.labels).double().mean().item()


def optimizers(net: Net, rate: float) -> tuple[Muon, torch.optim.SGD]:
    """Muon for the weights, in a group of their own those whose length is free; SGD for all
    else."""
    groups: list[dict[str, Any]] = [
        {"params": [b.conv.weight for _, b in net.blocks() if free(b) != fixed], "fixed": fixed}
        for fixed in (True, False)
    ]
    others = [p for _, b in net.blocks() for p in b.bn.parameters()]
    return (
        Muon([group for group in groups if group["params"]], rate, MOMENTUM),
        torch.optim.SGD(others, rate, momentum=MOMENTUM, nesterov=True),
    )


def free(block: Any) -> bool:
    """Whether the length of a layer's weights matters."""
    return block.spec["norm"] == "bias"


def prefetch(source: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of `source`, each computed on a thread while the one before is used."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        job = pool.submit(next, source, None)
        while (item := job.result()) is not None:
            job = pool.submit(next, source, None)
            yield item


def fit(job: Job, workers: Workers, path: Path) -> Run:
    """Train a job to its end; its state is in `path`, where it goes on. Returns the run.

    Raises UserError for images that the network or the augmentation cannot take, for a damaged
    state, and where the loss is not finite.
    """
    run = Run(job, workers, path)
    run.check()
    run.resume()
    run.train()
    return run
