"""A recipe: a YAML file that says which network is made of which data, and how, stage by stage."""

import math
import types
import typing
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

from model.common.errors import UserError, printable
from model.network.contract import is_name, show
from train.files import read_bytes

RECIPES = Path(__file__).resolve().parent / "recipes"
MAX_BYTES = 1 << 20
METHODS = ("reconstruct", "clipq", "kmeans", "fixed", "ternary", "binary", "paper")
TEACHERS = ("teacher", "full_precision")


class RecipeError(UserError, ValueError):
    """A recipe that cannot be followed; the message names the file and the field."""


def limited(low, high, default, open_low=False, whole=False):
    """A field of a number in low..high. open_low: not `low` itself."""
    limits = {"low": low, "high": high, "open_low": open_low, "whole": whole}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Training:
    """A stage that trains. epochs: (image size or None for its own, epochs) in turn. rate,
    norm_rate: peak learning rate of weights and of batch norm (None: the same). statistics: images
    that are normalized together. labels: share of the labels in what is learnt, the rest is the
    mean of the teachers' probabilities. mix: share of the batches whose images are mixed. exact:
    share of the steps, the last ones, whose forward pass is the integer arithmetic itself. bound:
    standard deviations that shadow weights stay within, where CLIP-Q's partition is by extremes."""

    epochs: tuple = ((None, 1),)
    rate: float = limited(0, 100, 0.05, open_low=True)
    norm_rate: float | None = limited(0, 100, None, open_low=True)
    batch: int = limited(2, 100_000, 250)
    statistics: int = limited(2, 100_000, 125)
    warmup: float = limited(0, 0.9, 0.1)
    smoothing: float = limited(0, 0.9, 0.0)
    labels: float = limited(0, 1, 1.0)
    teachers: tuple = ()
    cutout: int = limited(0, 1000, 0)
    mix: float = limited(0, 1, 0.0)
    exact: float = limited(0, 1, 0.0)
    bound: float | None = limited(0, 100, None, open_low=True)
    net: str | None = None  # the teacher's, "module:Class"

    @property
    def sizes(self) -> list[int | None]:
        """Image size of each epoch."""
        return [size for size, epochs in self.epochs for _ in range(epochs)]


@dataclass(frozen=True)
class Quantization:
    """How codebooks are found. images: to measure the layers' inputs on. affine: w3 = w1 + w2
    (reconstruct, but for the last layer). clip: P (clipq, paper); bits (fixed); fraction_bits,
    rebalance (paper)."""

    method: str = "reconstruct"
    images: int = limited(2, 1_000_000, 10_000)
    affine: bool = False
    clip: float = limited(0, 0.99, 0.5)
    bits: int = limited(2, 8, 8)
    fraction_bits: int = limited(1, 7, 5)
    rebalance: bool = True


