"""Rules between the blocks of an experiment: what does not go together is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.errors import TunerError, near_miss, nearest
from tuner.experiment.cells import check_own_cells, check_own_domain, own_keys
from tuner.experiment.data import Folds, check_weights
from tuner.experiment.fields import is_own, key_meant
from tuner.experiment.hyperparameters import WHOLE, WIDTH, Hyperparameters, check_value
from tuner.experiment.metrics import METRICS
from tuner.experiment.space import PREPARED, value_of
from tuner.pipeline_steps import differences_of
from tuner.user_code import is_reference

if TYPE_CHECKING:
    from tuner.experiment.schema import Experiment

__all__ = ["check_rules"]

MODEL_CELLS = ("lstm", "gru", "rnn", "peephole")
"""Those that are not one's own."""


def check_rules(experiment: Experiment) -> None:
    """Raise ValueError, naming the key, where two parts of an experiment contradict each other."""
    _check_space(experiment)
    _check_widths(experiment)
    _check_cell(experiment)
    _check_task(experiment)
    _check_objectives(experiment)
    check_weights(experiment, _key(experiment, "loss"), _values(experiment, "loss"))
    _check_reading(experiment)
    budget = experiment.budget
    if experiment.n_trials is None and budget.timeout is None and budget.stagnation is None:
        raise ValueError(
            "budget.trials: must be a number where nothing else ends the search, got null; "
            "write 40, or give budget.timeout or budget.stagnation"
        )
    if experiment.pruner.name == "wilcoxon" and experiment.n_folds < 2:
        raise ValueError(
            "pruner.name: wilcoxon compares folds, got no rolling origins; write "
            "data.split.validation: {folds: 5, size: 0.1}, or name: median"
        )
    if experiment.task.kind == "forecast":
        _check_forecast(experiment)
        _check_known_future(experiment)
    elif experiment.task.of_coming_class:
        _check_coming_class(experiment)
        _check_known_future(experiment)
    else:
        _check_sequences(experiment)
    _check_preparations(experiment)


def _check_space(experiment: Experiment) -> None:
    space, own = experiment.search_space, own_keys(experiment)
    endless = [name for name, domain in space.items() if domain.size() is None]
    if experiment.strategy.name == "brute" and endless:
        raise ValueError(
            f"strategy.name: brute tries every configuration, got the continuum "
            f"search_space.{endless[0]}; give it a step"
        )
    for name, domain in space.items():
        key = f"search_space.{name}"
        if name in PREPARED:
            continue
        if name in own:
            check_own_domain(key, domain, own[name])
        elif name not in Hyperparameters.model_fields and not WIDTH.fullmatch(name):
            ours = [*Hyperparameters.model_fields, "hidden_size_1", *PREPARED]
            known = nearest(name, [*own, *ours])
            if (meant := key_meant(name)) is not None and "hyperparameters." in meant:
                known = f"; {meant.replace('hyperparameters.', 'search_space.')}"
            raise ValueError(f"{key}: unknown hyperparameter {name!r}{known}")
        if domain.type == "float" and (name in WHOLE or WIDTH.fullmatch(name)):
            raise ValueError(f"{key}.type: is a whole number, got 'float'; write `type: int`")
        for value in () if name in own else domain.bounds():
            if problem := check_value(name, value):
                remedy = "change it"
                if name == "hidden_size" and str(value).startswith("["):
                    remedy = "write hidden_size_1 and hidden_size_2, of each layer its own"
                raise ValueError(f"{key}: every value {problem}, got {value!r}; {remedy}")
        start = experiment.given(name)
        given = "hidden_size" if WIDTH.fullmatch(name) else name
        if given in experiment.hyperparameters.model_fields_set and start not in domain:
            raise ValueError(
                f"hyperparameters.{given}: the search starts at this value, which must lie in "
                f"search_space.{name}, got {start!r}; move it or widen the space"
            )


