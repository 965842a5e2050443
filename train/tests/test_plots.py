"""The numbers behind the plots against hand-made cases, and files that are PNGs."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from model.common.errors import UserError
from train import checkpoint, plots
from train.clipq import Setting
from train.export import ZOO
from train.nin import NIN, ConvBlock

PNG = b"\x89PNG\r\n"
ROWS = [{"epoch": 1, "loss": 1.5, "val": 0.5}, {"epoch": 2, "loss": 1.0, "val": 0.7}]


def test_confusion_counts_rows_by_truth():
    matrix = plots.confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), 3)
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_levels_and_shares():
    """-2, -2, -1, 0, 0, 0, 1, 4 with segments {-2, -2}, {-1} and {1, 4}: means -2, -1, 2.5."""
    block = ConvBlock(8, 1, 1, False)
    block.conv.weight.data = torch.tensor([-2.0, -2, -1, 0, 0, 0, 1, 4]).view(1, 8, 1, 1)
    block.quantizer = Setting(clip=0)
    levels, shares = plots.weight_levels(block)
    sigma = np.std([-2, -2, -1, 0, 0, 0, 1, 4])
    assert np.allclose(levels, np.array([0, -2, -1, 2.5]) / sigma, atol=0.01)
    assert np.allclose(shares, [3 / 8, 2 / 8, 1 / 8, 2 / 8])


def test_history_comes_from_checkpoints_then_from_results(tmp_path):
    torch.save({"history": ROWS}, tmp_path / "float.pt")
    (tmp_path / "results.json").write_text(
        json.dumps({"float": {"history": ROWS[:1]}, "clipq": {"history": ROWS[:1]}})
    )
    assert plots.histories(tmp_path) == {"float": ROWS, "clipq": ROWS[:1]}
    with pytest.raises(UserError, match="neither"):
        plots.histories(tmp_path / "elsewhere")


def test_history_of_a_tail_and_of_a_teacher(tmp_path):
    torch.save({"history": ROWS}, tmp_path / "tail.pt")
    torch.save(torch.zeros(2), tmp_path / "teacher.pt")  # a teacher's probabilities, no phase
    assert plots.histories(tmp_path) == {"tail": ROWS}
    torch.save({"history": ROWS[:1]}, tmp_path / "larger.pt")
    assert plots.histories(tmp_path)["larger"] == ROWS[:1]


def test_curves_hold_every_epoch():
    figure = plots.curves({"float": ROWS, "clipq": ROWS})
    loss, accuracy = figure.axes
    assert [line.get_xdata().tolist() for line in loss.lines] == [[1, 2], [3, 4]]
    assert accuracy.lines[1].get_ydata().tolist() == [50, 70]
    plots.plt.close(figure)


def test_command_draws_curves_and_histograms(tmp_path):
    torch.manual_seed(0)
    net = NIN(10)
    (tmp_path / "results.json").write_text(json.dumps({"float": {"history": ROWS}}))
    torch.save({"net": net.state_dict(), "history": ROWS}, tmp_path / "float.pt")
    net.calibrate(torch.randint(-128, 128, (4, 3, 8, 8)).float())
    checkpoint.write(checkpoint.snapped(net), "cifar10", tmp_path / "x.ckpt.npz", {})
    args = [
        "--run",
        tmp_path,
        "--full",
        tmp_path / "float.pt",
        "--ckpt",
        tmp_path / "x.ckpt.npz",
        "--out",
        tmp_path / "plots",
    ]
    run = CliRunner().invoke(plots.main, [str(a) for a in args])
    assert run.exit_code == 0, run.output
    for name in ("curves", "weights"):
        data = (tmp_path / "plots" / f"cifar10-{name}.png").read_bytes()
        assert data.startswith(PNG) and len(data) < 100_000


@pytest.mark.parametrize("classes", [10, 100])
def test_confusion_figure(tmp_path, classes):
    matrix = np.eye(classes, dtype=np.int64)
    figure = plots.confusion_figure(matrix, [str(i) for i in range(classes)])
    assert figure.axes[0].get_title() == f"{classes} of {classes} right"
    plots.save(figure, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)


def test_nothing_to_draw():
    assert "nothing to draw" in CliRunner().invoke(plots.main, []).output


def test_command_draws_the_confusion_of_a_network_file(tmp_path, monkeypatch):
    labels, predicted = np.array([0, 1, 1, 9]), np.array([0, 1, 2, 9])
    monkeypatch.setattr(
        plots, "load_cifar", lambda dataset, split: (np.zeros((4, 3, 32, 32), np.uint8), labels)
    )
    monkeypatch.setattr(plots, "class_names", lambda dataset: list("abcdefghij"))
    monkeypatch.setattr(
        plots, "predict", lambda net, pixels, backend, progress: predicted[: len(pixels)]
    )
    drawn = []
    monkeypatch.setattr(
        plots, "confusion_figure", lambda matrix, names: drawn.append(matrix) or plots.plt.figure()
    )
    args = ["--net", str(ZOO / "nin-cifar10.clipq.npz"), "--limit", "3", "--out", str(tmp_path)]
    run = CliRunner().invoke(plots.main, args)
    assert run.exit_code == 0 and "cifar10-confusion.png" in run.output, run.output
    assert np.trace(drawn[0]) == 2 and drawn[0][1, 2] == 1 and drawn[0].sum() == 3
