"""Embeddings of categories: columns whose numbers say which one a row has, as learned vectors."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape

__all__ = ["Categories", "beside", "with_unknown_categories"]

_UNKNOWN = 0
_SPREAD = 0.1
"""Standard deviation of first values: categories are little apart before they are learned."""


class Categories(nn.Module):
    """An embedding of each column of categories, the same one in the window and in rows to come.

    Entity embeddings of Guo and Berkhahn (2016), "Entity Embeddings of Categorical Variables". A
    vector has `embedding_size` numbers, and no more than the column has categories, the unknown
    one among them.
    """

    def __init__(self, shape: Shape, size: int) -> None:
        super().__init__()
        self.ahead = shape.ahead
        self.columns = [column for column, _ in shape.categories]
        self.known = [at for at, c in enumerate(self.columns) if c in shape.known_columns]
        """Which of these columns are known in the rows to come."""
        widths = [min(size, n) for _, n in shape.categories]
        self.vectors = nn.ParameterList(
            nn.Parameter(_SPREAD * torch.randn(n, width))
            for (_, n), width in zip(shape.categories, widths, strict=True)
        )
        """Of each column those of its categories, (categories, width), the unknown one first."""
        self.width, self.known_width = sum(widths), sum(widths[at] for at in self.known)

    def embedded_shape(self, shape: Shape) -> Shape:
        """Return the shape of what is read where embeddings stand beside the numbers."""
        begin = shape.features
        known = (*shape.known_columns, *range(begin, begin + self.known_width))
        return dataclasses.replace(shape, known_columns=known, categories=())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map what is read, (batch, steps, inputs), rows to come behind the window, to embeddings.

        Returns:
            (batch, window, width), and (batch, horizon, known width); None where none is known.
        """
        steps = x.shape[1] - self.ahead
        found = [
            functional.embedding(x[:, :, column].long(), vectors)
            for column, vectors in zip(self.columns, self.vectors, strict=True)
        ]
        window = torch.cat([of[:, :steps] for of in found], dim=2)
        if not self.known:
            return window, None
        return window, torch.cat([found[at][:, steps:] for at in self.known], dim=2)


def beside(x: Tensor, embedded: Tensor | None) -> Tensor:
    """Put embeddings behind numbers, each (batch, steps, numbers)."""
    return x if embedded is None else torch.cat((x, embedded.to(x.dtype)), dim=2)


def with_unknown_categories(
    x: Tensor, shape: Shape, rate: float, generator: torch.Generator
) -> Tensor:
    """Return what is read where some categories are unknown.

    Of each sample a category is drawn to be unknown with a probability of `rate`, and then is so in
    all of its rows, as if the training part did not hold it. A value alone would tell little: the
    rows beside it would still say which series it is of.

    Args:
        x: (batch, steps, inputs).
        shape: of the data.
        rate: from 0 to below 1.
        generator: draws, on the CPU.
    """
    sizes = [size for _, size in shape.categories]
    drawn = torch.rand(len(x), sum(sizes), generator=generator).to(x.device) < rate
    x = x.clone()
    for (column, _), unknown in zip(
        shape.categories, torch.split(drawn, sizes, dim=1), strict=True
    ):
        values = x[:, :, column]
        x[:, :, column] = values.masked_fill(unknown.gather(1, values.long()), _UNKNOWN)
    return x
