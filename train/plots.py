"""Training curves, weight histograms and the confusion matrix as PNG files. `python -m train.plots
--help`."""

from pathlib import Path

import click
import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")  # no display is needed
from matplotlib import pyplot as plt

from host.accuracy import predict
from model.common.command import Command
from model.common.errors import UserError, printable
from model.common.files import check_output, output
from model.data.cifar import class_names, load_cifar
from model.network import load_network
from train import checkpoint, run_files, tail, teacher_training
from train.options import FILE, FOLDER
from train.train import CLIPQ, EXACT, FLOAT, REFINE, RESULTS
from train.trial import load_full_precision

DPI = 80
BINS = 101
SIGMAS = 3.5  # half the width of the histograms


def histories(run: Path) -> dict[str, list[dict]]:
    """{phase: its finished epochs} of a run, in order of training: from its checkpoints, or where a
    phase has none from results.json."""
    measured, found = run_files.read_results(run / RESULTS), {}
    for phase in (FLOAT, REFINE, CLIPQ, EXACT, tail.PHASE, teacher_training.PHASE):
        saved = run / f"{phase.name}.pt"
        rows = measured.get(phase.name, {}).get("history", [])
        if saved.exists():
            rows = run_files.read_fields(saved).history()
        if rows:
            found[phase.name] = rows
    if not found:
        raise UserError(
            f"{printable(run)} has neither a phase's checkpoint with a finished epoch "
            f"nor a {RESULTS}"
        )
    return found


def curves(phases: dict[str, list[dict]]):
    """Figure: training loss and validation accuracy over the epochs of all phases."""
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(9, 3.4))
    first = 1
    for name, rows in phases.items():
        epochs = range(first, first + len(rows))
        loss.plot(epochs, [r["loss"] for r in rows], marker=".", label=name)
        accuracy.plot(epochs, [100 * r["val"] for r in rows], marker=".", label=name)
        first += len(rows)
    for axes, label in ((loss, "training loss"), (accuracy, "validation, %")):
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
    loss.legend()
    figure.tight_layout()
    return figure


def histograms(full, quantized):
    """Figure: each layer's weights in full precision, and the shadow weights after CLIP-Q with
    their four levels. Two NINs.

    All in standard deviations of the layer's weights; a level's height is the share of weights that
    have it.
    """
    figure, axes = plt.subplots(3, 3, figsize=(10, 7.5), sharex=True)
    edges = np.linspace(-SIGMAS, SIGMAS, BINS)
    for plot, (name, before), (_, after) in zip(axes.flat, full.blocks(), quantized.blocks()):
        for block, label in ((before, "full precision"), (after, "CLIP-Q shadow")):
            weights = block.conv.weight.detach().flatten().double().numpy()
            plot.hist(weights / weights.std(), edges, histtype="step", density=True, label=label)
        levels, shares = weight_levels(after)
        other = plot.twinx()
        other.stem(
            levels, shares, linefmt="C3-", markerfmt="C3.", basefmt=" ", label="CLIP-Q level"
        )
        other.set_ylim(0, 1)
        plot.set_title(name, fontsize=9)
    lines = [item for drawn in (plot, other) for item in zip(*drawn.get_legend_handles_labels())]
    figure.legend(*zip(*lines), loc="lower center", ncol=3)
    figure.supylabel("density; right: share of the weights")
    figure.supxlabel("standard deviations", y=0.05)
    figure.tight_layout(rect=(0.01, 0.06, 1, 1))
    return figure


def weight_levels(block) -> tuple[np.ndarray, np.ndarray]:
    """(the codebook's levels in standard deviations of the shadow weights, the share of weights at
    each), [4] each."""
    weights = block.conv.weight.detach().double()
    index, codebook = block.quantizer.quantize(block.conv.weight)
    integers = codebook.double()[index]
    scale = (
        integers * weights
    ).sum() / integers.square().sum()  # least squares: the codebook's scale is free
    shares = torch.bincount(index.flatten(), minlength=len(codebook)) / index.numel()
    return (codebook.double() * scale / weights.std(correction=0)).numpy(), shares.numpy()


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes, classes]: how many pictures of class (row) were taken for class (column)."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_figure(matrix: np.ndarray, names: list[str]):
    """Figure of a confusion matrix; the numbers are written where there is room for them."""
    size = 6 if len(names) <= 20 else 8
    figure, axes = plt.subplots(figsize=(size, size))
    axes.imshow(np.sqrt(matrix), cmap="Blues")
    axes.set(xlabel="taken for", ylabel="is", title=f"{np.trace(matrix)} of {matrix.sum()} right")
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(matrix):
            axes.text(
                column,
                row,
                count,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if count > matrix.max() / 3 else "black",
            )
    figure.tight_layout()
    return figure


def save(figure, path: Path) -> None:
    """Write a PNG whose bytes do not name the library's version."""
    with output(path) as handle:
        figure.savefig(handle, dpi=DPI, format="png", metadata={"Software": None})
    plt.close(figure)
    click.echo(f"wrote {path}")


def _confusion_plot(network, dataset, backend, limit):
    net = load_network(network)
    pixels, labels = (v[:limit] for v in load_cifar(dataset, "test"))
    names = class_names(dataset)
    if net.output.out_shape[0] != len(names):
        outputs = net.output.out_shape[0]
        raise UserError(
            f"{printable(network)} has {outputs} outputs, {dataset} {len(names)} classes"
        )
    predicted = predict(net, pixels, backend, progress=True)
    return confusion_figure(confusion(labels, predicted, len(names)), names)


@click.command(cls=Command)
@click.option(
    "--dataset", type=click.Choice(sorted(checkpoint.CLASSES)), default="cifar10", show_default=True
)
@click.option(
    "--run",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of a run, of train.tail the run-... in it: training curves.",
)
@click.option("--full", type=FILE, help="float.pt or *.float.npz: weight histograms, with --ckpt.")
@click.option("--ckpt", type=FILE, help="Quantized, *.ckpt.npz: histograms, with --full.")
@click.option("--net", type=FILE, help="*.clipq.npz: confusion matrix on the test images.")
@click.option(
    "--backend",
    type=click.Choice(["int", "torch"]),
    default="int",
    show_default=True,
    help="Both give the same integers.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), help="The first so many test images only.")
@click.option("--out", type=FOLDER, default=Path("build/plots"), show_default=True)
def main(dataset, run, full, ckpt, net, backend, limit, out):
    """Draw what the options name."""
    if not (run or full or ckpt or net) or bool(full) != bool(ckpt):
        raise click.UsageError("nothing to draw: give --run, --full with --ckpt, or --net")
    drawn = {
        "curves": run and (lambda: curves(histories(run))),
        "weights": full
        and (
            lambda: histograms(
                load_full_precision(full, dataset), checkpoint.read_for(ckpt, dataset, True)[0]
            )
        ),
        "confusion": net and (lambda: _confusion_plot(net, dataset, backend, limit)),
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: out / f"{dataset}-{name}.png" for name in drawn if drawn[name]}
    for path in paths.values():
        check_output(path)
    for name, path in paths.items():
        save(drawn[name](), path)


if __name__ == "__main__":
    main()
