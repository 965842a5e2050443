"""The driver on the behavioural model, on a stub of PYNQ (both run by pytest) and on the RTL (run
by cocotb): the same scenarios, the same class."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import cocotb
import numpy as np
import pytest

from host.board import PARTS, on_pynq
from host.driver import (
    LAYER_ERRORS,
    REMEDIES,
    Accelerator,
    AcceleratorError,
    AcceleratorTimeout,
    DriverError,
)
from host.fake import FakeAccelerator
from host.register_map import Ctrl, ErrorCode, Register, Status
from host.serial_link import Link
from model.compiler import Compiled, compile_network
from model.compiler.hardware import MODULE_COUNTS, Hardware
from model.compiler.program import packet
from model.compiler.program_format import MAGIC_PROGRAM, MAGIC_WEIGHTS, PROGRAM_VERSION
from model.data.images import ImageError
from model.network import Network
from model.performance.cycle_model import predict
from model.reference.integer import run_integer
from tb.lib import pynq_stub
from tb.lib.c_driver import CDriver, span
from tb.lib.chain import Chain
from tb.lib.packets import edited, flipped, payload

SOON = 2e-4  # seconds: a time-out that is waited for


def small_network() -> Network:
    """Five layers that the RTL computes in some thousand cycles."""
    chain = Chain(np.random.default_rng(5), (3, 9, 7), True, "small")
    chain.conv(9, (3, 3), (1, 1)).maxpool((2, 2), (2, 2)).conv(12, (5, 5), (2, 2))
    return chain.avgpool((2, 2), (1, 1)).conv(5, (1, 1), raw=True).network()


def other_network() -> Network:
    """Another one, of another shape, with a sum that is computed in a convolution's write-back."""
    chain = Chain(np.random.default_rng(6), (2, 3, 4), False, "other")
    chain.conv(6, (1, 3)).conv(6, (3, 3), (1, 1)).add("conv1_1x3", "conv2_3x3")
    return chain.network()


def tiny_network() -> Network:
    """A pixel and a layer, for many images."""
    return Chain(np.random.default_rng(7), (4, 1, 1), True, "tiny").conv(4, (1, 1)).network()


SMALL, OTHER, TINY = small_network(), other_network(), tiny_network()


class Platform:
    """Something with an accelerator: `driver` makes a new Accelerator on it."""

    driver: Callable[[], Accelerator]
    power_up: Callable[[], None]  # the program is forgotten
    engines: dict[str, object]

    @contextlib.contextmanager
    def stuck(self, engine: str) -> Iterator[None]:
        """An engine ("weights", "images", "results") that stands still after a word at most."""
        self.stick(engine, True)
        try:
            yield
        finally:
            self.stick(engine, False)

    def stick(self, engine: str, stuck: bool) -> None:
        self.engines[engine].stuck = stuck


class Fake(Platform):
    """The behavioural model."""

    def __init__(self) -> None:
        self.fake = FakeAccelerator([SMALL, OTHER, TINY])
        self.power_up = self.fake.power_up

    def driver(self) -> Accelerator:
        accelerator = self.fake.driver()
        self.engines = {
            name: getattr(accelerator, f"_{name}") for name in ("weights", "images", "results")
        }
        return accelerator


class Pynq(Fake):
    """The stub of PYNQ, through host/board.py. Time passes faster than on a board."""

    def driver(self) -> Accelerator:
        overlay = pynq_stub.overlay(self.fake)
        self.engines = {
            "weights": overlay.weights_dma.sendchannel,
            "images": overlay.images_dma.sendchannel,
            "results": overlay.results_dma.recvchannel,
        }
        sys.modules["pynq"] = pynq_stub
        try:
            return on_pynq(overlay)
        finally:
            del sys.modules["pynq"]


def images(network: Network, count: int, seed: int = 1) -> np.ndarray:
    """Integers [N, C, H, W] in the range of the network's input."""
    low, high = network.input_range
    shape = (count, *network.input_shape)
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.int32)


def good_run(accelerator: Accelerator, network: Network = SMALL, count: int = 1) -> None:
    """Load and run, and compare the outputs with the integer model."""
    accelerator.load(network)
    x = images(network, count)
    assert np.array_equal(accelerator.run(x).y, run_integer(network, x))
    assert not accelerator.mmio.read(Register.IRQ_STATUS), "an interrupt is left"


