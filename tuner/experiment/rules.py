"""Rules between the blocks of an experiment."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from tuner.errors import ExperimentError, InputError, near_miss, nearest
from tuner.experiment.cells import DeclaredCell, Key, cell_of
from tuner.experiment.data import PREPARED, Folds
from tuner.experiment.hyperparameters import (
    CELLS,
    WHOLE_NUMBERS,
    WIDTH,
    Hyperparameters,
    check_value,
)
from tuner.experiment.messages import key_meant
from tuner.experiment.space import Domain
from tuner.experiment.yaml_files import value_of
from tuner.metrics import METRICS
from tuner.pipeline_steps import differences_of
from tuner.user_code import is_reference, is_user_code

if TYPE_CHECKING:
    from tuner.experiment.experiment import Experiment

_SEQUENCE_KEYS: dict[str, Any] = {"text": None, "tokens": None, "max_length": None}

_NUMBER_KEYS: dict[str, Any] = {"transform": "none", "decompose": "none", "wide": None}

_FORECAST_KEYS: dict[str, Any] = _NUMBER_KEYS | {
    "scale_by": "all", "resample": None, "calendar": [], "lags": {}, "known_future": None,
    "categories": [], "static": [],
}  # fmt: skip
"""Keys of `data` with the value that means nothing."""

_LAYER_KEYS = (
    "nonlinearity", "hidden_size", "num_layers", "dropout", "bidirectional", "bias", "proj_size",
    "pooling", "decoder", "linear_path", "segment", "conv_channels", "conv_kernel",
    "embedding_size",
)  # fmt: skip
"""Hyperparameters of tuner's own layers, which a whole model from user code may not take."""


def check_rules(experiment: Experiment) -> None:
    """Check the blocks against each other.

    Raises:
        ExperimentError: two keys contradict each other.
    """
    rules = _Rules(experiment)
    rules.check_space()
    rules.check_widths()
    rules.check_cells()
    rules.check_objectives()
    rules.check_task()
    rules.check_input()
    rules.check_weights()
    rules.check_search()
    rules.check_execution()
    if rules.kind == "forecast":
        rules.check_forecast()
    elif rules.task.of_coming_class:
        rules.check_coming_class()
    else:
        rules.check_sequences()
    if rules.task.of_series:
        rules.check_known_future()
    rules.check_preparations()


