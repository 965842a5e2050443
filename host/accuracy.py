"""Top-1 accuracy of a network on the CIFAR test images; build/accuracy/<network>-<data set>.json
keeps how often each class (row) was given each answer (column) by the integer model on all images.

python -m host accuracy --net model/zoo/nin-cifar10.clipq.npz --dataset cifar10 [--backend
int|torch] [--limit N]
"""

from __future__ import annotations

import json

import click
import numpy as np

from host.run import BACKENDS
from host.simulation.runner import BUILD
from model.common.command import Command
from model.common.files import file_name, write_text
from model.data.cifar import SETS, class_names, load_cifar
from model.data.images import ImageError, pixels_to_input
from model.network import Network, load_network

FOLDER = BUILD / "accuracy"


def predict(net: Network, pixels: np.ndarray, backend: str = "int") -> np.ndarray:
    """int64 [N]: the class (first largest output) of each image, uint8 [N, C, H, W]. Raises
    ImageError where outputs are not class scores."""
    check_scores(net)
    return BACKENDS[backend](net, pixels_to_input(net, pixels))["y"][:, :, 0, 0].argmax(axis=1)


@click.command(cls=Command)
@click.option("--net", "path", required=True, help="Network file, *.clipq.npz.")
@click.option("--dataset", type=click.Choice(list(SETS)), required=True)
@click.option("--backend", type=click.Choice(list(BACKENDS)), default="int", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N test images only.")
def main(path: str, dataset: str, backend: str, limit: int | None) -> None:
    """Top-1 accuracy of a network on the CIFAR test images."""
    net = load_network(path)
    check_classes(net, dataset)
    pixels, labels = load_cifar(dataset, "test")
    pixels, labels = pixels[:limit], labels[:limit]
    answers = predict(net, pixels, backend)
    right = int((answers == labels).sum())
    names = class_names(dataset)
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, answers), 1)
    click.echo(f"top-1 {100 * right / len(labels):.2f} % ({right} of {len(labels)})")
    facts = {"network": net.name, "dataset": dataset, "images": len(labels), "right": right}
    if limit is not None or backend != "int":
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(
        FOLDER / f"{file_name(net.name)}-{dataset}.json",
        json.dumps({**facts, "classes": names, "confusion": confusion.tolist()}) + "\n",
    )


def check_scores(net: Network, dataset: str | None = None) -> None:
    """Refuse a network that does not end in one score a class, of a data set if one is given.
    Raises ImageError."""
    if net.output.out_shape[1:] != (1, 1):
        raise ImageError(
            f"network '{net.name}' ends in a map of {net.output.out_shape}, not in one score per "
            "class"
        )
    classes = SETS[dataset]["classes"] if dataset else net.output.out_shape[0]
    if net.output.out_shape[0] != classes:
        raise ImageError(
            f"network '{net.name}' has {net.output.out_shape[0]} outputs, but {dataset} has "
            f"{classes} classes"
        )


def check_classes(net: Network, dataset: str) -> None:
    """Refuse a network of other classes: its accuracy would mean nothing."""
    check_scores(net, dataset)
    names = class_names(dataset)
    if net.classes and list(net.classes) != names:
        raise ImageError(
            f"the classes of network '{net.name}' are not those of {dataset}, in its order"
        )
