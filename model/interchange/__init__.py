"""Networks to and from ONNX, and whether one runs on the accelerator.

`onnx` is imported only by what reads or writes ONNX files.
"""
