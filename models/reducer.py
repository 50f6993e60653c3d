"""The upstream MLP (paper, section 4.3): text embeddings to one field of D, the last hidden layer.

Projections of two networks never mix: hidden layers of separately drawn networks share no axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.dlrm import DLRM, Inputs, check_shapes, hidden_layers, linear


class Reducer(nn.Module):
    """Encoded text (B, W) -> projection (B, D), D being the last of `widths`."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.shapes = {"text": inputs}
        self.layers = hidden_layers(inputs, widths, dropout)

    def forward(self, text: Tensor) -> Tensor:
        check_shapes({"text": text}, self.shapes)
        return self.layers(text)

    @torch.no_grad()
    def project(self, text: Tensor) -> Tensor:
        """The projection as everyone sees it who did not train it: no dropout, no gradient."""
        self.eval()
        return self(text)


class UpstreamClassifier(nn.Module):
    """The reducer under a head of its own, which only its training needs: logits (B,)."""

    def __init__(self, reducer: Reducer, width: int) -> None:
        super().__init__()
        self.reducer = reducer
        self.head = linear(width, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head(self.reducer(inputs["text"])).squeeze(1)


class Recommender(nn.Module):
    """The reducer and the DLRM as one network: `dense` (B, K) and encoded `text` (B, W) to logits (B,)."""

    def __init__(self, reducer: Reducer, dlrm: DLRM) -> None:
        super().__init__()
        self.reducer = reducer
        self.dlrm = dlrm

    def forward(self, inputs: Inputs) -> Tensor:
        return self.dlrm({**inputs, "text": self.reducer(inputs["text"])})
