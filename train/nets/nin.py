"""The nine-convolution Network-in-Network of M. Lin, Q. Chen, S. Yan, ICLR 2014, for CIFAR."""

from torch import Tensor, nn

# input channels, output channels (None: classes), kernel, pool after it
LAYERS = (
    (3, 192, 5, False),
    (192, 160, 1, False),
    (160, 96, 1, True),
    (96, 192, 5, False),
    (192, 192, 1, False),
    (192, 192, 1, True),
    (192, 192, 3, False),
    (192, 192, 1, False),
    (192, None, 1, False),
)


class NIN(nn.Module):
    """forward: float32 [N, 3, H, W], H and W multiples of four -> logits [N, classes].

    width: the share of the channels that it has, for tests.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        pools, inputs = 0, 3
        for number, (_, outputs, kernel, pool) in enumerate(LAYERS, 1):
            outputs = max(1, round(width * outputs)) if outputs else classes
            conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            if number < len(LAYERS):
                self.add_module(f"relu{number}", nn.ReLU())
            if pool:
                pools += 1
                self.add_module(f"pool{pools}", nn.MaxPool2d(2))
            inputs = outputs
        self.gap = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x.flatten(1)
