"""What the networks are built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity; the block is the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        set_to_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, y, x) to the same shape."""
        return x + self.second(F.silu(self.first(x)))


def set_to_zero(layer: nn.Module) -> None:
    """Make a layer return zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def build_seeded(make: Callable[[], Network], seed: int) -> Network:
    """Return a network with weights drawn from ``seed``; the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return network
