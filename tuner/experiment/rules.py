"""Rules between the blocks of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from tuner.errors import ExperimentError, InputError, near_miss, nearest
from tuner.experiment.cells import DeclaredCell, Key, cell_of
from tuner.experiment.data import Folds
from tuner.experiment.hyperparameters import CELLS, WHOLE, WIDTH, Hyperparameters, check_value
from tuner.experiment.messages import key_meant
from tuner.experiment.space import PREPARED, Domain, value_of
from tuner.metrics import METRICS
from tuner.pipeline_steps import differences_of
from tuner.user_code import is_reference, is_user_code

if TYPE_CHECKING:
    from tuner.experiment.experiment import Experiment

_OF_SEQUENCES: dict[str, Any] = {"text": None, "tokens": None, "max_length": None}

_OF_NUMBERS: dict[str, Any] = {"transform": "none", "decompose": "none", "wide": None}

_OF_FORECASTS: dict[str, Any] = _OF_NUMBERS | {
    "scale_by": "all", "resample": None, "calendar": [], "lags": {}, "known_future": None,
    "categories": [], "static": [],
}  # fmt: skip
"""Keys of `data` with the value that means nothing."""


def check_rules(experiment: Experiment) -> None:
    """Check the blocks against each other.

    Raises:
        ExperimentError: two keys contradict each other.
    """
    _check_space(experiment)
    _check_widths(experiment)
    _check_cells(experiment)
    _check_objectives(experiment)
    _check_predicted(experiment)
    _check_read(experiment)
    _check_weights(experiment)
    budget = experiment.budget
    if experiment.n_trials is None and budget.timeout is None and budget.stagnation is None:
        rule = "must be a number where nothing else ends the search"
        _refuse(
            "budget.trials", rule, "null", "write 40, or give budget.timeout or budget.stagnation"
        )
    if experiment.pruner.name == "wilcoxon" and experiment.n_folds < 2:
        remedy = "write data.split.validation: {folds: 5, size: 0.1}, or name: median"
        _refuse("pruner.name", "wilcoxon compares folds", "no rolling origins", remedy)
    if experiment.task.kind == "forecast":
        _check_forecast(experiment)
    elif experiment.task.of_coming_class:
        _check_coming_class(experiment)
    else:
        _check_sequences(experiment)
    if experiment.task.of_series:
        _check_known_future(experiment)
    _check_preparations(experiment)


def _check_space(experiment: Experiment) -> None:
    space, own = experiment.search_space, dict[str, list[Key]]()
    for cell in experiment.cells:  # two may declare the same name
        for name, declared in cell.keys.items():
            own.setdefault(name, []).append(declared)
    endless = [name for name, domain in space.items() if domain.size() is None]
    if experiment.strategy.name == "brute" and endless:
        got = f"the continuum search_space.{endless[0]}"
        _refuse("strategy.name", "brute tries every configuration", got, "give it a step")
    for name, domain in space.items():
        if name in PREPARED:
            continue
        if name in own:
            for value in domain.bounds():
                for key in own[name]:
                    rule = f"every value must lie in what its cell declares, {key.in_words}"
                    _require(value in key.range, f"search_space.{name}", rule, repr(value))
        else:
            _check_domain(name, domain, list(own))
        given = "hidden_size" if WIDTH.fullmatch(name) else name
        if given in experiment.hyperparameters.model_fields_set:
            _check_start(f"hyperparameters.{given}", experiment.given(name), name, domain)


def _check_domain(name: str, domain: Domain, own: list[str]) -> None:
    """Check the domain of one of tuner's own hyperparameters."""
    key, is_width = f"search_space.{name}", WIDTH.fullmatch(name) is not None
    if name not in Hyperparameters.model_fields and not is_width:
        known = nearest(name, [*own, *Hyperparameters.model_fields, "hidden_size_1", *PREPARED])
        if (meant := key_meant(name)) is not None and "hyperparameters." in meant:
            known = meant.replace("hyperparameters.", "search_space.")
        raise ExperimentError(f"unknown hyperparameter {name!r}", key=key, remedy=known)
    if domain.type == "float" and (name in WHOLE or is_width):
        _refuse(f"{key}.type", "is a whole number", "'float'", "write `type: int`")
    for value in domain.bounds():
        if problem := check_value(name, value):
            remedy = "change it"
            if name == "hidden_size" and str(value).startswith("["):
                remedy = "write hidden_size_1 and hidden_size_2, of each layer its own"
            _refuse(key, f"every value {problem}", repr(value), remedy)


