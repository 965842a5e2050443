"""The configuration of the accelerator that compiler and cycle model reckon with (parameters of rtl/clipq_accel.sv)."""
from dataclasses import dataclass

from model.common.errors import UserError

ARRAYS, PES = 4, 25               # arrays per conv module, PEs per array
TILE_PIXELS = 256                 # output pixels of a partial-sum tile
MODULE_COUNTS = (4, 8, 16)
MAX_LAYERS = 64
MAX_CHANNELS = 512
QUAD_ADDR_BITS = 17
DESC_WORDS = 16


class CompileError(UserError, ValueError):
    """A network that is legal but that the accelerator cannot run; the message names the layer, the field and why."""


@dataclass(frozen=True)
class Hardware:
    """Parameters of one build of the accelerator."""
    num_modules: int = 4
    bank_words: int = 11264       # feature buffer: 8 banks of so many 32-bit words
    weight_words: int = 4096      # weight buffer: 64-bit words

    def __post_init__(self):
        if self.num_modules not in MODULE_COUNTS:
            raise CompileError(f"MODULES must be one of {MODULE_COUNTS}, got {self.num_modules}")

    @property
    def quads(self):
        """Capacity of the feature buffer in quads (four 8-bit channels)."""
        return 8 * self.bank_words

    @property
    def pass_words(self):
        """64-bit words of weight indices that a pass takes."""
        return -(-self.num_modules * ARRAYS * PES * 2 // 64)
