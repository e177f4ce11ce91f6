"""Training as tutorials write it: TensorDataset, DataLoader, nn.LSTM, Adam, a loop over epochs.

Optuna, Ray Tune and the swarms of packages search around this; `floor.py` has what is left of it
if all but the arithmetic is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jobs import CLIP, Job, Windows
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Log = Callable[[int, float, float], None]
"""Is told an epoch, its training loss and its score on the validation rows."""


class Forecaster(nn.Module):
    """One LSTM layer, dropout, and a linear layer for all steps and columns of the horizon."""

    def __init__(self, columns: int, horizon: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.horizon = horizon
        self.lstm = nn.LSTM(columns, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, horizon * columns)

    def forward(self, x: Tensor) -> Tensor:
        """Map windows (n, window, columns) to forecasts (n, horizon, columns)."""
        out, _ = self.lstm(x)
        return self.linear(self.dropout(out[:, -1])).view(len(x), self.horizon, -1)


def make_model(job: Job, parameters: Mapping[str, float | int]) -> Forecaster:
    """Return a new model with a trial's parameters."""
    values = {**job.fixed, **parameters}
    return Forecaster(
        len(job.columns), job.horizon, int(values["hidden_size"]), float(values["dropout"])
    )


def train(
    job: Job, windows: Windows, parameters: Mapping[str, float | int], seed: int, log: Log
) -> float:
    """Train one configuration for all epochs, and return the score of the best one."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(windows.x), torch.from_numpy(windows.y)
    val_x, val_y = torch.from_numpy(windows.val_x), torch.from_numpy(windows.val_y)
    train_loader = DataLoader(TensorDataset(x, y), batch_size=job.batch_size, shuffle=True)
    val_loader = DataLoader(TensorDataset(val_x, val_y), batch_size=job.batch_size)
    model = make_model(job, parameters)
    optimizer = torch.optim.Adam(model.parameters(), lr=float(parameters["learning_rate"]))
    criterion = nn.MSELoss()

    best = float("inf")
    for epoch in range(job.epochs):
        model.train()
        train_loss = 0.0
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            train_loss += loss.item() * len(inputs)
        model.eval()
        squared = torch.zeros(len(job.columns))
        with torch.no_grad():
            for inputs, targets in val_loader:
                squared += ((model(inputs) - targets) ** 2).mean(dim=1).sum(dim=0)
        score = windows.rmse((squared / len(val_x)).numpy())
        log(epoch, train_loss / len(x), score)
        best = min(best, score)
    return best