def _check_start(key: str, start: Any, name: str, domain: Domain) -> None:
    rule = f"the search starts at this value, which must lie in search_space.{name}"
    _require(start in domain, key, rule, repr(start), "move it or widen the space")


def _check_preparations(experiment: Experiment) -> None:
    """Check every choice of a preparation as if `data` had it."""
    recorded = {} if experiment.recorded is None else experiment.recorded.preparations
    for name in PREPARED:
        key, choices = f"search_space.{name}", tuple[str, ...]()
        if domain := experiment.search_space.get(name):
            if domain.type != "categorical":
                rule, remedy = "is one of several values", "write `type: categorical`"
                _refuse(f"{key}.type", rule, repr(domain.type), remedy)
            choices = domain.bounds()
            if name in experiment.data.model_fields_set:
                _check_start(f"data.{name}", experiment.given(name), name, domain)
        elif name in recorded:
            key, choices = f"recorded.preparations.{name}", tuple(recorded[name])
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
    """Check that layers with a width each are numbered from 1, and have no width in common."""
    space, fixed = experiment.search_space, experiment.hyperparameters
    layers = sorted(int(m[1]) for name in space if (m := WIDTH.fullmatch(name)))
    for missing in set(range(1, len(layers) + 1)) - set(layers):
        key, remedy = f"search_space.hidden_size_{layers[-1]}", "add it, or number them anew"
        _refuse(key, "the layers are numbered from 1", f"no hidden_size_{missing}", remedy)
    several = bool(layers) or isinstance(fixed.hidden_size, list)
    for name in ("hidden_size", "num_layers"):
        if several and name in space:
            rule, got = "every layer has a width of its own", f"{name} as well"
            _refuse(f"search_space.{name}", rule, got, "remove one of them")
    n, n_given = len(layers), len(layers)
    if isinstance(fixed.hidden_size, list):
        n_given = len(fixed.hidden_size)
    if layers:
        rule = f"the search starts at these widths, of which search_space has {n}"
        _require(n_given == n, "hyperparameters.hidden_size", rule, n_given, "give each layer one")
        rule, key = f"must be the number of layers in search_space ({n})", "num_layers"
        fits = fixed.num_layers in (1, n)
        _require(fits, f"hyperparameters.{key}", rule, fixed.num_layers, "leave it out")


def _check_cells(experiment: Experiment) -> None:
    cells = _values(experiment, "cell")
    declared = [cell_of(experiment.cells, name) for name in cells]
    _check_declared(experiment)
    for cell in declared:
        if cell is not None and not cell.whole:
            rule = "a decoder begins with a state, which a layer from user code does not return"
            _only(experiment, "decoder", ["direct"], rule, beside=cell.name)
            _only(experiment, "bias", [True], "is of tuner's own cells", beside=cell.name)
        elif cell is not None:
            rule = "adds to tuner's own layers"
            _only(experiment, "linear_path", [False], rule, beside=cell.name)
    wholes = [cell for cell in declared if cell is not None and cell.whole]
    if len(wholes) == len(declared):
        _check_whole_models(experiment, wholes)
    projecting = [name for name, cell in CELLS.items() if cell.projects]
    if others := [cell for cell in cells if cell not in projecting]:
        rule = f"{others[0]} has no projection, only {' and '.join(projecting)} has one"
        _only(experiment, "proj_size", [0], rule)
    nonlinear = [name for name, cell in CELLS.items() if cell.nonlinear]
    if others := [cell for cell in cells if cell not in nonlinear]:
        rule = f"is of the cell {' and '.join(nonlinear)}, and {others[0]} has its own"
        _only(experiment, "nonlinearity", ["tanh"], rule)
    names = [n for n in experiment.search_space if WIDTH.fullmatch(n)] or ["hidden_size"]
    widths = [value for name in names for value in _values(experiment, name)]
    least = min(min(width) if isinstance(width, list) else width for width in widths)
    for value in _values(experiment, "proj_size"):
        rule = f"must be below hidden_size, whose least is {least}"
        _require(value < least, _key(experiment, "proj_size"), rule, value, "make it smaller, or 0")


