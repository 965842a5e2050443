"""Networks of other shapes: described as PyTorch computes them, trained, exported, and the same
integers in both models and in the RTL."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from host.run import run_rtl
from host.simulation import runner
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.network import load_network, save_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from train import checkpoint
from train.engine import Run
from train.net import to_input, to_network
from train.nets.nin import NIN
from train.nets.resnet import ResNet
from train.nets.teacher import Teacher
from train.quantize.start import quantize
from train.recipe import Quantization, Training
from train.sources import Images
from train.tests.helpers import START, inputs
from train.trace import TraceError, trace
from train.workers import Workers


class LeNet(nn.Module):
    """No batch norm, ReLU after pooling, functions, three linear layers."""

    shape = (1, 16, 16)

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 40), nn.Linear(40, 30), nn.Linear(30, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class VGG(nn.Module):
    """Convolutions with a bias before batch norm, average pooling, linear layers with dropout."""

    shape = (3, 12, 12)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding="same", bias=False),
            nn.BatchNorm2d(12, eps=1e-3),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
            nn.Conv2d(12, 16, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(144, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
        )

    def forward(self, x):
        return self.classifier(self.features(x).view(x.size(0), -1))


class Residual(nn.Module):
    """Skip connections with and without ReLU, the last pooling a mean."""

    shape = (3, 8, 8)
    stride = 1

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.second = nn.Conv2d(8, 12, 3, stride=self.stride, padding=1)
        self.short = nn.Conv2d(8, 12, 1, stride=self.stride)
        self.last = nn.Conv2d(12, 10, 1)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.first(x) + x)
        x = self.second(x) + self.short(x)
        return self.last(x).mean((2, 3))


class Strided(Residual):
    """The same with stride 2."""

    stride = 2


class ResNet8(ResNet):
    """ResNet-20 with one pair of convolutions a stage."""

    shape = (3, 16, 16)

    def __init__(self):
        super().__init__(pairs=1)


class Small(nn.Module):
    """The smallest with all that a stage has to do; classes: as recipes give them."""

    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, classes, 1)

    def forward(self, x):
        return self.conv2(F.max_pool2d(self.bn(self.conv1(x)).relu(), 2)).mean((2, 3))


KINDS = [LeNet, VGG, Residual, Strided, ResNet8]
POOLED = {Residual: 64, Strided: 16, ResNet8: 16}  # outputs that the last layer adds up


def source(shape, unit=60.0):
    return {
        "shape": list(shape),
        "scale": [0.9] * shape[0],
        "offset": [-110.0, -100.0, -90.0][: shape[0]],
        "unit": unit,
    }


def module(kind):
    """With random statistics of batch norm."""
    torch.manual_seed(1)
    made = kind() if kind not in (NIN, Teacher) else kind(10, width=0.1)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return made.eval()


@pytest.mark.parametrize("kind", [*KINDS, NIN, Teacher], ids=lambda k: k.__name__)
@torch.no_grad()
def test_the_function_stays(kind):
    made, shape = module(kind), getattr(kind, "shape", (3, 32, 32))
    net = trace(made, source(shape)).eval()
    x = inputs(net, 5)
    expected = made(x / 60)
    assert torch.allclose(net(x), expected, atol=1e-5 * expected.abs().max() + 1e-6)


def test_resnet20_runs():
    net = trace(ResNet(), source((3, 32, 32))).eval()
    assert sum(block.weight.numel() for _, block in net.blocks()) == 270_896
    quantize(net, inputs(net, 2), START)
    compile_network(to_network(net, "resnet20"), Hardware(num_modules=4))


def images(kind, count, seed):
    """Ten classes that differ in brightness and direction, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    channels, height, width = kind.shape
    ramp = np.linspace(-1, 1, height)[:, None] * np.linspace(-1, 1, width)
    noise = rng.normal(0, 12, (count, channels, height, width))
    pixels = 40 + 18 * labels[:, None, None, None] + 30 * ramp * (-1) ** labels[:, None, None, None]
    return Images(
        torch.from_numpy((pixels + noise).clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)
    )


def fitted(net, settings, sets, path):
    """Validation after a training."""
    with Workers(net, torch.device("cpu"), 1) as workers:
        run = Run(workers, settings, *sets, path, 0, False, 1)
        run.fit()
    return run.at.history[-1]["val"]


