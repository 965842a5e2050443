"""Predicts the cycles and memory traffic of every layer, and of a whole image.

The model replays the events of the hardware pass by pass: the pass sequencer's set-up, the weight
loader's shadow registers and buffer, the two partial-sum buffers and their drain. The constants are
the pipeline depths of rtl/; host/perf.py and the network tests compare model and RTL. The host is
ideal: weights and image arrive one beat a cycle from cycle 0 on, and results are accepted at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from model.compiler.conv_plan import ConvPlan, ceil_div
from model.compiler.hardware import Hardware
from model.compiler.program import Compiled, pool_strides
from model.compiler.weights import replayed
from model.network.layer import Layer
from model.performance.pool_cycles import add_cycles, add_reads, pool_cycles, pool_reads

FIRST_WORD = 3  # first beat of the weights packet to its first word being in the buffer
FETCH = 18  # cycles to fetch a descriptor (16 words and the memory's latency)
SETTLE = 17  # cycles for results in flight after a unit has ended
FIRST_SETUP = 12  # start to the first pass being ready
SETUP = 12  # a pass taken to the next one being ready
SWITCH = 9  # pass started to its weights being switched, without window delay
READY_LEAD = 8  # weights count as ready so many cycles before the shadow registers are full
START_DELAY = {4: 4, 8: 0, 16: 0}
END_TO_DRAIN = 44  # last slot of a tile to its first drain read
DRAIN_GAP = 3  # last read of a tile to the first one of the next
DRAIN_TO_IDLE = 6  # last drain read to the conv unit being idle
FUSED_TURN = (
    1  # a fused sum's drain reads come an even number of cycles after this one of its layer
)
FUSED_SETTLE = 21  # more cycles for the results in flight of a fused sum
RAW_FIFO = 40  # steps of 32-bit results that may wait for the result stream
# cycles from a drain read to the fifo, or from a pool's question for room, beyond the window's
# reads
RAW_FLIGHT = 15
IMAGE_TO_FETCH = 3  # last image beat to the first layer's fetch
EMIT_LATENCY = 8  # emission of a tensor beyond its reads
# an average pool's window asks for room so many cycles before its share of the unit's cycles begins
POOL_LEAD = 8
RAW_TO_LAST = 4  # 32-bit results waiting: last beat out of the FIFO to the last result beat
RESULT_LATENCY = {"int8": 3, "int32": 4}  # end of the last layer to the last result beat

# last busy cycle of a layer, and its (reads, writes, weight words, ideal cycles)
_Run = tuple[int, tuple[int, int, int, int]]


@dataclass(frozen=True)
class LayerCycles:
    """Prediction for one layer; all zero for a sum that is fused into a convolution, which has what
    both cost. reads and writes: 32-bit words of the feature buffer; weight_words:
    64-bit words read from the weight buffer for it, replays included; ideal: cycles in which
    positions are computed; lost: all other cycles, by what they were spent on."""

    name: str
    cycles: int
    ideal: int
    macs: int
    reads: int
    writes: int
    weight_words: int
    lost: Mapping[str, int]

    def utilization(self, num_modules: int) -> float:
        """Multiply-accumulates, padding included, per PE and cycle; 0 without any."""
        return self.macs / (100 * num_modules * self.cycles) if self.macs else 0.0


@dataclass(frozen=True)
class ImageCycles:
    """Prediction for one image: total_cycles from the first beat in to the last result beat."""

    layers: tuple[LayerCycles, ...]
    total_cycles: int


class _Stream:
    """Arrival of the weight stream's words in the buffer: one a cycle while there is room."""

    def __init__(self, depth: int, first: int) -> None:
        self.depth = depth
        self.first = first
        self.arrived: list[int] = []  # cycle in which word i can be read
        self.freed: list[tuple[int, int]] = []  # (words freed in all, cycle)
        self.read = 0  # words read and not coming back

    def available(self, count: int, cycle: int) -> int:
        """First cycle, not before `cycle`, in which `count` words beyond those read have arrived"""
        while len(self.arrived) < self.read + count:
            index = len(self.arrived)
            at = self.arrived[-1] + 1 if self.arrived else self.first
            if index >= self.depth:
                at = max(at, self._free_cycle(index - self.depth) + 2)
            self.arrived.append(at)
        return max(cycle, self.arrived[self.read + count - 1])

    def take(self, count: int, cycle: int) -> None:
        """`count` words have been read and will not be read again."""
        self.read += count
        self.freed.append((self.read, cycle))

    def _free_cycle(self, index: int) -> int:
        for total, cycle in reversed(self.freed):
            if total <= index:
                break
            best = cycle
        return best


