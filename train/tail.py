"""The last layers of a quantized network, trained on the stored outputs of the first. `python -m
train.tail --help`.

Most of a training step goes into the first layers, whose pictures are large; from conv5 on a fifth
of the multiplications is left. So the first layers stay as they are, what they give for a few
augmented views of each training picture is computed once and kept (a byte per activation, as in the
hardware), and straight-through training of the rest has time for many epochs. What it learns is a
teacher's (by default the full-precision network's) probabilities of the very view that it sees,
labels only where asked to: L. Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and
Consistent", CVPR 2022.
"""

import copy
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from model.common.command import Command
from model.common.errors import UserError
from model.data.cifar import class_names
from train import checkpoint, data, run_files
from train.export import ZOO
from train.identity import digest
from train.loss import Loss, teacher_probabilities
from train.nin import LAYERS, NIN, POOL_AFTER, round_input, to_input
from train.options import EPOCHS, FILE, FOLDER, MINUTES, RATE, SEED, THREADS, Real
from train.parallel import Workers
from train.precision import autocast
from train.shipper import Shipper
from train.teacher import read_any
from train.train import CLIPQ, Trainer, prepare_folder

VIEWS = click.IntRange(1, 1000)
NAMES = [name for name, *_ in LAYERS]
PIECE = 100  # pictures at a time through the first layers
# pictures of a batch that are normalized together: the statistics of fewer are noise, and the
# network comes less near to the teachers
STATISTICS = 125
SHIFTS = 7  # sets the generator of the shifts apart from that of the views
PHASE = replace(CLIPQ, name="tail", lr=0.02, bn_lr=0.02, loss=Loss(share=1.0, temperature=1.0))


class Tail(NIN):
    """The layers of `net` from `first` on, as a network of its own that shares them. forward:
    float32 [N, I, H, W] of `first`'s input integers -> logits."""

    def __init__(self, net: NIN, first: str):
        nn.Module.__init__(self)
        names = [name for name, _ in net.blocks()]
        for name, block in net.blocks()[names.index(first) :]:
            self.add_module(name, block)


@torch.no_grad()
def first_layers(net: NIN, x: torch.Tensor, until: str) -> torch.Tensor:
    """What layer `until` of the quantized `net` gets, uint8 [N, I, H, W], for the network's inputs
    x [N, 3, 32, 32]; the rounded inputs, int8, if it is the first."""
    if until == LAYERS[0][0]:
        return round_input(x).to(torch.int8)
    x = x.contiguous(memory_format=torch.channels_last)
    with autocast():
        for name, block in net.blocks():
            if name == until:
                break
            x = block(x)
            x = F.max_pool2d(x, 2) if name in POOL_AFTER else x
    return x.to(torch.uint8)


def store(net: NIN, pixels: torch.Tensor, dataset: str, until: str, threads: int) -> torch.Tensor:
    """`first_layers` of all pictures, uint8 or float32 0..255 [N, 3, 32, 32], on `threads`
    threads."""
    net.eval()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.cat(
            list(
                pool.map(
                    lambda part: first_layers(net, to_input(part, dataset), until),
                    pixels.split(PIECE),
                )
            )
        )


def mixes(view):
    """Whether a view is of mixed pictures; view: a number or a tensor of them."""
    return view % 2 == 1