class _Rules:
    """The rules of one experiment. Each method raises ExperimentError where one is broken."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.data, self.task = experiment, experiment.data, experiment.task
        self.space, self.fixed = experiment.search_space, experiment.hyperparameters
        self.kind = experiment.task.kind
        self.of_classes = self.kind in ("classify", "label")

    def check_space(self) -> None:
        """Check every domain, and the value at which the search starts."""
        declared: dict[str, list[Key]] = {}
        for cell in self.experiment.cells:  # two may declare the same name
            for name, key in cell.keys.items():
                declared.setdefault(name, []).append(key)
        endless = [name for name, domain in self.space.items() if domain.size() is None]
        if self.experiment.strategy.name == "brute" and endless:
            got = f"the continuum search_space.{endless[0]}"
            _refuse("strategy.name", "brute tries every configuration", got, "give it a step")
        for name, domain in self.space.items():
            if name in PREPARED:
                continue
            for value, key in itertools.product(domain.bounds(), declared.get(name, ())):
                rule = f"every value must lie in what its cell declares, {key.in_words}"
                _require(value in key.range, f"search_space.{name}", rule, repr(value))
            if name not in declared:
                _check_domain(name, domain, list(declared))
            given = "hidden_size" if WIDTH.fullmatch(name) else name
            if given in self.fixed.model_fields_set:
                self._check_start(f"hyperparameters.{given}", name)

    def _check_start(self, key: str, name: str) -> None:
        start = self.experiment.given(name)
        rule = f"the search starts at this value, which must lie in search_space.{name}"
        _require(start in self.space[name], key, rule, repr(start), "move it or widen the space")

    def check_preparations(self) -> None:
        """Check every choice of a preparation as if `data` had it."""
        recorded = self.experiment.recorded
        for name in PREPARED:
            key, choices = f"search_space.{name}", tuple[str, ...]()
            if domain := self.space.get(name):
                if domain.type != "categorical":
                    rule, remedy = "is one of several values", "write `type: categorical`"
                    _refuse(f"{key}.type", rule, repr(domain.type), remedy)
                choices = domain.bounds()
                if name in self.data.model_fields_set:
                    self._check_start(f"data.{name}", name)
            elif recorded is not None and name in recorded.preparations:
                key, choices = f"recorded.preparations.{name}", tuple(recorded.preparations[name])
            for choice in choices:
                try:
                    chosen = self.experiment.prepared_as({name: choice})
                    check_rules(chosen.model_copy(update={"recorded": None}))
                except InputError as error:
                    parts = [part for part in (error.key or "").split(".") if part != "data"]
                    own = None if parts[0] in ("", name) else error.key
                    rule = ": ".join(filter(None, (f"with the choice {choice}", own, error.rule)))
                    raise error.with_(key=key, rule=rule) from None

    def check_widths(self) -> None:
        """Check that layers with a width each are numbered from 1, and have no common width."""
        layers = sorted(int(m[1]) for name in self.space if (m := WIDTH.fullmatch(name)))
        n, n_layers, widths = len(layers), self.fixed.num_layers, self.fixed.hidden_size
        for missing in set(range(1, n + 1)) - set(layers):
            key, remedy = f"search_space.hidden_size_{layers[-1]}", "add it, or number them anew"
            _refuse(key, "the layers are numbered from 1", f"no hidden_size_{missing}", remedy)
        for name in ("hidden_size", "num_layers"):
            if name in self.space and (layers or isinstance(widths, list)):
                rule, got = "every layer has a width of its own", f"{name} as well"
                _refuse(f"search_space.{name}", rule, got, "remove one of them")
        if layers and isinstance(widths, list) and len(widths) != n:
            rule = f"the search starts at these widths, of which search_space has {n}"
            _refuse("hyperparameters.hidden_size", rule, len(widths), "give each layer one")
        if layers and n_layers not in (1, n):
            rule = f"must be the number of layers in search_space ({n})"
            _refuse("hyperparameters.num_layers", rule, n_layers, "leave it out")

    def check_cells(self) -> None:
        """Check the hyperparameters that a cell takes, declares, or makes meaningless."""
        names = self._values("cell")
        declared = [cell_of(self.experiment.cells, name) for name in names]
        self._check_declared()
        for cell in filter(None, declared):
            if cell.whole:
                self._only("linear_path", [False], "adds to tuner's own layers", beside=cell.name)
                continue
            rule = "a decoder begins with a state, which a layer from user code does not return"
            self._only("decoder", ["direct"], rule, beside=cell.name)
            self._only("bias", [True], "applies to tuner's own cells", beside=cell.name)
        wholes = [cell for cell in declared if cell is not None and cell.whole]
        if len(wholes) == len(declared):
            self._check_whole_models(wholes)
        projecting = [name for name, cell in CELLS.items() if cell.projects]
        if others := [name for name in names if name not in projecting]:
            rule = f"{others[0]} has no projection, only {' and '.join(projecting)} has one"
            self._only("proj_size", [0], rule)
        nonlinear = [name for name, cell in CELLS.items() if cell.nonlinear]
        if others := [name for name in names if name not in nonlinear]:
            rule = f"applies to the cell {' and '.join(nonlinear)}, and {others[0]} has its own"
            self._only("nonlinearity", ["tanh"], rule)
        of_layers = [name for name in self.space if WIDTH.fullmatch(name)] or ["hidden_size"]
        widths = [value for name in of_layers for value in self._values(name)]
        least = min(min(width) if isinstance(width, list) else width for width in widths)
        for size in self._values("proj_size"):
            rule = f"must be below hidden_size, whose least is {least}"
            _require(size < least, self._key("proj_size"), rule, size, "make it smaller, or 0")

    def _check_declared(self) -> None:
        """Check the fixed keys that are not tuner's own: the cell declares them."""
        cell = cell_of(self.experiment.cells, self.fixed.cell)
        declared = {} if cell is None else cell.keys
        for name, value in (self.fixed.model_extra or {}).items():
            key = f"hyperparameters.{name}"
            if name not in declared:
                known = nearest(name, [*declared, *Hyperparameters.model_fields])
                raise ExperimentError(f"unknown key {name!r}", key=key, remedy=known)
            rule = f"must lie in what its cell declares, {declared[name].in_words}"
            _require(value in declared[name].range, key, rule, repr(value))

    def _check_whole_models(self, cells: list[DeclaredCell]) -> None:
        """Refuse the hyperparameters of tuner's own layers that no model takes."""
        taken = {name for cell in cells for name in cell.takes}
        taken |= {"embedding_size"} if self.data.categories else set()
        for name in _LAYER_KEYS:
            searched = [name] if name in self.space else []
            if name == "hidden_size":  # never both
                searched += [each for each in self.space if WIDTH.fullmatch(each)]
            value = self.experiment.given(name)
            given = name in self.fixed.model_fields_set and value != _default(name)
            if name not in taken and (searched or given):
                key = f"search_space.{searched[0]}" if searched else f"hyperparameters.{name}"
                rule = f"{cells[0].name} is a whole model and does not take it"
                _refuse(key, rule, repr(value))

    def check_objectives(self) -> None:
        """Check that strategy and pruner support a second objective."""
        if (metrics := self.experiment.objective.metrics) is None:
            return
        both = f"beside objective.metrics: [{', '.join(metrics)}]"
        strategy, pruner = self.experiment.strategy.name, self.experiment.pruner.name
        if strategy != "nsga2":
            rule, got = "searches by one objective", f"{strategy!r} {both}"
            _refuse("strategy.name", rule, got, "write strategy: {name: nsga2}")
        if pruner != "none":
            rule = "compares metrics alone and would stop small models"
            _refuse("pruner.name", rule, f"{pruner!r} {both}", "write pruner: {name: none}")

    def check_search(self) -> None:
        """Check that the search ends, and that the pruner has folds to compare."""
        budget, n_trials = self.experiment.budget, self.experiment.n_trials
        if n_trials is None and budget.timeout is None and budget.stagnation is None:
            rule = "must be a number where nothing else ends the search"
            remedy = "write 40, or give budget.timeout or budget.stagnation"
            _refuse("budget.trials", rule, "null", remedy)
        if self.experiment.pruner.name == "wilcoxon" and self.experiment.n_folds < 2:
            remedy = "write data.split.validation: {folds: 5, size: 0.1}, or name: median"
            _refuse("pruner.name", "wilcoxon compares folds", "no rolling origins", remedy)

    def check_execution(self) -> None:
        """Check that trials can be trained together where that is asked for."""
        why = self.experiment.why_single
        if self.experiment.training.execution == "batched" and why is not None and self.space:
            rule = f"trials cannot be trained together: {why}"
            remedy = "write auto, which trains such trials one by one"
            _refuse("training.execution", rule, "'batched'", remedy)

    def check_task(self) -> None:
        """Check metric, loss and head against the kind of the task."""
        kind, metric, predicted = self.kind, self.experiment.objective.metric, ["values"]
        if self.of_classes:
            predicted = ["classes"]
        elif kind == "translate":
            predicted = ["texts"]
        elif self.task.quantiles:
            predicted = ["values", "quantiles"]
        measured = METRICS[metric].of
        if measured not in ("any", *predicted):
            fits = [name for name, m in METRICS.items() if m.of in predicted]
            what = "task.quantiles" if measured == "quantiles" else measured
            rule = f"measures {what}, which {kind} does not predict"
            _refuse("objective.metric", rule, repr(metric), f"write {', '.join(fits)}")
        own = [loss for loss in self._values("loss") if is_user_code(loss)]
        losses = {
            "values": ["auto", "mse", "mae", "huber", *own],
            "quantiles": ["auto", "quantile"],
        }.get(predicted[-1], ["auto", "cross_entropy"])
        losses += [loss for loss in own if is_reference(loss) and loss not in losses]
        self._only("loss", losses, f"does not fit {predicted[-1]}", f"write {' or '.join(losses)}")
        if not self.of_classes:
            self._only("class_weights", ["none"], f"{kind} has no classes")
        if kind != "forecast":
            self._only("decoder", ["direct"], f"{kind} has no horizon to decode")
        if not self.task.of_series:
            remedy = "remove it"
            if kind == "classify":
                remedy = "write task.window too for the class of a series' coming row, or remove it"
            self._only("window", [None], f"{kind} reads whole sequences", remedy)
        if kind != "translate":
            self._only("beam", [1], f"applies to predicted texts, and {kind} predicts none")
            return
        ways, cells = ["last", "mean", "max"], list(CELLS)
        self._only("pooling", ways, "initializes the decoder of a text", f"write {', '.join(ways)}")
        rule = "translate has a decoder of the same cell"
        self._only("cell", cells, rule, f"write {', '.join(cells)}")

    def check_input(self) -> None:
        """Check the layers before the recurrent ones against the data."""
        task, kind = self.task, self.kind
        tokens = self.data.text is not None or self.data.tokens is not None
        if kind != "forecast":
            what = "predicts no value" if task.of_coming_class else "has no window"
            self._only("normalize", ["none"], f"applies to forecasts only, and {kind} {what}")
            rule = None
            if task.of_coming_class:
                rule = "applies to forecasts and whole sequences, and classify reads windows here"
            elif task.each_step:
                rule = f"applies to whole sequences, and {kind} predicts steps"
            elif tokens:
                rule = "applies to numbers, and the steps are tokens"
            if rule is not None:
                self._only("linear_path", [False], rule)
        elif unread := self._unread_target():
            rule, remedy = unread
            for name, unneeded in (("normalize", "none"), ("linear_path", False)):
                if any(value != unneeded for value in self._values(name)):
                    self._refuse_misspelt_target(name)
            self._only("normalize", ["none"], rule, f"{remedy}, or write none here")
            self._only("linear_path", [False], rule, f"{remedy}, or write false here")
        if task.each_step:
            rule = f"{kind} predicts every step, so it reads every step"
            self._only("pooling", ["last"], rule)
            self._only("segment", [1], rule)
        if tokens:
            self._only("segment", [1], "applies to numbers, and the steps are tokens")
        elif not self.data.categories:
            for name in ("embedding_size", "unknown_rate"):
                rule = "applies to tokens and data.categories only, and there are none"
                self._only(name, [_default(name)], rule)
        if task.of_series:
            self._check_in_window(self._key("segment"), max(self._values("segment")))
        if max(self._values("conv_channels")) == 0:
            rule = "applies to the convolution, and conv_channels is 0"
            self._only("conv_kernel", [_default("conv_kernel")], rule, "write that first")

    def _unread_target(self) -> tuple[str, str] | None:
        """Return the rule and the remedy where a target is not among the features."""
        features = self.data.features
        if features is None or set(self.data.targets) <= set(features):
            return None
        lacking = next(target for target in self.data.targets if target not in features)
        rule = f"needs every target among data.features, which lack {lacking!r}"
        return rule, "write it there, correct data.target"

    def _refuse_misspelt_target(self, needing: str) -> None:
        """Refuse a target that is no feature but nearly one, if a hyperparameter needs it."""
        features = self.data.features or []
        for target in self.data.targets:
            if target not in features and (near := near_miss(target, features)) is not None:
                rule = f"must be among data.features, as {self._key(needing)} needs it"
                _refuse("data.target", rule, repr(target), f"did you mean {near!r}?")

    def _shortest_window(self) -> int:
        return min(self.task.window if w is None else w for w in self._values("window"))

    def _check_in_window(self, key: str, length: int) -> None:
        shortest = self._shortest_window()
        rule = f"must be at most the window, whose least is {shortest}"
        _require(length <= shortest, key, rule, length, f"write {shortest}, or a longer window")

    def check_forecast(self) -> None:
        """Check the data of a forecast."""
        data, task, decompose = self.data, self.task, self.data.decompose
        remedy = "write task.kind: classify, say, or remove it"
        self._without(_SEQUENCE_KEYS, "applies to sequences", "with kind forecast", remedy)
        if decompose != "none":
            if unread := self._unread_target():
                rule, remedy = unread
                _refuse("data.decompose", rule, decompose.kind, f"{remedy}, or write none here")
            if decompose.length is not None:
                self._check_in_window("data.decompose.length", decompose.length)
            if decompose.components is not None and (shortest := self._shortest_window()) < 3:
                got, remedy = f"a window of {shortest}", "write a longer one, or none here"
                _refuse("data.decompose", "emd needs 3 rows or more", got, remedy)
        if data.missing == "skip" and data.known_future is not None:
            rule = "leaves out windows with a gap, but not those with a gap in known future values"
            _refuse("data.missing", rule, "'skip' with data.known_future", "write ffill")
        if (group := data.split.group) is not None:
            got = f"{group!r} with kind forecast"
            remedy = "remove it: series are cut in order of time"
            _refuse("data.split.group", "applies to independent sequences", got, remedy)
        short = [n for n in differences_of(data.transform) if n < task.horizon]
        if task.quantiles and short:
            step = "difference" if short[0] == 1 else f"seasonal_difference: {short[0]}"
            got = f"{step!r} with task.quantiles and task.horizon {task.horizon}"
            least = max(2, task.horizon)
            remedy = f"write none or log, or a seasonal_difference of {least} rows or more"
            rule = "quantiles of differences do not add up over a horizon"
            _refuse("data.transform", rule, got, remedy)

    def check_coming_class(self) -> None:
        """Check the data of a series whose coming row is classified: classes are no numbers."""
        data = self.data
        self._check_one_target()
        self._without(
            _SEQUENCE_KEYS, "applies to sequences", "with task.window", "remove one of them"
        )
        self._without(_NUMBER_KEYS, "applies to numbers that are forecast", "with classify")
        if data.missing == "interpolate":
            got, remedy = "'interpolate' with classify", "write ffill, or refuse"
            _refuse("data.missing", "classes lie on no line", got, remedy)
        if data.resample is not None and data.aggregate != "last":
            rule, got = "a step has the class of its last row", f"{data.aggregate!r} with classify"
            _refuse("data.aggregate", rule, got, "write last")
        if (target := data.targets[0]) in data.lags:
            remedy = "remove it, and write a longer window"
            _refuse("data.lags", "are of numbers", f"the class {target!r}", remedy)

    def check_sequences(self) -> None:
        """Check the data of independent sequences."""
        data, kind = self.data, self.kind
        if kind == "translate" and data.text is None:
            rule = "is required by translate: the column of texts that are read"
            _refuse("data.text", rule, "none", "set it")
        self._check_one_target()
        if data.text is None and data.id is None:
            rule = f"is required by {kind}: the column that tells sequences apart"
            ways = "set it, or data.text where each row holds a text"
            if kind == "classify":
                ways += ", or task.window for the class of a series' coming row"
            _refuse("data.id", rule, "none", ways)
        if data.text is not None:
            if self.task.each_step:
                remedy = "write one token a row, and data.tokens"
                _refuse("data.text", "has one target", f"{data.text!r} with kind {kind}", remedy)
            rule = "each row is a sequence of its own"
            self._without({"id": None, "time": None}, rule, "beside data.text")
        if self.task.each_step and data.max_length is not None:
            rule, got = "every step has a target", f"{data.max_length} with kind {kind}"
            _refuse("data.max_length", rule, got, "remove it, or give each piece an id of its own")
        self._without(_FORECAST_KEYS, "applies to forecasts only", f"with {kind}")
        if data.missing == "skip":
            rule, remedy = "leaves out windows of a series", "write ffill, or interpolate"
            _refuse("data.missing", rule, f"'skip' with {kind}", remedy)
        for key in ("validation", "test"):
            if isinstance(value := getattr(data.split, key), str | Folds):
                got = "a date" if isinstance(value, str) else "folds"
                rule, remedy = "sequences have no order in time", "write a share or a number"
                _refuse(f"data.split.{key}", rule, got, remedy)

    def _check_one_target(self) -> None:
        n = len(self.data.targets)
        if n != 1 and (self.of_classes or self.kind == "translate"):
            _refuse("data.target", f"{self.kind} predicts one column", n, "keep one")

    def check_known_future(self) -> None:
        """Check that an empty `data.known_future` stands beside features of the calendar."""
        domain = self.space.get("calendar")
        searched = [value_of(str(choice)) for choice in domain.bounds()] if domain else []
        if self.data.known_future == [] and not any([self.data.calendar, *searched]):
            rule = "must name columns, or be [] beside data.calendar"
            remedy = "write known_future: [holiday], say, or remove it"
            _refuse("data.known_future", rule, "[] without", remedy)

    def check_weights(self) -> None:
        """Check that weights have a column of their own, and that metric and loss know weights."""
        data, name = self.data, self.data.weight
        if name is None and self.task.step_weights is None:
            return
        if name is not None:
            roles = {key: getattr(data, key) for key in ("time", "id", "text", "tokens")}
            roles |= {"split.column": data.split.column, "split.group": data.split.group}
            roles["target"] = name if name in data.targets else None
            for role, column in roles.items():
                rule, got = "must be a column of its own", f"{name!r}, which is data.{role}"
                _require(column != name, "data.weight", rule, got, "remove it")
            if self.kind == "translate":
                _refuse("data.weight", "applies to values and classes", f"{name!r} with translate")
        key = "data.weight" if name is not None else "task.step_weights"
        rule = "user code cannot be weighted"
        if (own := METRICS[self.experiment.objective.metric].definition) is not None:
            remedy = f"write {'accuracy' if self.of_classes else 'rmse'}, say, or remove {key}"
            _refuse("objective.metric", rule, f"{own!r} beside {key}", remedy)
        for loss in filter(is_user_code, self._values("loss")):
            remedy = f"write auto, or remove {key}"
            _refuse(self._key("loss"), rule, f"{loss!r} beside {key}", remedy)

    def _without(
        self, keys: Mapping[str, Any], rule: str, beside: str, remedy: str = "remove it"
    ) -> None:
        """Refuse keys of `data` that differ from their neutral values."""
        for key, neutral in keys.items():
            if (value := getattr(self.data, key)) != neutral:
                _refuse(f"data.{key}", rule, f"{value!r} {beside}", remedy)

    def _only(
        self,
        name: str,
        allowed: list[Any],
        rule: str,
        remedy: str = "remove it",
        *,
        beside: str | None = None,
    ) -> None:
        """Refuse other values of a hyperparameter, fixed or searched."""
        for value in self._values(name):
            if value not in allowed:
                got = repr(value) if beside is None else f"{value!r} with {beside}"
                _refuse(self._key(name), rule, got, remedy)

    def _values(self, name: str) -> tuple[Any, ...]:
        """Return the possible values of a hyperparameter; the ends of a range."""
        return self.space[name].bounds() if name in self.space else (getattr(self.fixed, name),)

    def _key(self, name: str) -> str:
        return f"{'search_space' if name in self.space else 'hyperparameters'}.{name}"


