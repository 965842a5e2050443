"""One short quantized training from a full-precision network: what tables and ablations are made
of.

A finished trial is found again by a hash of everything that decides its result (settings, seed,
pictures, the bytes of the full-precision network), an interrupted one goes on from its last epoch.
Accuracies are those of the integer arithmetic.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch

from model.common.errors import UserError, printable
from train import checkpoint, clipq, data, run_files, train
from train.checkpoint import CLASSES
from train.export import ZOO
from train.identity import digest
from train.nin import NIN, to_input
from train.options import EPOCHS, PICTURES, SEED, THREADS, Multiple
from train.precision import autocast
from train.train import Phase, Trainer, teach

FOLDER = Path("build/trials")


@dataclass(frozen=True)
class Trial:
    """start(net, x): frozen dataclass that makes the quantized network of a full-precision one; x:
    input integers to calibrate with."""

    start: object
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Quantized:
    """Start of a trial: the NIN with batch norm, its weights quantized by `quantizer`, 8-bit
    activations."""

    quantizer: object
    bound: float | None = None

    def __call__(self, net: NIN, x: torch.Tensor) -> NIN:
        for _, block in net.blocks():
            block.quantizer = self.quantizer
            if self.bound is not None:
                clipq.bound(block.conv.weight, self.bound)
        with autocast(x.device.type):
            net.calibrate(x)
        return net


def quantized_trial(quantizer, bound: float | None, phases: tuple[Phase, ...]) -> Trial:
    """The trial of a quantizer whose shadow weights stay within `bound` standard deviations (None:
    any number), at the start and in all phases."""
    return Trial(
        Quantized(quantizer, bound), tuple(replace(phase, bound=bound) for phase in phases)
    )


def short_phase(epochs: int, size: int | None = None, **changes) -> Phase:
    """`epochs` of the recipe's quantized phase, without a bound: the first half at 24x24, the rest
    at 32x32, or all of them at `size`."""
    stages = ((size, epochs),) if size else ((24, epochs // 2), (32, epochs - epochs // 2))
    return replace(
        Phase("fake", stages, lr=0.03, bn_lr=0.03, warmup=0.05, mode="fake", bound=None), **changes
    )


def load_full_precision(path: Path, dataset: str) -> NIN:
    """The network of a run's float.pt or of a shipped *.float.npz. Raises OSError, or UserError."""
    if not path.exists():
        advice = (
            f"make train DATASET={dataset} ARGS='--phase float' makes one, --start names another"
        )
        raise UserError(f"{printable(path)} does not exist: {advice}")
    if path.suffix == ".npz":
        return checkpoint.read_for(path, dataset, False)[0]
    net = NIN(CLASSES[dataset])
    run_files.read_fields(path).inner("net").into_network(net)
    return net


