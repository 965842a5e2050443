"""All functional coverage points: {group: its points}. ci/testplan.yaml says what each group is for
and why a cross is useful.

Registers, error codes and remainders come from the register map and the compiler's grouping, so
they follow changes of the design.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from host.register_map import FIELDS, ErrorCode, Register
from model.compiler.conv_plan import CHANNEL_QUADS, WINDOW
from model.compiler.hardware import MODULE_COUNTS
from model.compiler.program_format import CHUNK, DESCRIPTOR, HEADER, PACKET, PARAMETER, TRAILER
from tb.lib.stalls import PATTERNS

SIGNS = ("signed", "unsigned")
EDGES = ("low", "high", "both")
AMOUNTS = ("1", "2", "more")
PADS = ("0", "1", "most")
POOLS = ("maxpool", "avgpool")
KINDS = (
    "conv 1 wide",
    "conv 3 wide",
    "conv 5 wide",
    *POOLS,
    "add",
)  # what the compute path is configured for; conv: its window
STREAM_PORTS = ("program", "weights", "image", "result")
AXIL_CHANNELS = ("aw", "w", "b", "ar", "r")
PACKET_ERRORS = (
    "PACKET_MAGIC",
    "PACKET_TRUNCATED",
    "PACKET_OVERLONG",
    "PACKET_CRC",
    "PACKET_TKEEP",
)

# The average of unsigned values is not negative: it never reaches the lower edge of a signed range.
IMPOSSIBLE = ("avgpool unsigned to signed low", "avgpool unsigned to signed both")

# Main controller: every change of state that its case statement allows, besides errors and resets.
STATES = (
    "IDLE",
    "HEADER",
    "CHECK_HEADER",
    "IMAGE",
    "FETCH",
    "CHECK",
    "WAIT_PARAMS",
    "START",
    "RUN",
    "DRAIN",
    "EMIT",
    "LAYER_END",
    "FINISH",
    "ERROR",
    "STOPPING",
)  # in the order of their codes
_STEPS = {
    "IDLE": ("HEADER",),
    "HEADER": ("CHECK_HEADER",),
    "CHECK_HEADER": ("IMAGE",),
    "IMAGE": ("FETCH", "STOPPING"),
    "STOPPING": ("IMAGE", "IDLE"),
    "FETCH": ("CHECK",),
    "CHECK": ("WAIT_PARAMS", "START"),
    "WAIT_PARAMS": ("START",),
    "START": ("RUN",),
    "RUN": ("DRAIN",),
    "DRAIN": ("EMIT", "LAYER_END"),
    "EMIT": ("LAYER_END",),
    "LAYER_END": ("FETCH", "FINISH"),
    "FINISH": ("IDLE", "IMAGE"),
    "ERROR": (),
}

# Alignment sweeps (tb/lib/meeting.py): two events that change one counter, flag or handshake, each
# pair with what they change. The bits and counters with two writers that are not here change under
# every cycle of a random test against a model of their exact value (sync_fifo, skid_buffer and
# weight_buffer: in and out; pass_walker and tag_delay: the next pass and the end of this one) or
# belong to events that cannot meet: the stream is held between a packet's last beat and the end of
# its use, and START is an error while a run is active.
MEETINGS = {
    "tile taken and freed": "tiles_q of conv_unit",
    "tile finished and drained": "tiles_q of drain_sequencer",
    "parameters and layer end": "pending_q of weight_loader",
    "pass taken and complete": "state_q and taken_q of weight_loader",
    "clear and verdict": "prog_valid_q, err_code_q and the pulses of stream_parser",
    "clear and header": "packet_start_q, prog_valid_q and state_q of stream_parser",
    "run and program": "PROGRAM_BUSY or a new program in stream_parser",
    "clear and image end": "state_q, open_q and the pulses of image_loader",
    "clear and image error": "state_q, err_code_q and the pulses of image_loader",
    "event and clearing write": "each bit of IRQ_STATUS",
    "weight word and layer end": "weights_q of perf_counters",
    "START and image end": "images_q of perf_counters",
    "STOP and image end": "stop_q of main_controller",
    "STOP and first beat": "stop_q and image_started_q of main_controller",
    "two errors": "code_q of main_controller",
    "start and verdict": "cycle_q of descriptor_check",
    "flush and receiver": "held_q and flush_q of result_packer",
    "clear and beat in": "level_q of the FIFO in result_writer",
    "packet end and error": "gate_q of clipq_accel",
    "soft reset and program": "prog_valid_q of stream_parser, on the whole accelerator",
    "soft reset and packet": "TREADY of both input streams, on the whole accelerator",
    "soft reset and interrupt": "IRQ_STATUS and STATUS, on the whole accelerator",
}

COUNTERS = ("cycles", "stalls", "reads", "writes", "weights", "total cycles", "images")

RECORDS = {
    "packet": PACKET,
    "trailer": TRAILER,
    "header": HEADER,
    "descriptor": DESCRIPTOR,
    "chunk": CHUNK,
    "parameter": PARAMETER,
}
# Bits that are 0 in every program which the accelerator computes: the largest number, and why.
UNSET = {
    "chunk.n_params": (0, 1, 10, 11),  # a multiple of the modules, at most 512
    "chunk.n_tiles": range(9, 16),  # of at least 129 pixels in and out: at most 350 fit
    "chunk.n_passes": range(10, 16),  # 512 channels and 11 x 11 taps: 858
    "chunk.n_groups": range(9, 20),  # 128 groups, or the stream repeats them for each tile
    "descriptor.window_addr": (0, *range(10, 17)),  # 2 or 4 pixels of 128 quads: 512, even
    "descriptor.piece_addr_step": range(10, 17),  # 5 pixels of 128 quads: 640
    "descriptor.channel_groups": range(5, 8),  # 128 quads, five a group: 26
    "descriptor.out_tile_col_step": (16,),  # 256 columns of 128 quads: 32,768
    "descriptor.vstep": (13,),  # two rows 65,537 quads apart: more than the default buffer
}


def field_bits() -> tuple[str, ...]:
    """Both values of every bit of every field of model/compiler/program_format.yaml, as far as a
    program has them."""
    return tuple(
        f"{record}.{name}[{bit}] {value}"
        for record, layout in RECORDS.items()
        for name, field in layout.fields.items()
        for bit in range(field.width)
        for value in ((0,) if bit in UNSET.get(f"{record}.{name}", ()) else (0, 1))
    )


def cross(*parts: Iterable[object]) -> tuple[str, ...]:
    """All combinations of the words, joined by spaces."""
    return tuple(" ".join(map(str, words)) for words in product(*parts))


def transitions() -> tuple[str, ...]:
    """Legal steps, the way into ERROR from every other state, and a reset in every state."""
    steps = [f"{a} -> {b}" for a, targets in _STEPS.items() for b in targets]
    errors = [f"{a} -> ERROR" for a in STATES if a != "ERROR"]
    return (*steps, *errors, *(f"reset in {state}" for state in STATES))


def remainders(modules: int | None = None) -> tuple[str, ...]:
    """Every remainder of the channels by the size of a group, per window: input channels, or with
    `modules` output channels."""
    points = []
    for mode, window in enumerate(WINDOW):
        size = 4 * CHANNEL_QUADS[mode] if modules is None else modules * (3 if mode == 0 else 1)
        prefix = "" if modules is None else f"modules {modules} "
        points += [f"{prefix}window {window} rest {rest}" for rest in range(size)]
    return tuple(points)


def register_bits() -> tuple[str, ...]:
    """Each bit of each register read and written with both values, as far as its access allows;
    constants have one value only."""
    points = []
    for register, fields in FIELDS.items():
        for high, low, access, reset in fields.values():
            for bit in range(low, high + 1):
                name = f"{register.name}[{bit}]"
                values: tuple[int, ...] = (0, 1)
                if access == "r" and reset is not None:  # a constant
                    values = (reset >> (bit - low) & 1,)
                if access in ("r", "rw", "w1c"):
                    points += [f"{name} read {v}" for v in values]
                if access != "r":
                    points += [f"{name} written {v}" for v in values]
    return tuple(points)


def _register_access() -> tuple[str, ...]:
    readable = [
        r.name
        for r in Register
        if any(access not in ("w", "w1p") for _, _, access, _ in FIELDS[r].values())
    ]
    others = ("read-only written", "write-only read", "unmapped read", "unmapped written")
    return cross([*(f"{name} read" for name in readable), *others], ("idle", "running"))


WINDOWS = tuple(f"window {w}" for w in WINDOW)

GROUPS: dict[str, frozenset[str]] = {
    name: frozenset(points)
    for name, points in {
        "layer_op": cross(("conv", *POOLS, "add", "conv int32", "avgpool int32"), SIGNS),
        "layer_mapping": cross(
            (*KINDS[:3], "conv in pieces", "conv vertical taps", "conv several tiles"), SIGNS
        ),
        "layer_after": (*cross(KINDS, ("after",), KINDS), *cross(KINDS, ("first",))),
        "layer_channels": cross(("conv", *POOLS, "add"), ("rest",), range(4)),
        "add_signs": cross(SIGNS, ("plus",), SIGNS, ("to",), SIGNS),
        "add_inputs": ("one tensor twice", "two tensors"),
        "add_mult": cross(("first", "second"), ("1", "32767", "between")),
        "fused_signs": cross(SIGNS, ("plus",), SIGNS, ("to",), SIGNS),
        "fused_mult": cross(("own", "other"), ("1", "32767", "between")),
        "fused_mapping": cross(WINDOWS, ("one tile", "more tiles")),
        "fused_clamp": cross(SIGNS, EDGES),
        "conv_kernel": cross(("width", "height"), range(1, 12)),
        "conv_input_remainder": remainders(),
        "conv_output_remainder": tuple(p for modules in MODULE_COUNTS for p in remainders(modules)),
        "conv_groups": cross(WINDOWS, ("input", "output"), AMOUNTS),
        "conv_pieces": cross(WINDOWS, AMOUNTS),
        "conv_vertical": cross(WINDOWS, ("one step", "more steps")),
        "conv_pair": (
            *cross(("window 1", "window 3"), ("one step", "more steps")),
            *cross((2, 3, 4), ("quads",), SIGNS),
        ),
        "conv_tiles": cross(WINDOWS, AMOUNTS),
        "conv_tile_border": cross(WINDOWS, ("row", "column"), ("last whole", "last smaller")),
        "conv_pad": (
            *cross(WINDOWS, ("columns",), PADS),
            *cross(("vertical", "channels"), ("rows",), PADS),
        ),
        "conv_stride": cross(("1x1", "1x2", "2x1", "2x2"), ("vertical", "channels")),
        "conv_stride_edge": cross(
            ("rows", "columns"), ("even pad", "odd pad"), ("all seen", "last unseen")
        ),
        "conv_codebook": (
            "lowest",
            "highest",
            "repeated",
            "all zero",
            "largest difference",
            "smallest difference",
        ),
        "clamp": tuple(
            p
            for p in cross(("conv", "avgpool", "add"), SIGNS, ("to",), SIGNS, EDGES)
            if p not in IMPOSSIBLE
        ),
        "requantize": (
            *cross(("shift",), range(32)),
            "mult 1",
            "mult 32767",
            "mult between",
            "paper mode",
        ),
        "accumulator": cross(("positive", "negative"), ("beyond 2^24", "beyond 2^30")),
        "pool_window": cross(POOLS, ("rows", "columns"), ("1", "2", "3", "more")),
        "pool_stride": cross(POOLS, ("rows", "columns"), ("overlap", "adjacent", "gap")),
        "pool_pad": cross(POOLS, ("rows", "columns"), PADS),
        "image": (
            "one pixel",
            "one row",
            "one column",
            "wider than a tile",
            *cross(("image", "result"), ("odd", "even"), ("quads",)),
        ),
        "run": (
            *cross(AMOUNTS, ("images",)),
            "other program",
            "debug program",
            "plain program",
            "after a soft reset in a run",
            "after a stopped stream",
            "after a blocked result stream",
            "stop between images",
            "stop in an image",
            "stop with an image's end",
        ),
        "stall": (*cross(STREAM_PORTS, PATTERNS), *cross(("weights", "image"), ("held",))),
        "stall_cross": cross(("weights",), PATTERNS, ("result",), PATTERNS),
        "axil_stall": cross(AXIL_CHANNELS, PATTERNS),
        "error": tuple(code.name for code in ErrorCode if code != ErrorCode.NONE),
        "packet_error": cross(PACKET_ERRORS, ("program", "weights")),
        "register_bit": register_bits(),
        "register_access": _register_access(),
        "controller_transition": transitions(),
        "keep_place": (
            *cross(("program", "weights"), ("header", "payload", "trailer")),
            *cross(("image",), ("first", "middle", "last")),
        ),
        "error_pair": ("one beat", "one stream", "two streams", "packets behind"),
        "field_bit": field_bits(),
        "counted_stalls": ("none", "weights late", "results held up", "both"),
        "counter_range": cross(COUNTERS, ("beyond 2^16",)),
        "meeting": cross(MEETINGS, ("before", "with", "after")),
        "stop_moment": ("before the end", "with the end", "after the end", "idle"),
    }.items()
}
