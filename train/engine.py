"""One training stage: batches, loss, learning rates, states, accuracy.

The state is written whole every minute and after each epoch, so a run that ends in any way goes on
from there when the same command is given again, and comes to the same network.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model.common.errors import UserError
from train import checkpoint, data
from train.muon import Muon
from train.net import Net, to_input
from train.recipe import STRICT, Training
from train.sources import Images
from train.workers import Given, Workers, autocast, rank

SAVE_SECONDS = 60
MOMENTUM = 0.8
WARMUP = 0.1
# Batch norm's scale: the file's mult cannot be zero or negative.
MIN_SCALE = 0.01
MEASURED = 5000  # training images that give batch norm's statistics of a quantized network
# Seeds of what is drawn beside the order and the augmentation of a batch.
MIXING, DROPPING, MEASURING = 1, 2, 3
Count = Annotated[int, pydantic.Field(ge=0)]


@pydantic.dataclasses.dataclass(config=STRICT)
class Standing:
    """Where a stage stands. losses: sum of the present epoch's; history: of the epochs."""

    epoch: Count = 0
    step: Count = 0
    seconds: float = 0.0
    losses: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def standing(path: Path) -> Standing:
    """Where the stage of a state stands. Raises OSError, or CheckpointError."""
    with checkpoint.reading(path) as archive:
        return Standing(**checkpoint.network(archive)[1])


