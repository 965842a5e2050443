"""The tables of the 2022 paper, each row measured anew beside its own figure.

W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022. All rows start from the full-precision
network of one recipe and are fine-tuned equally long on all training images; what is done is kept,
as all stages are.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from model.common.files import check_output, write_text
from train import files
from train.recipe import Quantization
from train.stages import Project
from train.workers import rank

COLUMN = {"cifar10": 0, "cifar100": 1}
FOLDER = Path("build/tables")


@dataclass(frozen=True)
class Row:
    """quantize: None for the full-precision network. paper: its accuracies in %, (CIFAR-10,
    CIFAR-100), None where it has none. bound: of the shadow weights, in standard deviations."""

    about: str
    quantize: Quantization | None = None
    paper: tuple[float, float] | None = None
    bound: float | None = None


FULL = Row("full precision", None, (90.88, 67.32))
CLIPQ_20 = Quantization("clipq", clip=0.2)
FIXED = {
    8: (89.82, 65.86),
    7: (88.54, 61.75),
    6: (85.71, 60.23),
    5: (83.14, 59.83),
    4: (80.09, 57.07),
}
POINT = {4: (85.53, 61.60), 5: (90.73, 67.07), 6: (88.09, 63.14), 7: (87.32, 61.59)}


def fixed(bits: int) -> Row:
    """A row of plain fixed-point weights."""
    return Row(f"{bits}-bit fixed point", Quantization("fixed", bits=bits), FIXED[bits])


def point(bits: int, rebalance: bool) -> Row:
    """A row of the paper's mode. Its figure belongs to the network as folded; rebalancing uses any
    range fully."""
    how = "rebalanced" if rebalance else "as folded"
    quantize = Quantization("paper", clip=0.2, fraction_bits=bits, rebalance=rebalance)
    return Row(f"{8 - bits}.{bits}, {how}", quantize, None if rebalance else POINT[bits])


TABLES = {
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
            Row("ternary (TWN)", Quantization("ternary"), (83.74, 53.02)),
            Row("binary (BWN)", Quantization("binary"), (81.52, 40.36)),
            Row("CLIP-Q, P = 20 % of either sign", CLIPQ_20, (90.73, 67.07)),
            Row("CLIP-Q, P = 50 %, within two sigma", Quantization("clipq"), None, 2.0),
            Row("k-means with a zero", Quantization("kmeans")),
            Row("layer-wise quantization first", Quantization()),
        ],
    ),
}


def project_of(base: Project, row: Row, epochs: int) -> Project:
    """The recipe of a row: the base's full precision, the row's quantizer, so many epochs."""
    recipe = base.recipe
    tune = replace(recipe.fine_tune, epochs=((None, epochs),), bound=row.bound)
    return replace(base, recipe=replace(recipe, quantize=row.quantize, fine_tune=tune))


def measure(base: Project, row: Row, epochs: int) -> dict:
    """{"val", "test"}: accuracies 0..1 of a row, in integers; measured once and kept."""
    if row.quantize is None:
        base.run(("teacher", "full_precision"))
        place, net = base.place("full_precision"), lambda: base.net("full_precision")
    else:
        base = project_of(base, row, epochs)
        base.run()
        place, net = base.place("fine_tune"), lambda: base.net("fine_tune")
    path = place / "accuracy.json"
    if not path.exists() and rank() == 0:
        found = net()
        files.write_json(path, {split: base.accuracy(found, split) for split in ("val", "test")})
    fields = files.read_json(path)
    return {split: fields.number(split, 0, 1) for split in ("val", "test")}


def markdown(title: str, base: Project, epochs: int, rows: list) -> str:
    """The table of [(row, accuracies)]; the first is full precision."""
    column = COLUMN.get(base.recipe.data.get("cifar"), 0)
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
    for row, found in rows:
        loss, paper = 100 * (rows[0][1]["test"] - found["test"]), row.paper
        lines.append(
            f"| {row.about} | {100 * found['test']:.2f} | {100 * found['val']:.2f} | {loss:.2f} "
            f"| {'' if paper is None else paper[column]} |"
        )
    return "\n".join(lines) + "\n"


def write(base: Project, table: str, epochs: int, folder: Path = FOLDER) -> Path:
    """Measure the rows of a table; the page is written anew after each. Returns its path."""
    title, rows = TABLES[table]
    folder.mkdir(parents=True, exist_ok=True)
    path, done = folder / f"{table}-{base.recipe.name}.md", []
    check_output(path)
    for row in rows:
        base.say(f"table {title}: {row.about}")
        done.append((row, measure(base, row, epochs)))
        write_text(path, markdown(title, base, epochs, done))
    return path
