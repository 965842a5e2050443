"""From data to network file: the stages of a recipe, each found again by what decides its result.

A stage's folder has a hash of its settings, the data, the seed, the code, PyTorch's version and the
stages before it in its name, so recipes share what they have in common. Its result is written
whole; a stage that has one is not run again, and one that trains goes on from its state.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import click
import numpy as np
import torch

from model.common.errors import UserError
from model.common.files import check_output, write_text
from model.network import save_network
from model.reference.integer import run_integer
from train import card, checkpoint, engine, files, sources, spec
from train.engine import Job
from train.export import SUFFIX, to_network
from train.net import Net, to_input
from train.quantize import (
    Binary,
    FixedPoint,
    KMeans,
    Setting,
    Ternary,
    clipq,
    describe,
    paper,
    restore,
)
from train.quantize import reconstruct as reconstruction
from train.recipe import Recipe, Training
from train.trace import trace
from train.workers import Workers, autocast, rank

FOLDER = Path("build/train")
STAGES = ("teacher", "full_precision", "quantize", "fine_tune")
CALIBRATION_IMAGES = 250
PAPER_IMAGES = 16
CHECKED_IMAGES = 100  # that the NumPy model must agree on before a network is written


@cache
def code() -> str:
    """Digest of the code that decides what a training gives."""
    package = Path(__file__).resolve().parent
    parts = sorted(p for p in package.rglob("*.py") if "tests" not in p.parts)
    seen = hashlib.sha256(torch.__version__.encode())
    for part in parts:
        seen.update(str(part.relative_to(package)).encode() + part.read_bytes())
    return seen.hexdigest()


def digest(*settings) -> str:
    """Twelve hex digits of `settings`."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:12]


# ------------------------------------------------------------------------------ states of networks


def write_net(path: Path, net: Net, **facts) -> None:
    """Write a network in single precision with its description."""
    quantizers = {name: describe(block.quantizer) for name, block in net.blocks()}
    files.write(
        path,
        {
            "version": files.VERSION,
            "spec": net.spec,
            "mode": net.mode,
            "quantizers": quantizers,
            "net": net.state_dict(),
            **facts,
        },
    )


def read_net(path: Path) -> tuple[Net, files.Fields]:
    """(network, the file's fields). Raises StateError that names the field, or OSError."""
    fields = files.read_fields(path)
    described = fields.inner("spec").table
    try:
        spec.check(described)
        net = Net(described)
        quantizers = fields.inner("quantizers").table
        for name, block in net.blocks():
            block.quantizer = restore(quantizers[name])
    except (spec.SpecError, ValueError, KeyError) as error:
        raise files.StateError(f"{path}: {error}; {files.REMEDY}") from error
    fields.inner("net").into_network(net)
    net.mode = fields.text("mode", ("float", "fake", "exact"))
    return net.eval(), fields


# ---------------------------------------------------------------------------------------- a recipe