def _check_declared(experiment: Experiment) -> None:
    """Check the keys that are fixed beside tuner's own: the cell declares them."""
    fixed = experiment.hyperparameters
    cell = cell_of(experiment.cells, fixed.cell)
    declared = {} if cell is None else cell.keys
    for name, value in (fixed.model_extra or {}).items():
        key = f"hyperparameters.{name}"
        if name not in declared:
            known = nearest(name, [*declared, *Hyperparameters.model_fields])
            raise ExperimentError(f"unknown key {name!r}", key=key, remedy=known)
        rule = f"must lie in what its cell declares, {declared[name].in_words}"
        _require(value in declared[name].range, key, rule, repr(value))


def _check_whole_models(experiment: Experiment, cells: list[DeclaredCell]) -> None:
    """Refuse the hyperparameters of tuner's own layers that no model takes."""
    of_layers = (
        "nonlinearity", "hidden_size", "num_layers", "dropout", "bidirectional", "bias",
        "proj_size", "pooling", "decoder", "linear_path", "segment", "conv_channels",
        "conv_kernel", "embedding_size",
    )  # fmt: skip
    taken = {name for cell in cells for name in cell.takes}
    taken |= {"embedding_size"} if experiment.data.categories else set()
    for name in of_layers:
        searched = [
            each
            for each in experiment.search_space
            if each == name or (name == "hidden_size" and WIDTH.fullmatch(each))
        ]
        value, default = experiment.given(name), Hyperparameters.model_fields[name].default
        given = name in experiment.hyperparameters.model_fields_set and value != default
        if name not in taken and (searched or given):
            key = f"search_space.{searched[0]}" if searched else f"hyperparameters.{name}"
            rule = f"{cells[0].name} is a whole model and does not take it"
            _refuse(key, rule, repr(value))


def _check_objectives(experiment: Experiment) -> None:
    """Check that strategy and pruner support a second objective."""
    if experiment.objective.metrics is None:
        return
    both = f"beside objective.metrics: [{', '.join(experiment.objective.metrics)}]"
    strategy, pruner = experiment.strategy.name, experiment.pruner.name
    if strategy != "nsga2":
        rule, got = "searches by one objective", f"{strategy!r} {both}"
        _refuse("strategy.name", rule, got, "write strategy: {name: nsga2}")
    if pruner != "none":
        rule = "compares metrics alone and would stop small models"
        _refuse("pruner.name", rule, f"{pruner!r} {both}", "write pruner: {name: none}")