def raises(kind: type[Exception], text: str, call: Callable[[], object]) -> Exception:
    """The error that `call` must raise; its message must hold `text`, in one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert text in message and "\n" not in message, message
    return caught.value


# ------------------------------------------------------------------------------------- scenarios


def batch(platform: Platform) -> None:
    """Every layer of a batch, cycles and memory traffic; then another network, then the first."""
    accelerator = platform.driver()
    compiled = accelerator.load(compile_network(SMALL, accelerator.hardware, debug=True))
    x, finished = images(SMALL, 3), []
    results = accelerator.run(x, done=finished.append)
    expected = run_integer(SMALL, x, keep=True)
    assert list(results.tensors) == [layer.name for layer in SMALL.layers]
    for name, tensor in results.tensors.items():
        assert tensor.dtype == np.int32 and np.array_equal(tensor, expected[name]), name
    assert finished == [1, 2, 3]
    cycles = predict(compiled)
    assert results.cycles.tolist() == [[layer.cycles for layer in cycles.layers]] * 3
    traffic = [(layer.reads, layer.writes) for layer in cycles.layers]
    assert [tuple(row[2:4]) for row in results.counters[-1]] == traffic
    assert results.total_cycles.tolist() == [cycles.total_cycles] * 3
    assert np.array_equal(accelerator.counters(), results.counters[-1])
    assert results.seconds.shape == (3,) and (results.seconds > 0).all()
    good_run(accelerator, OTHER)
    good_run(accelerator, SMALL)


def hundred_images(platform: Platform) -> None:
    """A batch of 100 images leaves no buffer, file or object behind."""
    accelerator = platform.driver()
    accelerator.load(TINY)
    few, many = images(TINY, 2), images(TINY, 100)
    before = []
    for x in (few, few, many):
        assert np.array_equal(accelerator.run(x).y, run_integer(TINY, x))
        gc.collect()
        before.append((len(os.listdir("/proc/self/fd")), len(gc.get_objects())))
    assert not pynq_stub.live, "buffers are not freed"
    (_, _), (files, objects), (files_after, objects_after) = before
    assert files_after == files, "open files"
    assert objects_after - objects < 100, f"{objects_after - objects} more objects"


def wrong_images(platform: Platform) -> None:
    """Images of a wrong shape, dtype or range are refused before anything is sent, and no images at
    all are no error."""
    accelerator = platform.driver()
    raises(DriverError, "call load first", lambda: accelerator.run(images(SMALL, 1)))
    accelerator.load(SMALL)
    x = images(SMALL, 2)
    for wrong, text in (
        (x.astype(float), "float64"),
        (x[0], "3, 9, 7"),
        (x[:, :2], "3, 9, 7"),
        (x.swapaxes(2, 3), "3, 9, 7"),
        (x + 200, "127"),
        (x.astype(bool), "bool"),
        (np.array([["a"]]), ""),
    ):
        raises(ImageError, text, lambda wrong=wrong: accelerator.run(wrong))
    assert not accelerator.mmio.read(Register.STATUS) & Status.BUSY
    assert accelerator.run(x[:0]).y.shape == (0, *SMALL.output.out_shape)
    assert np.array_equal(accelerator.run(x.astype(np.int8)).y, run_integer(SMALL, x))


def timeouts(platform: Platform) -> None:
    """An engine that stands still ends in a time-out, and the next run is right."""
    accelerator = platform.driver()
    for engine, text in (
        ("weights", "a result packet"),
        ("images", "a result packet"),
        ("results", "a result packet"),
    ):
        accelerator.load(SMALL)
        with platform.stuck(engine):
            run = lambda: accelerator.run(images(SMALL, 2), timeout=SOON)
            raises(AcceleratorTimeout, f"without {text}", run)
            assert not accelerator.mmio.read(Register.STATUS) & Status.BUSY
        assert np.array_equal(
            accelerator.run(images(SMALL, 2)).y, run_integer(SMALL, images(SMALL, 2))
        )
    with platform.stuck("weights"):
        load = lambda: accelerator.load(OTHER, timeout=SOON)
        raises(AcceleratorTimeout, "without the program to be taken", load)
    raises(DriverError, "call load first", lambda: accelerator.run(images(OTHER, 1)))
    good_run(accelerator, OTHER)


def reset_in_mid_transfer(platform: Platform) -> None:
    """A soft reset while weights and image are on their way, and an exception of the caller's."""
    accelerator = platform.driver()
    compiled = accelerator.load(SMALL)
    for late in ("weights", "images"):
        with platform.stuck(late):
            accelerator.mmio.write(Register.CTRL, Ctrl.START)
            with (
                accelerator.buffer(compiled.weights) as weights,
                accelerator.buffer(compiled.encode_image(images(SMALL, 1)[0])) as image,
            ):
                accelerator._weights.transfer(weights)
                accelerator._images.transfer(image)
                accelerator.soft_reset()
        x = images(SMALL, 1)
        assert np.array_equal(accelerator.run(x).y, run_integer(SMALL, x)), late

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accelerator.run(images(SMALL, 2), done=interrupt)
    good_run(accelerator)
    accelerator.soft_reset()
    good_run(accelerator)


