"""Everything that can be wrong with the streams and the host's timing: each ends in its error code, and the next good run is right."""
from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

from model.compiler import compile_network
from model.compiler.hardware import MODULE_COUNTS, Hardware
from model.compiler.program import MAGIC_PROGRAM, MAGIC_WEIGHTS, packet
from tb.accel.host import IRQ_DONE, IRQ_ERROR, IRQ_STOPPED, SOFT_RESET, START, Traffic
from tb.common import clocking
from tb.control.register_map import ErrorCode, Register, field
from tb.network.bench import Bench, compare, cycle_limit, expected_tensors, on_icarus, random_generator
from tb.network.chain import Chain

ERROR_LIMIT = 6000    # cycles from the fault's last beat to the interrupt; a lack of weights is noticed after 4,095
DRAIN_LIMIT = 4000    # cycles in which a stream of these sizes is emptied after an error
WORD = np.uint64


class FaultBench(Bench):
    """A bench with one small network, faults to put into its streams, and a good run to follow each."""

    async def start(self):
        await super().start()
        self.rng = random_generator()
        chain = Chain(self.rng, (3, 4, 3), True, "victim").conv(5, (1, 3), (0, 1)) if on_icarus() else (
            Chain(self.rng, (3, 9, 7), True, "victim").conv(9, (3, 3), (1, 1)).maxpool((2, 2), (2, 2)).conv(12, (5, 5), (2, 2))
            .avgpool((2, 2), (1, 1)).conv(5, (1, 1)))
        self.net = chain.network()
        self.compiled = compile_network(self.net, self.hardware, debug=True)
        self.good_runs = 0
        await self.host.write(Register.IRQ_ENABLE, IRQ_DONE | IRQ_ERROR | IRQ_STOPPED)
        return self

    def image(self) -> np.ndarray:
        """A fresh input, int32 [1, C, H, W]."""
        low, high = self.net.input_range
        return self.rng.integers(low, high + 1, (1, *self.net.input_shape)).astype(np.int32)

    async def send(self, *, prog=None, image=None) -> None:
        """Start packets on the program and weights stream and on the image stream at once, without waiting for them."""
        none = np.zeros(1, "<u8")
        await self.host.load_files(none if prog is None else prog, none if image is None else image)
        for engine, words in (("prog", prog), ("image", image)):
            if words is not None:
                await self.host.send(engine, 0, len(words))

    async def idle(self, *engines: str) -> None:
        """Wait until the engines have sent everything."""
        for engine in engines:
            busy = getattr(self.dut, f"{engine}_busy_o")
            await clocking.wait_for(self.dut, lambda busy=busy: not int(busy.value), DRAIN_LIMIT, f"the {engine} stream is not emptied")

    async def load(self, program: np.ndarray) -> None:
        """Send a program and wait until it is taken in."""
        await self.send(prog=program)
        await ClockCycles(self.dut.clk_i, 3)
        await self.idle("prog")
        await ClockCycles(self.dut.clk_i, 6)

    async def expect(self, code: ErrorCode, layer: int | None = None) -> None:
        """Wait for the error interrupt and check cause, code, layer and status."""
        irq, limit = self.dut.irq_o, Timer(ERROR_LIMIT * clocking.PERIOD_NS, "ns")
        if not int(irq.value):
            assert await First(RisingEdge(irq), limit) is not limit, f"no error after {ERROR_LIMIT} cycles, expected {code.name}"
        cause = await self.host.read(Register.IRQ_STATUS)
        assert cause & IRQ_ERROR, f"interrupt status {cause:#x}, expected an error ({code.name})"
        error, status = await self.host.read(Register.ERROR), await self.host.read(Register.STATUS)
        got = field(error, Register.ERROR, "CODE")
        assert got == code, f"error code {got:#04x}, expected {code.name} ({code:#04x})"
        assert field(status, Register.STATUS, "ERROR") and not field(status, Register.STATUS, "BUSY"), f"STATUS {status:#x} after {code.name}"
        if layer is not None:
            assert field(error, Register.ERROR, "LAYER") == layer, f"{code.name} blames layer {field(error, Register.ERROR, 'LAYER')}, not {layer}"

    async def soft_reset(self) -> None:
        """Reset and check that no error, interrupt or run is left."""
        await self.host.write(Register.CTRL, SOFT_RESET)
        await ClockCycles(self.dut.clk_i, 4)
        await self.host.write(Register.IRQ_STATUS, IRQ_DONE | IRQ_ERROR | IRQ_STOPPED)
        status, error = await self.host.read(Register.STATUS), await self.host.read(Register.ERROR)
        assert not status & 7, f"STATUS {status:#x} after a soft reset"
        assert field(error, Register.ERROR, "CODE") == ErrorCode.NONE, f"ERROR {error:#x} after a soft reset"

    async def recover(self) -> None:
        """After an error: the streams run empty, then a soft reset."""
        await self.idle("prog", "image")
        await self.soft_reset()

    async def good_run(self, reload: bool = True) -> None:
        """Run the network on a fresh image and compare every layer; reload: send the program again."""
        image = self.image()
        if reload:
            await self.check(self.net, image)
        else:
            await self.run_loaded(image)
        self.good_runs += 1
        assert not await self.host.read(Register.STATUS) & 4

    async def run_loaded(self, image: np.ndarray) -> None:
        """As a good run, with the program that is still loaded."""
        expected = expected_tensors(self.net, image)
        await self.host.load_files(np.concatenate([self.compiled.program, self.compiled.weights]), self.compiled.encode_image(image[0]))
        self.host.program_beats, self.host.weight_beats = len(self.compiled.program), len(self.compiled.weights)
        self.host.image_beats, self.host.result_beats = len(self.compiled.encode_image(image[0])), self.compiled.total_result_beats
        await self.host.start_run()
        words, _ = await self.host.run_image(0, cycle_limit(self.compiled))
        await self.host.stop_run()
        self.values_checked += compare(expected, {name: t[None] for name, t in self.compiled.decode_results(words).items()})

    async def fails(self, code: ErrorCode, *, program=None, weights=None, image=None, layer=None) -> None:
        """Run with one stream replaced, expect `code`, recover, and run well."""
        self.dut._log.info("expecting %s", code.name)
        await self.load(self.compiled.program if program is None else program)
        await self.host.write(Register.CTRL, START)
        pixels = self.compiled.encode_image(self.image()[0])
        await self.send(prog=self.compiled.weights if weights is None else weights, image=pixels if image is None else image)
        await self.expect(code, layer)
        await self.recover()
        await self.good_run()

    async def refused(self, code: ErrorCode, program: np.ndarray) -> None:
        """Send a bad program: `code`, no valid program, START refused; recover and run well."""
        self.dut._log.info("expecting %s", code.name)
        await self.send(prog=program)
        await self.expect(code)
        await self.recover()
        assert not await self.host.read(Register.STATUS) & 8, "a refused program is valid"
        await self.host.write(Register.CTRL, START)
        await self.expect(ErrorCode.NO_PROGRAM)
        await self.soft_reset()
        await self.good_run()


