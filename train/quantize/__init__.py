"""Quantizers of weights, and the start of a quantized network."""
