"""Train the NIN: full precision on growing pictures, CLIP-Q, then the integer arithmetic itself.
`python -m train.train --help`.

Every epoch and every ten minutes the run is saved to its folder, and the same command goes on from
there. Seeds fix the initial weights, the order and the augmentation; the best epoch is chosen on
5,000 pictures held back from training.
"""

import math
import os
import signal
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.common.command import Command
from model.common.errors import UserError, printable
from model.common.files import check_output
from model.data.cifar import class_names
from train import checkpoint, clipq, data, run_files
from train.checkpoint import CLASSES
from train.identity import digest
from train.loss import Loss, teacher_probabilities
from train.muon import Muon
from train.nin import NIN, to_input
from train.options import FILE, FOLDER, MINUTES, RATE, SEED, THREADS, Real
from train.parallel import Workers
from train.precision import autocast
from train.replica import Replica, join_group, rank, world
from train.run_files import StateError
from train.segments import Segments
from train.shipper import Shipper
from train.teacher import Teacher, read_any

SAVE_SECONDS = 600
RESULTS = "results.json"
BOUND = 2.0  # shadow weights stay within so many standard deviations, where nothing else is said


@dataclass(frozen=True)
class Phase:
    """One learning-rate cycle. stages: (picture size, epochs) in turn; lr: Muon's peak, bn_lr:
    batch norm's."""

    name: str
    stages: tuple[tuple[int, int], ...]
    lr: float = 0.05
    bn_lr: float = 0.05
    batch: int = 250
    warmup: float = 0.1
    loss: Loss = Loss()
    cutout: int = 0
    mode: str = "float"  # of the network, see train.nin
    bound: float | None = (
        # standard deviations that shadow weights stay within in quantized modes; None: any number
        BOUND
    )
    # how firmly the second half pulls the weights to their quantized values: its decay is e^(settle
    # / 4)
    settle: float = 0.0
    # share of the way to their quantized values that all steps move the weights, besides `settle`
    pull: float = 0.0
    end: float | None = None  # epoch, possibly fractional, at which the phase ends early
    minutes: float | None = (
        None  # wall-clock time after which it does: then the clock drives the learning rate
    )

    @property
    def length(self) -> float:
        """Epochs until the learning rate is zero and the phase is over."""
        return min(len(self.sizes), self.end or math.inf)

    @property
    def quantized(self) -> bool:
        """Whether the network computes with integer weights and activations."""
        return self.mode != "float"

    @property
    def sizes(self) -> list[int]:
        """Picture size of each epoch."""
        return [size for size, epochs in self.stages for _ in range(epochs)]


# Small pictures first: the recipe of a full-precision training that a processor can afford.
FLOAT = Phase("float", ((16, 5), (20, 4), (24, 4), (32, 7)))
# The same network goes on, taught by what it was before: "Born Again Neural Networks", Furlanello
# et al., ICML 2018.
REFINE = Phase("refine", ((32, 12),), lr=0.03, bn_lr=0.03, warmup=0.05, loss=Loss(share=0.5))
CLIPQ = Phase(
    "clipq",
    ((24, 2), (32, 8)),
    lr=0.03,
    bn_lr=0.03,
    warmup=0.05,
    mode="fake",
    loss=Loss(share=0.5),
    settle=8.0,
)
# The end: integer arithmetic in the forward pass, so that what is validated is what the hardware
# computes.
EXACT = Phase(
    "exact", ((32, 1),), lr=0.003, bn_lr=0.003, warmup=0.05, mode="exact", loss=Loss(share=0.5)
)
RECIPES = {
    "short": (FLOAT, REFINE, CLIPQ, EXACT),
    "full": (
        replace(FLOAT, stages=((24, 10), (32, 50)), cutout=8),
        replace(CLIPQ, stages=((32, 60),)),
        replace(EXACT, stages=((32, 5),)),
    ),
    # Only shows that everything works, on 5,000 pictures.
    "smoke": tuple(replace(p, stages=((16, 1),)) for p in (FLOAT, REFINE, CLIPQ, EXACT)),
}
CLIP = 0.5  # fraction of either sign that CLIP-Q sets to zero, in every layer
MIN_SCALE = (
    0.01  # batch norm's scale in quantized phases: the file's mult cannot be zero or negative
)
CALIBRATION_PICTURES = 250


