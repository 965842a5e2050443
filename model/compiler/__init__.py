"""Compiler: a Network becomes the program, weight and image streams of the accelerator (formats:
docs/program-format.md)."""

from model.compiler.program import Compiled, CompileError, compile_network

__all__ = ["CompileError", "Compiled", "compile_network"]
