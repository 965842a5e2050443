"""The NumPy reference, the PyTorch module and the loops agree, layer by layer."""

import numpy as np
import pytest
import torch

from model.network import Layer, Network
from model.network.random_networks import random_input, random_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from model.tests.loop_reference import run_loops


def conv(
    name="conv",
    inputs=("input",),
    *,
    weights=None,
    index=None,
    codebook=(0, 1, -1, 2),
    bias=None,
    mult=None,
    shift=None,
    **fields,
):
    """A conv layer with defaults that leave sums as they are: bias 0, mult 1, shift 0."""
    index = np.asarray(index, np.uint8)
    o = len(index)
    full = {"stride": (1, 1), "pad": (0, 0)}
    if fields.get("out") != "int32":
        full.update(
            out_min=-128,
            out_max=127,
            mult=np.array([1] * o if mult is None else mult, np.int32),
            shift=np.array([0] * o if shift is None else shift, np.uint8),
        )
    full.update(fields)
    return Layer(
        name=name,
        op="conv",
        inputs=inputs,
        index=index,
        codebook=np.array(codebook, np.int8),
        bias=np.array([0] * o if bias is None else bias, np.int32),
        **full,
    )


def network(shape, signed, *layers):
    return Network(name="test", input_shape=shape, input_signed=signed, layers=layers)


def run_both(net, images):
    images = np.asarray(images, np.int64)
    y = run_integer(net, images)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(TorchNet(net)(torch.from_numpy(images)).numpy(), y)
    return y


@pytest.mark.parametrize("seed", range(60))
def test_numpy_equals_torch(seed):
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_macs=1_500_000)
    images = random_input(rng, net, 3)
    expected, got = (
        run_integer(net, images, keep=True),
        TorchNet(net)(torch.from_numpy(images).float(), keep=True),
    )
    assert list(expected) == list(got) == [layer.name for layer in net.layers]
    for layer in net.layers:
        y = expected[layer.name]
        assert (
            y.shape == (3, *layer.out_shape)
            and y.dtype == np.int32
            and got[layer.name].dtype == torch.int32
        )
        np.testing.assert_array_equal(got[layer.name].numpy(), y, err_msg=layer.name)
        if layer.out == "int8":
            low, high = (-128, 127) if layer.out_signed else (0, 255)
            assert low <= y.min() and y.max() <= high
    np.testing.assert_array_equal(run_integer(net, images), expected[net.output.name])
    np.testing.assert_array_equal(
        TorchNet(net)(torch.from_numpy(images)).numpy(), expected[net.output.name]
    )


@pytest.mark.parametrize("seed", range(40))
def test_numpy_equals_loops(seed):
    rng = np.random.default_rng(1000 + seed)
    sizes = ((1, 1), (5, 3), (4, 6), (7, 7), (2, 9), (1, 8), (11, 2))
    net = random_network(
        rng, sizes=sizes, channels=(1, 2, 3, 5, 7), max_macs=40_000, max_tensor_bytes=600
    )
    images = random_input(rng, net, 2)
    tensors = run_integer(net, images, keep=True)
    for number, image in enumerate(images):
        for name, expected in run_loops(net, image.tolist()).items():
            if name != "input":
                assert tensors[name][number].tolist() == expected, name


def test_convolution_by_hand():
    # cross-correlation (no flip), one row of padding above and below, stride 2 horizontally
    net = network((1, 2, 3), True, conv(index=[[[[1, 3]]]], stride=(1, 2), out="int32"))
    assert run_both(net, [[[[1, 2, 3], [-4, 5, 6]]]]).tolist() == [[[[5], [6]]]]
    net = network(
        (1, 2, 2), True, conv(index=[[[[1], [2], [3]]]], pad=(1, 0), bias=[10], out="int32")
    )
    assert run_both(net, [[[[1, 2], [3, 4]]]]).tolist() == [
        [[[15, 16], [8, 8]]]
    ]  # -1 + 2*3 + 10, ...; 1 - 3 + 10


def test_max_pool_padding_never_wins():
    pool = Layer(
        name="pool", op="maxpool", inputs=("input",), kernel=(2, 3), stride=(2, 2), pad=(1, 1)
    )
    net = network((1, 2, 3), True, pool)
    assert run_both(net, [[[[-5, -6, -7], [-8, -2, -9]]]]).tolist() == [[[[-5, -6], [-2, -2]]]]
    assert net.output.out_signed


