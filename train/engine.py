"""One training stage: batches, loss, learning rates, checkpoints, accuracy.

The state is written whole every minute and after each epoch, so a run that ends in any way goes on
from there when the same command is given again, and comes to the same network.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from model.common.errors import UserError
from train import data, files
from train.muon import Muon
from train.net import Net, to_input
from train.quantize import Setting, clipq
from train.recipe import Training
from train.sources import Images
from train.workers import Workers, autocast, rank

SAVE_SECONDS = 60
MOMENTUM = 0.8
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


def learning_factor(done: float, warmup: float) -> float:
    """Linear warm-up, then linear to zero; `done` in 0..1."""
    return done / warmup if done < warmup else (1 - done) / (1 - warmup)


def targets(labels, classes: int, smoothing: float = 0.0) -> torch.Tensor:
    """Labels, int64 [N], as probabilities, float32 [N, classes]."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


class Run:
    """The state of a job: network, optimizers, epoch, step, history."""

    def __init__(self, job: Job, workers: Workers, path: Path):
        self.job, self.workers, self.path, self.net = job, workers, path, job.net
        settings = job.settings
        self.batch = min(settings.batch, len(job.train))
        self.steps = len(job.train) // self.batch  # of an epoch
        self.sizes = settings.sizes
        self.weights, self.others = optimizers(self.net, settings)
        self.epoch, self.step, self.seconds, self.history = 0, 0, 0.0, []
        self.loss = [0.0, 0.0]  # sum and count of the epoch
        self.fake = self.net.mode == "fake"
        self.began = self.saved = time.monotonic()

    # ----------------------------------------------------------------------------------- the state

    def save(self) -> None:
        """Write the state, whole."""
        now = time.monotonic()
        self.seconds, self.began, self.saved = self.seconds + now - self.began, now, now
        if rank():
            return
        files.write(
            self.path,
            {
                "version": files.VERSION,
                "net": self.net.state_dict(),
                "weights": self.weights.state_dict(),
                "others": self.others.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "loss": self.loss,
                "history": self.history,
            },
        )

    def resume(self) -> None:
        """Take up the state that is there, if one is. Raises StateError that names what is
        wrong."""
        if not self.path.exists():
            return
        saved = files.read_fields(self.path)
        saved.inner("net").into_network(self.net)
        saved.inner("weights").into_optimizer(self.weights)
        saved.inner("others").into_optimizer(self.others)
        self.epoch, self.step = saved.count("epoch"), saved.count("step")
        self.seconds = saved.number("seconds", 0)
        self.history = saved.history(epochs=self.epoch)
        self.loss = saved.numbers("loss", 2)

    # ---------------------------------------------------------------------------------- progress

    @property
    def progress(self) -> float:
        """How much of the stage is over, 0..1."""
        return min(1.0, (self.epoch + self.step / self.steps) / len(self.sizes))

    def pixels(self, size: int | None) -> int:
        """Of an image of a size, None: of its own."""
        height, width = self.job.train.pixels.shape[2:]
        return size * size if size else height * width

    def bar(self) -> tqdm:
        """A bar whose time left is right: a step costs about what its pixels do."""
        cost = [self.steps * self.pixels(size) for size in self.sizes]
        size = self.sizes[min(self.epoch, len(self.sizes) - 1)]
        done = sum(cost[: self.epoch]) + self.step * self.pixels(size)
        return tqdm(
            desc=self.job.name,
            total=sum(cost),
            initial=done,
            unit="px",
            mininterval=5,
            disable=rank() > 0,
            bar_format="{l_bar}{bar}| {elapsed}, {remaining} left{postfix}",
        )

    # ---------------------------------------------------------------------------------- training

    def train(self) -> None:
        """To the end of the stage."""
        with self.bar() as bar:
            while self.epoch < len(self.sizes):
                size = self.sizes[self.epoch]
                for step, pixels, expected, tracking, seeds in prefetch(self._batches(size)):
                    loss = self._step(pixels, expected, tracking, seeds)
                    self.loss = [self.loss[0] + loss, self.loss[1] + 1]
                    self.step = step + 1
                    bar.update(self.pixels(size))
                    if time.monotonic() - self.saved > SAVE_SECONDS and self.step < self.steps:
                        self.save()
                self._end_epoch(size, bar)
                self.save()

    @torch.no_grad()
    def check(self) -> None:
        """Raise UserError where a network does not take the images, or the shift is too large."""
        shape = self.job.train.pixels.shape[1:]
        if self.job.shift >= min(shape[1:]):
            raise UserError(
                f"{self.job.name}: shift {self.job.shift} is not smaller than images of {shape[1:]}"
            )
        for size in set(self.sizes):
            one = data.resize(torch.zeros(1, *shape, device=self.workers.device), size)
            for net in (self.net, *self.job.teachers):
                try:
                    net.eval()(one)
                except RuntimeError as error:
                    reason = " ".join(str(error).split())[:200]
                    raise UserError(
                        f"{self.job.name}: the network takes no images of size "
                        f"{list(one.shape[2:])}: {reason}"
                    ) from error

    def _end_epoch(self, size, bar) -> None:
        accuracy = self.accuracy(self.job.val, None if self.fake else size)
        self.epoch, self.step = self.epoch + 1, 0
        loss, self.loss = self.loss[0] / max(1, self.loss[1]), [0.0, 0.0]
        self.history.append({"epoch": self.epoch, "loss": loss, "val": accuracy})
        bar.set_postfix_str(
            f"epoch {self.epoch}: loss {loss:.4f}, validation {100 * accuracy:.2f} %"
        )

    def _batches(self, size):
        job, settings, seed = self.job, self.job.settings, self.job.seed
        for step, chosen in data.order(len(job.train), self.batch, seed, self.epoch, self.step):
            batch = job.train.take(chosen.to(job.train.labels.device))
            rng = data.generator(seed, self.epoch, step + 1)
            x = data.augment(batch.pixels, rng, job.flip, job.shift, settings.cutout)
            expected = targets(batch.labels, self._classes, settings.smoothing)
            draw = data.generator(seed, self.epoch, step + 1, MIXING)
            mixed = torch.rand((), generator=draw) < settings.mix
            if mixed:
                shares = data.mixture(len(x), draw)
                x, expected = data.mix(x, *shares), data.mix(expected, *shares)
            x = to_input(data.resize(x, size), self.net.spec["input"])
            count = -(-len(x) // settings.statistics)
            seeds = [data.generator(seed, self.epoch, step, DROPPING, k) for k in range(count)]
            # Mixed images have other statistics: only plain ones set the running ones.
            yield step, x, expected, not mixed, seeds

    @property
    def _classes(self) -> int:
        return self.net.nodes[self.net.blocks()[-1][0]].spec["channels"][1]

    def _step(self, x, expected, tracking, seeds) -> float:
        settings, progress = self.job.settings, self.progress
        if self.fake:
            self.net.mode = "exact" if progress >= 1 - settings.exact else "fake"
        factor = learning_factor(progress, settings.warmup)
        for optimizer, rate in (
            (self.weights, settings.rate),
            (self.others, settings.norm_rate or settings.rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        pieces = list(zip(x.split(settings.statistics), expected.split(settings.statistics)))
        loss = self.workers.gradients(pieces, self._loss, tracking, seeds)
        if not math.isfinite(loss):
            raise UserError(
                f"{self.job.name}: the loss is {loss} in epoch {self.epoch + 1}; "
                "a lower rate may help"
            )
        self.weights.step(self.workers.pool.map)
        self.others.step()
        if self.fake:
            self._restrain()
        return loss

    def _loss(self, logits, x, expected):
        """Cross entropy with the labels' probabilities and those that the teachers give the very
        same inputs."""
        teachers, share = self.job.teachers, self.job.settings.labels
        if teachers:
            with torch.no_grad(), autocast(x.device.type):
                soft = sum(teacher(x).softmax(1) for teacher in teachers) / len(teachers)
            expected = torch.lerp(soft, expected, share)
        return F.cross_entropy(logits, expected)

    def _restrain(self) -> None:
        for _, block in self.net.blocks():
            if self.job.settings.bound is not None and isinstance(block.quantizer, Setting):
                clipq.bound(block.conv.weight, self.job.settings.bound)
            if block.spec["norm"] == "batch":
                block.bn.weight.data.clamp_(min=MIN_SCALE)

    def accuracy(self, images: Images, size: int | None = None) -> float:
        """Top-1 accuracy 0..1, of images resized to `size`."""
        return accuracy(self.workers, images, size)


def accuracy(workers: Workers, images: Images, size: int | None = None) -> float:
    """Top-1 accuracy 0..1 of the workers' network in its mode, of images resized to `size`."""
    source = workers.net.spec["input"]

    def prepare(part):
        # uint8 as long as they are: `to_input` rounds what the file's user gives as pixels
        keep = size in (None, part.shape[-1])
        return to_input(part if keep else data.resize(part.float(), size), source)

    logits = workers.logits(images.pixels, prepare)
    return (logits.argmax(1) == images.labels).double().mean().item()


def optimizers(net: Net, settings: Training) -> tuple[Muon, torch.optim.SGD]:
    """Muon for the weights, those without batch norm in a group whose length is free; SGD for all
    else."""
    groups = [
        {"params": [b.conv.weight for _, b in net.blocks() if fixed(b)], "fixed": True},
        {"params": [b.conv.weight for _, b in net.blocks() if not fixed(b)], "fixed": False},
    ]
    others = [p for _, b in net.blocks() for p in b.bn.parameters()]
    return (
        Muon([group for group in groups if group["params"]], settings.rate, MOMENTUM),
        torch.optim.SGD(others, settings.rate, momentum=MOMENTUM, nesterov=True),
    )


def fixed(block) -> bool:
    """Whether the length of a layer's weights means nothing."""
    return block.spec["norm"] != "bias"


def prefetch(source):
    """Yield the items of `source`, each computed on a thread while the one before is used."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        job = pool.submit(next, source, None)
        while (item := job.result()) is not None:
            job = pool.submit(next, source, None)
            yield item


def fit(job: Job, workers: Workers, path: Path, report: Callable = lambda run: None) -> Run:
    """Train a job to its end; its state is in `path`, where it goes on. Returns the run.

    Raises UserError for images that the network or the augmentation cannot take, for a damaged
    state, and where the loss is not finite.
    """
    run = Run(job, workers, path)
    run.check()
    run.resume()
    report(run)
    run.train()
    return run
