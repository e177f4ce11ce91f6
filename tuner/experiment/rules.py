"""Rules between the blocks of an experiment: what does not go together is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.cells import CELLS
from tuner.errors import ExperimentError, InputError, near_miss, nearest
from tuner.experiment.cells import check_own_cells, check_own_domain, own_keys
from tuner.experiment.data import Folds, check_weights
from tuner.experiment.fields import is_own, key_meant
from tuner.experiment.hyperparameters import WHOLE, WIDTH, Hyperparameters, check_value
from tuner.experiment.space import PREPARED, value_of
from tuner.metrics import METRICS
from tuner.pipeline_steps import differences_of
from tuner.user_code import is_reference

if TYPE_CHECKING:
    from tuner.experiment.schema import Experiment

__all__ = ["check_rules"]


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
        rule = "must be a number where nothing else ends the search"
        remedy = "write 40, or give budget.timeout or budget.stagnation"
        raise ExperimentError(rule, key="budget.trials", got="null", remedy=remedy)
    if experiment.pruner.name == "wilcoxon" and experiment.n_folds < 2:
        rule = "wilcoxon compares folds"
        remedy = "write data.split.validation: {folds: 5, size: 0.1}, or name: median"
        raise ExperimentError(rule, key="pruner.name", got="no rolling origins", remedy=remedy)
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
        rule = "brute tries every configuration"
        got = f"the continuum search_space.{endless[0]}"
        raise ExperimentError(rule, key="strategy.name", got=got, remedy="give it a step")
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
                known = meant.replace("hyperparameters.", "search_space.")
            raise ExperimentError(f"unknown hyperparameter {name!r}", key=key, remedy=known)
        if domain.type == "float" and (name in WHOLE or WIDTH.fullmatch(name)):
            raise ExperimentError(
                "is a whole number", key=f"{key}.type", got="'float'", remedy="write `type: int`"
            )
        for value in () if name in own else domain.bounds():
            if problem := check_value(name, value):
                remedy = "change it"
                if name == "hidden_size" and str(value).startswith("["):
                    remedy = "write hidden_size_1 and hidden_size_2, of each layer its own"
                rule = f"every value {problem}"
                raise ExperimentError(rule, key=key, got=repr(value), remedy=remedy)
        start = experiment.given(name)
        given = "hidden_size" if WIDTH.fullmatch(name) else name
        if given in experiment.hyperparameters.model_fields_set and start not in domain:
            rule = f"the search starts at this value, which must lie in search_space.{name}"
            remedy = "move it or widen the space"
            raise ExperimentError(
                rule, key=f"hyperparameters.{given}", got=repr(start), remedy=remedy
            )


def _check_preparations(experiment: Experiment) -> None:
    """Check every choice of a preparation as if `data` said it."""
    space, recorded = experiment.search_space, experiment.recorded
    for name in PREPARED:
        key, choices = f"search_space.{name}", tuple[str, ...]()
        if domain := space.get(name):
            if domain.type != "categorical":
                rule = "is one of several values"
                remedy = "write `type: categorical`"
                raise ExperimentError(rule, key=f"{key}.type", got=repr(domain.type), remedy=remedy)
            choices = domain.bounds()
            start = experiment.given(name)
            if name in experiment.data.model_fields_set and start not in choices:
                rule = f"the search starts at this value, which must lie in {key}"
                remedy = "move it or widen the space"
                raise ExperimentError(rule, key=f"data.{name}", got=start, remedy=remedy)
        elif recorded is not None and name in recorded.preparations:
            key, choices = f"recorded.preparations.{name}", tuple(recorded.preparations[name])
        for choice in choices:
            try:
                chosen = experiment.prepared_as({name: choice})
                check_rules(chosen.model_copy(update={"recorded": None}))
            except InputError as error:
                parts = [part for part in (error.key or "").split(".") if part != "data"]
                own = None if parts[0] in ("", name) else error.key
                rule = ": ".join(filter(None, (f"with the choice {choice}", own, error.rule)))
                raise error.with_(key=key, rule=rule) from None


def _check_widths(experiment: Experiment) -> None:
    """Check that layers which are searched one by one are numbered from 1, and nothing else."""
    space, fixed = experiment.search_space, experiment.hyperparameters
    layers = sorted(int(m[1]) for name in space if (m := WIDTH.fullmatch(name)))
    for missing in set(range(1, len(layers) + 1)) - set(layers):
        raise ExperimentError(
            "the layers are numbered from 1",
            key=f"search_space.hidden_size_{layers[-1]}",
            got=f"no hidden_size_{missing}",
            remedy="add it, or number them anew",
        )
    several = bool(layers) or isinstance(fixed.hidden_size, list)
    for name in ("hidden_size", "num_layers"):
        if several and name in space:
            rule = "every layer has a width of its own"
            raise ExperimentError(
                rule, key=f"search_space.{name}", got=f"{name} as well", remedy="remove one of them"
            )
    n_given = len(fixed.hidden_size) if isinstance(fixed.hidden_size, list) else len(layers)
    if layers and n_given != len(layers):
        rule = (
            "the search starts at these widths, which must be as many as search_space has layers "
            f"({len(layers)})"
        )
        remedy = "give each layer one"
        raise ExperimentError(rule, key="hyperparameters.hidden_size", got=n_given, remedy=remedy)
    if layers and fixed.num_layers not in (1, len(layers)):
        rule = f"must be the number of layers in search_space ({len(layers)})"
        raise ExperimentError(
            rule, key="hyperparameters.num_layers", got=fixed.num_layers, remedy="leave it out"
        )


def _check_cell(experiment: Experiment) -> None:
    check_own_cells(experiment)
    cells = _values(experiment, "cell")
    projecting = [name for name, cell in CELLS.items() if cell.projects]
    if others := [cell for cell in cells if cell not in projecting]:
        text = f"{others[0]} has no projection, only {' and '.join(projecting)} has one"
        _refuse(experiment, "proj_size", [0], text)
    nonlinear = [name for name, cell in CELLS.items() if cell.nonlinear]
    if others := [cell for cell in cells if cell not in nonlinear]:
        text = f"is of the cell {' and '.join(nonlinear)}, and {others[0]} has its own"
        _refuse(experiment, "nonlinearity", ["tanh"], text)
    widths = [
        v for n in experiment.search_space if WIDTH.fullmatch(n) for v in _values(experiment, n)
    ]
    for value in () if widths else _values(experiment, "hidden_size"):
        widths += value if isinstance(value, list) else [value]
    for value in _values(experiment, "proj_size"):
        if value >= min(widths):
            rule = f"must be below hidden_size, whose least is {min(widths)}"
            remedy = "make it smaller, or 0"
            raise ExperimentError(rule, key=_key(experiment, "proj_size"), got=value, remedy=remedy)


def _check_objectives(experiment: Experiment) -> None:
    """Check that what searches and what prunes know of a second objective."""
    if experiment.objective.metrics is None:
        return
    both = f"objective.metrics: [{', '.join(experiment.objective.metrics)}]"
    strategy, pruner = experiment.strategy.name, experiment.pruner.name
    if strategy != "nsga2":
        rule = "searches by one objective"
        got = f"{strategy!r} beside {both}"
        remedy = "write strategy: {name: nsga2}"
        raise ExperimentError(rule, key="strategy.name", got=got, remedy=remedy)
    if pruner != "none":
        rule = "compares metrics alone and would stop small models"
        got = f"{pruner!r} beside {both}"
        raise ExperimentError(rule, key="pruner.name", got=got, remedy="write pruner: {name: none}")


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
        rule = f"measures {what}, which {task.kind} does not predict"
        remedy = f"write {', '.join(fits)}"
        raise ExperimentError(rule, key="objective.metric", got=repr(metric), remedy=remedy)
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
    remedy = f"write {' or '.join(allowed)}"
    _refuse(experiment, "loss", allowed, f"does not fit {predicted}", remedy)
    if not classes:
        _refuse(experiment, "class_weights", ["none"], f"{task.kind} has no classes")
    if task.kind != "forecast":
        _refuse(experiment, "decoder", ["direct"], f"{task.kind} has no horizon to decode")
    if not task.of_series:
        remedy = "remove it"
        if task.kind == "classify":
            remedy = "write task.window too for the class of a series' coming row, or remove it"
        _refuse(experiment, "window", [None], f"{task.kind} reads whole sequences", remedy)
    if task.each_step:
        text = f"{task.kind} says something of every step, so it reads every step"
        _refuse(experiment, "pooling", ["last"], text)
    if not texts:
        _refuse(experiment, "beam", [1], f"is of texts that are said, and {task.kind} says none")
    else:
        ways = ["last", "mean", "max"]
        _refuse(
            experiment, "pooling", ways, "is what a text begins with", f"write {', '.join(ways)}"
        )
        cells = list(CELLS)
        rule = "translate has a decoder of the same cell"
        _refuse(experiment, "cell", cells, rule, f"write {', '.join(cells)}")
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
        elif unread := _unread_target(experiment):
            rule, remedy = unread
            _refuse(experiment, name, [none], rule, f"{remedy}, or write {_shown(none)} here")
    if task.each_step:
        text = f"{task.kind} says something of every step, so it reads every step"
        _refuse(experiment, "segment", [1], text)
    if data.text is not None or data.tokens is not None:
        _refuse(experiment, "segment", [1], "is of numbers, and the steps are tokens")
    if task.of_series:
        longest = max(_values(experiment, "segment"))
        shortest = min(_windows(experiment))
        if longest > shortest:
            rule = f"must be at most the window, whose least is {shortest}"
            remedy = f"write {shortest}, or a longer window"
            raise ExperimentError(rule, key=_key(experiment, "segment"), got=longest, remedy=remedy)
    if max(_values(experiment, "conv_channels")) == 0:
        default = Hyperparameters.model_fields["conv_kernel"].default
        rule = "is of the convolution, and conv_channels is 0"
        _refuse(experiment, "conv_kernel", [default], rule, "write that first")


def _unread_target(experiment: Experiment) -> tuple[str, str] | None:
    """Return the rule and the remedy where a target is not among the features."""
    data = experiment.data
    if data.features is None or set(data.targets) <= set(data.features):
        return None
    lacking = next(target for target in data.targets if target not in data.features)
    near = near_miss(lacking, data.features)
    meant = "" if near is None else f" ({near!r}?)"
    rule = f"needs every target among data.features, which lack {lacking!r}"
    return rule, f"write it there, correct data.target{meant}"


def _windows(experiment: Experiment) -> tuple[int, ...]:
    """Return how many rows a forecast may read, of a range its ends."""
    windows = _values(experiment, "window")
    return tuple(experiment.task.window if window is None else window for window in windows)


def _check_forecast(experiment: Experiment) -> None:
    data, task = experiment.data, experiment.task
    for key in ("text", "tokens", "max_length"):
        if value := getattr(data, key):
            got = f"{value!r} with kind forecast"
            remedy = "write task.kind: classify, say, or remove it"
            raise ExperimentError("is of sequences", key=f"data.{key}", got=got, remedy=remedy)
    _check_decomposition(experiment)
    if data.missing == "skip" and data.known_future is not None:
        rule = "leaves out windows that read a gap, and not those that know of one ahead"
        got = "'skip' with data.known_future"
        raise ExperimentError(rule, key="data.missing", got=got, remedy="write ffill")
    if data.split.group is not None:
        rule = "is of independent sequences"
        got = f"{data.split.group!r} with kind forecast"
        remedy = "remove it: series are cut in order of time"
        raise ExperimentError(rule, key="data.split.group", got=got, remedy=remedy)
    short = [n for n in differences_of(data.transform) if n < task.horizon]
    if task.quantiles and short:
        got = "difference" if short[0] == 1 else f"seasonal_difference: {short[0]}"
        rule = "quantiles of differences do not add up over a horizon"
        got = f"{got!r} with task.quantiles and task.horizon {task.horizon}"
        remedy = (
            f"write none or log, or a seasonal_difference of {max(2, task.horizon)} rows or more"
        )
        raise ExperimentError(rule, key="data.transform", got=got, remedy=remedy)


def _check_coming_class(experiment: Experiment) -> None:
    """Check what is read for the class of a series' coming row: classes are no numbers."""
    data = experiment.data
    if len(data.targets) > 1:
        rule = "classify predicts one column"
        raise ExperimentError(rule, key="data.target", got=len(data.targets), remedy="keep one")
    for key in ("text", "tokens", "max_length"):
        if value := getattr(data, key):
            rule = "is of sequences"
            got = f"{value!r} with task.window"
            raise ExperimentError(rule, key=f"data.{key}", got=got, remedy="remove one of them")
    for key, none in (("transform", "none"), ("decompose", "none"), ("wide", None)):
        if (value := getattr(data, key)) != none:
            rule = "is of numbers that are forecast"
            got = f"{value!r} with classify"
            raise ExperimentError(rule, key=f"data.{key}", got=got, remedy="remove it")
    if data.missing == "interpolate":
        rule = "classes lie on no line"
        got = "'interpolate' with classify"
        raise ExperimentError(rule, key="data.missing", got=got, remedy="write ffill, or refuse")
    if data.resample is not None and data.aggregate != "last":
        rule = "a step has the class of its last row"
        got = f"{data.aggregate!r} with classify"
        raise ExperimentError(rule, key="data.aggregate", got=got, remedy="write last")
    if (target := data.targets[0]) in data.lags:
        rule = "are of numbers"
        remedy = "remove it, and write a longer window"
        raise ExperimentError(rule, key="data.lags", got=f"the class {target!r}", remedy=remedy)


