"""The model: an LSTM reads a window, a linear head forecasts the horizon."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Weights

__all__ = ["Forecaster"]


class Forecaster(nn.Module):
    """Forecasts `horizon` steps of every target from what the LSTM holds after the last step.

    The parameters' first values come from torch's global generator.
    """

    def __init__(
        self, parameters: Hyperparameters, *, features: int, targets: int, horizon: int
    ) -> None:
        super().__init__()
        self.horizon, self.targets = horizon, targets
        self.directions = 2 if parameters.bidirectional else 1
        self.lstm = nn.LSTM(
            features,
            parameters.hidden_size,
            num_layers=parameters.num_layers,
            # nn.LSTM drops between its layers, and warns where there is only one.
            dropout=parameters.dropout if parameters.num_layers > 1 else 0.0,
            bidirectional=parameters.bidirectional,
            batch_first=True,
        )
        self.dropout = nn.Dropout(parameters.dropout)
        self.head = nn.Linear(self.directions * parameters.hidden_size, horizon * targets)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, window, features) to (batch, horizon, targets)."""
        _, (hidden, _) = self.lstm(windows)  # (layers * directions, batch, hidden)
        # Of the last layer: forwards after the last step, backwards after the first.
        last = hidden[-self.directions :].transpose(0, 1).flatten(1)  # (batch, directions * hidden)
        flat: Tensor = self.head(self.dropout(last))  # (batch, horizon * targets)
        return flat.view(-1, self.horizon, self.targets)

    def weights(self) -> Weights:
        """Return a copy of the parameters as numpy arrays."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.named_parameters()}

    def load_weights(self, weights: Weights) -> None:
        """Set every parameter to what `weights` returned."""
        self.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