def _check_predicted(experiment: Experiment) -> None:
    """Check metric, loss and head against the kind of the task."""
    task, metric = experiment.task, experiment.objective.metric
    kind, quantiles = task.kind, bool(task.quantiles)
    classes, texts = kind in ("classify", "label"), kind == "translate"
    predicted = ["values", "quantiles"][: 1 + quantiles]
    if classes or texts:
        predicted = ["classes" if classes else "texts"]
    measured = METRICS[metric].of
    if measured not in ("any", *predicted):
        fits = [name for name, m in METRICS.items() if m.of in predicted]
        what = "task.quantiles" if measured == "quantiles" else measured
        rule = f"measures {what}, which {kind} does not predict"
        _refuse("objective.metric", rule, repr(metric), f"write {', '.join(fits)}")
    own = [loss for loss in _values(experiment, "loss") if is_user_code(loss)]
    if classes or texts:
        losses = ["auto", "cross_entropy"]
    else:
        losses = ["auto", "quantile"] if quantiles else ["auto", "mse", "mae", "huber", *own]
    losses += [loss for loss in own if is_reference(loss) and loss not in losses]
    remedy = f"write {' or '.join(losses)}"
    _only(experiment, "loss", losses, f"does not fit {predicted[-1]}", remedy)
    if not classes:
        _only(experiment, "class_weights", ["none"], f"{kind} has no classes")
    if kind != "forecast":
        _only(experiment, "decoder", ["direct"], f"{kind} has no horizon to decode")
    if not task.of_series:
        remedy = "remove it"
        if kind == "classify":
            remedy = "write task.window too for the class of a series' coming row, or remove it"
        _only(experiment, "window", [None], f"{kind} reads whole sequences", remedy)
    if texts:
        ways, cells = ["last", "mean", "max"], list(CELLS)
        rule = "is what a text begins with"
        _only(experiment, "pooling", ways, rule, f"write {', '.join(ways)}")
        rule = "translate has a decoder of the same cell"
        _only(experiment, "cell", cells, rule, f"write {', '.join(cells)}")
    else:
        _only(experiment, "beam", [1], f"is of predicted texts, and {kind} predicts none")


def _check_read(experiment: Experiment) -> None:
    """Check the layers before the recurrent ones against the data."""
    data, task = experiment.data, experiment.task
    kind, tokens = task.kind, data.text is not None or data.tokens is not None
    if kind != "forecast":
        what = "predicts no value" if task.of_coming_class else "has no window"
        _only(experiment, "normalize", ["none"], f"is of forecasts, and {kind} {what}")
        rule = None
        if task.of_coming_class:
            rule = "is of forecasts and of whole sequences, and classify reads windows here"
        elif task.each_step:
            rule = f"is of whole sequences, and {kind} is of steps"
        elif tokens:
            rule = "is of numbers, and the steps are tokens"
        if rule is not None:
            _only(experiment, "linear_path", [False], rule)
    elif unread := _unread_target(experiment):
        rule, remedy = unread
        _only(experiment, "normalize", ["none"], rule, f"{remedy}, or write none here")
        _only(experiment, "linear_path", [False], rule, f"{remedy}, or write false here")
    if task.each_step:
        rule = f"{kind} predicts every step, so it reads every step"
        _only(experiment, "pooling", ["last"], rule)
        _only(experiment, "segment", [1], rule)
    if tokens:
        _only(experiment, "segment", [1], "is of numbers, and the steps are tokens")
    elif not data.categories:
        for name in ("embedding_size", "unknown_rate"):
            default = Hyperparameters.model_fields[name].default
            rule = "is of tokens and data.categories, and there are none"
            _only(experiment, name, [default], rule)
    if task.of_series:
        longest = max(_values(experiment, "segment"))
        _check_in_window(experiment, _key(experiment, "segment"), longest)
    if max(_values(experiment, "conv_channels")) == 0:
        default = Hyperparameters.model_fields["conv_kernel"].default
        rule = "is of the convolution, and conv_channels is 0"
        _only(experiment, "conv_kernel", [default], rule, "write that first")


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


def _shortest_window(experiment: Experiment) -> int:
    windows = _values(experiment, "window")
    return min(experiment.task.window if window is None else window for window in windows)


def _check_in_window(experiment: Experiment, key: str, length: int) -> None:
    shortest = _shortest_window(experiment)
    rule = f"must be at most the window, whose least is {shortest}"
    _require(length <= shortest, key, rule, length, f"write {shortest}, or a longer window")


