"""The golden side: integer and PyTorch models, golden functions of single blocks."""