def _check_preparations(experiment: Experiment) -> None:
    """Check every choice of a preparation as if `data` said it."""
    space, recorded = experiment.search_space, experiment.recorded
    for name in PREPARED:
        key, choices = f"search_space.{name}", tuple[str, ...]()
        if domain := space.get(name):
            if domain.type != "categorical":
                text = f"is one of several values, got {domain.type!r}; write `type: categorical`"
                raise ValueError(f"{key}.type: {text}")
            choices = domain.bounds()
            start = experiment.given(name)
            if name in experiment.data.model_fields_set and start not in choices:
                raise ValueError(
                    f"data.{name}: the search starts at this value, which must lie in {key}, got "
                    f"{start}; move it or widen the space"
                )
        elif recorded is not None and name in recorded.preparations:
            key, choices = f"recorded.preparations.{name}", tuple(recorded.preparations[name])
        for choice in choices:
            try:
                chosen = experiment.prepared_as({name: choice})
                check_rules(chosen.model_copy(update={"recorded": None}))
            except (TunerError, ValueError) as error:
                problem = str(error).removeprefix(f"data.{name}: ").removeprefix(f"{name}: ")
                raise ValueError(f"{key}: with the choice {choice}: {problem}") from None


def _check_widths(experiment: Experiment) -> None:
    """Check that layers which are searched one by one are numbered from 1, and nothing else."""
    space, fixed = experiment.search_space, experiment.hyperparameters
    layers = sorted(int(m[1]) for name in space if (m := WIDTH.fullmatch(name)))
    for missing in set(range(1, len(layers) + 1)) - set(layers):
        text = f"the layers are numbered from 1, got no hidden_size_{missing}; "
        raise ValueError(
            f"search_space.hidden_size_{layers[-1]}: {text}add it, or number them anew"
        )
    several = bool(layers) or isinstance(fixed.hidden_size, list)
    for name in ("hidden_size", "num_layers"):
        if several and name in space:
            raise ValueError(
                f"search_space.{name}: every layer has a width of its own, got {name} as well; "
                f"remove one of them"
            )
    n_given = len(fixed.hidden_size) if isinstance(fixed.hidden_size, list) else len(layers)
    if layers and n_given != len(layers):
        raise ValueError(
            f"hyperparameters.hidden_size: the search starts at these widths, which must be as "
            f"many as search_space has layers ({len(layers)}), got {n_given}; give each layer one"
        )
    if layers and fixed.num_layers not in (1, len(layers)):
        raise ValueError(
            f"hyperparameters.num_layers: must be the number of layers in search_space "
            f"({len(layers)}), got {fixed.num_layers}; leave it out"
        )


def _check_cell(experiment: Experiment) -> None:
    check_own_cells(experiment)
    cells = _values(experiment, "cell")
    if others := [cell for cell in cells if cell != "lstm"]:
        _refuse(experiment, "proj_size", [0], f"{others[0]} has no projection, only lstm has one")
    if others := [cell for cell in cells if cell != "rnn"]:
        text = f"is of the cell rnn, and {others[0]} has its own"
        _refuse(experiment, "nonlinearity", ["tanh"], text)
    widths = [
        v for n in experiment.search_space if WIDTH.fullmatch(n) for v in _values(experiment, n)
    ]
    for value in () if widths else _values(experiment, "hidden_size"):
        widths += value if isinstance(value, list) else [value]
    for value in _values(experiment, "proj_size"):
        if value >= min(widths):
            text = f"must be below hidden_size, whose least is {min(widths)}, got {value}; "
            raise ValueError(f"{_key(experiment, 'proj_size')}: {text}make it smaller, or 0")


def _check_objectives(experiment: Experiment) -> None:
    """Check that what searches and what prunes know of a second objective."""
    if experiment.objective.metrics is None:
        return
    both = f"objective.metrics: [{', '.join(experiment.objective.metrics)}]"
    strategy, pruner = experiment.strategy.name, experiment.pruner.name
    if strategy != "nsga2":
        raise ValueError(
            f"strategy.name: searches by one objective, got {strategy!r} beside {both}; "
            f"write strategy: {{name: nsga2}}"
        )
    if pruner != "none":
        raise ValueError(
            f"pruner.name: compares metrics alone and would stop small models, got {pruner!r} "
            f"beside {both}; write pruner: {{name: none}}"
        )


