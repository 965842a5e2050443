"""A bench with one small network, faults to put into its streams and into the host's timing, and a
good run to follow each."""

from __future__ import annotations

import numpy as np
from cocotb.task import bridge
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

from host.driver import ALL_INTERRUPTS
from host.harness import clocking
from host.harness.engines import RESULT_FILE, read_hex
from host.register_map import Ctrl, ErrorCode, IrqStatus, Register, Status, field
from model.compiler import compile_network
from model.network.random_networks import affine
from tb.lib import coverage
from tb.lib.accelerator import expected_tensors, on_icarus, random_generator
from tb.lib.chain import Chain
from tb.lib.cover_groups import PACKET_ERRORS
from tb.top.bench import Bench, compare

# cycles from the fault's last beat to the interrupt; a lack of weights is noticed after 4,095, or
# that many after the 2,048 words that the buffer holds
ERROR_LIMIT = 8000
DRAIN_LIMIT = 4000  # cycles in which a stream of these sizes is emptied after an error


class FaultBench(Bench):
    """A bench with one small network, faults to put into its streams, and a good run to follow
    each.

    `pending` holds coverage points (group, point) of what has happened; they count once the good
    run behind it was right.
    """

    async def start(self):
        await super().start()
        self.rng = random_generator()
        chain = (
            Chain(self.rng, (3, 4, 3), True, "victim").conv(5, (1, 3), (0, 1))
            if on_icarus()
            else (
                Chain(self.rng, (3, 9, 7), True, "victim")
                .conv(9, (3, 3), (1, 1))
                .maxpool((2, 2), (2, 2))
                .conv(12, (5, 5), (2, 2))
                .avgpool((2, 2), (1, 1))
                .add()
                .conv(5, (1, 1))
            )
        )
        net = chain.network()
        self.net = affine(net, self.rng) if self.hardware.planes == 2 else net
        self.compiled = compile_network(self.net, self.hardware, debug=True)
        self.good_runs = 0
        self.pending: list[tuple[str, str]] = []
        await self.host.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
        return self

    async def start_one_beat(self):
        """As `start`, with a network as small as can be: an image is one beat."""
        await FaultBench.start(self)
        self.net = Chain(self.rng, (3, 1, 2), True, "one beat").conv(5, (1, 1)).network()
        self.compiled = compile_network(self.net, self.hardware, debug=True)
        await self.load(self.compiled.program)
        return self

    def image(self) -> np.ndarray:
        """A fresh input, int32 [1, C, H, W]."""
        low, high = self.net.input_range
        return self.rng.integers(low, high + 1, (1, *self.net.input_shape)).astype(np.int32)

    async def send(
        self,
        *,
        prog=None,
        image=None,
        prog_keep: int = 0xFF,
        image_keep: int = 0xFF,
        keep_at: int = 0,
    ) -> None:
        """Start packets on the program and weights stream and on the image stream at once, without
        waiting for them.

        prog_keep, image_keep: TKEEP of the beat that `keep_at` others follow.
        """
        self.dut.prog_keep_i.value, self.dut.image_keep_i.value = prog_keep, image_keep
        self.dut.prog_keep_at_i.value = self.dut.image_keep_at_i.value = keep_at
        none = np.zeros(1, "<u8")
        await self.host.load_files(none if prog is None else prog, none if image is None else image)
        for engine, words in (("prog", prog), ("image", image)):
            if words is not None:
                await self.host.send(engine, 0, len(words))

    async def idle(self, *engines: str) -> None:
        """Wait until the engines have sent everything."""
        for engine in engines:
            busy = getattr(self.dut, f"{engine}_busy_o")
            await clocking.wait_for(
                self.dut,
                lambda busy=busy: not int(busy.value),
                DRAIN_LIMIT,
                f"the {engine} stream is not emptied",
            )

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
            assert await First(RisingEdge(irq), limit) is not limit, (
                f"no error after {ERROR_LIMIT} cycles, expected {code.name}"
            )
        cause = await self.host.read(Register.IRQ_STATUS)
        assert cause & IrqStatus.ERROR, (
            f"interrupt status {cause:#x}, expected an error ({code.name})"
        )
        error, status = await self.host.read(Register.ERROR), await self.host.read(Register.STATUS)
        got = field(error, Register.ERROR, "CODE")
        assert got == code, f"error code {got:#04x}, expected {code.name} ({code:#04x})"
        assert status & Status.ERROR and not status & Status.BUSY, (
            f"STATUS {status:#x} after {code.name}"
        )
        if layer is not None:
            assert field(error, Register.ERROR, "LAYER") == layer, (
                f"{code.name} blames layer {field(error, Register.ERROR, 'LAYER')}, not {layer}"
            )
        self.pending.append(("error", ErrorCode(got).name))

    async def soft_reset(self) -> None:
        """Reset and check that no error, interrupt or run is left."""
        await self.host.write(Register.CTRL, Ctrl.SOFT_RESET)
        await self.host.take_leftovers()
        await self.host.write(Register.IRQ_STATUS, ALL_INTERRUPTS)
        status, error = await self.host.read(Register.STATUS), await self.host.read(Register.ERROR)
        assert not status & (Status.BUSY | Status.DONE | Status.ERROR), (
            f"STATUS {status:#x} after a soft reset"
        )
        assert field(error, Register.ERROR, "CODE") == ErrorCode.NONE, (
            f"ERROR {error:#x} after a soft reset"
        )

    async def recover(self) -> None:
        """After an error: the streams run empty, then a soft reset."""
        await self.idle("prog", "image")
        self.dut.prog_keep_i.value = self.dut.image_keep_i.value = 0xFF
        self.dut.prog_keep_at_i.value = self.dut.image_keep_at_i.value = 0
        await self.soft_reset()

    async def stop_engines(self) -> None:
        """The host gives up in the middle of its packets; a soft reset leaves nothing of them."""
        await bridge(self.accelerator.soft_reset)()
        await self.soft_reset()

    async def good_run(self, reload: bool = True) -> None:
        """Run the network on a fresh image and compare every layer; reload: send the program
        again."""
        image = self.image()
        if reload:
            await self.check(self.net, image)
        else:
            await self.run_again(image)
        assert not await self.host.read(Register.STATUS) & Status.ERROR
        self.good_runs += 1
        for group, point in self.pending:
            coverage.hit(group, point)
        self.pending = []

    async def run_again(self, image: np.ndarray) -> None:
        """As a good run, with the program that is still loaded."""
        results = await self.run_loaded(self.compiled, image)
        self.values_checked += compare(expected_tensors(self.net, image), results.tensors)

    def image_length(self) -> int:
        """Beats of an image."""
        return len(self.compiled.encode_image(self.image()[0]))

    def result_words(self) -> np.ndarray:
        """All beats that have come back, after `result_dump_i`."""
        beats = int(self.dut.result_beats_o.value)
        assert beats == self.compiled.total_result_beats, (
            f"{beats} result beats, expected {self.compiled.total_result_beats}"
        )
        return read_hex(RESULT_FILE, beats)

    async def fails(
        self, code: ErrorCode, *, program=None, weights=None, image=None, layer=None, **keep
    ) -> None:
        """Run with one stream replaced, expect `code`, recover, run well; keep: as for `send`."""
        self.dut._log.info("expecting %s", code.name)
        await self.load(self.compiled.program if program is None else program)
        await self.host.write(Register.CTRL, Ctrl.START)
        pixels = self.compiled.encode_image(self.image()[0])
        await self.send(
            prog=self.compiled.weights if weights is None else weights,
            image=pixels if image is None else image,
            **keep,
        )
        await self.expect(code, layer)
        self.note_packet(code, "weights")
        await self.recover()
        await self.good_run()

    def note_packet(self, code: ErrorCode, kind: str) -> None:
        """Remember that a packet of this kind ended in one of the packet errors."""
        if code.name in PACKET_ERRORS:
            self.pending.append(("packet_error", f"{code.name} {kind}"))

    async def refused(self, code: ErrorCode, program: np.ndarray, **keep) -> None:
        """Send a bad program: `code`, no valid program, START refused; recover and run well; keep:
        as for `send`."""
        self.dut._log.info("expecting %s", code.name)
        await self.send(prog=program, **keep)
        await self.expect(code)
        self.note_packet(code, "program")
        await self.recover()
        assert not await self.host.read(Register.STATUS) & Status.PROG_VALID, (
            "a refused program is valid"
        )
        await self.host.write(Register.CTRL, Ctrl.START)
        await self.expect(ErrorCode.NO_PROGRAM)
        await self.soft_reset()
        await self.good_run()
