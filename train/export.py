"""From the shipped checkpoint to the network file, byte for byte. `python -m train.export
--help`."""

from pathlib import Path

import click

from model.common.command import Command
from model.common.errors import UserError, printable
from model.common.files import check_output
from model.network import Layer, Network, NetworkError, save_network
from train import checkpoint
from train.fold import FoldError, fold_network
from train.nin import MEAN, POOL_NAME, STEP
from train.options import FILE, FOLDER

ZOO = Path(__file__).resolve().parent.parent / "model" / "zoo"
SUFFIX = ".ckpt.npz"


def to_network(net, dataset: str, classes: tuple = ()) -> Network:
    """The integer network of a quantized NIN. Raises FoldError or NetworkError (with the layer)."""
    layers, source = [], "input"
    folded, blocks = fold_network(net), dict(net.blocks())
    for name, arrays in folded.items():
        (low, high), pad = blocks[name].limits, tuple(blocks[name].conv.padding)
        layers.append(
            Layer(
                name=name,
                op="conv",
                inputs=(source,),
                stride=(1, 1),
                pad=pad,
                out_min=low,
                out_max=high,
                **arrays._asdict(),
            )
        )
        source = name
        if name in POOL_NAME:
            layers.append(
                Layer(
                    name=POOL_NAME[name],
                    op="maxpool",
                    inputs=(source,),
                    kernel=(2, 2),
                    stride=(2, 2),
                    pad=(0, 0),
                )
            )
            source = POOL_NAME[name]
    layers.append(
        Layer(
            name="gap",
            op="avgpool",
            inputs=(source,),
            kernel=(8, 8),
            stride=(8, 8),
            pad=(0, 0),
            out="int32",
        )
    )
    step = STEP[dataset]
    return Network(
        name=f"nin-{dataset}",
        input_shape=(3, 32, 32),
        input_signed=True,
        layers=tuple(layers),
        scale=(step,) * 3,
        offset=tuple(-step * m for m in MEAN[dataset]),
        classes=classes,
    )


def export(source: Path, target: Path) -> Network:
    """Write the network of checkpoint `source` to `target`, whole or not at all, and return it.

    Raises UserError that names `source`.
    """
    net, facts = checkpoint.read(source)
    if net.mode == "float":
        raise UserError(
            f"{printable(source)} is in full precision, but only quantized networks "
            f"(*{SUFFIX}) can be exported"
        )
    try:
        network = to_network(net, facts["dataset"], tuple(facts.get("classes", ())))
    except (FoldError, NetworkError) as error:
        raise UserError(f"{printable(source)}: {error}") from error
    save_network(network, target)
    return network


@click.command(cls=Command)
@click.argument("checkpoints", nargs=-1, type=FILE)
@click.option("--out", type=FOLDER, help="Folder of the network files. [the checkpoint's]")
def main(checkpoints, out):
    """Export CHECKPOINTS (*.ckpt.npz; default: all in model/zoo) to *.clipq.npz."""
    targets = {}
    for source in checkpoints or sorted(ZOO.glob(f"*{SUFFIX}")):
        if not source.name.endswith(SUFFIX):
            raise click.UsageError(f"{printable(source)}: the name must end in {SUFFIX}")
        target = (out or source.parent) / source.name.replace(SUFFIX, ".clipq.npz")
        if target in targets.values():
            raise click.UsageError(f"{printable(source)}: another one becomes {printable(target)}")
        targets[source] = target
    if out:
        out.mkdir(parents=True, exist_ok=True)
    for target in targets.values():
        check_output(target)
    for source, target in targets.items():
        export(source, target)
        click.echo(f"{source} -> {target}")


if __name__ == "__main__":
    main()
