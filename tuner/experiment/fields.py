"""Field types that the blocks of an experiment share: strict models, names, dialects, user code."""

from __future__ import annotations

import ast
import codecs
import datetime as dt
import re
import unicodedata
import zoneinfo
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from tuner.errors import ExperimentError
from tuner.metrics import METRICS, WAYS
from tuner.pipeline_steps import Dialect
from tuner.strategies.base import Section, optional
from tuner.user_code import REDUCING, is_reference, parse

__all__ = [
    "EXPERIMENT_BYTES",
    "GENERATIONS",
    "STUDY_BYTES",
    "WORDS",
    "MetricName",
    "Name",
    "Read",
    "completed",
    "is_own",
    "key_meant",
    "mended",
    "normalized",
    "parse_own",
    "why_refused",
]


_SIGNS = ":(-*/+<>="


def is_own(value: Any) -> bool:
    """Return whether a text is meant as user code: a function or an expression."""
    return isinstance(value, str) and any(sign in value for sign in _SIGNS)


def parse_own(text: str) -> str:
    """Return `package.module:function`, or an expression with one number as its value.

    Raises:
        ValueError: it is neither; rule, value and remedy.
    """
    if is_reference(text):
        return text
    tree = parse(text)
    if _has_many(tree):
        rule = "must have one number as its value"
        raise ExperimentError(rule, got=repr(text), remedy=f"write mean({text}), say")
    if not any(isinstance(node, ast.Name) and node.id == "forecast" for node in ast.walk(tree)):
        rule = "must measure the forecast"
        raise ExperimentError(rule, got=repr(text), remedy="write forecast in it")
    return text


def _has_many(node: ast.AST) -> bool:
    """Return whether a part of an expression has a value for every forecast."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id not in REDUCING and any(map(_has_many, node.args))
    if isinstance(node, ast.Name):
        return True
    return any(map(_has_many, ast.iter_child_nodes(node)))


def _check_metric(value: Any) -> str:
    way, _, rest = " ".join(str(value).split()).partition(" ")
    if way not in WAYS:
        rule = "must begin with minimize or maximize"
        raise ExperimentError(rule, got=repr(value), remedy=f"write 'minimize {value}'")
    return f"{way} {parse_own(rest)}"


def _is_own_metric(value: Any) -> bool:
    return isinstance(value, str) and (value.partition(" ")[0] in WAYS or is_own(value))


if TYPE_CHECKING:
    _Metric = str
else:
    _Metric = Literal[tuple(METRICS)]

MetricName = Annotated[
    Annotated[_Metric, Tag("(metric)")]
    | Annotated[str, BeforeValidator(_check_metric), Tag("(own)")],
    Discriminator(lambda v: "(own)" if _is_own_metric(v) else "(metric)"),
]
"""A metric of tuner, or `minimize` or `maximize` and user code."""


EXPERIMENT_BYTES = 200
"""Most bytes of an experiment's name in UTF-8: a study's name adds strategy and seed."""

STUDY_BYTES = 240
"""Most bytes of a study's: a file's name has 255 of them, and `.journal.held` follows."""

_IN_NO_FILE = '/\\:*?"<>|'

_NOT_PRINTED = ("Cc", "Cs", "Cn", "Zl", "Zp")  # Unicode's: controls, half characters, line ends


def normalized(name: str) -> str:
    """Return a name in Unicode's composed form: however it is typed, it names one file."""
    return unicodedata.normalize("NFC", name)


def why_refused(name: str, most_bytes: int) -> str | None:
    """Return which rule a name breaks; None where it breaks none.

    Args:
        name: an experiment's or a study's, normalized.
        most_bytes: that it may have in UTF-8.
    """
    if not name.strip():
        return "must not be empty"
    if refused := next(filter(_is_refused, name), None):
        return f"must not hold {refused!r}, which file names cannot have everywhere"
    if name[0] in ".-" or name != name.strip():
        return "must not begin with '.', '-' or a space, nor end with a space"
    if (n_bytes := len(name.encode())) > most_bytes:
        return f"must have at most {most_bytes} bytes in UTF-8, has {n_bytes}"
    return None