class _Loader:
    """The weight loader: when the shadow registers are ready for each pass, in stream order."""

    def __init__(self, hardware: Hardware, stream: _Stream) -> None:
        self.beats = hardware.pass_words
        self.delay = START_DELAY[hardware.num_modules]
        self.stream = stream
        self.clock = 0  # cycle in which it waits for the next word or pass
        self.layers_done: list[int] = []  # cycles in which layers with a chunk ended
        self.held = 0  # words read that will be replayed
        self.results: _RawResults | None = None  # 32-bit results of the last layer

    def chunk(self, n_params: int, number: int) -> int:
        """Header and parameters of chunk `number`; returns the first cycle of its layer."""
        header = self.stream.available(1, self.clock)
        self.stream.take(1, header + 2)
        at = header + 3  # first cycle that may read a parameter
        if number >= 2:
            at = max(at, self.layers_done[number - 2] + 1)
        unfreed = 0  # parameters are freed together: when the buffer has run empty, and at the end
        for _ in range(n_params):
            if unfreed == self.stream.depth or self.stream.available(unfreed + 1, at) > at:
                self.stream.take(unfreed, at)
                unfreed = 0
            at = self.stream.available(unfreed + 1, at) + 1
            unfreed += 1
        self.stream.take(unfreed, at)
        self.clock = at + 1  # first cycle of WAIT or HEADER
        return at + 2

    def load(self) -> int:
        """Begin loading a pass whose words are not replayed after it; returns the cycle of its
        first read."""
        start = self.stream.available(self.beats, self.clock) + 1
        self.stream.take(self.beats, start + self.beats + 1)
        return start


def predict(compiled: Compiled) -> ImageCycles:
    """Compiled network -> ImageCycles."""
    hardware = compiled.hardware
    stream = _Stream(hardware.weight_words, FIRST_WORD)
    loader = _Loader(hardware, stream)
    image = compiled.tensors["input"]
    beats = ceil_div(image.row_quads * image.shape[1], 2)
    straddling = image.shape[1] // 2 if image.row_quads % 2 else 0
    clock = beats - 1 + straddling + IMAGE_TO_FETCH
    layers, chunks = {}, 0
    for entry in compiled.entries:
        layer = entry.layer
        begin = clock + 1
        start = begin + FETCH + 1
        lost = Counter(descriptor=start - begin)
        params = ceil_div(layer.out_shape[0], hardware.num_modules) * hardware.num_modules
        has_params = layer.op != "maxpool"
        if has_params:
            ready = loader.chunk(params, chunks)
            lost["parameters"] = max(start, ready) + 1 - start
            start += lost["parameters"]
            chunks += 1
        run, traffic = UNITS[layer.op](compiled, layer, start, loader, lost)
        end = run + SETTLE + (FUSED_SETTLE if entry.add else 0)
        emits = entry.output in compiled.emitted
        if emits:
            end += _emit_cycles(compiled, entry.output)
        clock = end + 1
        if has_params:
            loader.layers_done.append(clock)
        reads, writes, words, ideal = traffic
        if emits and layer.out != "int32":
            reads += 2 * _emit_reads(compiled, entry.output)
        layers[layer.name] = LayerCycles(
            layer.name,
            clock - begin + 1,
            ideal,
            _macs(layer),
            reads,
            writes,
            words + (params + 1 if has_params else 0),
            {**lost, "drain": clock - begin + 1 - ideal - lost.total()},
        )
        if entry.add:
            layers[entry.add.name] = LayerCycles(entry.add.name, 0, 0, 0, 0, 0, 0, {})
    backlog = loader.results.last + RAW_TO_LAST if loader.results else 0
    return ImageCycles(
        tuple(layers[layer.name] for layer in compiled.net.layers),
        max(clock + RESULT_LATENCY[compiled.net.layers[-1].out], backlog),
    )


