"""Train two towers on one contrastive batch of 2,048 pairs, 64 at a time, with the gradients of the whole batch."""

import torch
from torch import nn
from torch.nn import functional

from cellingua.engine import InfoNCE, divide_conquer, gradcheck


class Tower(nn.Module):
    """Any module that makes one vector of each item."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, 64))

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.layers(items), dim=-1)


torch.manual_seed(0)
images, captions = Tower(32), Tower(16)
optimiser = torch.optim.AdamW([*images.parameters(), *captions.parameters()], lr=3e-3)
hidden = torch.randn(2_048, 8)
pairs = [hidden @ torch.randn(8, 32), hidden @ torch.randn(8, 16)]

gradcheck([images, captions], [part[:32] for part in pairs], InfoNCE(), chunk=5)  # raises where it is not exact
for step in range(8):
    optimiser.zero_grad()
    result = divide_conquer([images, captions], pairs, InfoNCE(), chunk=64, budget=2**20, seed=step)
    optimiser.step()
    print(f"step {step}: loss {result.loss:.3f}, {result.kept} of {result.chunks} chunks encoded once")