def strangers(platform: Platform) -> None:
    """What is not an accelerator, or of another version, is refused."""
    accelerator = platform.driver()
    read = accelerator.mmio.read
    for register, value, text in (
        (Register.ID, 0xDEADBEEF, "0xdeadbeef"),
        (Register.VERSION, 0x20000, "VERSION is 0x00020000"),
    ):
        mmio = SimpleNamespace(read=lambda r, r0=register, v=value: v if r == r0 else read(r))
        engine = SimpleNamespace(sendchannel=None, recvchannel=None)
        raises(DriverError, text, lambda m=mmio: Accelerator(m, engine, engine, engine))
    assert str(AcceleratorError(0xEE, None)).startswith("accelerator error 0xee unknown")


def new_driver(platform: Platform) -> None:
    """A new driver brings an accelerator to rest that its last one has left in a run."""
    accelerator = platform.driver()
    accelerator.load(SMALL)
    accelerator.mmio.write(Register.CTRL, Ctrl.START)
    good_run(platform.driver(), OTHER)


def other_image(compiled: Compiled, edit: Callable[[np.ndarray], np.ndarray]) -> Compiled:
    """The network with the words of its images edited."""
    changed, encode = replace(compiled), compiled.encode_image
    object.__setattr__(changed, "encode_image", lambda image: edit(encode(image)))
    return changed


def failing(code: ErrorCode, compiled: Compiled) -> Compiled:
    """What the driver is given instead of a network, so that it ends in this error."""
    program, weights = compiled.program, payload(compiled.weights)
    last = len(compiled.net.layers) - 2
    bad = {
        ErrorCode.PACKET_MAGIC: lambda: replace(compiled, program=flipped(program, 0, 3)),
        ErrorCode.PACKET_TRUNCATED: lambda: replace(compiled, weights=compiled.weights[:-2]),
        ErrorCode.PACKET_OVERLONG: lambda: replace(compiled, program=np.append(program, program)),
        ErrorCode.PACKET_CRC: lambda: replace(compiled, weights=flipped(compiled.weights, 9, 1)),
        ErrorCode.PACKET_TKEEP: lambda: replace(compiled, program=program.view(np.uint8)[:-4]),
        ErrorCode.PROGRAM_LENGTH: lambda: replace(
            compiled, program=packet(MAGIC_PROGRAM, weights[:0])
        ),
        ErrorCode.IMAGE_TRUNCATED: lambda: other_image(compiled, lambda words: words[:-1]),
        ErrorCode.IMAGE_OVERLONG: lambda: other_image(compiled, lambda w: np.append(w, w)),
        ErrorCode.IMAGE_TKEEP: lambda: other_image(compiled, lambda w: w.view(np.uint8)[:-1]),
        ErrorCode.PROGRAM_HEADER: lambda: replace(
            compiled, program=edited(compiled, None, {"version": PROGRAM_VERSION + 1})
        ),
        ErrorCode.NUM_MODULES: lambda: compile_network(
            compiled.net, Hardware(24 - 2 * compiled.hardware.num_modules)
        ),
        ErrorCode.DESCRIPTOR: lambda: replace(compiled, program=edited(compiled, 1, {"in_w": 0})),
        ErrorCode.OUT_OF_BOUNDS: lambda: replace(
            compiled, program=edited(compiled, last, {"out_end": sum(end(compiled, last)) - 1})
        ),
        ErrorCode.WEIGHTS_SHORT: lambda: replace(
            compiled, weights=packet(MAGIC_WEIGHTS, weights[:-1])
        ),
        ErrorCode.WEIGHTS_LONG: lambda: replace(
            compiled, weights=packet(MAGIC_WEIGHTS, np.append(weights, weights[:3]))
        ),
    }
    return bad.get(code, lambda: compiled)()


