"""Errors of pydantic as errors with key, rule, value and remedy."""

from __future__ import annotations

import copy
import datetime as dt
import re
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from tuner.errors import ExperimentError, nearest
from tuner.experiment.data import PREPARED
from tuner.experiment.hyperparameters import Hyperparameters, check_value
from tuner.experiment.yaml_files import text_of
from tuner.strategies import installed_names
from tuner.strategies.base import Section, Strategy, broken_rule

_MOST_EXPLAINED = 100  # of the broken rules
_OF_KIND = ("_type", "_parsing", "literal_error")  # errors about the kind of a value


def first_problem(error: ValidationError) -> ExperimentError:
    """Return the first broken rule, with the key where pydantic finds it."""
    details = error.errors(include_url=False)[0]
    key = ".".join(map(str, details["loc"]))
    if details["type"] != "value_error":
        rule = broken_rule(details)
        return ExperimentError(rule, key=key, got=repr(details["input"]), remedy="change it")
    own = _raised(details)
    return own.with_(key=".".join(filter(None, (key, own.key))))


def _raised(details: ErrorDetails) -> ExperimentError:
    error = details["ctx"]["error"]
    return error if isinstance(error, ExperimentError) else ExperimentError(error)


def problems_of(error: ValidationError, root: type[BaseModel], raw: Any) -> list[ExperimentError]:
    """Return every broken rule, as `explain` does, also those behind unknown keys.

    Rules of several keys are checked by pydantic only where each key is right by itself.
    """
    errors = error.errors(include_url=False)
    found = explain(errors, root, raw)
    paths = {_visible(details, raw): details for details in errors}
    if any(
        details["type"] != "extra_forbidden" or path[-1:] != details["loc"][-1:]
        for path, details in paths.items()
    ):
        return found
    known = copy.deepcopy(raw)
    for path in paths:
        block: Any = known
        for part in path[:-1]:
            block = block[part]
        del block[path[-1]]
    try:
        root.model_validate(known)
    except ValidationError as more:
        found += explain(more.errors(include_url=False), root, known)
    return found


def explain(
    errors: Sequence[ErrorDetails], root: type[BaseModel], raw: Any
) -> list[ExperimentError]:
    """Return every broken rule, by its dotted key: unknown keys, then the others.

    A rule without a remedy has an example of a value that obeys it, if there is one.

    Args:
        errors: those of pydantic.
        root: the class whose rules are broken.
        raw: what breaks them.
    """
    broken: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in errors:
        broken.setdefault(_visible(details, raw), []).append(details)
    by_kind = sorted(broken.items(), key=lambda item: _chosen(item[1])["type"] != "extra_forbidden")
    outer = {path[:n] for path in broken for n in range(len(path))}
    inner = [item for item in by_kind if item[0] not in outer]  # of a union the best fitting member
    return [
        _problem(of_key, root, path) if i < _MOST_EXPLAINED else _problem_of_many(of_key, path)
        for i, (path, of_key) in enumerate(inner)
    ]


def _problem_of_many(of_key: list[ErrorDetails], path: tuple[str | int, ...]) -> ExperimentError:
    """Return a broken rule without a remedy, which takes time to find."""
    return ExperimentError(broken_rule(_chosen(of_key)), key=".".join(map(str, path)))


def shown(value: Any) -> str:
    """Return a value as text for a message: as in the file, at most 80 characters."""
    if value is None or isinstance(value, bool):
        return text_of(value)
    if isinstance(value, list):
        text = f"[{', '.join(map(shown, value[:80]))}]"
    else:
        text = str(value) if isinstance(value, dt.date) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _chosen(of_key: list[ErrorDetails]) -> ErrorDetails:
    """Return the error to report: of the key's name, else of the best fitting kind of value."""
    named = [d for d in of_key if d["loc"][-1:] == ("[key]",)]
    fitting = [d for d in of_key if not d["type"].endswith(_OF_KIND)]
    return (named or fitting or of_key)[0]