def _check_domain(name: str, domain: Domain, declared: list[str]) -> None:
    """Check the domain of one of tuner's own hyperparameters.

    Args:
        name: of the hyperparameter.
        domain: its values.
        declared: the names that cells from user code declare.
    """
    key, is_width = f"search_space.{name}", WIDTH.fullmatch(name) is not None
    if name not in Hyperparameters.model_fields and not is_width:
        known = [*declared, *Hyperparameters.model_fields, "hidden_size_1", *PREPARED]
        remedy = nearest(name, known)
        if (meant := key_meant(name)) is not None and "hyperparameters." in meant:
            remedy = meant.replace("hyperparameters.", "search_space.")
        raise ExperimentError(f"unknown hyperparameter {name!r}", key=key, remedy=remedy)
    if domain.type == "float" and (name in WHOLE_NUMBERS or is_width):
        _refuse(f"{key}.type", "is a whole number", "'float'", "write `type: int`")
    for value in domain.bounds():
        if problem := check_value(name, value):
            remedy = "change it"
            if name == "hidden_size" and str(value).startswith("["):
                remedy = "write hidden_size_1 and hidden_size_2, of each layer its own"
            _refuse(key, f"every value {problem}", repr(value), remedy)


def _default(name: str) -> Any:
    return Hyperparameters.model_fields[name].default


def _refuse(key: str, rule: str, got: object, remedy: str = "remove it") -> NoReturn:
    raise ExperimentError(rule, key=key, got=got, remedy=remedy)


def _require(holds: bool, key: str, rule: str, got: object, remedy: str = "change it") -> None:
    if not holds:
        _refuse(key, rule, got, remedy)