def _check_known_future(experiment: Experiment) -> None:
    """Check that something is known ahead where that is said: columns, or the calendar."""
    domain = experiment.search_space.get("calendar")
    searched = [value_of(str(choice)) for choice in domain.bounds()] if domain else []
    if experiment.data.known_future == [] and not any([experiment.data.calendar, *searched]):
        rule = "must name columns, or be [] beside data.calendar"
        remedy = "write known_future: [holiday], say, or remove it"
        raise ExperimentError(rule, key="data.known_future", got="[] without", remedy=remedy)


def _check_decomposition(experiment: Experiment) -> None:
    """Check that what is split is read, by windows that are long enough."""
    decompose = experiment.data.decompose
    if decompose == "none":
        return
    if unread := _unread_target(experiment):
        rule, remedy = unread
        raise ExperimentError(
            rule, key="data.decompose", got=decompose.kind, remedy=f"{remedy}, or write none here"
        )
    shortest = min(_windows(experiment))
    if decompose.length is not None and decompose.length > shortest:
        rule = f"must be at most the window, whose least is {shortest}"
        remedy = f"write {shortest}, or a longer window"
        raise ExperimentError(
            rule, key="data.decompose.length", got=decompose.length, remedy=remedy
        )
    if decompose.components is not None and shortest < 3:
        rule = "emd needs 3 rows or more"
        got = f"a window of {shortest}"
        remedy = "write a longer one, or none here"
        raise ExperimentError(rule, key="data.decompose", got=got, remedy=remedy)