def _macs(layer: Layer) -> int:
    return layer.index.size * layer.out_shape[1] * layer.out_shape[2] if layer.op == "conv" else 0


def _emit_reads(compiled: Compiled, layer: Layer) -> int:
    tensor = compiled.tensors[layer.name]
    return layer.out_shape[1] * ceil_div(tensor.row_quads, 2)


def _emit_cycles(compiled: Compiled, layer: Layer) -> int:
    if layer.out == "int32":
        return 1
    return _emit_reads(compiled, layer) + EMIT_LATENCY


def _pool(
    compiled: Compiled, layer: Layer, start: int, loader: _Loader, _lost: Counter[str]
) -> _Run:
    """Last busy cycle of a pooling layer, and its traffic."""
    hardware = compiled.hardware
    quads = compiled.tensors[layer.inputs[0]].quads
    arguments = (
        layer.op,
        layer.in_shape,
        layer.kernel,
        pool_strides(layer),
        layer.pad,
        hardware.num_modules,
    )
    reads = pool_reads(*arguments)
    words = 8 if layer.op == "maxpool" else hardware.num_modules // 4
    if layer.out == "int32":
        return _raw_pool(hardware, layer, quads, start + pool_cycles(*arguments) - reads, loader), (
            reads * words,
            0,
            0,
            reads,
        )
    writes = layer.out_shape[1] * layer.out_shape[2] * quads
    return start + pool_cycles(*arguments), (reads * words, writes, 0, reads)