def _check_task(experiment: Experiment) -> None:
    """Check what is measured and minimized against what is predicted."""
    task, metric = experiment.task, experiment.objective.metric
    classes, quantiles = task.kind in ("classify", "label"), bool(task.quantiles)
    of, texts = METRICS[metric].of, task.kind == "translate"
    said = (
        ["texts"] if texts else ["classes"] if classes else ["values", "quantiles"][: 1 + quantiles]
    )
    if of == "any":
        pass  # a function says itself what it cannot measure
    elif of not in said:
        fits = [name for name, m in METRICS.items() if m.of in said]
        what = "task.quantiles" if of == "quantiles" else of
        text = f"measures {what}, which {task.kind} does not predict, got {metric!r}; "
        raise ValueError(f"objective.metric: {text}write {', '.join(fits)}")
    allowed = (
        ["auto", "cross_entropy"]
        if classes or texts
        else ["auto", "quantile"]
        if quantiles
        else ["auto", "mse", "mae", "huber"]
    )
    predicted = "quantiles" if quantiles else said[0]
    own = [loss for loss in _values(experiment, "loss") if is_own(loss)]
    if not (classes or quantiles or texts):
        allowed += own
    allowed += [loss for loss in own if is_reference(loss)]
    _refuse(experiment, "loss", allowed, f"does not fit {predicted}: write {' or '.join(allowed)}")
    if not classes:
        _refuse(experiment, "class_weights", ["none"], f"{task.kind} has no classes")
    if task.kind != "forecast":
        _refuse(experiment, "decoder", ["direct"], f"{task.kind} has no horizon to decode")
    if not task.of_series:
        text = f"{task.kind} reads whole sequences"
        if task.kind == "classify":
            text += ": write task.window too for the class of a series' coming row, or remove it"
        _refuse(experiment, "window", [None], text)
    if task.each_step:
        text = f"{task.kind} says something of every step, so it reads every step"
        _refuse(experiment, "pooling", ["last"], text)
    if not texts:
        _refuse(experiment, "beam", [1], f"is of texts that are said, and {task.kind} says none")
    else:
        ways = ["last", "mean", "max"]
        text = f"is what a text begins with: write {', '.join(ways)}"
        _refuse(experiment, "pooling", ways, text)
        cells = list(MODEL_CELLS)
        text = f"translate has a decoder of the same cell: write {', '.join(cells)}"
        _refuse(experiment, "cell", cells, text)
    if not (experiment.data.text or experiment.data.tokens or experiment.data.categories):
        for name in ("embedding_size", "unknown_rate"):
            default = Hyperparameters.model_fields[name].default
            _refuse(
                experiment, name, [default], "is of tokens and data.categories, and there are none"
            )


def _check_reading(experiment: Experiment) -> None:
    """Check how what is read is brought to the recurrent layers, against what it is."""
    data, task = experiment.data, experiment.task
    for name, none in (("normalize", "none"), ("linear_path", False)):
        if task.kind != "forecast" and name == "normalize":
            what = "says no value" if task.of_coming_class else "has no window"
            _refuse(experiment, name, [none], f"is of forecasts, and {task.kind} {what}")
        elif task.of_coming_class:
            text = "is of forecasts and of whole sequences, and classify reads windows here"
            _refuse(experiment, name, [none], text)
        elif task.each_step:
            text = f"is of whole sequences, and {task.kind} is of steps"
            _refuse(experiment, name, [none], text)
        elif task.kind != "forecast":
            if data.text is not None or data.tokens is not None:
                _refuse(experiment, name, [none], "is of numbers, and the steps are tokens")
        elif problem := _unread_target(experiment):
            _refuse(experiment, name, [none], f"{problem}, or write {_shown(none)} here")
    if task.each_step:
        text = f"{task.kind} says something of every step, so it reads every step"
        _refuse(experiment, "segment", [1], text)
    if data.text is not None or data.tokens is not None:
        _refuse(experiment, "segment", [1], "is of numbers, and the steps are tokens")
    if task.of_series:
        longest = max(_values(experiment, "segment"))
        shortest = min(_windows(experiment))
        if longest > shortest:
            text = f"must be at most the window, whose least is {shortest}, got {longest}; "
            raise ValueError(
                f"{_key(experiment, 'segment')}: {text}write {shortest}, or a longer window"
            )
    if max(_values(experiment, "conv_channels")) == 0:
        default = Hyperparameters.model_fields["conv_kernel"].default
        text = "is of the convolution, and conv_channels is 0: write that first"
        _refuse(experiment, "conv_kernel", [default], text)