def flipped(words: np.ndarray, at: int, bit: int) -> np.ndarray:
    """A copy with one bit of word `at` inverted."""
    words = words.copy()
    words[at] ^= WORD(1) << WORD(bit)
    return words


def payload(words: np.ndarray) -> np.ndarray:
    """Payload of a packet."""
    return words[1:-1]


def few(cases: list) -> list:
    """All cases, or for Icarus the first one."""
    return cases[:1] if on_icarus() else cases


@cocotb.test()
async def bad_programs(dut):
    """Truncated, over-long, corrupted, misnamed, empty and too large program packets."""
    bench = await FaultBench(dut).start()
    program, rng = bench.compiled.program, bench.rng
    extra = np.array([rng.integers(2**63)], "<u8")
    cases = [
        (ErrorCode.PACKET_TRUNCATED, program[:int(rng.integers(2, len(program)))]),
        (ErrorCode.PACKET_CRC, flipped(program, int(rng.integers(1, len(program) - 1)), int(rng.integers(64)))),
        (ErrorCode.PACKET_OVERLONG, np.concatenate([program, extra])),
        (ErrorCode.PACKET_CRC, flipped(program, len(program) - 1, int(rng.integers(64)))),
        (ErrorCode.PACKET_TRUNCATED, program[:1]),
        (ErrorCode.PACKET_MAGIC, flipped(program, 0, int(rng.integers(32)))),
        (ErrorCode.PROGRAM_LENGTH, packet(MAGIC_PROGRAM, np.zeros(0, "<u8"))),
        (ErrorCode.PROGRAM_LENGTH, packet(MAGIC_PROGRAM, np.zeros(65 * 16 + 1, "<u8"))),
    ]
    for code, words in few(cases):
        if code == ErrorCode.PACKET_MAGIC:  # the old program stays when the packet is not even one
            await bench.load(program)
            await bench.send(prog=words)
            await bench.expect(code)
            await bench.recover()
            await bench.good_run(reload=False)
        else:
            await bench.refused(code, words)
    assert bench.good_runs == len(few(cases)) and bench.values_checked