def _problem(
    of_key: list[ErrorDetails], root: type[BaseModel], path: tuple[str | int, ...]
) -> ExperimentError:
    details = _chosen(of_key)
    loc, kind, value = details["loc"], details["type"], details["input"]
    key, name = ".".join(map(str, path)), next((p for p in path[::-1] if isinstance(p, str)), "")
    section, field, inner = _resolve(root, loc)
    if loc[-1:] == ("[key]",):
        remedy = "change it" if isinstance(value, str) else "put it in quotes"
        remedy = f"{remedy}, or remove it"
        return ExperimentError(_rule([details]), key=key, got=shown(value), remedy=remedy)
    if kind == "extra_forbidden":
        fields = section.model_fields.items() if section else ()
        known, word = [each.alias or name for name, each in fields], str(loc[-1])
        remedy = nearest(word.lower(), known)
        if len(loc) == 1 and (inside := _in_a_block(root, word)):
            remedy = f"write {' or '.join(inside)}"
        elif len(path) == 2 and (other := _of_others(root, str(loc[0]), str(loc[1]), word)):
            remedy = other
        elif word.lower() not in known and "hyperparameters" in root.model_fields:
            remedy = key_meant(word) or remedy
        return ExperimentError(f"unknown key {loc[-1]!r}", key=key, remedy=remedy)
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = details["ctx"]["discriminator"].strip("'")
        key = f"{key}.{tag}"
        if kind == "union_tag_not_found":
            return ExperimentError("is required", key=key, remedy=nearest("", _tags(field)))
        given = value[tag] if isinstance(value, dict) else details["ctx"]["tag"]
        what = tag if tag != "name" else name
        remedy = nearest(_tag_meant(str(given), field).lower(), _tags(field))
        return ExperimentError(f"unknown {what} {shown(given)}", key=key, remedy=remedy)
    # False for a literal True is no misspelt word.
    if kind == "literal_error" and field is not None and len(of_key) == 1 and value is not False:
        remedy = nearest(str(value).lower(), _literals(field.annotation))
        return ExperimentError(f"unknown {name} {shown(value)}", key=key, remedy=remedy)
    example = _example(field, inner)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        problem = ExperimentError("must be a block of keys", key=key, got=shown(value))
        if loc[0] == "search_space" and len(loc) == 2:
            return _no_domain(problem.with_(example=example), name, value)
        if field is not None and field.discriminator and value in _tags(field):
            example = f"{{{field.discriminator}: {value}}}"
        if loc == ("search_space",):
            example = f"{{hidden_size: {example}}}"
        return problem.with_(example=example or "{key: value}")
    if kind == "value_error":
        own = _raised(details)
        of_block = isinstance(value, dict) and (field is None or bool(_sections(field.annotation)))
        got = shown(value) if own.got is own.key is None and not of_block else own.got
        return own.with_(key=".".join(filter(None, (key, own.key))), got=got)
    problem = ExperimentError("is required", key=key)
    if kind != "missing":
        problem = ExperimentError(_rule(of_key), key=key, got=shown(value))
    if not isinstance(path[-1], int):
        return problem.with_(example=example or ("..." if kind == "missing" else None))
    remedy = f"write {example}, say" if example else "remove it"
    if any(d["type"] == "string_type" for d in of_key):
        remedy = "remove it" if value is None else "put it in quotes, or remove it"
    return problem.with_(remedy=remedy)


def _rule(of_key: list[ErrorDetails]) -> str:
    """Return the rule; for a value of no kind of a union it names every kind."""
    chosen = _chosen(of_key)
    if not chosen["type"].endswith(_OF_KIND):
        return broken_rule(chosen)
    kinds = list(dict.fromkeys(broken_rule(d).removeprefix("must be ") for d in of_key))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    kinds.sort(key="true or false".__eq__)
    return "must be " + (", " if "true or false" in kinds else " or ").join(kinds)


def _no_domain(problem: ExperimentError, name: str, value: Any) -> ExperimentError:
    """Add a remedy for a value or a list in place of a domain: fix it, or search it."""

    def obeys(value: Any) -> bool:
        return isinstance(value, str | int | float) and check_value(name, value) is None

    field, choices = Hyperparameters.model_fields.get(name), list[Any]()
    if name in PREPARED and isinstance(value, str | list):
        choices = value if isinstance(value, list) and value else ["none", value]
    elif field is not None and obeys(value):
        remedy = f"for one value write hyperparameters.{name}: {text_of(value)}"
        return problem.with_(remedy=remedy)
    elif field is not None and isinstance(value, list) and value and all(map(obeys, value)):
        choices = value
    elif field is not None and field.annotation is float:
        low, high = (field.default / 10, field.default * 10) if field.default else (0.0, 0.5)
        return problem.with_(example=text_of({"type": "float", "low": low, "high": high}))
    elif field is not None:
        choices = _literals(field.annotation) or [False, True] * (field.annotation is bool)
    if not choices:
        return problem
    return problem.with_(example=text_of({"type": "categorical", "choices": choices}))


