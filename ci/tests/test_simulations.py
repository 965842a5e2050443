"""Images that are split over several simulations give what one simulation of all of them gives:
results, their order, cycles, counters, and the same error."""

import numpy as np
import pytest

from host import rtl_backend
from host.simulation import runner
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.compiler.program import Compiled
from model.network import Layer, Network
from model.network.random_networks import random_input
from model.performance.cycle_model import predict
from model.reference.integer import run_integer
from tb.lib.chain import Chain

pytestmark = pytest.mark.skipif(bool(runner.missing("verilator")), reason="no simulator")
HARDWARE = Hardware()
MARK = 100  # the first value of an image that is sent wrongly


class Damaged(Compiled):
    """Sends an image that begins with MARK without its last beat, one with MARK + 1 twice."""

    def encode_image(self, image):
        beats = super().encode_image(image)
        return {MARK: beats[:-1], MARK + 1: np.tile(beats, 2)}.get(int(image.flat[0]), beats)


@pytest.fixture(scope="module")
def block():
    """A network with a fused sum, and five images of which no two are equal."""
    rng = np.random.default_rng(4)
    chain = Chain(rng, (5, 4, 3), True, "block")
    chain.conv(5, (1, 1)).conv(5, (3, 3), (1, 1)).add("input", "conv2_3x3", clamp=(-100, 90))
    images = random_input(rng, chain.network(), 5)
    images[:, 0, 0, 0] = np.arange(5)
    return chain.network(), images


def test_results_do_not_depend_on_the_number_of_simulations(block):
    net, images = block
    one, two, three, default = (
        rtl_backend.run_rtl(net, images, HARDWARE, debug=True, simulations=count)
        for count in (1, 2, 3, None)
    )
    expected = run_integer(net, images, keep=True)
    assert set(one.tensors) == {"conv1_1x1", "add3"}
    for several in (one, two, three, default):
        assert several.tensors.keys() == one.tensors.keys()
        for name, tensor in several.tensors.items():
            assert tensor.dtype == np.int32 and np.array_equal(tensor, expected[name])
        assert np.array_equal(several.total_cycles, one.total_cycles)
        assert np.array_equal(several.counters, one.counters) and several.counters.all(axis=2).any()
        assert several.seconds.shape == (5,)


def test_limits_of_large_networks(monkeypatch):
    """The memory of results and the time of an image follow the network."""
    window = {"kernel": (100, 100), "stride": (1, 1), "pad": (0, 0)}
    scaling = {"mult": 1, "shift": 13, "out_min": -128, "out_max": 127}
    layer = Layer(name="pool", op="avgpool", inputs=("input",), **window, **scaling)
    slow = Network(name="slow", input_shape=(4, 200, 200), input_signed=True, layers=(layer,))
    compiled = compile_network(slow, HARDWARE)
    cycles = predict(compiled).total_cycles
    assert cycles > 100e6 and rtl_backend._limit(compiled) > 2 * cycles * rtl_backend.CYCLE
    monkeypatch.setattr(runner, "build", lambda *_, parameters, **__: parameters)
    most = rtl_backend.DMA_WORDS
    made = rtl_backend.build_harness(HARDWARE, result_words=most)
    assert "RESULT_DEPTH" not in made
    made = rtl_backend.build_harness(HARDWARE, result_words=most + 1)
    assert made["RESULT_DEPTH"] == 2 * most and "WEIGHT_DEPTH" not in made


@pytest.mark.parametrize("wrong, code", [((1, 4), "IMAGE_TRUNCATED"), ((4, 1), "IMAGE_OVERLONG")])
def test_the_first_error_in_the_order_of_the_images(block, wrong, code):
    """Image wrong[0] lacks its last beat, wrong[1] is sent twice."""
    net, images = block
    images = images.copy()
    images[list(wrong), 0, 0, 0] = MARK, MARK + 1
    compiled = Damaged(**vars(compile_network(net, HARDWARE)))
    messages = set()
    for count in (1, 2, 5):
        with pytest.raises(rtl_backend.SimulationError) as caught:
            rtl_backend.run_rtl(net, images, HARDWARE, compiled=compiled, simulations=count)
        message, _, log = str(caught.value).rpartition("\n(log: ")
        assert code in message and log
        messages.add(message)
    assert len(messages) == 1, messages