def end(compiled: Compiled, layer: int) -> tuple[int, int]:
    """(base, size) of a layer's tensor in quads."""
    tensor = compiled.tensors[compiled.net.layers[layer].name]
    return tensor.base, tensor.size


FAULTY_LAYER = {
    ErrorCode.DESCRIPTOR: 1,
    ErrorCode.OUT_OF_BOUNDS: len(SMALL.layers) - 2,
    ErrorCode.WEIGHTS_SHORT: len(SMALL.layers) - 1,
}


def error(platform: Platform, code: ErrorCode) -> None:
    """Something ends in this error; the exception names code, layer and remedy, and the next run is
    right."""
    accelerator = platform.driver()
    compiled = accelerator.load(SMALL)
    bad = failing(code, compiled)

    def go() -> None:
        if code in (ErrorCode.START_BUSY, ErrorCode.PROGRAM_BUSY):
            accelerator.mmio.write(Register.CTRL, Ctrl.START)
        elif code == ErrorCode.NO_PROGRAM:
            platform.power_up()
        if code not in (ErrorCode.START_BUSY, ErrorCode.NO_PROGRAM):
            accelerator.load(bad)
        accelerator.run(images(SMALL, 1))

    problem = raises(AcceleratorError, f"{code:#04x} {code.name}", go)
    assert problem.code == code and problem.remedy == REMEDIES[code] and problem.remedy
    assert (problem.layer is not None) == (code in LAYER_ERRORS)
    copy = pickle.loads(pickle.dumps(problem))
    assert (str(copy), copy.code, copy.layer) == (str(problem), code, problem.layer)
    if code in FAULTY_LAYER:
        assert problem.layer == SMALL.layers[FAULTY_LAYER[code]].name
    assert accelerator.mmio.read(Register.STATUS) & ~Status.PROG_VALID == 0
    good_run(accelerator, count=2)


def in_c(platform: Platform) -> None:
    """The driver in C: logits, counters, an error with its layer, a time-out, another build's
    program, and a run after each of them."""
    driver = CDriver(accelerator := platform.driver())
    compiled, x = compile_network(SMALL, accelerator.hardware), images(SMALL, 2)
    expected, cycles = run_integer(SMALL, x), predict(compiled)
    beats = len(compiled.encode_image(x[0]))
    results = np.zeros(compiled.total_result_beats, np.uint64)

    def load(program: np.ndarray) -> int:
        return driver.call("load", *span(program))

    def run(image: np.ndarray, weights: np.ndarray) -> int:
        words = driver.encode(image, beats)
        assert np.array_equal(words, compiled.encode_image(image))
        return driver.call("image", *span(weights), *span(words), *span(results))

    def good_batch() -> None:
        assert driver.call("start") == 0
        for image, logits in zip(x, expected):
            assert run(image, compiled.weights) == 0
            assert np.array_equal(compiled.decode_results(results)[SMALL.output.name], logits)
        for number, layer in enumerate(cycles.layers):
            counters = driver.call("layer", number)
            assert (counters.cycles, counters.reads) == (layer.cycles, layer.reads)
        assert driver.call("stop") == 0

    assert driver.call("open") == 0
    other = next(m for m in MODULE_COUNTS if m != accelerator.hardware.num_modules)
    foreign = compile_network(SMALL, Hardware(other)).program
    assert driver.text(load(foreign)).startswith("NOT_FOR_THIS_BUILD")
    assert driver.text(driver.call("start")).startswith("NO_PROGRAM: START without")
    assert load(compiled.program) == 0
    good_batch()
    assert driver.call("start") == 0
    short = packet(MAGIC_WEIGHTS, payload(compiled.weights)[:-1])
    assert driver.text(run(x[0], short)).startswith("WEIGHTS_SHORT")
    assert driver.struct.layer == FAULTY_LAYER[ErrorCode.WEIGHTS_SHORT]
    good_batch()
    driver.struct.patience = 50
    with platform.stuck("images"):
        assert driver.call("start") == 0
        assert driver.text(run(x[0], compiled.weights)).startswith("TIMEOUT")
    driver.struct.patience = 100_000
    assert driver.text(load(flipped(compiled.program, 20, 0))).startswith("PACKET_CRC")
    assert load(compiled.program) == 0
    good_batch()
    assert all(driver.text(code).startswith(f"{code.name}: ") for code in ErrorCode)
    driver.close()


