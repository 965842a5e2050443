"""Bit-exact models of codebook-quantized networks: the file format, the integer reference, the
PyTorch evaluation and the data they run on."""