def test_average_pool_counts_padding_as_zeros():
    fields = dict(
        name="gap", op="avgpool", inputs=("input",), kernel=(3, 2), stride=(1, 2), pad=(2, 1)
    )
    net = network((1, 1, 2), False, Layer(**fields, mult=3, shift=2, out_min=0, out_max=255))
    assert run_both(net, [[[[255, 10]]]]).tolist() == [
        [[[191, 8]] * 3]
    ]  # 765 / 4 = 191.25, 30 / 4 = 7.5
    net = network((1, 1, 2), False, Layer(**fields, out="int32"))
    assert run_both(net, [[[[255, 10]]]]).tolist() == [[[[255, 10]] * 3]]


def test_add_with_inputs_of_differing_sign():
    positive = conv("positive", index=[[[[1]]]], out_min=0, out_max=255)
    negative = conv("negative", index=[[[[2]]]])
    total = Layer(
        name="sum",
        op="add",
        inputs=("positive", "negative"),
        mult=(3, 5),
        shift=1,
        out_min=-128,
        out_max=127,
    )
    net = network((1, 1, 3), False, positive, negative, total)
    assert net.output.in_signed_all == (False, True)
    # 7*3 - 7*5 = -14 -> -7; 1*3 - 5 = -2 -> -1; 200*3 - 128*5 = -40 -> -20
    assert run_both(net, [[[[7, 1, 200]]]]).tolist() == [[[[-7, -1, -20]]]]


def test_sums_above_2_to_24_stay_exact():
    # 255 * 127 * (11 * 11 * 33 - 1) + 255 * 1: odd and far above 2**24, so float32 cannot hold it
    index = np.full((1, 33, 11, 11), 1)
    index[0, 0, 0, 0] = 2
    net = network((33, 11, 11), False, conv(index=index, codebook=(0, 127, 1, 0), out="int32"))
    exact = 255 * 127 * (11 * 11 * 33 - 1) + 255
    assert int(np.float32(exact)) != exact
    assert run_both(net, np.full((1, 33, 11, 11), 255)).tolist() == [[[[exact]]]]


def test_bias_up_to_the_32_bit_limit():
    limit = 2**31 - 1 - 128 * 128
    for bias, value, expected in ((limit, -128, 2**31 - 1), (-limit, 127, -limit - 127 * 128)):
        net = network(
            (1, 1, 1),
            True,
            conv(index=[[[[1]]]], codebook=(0, -128, 0, 0), bias=[bias], out="int32"),
        )
        assert run_both(net, [[[[value]]]]).tolist() == [[[[expected]]]]


def test_many_rows_are_cut_into_blocks(monkeypatch):
    rng = np.random.default_rng(3)
    net = random_network(rng, ops=("conv",), sizes=((16, 16),), max_layers=3)
    images = random_input(rng, net, 2)
    whole = run_integer(net, images)
    monkeypatch.setattr("model.reference.integer.COLUMN_BYTES", 1)
    np.testing.assert_array_equal(run_integer(net, images), whole)


def test_input_is_checked():
    net = network((1, 2, 2), True, conv(index=[[[[1]]]]))
    images = np.zeros((3, 1, 2, 2), np.int16)
    images[2, 0, 1, 0] = 128
    with pytest.raises(
        ValueError, match=r"image 2: value 128 at channel 0, row 1, column 0 is outside -128..127"
    ):
        run_integer(net, images)
    with pytest.raises(ValueError, match=r"images must be \[N, 1, 2, 2\].* not \[3, 1, 2, 3\]"):
        run_integer(net, np.zeros((3, 1, 2, 3), np.int8))
    with pytest.raises(ValueError, match="images must be integers, not float64"):
        run_integer(net, np.zeros((3, 1, 2, 2)))
    for bad in (
        torch.full((1, 1, 2, 2), 128.0),
        torch.full((1, 1, 2, 2), -129),
        torch.full((1, 1, 2, 2), 0.5),
    ):
        with pytest.raises(ValueError, match="input must be integers in -128..127"):
            TorchNet(net)(bad)
    with pytest.raises(ValueError, match=r"input must be \[N, 1, 2, 2\]"):
        TorchNet(net)(torch.zeros(1, 2, 2))


def test_no_images():
    net = network((1, 2, 2), True, conv(index=[[[[1]]]]))
    assert run_both(net, np.zeros((0, 1, 2, 2))).shape == (0, 1, 2, 2)