class Bench:
    """Runs trials from one full-precision network on one set of pictures and keeps their results
    below `folder`."""

    def __init__(
        self,
        dataset: str,
        seed: int,
        source: Path,
        pictures: dict,
        device: torch.device,
        threads: int,
        folder: Path = FOLDER,
    ):
        self.dataset, self.seed, self.source, self.pictures = dataset, seed, source, pictures
        self.device, self.threads, self.folder = device, threads, folder
        torch.set_num_threads(
            1
        )  # as the workers do: a start must not depend on how sums are split over threads
        load_full_precision(source, dataset)  # say at once that something is wrong with it
        sizes = [len(labels) for _, labels in pictures.values()]
        self.identity = [dataset, seed, sizes, source]

    def _place(self, *settings) -> Path:
        """Folder of everything that depends on `settings`."""
        return self.folder / f"{self.dataset}-{digest(*self.identity, *settings)}"

    def _workers(self, net):
        return train.workers_for(net, self.device, self.threads)

    def full_precision(self) -> dict:
        """Accuracies of the network that all trials start from."""
        place = self._place("full precision")
        if not (place / "result.json").exists():
            net = load_full_precision(self.source, self.dataset)
            phase = Phase("float", ())
            self._finish(
                Trainer(self._workers(net), phase, self.pictures, self.dataset, self.seed, place),
                place,
            )
        return run_files.read_result(place / "result.json")

    def run(self, trial: Trial) -> dict:
        """{"validation", "test": accuracies 0..1, "history": rows of each phase, "settings"},
        trained now if it was not before."""
        place = self._place(trial)
        if not (place / "result.json").exists():
            self.train(trial)
        return run_files.read_result(place / "result.json")

    def train(self, trial: Trial) -> tuple[NIN, dict]:
        """(network in mode "exact", result as from `run`); goes on where it was interrupted."""
        place = self._place(trial)
        net = trial.start(
            load_full_precision(self.source, self.dataset).to(self.device), self._calibration()
        )
        workers, history = self._workers(net), {}
        for phase in trial.phases:
            trainer = self._trained(workers, phase, place)
            history[phase.name] = trainer.history
        net.mode = "exact"
        result = self._finish(trainer, place, settings=repr(trial), history=history)
        workers.pool.shutdown()
        return net, result

    def _trained(self, workers, phase, place):
        phase = replace(phase, batch=min(phase.batch, len(self.pictures["train"][1])))
        trainer = Trainer(workers, phase, self.pictures, self.dataset, self.seed, place)
        trainer.soft = self._teacher() if phase.loss.share else None
        workers.net.mode = phase.mode
        trainer.resume()
        trainer.run()
        return trainer

    def _calibration(self):
        return to_input(self.pictures["train"][0][: train.CALIBRATION_PICTURES], self.dataset)

    def _teacher(self):
        net = load_full_precision(self.source, self.dataset).to(self.device)
        place = self._place("teacher")
        place.mkdir(parents=True, exist_ok=True)
        return teach(
            self._workers(net), net, self.pictures["train"][0], self.dataset, place / "teacher.pt"
        )

    def _finish(self, trainer, place, **facts):
        """Measure on the validation and, once, on the test images; the test set chooses nothing."""
        result = {
            "validation": trainer.accuracy(self.pictures["val"]),
            "test": trainer.accuracy(self.pictures["test"]),
            **facts,
        }
        run_files.write_json(place / "result.json", result)
        return result


def common_options(command):
    """The options that all experiments share."""
    for option in reversed(
        (
            click.option(
                "--dataset",
                type=click.Choice(sorted(CLASSES)),
                default="cifar10",
                show_default=True,
            ),
            click.option("--seed", type=SEED, default=0, show_default=True),
            click.option(
                "--start",
                type=click.Path(path_type=Path),
                help="float.pt or *.float.npz. [this seed's run, else the shipped one]",
            ),
            click.option(
                "--epochs",
                type=EPOCHS,
                default=2,
                show_default=True,
                help="Of fine-tuning in each row.",
            ),
            click.option(
                "--size",
                type=Multiple(4, 8, 32),
                help="Train on pictures of this size only, a multiple of four. [24, then 32]",
            ),
            click.option("--pictures", type=PICTURES, help="The first so many of each split only."),
            click.option(
                "--device",
                type=click.Choice(["auto", "cpu", "cuda"]),
                default="auto",
                show_default=True,
            ),
            click.option(
                "--threads", type=THREADS, default=2, show_default=True, help="Of the CPU."
            ),
        )
    ):
        command = option(command)
    return command


def _usual_start(dataset, seed):
    """The run's own full-precision network; without a run the shipped one, if there is one."""
    run, shipped = (
        Path("build/train") / f"nin-{dataset}-seed{seed}" / "float.pt",
        ZOO / f"nin-{dataset}.float.npz",
    )
    return shipped if shipped.exists() and not run.exists() else run


def open_bench(dataset, seed, start, pictures, device, threads) -> Bench:
    """The Bench that the common options describe."""
    name = train.device_name(device)
    source = start or _usual_start(dataset, seed)
    load_full_precision(source, dataset)  # before the data set is read
    sets = data.load(dataset)
    sets = {split: (x[:pictures].to(name), y[:pictures].to(name)) for split, (x, y) in sets.items()}
    return Bench(dataset, seed, source, sets, torch.device(name), threads)
