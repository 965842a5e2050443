"""The nine-convolution Network-in-Network of M. Lin, Q. Chen, S. Yan, ICLR 2014, for CIFAR."""

from torch import nn

CHANNELS = (192, 160, 96, 192, 192, 192, 192, 192)  # the classes come last
KERNELS = (5, 1, 1, 5, 1, 1, 3, 1, 1)
POOLED = (3, 6)  # convolutions that a pooling follows


class NIN(nn.Sequential):
    """forward: float32 [N, 3, H, W], H and W multiples of four -> logits [N, classes].

    width: the share of the channels that it has, for tests.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        channels, inputs = [*(max(1, round(width * count)) for count in CHANNELS), classes], 3
        for number, (outputs, kernel) in enumerate(zip(channels, KERNELS), 1):
            conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            if number < len(KERNELS):
                self.add_module(f"relu{number}", nn.ReLU())
            if number in POOLED:
                self.add_module(f"pool{POOLED.index(number) + 1}", nn.MaxPool2d(2))
            inputs = outputs
        self.gap, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