CODES = [code for code in ErrorCode if code != ErrorCode.NONE]
SHORT = (batch, hundred_images, wrong_images, reset_in_mid_transfer, strangers, new_driver)
SCENARIOS = (*SHORT, timeouts, in_c)

# ------------------------------------------------------------------------------------- platforms


@pytest.fixture(params=[Fake, Pynq])
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    yield request.param()
    assert not pynq_stub.live, "buffers are not freed"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(platform: Platform, scenario: Callable[[Platform], None]) -> None:
    scenario(platform)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_error(platform: Platform, code: ErrorCode) -> None:
    error(platform, code)


@pytest.mark.parametrize("part", PARTS)
def test_overlay_without_a_part(part: str) -> None:
    overlay = pynq_stub.overlay(FakeAccelerator([]))
    delattr(overlay, part)
    raises(DriverError, f"the overlay has no {part}", lambda: on_pynq(overlay))


class Talking:
    """A port that sends without an end, and is no bridge."""

    def write(self, data: bytes, /) -> None:
        pass

    def read(self, size: int, /) -> bytes:
        return b"\xca" * size


def test_a_port_that_only_talks() -> None:
    raises(DriverError, "no answer to HELLO after 8 tries", lambda: Link(Talking()))


def test_counters_are_zero_after_a_start() -> None:
    accelerator = FakeAccelerator([SMALL]).driver()
    good_run(accelerator)
    accelerator.mmio.write(Register.LAYER_SEL, 0)
    assert accelerator.mmio.read(Register.LAYER_CYCLES)
    accelerator.mmio.write(Register.CTRL, Ctrl.START)
    assert not accelerator.mmio.read(Register.LAYER_CYCLES)


def test_large_32_bit_results_need_no_room() -> None:
    """They go to the stream, whatever the feature buffer holds."""
    chain = Chain(np.random.default_rng(1), (1, 80, 80), True, "wide")
    network = chain.conv(64, (3, 3), (1, 1), raw=True).network()
    assert np.prod(network.output.out_shape) // 4 > Hardware().quads
    good_run(FakeAccelerator([network]).driver(), network)


def test_board_without_pynq() -> None:
    overlay = pynq_stub.overlay(FakeAccelerator([]))
    raises(DriverError, "pynq is missing", lambda: on_pynq(overlay))


if cocotb.is_simulation:
    from cocotb.task import bridge, resume

    from host.harness import clocking
    from host.harness.engines import FULL_RATE, Host
    from tb.lib.effort import scaled

    class Rtl(Platform):
        """The RTL in the harness."""

        def __init__(self, host: Host) -> None:
            self.dut, self.driver = host.dut, host.accelerator
            self.power_up = lambda: resume(clocking.reset)(self.dut)
            self.stick = resume(self._stick)

        async def _stick(self, engine: str, stuck: bool) -> None:
            if engine == "results":
                self.dut.result_stall_i.value = 256 * stuck
            else:
                prefix = "prog" if engine == "weights" else "image"
                getattr(self.dut, f"{prefix}_rate_i").value = 0 if stuck else FULL_RATE

    async def on_rtl(dut, scenario, *arguments) -> None:
        """Run a scenario on the simulated accelerator."""
        host = Host(dut)
        await host.start()
        await bridge(scenario)(Rtl(host), *arguments)

    @cocotb.test()
    @cocotb.parametrize(name=[s.__name__ for s in scaled(SHORT, SCENARIOS)])
    async def scenario(dut, name):
        await on_rtl(dut, globals()[name])

    if scaled(False, True):

        @cocotb.test()
        @cocotb.parametrize(code=[code.name for code in CODES])
        async def error_code(dut, code):
            await on_rtl(dut, error, ErrorCode[code])
