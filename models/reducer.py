"""The upstream MLPs (paper, section 4.3): embeddings to fields of D, each MLP's last hidden layer.

One reducer a field. Projections of two networks never mix: hidden layers of separately drawn networks share no axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.dlrm import DLRM, Inputs, Shape, check_shapes
from models.stacked import Linear, hidden_layers, size


class Reducer(nn.Module):
    """What `field` is made of, encoded (M, B, W) -> its projection (M, B, D), D being the last of `widths`."""

    def __init__(self, field: str, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.field = field
        self.shapes = {field: Shape(inputs)}
        self.layers = hidden_layers(inputs, widths, dropout)

    def forward(self, encoded: Tensor) -> Tensor:
        check_shapes({self.field: encoded}, self.shapes, size(self))
        return self.layers(encoded)

    @torch.no_grad()
    def project(self, encoded: Tensor) -> Tensor:
        """Encoded rows (N, W) to projections (M, N, D) as everyone sees them who did not train them: no dropout.

        (N, D) where all members are equal: so many rows need be kept but once.
        """
        self.eval()
        equal = all(bool((parameter == parameter[:1]).all()) for parameter in self.parameters())
        made = self(encoded.unsqueeze(0))
        return made[0].clone() if equal else made


class UpstreamClassifier(nn.Module):
    """A reducer under a head of its own, which only its training needs: logits (M, B)."""

    def __init__(self, reducer: Reducer, width: int) -> None:
        super().__init__()
        self.reducer = reducer
        self.head = Linear(width, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head(self.reducer(inputs[self.reducer.field])).squeeze(2)


class Recommender(nn.Module):
    """The reducers and the DLRM as one network: `dense`, lists and encoded fields (M, B, W) to logits (M, B)."""

    def __init__(self, reducers: Sequence[Reducer], dlrm: DLRM) -> None:
        super().__init__()
        self.reducers = nn.ModuleDict({reducer.field: reducer for reducer in reducers})
        self.dlrm = dlrm

    def forward(self, inputs: Inputs) -> Tensor:
        return self.dlrm({**inputs, **{name: reducer(inputs[name]) for name, reducer in self.reducers.items()}})

    def project(self, inputs: Inputs) -> dict[str, Tensor]:
        """The DLRM's inputs: encoded fields (N, W) as projections, everything else as it is."""
        return {**inputs, **{name: self.reducer(name).project(inputs[name]) for name in self.reducers}}

    def reducer(self, field: str) -> Reducer:
        found = self.reducers[field]
        assert isinstance(found, Reducer)
        return found