def _check_sequences(experiment: Experiment) -> None:
    data, kind = experiment.data, experiment.task.kind
    if kind == "translate" and data.text is None:
        rule = "is required by translate: the column of texts that are read"
        raise ExperimentError(rule, key="data.text", got="none", remedy="set it")
    if kind in ("classify", "label", "translate") and len(data.targets) > 1:
        rule = f"{kind} predicts one column"
        raise ExperimentError(rule, key="data.target", got=len(data.targets), remedy="keep one")
    if data.text is None and data.id is None:
        rule = f"is required by {kind}: the column that says which sequence a row is of"
        ways = "set it, or data.text where each row holds a text"
        if kind == "classify":
            ways += ", or task.window for the class of a series' coming row"
        raise ExperimentError(rule, key="data.id", got="none", remedy=ways)
    if data.text is not None:
        if experiment.task.each_step:
            got = f"{data.text!r} with kind {kind}"
            remedy = "write one token a row, and data.tokens"
            raise ExperimentError("has one target", key="data.text", got=got, remedy=remedy)
        for key in ("id", "time"):
            if value := getattr(data, key):
                rule = "each row is a sequence of its own"
                got = f"{value!r} beside data.text"
                raise ExperimentError(rule, key=f"data.{key}", got=got, remedy="remove it")
    if experiment.task.each_step and data.max_length is not None:
        rule = "every step has a target"
        got = f"{data.max_length} with kind {kind}"
        remedy = "remove it, or give each piece an id of its own"
        raise ExperimentError(rule, key="data.max_length", got=got, remedy=remedy)
    of_forecasts: dict[str, Any] = {
        "transform": "none", "scale_by": "all", "resample": None, "calendar": [], "lags": {},
        "decompose": "none", "wide": None, "known_future": None, "categories": [], "static": [],
    }  # fmt: skip
    for key, neutral in of_forecasts.items():
        if (value := getattr(data, key)) != neutral:
            got = f"{value!r} with {kind}"
            raise ExperimentError("is of forecasts", key=f"data.{key}", got=got, remedy="remove it")
    if data.missing == "skip":
        rule = "leaves out windows of a series"
        remedy = "write ffill, or interpolate"
        raise ExperimentError(rule, key="data.missing", got=f"'skip' with {kind}", remedy=remedy)
    for key in ("validation", "test"):
        value = getattr(data.split, key)
        if isinstance(value, str | Folds):
            what = "a date" if isinstance(value, str) else "folds"
            rule = "sequences have no order in time"
            remedy = "write a share or a number"
            raise ExperimentError(rule, key=f"data.split.{key}", got=what, remedy=remedy)


def _shown(value: Any) -> str:
    """Return a value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(
    experiment: Experiment, name: str, allowed: list[Any], rule: str, remedy: str = "remove it"
) -> None:
    """Refuse every value of a hyperparameter, fixed or searched, but the ones allowed."""
    for value in _values(experiment, name):
        if value not in allowed:
            raise ExperimentError(rule, key=_key(experiment, name), got=repr(value), remedy=remedy)


def _values(experiment: Experiment, name: str) -> tuple[Any, ...]:
    """Return what a hyperparameter may be; of a range, its ends."""
    if name in experiment.search_space:
        return experiment.search_space[name].bounds()
    return (getattr(experiment.hyperparameters, name),)


def _key(experiment: Experiment, name: str) -> str:
    return f"search_space.{name}" if name in experiment.search_space else f"hyperparameters.{name}"
