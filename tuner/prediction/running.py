"""Runs the model over windows or sequences, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError, one_line, show_path
from tuner.prediction.pipeline import Pipeline

__all__ = ["BATCH", "Runner"]

BATCH = 512
"""Windows at once; more are slower, as they leave the processor's cache."""
_BATCH_NUMBERS = 2**24  # in a layer; of long or wide sequences fewer fit into memory
_EXTERNAL = b"location"  # what ONNX calls the path of a tensor that lies in another file

_Sizes = list[int | None]


class Runner:
    """A model in onnxruntime, which uses all cores; or in numpy, where that is all there is.

    Raises:
        ModelError: the file names other files, onnxruntime does not take it, or it is of another
            pipeline.
    """

    def __init__(self, file: bytes, path: Path, pipeline: Pipeline, *, numpy: bool = False) -> None:
        # A text is written as it is wherever it stands in the file, and no other text of an
        # exported graph is this one. onnxruntime would read whatever file the path leads to.
        if _EXTERNAL in file:
            text = "must hold all its weights, got external data, which is in another file; "
            raise ModelError(f"{show_path(path)}: {text}export the model again")
        session = (_in_numpy if numpy else _in_onnxruntime)(file, path)
        self._path, self._width = path, pipeline.width
        self._horizon = pipeline.horizon
        read = {i.name: _fixed(i.shape) for i in session.get_inputs()}
        said = [_fixed(output.shape) for output in session.get_outputs()]
        expected, says = _sizes(pipeline)
        self.steps = _steps(read) if pipeline.task in ("regress", "classify") else None
        """How many every sequence must have; None where it may have any number."""
        known = pipeline.columns.known_future is not None
        traced = pipeline.window + (pipeline.horizon if known else 0)
        if pipeline.of_series and _steps(read) == traced:
            expected["inputs"][1] = traced  # of code of one's own, whose steps are traced
        if self.steps is not None and "inputs" in expected:
            expected["inputs"][1] = self.steps
        if (read, said) != (expected, says):
            text = "does not read or say what pipeline.json says; export the model again"
            raise ModelError(f"{show_path(path)}: {text}")
        self._session, self._library = session, "numpy" if numpy else "onnxruntime"

    def windows(
        self,
        rows: np.ndarray,
        ends: np.ndarray,
        window: int,
        beside: Callable[[np.ndarray], np.ndarray] | None = None,
        known: Sequence[int] = (),
    ) -> np.ndarray:
        """Read the `window` rows before each end, and what is known of those after it.

        Args:
            rows: (rows, features), float32.
            ends: (samples,), the row after the last one that is read.
            window: how many are read.
            beside: maps windows, (batch, window, features), to what is read beside them.
            known: the columns that are known in the rows to come; of others the model gets 0 there.

        Returns:
            (samples, horizon, targets[, quantiles]), scaled.
        """
        ahead = self._horizon if known else 0
        unknown = sorted(set(range(rows.shape[1])) - set(known))
        views = np.lib.stride_tricks.sliding_window_view(rows, window + ahead, axis=0)
        views = views.swapaxes(1, 2)  # (rows - window - ahead + 1, window + ahead, features)
        size = self._batch(window + ahead)
        parts = []
        for i in range(0, len(ends), size):
            read = views[ends[i : i + size] - window]
            if ahead:
                read[:, window:, unknown] = 0
            if beside is not None:
                others = np.pad(beside(read[:, :window]), ((0, 0), (0, ahead), (0, 0)))
                read = np.concatenate((read, others), axis=2)
            parts.append(self._run(inputs=read))
        return np.concatenate(parts)

    def sequences(self, rows: np.ndarray, bounds: np.ndarray, *, each_step: bool) -> np.ndarray:
        """Read sequences, those of about the same length together.

        Args:
            rows: of all sequences: (rows, features), float32, or tokens, (rows,), int64.
            bounds: (sequences, 2), the rows [start, end) of each.
            each_step: whether the model says something of every step.

        Returns:
            What is said of each sequence, (sequences, ...), or of each row, (rows, ...).
        """
        lengths = np.diff(bounds)[:, 0]
        order = np.argsort(-lengths, kind="stable")
        name = "tokens" if rows.ndim == 1 else "inputs"
        found: np.ndarray | None = None
        begin = 0
        while begin < len(order):
            longest = lengths[order[begin]]
            batch = order[begin : begin + self._batch(int(longest))]
            begin += len(batch)
            step = np.arange(longest)
            real = step < lengths[batch][:, None]  # (batch, steps)
            at = np.where(real, bounds[batch, :1] + step, bounds[batch, :1])  # any row may pad
            outputs = self._run(**{name: rows[at], "lengths": lengths[batch].astype(np.int64)})
            if each_step:
                outputs, batch = outputs[real], at[real]
            if found is None:
                found = np.empty((len(rows if each_step else bounds), *outputs.shape[1:]))
            found[batch] = outputs
        assert found is not None, "a file has rows"
        return found

    def next_logits(self, tokens: np.ndarray, bounds: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Return the logits of what comes after what was said of texts, (n, tokens).

        Args:
            tokens: of all texts, (rows,), int64.
            bounds: (n, 2), the rows [start, end) of each.
            prefix: (n, said), what was said of each.
        """
        lengths = np.diff(bounds)[:, 0].astype(np.int64)
        step, found = np.arange(lengths.max()), []
        size = self._batch(max(int(lengths.max()), prefix.shape[1]))
        for i in range(0, len(bounds), size):
            own = slice(i, i + size)
            real = step < lengths[own][:, None]
            at = np.where(real, bounds[own, :1] + step, bounds[own, :1])  # any row may pad
            read = {"tokens": tokens[at], "lengths": lengths[own], "prefix": prefix[own]}
            found.append(self._run(**read)[:, -1])
        return np.concatenate(found)

    def _batch(self, steps: int) -> int:
        return max(1, min(BATCH, _BATCH_NUMBERS // (steps * self._width)))

    def _run(self, **feed: np.ndarray) -> np.ndarray:
        arrays = {name: np.ascontiguousarray(array) for name, array in feed.items()}
        try:
            found: list[Any] = self._session.run(None, arrays)
        except Exception as error:  # of classes that onnxruntime does not name
            text = f"{self._library} cannot run it: {one_line(error)}; export the model again"
            raise ModelError(f"{show_path(self._path)}: {text}") from None
        return np.asarray(found[0])


def _in_numpy(file: bytes, path: Path) -> Any:
    from tuner.prediction.numpy_session import NumpySession

    try:
        return NumpySession(file)
    except ValueError as error:
        text = f"numpy cannot run it: {one_line(error)}; leave out --numpy, or export it again"
        raise ModelError(f"{show_path(path)}: {text}") from None


def _in_onnxruntime(file: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        text = "needs onnxruntime, which is not installed here; install it, or write --numpy"
        raise ModelError(f"{show_path(path)}: {text}") from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # by that rule
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime does not name
        text = f"onnxruntime cannot read it: {one_line(error)}; install a newer onnxruntime"
        raise ModelError(f"{show_path(path)}: {text}") from None


def _fixed(shape: list[Any]) -> _Sizes:
    """Return the sizes of an array, None where they may be any."""
    return [n if isinstance(n, int) else None for n in shape]


def _steps(read: dict[str, _Sizes]) -> int | None:
    """Return how many steps the graph reads; None where it may be any number."""
    sizes = read.get("inputs", [])
    return sizes[1] if len(sizes) == 3 else None


def _sizes(pipeline: Pipeline) -> tuple[dict[str, _Sizes], list[_Sizes]]:
    """Return the sizes of a model's inputs, by name, and of its outputs, None where any."""
    read: dict[str, _Sizes] = {"tokens": [None, None]}
    if pipeline.inputs is not None:
        n_modes = pipeline.modes * len(pipeline.targets)
        read = {"inputs": [None, None, len(pipeline.inputs.offset) + n_modes]}
    if not pipeline.of_series:
        read["lengths"] = [None]
    if pipeline.target is not None:
        read["prefix"] = [None, None]
        return read, [[None, None, len(pipeline.target) + 2]]
    if pipeline.classes:
        steps: _Sizes = [None] if pipeline.each_step else []
        return read, [[None, *steps, len(pipeline.classes)]]
    if pipeline.each_step:
        return read, [[None, None, len(pipeline.targets)]]
    quantiles = [len(pipeline.quantiles)] if pipeline.quantiles else []
    return read, [[None, pipeline.horizon, len(pipeline.targets), *quantiles]]