def _unread_target(experiment: Experiment) -> str | None:
    """Say which target is not among the features, and what to do about it but for leaving it."""
    data = experiment.data
    if data.features is None or set(data.targets) <= set(data.features):
        return None
    lacking = next(target for target in data.targets if target not in data.features)
    near = near_miss(lacking, data.features)
    meant = "" if near is None else f" ({near!r}?)"
    text = f"needs every target among data.features, which lack {lacking!r}"
    return f"{text}: write it there, correct data.target{meant}"


def _windows(experiment: Experiment) -> tuple[int, ...]:
    """Return how many rows a forecast may read, of a range its ends."""
    windows = _values(experiment, "window")
    return tuple(experiment.task.window if window is None else window for window in windows)


def _check_forecast(experiment: Experiment) -> None:
    data, task = experiment.data, experiment.task
    for key in ("text", "tokens", "max_length"):
        if value := getattr(data, key):
            text = f"is of sequences, got {value!r} with kind forecast; "
            raise ValueError(f"data.{key}: {text}write task.kind: classify, say, or remove it")
    _check_decomposition(experiment)
    if data.missing == "skip" and data.known_future is not None:
        text = "leaves out windows that read a gap, and not those that know of one ahead, got "
        raise ValueError(f"data.missing: {text}'skip' with data.known_future; write ffill")
    if data.split.group is not None:
        raise ValueError(
            f"data.split.group: is of independent sequences, got {data.split.group!r} with kind "
            f"forecast; remove it: series are cut in order of time"
        )
    short = [n for n in differences_of(data.transform) if n < task.horizon]
    if task.quantiles and short:
        got = "difference" if short[0] == 1 else f"seasonal_difference: {short[0]}"
        raise ValueError(
            f"data.transform: quantiles of differences do not add up over a horizon, got {got!r} "
            f"with task.quantiles and task.horizon {task.horizon}; write none or log, or a "
            f"seasonal_difference of {max(2, task.horizon)} rows or more"
        )


def _check_coming_class(experiment: Experiment) -> None:
    """Check what is read for the class of a series' coming row: classes are no numbers."""
    data = experiment.data
    if len(data.targets) > 1:
        text = f"classify predicts one column, got {len(data.targets)}; keep one"
        raise ValueError(f"data.target: {text}")
    for key in ("text", "tokens", "max_length"):
        if value := getattr(data, key):
            text = f"is of sequences, got {value!r} with task.window; "
            raise ValueError(f"data.{key}: {text}remove one of them")
    for key, none in (("transform", "none"), ("decompose", "none"), ("wide", None)):
        if (value := getattr(data, key)) != none:
            text = f"is of numbers that are forecast, got {value!r} with classify; remove it"
            raise ValueError(f"data.{key}: {text}")
    if data.missing == "interpolate":
        text = "classes lie on no line, got 'interpolate' with classify; write ffill, or refuse"
        raise ValueError(f"data.missing: {text}")
    if data.resample is not None and data.aggregate != "last":
        text = f"a step has the class of its last row, got {data.aggregate!r} with classify"
        raise ValueError(f"data.aggregate: {text}; write last")
    if (target := data.targets[0]) in data.lags:
        text = f"are of numbers, got the class {target!r}; remove it, and write a longer window"
        raise ValueError(f"data.lags: {text}")


def _check_known_future(experiment: Experiment) -> None:
    """Check that something is known ahead where that is said: columns, or the calendar."""
    domain = experiment.search_space.get("calendar")
    searched = [value_of(str(choice)) for choice in domain.bounds()] if domain else []
    if experiment.data.known_future == [] and not any([experiment.data.calendar, *searched]):
        raise ValueError(
            "data.known_future: must name columns, or be [] beside data.calendar, got [] without; "
            "write known_future: [holiday], say, or remove it"
        )