def _check_forecast(experiment: Experiment) -> None:
    data, task = experiment.data, experiment.task
    remedy = "write task.kind: classify, say, or remove it"
    _without(experiment, _OF_SEQUENCES, "is of sequences", "with kind forecast", remedy)
    if (decompose := data.decompose) != "none":
        if unread := _unread_target(experiment):
            rule, remedy = unread
            _refuse("data.decompose", rule, decompose.kind, f"{remedy}, or write none here")
        if decompose.length is not None:
            _check_in_window(experiment, "data.decompose.length", decompose.length)
        shortest = _shortest_window(experiment)
        if decompose.components is not None and shortest < 3:
            got, remedy = f"a window of {shortest}", "write a longer one, or none here"
            _refuse("data.decompose", "emd needs 3 rows or more", got, remedy)
    if data.missing == "skip" and data.known_future is not None:
        rule = "leaves out windows with a gap, but not those with a gap in known future values"
        _refuse("data.missing", rule, "'skip' with data.known_future", "write ffill")
    if data.split.group is not None:
        rule, got = "is of independent sequences", f"{data.split.group!r} with kind forecast"
        _refuse("data.split.group", rule, got, "remove it: series are cut in order of time")
    short = [n for n in differences_of(data.transform) if n < task.horizon]
    if task.quantiles and short:
        step = "difference" if short[0] == 1 else f"seasonal_difference: {short[0]}"
        got = f"{step!r} with task.quantiles and task.horizon {task.horizon}"
        least = max(2, task.horizon)
        remedy = f"write none or log, or a seasonal_difference of {least} rows or more"
        rule = "quantiles of differences do not add up over a horizon"
        _refuse("data.transform", rule, got, remedy)


def _check_coming_class(experiment: Experiment) -> None:
    """Check the data of a series whose coming row is classified: classes are no numbers."""
    data = experiment.data
    _check_one_target(experiment)
    remedy = "remove one of them"
    _without(experiment, _OF_SEQUENCES, "is of sequences", "with task.window", remedy)
    _without(experiment, _OF_NUMBERS, "is of numbers that are forecast", "with classify")
    if data.missing == "interpolate":
        got, remedy = "'interpolate' with classify", "write ffill, or refuse"
        _refuse("data.missing", "classes lie on no line", got, remedy)
    if data.resample is not None and data.aggregate != "last":
        rule, got = "a step has the class of its last row", f"{data.aggregate!r} with classify"
        _refuse("data.aggregate", rule, got, "write last")
    if (target := data.targets[0]) in data.lags:
        remedy = "remove it, and write a longer window"
        _refuse("data.lags", "are of numbers", f"the class {target!r}", remedy)


def _check_one_target(experiment: Experiment) -> None:
    n, kind = len(experiment.data.targets), experiment.task.kind
    if kind in ("classify", "label", "translate"):
        _require(n == 1, "data.target", f"{kind} predicts one column", n, "keep one")


def _check_known_future(experiment: Experiment) -> None:
    """Check that an empty `data.known_future` stands beside features of the calendar."""
    domain = experiment.search_space.get("calendar")
    searched = [value_of(str(choice)) for choice in domain.bounds()] if domain else []
    if experiment.data.known_future == [] and not any([experiment.data.calendar, *searched]):
        rule = "must name columns, or be [] beside data.calendar"
        remedy = "write known_future: [holiday], say, or remove it"
        _refuse("data.known_future", rule, "[] without", remedy)