def _example(field: FieldInfo | None, inner: tuple[str | int, ...] = ()) -> str | None:
    """Return a value that obeys the rules of a key, or of a place in its value, as YAML."""
    if field is None:
        return None
    if field.examples:
        example = field.examples[0]
        for part in inner:
            if isinstance(example, dict):
                example = next(iter(example.values()))
            elif isinstance(example, list) and isinstance(part, int):
                example = example[min(part, len(example) - 1)]
        return text_of(example)
    if sections := _sections(field.annotation):
        chosen = type(field.default) if isinstance(field.default, Section) else sections[0]
        fields = list(chosen.model_fields.items())
        needed = [(name, f) for name, f in fields if f.is_required()] or fields[:1]
        values = {name: _example(f) for name, f in needed}
        text = ", ".join(f"{name}: {value}" for name, value in values.items())
        return None if None in values.values() else f"{{{text}}}"
    if field.default in (PydanticUndefined, None):
        return next(iter(_literals(field.annotation)), None)
    return text_of(field.default)


def _visible(details: ErrorDetails, raw: Any) -> tuple[str | int, ...]:
    """Return the location without tags of unions and names of types."""
    shown: list[str | int] = []
    loc = details["loc"]
    for i, part in enumerate(loc):
        in_list = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if in_list or (isinstance(raw, dict) and part in raw):
            raw = raw[part]
            shown.append(part)
        elif i == len(loc) - 1 and details["type"] == "missing":
            shown.append(part)
    return tuple(shown)


def _resolve(
    root: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[type[BaseModel] | None, FieldInfo | None, tuple[int | str, ...]]:
    """Return the section that holds the last key of `loc`, that key's field, and the rest."""
    section: type[BaseModel] | None = root
    holder, field = section, None
    options: list[type[BaseModel]] = []
    inner: tuple[int | str, ...] = ()
    for part in loc:
        if str(part).startswith("("):  # the tag of a union
            continue
        if section is None:
            chosen = [o for o in options if str(part) in _literal_values(o)]
            section, options = (chosen[0], []) if chosen else (None, options)
            inner += (part,)
            continue
        holder, field, inner = section, section.model_fields.get(str(part)), ()
        options = _sections(field.annotation) if field else []
        section = options[0] if len(options) == 1 else None
    return section if section and field is None else holder, field, inner


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in typing.get_args(annotation) for s in _sections(a)]


def _literals(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(v) for v in typing.get_args(annotation)]
    return [v for a in typing.get_args(annotation) for v in _literals(a)]


def _literal_values(section: type[BaseModel]) -> list[str]:
    fields = section.model_fields
    return [v for f in ("name", "type") if f in fields for v in _literals(fields[f].annotation)]


def _in_a_block(root: type[BaseModel], word: str) -> list[str]:
    """Return the dotted keys of the root's blocks whose last word is this one."""
    return [
        f"{name}.{word}"
        for name, field in root.model_fields.items()
        if name not in ("recorded", "cells")  # which tuner writes
        and word != "name"
        and _with_key(field, word.lower())
    ]


def _of_others(root: type[BaseModel], block: str, kind: str, word: str) -> str | None:
    """Return the remedy for a key of other kinds of a block: of `pso`, say, but not of `tpe`."""
    field = root.model_fields.get(block)
    if field is None or not field.discriminator or not (owners := _with_key(field, word)):
        return None
    kinds = ", ".join(_literal_values(owner)[0] for owner in owners)
    tag = field.discriminator
    whole = f"--set '{block}={{{tag}: {kind}}}'"  # --set pruner.name=none leaves the other keys
    return f"it is of {kinds}: remove it, change {block}.{tag}, or write {whole}"


def _with_key(field: FieldInfo, word: str) -> list[type[BaseModel]]:
    """Return the kinds of a block that have a key."""
    return [section for section in _sections(field.annotation) if word in section.model_fields]


def _tag_meant(word: str, field: FieldInfo | None) -> str:
    """Return the tag of the section whose title has the word: `woa` for `whale`; else the word."""
    for section in _sections(field.annotation) if field else ():
        title = re.match(r"[^.:(]+(?=[:(])", section.__doc__ or "")  # "Whale optimization"
        if title and word.lower() in title[0].lower().split():
            return _literal_values(section)[0]
    return word


def _tags(field: FieldInfo | None) -> list[str]:
    sections = _sections(field.annotation) if field else []
    tags = [value for section in sections for value in _literal_values(section)]
    return tags + (installed_names() if any(issubclass(s, Strategy) for s in sections) else [])


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