def mended(name: str, most_bytes: int) -> str:
    """Return a name that breaks no rule and is near one that does; empty where nothing is left."""
    kept = "".join("_" if _is_refused(c) else c for c in normalized(name))
    kept = re.sub(r"^[\s._-]+|[\s_]+$", "", re.sub(r"__+", "_", kept))
    return re.sub(r"[\s_]+$", "", kept.encode()[:most_bytes].decode(errors="ignore"))


def _is_refused(character: str) -> bool:
    return character in _IN_NO_FILE or unicodedata.category(character) in _NOT_PRINTED


WORDS: dict[str, tuple[str, ...]] = {
    "budget.epochs": ("epochs", "n_epochs", "num_epochs", "max_epochs", "training_epochs"),
    "budget.trials": ("trials", "n_trials", "evaluations", "max_evals"),
    "budget.patience": ("patience", "early_stopping", "early_stopping_patience"),
    "strategy.population": (
        *("population_size", "pop_size", "swarm_size", "swarm", "particles", "n_particles"),
        *("num_particles", "whales", "n_whales", "search_agents", "agents", "individuals"),
    ),
    "strategy.inertia": ("inertia_weight", "w", "omega"),
    "strategy.c1": ("cognitive", "cognitive_coefficient", "phi_p"),
    "strategy.c2": ("social", "social_coefficient", "phi_g"),
    "strategy.velocity_clamp": ("v_max", "vmax", "max_velocity"),
    "hyperparameters.hidden_size": (
        *("neurons", "units", "n_units", "num_units", "lstm_units", "hidden_units", "nodes"),
        *("hidden_nodes", "hidden_neurons", "hidden_dim"),
    ),
    "hyperparameters.num_layers": ("layers", "n_layers", "hidden_layers", "lstm_layers", "depth"),
    "hyperparameters.dropout": ("dropout_rate", "drop_rate"),
    "hyperparameters.learning_rate": ("lr", "alpha", "eta", "step_size", "initial_learning_rate"),
    "hyperparameters.batch_size": ("batch", "mini_batch", "minibatch_size"),
    "hyperparameters.weight_decay": ("l2", "regularization", "lambda"),
    "hyperparameters.gradient_clip": ("clipnorm", "gradient_threshold", "clip"),
    "task.window": (
        *("look_back", "lookback", "timesteps", "time_steps", "n_steps", "sequence_length"),
        *("seq_len", "window_size", "input_length", "lag", "history"),
    ),
    "task.horizon": ("forecast_horizon", "steps_ahead", "n_ahead", "prediction_length", "pred_len"),
    "data.scale": ("normalization", "scaler", "scaling", "standardize"),
    "data.split.test": ("test_size", "test_split", "test_ratio"),
    "data.split.validation": ("validation_split", "val_split", "validation_size", "val_size"),
    "objective.metric": ("fitness", "fitness_function", "objective_function"),
}
"""Terms of the literature by the dotted key that means the same."""

GENERATIONS = ("iterations", "n_iterations", "max_iter", "max_iterations", "generations")
"""These are not written: trials are as many as generations times population."""


def key_meant(word: str) -> str | None:
    """Return a remedy for a term of the literature; None for an unknown one."""
    plain = re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word)).lower()
    if plain in GENERATIONS:
        return "write budget.trials: as many as generations times strategy.population"
    found = next((key for key, words in WORDS.items() if plain in words), None)
    return None if found is None else f"did you mean {found}?"


_OF_TOKENS = ("text", "tokens", "categories")  # keys of data


def completed(record: Any) -> Any:
    """Return a recorded experiment with the values of keys that an older version lacked.

    Without `unknown_rate` no token was read as unknown. A new experiment has the default.
    """
    if not isinstance(record, dict):
        return record
    data, fixed = record.get("data"), record.get("hyperparameters") or {}
    embeds = isinstance(data, dict) and any(data.get(key) for key in _OF_TOKENS)
    if not (embeds and isinstance(fixed, dict)):
        return record
    if "unknown_rate" in fixed or "unknown_rate" in (record.get("search_space") or {}):
        return record
    return record | {"hyperparameters": fixed | {"unknown_rate": 0.0}}


Name = Annotated[str, Field(min_length=1)]