def _check_sequences(experiment: Experiment) -> None:
    data, kind, split = experiment.data, experiment.task.kind, experiment.data.split
    if kind == "translate" and data.text is None:
        rule = "is required by translate: the column of texts that are read"
        _refuse("data.text", rule, "none", "set it")
    _check_one_target(experiment)
    if data.text is None and data.id is None:
        rule = f"is required by {kind}: the column that tells sequences apart"
        ways = "set it, or data.text where each row holds a text"
        if kind == "classify":
            ways += ", or task.window for the class of a series' coming row"
        _refuse("data.id", rule, "none", ways)
    if data.text is not None:
        if experiment.task.each_step:
            remedy = "write one token a row, and data.tokens"
            _refuse("data.text", "has one target", f"{data.text!r} with kind {kind}", remedy)
        rule, rest = "each row is a sequence of its own", "beside data.text"
        _without(experiment, {"id": None, "time": None}, rule, rest)
    if experiment.task.each_step and data.max_length is not None:
        rule, got = "every step has a target", f"{data.max_length} with kind {kind}"
        _refuse("data.max_length", rule, got, "remove it, or give each piece an id of its own")
    _without(experiment, _OF_FORECASTS, "is of forecasts", f"with {kind}")
    if data.missing == "skip":
        rule, remedy = "leaves out windows of a series", "write ffill, or interpolate"
        _refuse("data.missing", rule, f"'skip' with {kind}", remedy)
    for key, value in (("validation", split.validation), ("test", split.test)):
        if isinstance(value, str | Folds):
            got = "a date" if isinstance(value, str) else "folds"
            rule, remedy = "sequences have no order in time", "write a share or a number"
            _refuse(f"data.split.{key}", rule, got, remedy)


def _check_weights(experiment: Experiment) -> None:
    """Check that the column of weights has no other role, and that metric and loss know weights."""
    data, kind, name = experiment.data, experiment.task.kind, experiment.data.weight
    if name is None and experiment.task.step_weights is None:
        return
    if name is not None:
        roles = {key: getattr(data, key) for key in ("time", "id", "text", "tokens")}
        roles |= {"split.column": data.split.column, "split.group": data.split.group}
        roles["target"] = name if name in data.targets else None
        for role, column in roles.items():
            rule, got = "must be a column of its own", f"{name!r}, which is data.{role}"
            _require(column != name, "data.weight", rule, got, "remove it")
        if kind == "translate":
            _refuse("data.weight", "is of values and classes", f"{name!r} with translate")
    key = "data.weight" if name is not None else "task.step_weights"
    rule = "user code cannot be weighted"
    if (own := METRICS[experiment.objective.metric].definition) is not None:
        metric = "accuracy" if kind in ("classify", "label") else "rmse"
        remedy = f"write {metric}, say, or remove {key}"
        _refuse("objective.metric", rule, f"{own!r} beside {key}", remedy)
    for loss in filter(is_user_code, _values(experiment, "loss")):
        remedy = f"write auto, or remove {key}"
        _refuse(_key(experiment, "loss"), rule, f"{loss!r} beside {key}", remedy)


def _refuse(key: str, rule: str, got: object, remedy: str = "remove it") -> NoReturn:
    raise ExperimentError(rule, key=key, got=got, remedy=remedy)


def _require(holds: bool, key: str, rule: str, got: object, remedy: str = "change it") -> None:
    if not holds:
        _refuse(key, rule, got, remedy)


def _without(
    experiment: Experiment,
    keys: Mapping[str, Any],
    rule: str,
    beside: str,
    remedy: str = "remove it",
) -> None:
    """Refuse keys of `data` that differ from their neutral values."""
    for key, neutral in keys.items():
        if (value := getattr(experiment.data, key)) != neutral:
            _refuse(f"data.{key}", rule, f"{value!r} {beside}", remedy)


def _only(
    experiment: Experiment,
    name: str,
    allowed: list[Any],
    rule: str,
    remedy: str = "remove it",
    *,
    beside: str | None = None,
) -> None:
    """Refuse other values of a hyperparameter, fixed or searched."""
    for value in _values(experiment, name):
        if value not in allowed:
            got = repr(value) if beside is None else f"{value!r} with {beside}"
            _refuse(_key(experiment, name), rule, got, remedy)


def _values(experiment: Experiment, name: str) -> tuple[Any, ...]:
    """Return the possible values of a hyperparameter; the ends of a range."""
    if name in experiment.search_space:
        return experiment.search_space[name].bounds()
    return (getattr(experiment.hyperparameters, name),)


def _key(experiment: Experiment, name: str) -> str:
    return f"search_space.{name}" if name in experiment.search_space else f"hyperparameters.{name}"
