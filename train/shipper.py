"""What a training leaves behind: the best checkpoint, its network file, and the full-precision
network it came from."""

from pathlib import Path

from tqdm import tqdm

from model.common.errors import UserError
from model.common.files import check_output
from model.reference.integer import run_integer
from train import checkpoint
from train.export import export, to_network
from train.nin import NIN, to_input
from train.replica import rank

NEAR = 0.005  # a network whose quick validation is this close to the best is validated in integers


class Shipper:
    """Writes networks of `dataset` into `folder`, but never over a better one: accuracies are those
    of the validation pictures.

    classes, seed: of the run, kept in the files.
    """

    def __init__(self, dataset: str, folder: Path, classes: list[str], seed: int):
        self.dataset, self.folder = dataset, folder
        self.facts = {"classes": classes, "seed": seed}
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / f"nin-{dataset}.ckpt.npz"
        self.network = folder / f"nin-{dataset}.clipq.npz"
        for path in (self.checkpoint, self.network, self.full_precision):
            check_output(path)  # now, not at the end of a training
        self.best(), _validation(self.full_precision)

    @property
    def full_precision(self) -> Path:
        """Half-precision copy of the full-precision network: the baseline, and the teacher of a run
        that takes up a checkpoint."""
        return self.folder / f"nin-{self.dataset}.float.npz"

    def best(self) -> float:
        """Integer validation accuracy 0..1 of the files that are there, -1 without."""
        return _validation(self.checkpoint)

    def offer_float(self, net: NIN, facts: dict) -> None:
        """Write the full-precision `net` unless the one that is there has a better validation
        accuracy.

        facts: "phase" and, where it is known, "validation", 0..1 at 32x32.
        """
        if rank():
            return
        if facts.get("validation", 0) <= (there := _validation(self.full_precision)):
            tqdm.write(f"{self.full_precision} has {100 * there:.2f} % in validation and stays")
            return
        checkpoint.write(net, self.dataset, self.full_precision, {**self.facts, **facts})

    def offer(self, net: NIN, facts: dict, workers, pictures) -> float:
        """Validate the quantized `net` in integers, write it if that is the best so far, and return
        its accuracy 0..1.

        facts: "phase" and "epoch". workers: Workers or Replica that compute. pictures: (uint8 [N,
        3, 32, 32], labels) held back for validation.
        """
        facts, best, net = {**self.facts, **facts}, self.best(), checkpoint.snapped(net)
        accuracy = integer_accuracy(net, self.dataset, workers, pictures)
        tqdm.write(
            f"integer validation {100 * accuracy:.2f} %, best so far {max(0, 100 * best):.2f} %"
        )
        if accuracy > best:
            checkpoint.write(net, self.dataset, self.checkpoint, {**facts, "validation": accuracy})
            export(self.checkpoint, self.network)
            tqdm.write(f"wrote {self.network}")
        return accuracy

    def after_epoch(self, trainer) -> None:
        """Offer a finished epoch's network, if its quick validation is not far from the best."""
        row = trainer.history[-1]
        if not rank() and row["val"] >= self.best() - NEAR:
            facts = {"phase": trainer.phase.name, "epoch": row["epoch"]}
            row["integer"] = self.offer(trainer.net, facts, trainer.workers, trainer.val_set)


def _validation(path: Path) -> float:
    return checkpoint.read(path)[1].get("validation", 0.0) if path.exists() else -1.0


def integer_accuracy(net: NIN, dataset: str, workers, pictures, count: int = 100) -> float:
    """Top-1 0..1 of a quantized network as the hardware computes it.

    pictures: (uint8 [N, 3, 32, 32], labels). The first `count` go through the NumPy reference too,
    which must agree to the bit.
    """
    net.mode = "exact"
    pixels, labels = pictures
    logits = workers.logits(pixels, lambda part: to_input(part, dataset), net=net)
    x = to_input(pixels[:count].cpu(), dataset)
    net.cpu()
    reference = run_integer(to_network(net, dataset), x.long().numpy()).reshape(len(x), -1)
    ours = net.integer_forward(x)["gap"].flatten(1)
    if (
        not (ours.numpy() == reference).all()
        or not (logits[:count].argmax(1) == ours.argmax(1)).all()
    ):
        raise UserError("not written: the integer model's logits differ from the training's")
    return (logits.argmax(1) == labels.cpu()).double().mean().item()
