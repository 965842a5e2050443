"""A recipe: a YAML file that says which network is made of which data, and how, stage by stage."""

import json
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ImportString,
    PlainSerializer,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from model.common.errors import UserError, printable
from model.common.files import open_input
from model.network.contract import show

RECIPES = Path(__file__).resolve().parent / "recipes"
MAX_BYTES = 1 << 20
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _shown(found: Any) -> str:
    """As a recipe names it; what has no name of its own, such as a partial, as Python shows it."""
    own = getattr(found, "__qualname__", None)
    return f"{found.__module__}:{own}" if own else repr(found)


# "module:Class"
Named = Annotated[ImportString[Callable[..., Any]], PlainSerializer(_shown)]
Teacher = Literal["teacher", "full_precision"]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=1, le=10_000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Turns = Annotated[tuple[tuple[Size | None, Epochs], ...], Field(min_length=1)]


class RecipeError(UserError, ValueError):
    """A recipe that cannot be followed; the message names the file and the field."""


@dataclass(frozen=True, config=STRICT)
class Training:
    """A stage that trains. epochs: their number, or (image size or None for its own, epochs) in
    turn. rate: peak learning rate. statistics: images that are normalized together. labels: share
    of the labels in what is learnt, the rest is the mean of the teachers' probabilities. cutout:
    size of the blanked square. mix: share of the batches whose images are mixed."""

    epochs: Epochs | Turns = 1
    rate: float = Field(default=0.05, gt=0, le=100)
    batch: int = Field(default=250, ge=2, le=100_000)
    statistics: int = Field(default=125, ge=2, le=100_000)
    smoothing: float = Field(default=0.0, ge=0, le=0.9)
    labels: Share = 1.0
    teachers: tuple[Teacher, ...] = ()
    cutout: int = Field(default=0, ge=0, le=1000)
    mix: Share = 0.0

    @model_validator(mode="after")
    def _has_teachers(self) -> "Training":
        if self.labels < 1 and not self.teachers:
            raise ValueError(f"labels {self.labels} needs teachers")
        return self

    @property
    def sizes(self) -> list[int | None]:
        """Image size of each epoch."""
        turns = ((None, self.epochs),) if isinstance(self.epochs, int) else self.epochs
        return [size for size, epochs in turns for _ in range(epochs)]

    def pixels(self, images: torch.Tensor) -> list[int]:
        """Of an image in each epoch; images: [N, C, H, W]."""
        return [size * size if size else images[0, 0].numel() for size in self.sizes]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TeacherTraining(Training):
    """net: the teacher's, "module:Class"."""

    net: Named


@dataclass(frozen=True, config=STRICT)
class Quantization:
    """How codebooks are found. images: to measure the layers' inputs on. affine: w3 = w1 + w2
    (reconstruct, but for the last layer). clip: P (clipq, paper); bits (fixed); fraction_bits,
    rebalance (paper)."""

    method: Literal["reconstruct", "clipq", "fixed", "ternary", "binary", "paper"] = "reconstruct"
    images: int = Field(default=10_000, ge=2, le=1_000_000)
    affine: bool = False
    clip: float = Field(default=0.2, ge=0, le=0.99)
    bits: int = Field(default=8, ge=2, le=8)
    fraction_bits: int = Field(default=5, ge=1, le=7)
    rebalance: bool = True


class Data(BaseModel):
    """One of cifar ("cifar10", "cifar100"), npz, folder and class. arguments: of the class;
    validation, test: images held back, where there are no others."""

    model_config = STRICT
    cifar: Literal["cifar10", "cifar100"] | None = None
    npz: str | None = None
    folder: str | None = None
    dataset: Named | None = Field(default=None, alias="class")
    arguments: dict[str, Any] = {}
    validation: PositiveInt = 5000
    test: PositiveInt = 1000

    @property
    def sources(self) -> dict[str, Any]:
        """What names the images; it is one."""
        kinds = ("cifar", "npz", "folder", "dataset")
        return {key: value for key in kinds if (value := getattr(self, key)) is not None}

    @model_validator(mode="after")
    def _names_one(self) -> "Data":
        if len(self.sources) != 1:
            raise ValueError("it must name one of cifar, npz, folder, class")
        return self


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """path: of its file, "" where it has none."""

    name: Annotated[str, Field(pattern=r"^\w[\w.+-]{0,99}$")]
    data: Data
    net: Named
    full_precision: Training
    quantize: Quantization
    fine_tune: Training
    teacher: TeacherTraining | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int = Field(default=0, ge=0, lt=2**63)
    flip: bool = True
    shift: int = Field(default=4, ge=0, le=1000)
    path: str = ""

    @model_validator(mode="after")
    def _has_teachers(self) -> "Recipe":
        known: set[str] = set()
        for name in ("teacher", "full_precision", "fine_tune"):
            if (stage := getattr(self, name)) is None:
                continue
            if missing := set(stage.teachers) - known:
                raise ValueError(f"{name}.teachers: there is no {missing.pop()} before this stage")
            known.add(name)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """All that it says, but for where it stands, in JSON's types."""
        return RECIPE.dump_python(self, mode="json", by_alias=True, exclude={"path"})


RECIPE = TypeAdapter(Recipe)


def read(which: str, dataset: str | None = None, seed: int | None = None) -> Recipe:
    """The recipe of a name in train/recipes, or of a YAML file. dataset: instead of the recipe's,
    where it has one of its own choice. Raises RecipeError, or OSError."""
    path = RECIPES / f"{which}.yaml" if "." not in which and "/" not in which else Path(which)
    if not path.exists() and path.parent == RECIPES:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise RecipeError(f"recipe {printable(which)}: there are {known}, or a file *.yaml")
    with open_input(path) as handle:
        text = handle.read(MAX_BYTES + 1)
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        table = yaml.safe_load(text)
        if not isinstance(table, dict):
            raise ValueError("a recipe is a table")
        if chosen := table.get("dataset"):
            table = yaml.safe_load(text.replace(b"{dataset}", str(dataset or chosen).encode()))
            del table["dataset"]
        elif dataset:
            raise ValueError(f"the recipe has its own data, DATASET={dataset} does not fit it")
        table.update({"path": str(path)}, **({} if seed is None else {"seed": seed}))
        return RECIPE.validate_json(json.dumps(table))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its content"
        value = "" if first["type"] == "missing" else f", not {show(first['input'])}"
        reason = f"{where}: {first['msg']}{value}"
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
    except Exception as error:  # the code of a module that is named raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise RecipeError(f"{printable(path)}: {printable(reason)[:600]}")