def _check_decomposition(experiment: Experiment) -> None:
    """Check that what is split is read, by windows that are long enough."""
    decompose = experiment.data.decompose
    if decompose == "none":
        return
    if problem := _unread_target(experiment):
        raise ValueError(f"data.decompose: {problem}, or write none here")
    shortest = min(_windows(experiment))
    if decompose.length is not None and decompose.length > shortest:
        raise ValueError(
            f"data.decompose.length: must be at most the window, whose least is {shortest}, got "
            f"{decompose.length}; write {shortest}, or a longer window"
        )
    if decompose.components is not None and shortest < 3:
        raise ValueError(
            f"data.decompose: emd needs 3 rows or more, got a window of {shortest}; write a longer "
            f"one, or none here"
        )


def _check_sequences(experiment: Experiment) -> None:
    data, kind = experiment.data, experiment.task.kind
    if kind == "translate" and data.text is None:
        text = "is required by translate: the column of texts that are read, got none; set it"
        raise ValueError(f"data.text: {text}")
    if kind in ("classify", "label", "translate") and len(data.targets) > 1:
        raise ValueError(
            f"data.target: {kind} predicts one column, got {len(data.targets)}; keep one"
        )
    if data.text is None and data.id is None:
        text = f"is required by {kind}: the column that says which sequence a row is of, got none"
        ways = "set it, or data.text where each row holds a text"
        if kind == "classify":
            ways += ", or task.window for the class of a series' coming row"
        raise ValueError(f"data.id: {text}; {ways}")
    if data.text is not None:
        if experiment.task.each_step:
            text = f"has one target, got {data.text!r} with kind {kind}; "
            raise ValueError(f"data.text: {text}write one token a row, and data.tokens")
        for key in ("id", "time"):
            if value := getattr(data, key):
                text = f"each row is a sequence of its own, got {value!r} beside data.text"
                raise ValueError(f"data.{key}: {text}; remove it")
    if experiment.task.each_step and data.max_length is not None:
        text = f"every step has a target, got {data.max_length} with kind {kind}"
        raise ValueError(f"data.max_length: {text}; remove it, or give each piece an id of its own")
    of_forecasts: dict[str, Any] = {
        "transform": "none", "scale_by": "all", "resample": None, "calendar": [], "lags": {},
        "decompose": "none", "wide": None, "known_future": None, "categories": [], "static": [],
    }  # fmt: skip
    for key, neutral in of_forecasts.items():
        if (value := getattr(data, key)) != neutral:
            raise ValueError(f"data.{key}: is of forecasts, got {value!r} with {kind}; remove it")
    if data.missing == "skip":
        text = f"leaves out windows of a series, got 'skip' with {kind}"
        raise ValueError(f"data.missing: {text}; write ffill, or interpolate")
    for key in ("validation", "test"):
        value = getattr(data.split, key)
        if isinstance(value, str | Folds):
            what = "a date" if isinstance(value, str) else "folds"
            text = f"sequences have no order in time, got {what}; write a share or a number"
            raise ValueError(f"data.split.{key}: {text}")


def _shown(value: Any) -> str:
    """Return a value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(experiment: Experiment, name: str, allowed: list[Any], why: str) -> None:
    """Refuse every value of a hyperparameter, fixed or searched, but the ones allowed."""
    for value in _values(experiment, name):
        if value not in allowed:
            remedy = "" if ": write " in why else "; remove it"
            raise ValueError(f"{_key(experiment, name)}: {why}, got {value!r}{remedy}")


def _values(experiment: Experiment, name: str) -> tuple[Any, ...]:
    """Return what a hyperparameter may be; of a range, its ends."""
    if name in experiment.search_space:
        return experiment.search_space[name].bounds()
    return (getattr(experiment.hyperparameters, name),)


def _key(experiment: Experiment, name: str) -> str:
    return f"search_space.{name}" if name in experiment.search_space else f"hyperparameters.{name}"
