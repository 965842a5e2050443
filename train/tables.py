"""The tables of the 2022 paper (train/tables.yaml), each row measured anew beside its own figure.

All rows start from the full-precision network of one recipe and are fine-tuned equally long on all
training images; what is done is kept, as all stages are.
"""

import json
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from model.common.files import check_output, write_text
from train.recipe import Quantization
from train.stages import STAGES, Project
from train.workers import meet, rank

FOLDER = Path("build/tables")


@dataclass(frozen=True)
class Row:
    """quantize: None for full precision. paper: its accuracies in % by data set."""

    about: str
    quantize: Quantization | None = None
    paper: dict[str, float] | None = None


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    title: str
    rows: list[Row]


TABLES = TypeAdapter(dict[str, Table]).validate_json(
    json.dumps(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()))
)


def measure(base: Project, how: Quantization | None, epochs: int) -> dict[str, float]:
    """{"val", "test"}: accuracies 0..1 of a row, in integers; measured once and kept."""
    name, stages = "full_precision", STAGES[:2]
    if how is not None:
        tune = replace(base.recipe.fine_tune, epochs=epochs)
        base = replace(base, recipe=replace(base.recipe, quantize=how, fine_tune=tune))
        name, stages = "fine_tune", STAGES
    base.run(stages)
    path = base.state(name).with_name("accuracy.json")
    if not path.exists() and rank() == 0:
        write_text(path, json.dumps(base.accuracies(base.net(name), "val", "test")))
    meet()
    return json.loads(path.read_text())


def write(base: Project, table: str, epochs: int, folder: Path = FOLDER) -> Path:
    """Measure the rows of a table; the page is written anew after each. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table}-{base.recipe.name}.md"
    check_output(path)
    text = (
        f"# {TABLES[table].title}\n\n"
        f"{base.recipe.name}, {len(base.sets.train):,} training images, {epochs} epochs a row, "
        f"seed {base.recipe.seed}. Top-1 of all {len(base.sets.test):,} test images, in integers "
        "where there is a codebook; the last epoch counts.\n\n"
        "| row | test % | validation % | below full precision, points | the paper, test % |\n"
        "|---|---:|---:|---:|---:|\n"
    )
    full = measure(base, None, epochs)["test"]
    for row in TABLES[table].rows:
        base.say(f"table {TABLES[table].title}: {row.about}")
        found = measure(base, row.quantize, epochs)
        test, val, loss = (100 * v for v in (found["test"], found["val"], full - found["test"]))
        figure = (row.paper or {}).get(base.recipe.data.cifar or "", "")
        text += f"| {row.about} | {test:.2f} | {val:.2f} | {loss:.2f} | {figure} |\n"
        write_text(path, text)
    return path