def certain(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Labels, int64 [N] of 0..classes-1, as probabilities, float16 [N, classes]."""
    return F.one_hot(labels, classes).half()


@dataclass(frozen=True)
class Views:
    """Augmented copies of `pixels`, uint8 [N, 3, 32, 32]: `own` of them, then `further` ones in
    which about half of the pictures are drawn from `others`, of the same type.

    What is learnt of a picture is the teachers' probabilities, so the others may be of any data
    set. Every other view is mixed. Own ones come first; a view is drawn from `seed` and its number,
    from 0 on.
    """

    pixels: torch.Tensor
    own: int
    seed: int
    others: torch.Tensor | None = None
    further: int = 0

    @property
    def count(self) -> int:
        return self.own + self.further

    def __iter__(self):
        """Yield (view, slice of the pictures, those pictures in that view: float32 0..255) until
        all came in each view."""
        for view in range(self.count):
            for chosen, augmented, mixture in self._draw(view):
                yield view, chosen, data.mix(augmented, *mixture) if mixture else augmented

    def labels(self, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """What labels, int64 [N] of 0..classes-1, say of the own views, float16 [own, N, classes]:
        certainty, in a mixed view the mixture of two."""
        one = certain(labels, classes)
        kept = one.expand(self.own, *one.shape).clone()
        for view in range(self.own):
            for chosen, _, mixture in self._draw(view):
                if mixture:
                    kept[view, chosen] = data.mix(one[chosen].float(), *mixture).half()
        return kept

    def _draw(self, view: int):
        """Yield (slice of the pictures, those pictures augmented, what they are to be mixed by or
        None)."""
        rng = data.generator(self.seed, view)
        pixels = self.pixels if view < self.own else self._with_others(rng)
        for begin in range(
            0, len(pixels), 50 * PIECE
        ):  # so that no more than these are held as floats
            chosen = slice(begin, begin + 50 * PIECE)
            augmented = data.augment(pixels[chosen], rng)
            yield chosen, augmented, data.draw_mixture(len(augmented), rng) if mixes(view) else None

    def _with_others(self, rng) -> torch.Tensor:
        number = len(self.pixels)
        drawn = self.others[torch.randint(len(self.others), (number,), generator=rng)]
        return torch.where(torch.rand(number, 1, 1, 1, generator=rng) < 0.5, drawn, self.pixels)


def store_views(net: NIN, views: Views, dataset: str, until: str, threads: int) -> torch.Tensor:
    """`first_layers` of `views`, uint8 (int8 of the first layer) [views, N, I, H, W]."""
    kept = None
    for view, chosen, augmented in views:
        part = store(net, augmented, dataset, until, threads)
        if kept is None:
            kept = torch.empty(views.count, len(views.pixels), *part.shape[1:], dtype=part.dtype)
        kept[view, chosen] = part
    return kept


def teach_pictures(teachers: list[Workers], x, dataset: str) -> torch.Tensor:
    """The mean of the teachers' probabilities, float16 [N, classes], of the pictures x, uint8 or
    float32 0..255 [N, 3, 32, 32], and their mirror images.

    A teacher that comes several times counts as often and is asked once.
    """

    def probabilities(teacher):
        return teacher_probabilities(
            lambda x: teacher.logits(x, lambda part: to_input(part, dataset)).float(),
            x,
            PHASE.loss.temperature,
        )

    return (
        sum(times * probabilities(t) for t, times in Counter(teachers).items()) / len(teachers)
    ).half()


def teach_views(teachers: list[Workers], views: Views, dataset: str) -> torch.Tensor:
    """`teach_pictures` of `views`, float16 [views, N, classes]."""
    return torch.cat([teach_pictures(teachers, x, dataset) for *_, x in views]).view(
        views.count, len(views.pixels), -1
    )


def kept_in(path: Path, shape: tuple[int, ...], compute) -> torch.Tensor:
    """The probabilities in `path`, or what `compute()` gives, put there for a run that goes on.

    `path` must belong to this very computation.
    """
    if path.exists():
        return run_files.read_probabilities(path, shape)
    tensor = compute()
    run_files.write(path, tensor)
    return tensor


def zeros_of(given: tuple[tuple[str, float], ...], first: str) -> dict[str, float]:
    """The option --zeros as layer: share. Raises UsageError that names a layer that is given twice
    or is before `first`."""
    zeros = {}
    for name, share in given:
        if name in zeros:
            raise click.UsageError(f"--zeros {name}: given twice")
        if NAMES.index(name) < NAMES.index(first):
            raise click.UsageError(f"--zeros {name}: the layers before {first} stay as they are")
        zeros[name] = share
    return zeros


def clear(net: NIN, zeros: dict[str, float]) -> None:
    """Give the named layers of the quantized `net` at least these shares, 0..1, of zero weights.

    Raises UserError that names the layer where that is impossible.
    """
    blocks = dict(net.blocks())
    for name, share in zeros.items():
        try:
            blocks[name].quantizer = blocks[name].quantizer.with_zeros(
                blocks[name].conv.weight, share
            )
        except ValueError as error:
            raise UserError(f"--zeros {name}: {100 * share:g} % zeros: {error}") from error


class TailTrainer(Trainer):
    """train: (activations from `store_views` [views * N, I, H, W], labels [views * N]), view after
    view; val: (activations from `store` [N, I, H, W], labels).

    An epoch shows each of the N pictures once; each batch is in a view drawn at random. `soft` and
    `val_soft`: what is learnt of the pictures, the teachers' probabilities and perhaps labels. The
    last `further` of the `views` views hold pictures of others.
    """

    ROW = (*Trainer.ROW, "divergence")

    def __init__(
        self,
        workers: Workers,
        phase,
        pictures: dict,
        dataset: str,
        seed: int,
        folder: Path,
        views: int,
        further: int = 0,
    ):
        super().__init__(workers, phase, pictures, dataset, seed, folder)
        self.views, self.own, self.count = (
            views,
            views - further,
            len(pictures["train"][1]) // views,
        )
        self.steps_per_epoch = self.count // phase.batch

    def _batches(self, size):
        kept, batch = self.train_set[0], self.phase.batch
        order = torch.randperm(self.count, generator=data.generator(self.seed, self.epoch))
        for step in range(self.step, self.steps_per_epoch):
            view = torch.randint(
                self.views, (), generator=data.generator(self.seed, self.epoch, step + 1)
            )
            chosen = view * self.count + order[step * batch : (step + 1) * batch]
            yield step, kept[chosen].float(), chosen

    def _tracks(self, chosen) -> bool:
        view = int(chosen[0]) // self.count
        return view < self.own and not mixes(view)

    def resume(self, ended: bool = False) -> bool:
        resumed = super().resume(ended)
        if self.history:
            run_files.read(self._best)  # now, not at the end
        return resumed

    @property
    def _best(self) -> Path:
        return self.folder / "best.pt"

    def divergence(self) -> float:
        """Mean KL divergence, in nats, of the probabilities of the validation pictures from what is
        learnt, `val_soft` [N, classes]."""
        logits = self.workers.logits(self.val_set[0], torch.Tensor.float).float()
        return F.kl_div(logits.log_softmax(1), self.val_soft.float(), reduction="batchmean").item()

    def keep_best(self) -> None:
        """Write the state of the network if after its last epoch it is the nearest to what is
        learnt so far; for `run`'s `after_epoch`."""
        row = self.history[-1]
        row["divergence"] = self.divergence()
        tqdm.write(f"divergence from what is learnt {row['divergence']:.4f}")
        if row is self._nearest():
            run_files.write(self._best, self.net.state_dict())

    def _nearest(self) -> dict:
        return min(self.history, key=lambda row: row["divergence"])

    def take_best(self) -> int:
        """Give the network the state of the epoch that came nearest to what is learnt; return that
        epoch, from 1 on."""
        run_files.read_fields(self._best).into_network(self.net)
        return self._nearest()["epoch"]

    def _piece(self, pixels) -> int:
        return STATISTICS

    def _prepare(self, activations):
        return activations

    def accuracy(self, pictures, size: int = 32) -> float:
        """Top-1 accuracy 0..1 on (activations, labels)."""
        activations, labels = pictures
        return (
            (self.workers.logits(activations, torch.Tensor.float).argmax(1) == labels)
            .double()
            .mean()
            .item()
        )


class ShiftingTrainer(TailTrainer):
    """Flips each view and shifts it by up to `shift` pixels, at random and anew each time it comes,
    and passes it through the layers of `net` before `first`.

    train: as for TailTrainer, but of the network's inputs, int8 [views * N, 3, 32, 32]. A teacher's
    probabilities are those of a view and its mirror image together, so a flip keeps them; a small
    shift hardly changes them.
    """

    def __init__(self, *settings, net: NIN, first: str, shift: int):
        super().__init__(*settings)
        self.first, self.shift, self.front = first, shift, copy.deepcopy(net).eval()
        for _, block in self.front.blocks():  # so that no piece of a batch quantizes anew
            block.conv.weight.data, block.ready = block.quantizer.integers(block.conv.weight), True

    def _batches(self, size):
        for step, inputs, chosen in super()._batches(size):
            yield (
                step,
                data.augment(
                    inputs, data.generator(self.seed, self.epoch, step + 1, SHIFTS), self.shift
                ),
                chosen,
            )

    def _prepare(self, inputs):
        return first_layers(self.front, inputs, self.first).float()


@click.command(cls=Command)
@click.option(
    "--dataset", type=click.Choice(sorted(checkpoint.CLASSES)), default="cifar10", show_default=True
)
@click.option("--start", type=FILE, help="The quantized network. [model/zoo/nin-DATASET.ckpt.npz]")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    type=FILE,
    help="What it learns from: a full-precision NIN, or the .pt of train.teacher_training; the "
    "mean of several, one given twice counting twice. [model/zoo/nin-DATASET.float.npz]",
)
@click.option(
    "--labels",
    "labels_share",
    type=Real(0, 1),
    default=0.0,
    show_default=True,
    help="Share that the labels have in what is learnt of the views of DATASET's own pictures, so "
    "that not every error of the teachers is learnt. The validation pictures' count as much "
    "in the divergence, "
    "which may rise while more answers are right, since the network leaves the teachers: see "
    "--keep.",
)
@click.option(
    "--first",
    type=click.Choice(NAMES),
    default="conv5",
    show_default=True,
    help="First layer that is trained.",
)
@click.option(
    "--views",
    type=VIEWS,
    default=4,
    show_default=True,
    help="Augmented copies of each picture; conv5 needs 2.2 GB of memory for each.",
)
@click.option(
    "--further",
    type=(click.Choice(sorted(checkpoint.CLASSES)), VIEWS),
    metavar="DATASET VIEWS",
    help="So many views more, in which about half of the pictures are training pictures of "
    "DATASET, for which the teachers' probabilities are learnt as well.",
)
@click.option("--epochs", type=EPOCHS, default=30, show_default=True)
@click.option(
    "--minutes",
    type=MINUTES,
    help="End after so many minutes of training: the clock drives the learning rate.",
)
@click.option(
    "--lr",
    type=RATE,
    default=PHASE.lr,
    show_default=True,
    help="Peak learning rate, batch norm's as well.",
)
@click.option(
    "--pull",
    type=Real(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the way to its quantized value that each step moves a weight, all through; for "
    "low rates. [0: in the second half, more and more]",
)
@click.option(
    "--zeros",
    type=(click.Choice(NAMES), Real(0, 1, max_open=True)),
    multiple=True,
    metavar="LAYER SHARE",
    help="Share of zero weights that a trained layer has at least: the more there are, the fewer "
    "bits entropy coding takes. [as it is]",
)
@click.option(
    "--shift",
    type=click.IntRange(0, 15),
    help="Flip each view and shift it by up to so many pixels, at random, each time it comes; the "
    "first layers are then computed in every step. [views stay as they are]",
)
@click.option(
    "--keep",
    type=click.Choice(["nearest", "last"]),
    default="nearest",
    show_default=True,
    help="Which epoch's network is written: where the validation pictures' divergence from what is "
    "learnt is least, or the last.",
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--threads", type=THREADS, default=os.cpu_count(), show_default=True)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("build/tail"),
    show_default=True,
    help="Folder of the network; the run's checkpoint goes into one in it.",
)
def main(
    dataset,
    start,
    teachers,
    labels_share,
    first,
    views,
    further,
    epochs,
    minutes,
    lr,
    pull,
    zeros,
    shift,
    keep,
    seed,
    threads,
    out,
):
    """Train the last layers of a quantized network, validate its best or last epoch in integers and
    write it unless OUT has a better network.

    The same command goes on from where it was stopped.
    """
    zeros = zeros_of(zeros, first)
    if further and further[0] == dataset:
        raise click.UsageError(
            f"--further {dataset}: its pictures are in the other views; name another data set"
        )
    source, teachers = (
        start or ZOO / f"nin-{dataset}.ckpt.npz",
        teachers or (ZOO / f"nin-{dataset}.float.npz",),
    )
    net, _ = checkpoint.read_for(source, dataset, True)
    taught_by = {path: read_any(path, dataset) for path in teachers}
    clear(net, zeros)
    ship = Shipper(dataset, out, class_names(dataset), seed)
    sets = data.load(dataset)
    others = data.load(further[0])["train"][0] if further else None
    classes = checkpoint.CLASSES[dataset]
    phase = replace(
        PHASE,
        stages=((32, epochs),),
        lr=lr,
        bn_lr=lr,
        minutes=minutes,
        pull=pull,
        settle=0.0 if pull else PHASE.settle,
    )
    shifting = shift is not None
    settings = (labels_share, first, views, further, phase, STATISTICS, zeros, seed, shift)
    folder = out / f"run-{digest(dataset, source, *teachers, *settings)}"
    prepare_folder(folder, [f"{phase.name}.pt", "soft.pt", "val-soft.pt"])
    asked = {path: Workers(t, threads) for path, t in taught_by.items()}
    workers = [asked[path] for path in teachers]
    seen = Views(sets["train"][0], views, seed, others, further[1] if further else 0)
    held = sets["val"][0]
    soft = kept_in(
        folder / "soft.pt",
        (seen.count, len(seen.pixels), classes),
        lambda: teach_views(workers, seen, dataset),
    )
    val_soft = kept_in(
        folder / "val-soft.pt", (len(held), classes), lambda: teach_pictures(workers, held, dataset)
    )
    kept = store_views(net, seen, dataset, NAMES[0] if shifting else first, threads)
    pictures = {
        "train": (kept.flatten(0, 1), sets["train"][1].repeat(seen.count)),
        "val": (store(net, sets["val"][0], dataset, first, threads), sets["val"][1]),
    }
    kind = partial(ShiftingTrainer, net=net, first=first, shift=shift) if shifting else TailTrainer
    trainer = kind(
        Workers(Tail(net, first), threads),
        phase,
        pictures,
        dataset,
        seed,
        folder,
        seen.count,
        seen.further,
    )
    if labels_share:
        soft[:views].lerp_(seen.labels(sets["train"][1], classes), labels_share)
        val_soft.lerp_(certain(sets["val"][1], classes), labels_share)
    trainer.soft, trainer.val_soft = soft.flatten(0, 1), val_soft
    trainer.resume()
    trainer.run(TailTrainer.keep_best)
    facts = {"phase": "tail", "epoch": trainer.take_best() if keep == "nearest" else trainer.epoch}
    ship.offer(net, facts, Workers(net, threads), sets["val"])


if __name__ == "__main__":
    main()
