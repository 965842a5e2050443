"""A larger network to learn from; it stays in full precision and never runs on the hardware.

Eight 3x3 convolutions with skip connections where the widths agree and a 1x1 convolution to the
classes: five million weights, about as many multiplications an image as the NIN.
"""

from torch import Tensor, nn

# input channels, output channels, pool after it
LAYERS = (
    (3, 32, False),
    (32, 96, True),
    (96, 96, False),
    (96, 256, True),
    (256, 256, False),
    (256, 384, True),
    (384, 384, False),
    (384, 512, False),
)


class Teacher(nn.Module):
    """forward: float32 [N, 3, H, W], H and W multiples of eight -> logits [N, classes].

    width: the share of the channels that it has, for tests.
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.stages, self.pool = nn.ModuleList(), nn.MaxPool2d(2)
        last = 3
        for _, outputs, _ in LAYERS:
            outputs = round(width * outputs)
            conv = nn.Conv2d(last, outputs, 3, padding=1, bias=False)
            self.stages.append(nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
            last = outputs
        self.classify = nn.Sequential(nn.Conv2d(last, classes, 1, bias=False))
        self.classify.append(nn.BatchNorm2d(classes))
        self.gap = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        for stage, (inputs, outputs, pool) in zip(self.stages, LAYERS):
            x = stage(x) + x if inputs == outputs else stage(x)
            x = self.pool(x) if pool else x
        return self.gap(self.classify(x)).flatten(1)
