"""Compiler: a Network becomes the program, weight and image streams of the accelerator (formats: docs/architecture.md)."""
from model.compiler.program import CompileError, Compiled, compile_network

__all__ = ["CompileError", "Compiled", "compile_network"]