@dataclass(frozen=True)
class Recipe:
    """path: of its file, "" where it has none."""

    name: str
    data: dict
    net: str
    full_precision: Training
    quantize: Quantization
    fine_tune: Training
    teacher: Training | None = None
    arguments: dict = field(default_factory=dict)
    seed: int = limited(0, 2**63 - 1, 0)
    flip: bool = True
    shift: int = limited(0, 1000, 4)
    path: str = ""

    @property
    def settings(self) -> dict:
        """All that it says, but for where it stands."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


def read(which: str, dataset: str | None = None, seed: int | None = None) -> Recipe:
    """The recipe of a name in train/recipes, or of a YAML file. dataset: instead of the recipe's,
    where it has one of its own choice. Raises RecipeError, or OSError."""
    path = RECIPES / f"{which}.yaml" if "." not in which and "/" not in which else Path(which)
    if not path.exists() and path.parent == RECIPES:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise RecipeError(f"recipe {printable(which)}: there are {known}, or a file *.yaml")
    try:
        table = yaml.safe_load(read_bytes(path, MAX_BYTES))
        recipe = _recipe(table, dataset, path)
    except (RecipeError, yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        reason = printable(" ".join(str(error).split()))[:600]
        raise RecipeError(f"{printable(path)}: {reason}") from error
    return recipe if seed is None else replace(recipe, seed=seed)


def _recipe(table, dataset, path) -> Recipe:
    if not isinstance(table, dict):
        raise RecipeError("a recipe is a table")
    chosen = table.pop("dataset", None)
    if dataset and chosen is None:
        raise RecipeError(f"the recipe has its own data, DATASET={dataset} does not fit it")
    table = _filled(table, dataset or chosen)
    for name, kind in (
        ("teacher", Training),
        ("full_precision", Training),
        ("quantize", Quantization),
        ("fine_tune", Training),
    ):
        if table.get(name) is not None:
            table[name] = _stage(table[name], kind, name)
    recipe = _made({**table, "path": str(path)}, Recipe, "")
    _check_data(recipe.data)
    if not is_name(recipe.name) or "/" in recipe.name or recipe.name.startswith("."):
        raise RecipeError(f"name: {show(recipe.name)} cannot be a file's name")
    for name in ("full_precision", "fine_tune"):
        for teacher in getattr(recipe, name).teachers:
            early = name == "full_precision" and teacher == "full_precision"
            if early or (teacher == "teacher" and recipe.teacher is None):
                raise RecipeError(f"{name}.teachers: there is no {teacher} before this stage")
    if recipe.teacher is not None and not recipe.teacher.net:
        raise RecipeError("teacher.net is missing")
    return recipe


def _filled(value, dataset):
    """With the name of the data set in the place of {dataset}."""
    if isinstance(value, dict):
        return {key: _filled(one, dataset) for key, one in value.items()}
    return value.replace("{dataset}", str(dataset)) if isinstance(value, str) else value


def _stage(table, kind, where):
    made = _made(table, kind, f"{where}.")
    if kind is Quantization:
        if made.method not in METHODS:
            raise RecipeError(f"{where}.method: {show(made.method)} is none of {METHODS}")
        return made
    epochs = [[None, made.epochs]] if isinstance(made.epochs, int) else made.epochs
    for part in epochs if isinstance(epochs, list | tuple) else [None]:
        if (
            not isinstance(part, list | tuple)
            or len(part) != 2
            or not (part[0] is None or type(part[0]) is int and 1 <= part[0] <= 10_000)
            or not (type(part[1]) is int and 1 <= part[1] <= 100_000)
        ):
            raise RecipeError(f"{where}.epochs must be a number or [size, number] in turn")
    teachers = made.teachers
    if not isinstance(teachers, list | tuple) or not all(t in TEACHERS for t in teachers):
        raise RecipeError(f"{where}.teachers: {show(teachers)} are not among {TEACHERS}")
    if made.labels < 1 and not teachers:
        raise RecipeError(f"{where}.labels: {made.labels} needs teachers")
    return replace(made, epochs=tuple(map(tuple, epochs)), teachers=tuple(teachers))


def _made(table, kind, where):
    """An instance of the dataclass `kind`, its fields checked."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where.rstrip('.') or 'the recipe'} must be a table")
    known, hints = {one.name: one for one in fields(kind)}, typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"{where}{show(key)} is unknown; there are {', '.join(known)}")
        _check(f"{where}{key}", value, hints[key], known[key].metadata)
    try:
        return kind(**table)
    except TypeError as error:
        raise RecipeError(str(error).partition("() ")[2]) from error


def _check(where, value, hint, limits):
    allowed = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    if tuple in allowed:
        return  # of epochs or teachers, which `_stage` checks
    allowed = (*allowed, int) if float in allowed else allowed
    if type(value) not in allowed:
        names = " or ".join(one.__name__ for one in allowed)
        raise RecipeError(f"{where}: {show(value)} is not {names}")
    if value is None or not limits:
        return
    low, high = limits["low"], limits["high"]
    if not math.isfinite(value) or not low <= value <= high or limits["open_low"] and value == low:
        raise RecipeError(f"{where}: {show(value)} is not in {low}..{high}")


def _check_data(data) -> None:
    kinds = {"cifar": str, "npz": str, "folder": str, "class": str}
    known = kinds | {"validation": int, "test": int, "limit": int, "arguments": dict, "gray": bool}
    if sum(key in kinds for key in data) != 1:
        raise RecipeError(f"data must name one of {', '.join(kinds)}")
    for key, value in data.items():
        if key not in known:
            raise RecipeError(f"data.{show(key)} is unknown; there are {', '.join(known)}")
        if type(value) is not known[key] or known[key] is int and value < 1:
            raise RecipeError(f"data.{key}: {show(value)} is not allowed")
    data.setdefault("validation", 5000)
    data.setdefault("test", 1000)
