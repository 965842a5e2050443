"""The tables of the 2022 paper, each row measured anew beside its own figure.

W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022. All rows start from the full-precision
network of one recipe and are fine-tuned equally long on all training images; what is done is kept,
as all stages are.
"""

import json
from dataclasses import replace
from pathlib import Path

from model.common.files import check_output, write_text
from train.recipe import Quantization
from train.stages import STAGES, Project
from train.workers import rank

FOLDER = Path("build/tables")
# (what it is, its quantizer or None for full precision, the paper's accuracies in %, of CIFAR-10
# and CIFAR-100, or None)
Row = tuple[str, Quantization | None, tuple[float, float] | None]
FULL: Row = ("full precision", None, (90.88, 67.32))
FIXED = {
    8: (89.82, 65.86),
    7: (88.54, 61.75),
    6: (85.71, 60.23),
    5: (83.14, 59.83),
    4: (80.09, 57.07),
}
POINT = {4: (85.53, 61.60), 5: (90.73, 67.07), 6: (88.09, 63.14), 7: (87.32, 61.59)}


def fixed(bits: int) -> Row:
    """Plain fixed-point weights."""
    return f"{bits}-bit fixed point", Quantization("fixed", bits=bits), FIXED[bits]


def point(bits: int, rebalance: bool) -> Row:
    """The paper's mode. Its figure belongs to the network as folded; rebalancing uses any range
    fully."""
    how = Quantization("paper", fraction_bits=bits, rebalance=rebalance)
    if rebalance:
        return f"{8 - bits}.{bits}, rebalanced", how, None
    return f"{8 - bits}.{bits}, as folded", how, POINT[bits]


TABLES: dict[str, tuple[str, list[Row]]] = {
    "bits": ("3: bit width of plain fixed-point weights", [FULL, *map(fixed, FIXED)]),
    "point": (
        "4: position of the binary point of 8-bit data, CLIP-Q without batch norm",
        [FULL, *(point(bits, how) for bits in POINT for how in (False, True))],
    ),
    "quantizers": (
        "6: quantizers compared",
        [
            FULL,
            fixed(8),
            ("ternary (TWN)", Quantization("ternary"), (83.74, 53.02)),
            ("binary (BWN)", Quantization("binary"), (81.52, 40.36)),
            ("CLIP-Q, P = 20 % of either sign", Quantization("clipq"), (90.73, 67.07)),
            ("layer-wise quantization first", Quantization(), None),
        ],
    ),
}


def measure(base: Project, how: Quantization | None, epochs: int) -> dict[str, float]:
    """{"val", "test"}: accuracies 0..1 of a row, in integers; measured once and kept."""
    name, stages = "full_precision", STAGES[:2]
    if how is not None:
        tune = replace(base.recipe.fine_tune, epochs=epochs)
        base = replace(base, recipe=replace(base.recipe, quantize=how, fine_tune=tune))
        name, stages = "fine_tune", STAGES
    base.run(stages)
    path = base.place(name) / "accuracy.json"
    if not path.exists() and rank() == 0:
        net = base.net(name)
        found = {split: base.accuracy(net, split) for split in ("val", "test")}
        write_text(path, json.dumps(found))
    return json.loads(path.read_text())


def write(base: Project, table: str, epochs: int, folder: Path = FOLDER) -> Path:
    """Measure the rows of a table; the page is written anew after each. Returns its path."""
    title, rows = TABLES[table]
    folder.mkdir(parents=True, exist_ok=True)
    path, column = folder / f"{table}-{base.recipe.name}.md", base.recipe.data.cifar == "cifar100"
    check_output(path)
    lines = [
        f"# {title}",
        "",
        f"{base.recipe.name}, {len(base.sets.train):,} training images, {epochs} epochs a row, "
        f"seed {base.recipe.seed}. Top-1 of all {len(base.sets.test):,} test images, in integers "
        "but for full precision; the last epoch counts.",
        "",
        "| row | test % | validation % | below full precision, points | the paper, test % |",
        "|---|---:|---:|---:|---:|",
    ]
    full = measure(base, None, epochs)["test"]
    for about, how, paper in rows:
        base.say(f"table {title}: {about}")
        found = measure(base, how, epochs)
        test, val, loss = (100 * v for v in (found["test"], found["val"], full - found["test"]))
        figure = "" if paper is None else paper[column]
        lines.append(f"| {about} | {test:.2f} | {val:.2f} | {loss:.2f} | {figure} |")
        write_text(path, "\n".join(lines) + "\n")
    return path
