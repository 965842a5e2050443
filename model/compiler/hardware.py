"""The configuration of the accelerator for the compiler and the cycle model (parameters of
rtl/clipq_accel.sv)."""

from __future__ import annotations

from dataclasses import dataclass

from model.compiler.errors import CompileError
from model.compiler.program_format import ARRAYS, PES, QUAD_ADDR_W

MODULE_COUNTS = (4, 8, 16)
PLANE_COUNTS = (2, 3)
MOST_BANK_WORDS = 1 << (QUAD_ADDR_W - 3)


@dataclass(frozen=True)
class Hardware:
    """Parameters of one build of the accelerator."""

    num_modules: int = 4
    bank_words: int = 11264  # feature buffer: 8 banks of so many 32-bit words
    weight_words: int = 2048  # weight buffer: 64-bit words, a power of two
    planes: int = 3  # index planes; 2 compute codebooks with w3 = w1 + w2 only

    def __post_init__(self) -> None:
        if self.num_modules not in MODULE_COUNTS:
            raise CompileError(f"MODULES must be one of {MODULE_COUNTS}, got {self.num_modules}")
        if self.planes not in PLANE_COUNTS:
            raise CompileError(f"PLANES must be one of {PLANE_COUNTS}, got {self.planes}")
        if not 2 <= self.bank_words <= MOST_BANK_WORDS:
            raise CompileError(
                f"BANK_WORDS must be from 2 to {MOST_BANK_WORDS}, got {self.bank_words}"
            )
        if self.weight_words & (self.weight_words - 1):
            raise CompileError(f"WEIGHT_WORDS must be a power of two, got {self.weight_words}")
        if self.weight_words < self.pass_words:
            raise CompileError(
                f"WEIGHT_WORDS must be at least {self.pass_words}, the words of a pass with "
                f"{self.num_modules} modules, got {self.weight_words}"
            )

    @property
    def quads(self) -> int:
        """Capacity of the feature buffer in quads (four 8-bit channels)."""
        return 8 * self.bank_words

    @property
    def pass_words(self) -> int:
        """64-bit words of weight indices that a pass takes."""
        return -(-self.num_modules * ARRAYS * PES * 2 // 64)
