"""From data to network file: the stages of a recipe, each found again by what decides its result.

A stage's folder has a hash of its settings, the network and its first weights, the data, the seed,
PyTorch's version, RESULTS and the stages before it in its name, so recipes share what they have in
common. Its result is written whole; a stage that has one is not run again, and one that trains goes
on from its state.
"""

import copy
import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.common.errors import UserError, printable
from model.common.files import check_output, write_text
from model.network import Network, save_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from train import card, checkpoint, engine, sources
from train.net import Net, to_input, to_network
from train.quantize.codebooks import Codebook
from train.quantize.start import quantize
from train.recipe import Recipe, RecipeError, Training
from train.trace import trace
from train.workers import Workers, meet, rank, say

FOLDER = Path("build/train")
STAGES: tuple[str, ...] = ("teacher", "full_precision", "quantize", "fine_tune")
CHECKED_IMAGES = 100  # that the NumPy model must agree on before a network is written
RESULTS = 5  # another number whenever a change of the code changes what a training gives


@dataclass
class Project:
    """A recipe with its data, on a device. folder: where stages are kept."""

    recipe: Recipe
    sets: sources.Sets
    device: torch.device
    threads: int
    folder: Path
    say: Callable[[str], object] = say

    @cached_property
    def networks(self) -> dict[str, Net]:
        """New ones of the stages that begin with one. Raises RecipeError, or TraceError."""
        recipe, found = self.recipe, {}
        named: dict[str, Any] = {"full_precision": (recipe.net, recipe.arguments)}
        if recipe.teacher:
            named["teacher"] = recipe.teacher.net, {}
        for name, (kind, arguments) in named.items():
            torch.manual_seed(recipe.seed)
            random.seed(recipe.seed)
            np.random.seed(recipe.seed % 2**32)
            where = f"{printable(recipe.path)}: the network of {name}"
            try:
                module = kind(len(self.sets.classes), **arguments)
            except Exception as error:  # the user's own code
                raise RecipeError(f"{where}: {type(error).__name__}: {printable(error)}") from error
            found[name] = trace(module, self.sets.input())
            if (given := found[name].classes) != (wanted := len(self.sets.classes)):
                raise RecipeError(f"{where} has {given} outputs for {wanted} classes")
        return found

    @cached_property
    def starts(self) -> dict[str, str]:
        """A digest of each new network: its description and its weights."""
        found = {}
        for name, net in self.networks.items():
            seen = hashlib.sha256(repr(net.spec).encode())
            for tensor in net.state_dict().values():
                seen.update(tensor.numpy().tobytes())
            found[name] = seen.hexdigest()
        return found

    @property
    def stages(self) -> list[str]:
        """Those that the recipe has, in order."""
        return [name for name in STAGES if getattr(self.recipe, name) is not None]

    def key(self, name: str) -> str:
        """What decides the result of a stage."""
        recipe, settings = self.recipe, getattr(self.recipe, name)
        before = list(getattr(settings, "teachers", ()))
        before += {"quantize": ["full_precision"], "fine_tune": ["quantize"]}.get(name, [])
        written = {key: value for key, value in asdict(settings).items() if key != "net"}
        common = RESULTS, torch.__version__, self.sets.digest, recipe.seed, self.device.type
        start = self.starts.get(name)
        own = name, written, start, recipe.flip, recipe.shift, *map(self.key, before)
        return hashlib.sha256(repr(common + own).encode()).hexdigest()[:12]

    def state(self, name: str) -> Path:
        """The file of a stage's network, in a folder of its own."""
        return self.folder / f"{name}-{self.key(name)}" / "state.npz"

    def net(self, name: str) -> Net:
        """The network that a finished stage gave."""
        return checkpoint.read(self.state(name))[0].to(self.device)

    def seconds(self, name: str) -> float | None:
        """That a stage took, None where it is not finished."""
        if not self.state(name).exists():
            return None
        at = engine.standing(self.state(name))
        epochs = len(getattr(getattr(self.recipe, name), "sizes", ()))
        return at.seconds if at.epoch == epochs else None

    def run(self, wanted: tuple[str, ...] = STAGES) -> None:
        """Run what is left of the wanted stages."""
        stages = [name for name in self.stages if name in wanted]
        for name in stages:  # a damaged file ends a run now, not late
            self.seconds(name)
        for name in stages:
            if self.seconds(name) is None:
                self.say(self.overview(name))
                self.state(name).parent.mkdir(parents=True, exist_ok=True)
                self._quantize() if name == "quantize" else self._train(name)
            meet()  # the others read what the first process has written
        self.say(self.overview())

    def overview(self, current: str = "") -> str:
        """What is done, in which time, what is left, and about how long all of it may take by what
        was measured."""
        done = {name: taken for name in self.stages if (taken := self.seconds(name)) is not None}
        lines = [f"{self.recipe.name}, recipe {printable(self.recipe.path)}"]
        for name in self.stages:
            state = "done" if name in done else "now" if name == current else "left"
            lines.append(f"  {state:5} {name:15} {clock(done[name]) if name in done else ''}")
        measured = sum(self.work(name) for name in done)
        if measured and (left := sum(self.work(name) for name in self.stages) - measured):
            lines[0] += f", about {clock(sum(done.values()) * left / measured)} left"
        return "\n".join(map(str.rstrip, lines))

    def work(self, name: str) -> int:
        """Pixels through a network in a training stage, teachers' included."""
        settings, images = getattr(self.recipe, name), self.sets.train.pixels
        if not isinstance(settings, Training):
            return 0
        return len(images) * sum(settings.pixels(images)) * (3 + len(settings.teachers))

    def _train(self, name: str) -> None:
        recipe, settings = self.recipe, getattr(self.recipe, name)
        new = copy.deepcopy(self.networks.get(name))
        net = new or self.net("quantize")
        train, val = (images.to(self.device) for images in (self.sets.train, self.sets.val))
        teachers = [self.net(teacher) for teacher in settings.teachers]
        given = recipe.seed, recipe.flip, recipe.shift, teachers, name
        with Workers(net, self.device, self.threads) as workers:
            engine.Run(workers, settings, train, val, self.state(name), *given).fit()

    def _quantize(self) -> None:
        if rank():
            return  # its result is that of the first process
        began, how, net = time.monotonic(), self.recipe.quantize, self.net("full_precision").cpu()
        order = np.random.default_rng(self.recipe.seed).permutation(len(self.sets.train))
        pixels = self.sets.train.pixels[np.sort(order[: how.images])]
        quantize(net, to_input(pixels, net.spec["input"]), how, self.say)
        at = engine.Standing(seconds=time.monotonic() - began)
        checkpoint.write(net, self.state("quantize"), asdict(at), {})

    def accuracies(self, net: Net, *splits: str) -> dict[str, float]:
        """Top-1 0..1 by split, of the integers where the network is quantized."""
        held = all(isinstance(block.quantizer, Codebook) for _, block in net.blocks())
        quantized = net.mode == "fake" and held
        model = TorchNet(to_network(net)).to(self.device) if quantized else None
        with Workers(net, self.device, self.threads) as workers:
            sets = {split: getattr(self.sets, split).to(self.device) for split in splits}
            return {split: workers.accuracy(one, model=model) for split, one in sets.items()}

    def files(self, out: Path) -> dict[str, Path]:
        """What `finish` writes, by kind."""
        endings = ("float.npz", "ckpt.npz", "clipq.npz", "card.md")
        return {one.split(".")[0]: out / f"{self.recipe.name}.{one}" for one in endings}

    def finish(self, out: Path) -> dict[str, dict[str, float]]:
        """Run the stages, write checkpoints, network file and model card into `out`; the test
        images are looked at once, here. Returns the accuracies."""
        if self.recipe.quantize.method == "fixed":
            raise RecipeError("quantize.method: a network file cannot hold the weights of fixed")
        out.mkdir(parents=True, exist_ok=True)
        paths = self.files(out)
        for path in paths.values():
            check_output(path)  # now, not at the end of a training
        self.run()
        if rank():
            return {}
        full, net = (checkpoint.snapped(self.net(n)) for n in ("full_precision", "fine_tune"))
        network = to_network(net, self.recipe.name, tuple(self.sets.classes))
        pixels = self.sets.test.pixels[:CHECKED_IMAGES]
        check_equal(network, to_input(pixels, net.spec["input"]))
        nets = {"full precision": full, "integers": net}
        accuracies = {kind: self.accuracies(one, "val", "test") for kind, one in nets.items()}
        facts = {"classes": self.sets.classes, "seed": self.recipe.seed, "name": self.recipe.name}
        for (kind, one), path in zip(nets.items(), (paths["float"], paths["ckpt"])):
            checkpoint.write(one, path, {**facts, "validation": accuracies[kind]["val"]})
        save_network(network, paths["clipq"])
        write_text(paths["card"], card.markdown(self, accuracies))
        return accuracies


def check_equal(network: Network, x: Tensor) -> None:
    """Raise UserError unless both integer models have the same logits; x: input integers."""
    if not np.array_equal(TorchNet(network)(x), run_integer(network, x.long().numpy())):
        raise UserError("not written: the NumPy model's logits differ from PyTorch's")


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds."""
    return tqdm.format_interval(round(seconds))