def _add(
    compiled: Compiled, layer: Layer, start: int, _loader: _Loader, _lost: Counter[str]
) -> _Run:
    """Last busy cycle of a sum of two tensors, and its traffic."""
    modules = compiled.hardware.num_modules
    reads = add_reads(layer.out_shape, modules)
    writes = layer.out_shape[1] * layer.out_shape[2] * ceil_div(layer.out_shape[0], 4)
    end = start + add_cycles(layer.out_shape, modules)
    return end, (reads * (modules // 4), writes, 0, reads)


def _raw_pool(hardware: Hardware, layer: Layer, quads: int, begin: int, loader: _Loader) -> int:
    """Last busy cycle of an average pool with 32-bit results, whose windows wait for room in the
    result FIFO."""
    raw = loader.results = _RawResults(hardware.num_modules)
    spans = [
        [min(size, at * stride - pad + kernel) - max(0, at * stride - pad) for at in range(count)]
        for size, count, stride, pad, kernel in zip(
            layer.in_shape[1:], layer.out_shape[1:], layer.stride, layer.pad, layer.kernel
        )
    ]
    at = begin
    for rows in spans[0]:
        for cols in spans[1]:
            for _ in range(ceil_div(4 * quads, hardware.num_modules)):
                at = raw.enter(at, rows * cols)
    return at


def _conv(
    compiled: Compiled, layer: Layer, start: int, loader: _Loader, lost: Counter[str]
) -> _Run:
    """Last busy cycle of a conv layer that starts in cycle `start`, and its traffic. Adds to `lost`
    the cycles between its passes."""
    hardware, plan = compiled.hardware, compiled.plans[layer.name]
    replay = replayed(plan, hardware)
    words_out = ceil_div(layer.out_shape[0], hardware.num_modules)
    pace = 2 if plan.fused else 1  # cycles of a drain step
    raw = loader.results = _RawResults(hardware.num_modules) if layer.out == "int32" else None
    ready_at = start + FIRST_SETUP  # the next pass is set up
    free_at = start  # the last slot was issued; the next pass may start
    delay = 0
    freed = deque([0, 0], maxlen=2)  # cycles in which the last two tiles gave their buffers back
    early = plan.frees_early and raw is None
    drain_end = 0
    tiles = [(plan.tile_size(*origin), plan.tile_passes(*origin)) for origin in plan.tile_origins()]
    words = 0
    for group in range(plan.output_groups):
        steps = min(plan.steps, words_out - group * plan.steps)
        for number, ((rows, cols), passes) in enumerate(tiles):
            first, before = True, None
            for _ in range(plan.channel_groups):
                for geometry in passes:
                    mode = (
                        "last"
                        if not replay or number + 1 == len(tiles)
                        else ("first" if number == 0 else "replay")
                    )
                    load = _replay_load(loader, hardware, plan, mode)
                    words += hardware.pass_words
                    buffer, first = freed[0] + 2 if first else 0, False
                    if geometry.rows == 0:
                        at = max(ready_at, buffer, free_at + 1, load + hardware.pass_words + 2)
                        loader.clock = at + 1
                        last = at
                    else:
                        at = free_at
                        behind = free_at + max(0, delay - geometry.delay)
                        wait = geometry.wait(before) if before else 0
                        for reason, until in (
                            ("set-up", ready_at),
                            ("partial sums", buffer),
                            ("weights", load + hardware.pass_words - READY_LEAD),
                            ("window", behind),
                            ("sums in flight", behind + wait),
                        ):
                            lost[reason] += max(0, until - at)
                            at = max(at, until)
                        before, delay = geometry, geometry.delay
                        free_at = last = at + geometry.rows * geometry.length
                        switch = max(at + SWITCH + delay, load + hardware.pass_words + 1)
                        loader.clock = switch + 2 + loader.delay
                        last_switch = switch
                    ready_at = at + SETUP
            begin = max(last + END_TO_DRAIN, drain_end + DRAIN_GAP)
            begin += (begin - start - FUSED_TURN) % pace
            count = rows * cols * steps
            drain_end = raw.drain(begin, count) if raw else begin + pace * (count - 1)
            freed.append(begin - 1 if early else drain_end)
    # After the chunk's last pass the loader goes straight to the next header.
    loader.clock = last_switch + 1 if geometry.rows else loader.clock
    pixels = plan.out_shape[1] * plan.out_shape[2]
    writes = 0 if raw else pixels * ceil_div(layer.out_shape[0], 4)
    others = pixels * words_out * (hardware.num_modules // 4) if plan.fused else 0
    return drain_end + DRAIN_TO_IDLE, (plan.slots * plan.quads + others, writes, words, plan.slots)


def _replay_load(loader: _Loader, hardware: Hardware, plan: ConvPlan, mode: str) -> int:
    if mode == "first":  # words that stay for other tiles: count them as read without freeing them
        start = loader.stream.available(loader.held + hardware.pass_words, loader.clock) + 1
        loader.held += hardware.pass_words
        return start
    if mode == "replay":
        return loader.clock + 1
    loader.held = 0
    return loader.load()


UNITS = {"conv": _conv, "maxpool": _pool, "avgpool": _pool, "add": _add}


class _RawResults:
    """Drain of 32-bit results: the result stream takes two a cycle, and a step is read only while
    the FIFO before it has room."""

    def __init__(self, num_modules: int) -> None:
        self.beats = num_modules // 2
        self.entering: deque[int] = deque()  # cycles from which steps count in the FIFO's level
        self.leaving: deque[int] = deque()  # cycles from which they do not any more
        self.level = 0
        self.last = 0  # cycle in which the last step's last beat left

    def drain(self, begin: int, steps: int) -> int:
        """Cycle of the last read of `steps` steps from cycle `begin` on."""
        at = begin - 1
        for _ in range(steps):
            at += 1
            while not self._room(at):
                at += 1
            self._take(at + RAW_FLIGHT)
        return at

    def enter(self, at: int, reads: int) -> int:
        """A window of `reads` cycles from cycle `at` on, when there is room; returns its end."""
        asked = at - POOL_LEAD
        while not self._room(asked):
            asked += 1
        self._take(asked + reads + RAW_FLIGHT + 4)
        return asked + POOL_LEAD + reads

    def _take(self, enters: int) -> None:
        """A step that enters the FIFO in cycle `enters`."""
        self.last = max(enters, self.last + 1) + self.beats - 1
        self.entering.append(enters)
        self.leaving.append(self.last + 1)

    def _room(self, cycle: int) -> bool:
        while self.entering and self.entering[0] <= cycle:
            self.entering.popleft()
            self.level += 1
        while self.leaving and self.leaving[0] <= cycle:
            self.leaving.popleft()
            self.level -= 1
        return self.level < RAW_FIFO
