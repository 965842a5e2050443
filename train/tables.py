"""The tables of the 2022 paper, each measured anew beside its own figures. `python -m train.tables
bits|point|quantizers`.

W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022. Every row starts from one full-precision
network and is fine-tuned for the same few epochs, fewer than the recipe's. `bits` and `quantizers`
keep batch norm (folded into bias, mult and shift by export) and a free scale per layer; `point` is
the paper's own mode without either.
"""

import click

from model.common.command import Command
from train.methods import METHODS
from train.paper_mode import PaperStart, paper_phases
from train.report import Row, measure
from train.trial import Trial, common_options, open_bench, quantized_trial, short_phase

COLUMN = {"cifar10": 0, "cifar100": 1}
# The paper's accuracies in %, (CIFAR-10, CIFAR-100).
FULL = (90.88, 67.32)
BITS = {
    8: (89.82, 65.86),
    7: (88.54, 61.75),
    6: (85.71, 60.23),
    5: (83.14, 59.83),
    4: (80.09, 57.07),
}
POINT = {
    4: (85.53, 61.60),
    5: (90.73, 67.07),
    6: (88.09, 63.14),
    7: (87.32, 61.59),
}  # by fraction bits
QUANTIZERS = {
    "fixed8": (89.82, 65.86),
    "ternary": (83.74, 53.02),
    "binary": (81.52, 40.36),
    "clipq-p20": (90.73, 67.07),
    "clipq": None,
    "kmeans": None,
}
TITLES = {
    "bits": "Bit width of plain fixed-point weights",
    "point": "Position of the binary point of 8-bit data, CLIP-Q without batch norm",
    "quantizers": "Quantizers compared",
}


def bits_rows(dataset, epochs, size):
    """One row per width of the weights."""
    phases = (short_phase(epochs, size),)
    methods = {METHODS[f"fixed{bits}"]: paper for bits, paper in BITS.items()}
    return [
        Row(m.about, quantized_trial(m.quantizer, m.bound, phases), paper[COLUMN[dataset]])
        for m, paper in methods.items()
    ]


def point_rows(dataset, epochs, size):
    """Two rows per position: the paper's figure belongs to the network as folded; rebalancing uses
    any range fully."""
    phases = paper_phases(epochs, size)
    rows = []
    for n, paper in POINT.items():
        rows.append(
            Row(
                f"{8 - n}.{n}, as folded",
                Trial(PaperStart(fraction_bits=n, rebalance=False), phases),
                paper[COLUMN[dataset]],
            )
        )
        rows.append(Row(f"{8 - n}.{n}, rebalanced", Trial(PaperStart(fraction_bits=n), phases)))
    return rows


def quantizer_rows(dataset, epochs, size):
    """One row per quantizer."""
    phases = (short_phase(epochs, size),)
    methods = {METHODS[name]: paper for name, paper in QUANTIZERS.items()}
    return [
        Row(
            m.about, quantized_trial(m.quantizer, m.bound, phases), paper and paper[COLUMN[dataset]]
        )
        for m, paper in methods.items()
    ]


ROWS = {"bits": bits_rows, "point": point_rows, "quantizers": quantizer_rows}


@click.command(cls=Command)
@click.argument("table", type=click.Choice(list(ROWS)))
@common_options
def main(table, dataset, seed, start, epochs, size, pictures, device, threads):
    """Measure TABLE and write it to build/tables. Finished rows are kept, an interrupted one goes
    on."""
    bench = open_bench(dataset, seed, start, pictures, device, threads)
    rows = [Row("full precision", None, FULL[COLUMN[dataset]]), *ROWS[table](dataset, epochs, size)]
    title = f"{TITLES[table]}, {epochs} epochs of fine-tuning a row" + (
        f" at {size}x{size}" if size else ""
    )
    click.echo(measure(bench, rows, f"{table}-{dataset}-seed{seed}", title))


if __name__ == "__main__":
    main()
