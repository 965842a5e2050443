"""A larger network to learn from; it stays in full precision and never runs on the hardware.

Eight 3x3 convolutions with skip connections where the widths agree and a 1x1 convolution to the
classes: five million weights, about as many multiplications an image as the NIN.
"""

from torch import Tensor, nn

from train.nets.resnet import normalized

CHANNELS = (3, 32, 96, 96, 256, 256, 384, 384, 512)
POOLED = (1, 3, 5)  # stages that a pooling follows, from 0 on


class Teacher(nn.Module):
    """forward: float32 [N, 3, H, W], H and W multiples of eight -> logits [N, classes].

    width: the share of the channels that it has, for tests.
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.stages, self.pool = nn.ModuleList(), nn.MaxPool2d(2)
        last = 3
        for outputs in (round(width * count) for count in CHANNELS[1:]):
            self.stages.append(nn.Sequential(*normalized(last, outputs, 3), nn.ReLU()))
            last = outputs
        self.classify, self.gap = normalized(last, classes, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        for number, stage in enumerate(self.stages):
            same = CHANNELS[number] == CHANNELS[number + 1]
            x = stage(x) + x if same else stage(x)
            x = self.pool(x) if number in POOLED else x
        return self.gap(self.classify(x)).flatten(1)