@pytest.fixture(scope="module", params=KINDS, ids=lambda k: k.__name__)
def trained(request, tmp_path_factory):
    """(kind, quantized network after a few epochs in full precision and in integers)."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param.__name__)
    torch.manual_seed(2)
    net = trace(kind(), source(kind.shape))
    sets = images(kind, 400, 1), images(kind, 100, 2)
    settings = Training(8, rate=0.05, batch=50, statistics=50)
    full = fitted(net, settings, sets, folder / "float.npz")
    assert full > 0.8, "full precision has not learnt"
    quantize(net, to_input(sets[0].pixels[:200], net.spec["input"]), Quantization())
    settings = Training(3, rate=0.01, batch=50, statistics=50)
    tuned = fitted(net, settings, sets, folder / "tuned.npz")
    assert tuned > full - 0.2, "the quantized network has not learnt"
    return kind, checkpoint.snapped(net).eval()


def test_training_and_both_models_agree(trained, tmp_path):
    """Every layer, after checkpoint and network file, of random and extreme inputs."""
    kind, net = trained
    checkpoint.write(net, tmp_path / "x.ckpt.npz", {"classes": list("abcdefghij")})
    net, _ = checkpoint.read(tmp_path / "x.ckpt.npz")
    save_network(to_network(net, kind.__name__), tmp_path / "x.clipq.npz")
    network = load_network(tmp_path / "x.clipq.npz")
    x = inputs(net, 6)
    x[4], x[5] = 127, -128
    ours, reference = TorchNet(network)(x, keep=True), run_integer(network, x.long().numpy(), True)
    for name, tensor in ours.items():
        assert np.array_equal(tensor.numpy(), reference[name]), name
    with torch.no_grad():
        logits = net(x) * net.steps_of(net.last)
    last = ours[net.last].flatten(1) / POOLED.get(kind, 1)
    assert network.output.out == "int32"
    assert (logits - last).abs().max() < 0.1 * last.float().std()
    assert len(np.unique(reference[network.output.name])) > 5


def test_the_rtl_gives_the_same_logits(trained):
    kind, net = trained
    network = to_network(net, kind.__name__)
    compile_network(network, Hardware(num_modules=4))
    if reason := runner.missing("verilator"):
        pytest.skip(reason)
    x = inputs(net, 2).int().numpy()
    assert np.array_equal(run_rtl(network, x, 4)["y"], run_integer(network, x))


def test_dropout_is_the_same_on_any_number_of_threads():
    results = []
    for threads in (1, 2):
        torch.manual_seed(3)
        net = trace(VGG(), source(VGG.shape))
        x, y = inputs(net, 20), torch.nn.functional.one_hot(torch.arange(20) % 10, 10).float()
        seeds = [torch.Generator().manual_seed(k) for k in range(4)]
        with Workers(net, torch.device("cpu"), threads) as workers:
            pieces = list(zip(x.split(5), y.split(5), seeds))
            workers.gradients(pieces, lambda logits, _, t: F.cross_entropy(logits, t))
        results.append([p.grad.clone() for p in net.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*results))


class Wrapped(nn.Module):
    """A network whose forward pass is a function of x and its convolution."""

    def __init__(self, function, conv=None):
        super().__init__()
        self.conv, self.function = conv or nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x):
        return self.function(self, x)


CONSTANT = torch.ones(1, 3, 8, 8)
REFUSED = {
    "sigmoid": (lambda net, x: torch.sigmoid(net.conv(x)), None, "sigmoid"),
    "concatenation": (lambda net, x: torch.cat([net.conv(x), x], 1), None, "cat"),
    "groups": (lambda net, x: net.conv(x), nn.Conv2d(3, 6, 3, groups=3), "conv: groups"),
    "dilation": (lambda net, x: net.conv(x), nn.Conv2d(3, 6, 3, dilation=2), "conv: dilation"),
    "an even kernel": (
        lambda net, x: net.conv(x),
        nn.Conv2d(3, 6, 2, padding="same"),
        "conv: padding 'same'",
    ),
    "a large kernel": (lambda net, x: net.conv(x), nn.Conv2d(3, 6, 12, padding=6), "12"),
    "a choice": (lambda net, x: net.conv(x) if x.sum() > 0 else x, None, "cannot be traced"),
    "another shape": (lambda net, x: net.conv(x[:, :2]), None, "cannot be traced"),
    "no convolution": (lambda net, x: F.max_pool2d(x, 2), None, "it has no convolution"),
    "a ReLU of the input": (lambda net, x: net.conv(F.relu(x)), None, "relu: ReLU must follow"),
    "an output that is not the last": (
        lambda net, x: (lambda a: (F.max_pool2d(a, 2), a)[1])(net.conv(x)),
        None,
        "is not used by the output",
    ),
    "ceil mode": (
        lambda net, x: F.max_pool2d(net.conv(x), 3, ceil_mode=True),
        None,
        "max_pool2d: ceil_mode",
    ),
    "a mean of channels": (lambda net, x: net.conv(x).mean(1), None, "mean: only means over"),
    "a constant": (lambda net, x: net.conv(x) + 1, None, "add: it needs two tensors"),
    "a constant image": (lambda net, x: net.conv(x + CONSTANT), None, "add: it needs two tensors"),
    "dropout of channels": (lambda net, x: F.dropout2d(net.conv(x)), None, "feature_dropout"),
}


def test_what_is_no_module_is_named():
    with pytest.raises(TraceError, match="network: it cannot be traced .*NoneType"):
        trace(None, source((3, 8, 8)))


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_named(case):
    function, conv, culprit = REFUSED[case]
    with pytest.raises(TraceError, match="network.*") as caught:
        trace(Wrapped(function, conv), source((3, 8, 8)))
    assert culprit in str(caught.value) and len(str(caught.value)) < 500


class Aliased(nn.Module):
    """A convolution whose output is read under two names."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.bn, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), norm

    def forward(self, x):
        a = self.conv(x)
        b = a.clone()
        return (self.bn(b) if self.norm else F.relu(b)) + a


@pytest.mark.parametrize("norm", [False, True])
def test_an_output_with_two_names_has_two_readers(norm):
    with pytest.raises(TraceError, match="must"):
        trace(Aliased(norm), source((3, 8, 8)))


def test_batch_norm_alone_is_named():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    with pytest.raises(TraceError, match="layer 2: batch norm must directly follow"):
        trace(net, source((3, 8, 8)))


class Named(nn.Module):
    """Layers whose names mean something elsewhere, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.pop, self.input, self.pool = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.MaxPool2d(1)

    def forward(self, x):
        return self.pool(self.input(self.pool(self.pop(x))))


def test_names_of_layers_do_not_collide():
    names = list(trace(Named(), source((3, 8, 8))).nodes)
    assert len(set(names)) == 4 and not {"pop", "input"} & set(names)
