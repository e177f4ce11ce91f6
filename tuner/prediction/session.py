"""Runs exported models on windows, sequences or texts, with onnxruntime or numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError, one_line, show_path
from tuner.prediction.numpy_session import NumpySession
from tuner.prediction.pipeline import Pipeline

BATCH = 512  # windows at a time; more would leave the processor's cache

_BATCH_NUMBERS = 2**24  # numbers in a layer: long or wide sequences make smaller batches
_EXTERNAL = b"location"  # ONNX's key of the path of a tensor in another file

_Sizes = list[int | None]


class Runner:
    """Runs a model with onnxruntime, which uses all cores, or with numpy.

    Raises:
        ModelError: the file names other files, cannot be read, or does not fit the pipeline.
    """

    def __init__(self, file: bytes, path: Path, pipeline: Pipeline, *, numpy: bool = False) -> None:
        # onnxruntime would read any file at that path. The key stands in the file as plain text; no
        # other text of an exported graph has this word.
        if _EXTERNAL in file:
            got = "external data, which is in another file"
            raise _error(path, "must hold all its weights", got=got)
        session = (_in_numpy if numpy else _in_onnxruntime)(file, path)
        self._path, self._width, self._horizon = path, pipeline.width, pipeline.horizon
        read = {i.name: _fixed(i.shape) for i in session.get_inputs()}
        returned = [_fixed(output.shape) for output in session.get_outputs()]
        expected, outputs = _sizes(pipeline)
        self.steps = _steps(read) if pipeline.task in ("regress", "classify") else None
        """Steps of every sequence; None for any number."""
        known = pipeline.columns.known_future is not None
        traced = pipeline.window + (pipeline.horizon if known else 0)
        if pipeline.of_series and _steps(read) == traced:
            expected["inputs"][1] = traced  # of user code, whose steps are traced
        if self.steps is not None and "inputs" in expected:
            expected["inputs"][1] = self.steps
        if (read, returned) != (expected, outputs):
            raise _error(path, "does not have the inputs and outputs of pipeline.json")
        self._session, self._library = session, "numpy" if numpy else "onnxruntime"

    def windows(
        self,
        rows: np.ndarray,
        ends: np.ndarray,
        window: int,
        beside: Callable[[np.ndarray], np.ndarray] | None = None,
        known: Sequence[int] = (),
    ) -> np.ndarray:
        """Run the model on the `window` rows before each end, and known values after it.

        Args:
            rows: (rows, features), float32.
            ends: (samples,), the row after each window.
            window: rows of a window.
            beside: maps windows, (batch, window, features), to further inputs beside them.
            known: the columns that are known in future rows; the others are 0 there.

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
        """Run the model on sequences, in batches of similar lengths.

        Args:
            rows: of all sequences: (rows, features), float32, or tokens, (rows,), int64.
            bounds: (sequences, 2), the rows [start, end) of each.
            each_step: whether every step has an output.

        Returns:
            Outputs of each sequence, (sequences, ...), or of each row, (rows, ...).
        """
        lengths = np.diff(bounds)[:, 0]
        order = np.argsort(-lengths, kind="stable")
        name = "tokens" if rows.ndim == 1 else "inputs"
        found: np.ndarray | None = None
        begin = 0
        while begin < len(order):
            batch = order[begin : begin + self._batch(int(lengths[order[begin]]))]
            begin += len(batch)
            at, real = _padded(bounds[batch])
            outputs = self._run(**{name: rows[at], "lengths": lengths[batch].astype(np.int64)})
            if each_step:
                outputs, batch = outputs[real], at[real]
            if found is None:
                found = np.empty((len(rows if each_step else bounds), *outputs.shape[1:]))
            found[batch] = outputs
        assert found is not None, "a file has rows"
        return found

    def next_logits(self, tokens: np.ndarray, bounds: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Return the logits of the next token of translations, (n, tokens).

        Args:
            tokens: of all texts, (rows,), int64.
            bounds: (n, 2), the rows [start, end) of each.
            prefix: (n, tokens), the translations so far.
        """
        lengths = np.diff(bounds)[:, 0].astype(np.int64)
        at, _ = _padded(bounds)
        size, found = self._batch(max(at.shape[1], prefix.shape[1])), []
        for i in range(0, len(bounds), size):
            own = slice(i, i + size)
            read = {"tokens": tokens[at[own]], "lengths": lengths[own], "prefix": prefix[own]}
            found.append(self._run(**read)[:, -1])
        return np.concatenate(found)

    def _batch(self, steps: int) -> int:
        return max(1, min(BATCH, _BATCH_NUMBERS // (steps * self._width)))

    def _run(self, **feed: np.ndarray) -> np.ndarray:
        arrays = {name: np.ascontiguousarray(array) for name, array in feed.items()}
        try:
            found: list[Any] = self._session.run(None, arrays)
        except Exception as error:  # of classes that onnxruntime does not name
            raise _error(self._path, f"{self._library} cannot run it: {one_line(error)}") from None
        return np.asarray(found[0])


def _fixed(shape: list[Any]) -> _Sizes:
    return [n if isinstance(n, int) else None for n in shape]


def _steps(read: dict[str, _Sizes]) -> int | None:
    """Return the number of steps of the graph's input; None for any."""
    sizes = read.get("inputs", [])
    return sizes[1] if len(sizes) == 3 else None


def _sizes(pipeline: Pipeline) -> tuple[dict[str, _Sizes], list[_Sizes]]:
    """Return the sizes of a model's inputs, by name, and of its outputs, None for any."""
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


def _padded(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of sequences, padded with the first, and a mask of real steps, (n, steps)."""
    lengths = np.diff(bounds)
    step = np.arange(lengths.max())
    real = step < lengths
    return np.where(real, bounds[:, :1] + step, bounds[:, :1]), real


def _error(
    path: Path, rule: str, *, got: str | None = None, remedy: str = "export the model again"
) -> ModelError:
    return ModelError(rule, where=show_path(path), got=got, remedy=remedy)


def _in_numpy(file: bytes, path: Path) -> Any:
    try:
        return NumpySession(file)
    except ValueError as error:
        rule = f"numpy cannot run it: {one_line(error)}"
        raise _error(path, rule, remedy="leave out --numpy, or export it again") from None


def _in_onnxruntime(file: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        rule = "needs onnxruntime, which is not installed here"
        raise _error(path, rule, remedy="install it, or write --numpy") from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime does not name
        rule = f"onnxruntime cannot read it: {one_line(error)}"
        raise _error(path, rule, remedy="install a newer onnxruntime") from None