def learning_factor(done: float, warmup: float) -> float:
    """Linear warm-up, then linear to zero; `done` in 0..1."""
    return done / warmup if done < warmup else (1 - done) / (1 - warmup)


def prefetch(source, pool):
    """Yield the items of `source`, each computed on `pool` while the one before is used."""
    job = pool.submit(next, source, None)
    while (item := job.result()) is not None:
        job = pool.submit(next, source, None)
        yield item


class Trainer:
    """One phase of one run: network, optimizers, log and checkpoint. sources: what names the files
    it hangs on, by option."""

    ROW = ("loss", "val")  # what a row of the history has at least

    def __init__(
        self,
        workers: Workers | Replica,
        phase: Phase,
        pictures: dict,
        dataset: str,
        seed: int,
        folder: Path,
        sources: dict[str, str] | None = None,
    ):
        self.workers, self.net = workers, workers.net
        self.phase, self.dataset, self.seed, self.folder, self.sources = (
            phase,
            dataset,
            seed,
            folder,
            sources or {},
        )
        self.stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        self.train_set, self.val_set = pictures["train"], pictures["val"]
        # the teacher's probabilities of the training pictures, where the loss asks for them
        self.soft = None
        folder.mkdir(parents=True, exist_ok=True)
        self.log = SummaryWriter(folder / "tensorboard" / phase.name) if rank() == 0 else None
        convs = [b.conv.weight for _, b in self.net.blocks()]
        norms = [p for _, b in self.net.blocks() for p in b.bn.parameters()]
        self.muon = Muon(convs, lr=phase.lr)
        self.sgd = torch.optim.SGD(norms, lr=phase.bn_lr, momentum=0.8, nesterov=True)
        self.epoch, self.step, self.seconds, self.history = 0, 0, 0.0, []
        self.started = time.monotonic()
        self.steps_per_epoch = len(self.train_set[1]) // phase.batch

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.phase.name}.pt"

    def save(self) -> None:
        """Write the checkpoint of this phase."""
        if rank():
            return
        run_files.write(
            self.checkpoint,
            {
                "version": run_files.VERSION,
                "net": self.net.state_dict(),
                "muon": self.muon.state_dict(),
                "sgd": self.sgd.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "history": self.history,
                "settings": self._settings,
            },
        )

    @property
    def _settings(self) -> dict:
        """What decides the result of the phase; the network it starts from by the name of its file
        only."""
        return {"dataset": self.dataset, "seed": self.seed, **self.sources, **asdict(self.phase)}

    def _stop(self, *_):
        self.stopping = True

    def resume(self, ended: bool = False) -> bool:
        """Take up the saved run of this phase, if there is one; ended: it is only what the next one
        starts from.

        Raises StateError that names what was set differently then (of a phase that has ended the
        data set and the seed only) or what is damaged.
        """
        if not self.checkpoint.exists():
            return False
        saved = run_files.read_fields(self.checkpoint)
        self._refuse_other(saved.inner("settings").table, ("dataset", "seed") if ended else None)
        saved.inner("net").into_network(self.net)
        saved.inner("muon").into_optimizer(self.muon)
        saved.inner("sgd").into_optimizer(self.sgd)
        self.net.mode = self.phase.mode
        self.epoch, self.step = saved.count("epoch"), saved.count("step")
        self.seconds = saved.number("seconds", 0)
        self.history = saved.history(self.ROW, self.epoch)
        return True

    def _refuse_other(self, settings: dict, keys: tuple[str, ...] | None) -> None:
        mine = self._settings
        other = [
            f"{key} {settings.get(key)}, not {mine.get(key)}"
            for key in keys or {**mine, **settings}
            if repr(settings.get(key)) != repr(mine.get(key))
        ]
        if other:
            raise StateError(
                printable(
                    f"{self.checkpoint} was made with {'; '.join(other)[:800]}: "
                    "another folder is needed, or the file has to go"
                )
            )

    def run(self, after_epoch=None) -> None:
        """Train to the end of the phase. `after_epoch(trainer)` is called when an epoch has been
        validated."""
        sizes = self.phase.sizes
        with self._bar() as bar:
            while self.epoch < len(sizes) and self.progress() < 1:
                self._epoch(sizes[self.epoch], bar)
                if after_epoch:
                    after_epoch(self)
                self.save()
        if self.log:
            self.log.close()

    def _bar(self) -> tqdm:
        """A bar whose time left is right: of seconds where the clock ends the phase, else of
        pixels, as a step costs about what its pixels do."""
        options = {"desc": self.phase.name, "mininterval": 5, "disable": rank() > 0}
        if self.phase.minutes:
            return tqdm(
                total=60 * self.phase.minutes,
                initial=self.seconds,
                unit="s",
                bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s",
                **options,
            )
        sizes = self.phase.sizes
        cost = [self.steps_per_epoch * s * s / 1000 for s in sizes]
        steps = math.ceil(self.phase.length * self.steps_per_epoch)  # until the phase is over
        total = sum(
            c * min(1.0, max(0.0, steps / self.steps_per_epoch - epoch))
            for epoch, c in enumerate(cost)
        )
        done = (
            sum(cost[: self.epoch]) + self.step * sizes[min(self.epoch, len(sizes) - 1)] ** 2 / 1000
        )
        return tqdm(total=total, initial=done, unit="kpx", **options)

    @property
    def _elapsed(self) -> float:
        """Seconds that this phase has been trained for, in all its runs."""
        return self.seconds + time.monotonic() - self.started

    def progress(self) -> float:
        """How much of the phase is over, 0..1."""
        steps = (self.epoch + self.step / self.steps_per_epoch) / self.phase.length
        if self.phase.minutes is None:
            return steps
        return max(steps, self._elapsed / (60 * self.phase.minutes))

    def _epoch(self, size: int, bar) -> None:
        self.started = saved = time.monotonic()
        self.net.train()
        loss_sum = count = 0
        for step, pixels, chosen in prefetch(self._batches(size), self.workers.pool):
            loss_sum += self._step(pixels, chosen)
            count += 1
            self.step = step + 1
            ended = self.progress() >= 1
            bar.update(self._elapsed - bar.n if self.phase.minutes else size * size / 1000)
            if self.stopping or time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                self.seconds += saved - self.started
                self.started = saved
                self.save()
            if self.stopping:
                raise UserError(
                    "stopped and saved; the same command goes on from "
                    f"epoch {self.epoch + 1}, step {step + 1}"
                )
            if ended:
                break
        accuracy = self.accuracy(self.val_set, 32 if self.phase.quantized else size)
        self.seconds += time.monotonic() - self.started
        self.started = time.monotonic()
        self.epoch, self.step = self.epoch + 1, 0
        row = {
            "epoch": self.epoch,
            "size": size,
            "loss": loss_sum / max(count, 1),
            "val": accuracy,
            "seconds": self.seconds,
        }
        self.history.append(row)
        if not self.log:
            return
        for key in ("loss", "val"):
            self.log.add_scalar(key, row[key], self.epoch)
        self.log.flush()
        tqdm.write(
            f"{self.phase.name} epoch {self.epoch} {size}x{size}: loss {row['loss']:.4f} "
            f"validation {100 * accuracy:.2f} % after {self.seconds:.0f} s"
        )

    def _batches(self, size: int):
        return data.batches(
            self.train_set[0],
            self.phase.batch,
            2 * self.seed + self.phase.quantized,
            self.epoch,
            size,
            self.step,
            self.phase.cutout,
        )

    def _step(self, pixels, chosen) -> float:
        factor = learning_factor(min(self.progress(), 1.0), self.phase.warmup)
        self.muon.param_groups[0]["lr"] = self.phase.lr * factor
        self.sgd.param_groups[0]["lr"] = self.phase.bn_lr * factor
        labels, soft = (
            self.train_set[1][chosen],
            None if self.soft is None else self.soft[chosen].float(),
        )
        loss = self.workers.gradients(
            pixels,
            labels,
            soft,
            self._piece(pixels),
            self.phase.loss,
            self._prepare,
            self._tracks(chosen),
        )
        if not math.isfinite(loss):
            raise UserError(
                f"{self.phase.name}: the loss is {loss} in epoch {self.epoch + 1}; "
                "a lower learning rate may help"
            )
        self.muon.step(self.workers.pool.map)
        self.sgd.step()
        if self.phase.quantized:
            for _, block in self.net.blocks():
                if self.phase.bound is not None and not isinstance(
                    block.quantizer, Segments
                ):  # whose boundaries do not hang on the extremes
                    clipq.bound(block.conv.weight, self.phase.bound)
                block.bn.weight.data.clamp_(min=MIN_SCALE)
        late = max(0.0, 2 * min(self.progress(), 1.0) - 1)
        if share := self.phase.pull + self.phase.settle * late / (
            self.phase.length * self.steps_per_epoch
        ):
            self._settle(share)
        return loss

    def _piece(self, pixels) -> int:
        """Pictures to a piece of the batch, each with statistics of its own: few enough to share
        out, enough to be efficient."""
        return 25 if pixels.shape[-1] > 20 else 42

    def _tracks(self, chosen) -> bool:
        """Whether batch norm's running statistics follow the batch of these pictures."""
        return True

    def _settle(self, share: float) -> None:
        list(
            self.workers.pool.map(
                lambda b: clipq.settle(b[1].conv.weight.data, b[1].quantizer, share),
                self.net.blocks(),
            )
        )

    def _prepare(self, pixels):
        return to_input(pixels, self.dataset)

    def accuracy(self, pictures, size: int = 32) -> float:
        """Top-1 accuracy 0..1 on (uint8 pictures, labels), resized to `size`."""
        pixels, labels = pictures
        if size != pixels.shape[-1]:
            pixels = torch.cat([data.resize(x.float(), size) for x in pixels.split(500)])
        return (
            (self.workers.logits(pixels, self._prepare).argmax(1) == labels.cpu())
            .double()
            .mean()
            .item()
        )