@dataclass
class Project:
    """A recipe with its data, on a device. folder: where stages are kept."""

    recipe: Recipe
    sets: sources.Sets
    device: torch.device
    threads: int
    folder: Path
    say: Callable = click.echo
    macs: dict[str, int] = field(default_factory=dict)  # of the networks, once counted

    def __post_init__(self):
        self.input = self.sets.input()
        self.common = (code(), self.sets.digest, self.recipe.seed, self.device.type)

    @property
    def stages(self) -> list[str]:
        """Those that the recipe has, in order."""
        return [name for name in STAGES if getattr(self.recipe, name) is not None]

    def key(self, name: str) -> str:
        """What decides the result of a stage."""
        recipe = self.recipe
        settings = getattr(recipe, name)
        before = {
            "teacher": (),
            "full_precision": settings.teachers if name == "full_precision" else (),
            "quantize": ("full_precision",),
            "fine_tune": ("quantize", *(recipe.fine_tune.teachers)),
        }[name]
        network = recipe.teacher.net if name == "teacher" else (recipe.net, recipe.arguments)
        augmentation = (recipe.flip, recipe.shift)
        own = (name, asdict(settings), network, augmentation, *map(self.key, before))
        return digest(*self.common, *own)

    def place(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder / f"{name}-{self.key(name)}"

    def result(self, name: str) -> Path:
        """The file of a stage's network."""
        return self.place(name) / "result.pt"

    def net(self, name: str) -> Net:
        """The network that a finished stage gave."""
        return read_net(self.result(name))[0].to(self.device)

    def new_net(self, which: str, arguments: dict) -> Net:
        """A network of the recipe with new weights."""
        torch.manual_seed(self.recipe.seed)
        return trace(sources.find(which)(len(self.sets.classes), **arguments), self.input)

    # ---------------------------------------------------------------------------------- running

    def run(self, wanted: tuple[str, ...] = STAGES) -> None:
        """Run what is left of the wanted stages."""
        stages = [name for name in self.stages if name in wanted]
        for name in stages:
            self.check(name)
        for name in stages:
            if not self.result(name).exists():
                self.say(self.overview(name))
                self.place(name).mkdir(parents=True, exist_ok=True)
                began = time.monotonic()
                getattr(self, f"_{name}")()
                self.say(f"{name}: done in {clock(time.monotonic() - began)}")
        self.say(self.overview(None))

    def check(self, name: str) -> None:
        """Raise StateError now for a damaged state that would end a run late."""
        for file in ("state.pt", "result.pt"):
            if (self.place(name) / file).exists():
                files.read_fields(self.place(name) / file)

    def overview(self, current: str | None) -> str:
        """What is done and what is left, and how long that may take by what was measured."""
        lines, left, measured = [], 0.0, self._speed()
        for name in self.stages:
            work = self.work(name)
            if self.result(name).exists():
                taken = files.read_fields(self.result(name)).number("seconds", 0)
                lines.append(f"  done  {name:15} {clock(taken)}")
                continue
            state = "now" if name == current else "left"
            seconds = work * measured if measured else None
            left += seconds or 0
            about = f"about {clock(seconds)}" if seconds else "not yet measured"
            lines.append(f"  {state:5} {name:15} {about}")
        total = f", about {clock(left)} left" if left else ""
        return "\n".join([f"{self.recipe.name}, recipe {self.recipe.path}{total}", *lines])

    def work(self, name: str) -> float:
        """Multiplications of a training stage, for the time left; 0 of another stage."""
        settings = getattr(self.recipe, name)
        if not isinstance(settings, Training):
            return 0.0
        own = self._macs("teacher" if name == "teacher" else "full_precision")
        taught = sum(self._macs(teacher) for teacher in settings.teachers)
        height, width = self.input["shape"][1:]
        share = sum((size * size / (height * width)) if size else 1 for size in settings.sizes)
        return len(self.sets.train) * share * (3 * own + taught)

    def _macs(self, name: str) -> float:
        """Of an image through a network."""
        which, arguments = self.recipe.net, self.recipe.arguments
        if name == "teacher":
            which, arguments = self.recipe.teacher.net, {}
        if which not in self.macs:
            net = self.new_net(which, arguments)
            shapes = spec.check(net.spec)
            self.macs[which] = sum(
                block.conv.weight.numel() * shapes[block_name][1] * shapes[block_name][2]
                for block_name, block in net.blocks()
            )
        return self.macs[which]

    def _speed(self) -> float | None:
        """Seconds per multiplication in the training stages that are done."""
        done = [n for n in self.stages if self.result(n).exists() and self.work(n)]
        seconds = sum(files.read_fields(self.result(n)).number("seconds", 0) for n in done)
        return seconds / sum(map(self.work, done)) if done else None

    def _train(self, name: str, net: Net) -> None:
        recipe, settings = self.recipe, getattr(self.recipe, name)
        train, val = (images.to(self.device) for images in (self.sets.train, self.sets.val))
        teachers = [self.net(teacher).eval() for teacher in settings.teachers]
        job = Job(net, settings, train, val, recipe.seed, recipe.flip, recipe.shift, teachers, name)
        with Workers(net, self.device, self.threads) as workers:
            run = engine.fit(job, workers, self.place(name) / "state.pt")
        if rank() == 0:
            validation = run.history[-1]["val"]
            facts = {"seconds": run.seconds, "history": run.history, "validation": validation}
            write_net(self.result(name), net, **facts)

    def _teacher(self) -> None:
        self._train("teacher", self.new_net(self.recipe.teacher.net, {}))

    def _full_precision(self) -> None:
        self._train("full_precision", self.new_net(self.recipe.net, self.recipe.arguments))

    def _quantize(self) -> None:
        began, settings, net = time.monotonic(), self.recipe.quantize, self.net("full_precision")
        order = np.random.default_rng(self.recipe.seed).permutation(len(self.sets.train))
        pixels = self.sets.train.pixels[np.sort(order[: settings.images])]
        x = to_input(pixels, self.input)
        if settings.method == "reconstruct":
            reconstruction.reconstruct(net.cpu(), x, settings.affine, self.say)
        elif settings.method == "paper":
            how = (settings.clip, settings.fraction_bits, settings.rebalance)
            paper.start(net.cpu(), x[:PAPER_IMAGES], *how)
        else:
            self._start(net, settings, x[:CALIBRATION_IMAGES].to(self.device))
        write_net(self.result("quantize"), net, seconds=time.monotonic() - began)

    def _start(self, net: Net, settings, x) -> None:
        """A quantizer's own start: its codebooks, scales by calibration."""
        torch.set_num_threads(1)  # the network must not depend on how sums are split over threads
        quantizer = {
            "clipq": Setting(settings.clip),
            "kmeans": KMeans(),
            "fixed": FixedPoint(settings.bits),
            "ternary": Ternary(),
            "binary": Binary(),
        }[settings.method]
        for _, block in net.blocks():
            block.quantizer = quantizer
            if self.recipe.fine_tune.bound is not None:
                clipq.bound(block.conv.weight, self.recipe.fine_tune.bound)
        with autocast(self.device.type):
            net.calibrate(x)

    def _fine_tune(self) -> None:
        self._train("fine_tune", self.net("quantize"))

    # --------------------------------------------------------------------------------- the result

    def accuracy(self, net: Net, split: str) -> float:
        """Top-1 0..1 on a split, of the integers where the network is quantized."""
        net.mode = "exact" if net.mode == "fake" else net.mode
        with Workers(net, self.device, self.threads) as workers:
            return engine.accuracy(workers, getattr(self.sets, split).to(self.device))

    def files(self, out: Path) -> dict[str, Path]:
        """What `finish` writes, by kind."""
        kinds = {"float": ".float.npz", "ckpt": SUFFIX, "clipq": ".clipq.npz", "card": ".card.md"}
        return {kind: out / f"{self.recipe.name}{suffix}" for kind, suffix in kinds.items()}

    def finish(self, out: Path) -> dict:
        """Run the stages, write checkpoints, network file and model card into `out`; the test
        images are looked at once, here. Returns the card's facts."""
        out.mkdir(parents=True, exist_ok=True)
        paths = self.files(out)
        for path in paths.values():
            check_output(path)  # now, not at the end of a training
        self.run()
        if rank():
            return {}
        net = checkpoint.snapped(self.net("fine_tune").cpu())
        full, name = self.net("full_precision").cpu(), self.recipe.name
        accuracies = {
            kind: {split: self.accuracy(one, split) for split in ("val", "test")}
            for kind, one in (("full precision", full), ("integers", net))
        }
        net.cpu().mode, full.mode = "fake", "float"
        facts = {"classes": self.sets.classes, "seed": self.recipe.seed, "name": name}
        network = to_network(net, name, tuple(self.sets.classes))
        check_equal(net, network, to_input(self.sets.test.pixels[:CHECKED_IMAGES], self.input))
        for kind, one, measured in (
            ("float", full.cpu(), "full precision"),
            ("ckpt", net, "integers"),
        ):
            known = {**facts, "validation": accuracies[measured]["val"]}
            checkpoint.write(one, paths[kind], known)
        save_network(network, paths["clipq"])
        found = card.facts(self, accuracies)
        write_text(paths["card"], card.markdown(found))
        return found


def check_equal(net: Net, network, x: torch.Tensor) -> None:
    """Raise UserError unless training and NumPy reference agree in every layer; x: input
    integers."""
    ours, reference = net.integer_forward(x), run_integer(network, x.long().numpy(), keep=True)
    for name, tensor in ours.items():
        if not (tensor.numpy() == reference[name]).all():
            raise UserError(f"not written: layer {name} of the integer model differs from training")


def clock(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