_Words = Annotated[list[Name], BeforeValidator(lambda value: _as_texts(value))]

_Lines = Annotated[int, Field(strict=True, ge=0, le=100_000)]


def _as_texts(value: Any) -> Any:
    """Return one word, or words and numbers, as a list of texts: -999 is "-999"."""
    words = value if isinstance(value, list | tuple) else [value]
    numbers = [isinstance(w, int | float) and not isinstance(w, bool) for w in words]
    return [str(w) if number else w for w, number in zip(words, numbers, strict=True)]


def _known(holds: Callable[[str], object], rule: str, remedy: str) -> AfterValidator:
    """Return a validator of texts for which `holds` is true and raises nothing."""

    def check(text: str) -> str:
        try:
            known = holds(text)
        except (LookupError, OSError, ValueError):
            known = False
        if not known:
            raise ExperimentError(rule, got=repr(text), remedy=remedy)
        return text

    return AfterValidator(check)


def _formats(text: str) -> bool:
    day = dt.datetime(2020, 1, 31)
    return text == "excel" or ("%" in text and bool(day.strptime(day.strftime(text), text)))


_Encoding = Annotated[
    str,
    _known(  # hex is a codec too, but not of texts
        lambda name: codecs.lookup(name)._is_text_encoding,
        "no such encoding",
        "write utf-8, cp1252 or gbk",
    ),
]
_Zone = Annotated[
    str,
    _known(zoneinfo.ZoneInfo, "no such time zone", "write a place such as Europe/Berlin, or UTC"),
]
_Separator = Annotated[
    str,
    _known(
        lambda text: text == "whitespace" or (len(text) == 1 and text not in "\"'\r\n"),
        "must be one character or whitespace",
        'write ";"',
    ),
]
_Format = Annotated[str, _known(_formats, "must be a format of dates or excel", 'write "%d.%m.%Y"')]


class Read(Section):
    """How the data file is written; what is left out is detected, and shown by `tuner check`."""

    encoding: _Encoding | None = optional("cp1252")
    """Encoding of the text, by its name in Python; by default UTF-8, or detected."""
    separator: _Separator | None = optional(";")
    """Character between columns, or whitespace."""
    decimal: Literal[".", ","] | None = optional(",")
    """Decimal mark of numbers."""
    thousands: Literal[",", ".", " ", "'", "’", "_", "\u00a0", "\u202f"] | None = optional(".")
    """Mark between groups of three digits."""
    comment: Name | None = optional("#")
    """What a line begins with that is not read."""
    skip_rows: _Lines | None = optional(2)
    """Lines above the names of the columns, blank ones counted."""
    unit_row: bool | None = optional(True)
    """Whether the line below the names holds units, and is not read."""
    skip_footer: _Lines | None = optional(1)
    """Lines below the rows, such as totals; blank ones are not counted."""
    missing_values: _Words | None = optional(["-", "-999"])
    """Words and numbers that stand for no value; by default the usual ones, such as N/A and -."""
    units: _Words | None = optional(["%", "€"])
    """Units before or behind numbers; they are taken off, and 12 % is 12."""
    date_format: _Format | None = optional("%d.%m.%Y")
    """Format of the time column, as strptime has it; or excel for a spreadsheet's days."""
    timezone: _Zone | None = optional("Europe/Berlin")
    """Time zone of times without an offset; makes the hour certain where clocks go back."""
    time_columns: Annotated[list[Name], Field(min_length=2, max_length=6)] | None = optional(
        ["date", "hour"]
    )
    """Columns that are joined into the time column: a date and an hour, or year, month, day."""
    sort: bool | None = optional(True)
    """Whether rows are sorted by time; by default only where all of them fall."""
    drop_duplicates: bool | None = optional(True)
    """Whether exact copies of rows are dropped; by default where a time column tells rows apart."""

    @model_validator(mode="after")
    def _check(self) -> Read:
        if self.decimal is not None and self.decimal == self.thousands:
            rule = "must differ from decimal"
            got = f"{self.thousands!r} for both"
            raise ExperimentError(rule, key="thousands", got=got, remedy="remove one")
        return self

    @property
    def dialect(self) -> Dialect:
        """What the keys declare."""
        return Dialect.of(self.model_dump())