@dataclass(eq=False)
class Run:
    """A stage to train.

    workers: of the network, in the mode to train in. path: of the state. seed: of all that is
    drawn. flip, shift: augmentation. teachers: networks to learn from.
    """

    workers: Workers
    settings: Training
    train: Images
    val: Images
    path: Path
    seed: int
    flip: bool = True
    shift: int = 4
    teachers: list[Net] = field(default_factory=list)
    name: str = "training"
    at: Standing = field(default_factory=Standing)

    def __post_init__(self) -> None:
        net = self.net = self.workers.net
        self.batch = min(self.settings.batch, len(self.train))
        self.steps = len(self.train) // self.batch  # of an epoch
        self.sizes = self.settings.sizes
        # The length of weights matters where no batch norm divides by it.
        groups = [
            {"params": [parameter], "fixed": block.spec["norm"] != "bias"}
            for _, block in net.blocks()
            for parameter in block.parameters()
            if parameter.requires_grad
        ]
        self.optimizer = Muon(groups, self.settings.rate, MOMENTUM)
        self.began = self.saved = time.monotonic()

    def save(self) -> None:
        """Write the state, whole."""
        now = time.monotonic()
        self.at.seconds, self.began, self.saved = self.at.seconds + now - self.began, now, now
        if rank() == 0:
            named, state = self.net.nodes.named_parameters(), self.optimizer.state
            momenta = {name: state[p]["momentum_buffer"] for name, p in named if p in state}
            checkpoint.write(self.net, self.path, asdict(self.at), momenta)

    def resume(self) -> None:
        """Take up the state that is there, if one is. Raises CheckpointError."""
        if not self.path.exists():
            return
        with checkpoint.reading(self.path) as archive:
            net, facts = checkpoint.network(archive)
            self.net.load_state_dict(net.state_dict())
            self.at = Standing(**facts)
            for name, parameter in self.net.nodes.named_parameters():
                if (key := name + checkpoint.MOMENTUM) in archive:
                    buffer = torch.tensor(archive[key], device=parameter.device).view_as(parameter)
                    self.optimizer.state[parameter]["momentum_buffer"] = buffer

    def fit(self) -> None:
        """Train to the end. Raises UserError for images that the network or the augmentation cannot
        take, for a damaged state, and where the loss is not finite."""
        self.check()
        self.resume()
        at, cost = self.at, self.settings.pixels(self.train.pixels)
        done = self.steps * sum(cost[: at.epoch]) + at.step * sum(cost[at.epoch :][:1])
        with tqdm(  # its time left is right: a step costs what its pixels do
            desc=self.name,
            total=self.steps * sum(cost),
            initial=done,
            mininterval=5,
            disable=rank() > 0,
            bar_format="{l_bar}{bar}| {elapsed}, {remaining} left{postfix}",
        ) as bar:
            while at.epoch < len(self.sizes):
                size = self.sizes[at.epoch]
                for pieces, tracking in prefetch(self.batches(size)):
                    at.losses += self.update(pieces, tracking)
                    at.step += 1
                    bar.update(cost[at.epoch])
                    if time.monotonic() - self.saved > SAVE_SECONDS and at.step < self.steps:
                        self.save()
                fake = self.net.mode == "fake"
                if fake:
                    self.measure()
                reached = self.workers.accuracy(self.val, None if fake else size)
                loss = at.losses / self.steps
                at.epoch, at.step, at.losses = at.epoch + 1, 0, 0.0
                at.history.append({"epoch": at.epoch, "loss": loss, "val": reached})
                bar.set_postfix_str(
                    f"epoch {at.epoch}: loss {loss:.4f}, validation {100 * reached:.2f} %"
                )
                self.save()

    @torch.no_grad()
    def check(self) -> None:
        """Raise UserError where a network does not take the images, or the shift is too large."""
        if len(self.train) < 2:
            raise UserError(f"{self.name}: one training image is too few")
        shape = self.train.pixels.shape[1:]
        try:
            data.augment(self.train.pixels[:1], data.generator(0), False, self.shift)
            for size in set(self.sizes):
                one = data.resize(torch.zeros(1, *shape, device=self.workers.device), size)
                for net in (self.net, *self.teachers):
                    if (found := net(one).shape) != (1, net.classes):
                        raise UserError(
                            f"{self.name}: of an image of {list(one.shape[1:])} the network makes "
                            f"{found.numel()} numbers for {net.classes} classes; pool the whole "
                            "map before the end"
                        )
        except RuntimeError as error:
            raise UserError(
                f"{self.name}: images of {list(shape)} do not fit a shift of {self.shift}, "
                f"the sizes {self.sizes[:9]} or the network: {' '.join(str(error).split())[:200]}"
            ) from error

    def batches(self, size: int | None) -> Iterator[tuple[list[Given], bool]]:
        """The batches that are left of the epoch, and whether batch norm's statistics follow
        them."""
        settings, seed, epoch = self.settings, self.seed, self.at.epoch
        numbers = data.order(len(self.train), self.batch, seed, epoch)
        for step, chosen in enumerate(numbers[self.at.step :], self.at.step):
            batch = self.train.take(chosen.to(self.train.labels.device))
            rng = data.generator(seed, epoch, step + 1)
            x = data.augment(batch.pixels, rng, self.flip, self.shift, settings.cutout)
            expected = targets(batch.labels, self.net.classes, settings.smoothing)
            draw = data.generator(seed, epoch, step + 1, MIXING)
            mixed = bool(torch.rand((), generator=draw) < settings.mix)
            if mixed:
                shares = data.mixture(len(x), draw)
                x, expected = data.mix(x, *shares), data.mix(expected, *shares)
            x = to_input(data.resize(x, size), self.net.spec["input"])
            sizes = piece_sizes(len(x), settings.statistics)
            parts = zip(x.split(sizes), expected.split(sizes))
            draws = (data.generator(seed, epoch, step, DROPPING, k) for k in range(len(x)))
            # Mixed images have other statistics: only plain ones set the running ones.
            yield [(*part, draw) for part, draw in zip(parts, draws)], not mixed

    def update(self, pieces: list[Given], tracking: bool) -> float:
        """One step of the optimizers. Returns the loss."""
        progress = min(1.0, (self.at.epoch + self.at.step / self.steps) / len(self.sizes))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * learning_factor(progress)
        loss = self.workers.gradients(pieces, self.loss, tracking)
        if not math.isfinite(loss):
            raise UserError(
                f"{self.name}: the loss is {loss} in epoch {self.at.epoch + 1}; "
                "a lower rate may help"
            )
        self.optimizer.step(self.workers.map)
        for _, block in self.net.blocks():
            if block.spec["norm"] == "batch":
                block.bn.weight.data.clamp_(min=MIN_SCALE)
        return loss

    def measure(self) -> None:
        """Batch norm's statistics of the weights as they are, on plain training images."""
        order = torch.randperm(len(self.train), generator=data.generator(self.seed, MEASURING))
        chosen = order[:MEASURED].to(self.train.labels.device)
        self.workers.measure(self.train.take(chosen))

    def loss(self, logits: Tensor, x: Tensor, expected: Tensor) -> Tensor:
        """Cross entropy with the labels' probabilities and those that the teachers give the very
        same inputs."""
        if self.teachers:
            with torch.no_grad(), autocast(x.device.type):
                soft = torch.stack([teacher(x).softmax(1) for teacher in self.teachers]).sum(0)
            expected = torch.lerp(soft / len(self.teachers), expected, self.settings.labels)
        return F.cross_entropy(logits, expected)


def learning_factor(done: float) -> float:
    """Linear warm-up, then linear to zero; `done` in 0..1."""
    return done / WARMUP if done < WARMUP else (1 - done) / (1 - WARMUP)


def piece_sizes(count: int, most: int) -> list[int]:
    """Sizes of the pieces of a batch: `most`, and the rest; one image, which has no variance, joins
    the piece before."""
    sizes = [len(piece) for piece in torch.arange(count).split(most)]
    return [*sizes[:-2], most + 1] if len(sizes) > 1 and sizes[-1] == 1 else sizes


def targets(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Labels, int64 [N], as probabilities, float32 [N, classes]."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def prefetch(source: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of `source`, each computed on a thread while the one before is used."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        job = pool.submit(next, source, None)
        while (item := job.result()) is not None:
            job = pool.submit(next, source, None)
            yield item