@cocotb.test()
async def bad_weights(dut):
    """Truncated, over-long, corrupted, too short and too long weights packets during a run."""
    bench = await FaultBench(dut).start()
    weights, rng = bench.compiled.weights, bench.rng
    words = payload(weights)
    extra = rng.integers(2**63, size=3).astype("<u8")
    cases = [
        (ErrorCode.PACKET_CRC, flipped(weights, len(weights) - 1, 5)),
        (ErrorCode.WEIGHTS_SHORT, packet(MAGIC_WEIGHTS, words[:-1])),
        (ErrorCode.PACKET_TRUNCATED, weights[:int(rng.integers(2, len(weights)))]),
        (ErrorCode.PACKET_OVERLONG, np.concatenate([weights, extra])),
        (ErrorCode.WEIGHTS_SHORT, packet(MAGIC_WEIGHTS, words[:0])),
        (ErrorCode.WEIGHTS_SHORT, packet(MAGIC_WEIGHTS, words[:int(rng.integers(1, len(words)))])),
        (ErrorCode.WEIGHTS_LONG, packet(MAGIC_WEIGHTS, np.concatenate([words, extra]))),
        (ErrorCode.PACKET_MAGIC, flipped(weights, 0, int(rng.integers(32)))),
    ]
    for code, stream in few(cases):
        await bench.fails(code, weights=stream)
    assert bench.good_runs == len(few(cases)) and bench.values_checked


@cocotb.test()
async def bad_images(dut):
    """Truncated and over-long images."""
    bench = await FaultBench(dut).start()
    image = bench.compiled.encode_image(bench.image()[0])
    cases = [(ErrorCode.IMAGE_TRUNCATED, image[:-1]), (ErrorCode.IMAGE_OVERLONG, np.concatenate([image, image[:1]])),
             (ErrorCode.IMAGE_TRUNCATED, image[:1]), (ErrorCode.IMAGE_OVERLONG, np.concatenate([image, image]))]
    for code, stream in few(cases):
        await bench.fails(code, image=stream)
    assert bench.good_runs == len(few(cases)) and bench.values_checked


def edited(compiled, word: int, shift: int, bits: int, value: int) -> np.ndarray:
    """The program with one field of the payload replaced, and the CRC that fits."""
    words = payload(compiled.program).copy()
    mask = ((1 << bits) - 1) << shift
    words[word] = WORD(int(words[word]) & ~mask | value << shift)
    return packet(MAGIC_PROGRAM, words)


@cocotb.test()
async def bad_descriptors(dut):
    """Programs that arrive well and say what cannot be; the layer is named, nothing is written outside the layer's region."""
    bench = await FaultBench(dut).start()
    compiled, hardware = bench.compiled, bench.hardware
    last = len(bench.net.layers) - 1
    descriptor = 16 * (last + 1)
    name = bench.net.layers[last].name
    end = compiled.tensors[name].base + compiled.tensors[name].size
    cases = [
        (ErrorCode.DESCRIPTOR, last, edited(compiled, descriptor, 0, 4, 15)),                         # operation
        (ErrorCode.OUT_OF_BOUNDS, last, edited(compiled, descriptor + 4, 32, 18, end - 1)),           # region one quad too small
        (ErrorCode.DESCRIPTOR, last, edited(compiled, descriptor + 4, 32, 18, hardware.quads + 1)),   # region beyond the buffer
        (ErrorCode.DESCRIPTOR, last, edited(compiled, descriptor + 2, 0, 16, 0)),                     # no input column
        (ErrorCode.DESCRIPTOR, last, edited(compiled, descriptor + 10, 32, 9, 0)),                    # no pixel in a tile
        (ErrorCode.DESCRIPTOR, 0, edited(compiled, 16 + 11, 24, 3, 2)),                               # window of 2
        (ErrorCode.PROGRAM_HEADER, None, edited(compiled, 0, 24, 8, 2)),                              # version
        (ErrorCode.PROGRAM_HEADER, None, edited(compiled, 0, 0, 16, 0)),                              # no layer
        (ErrorCode.PROGRAM_HEADER, None, edited(compiled, 0, 0, 16, 65)),                             # too many layers
        (ErrorCode.PROGRAM_HEADER, None, edited(compiled, 3, 0, 18, hardware.quads + 1)),             # image beyond the buffer
        (ErrorCode.PROGRAM_HEADER, None, edited(compiled, 2, 32, 16, 0)),                             # no row
    ]
    for code, layer, program in few(cases):
        if code == ErrorCode.PROGRAM_HEADER:
            await _started_alone(bench, code, program)
        else:
            await bench.fails(code, program=program, layer=layer)
    assert bench.good_runs == len(few(cases)) and bench.values_checked