def quantize_network(net: NIN, x: torch.Tensor) -> None:
    """Turn a full-precision network into the start of CLIP-Q training; x: input integers to choose
    the scales with."""
    for _, block in net.blocks():
        block.quantizer = clipq.Setting(clip=CLIP)
        clipq.bound(block.conv.weight, BOUND)
    with autocast(x.device.type):
        net.calibrate(x)


def teach(
    workers, teacher: torch.nn.Module, pixels: torch.Tensor, dataset: str, path: Path
) -> torch.Tensor:
    """Probabilities [N, classes], float16, that the full-precision `teacher`, a NIN or a Teacher,
    gives the training pictures; kept in `path`."""
    if path.exists():
        return run_files.read_probabilities(path, (len(pixels), CLASSES[dataset])).to(pixels.device)
    soft = (
        teacher_probabilities(
            lambda p: workers.logits(p, lambda x: to_input(x, dataset), net=teacher),
            pixels,
            CLIPQ.loss.temperature,
        )
        .half()
        .to(pixels.device)
    )
    if rank() == 0:
        run_files.write(path, soft.cpu())
    return soft


def name_teacher(
    net: NIN, taught_by: Path | None, full_precision: Path, dataset: str, phase: str
) -> tuple[NIN | Teacher, str]:
    """Who teaches `phase`, and a name for its probabilities: the network in `taught_by`, else `net`
    itself as it is before the phase, or if it is quantized
    the network in `full_precision`. Raises OSError, or UserError that names the file."""
    if taught_by:
        return read_any(taught_by, dataset), f"teacher-{digest(taught_by)}.pt"
    if net.mode == "float":
        return net, f"teacher-{phase}.pt"
    return checkpoint.read_for(full_precision, dataset, False)[0], "teacher.pt"


