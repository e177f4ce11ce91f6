"""Translations: what is to be said of texts, token by token."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tuner.data.decoding import beam_search
from tuner.data.drawing import rows_of
from tuner.data.sequence_table import SequenceTable
from tuner.data.tables import RawTable
from tuner.data.vocabulary import written_text
from tuner.prediction.labels import say_unknown
from tuner.prediction.naming import differing
from tuner.prediction.pipeline import Pipeline
from tuner.prediction.running import BATCH, Runner

__all__ = ["translate", "translation_columns"]


def translate(pipeline: Pipeline, raw: RawTable, runner: Runner) -> pd.DataFrame:
    """Say something of every text.

    Raises:
        DataError: the file is not what the model was trained on.
    """
    columns, vocabulary, target = pipeline.columns, pipeline.vocabulary, pipeline.target
    assert vocabulary is not None
    assert target is not None
    table = SequenceTable.of(raw, columns, pipeline.task)
    tokens, bounds = table.tokens()
    bounds = table.shortened(bounds)
    steps = vocabulary.encode(tokens)
    read = rows_of(bounds, np.arange(len(bounds)))
    say_unknown(tokens[read], steps[read])
    texts: list[str] = []
    for begin in range(0, len(bounds), BATCH):
        of_batch = bounds[begin : begin + BATCH]

        def next_logits(
            of: np.ndarray, prefix: np.ndarray, of_batch: np.ndarray = of_batch
        ) -> np.ndarray:
            return runner.next_logits(steps, of_batch[of], prefix)

        said = beam_search(
            next_logits,
            len(of_batch),
            tokens=len(target) + 2,
            longest=pipeline.longest,
            width=pipeline.beam,
        )
        texts += [written_text(row, target, columns.level) for row in said]
    found = [np.arange(1, len(texts) + 1), np.array(texts, object)]
    return pd.DataFrame(dict(zip(translation_columns(pipeline), found, strict=True)))


def translation_columns(pipeline: Pipeline) -> list[str]:
    """Return the names of the columns of translations."""
    return differing(["row", *pipeline.targets])