async def _started_alone(bench, code, program):
    """START on a program that is refused before the first image beat."""
    await bench.load(program)
    await bench.host.write(Register.CTRL, START)
    await bench.expect(code)
    await bench.recover()
    await bench.good_run()


@cocotb.test()
async def other_modules(dut):
    """A program for another number of conv modules is refused at START."""
    bench = await FaultBench(dut).start()
    others = [m for m in MODULE_COUNTS if m != bench.hardware.num_modules]
    for modules in few(others):
        foreign = compile_network(bench.net, Hardware(modules, bench.hardware.bank_words, bench.hardware.weight_words), debug=True)
        await _started_alone(bench, ErrorCode.NUM_MODULES, foreign.program)
    assert bench.good_runs and bench.values_checked


@cocotb.test()
async def wrong_time(dut):
    """START without a program, START and a program during a run; a program that was loaded survives the last two."""
    bench = await FaultBench(dut).start()
    await bench.host.write(Register.CTRL, START)
    await bench.expect(ErrorCode.NO_PROGRAM)
    await bench.soft_reset()
    await bench.good_run()
    for code in (ErrorCode.START_BUSY, ErrorCode.PROGRAM_BUSY):
        await bench.host.write(Register.CTRL, START)
        if code == ErrorCode.START_BUSY:
            await bench.host.write(Register.CTRL, START)
        else:
            await bench.send(prog=flipped(bench.compiled.program, 5, 3))
        await bench.expect(code)
        await bench.recover()
        await bench.good_run(reload=False)
    assert bench.good_runs == 3 and bench.values_checked


@cocotb.test()
async def soft_resets(dut):
    """Soft resets at random moments of a run: the host stops its engines, resets, and the next run is right."""
    bench = await FaultBench(dut).start()
    await bench.good_run()
    whole = int(dut.cycles_o.value)
    for _ in range(1 if on_icarus() else 25):
        slow = Traffic(0, int(bench.rng.choice([256, 100])), int(bench.rng.choice([0, 128])))
        bench.host.set_traffic(slow, slow, 0)
        await bench.host.write(Register.CTRL, START)
        await bench.send(prog=bench.compiled.weights, image=bench.compiled.encode_image(bench.image()[0]))
        moment = int(bench.rng.integers(1, whole))
        await ClockCycles(dut.clk_i, moment)
        dut._log.info("soft reset %d cycles after the first beat", moment)
        for engine in ("prog", "image"):
            await bench.host.send(engine, 0, 0)  # the engine stops, but a beat that waits is not withdrawn
        await bench.idle("image")
        await bench.host.write(Register.CTRL, SOFT_RESET)
        await bench.idle("prog")
        await ClockCycles(dut.clk_i, 6)
        await bench.soft_reset()
        await bench.good_run(reload=bool(bench.rng.integers(2)))
    assert bench.good_runs >= 2 and bench.values_checked


@cocotb.test()
async def reset_inside_packets(dut):
    """Soft resets in the middle of packets whose rest still arrives: the rest is refused with a code, then all is well."""
    bench = await FaultBench(dut).start()
    await bench.good_run()
    program, weights = bench.compiled.program, bench.compiled.weights
    rest = ErrorCode.PACKET_MAGIC
    for words in (program, weights):
        bench.host.set_traffic(Traffic(0, 128, 0), Traffic(0, 128, 0), 0)
        if words is weights:
            await bench.host.write(Register.CTRL, START)
        await bench.send(prog=words)
        await ClockCycles(dut.clk_i, 12)
        await bench.host.write(Register.CTRL, SOFT_RESET)
        await bench.expect(rest)
        await bench.recover()
        await bench.good_run()
    if not on_icarus():
        bench.host.set_traffic(Traffic(), Traffic(0, 32, 0), 0)
        await bench.host.write(Register.CTRL, START)
        await bench.send(image=bench.compiled.encode_image(bench.image()[0]))
        await ClockCycles(dut.clk_i, 40)
        await bench.host.write(Register.CTRL, SOFT_RESET)
        await ClockCycles(dut.clk_i, 40)
        await bench.host.write(Register.CTRL, START)
        await bench.expect(ErrorCode.IMAGE_TRUNCATED)
        await bench.recover()
        await bench.good_run()
    assert bench.good_runs >= 3 and bench.values_checked