def take_up(net: NIN, source: NIN) -> None:
    """Make `net` the same network as `source`, in full precision or quantized."""
    net.load_state_dict(source.state_dict())
    net.mode = source.mode
    for (_, block), (_, other) in zip(net.blocks(), source.blocks()):
        block.quantizer = other.quantizer


def device_name(name: str) -> str:
    """ "cpu" or "cuda"; name: one of them, or "auto" for a GPU where there is one.

    Raises UserError where "cuda" is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU to use; --device cpu needs none")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def find_device(name: str) -> torch.device:
    """The device of this process; name: as for `device_name`."""
    return join_group(device_name(name))


def prepare_folder(folder: Path, states, *outputs: str) -> None:
    """Make the folder of a run and try, by name, what could end it late: outputs, states in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*states, *outputs, RESULTS):
        check_output(folder / name)
    run_files.read_results(folder / RESULTS)
    for name in states:
        if (folder / name).exists():
            run_files.read(folder / name)


def workers_for(net, device: torch.device, threads: int) -> Workers | Replica:
    """What computes for `net` on `device`: `threads` threads of one process on a CPU, else a
    replica in each process."""
    return Workers(net, threads) if device.type == "cpu" and world() == 1 else Replica(net, device)


def record(folder: Path, key: str, value) -> None:
    """Add one measured value to results.json of the run."""
    path = folder / RESULTS
    run_files.write_json(path, {**run_files.read_results(path), key: value})


def run_phase(trainer: Trainer, pictures: dict, after_epoch=None) -> dict:
    """Train a phase to its end, measure it once on the test set, which has had no say in anything,
    and return what a file says of it."""
    trainer.run(after_epoch)
    facts = {"phase": trainer.phase.name}
    if rank() == 0:
        facts["validation"] = trainer.accuracy(trainer.val_set)
        record(
            trainer.folder,
            trainer.phase.name,
            {
                "history": trainer.history,
                "validation": facts["validation"],
                "test": trainer.accuracy(pictures["test"]),
            },
        )
    return facts


@click.command(cls=Command)
@click.option("--dataset", type=click.Choice(sorted(CLASSES)), default="cifar10", show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option(
    "--run", "folder", type=FOLDER, help="Folder of checkpoints and logs. [build/train/...]"
)
@click.option(
    "--out", type=FOLDER, help="Folder of the best checkpoint and network file. [the run's]"
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Several GPUs: torchrun -m train.train.",
)
@click.option(
    "--threads", type=THREADS, default=os.cpu_count(), show_default=True, help="Of the CPU."
)
@click.option(
    "--phase",
    type=click.Choice([*dict.fromkeys(p.name for r in RECIPES.values() for p in r), "all"]),
    default="all",
    show_default=True,
)
@click.option(
    "--start",
    type=FILE,
    help="Begin with the quantized phases (or with --phase refine), from this "
    ".float.npz or .ckpt.npz.",
)
@click.option(
    "--teacher",
    "taught_by",
    type=FILE,
    help="What the phases after the first learn from: a .float.npz, or the .pt of "
    "train.teacher_training. [the full-precision network itself]",
)
@click.option(
    "--end",
    type=Real(0, 100_000, min_open=True),
    help="End the last phase after so many epochs (fractions allowed), with learning "
    "rate zero there.",
)
@click.option(
    "--minutes",
    type=MINUTES,
    help="End the last phase after so many minutes: the clock drives its learning rate.",
)
@click.option(
    "--lr",
    type=RATE,
    help="Peak learning rate of the last phase; low for a network that needs little more. [recipe]",
)
@click.option("--bn-lr", type=RATE, help="Batch norm's, where it is to differ. [--lr]")
@click.option(
    "--size",
    type=click.Choice(["16", "20", "24", "28", "32"]),
    help="Picture size of all epochs of the last phase. [recipe]",
)
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default="short",
    show_default=True,
    help="short: hours on two cores; full: for a GPU; smoke: minutes, no useful network.",
)
def main(
    dataset,
    seed,
    folder,
    out,
    device,
    threads,
    phase,
    start,
    taught_by,
    end,
    minutes,
    lr,
    bn_lr,
    size,
    recipe,
):
    """Train the NIN in full precision, then with CLIP-Q, and export the best network. Resumes where
    it was stopped."""
    if start and phase == "float":
        raise click.UsageError(
            "--start begins with the quantized phases, --phase float ends before them"
        )
    phases = list(RECIPES[recipe])
    names = [p.name for p in phases]
    if phase not in ("all", *names):
        raise click.UsageError(f"--recipe {recipe} has no phase {phase}, only {', '.join(names)}")
    folder = (
        folder
        or Path("build/train")
        / f"nin-{dataset}-seed{seed}{'' if recipe == 'short' else '-' + recipe}"
    )
    device = find_device(device)
    if taught_by:
        read_any(taught_by, dataset)  # a bad file is refused before any training
    source, facts = checkpoint.read_for(start, dataset) if start else (None, None)
    if start and source.mode != "float" and phase == REFINE.name:
        raise click.UsageError(f"{start} is quantized; the phase refine begins from full precision")
    prepare_folder(folder, [f"{name}.pt" for name in names])
    ship = Shipper(dataset, out or folder, class_names(dataset), seed)
    pictures = {split: (x.to(device), y.to(device)) for split, (x, y) in data.load(dataset).items()}
    if recipe == "smoke":
        pictures = {
            split: (x[:n], y[:n]) for (split, (x, y)), n in zip(pictures.items(), (5000, 500, 500))
        }
    last = len(phases) if phase == "all" else names.index(phase) + 1
    phases = phases[:last]
    changes = {key: rate for key, rate in (("lr", lr), ("bn_lr", bn_lr or lr)) if rate}
    if size:
        changes["stages"] = ((int(size), len(phases[-1].sizes)),)
    phases[-1] = replace(phases[-1], end=end, minutes=minutes, **changes)
    torch.manual_seed(seed)
    net = NIN(CLASSES[dataset])
    workers = workers_for(net, device, threads)
    soft = None
    if start:
        take_up(net, source)
        phases = [p for p in phases if p.quantized or phase == p.name]
        if net.mode == "float" and phases[0].quantized:
            ship.offer_float(net, facts)
    # Not the start's digest: with --out next to it this very run may replace it by something
    # better.
    sources = {
        **({"--start": str(start)} if start else {}),
        **({"--teacher": digest(taught_by)} if taught_by else {}),
    }
    for current in phases:
        trainer = Trainer(workers, current, pictures, dataset, seed, folder, sources)
        if current.loss.share and (
            soft is None or net.mode == "float"
        ):  # the integer phase learns on from CLIP-Q's teacher
            teacher, name = name_teacher(net, taught_by, ship.full_precision, dataset, current.name)
            soft = teach(workers, teacher, pictures["train"][0], dataset, folder / name)
        if current.quantized and net.mode == "float":
            quantize_network(net, to_input(pictures["train"][0][:CALIBRATION_PICTURES], dataset))
        net.mode = current.mode
        trainer.soft = soft if current.loss.share else None
        resumed = trainer.resume(ended=phase not in ("all", current.name))
        if phase in ("all", current.name):
            facts = run_phase(trainer, pictures, ship.after_epoch if current.quantized else None)
            if not current.quantized:
                ship.offer_float(net, facts)
        elif not resumed:
            raise UserError(
                f"{printable(trainer.checkpoint)} does not exist: "
                f"run the {current.name} phase first"
            )


if __name__ == "__main__":
    main()
