# ruff: noqa: E501
"""Bad experiments are refused with file (or option), key, rule, value and remedy."""

import copy
from pathlib import Path

import pytest

from tuner.errors import ExperimentError, InputError, SpaceError
from tuner.experiment import Experiment, Override, dump_yaml, parse_value

FORECAST = {"data": {"path": "d.csv", "target": "y"}}
CLASSIFY = {"data": {"path": "d.csv", "target": "y", "id": "i"}, "task": {"kind": "classify"}}
LABEL = CLASSIFY | {"task": {"kind": "label"}}
STEPS = CLASSIFY | {"task": {"kind": "regress_steps"}}
REGRESS = CLASSIFY | {"task": {"kind": "regress"}}
TEXT = {"data": {"path": "d.csv", "target": "y", "text": "t"}, "task": {"kind": "classify"}}
TRANSLATE = TEXT | {"task": {"kind": "translate"}}
COMING = {
    "data": {"path": "d.csv", "target": "y", "time": "t"},
    "task": {"kind": "classify", "window": 3},
}
SHOPS = {
    "data": COMING["data"] | {"id": "shop", "static": ["size", "type"], "categories": ["type"]}
}
WIDE = {
    "data": {
        "path": "d.csv",
        "time": "t",
        "wide": {"id": "store", "value": "y", "columns": "store_*"},
    }
}
WEIGHTS = {"data": {"path": "d.csv", "target": "y", "weight": "w"}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_settings(base, settings):
    """Return an experiment with dotted keys set: `a.b=1; c=[2]`; without one that has no value."""
    raw = {"name": "e", **copy.deepcopy(base)}
    for setting in settings.split("; "):
        key, equals, value = setting.partition("=")
        *parents, last = key.split(".")
        block = raw
        for parent in parents:
            block = block.setdefault(parent, {})
        if equals:
            block[last] = parse_value(value, key)
        else:
            del block[last]
    return raw, key


def refusal(raw, *overrides):
    Path("e.yaml").write_text(raw if isinstance(raw, str) else dump_yaml(raw), encoding="utf-8")
    with pytest.raises(ExperimentError) as refused:
        Experiment.load("e.yaml", [Override(*override) for override in overrides])
    return refused.value


REFUSED = [
    # experiment, settings, key (below the last one that is set), rule, value, remedy
    (FORECAST, "name", "", "is required", None, "write `name: sales`, say"),
    (FORECAST, "data", "", "is required", None, "write `data: {path: data/series.csv, target: sales}`"),
    (FORECAST, "data.path", "", "is required", None),
    (FORECAST, "data.target", "", "is required", None, "write `target: sales`"),
    (FORECAST, "search_space.dropout={type: float, low: 0, high: 0.5}; budget.trials=null", "", "must be a number where nothing else ends the search", "null", "write 40"),
    (FORECAST, "hyperparameters.cell=gru; hyperparameters.proj_size=4", "", "gru has no projection, only lstm has one", "4"),
    (FORECAST, "hyperparameters.proj_size=32", "", "must be below hidden_size, whose least is 32", "32"),
    (FORECAST, "search_space.hidden_size={type: int, low: 8, high: 64}; hyperparameters.proj_size=8", "", "must be below hidden_size, whose least is 8", "8"),
    (FORECAST, "search_space.cell={type: categorical, choices: [lstm, gru]}; hyperparameters.proj_size=4", "", "gru has no projection, only lstm has one", "4"),
    (FORECAST, "hyperparameters.nonlinearity=relu", "", "applies to the cell rnn, and lstm has its own", "'relu'"),
    (FORECAST, "hyperparameters.cell=ltsm", "", "unknown cell 'ltsm'", None),
    (FORECAST, "hyperparameters.hidden_size=[8, 4]; hyperparameters.num_layers=3", "", "must be the number of widths in hidden_size (2)", "3"),
    (FORECAST, "hyperparameters.hidden_size=[]", "", "must have 1 or more items", "[]"),
    (FORECAST, "search_space.hidden_size_2={type: int, low: 8, high: 64}", "", "the layers are numbered from 1", "no hidden_size_1"),
    (FORECAST, "search_space.hidden_size_1={type: int, low: 8, high: 64}; search_space.num_layers={type: int, low: 1, high: 2}", "", "every layer has a width of its own", "num_layers as well"),
    (FORECAST, "search_space.hidden_size_1={type: int, low: 8, high: 64}; search_space.hidden_size={type: int, low: 8, high: 64}", "", "every layer has a width of its own", "hidden_size as well"),
    (FORECAST, "search_space.hidden_size_1={type: int, low: 8, high: 64}; hyperparameters.hidden_size=[8, 8]", "", "the search starts at these widths, of which search_space has 1", "2"),
    (FORECAST, "search_space.hidden_size_1={type: int, low: 8, high: 64}; hyperparameters.hidden_size=[4]", "", "the search starts at this value, which must lie in search_sp", "4"),
    (FORECAST, "search_space.hidden_sise_1={type: int, low: 8, high: 64}", "", "unknown hyperparameter 'hidden_sise_1'", None),
    (FORECAST, "search_space.hidden_size_1={type: float, low: 8.0, high: 9.0}", ".type", "is a whole number", "'float'"),
    (FORECAST, "search_space.hidden_size_1={type: int, low: 8, high: 64}; search_space.hidden_size_2={type: int, low: 8, high: 64}; hyperparameters.num_layers=3", "", "must be the number of layers in search_space (2)", "3"),
    (FORECAST, "task.kind=clasify", "", "unknown kind 'clasify'", None, "did you mean 'classify'"),
    (FORECAST, "task.quantiles=[0.9, 0.5]", "", "must rise", "[0.9, 0.5]"),
    (FORECAST, "task.quantiles=[0.1, 0.9]", "", "need 0.5, which is the point forecast", "[0.1, 0.9]"),
    (FORECAST, "task.quantiles=[0.0, 0.5]", ".0", "must be above 0", "0.0"),
    (FORECAST, "hyperparameters.embedding_size=8", "", "applies to tokens and data.categories only, and there are none", "8"),
    (FORECAST, "data.features=[x]; search_space.normalize={type: categorical, choices: [none, mean]}", "", "needs every target among data.features, which lack 'y'", "'mean'", "write it there, correct data.target, or write none here"),
    (FORECAST, "data.target=salse; data.features=[sales, x]; hyperparameters.normalize=last", "data.target", "must be among data.features, as hyperparameters.normalize needs it", "'salse'", "did you mean 'sales'?"),
    (FORECAST, "data.target=[y, z]; data.features=[y]; hyperparameters.linear_path=true", "", "needs every target among data.features, which lack 'z'", "True", "write it there, correct data.target, or write false here"),
    (FORECAST, "hyperparameters.segment=13", "", "must be at most the window, whose least is 12", "13"),
    (FORECAST, "search_space.window={type: int, low: 6, high: 64}; search_space.segment={type: categorical, choices: [1, 8]}", "", "must be at most the window, whose least is 6", "8", "write 6, or a longer window"),
    (FORECAST, "hyperparameters.conv_kernel=5", "", "applies to the convolution, and conv_channels is 0", "5"),
    (FORECAST, "objective.metric=accuracy", "", "measures classes, which forecast does not predict", "'accuracy'"),
    (FORECAST, "objective.metric=pinball", "", "measures task.quantiles, which forecast does not predict", "'pinball'"),
    (FORECAST, "hyperparameters.loss=quantile", "", "does not fit values", "'quantile'"),
    (FORECAST, "task.quantiles=[0.5]; search_space.loss={type: categorical, choices: [quantile, mae]}", "", "does not fit quantiles", "'mae'"),
    (FORECAST, "task.kind=classify", "data.id", "is required by classify: the column that tells sequences apart", "none"),
    (FORECAST, "data.text=t", "", "applies to sequences", "'t' with kind forecast"),
    (FORECAST, "data.max_length=9", "", "applies to sequences", "9 with kind forecast"),
    (FORECAST, "hyperparameters.unknown_rate=0.1", "", "applies to tokens and data.categories only, and there are none", "0.1"),
    (FORECAST, "data.calendar=[hour]", "", "needs data.time", "['hour'] without"),
    (FORECAST, "data.resample=1h", "", "needs data.time", "'1h' without"),
    (FORECAST, "data.time=t; data.resample=often!", "", "must be a frequency", "'often!'"),
    (FORECAST, "data.aggregate=sum", "", "needs data.resample", "'sum' without"),
    (FORECAST, "data.split={validation: {fold: 3}}", ".validation.fold", "unknown key 'fold'", None),
    (FORECAST, "data.split={validation: {folds: 3, size: 2.5}}", ".validation.size", "a fraction must be between 0 and 1", "2.5"),
    (FORECAST, "data.split={validation: soon}", ".validation", "must be a fraction, a number of rows or an ISO date", "'soon'"),
    (FORECAST, "task.horizon=2; task.quantiles=[0.5]; data.transform=difference", "", "quantiles of differences do not add up over a horizon", "'difference' with task.quantiles and task.horizon 2"),
    (FORECAST, "pruner.name=wilcoxon", "", "wilcoxon compares folds", "no rolling origins"),
    (FORECAST, "pruner.name=percentile; pruner.percentile=101.0", "", "must be at most 100", "101.0"),
    (FORECAST, "pruner.name=patient; pruner.wrapped={name: patient}", ".name", "unknown wrapped 'patient'", None),
    (FORECAST, "training.device=gpu", "", "unknown device 'gpu'", None),
    (FORECAST, "nmae=x", "", "unknown key 'nmae'", None, "did you mean 'name'?"),
    (FORECAST, "budget.trails=3", "", "unknown key 'trails'", None, "did you mean 'trials'?"),
    (FORECAST, 'name=" a b"', "", "must not begin with '.', '-' or a space, nor end with a space", "' a b'"),
    (FORECAST, "name=../x", "", "must not hold '/', which file names cannot have everywhere", "'../x'"),
    (FORECAST, f"name={'x' * 201}", "", "must have at most 200 bytes in UTF-8, has 201", f"'{'x' * 76}..."),
    (FORECAST, "data=air.csv", "", "must be a block of keys", "'air.csv'", "write `data: {path:"),
    (FORECAST, 'data.path=""', "", "must not be empty", "''"),
    (FORECAST, "data.path=3", "", "must be a text", "3"),
    (FORECAST, "data.target=[y, y]", "", "names must differ", "'y' twice", "remove one"),
    (FORECAST, "data.features=[]", "", "must have 1 or more items", "[]"),
    (FORECAST, "data.features=[1]", ".0", "must be a text", "1", "put it in quotes"),
    (FORECAST, "data.transform=lgo", "", "must be a transform, or a list of several", "'lgo'", "did you mean 'log'?"),
    (FORECAST, "data.transform=sqrt", "", "must be a transform, or a list of several", "'sqrt'", "choose from: none, log, box_cox, difference, "),
    (FORECAST, "data.split.validation=1.5", "", "a fraction must be between 0 and 1", "1.5", "write 0.2"),
    (FORECAST, "data.split.validation=0", "", "a number of rows must be at least 1", "0", "write 24"),
    (FORECAST, "data.split.test=null", "", "must be a fraction, a number of rows or an ISO date", "null", "write 0.2, 24 or 1960-01-01"),
    (FORECAST, "task.window=0", "", "must be at least 1", "0", "write `window: 12`, say"),
    (FORECAST, "task.season=1.5", "", "must be a whole number", "1.5", "write `season: 12`"),
    (FORECAST, "task=[1]", "", "must be a block of keys", "[1]", "write `task: {kind: forecast}`"),
    (FORECAST, "budget.trials=-1", "", "must be at least 1", "-1", "write `trials: 40`, say"),
    (FORECAST, "budget.trials=x", "", "must be a whole number", "'x'"),
    (FORECAST, "budget.trials=true", "", "must be a whole number", "true"),
    (FORECAST, "budget.timeout=soon", "", "must be a time", "'soon'", "write 90s, 10m or"),
    (FORECAST, "budget.timeout=0s", "", "must be above 0", "'0s'"),
    (FORECAST, "budget.timeout=.inf", "", "must be a finite number", "inf"),
    (FORECAST, "resources.gpus=1.5", "", "must be a part of one GPU or a whole number of them", "1.5"),
    (FORECAST, "resources.cpus=0", "", "must be above 0", "0"),
    (FORECAST, "hyperparameters.dropout=1", "", "must be below 1", "1", "write `dropout: 0.0`, say"),
    (FORECAST, 'hyperparameters.dropout="0.1"', "", "must be a number", "'0.1'"),
    (FORECAST, "search_space.hidden_size={type: int, low: 4, high: 8}; hyperparameters.hidden_size=99", "", "the search starts at this value, which must lie in search_sp", "99", "move it or widen the space"),
    (FORECAST, "strategy=woa", "", "must be a block of keys", "'woa'", "write `strategy: {name"),
    (FORECAST, "strategy={}", ".name", "is required", None, "choose from: random, tpe, "),
    (FORECAST, "strategy={name: tpe, population: 3}", ".population", "unknown key 'population'", None, "it is of cmaes, pso, qpso, woa, nsga2: remove it, change strategy.name, or write --set 'strategy={name: tpe}'"),
    (FORECAST, "strategy={name: tpe, nothing: 3}", ".nothing", "unknown key 'nothing'", None, "choose from: name, "),
    (FORECAST, "pruner={name: median, min_resource: 3}", ".min_resource", "unknown key 'min_resource'", None, "it is of successive_halving, hyperband: remove it, change pruner.name, or write --set 'pruner={name: median}'"),
    (FORECAST, "strategy={name: pso, candidates: 5000}", ".candidates", "must be at most 1000", "5000", "write `candidates: 20`, say"),
    (FORECAST, "strategy={name: woa, population: 1}", ".population", "must be at least 2", "1"),
    (FORECAST, "objective.metric=RMSE", "", "unknown metric 'RMSE'", None, "did you mean 'rmse'?"),
    (FORECAST, "pruner.name=medain", "", "unknown pruner 'medain'", None, "did you mean 'median'?"),
    (FORECAST, "seed=-1", "", "must be at least 0", "-1", "write `seed: 0`, say"),
    (FORECAST, "seed=1099511627776", "", "must be at most 4294967295", "1099511627776"),
    (FORECAST, "recorded={}", ".study", "is required", None),
    (FORECAST, "search_space.hidden_size={type: int, low: 9, high: 2}", "", "low must be below high", "low=9, high=2"),
    (FORECAST, "search_space.hidden_size={type: int, low: 0, high: 2}", "", "every value must be at least 1", "0"),
    (FORECAST, "search_space.hidden_size={type: int, low: 0, high: 8, log: true}", "", "log needs low above 0", "low=0"),
    (FORECAST, "search_space.hidden_size={type: int, low: 4, high: 8, step: 0}", ".step", "must be at least 1", "0"),
    (FORECAST, "search_space.hidden_size={type: int, low: 4, high: 8, step: 2, log: true}", "", "log and step exclude each other", "step=2"),
    (FORECAST, "search_space.hidden_size={type: int, low: 1.5, high: 8}", ".low", "must be a whole number", "1.5"),
    (FORECAST, "search_space.hidden_size={type: int, low: 4, high: 20000}", "", "every value must be at most 8192", "20000"),
    (FORECAST, "search_space.hidden_size={low: 1, high: 2}", ".type", "is required", None, "choose from: int"),
    (FORECAST, "search_space.hidden_size={type: integer, low: 4, high: 8}", ".type", "unknown type 'integer'", None, "did you mean 'int'?"),
    (FORECAST, "search_space.hidden_size={type: categorical, choices: []}", ".choices", "must have 1 or more items", "[]"),
    (FORECAST, "search_space.hidden_size={type: categorical, choices: [4, 4]}", ".choices", "must differ", "4 twice"),
    (FORECAST, "search_space.learning_rate={type: categorical, choices: [1, 1.0]}", ".choices", "must differ", "1.0 twice"),
    (FORECAST, "search_space.hidden_size={type: categorical, choices: [4, a]}", "", "every value must be a whole number", "'a'"),
    (FORECAST, "search_space.hidden_size={type: categorical, choices: [[16, 8], 16]}", "", "every value must be a whole number", "'[16, 8]'", "write hidden_size_1 and hidden_size_2"),
    (FORECAST, "search_space.hidden_size={type: categorical, choices: [null]}", ".choices.0", "must be a number, a text, true or false", "null", "remove it"),
    (FORECAST, "search_space.hiden_size={type: int, low: 4, high: 8}", "", "unknown hyperparameter 'hiden_size'", None, "did you mean 'hidden_size'?"),
    (FORECAST, "search_space.learning_rate={type: float, low: 0, high: 1, log: true}", "", "log needs low above 0", "low=0.0"),
    (FORECAST, 'search_space.learning_rate={type: float, low: "1e-5", high: 1}', ".low", "must be a number", "'1e-5'"),
    (FORECAST, "search_space.dropout={type: float, low: 0.0, high: 1.0}", "", "every value must be below 1", "1.0"),
    (FORECAST, "search_space.dropout={type: float, low: .nan, high: 0.5}", ".low", "must be a finite number", "nan"),
    (FORECAST, "search_space.bidirectional={type: int, low: 0, high: 1}", "", "every value must be true or false", "0"),
    (FORECAST, "data.lags={temperature: [0, 24]}", ".temperature.0", "must be at least 1", "0", "write 1, say"),
    (FORECAST, "data.lags={temperature: [1, a]}", ".temperature.1", "must be a whole number", "'a'", "write 24, say"),
    (FORECAST, "task.quantiles=[10, 50, 90]", ".0", "must be below 1", "10", "write 0.1, say"),
    (FORECAST, "search_space={pooling: {type: categorical, choices: [2020-01-01]}}", ".pooling.choices.0", "must be a number, a text, true or false", "2020-01-01", "put it in quotes, or remove it"),
    (FORECAST, "data.calendar=[hours]", ".0", "unknown calendar 'hours'", None, "did you mean 'hour'?"),
    (FORECAST, "data.calendar=[3]", ".0", "unknown calendar 3", None, "choose from: hour, weekday, month"),
    (FORECAST, "data.lags={x: 12}", ".x", "must be a list", "12", "write `x: [1, 24]`, say"),
    (FORECAST, "data.lags=12", "", "must be a block of keys", "12", "write `lags: {price: [1, 24]}`, say"),
    (FORECAST, "data.lags={1: [1]}", ".1", "must be a text", "1", "put it in quotes, or remove it"),
    (FORECAST, 'data.lags={"": [x]}', "..0", "must be a whole number", "'x'", "write 1, say"),
    (FORECAST, 'data.lags={"": []}', ".", "must not be empty", "''", "change it, or remove it"),
    (FORECAST, "data.target=3", "", "must be a text or a list", "3", "write `target: sales`, say"),
    (FORECAST, "data.target=[]", "", "must have 1 or more items", "[]", "write `target: sales`, say"),
    (FORECAST, "hyperparameters.hidden_size=8.5", "", "must be a whole number or a list", "8.5", "write "),
    (FORECAST, "data.split.validation={folds: x}", ".folds", "must be a whole number", "'x'", "write `folds: 3`, say"),
    (FORECAST, "data.split.validation={gap: x}", ".gap", "must be 'auto' or a whole number", "'x'", "write `gap: auto`, say"),
    (FORECAST, "data.split.validation={gap: -1}", ".gap", "must be at least 0", "-1", "write `gap: auto`, say"),
    (FORECAST, "data.split.test={folds: 3}", "", "must be a fraction, a number of rows or an ISO date", "{'folds': 3}", "write 0.2, 24 or 1960-01-01"),
    (FORECAST, "data.split.validation={size: 2020-01-01}", ".size", "must be a number", "'2020-01-01'", "write `size: 0.1`, say"),
    (FORECAST, "hyperparameters.hidden_size=[8, a]", ".1", "must be a whole number", "'a'", "write 32, say"),
    (FORECAST, "strategy={name: pso, velocity_clamp: [-2, 1]}", ".velocity_clamp.0", "must be at least -1", "-2", "write 0.5, say"),
    (FORECAST, "strategy={name: pso, velocity_clamp: [0]}", ".velocity_clamp.1", "is required", None, "write 0.5, say"),
    (FORECAST, "strategy={name: pso, velocity_clamp: [0, 1, 1]}", ".velocity_clamp", "must have 2 or fewer items", "[0, 1, 1]", "write `velocity_clamp: 0.5`, say"),
    (FORECAST, "search_space.pooling=[last, max]", "", "must be a block of keys", "['last', 'max']", "`pooling: {type: categorical, choices: [last, max]}`, say"),
    (FORECAST, "search_space.hidden_size=[8, 16]", "", "must be a block of keys", "[8, 16]", "`hidden_size: {type: categorical, choices: [8, 16]}`, say"),
    (FORECAST, "search_space.pooling=last", "", "must be a block of keys", "'last'", "for one value write hyperparameters.pooling: last"),
    (FORECAST, "search_space.cell=null", "", "must be a block of keys", "null", "`cell: {type: categorical, choices: [lstm, gru, rnn, peephole]}`, say"),
    (FORECAST, "search_space.cell=[lstm, lsmt]", "", "must be a block of keys", "['lstm', 'lsmt']", "choices: [lstm, gru, rnn, peephole]}`, say"),
    (FORECAST, "search_space.learning_rate=null", "", "must be a block of keys", "null", "{type: float, low: 0.0001, high: 0.01}`, say"),
    (FORECAST, "search_space.hidden_size=[8, a]", "", "must be a block of keys", "[8, 'a']", "write `hidden_size: {type: int, low: 8, high: 128}`, say"),
    (FORECAST, "search_space.hidden_size_1=8", "", "must be a block of keys", "8", "write `hidden_size_1: {type: int, low: 8, high: 128}`, say"),
    (FORECAST, "strategy.name=PSO", "", "unknown strategy 'PSO'", None, "did you mean 'pso'?"),
    (FORECAST, "strategy.name=whale", "", "unknown strategy 'whale'", None, "did you mean 'woa'?"),
    (FORECAST, "strategy.name=CMA-ES", "", "unknown strategy 'CMA-ES'", None, "did you mean 'cmaes'?"),
    (FORECAST, "strategy={name: woa, a_start: 1.0, a_end: 2.0}", ".a_end", "must not be above a_start, 1.0", "2.0", "give a smaller number, or a larger a_start"),
    (FORECAST, "strategy={name: woa, a_end: 2.5}", ".a_end", "must not be above a_start, 2.0 (its default)", "2.5", "give a smaller number, or a larger a_start"),
    (FORECAST, "strategy={name: qpso, alpha_start: 0.3}", ".alpha_start", "must not be below alpha_end, 0.5 (its default)", "0.3", "give alpha_end too, 0.3 at most"),
    (FORECAST, "strategy={name: pso, topology: ring, population: 2}", ".population", "must not be below neighbors, 3 (its default)", "2", "give neighbors too, 2 at most"),
    (FORECAST, "strategy={name: pso, topology: ring, neighbors: 11}", ".neighbors", "must not be above population, 10 (its default)", "11", "give a smaller number, or a larger population"),
    (FORECAST, "data.time=t; search_space.transform={type: categorical, choices: [none, lgo]}", ".choices", "must be a transform, or a list of several", "'lgo'", "did you mean 'log'?"),
    (FORECAST, "data.time=t; search_space.transform={type: categorical, choices: [log, [log]]}", ".choices", "must differ", "'log' twice", "remove one"),
    (FORECAST, "data.time=t; search_space.calendar={type: categorical, choices: [[hour, weekday], [weekday, hour]]}", ".choices", "must differ", "'[hour, weekday]' and '[weekday, hour]', which are the same", "remove one"),
    (FORECAST, "data.time=t; search_space.lags={type: categorical, choices: [{y: [1, 2]}, {y: [2, 1]}]}", ".choices", "must differ", "'{y: [1, 2]}' and '{y: [2, 1]}', which are the same", "remove one"),
    (FORECAST, "data.time=t; search_space.scale={type: categorical, choices: [standard, std]}", "", "with the choice std: must be 'standard', 'minmax' or 'none'", "'std'", "change it"),
    (FORECAST, "data.time=t; search_space.scale={type: int, low: 1, high: 2}", ".type", "is one of several values", "'int'", "write `type: categ"),
    (FORECAST, "data.time=t; search_space.transform=[none, log]", "", "must be a block of keys", "['none', 'log']", "write `transform: {type: categorical, choices: [none, log]}`, say"),
    (FORECAST, "data.time=t; search_space.calendar={type: categorical, choices: [[], [hours]]}", "", "with the choice [hours]: must be 'hour', 'weekday' or 'month'", "'hours'"),
    (FORECAST, "data.time=t; search_space.lags={type: categorical, choices: [{}, {y: [0]}]}", "", "with the choice {y: [0]}: must be at least 1", "0", "change it"),
    (FORECAST, "search_space.calendar={type: categorical, choices: [[], [month]]}", "", "with the choice [month]: needs data.time", "['month'] without"),
    (FORECAST, "data.time=t; task.horizon=3; task.quantiles=[0.5]; search_space.transform={type: categorical, choices: [none, {seasonal_difference: 2}]}", "", "with the choice {seasonal_difference: 2}: quantiles of diffe", "'seasonal_difference: 2' with task.quantiles and task.horizon 3", "write none or log, or a seasonal_difference of 3"),
    (FORECAST, "data.time=t; search_space.transform={type: categorical, choices: [none, log]}; data.transform=difference", "", "the search starts at this value, which must lie in search_sp", "'difference'", "move it or widen the space"),
    (FORECAST, "data.time=t; task.kind=regress; data.id=s; search_space.lags={type: categorical, choices: [{}, {x: [1]}]}", "", "with the choice {x: [1]}: applies to forecasts only", "{'x': [1]} with regress", "remove it"),
    (FORECAST, "data.time=t; data.scale_by=series", "", "needs data.id", "'series' without", "set data.id as"),
    (FORECAST, "data.time=t; data.id=s; task.kind=classify; data.scale_by=series", "", "applies to forecasts only", "'series' with classify", "remove it"),
    (FORECAST, "data.time=t; task.quantiles=[0.5]; task.horizon=2; data.transform=[log, difference]", "", "quantiles of differences do not add up over a horizon", "'difference' with task.quantiles and task.horizon 2", "write none or log, or a seasonal_difference of 2 rows or more"),
    (CLASSIFY, "task.quantiles=[0.5]", "", "applies to forecasts only", "[0.5] with kind classify"),
    (CLASSIFY, "hyperparameters.decoder=recursive", "", "classify has no horizon to decode", "'recursive'"),
    (CLASSIFY, "data.target=[y, z]", "", "classify predicts one column", "2"),
    (CLASSIFY, "hyperparameters.normalize=last", "", "applies to forecasts only, and classify has no window", "'last'", "remove it"),
    (CLASSIFY, "objective.metric=rmse", "", "measures values, which classify does not predict", "'rmse'"),
    (CLASSIFY, "hyperparameters.loss=mse", "", "does not fit classes", "'mse'", "write auto or"),
    (CLASSIFY, "data.vocabulary_size=9", "", "needs data.tokens", "9 without"),
    (CLASSIFY, "data.min_count=2", "", "needs data.text or data.tokens", "2 without"),
    (CLASSIFY, "data.max_vocabulary=9", "", "needs data.text or data.tokens", "9 without"),
    (CLASSIFY, "data.keep=last", "", "needs data.max_length", "'last' without"),
    (CLASSIFY, "data.transform=log", "", "applies to forecasts only", "'log' with classify"),
    (CLASSIFY, "data.lags={x: [1]}", "", "applies to forecasts only", "{'x': [1]} with classify"),
    (CLASSIFY, "data.split={validation: {folds: 3, size: 0.1}}", ".validation", "sequences have no order in time", "folds"),
    (CLASSIFY, 'data.split={test: "2020-01-01"}', ".test", "sequences have no order in time", "a date"),
    (CLASSIFY, "data.level=word", "", "needs data.text", "'word' without"),
    (LABEL, "task.window=24", "", "applies to forecasts only", "24 with kind label"),
    (LABEL, "hyperparameters.pooling=attention", "", "label predicts every step, so it reads every step", "'attention'"),
    (LABEL, "search_space.pooling={type: categorical, choices: [last, attention]}", "", "label predicts every step, so it reads every step", "'attention'"),
    (LABEL, "hyperparameters.linear_path=true", "", "applies to whole sequences, and label predicts steps", "True", "remove it"),
    (LABEL, "data.max_length=9", "", "every step has a target", "9 with kind label"),
    (LABEL, "hyperparameters.segment=2", "", "label predicts every step, so it reads every step", "2"),
    (STEPS, "hyperparameters.linear_path=true", "", "applies to whole sequences, and regress_steps predicts steps", "True"),
    (STEPS, "objective.metric=accuracy", "", "measures classes, which regress_steps does not predict", "'accuracy'"),
    (STEPS, "data.max_length=9", "", "every step has a target", "9 with kind regress_steps", "remove it, or"),
    (REGRESS, "hyperparameters.window=12", "", "regress reads whole sequences", "12"),
    (REGRESS, "hyperparameters.class_weights=balanced", "", "regress has no classes", "'balanced'"),
    (REGRESS, "hyperparameters.decoder=segments", "", "regress has no horizon to decode", "'segments'"),
    (TEXT, "search_space.linear_path={type: categorical, choices: [true, false]}", "", "applies to numbers, and the steps are tokens", "True", "remove it"),
    (TEXT, "hyperparameters.segment=2", "", "applies to numbers, and the steps are tokens", "2"),
    (TEXT, "data.id=i", "", "each row is a sequence of its own", "'i' beside data.text"),
    (TEXT, "task.kind=label", "data.text", "has one target", "'t' with kind label"),
    (TEXT, "data.features=[x]", "data.text", "a model sees features or text", "both"),
    (SHOPS, "data.id", "data.static", "needs data.id", "['size', 'type'] without", "set data.id as well, or remove it"),
    (SHOPS, "data.static=[y]", "", "must not name what is predicted", "the target 'y'", "remove it"),
    (SHOPS, "data.static=[t]", "", "must not name the time column", "'t'", "remove it"),
    (SHOPS, "data.static=[shop]", "", "must not name the id column", "'shop'", "write it in data.categories instead"),
    (SHOPS, "data.features=[y, type]", "data.static", "must be among data.features", "'size'", "add it there"),
    (SHOPS, "data.lags={size: [1]}", "data.static", "is the same in every row", "'size' in data.lags too", "remove it there"),
    (SHOPS, "data.known_future=[size]", "data.static", "is the same in every row", "'size' in data.known_future too", "remove it there"),
    (FORECAST, "data.categories=[y]", "", "must not name what is predicted", "the target 'y'", "remove it"),
    (FORECAST, "data.time=t; data.categories=[t]", "", "must not name the time column", "'t'", "write data.calendar"),
    (FORECAST, "data.features=[y]; data.categories=[w]", "", "must be among data.features", "'w'", "add it there"),
    (FORECAST, "data.categories=[w]; data.lags={w: [1]}", "data.categories", "holds no numbers", "'w' in data.lags too", "remove it there"),
    (FORECAST, "data.known_future=[y]", "", "must not name what is predicted", "the target 'y'", "remove it"),
    (FORECAST, "data.time=t; data.known_future=[t]", "", "must not name the time column", "'t'", "remove it"),
    (FORECAST, "data.features=[y, prise]; data.known_future=[price]", "", "must be among data.features ('prise'?)", "'price'", "add it there"),
    (FORECAST, "data.time=t; data.known_future=[]", "", "must name columns, or be [] beside data.calendar", "[] without", "write known_future: [holiday], say, or remove it"),
    (FORECAST, "data.lags={x: [-1]}", ".x.0", "a lag looks back, 1 or more rows", "-1", "name a column whose coming values are known in data.known_future instead"),
    (COMING, "task.horizon=3", "", "applies to forecasts only", "3 with kind classify", "remove it"),
    (COMING, "task.kind=label", "task.window", "applies to forecasts only", "3 with kind label", "remove it"),
    (COMING, "task.intervals=[0.8]", "", "applies to forecasts only", "[0.8] with kind classify", "remove it"),
    (COMING, "data.transform=log", "", "applies to numbers that are forecast", "'log' with classify", "remove it"),
    (COMING, "data.missing=interpolate", "", "classes lie on no line", "'interpolate' with classify", "write ffill, or refuse"),
    (COMING, "data.resample=2D", "data.aggregate", "a step has the class of its last row", "'mean' with classify", "write last"),
    (COMING, "data.lags={y: [2]}", "", "are of numbers", "the class 'y'", "remove it, and write a longer window"),
    (COMING, "data.target=[y, price]", "", "classify predicts one column", "2", "keep one"),
    (COMING, "data.tokens=note", "", "applies to sequences", "'note' with task.window", "remove one"),
    (COMING, "hyperparameters.linear_path=true", "", "applies to forecasts and whole sequences, and classify reads windows here", "True", "remove it"),
    (COMING, "hyperparameters.normalize=last", "", "applies to forecasts only, and classify predicts no value", "'last'", "remove it"),
    (COMING, "hyperparameters.segment=4", "", "must be at most the window, whose least is 3", "4", "write 3, or a longer window"),
    (COMING, "objective.metric=rmse", "", "measures values, which classify does not predict", "'rmse'", "write accuracy, f1, auroc, cross_entropy"),
    (COMING, "task.window", "data.id", "is required by classify: the column that tells sequences apart", "none", "set it, or data.text where each row holds a text, or task.window for the class of a series' coming row"),
    (CLASSIFY, "search_space.window={type: int, low: 2, high: 9}", "", "classify reads whole sequences", "2", "write task.window too for the class of a series' coming row, or remove it"),
    (TRANSLATE, "data.text; data.id=a", "data.text", "is required by translate: the column of texts that are read", "none", "set it"),
    (TRANSLATE, "data.target=[y, a]", "", "translate predicts one column", "2", "keep one"),
    (TRANSLATE, "objective.metric=accuracy", "", "measures classes, which translate does not predict", "'accuracy'", "write exact_match"),
    (TRANSLATE, "hyperparameters.pooling=attention", "", "initializes the decoder of a text", "'attention'", "write last, mean, max"),
    (TRANSLATE, "hyperparameters.decoder=recursive", "", "translate has no horizon to decode", "'recursive'", "remove it"),
    (TRANSLATE, "hyperparameters.class_weights=balanced", "", "translate has no classes", "'balanced'", "remove it"),
    (TRANSLATE, "hyperparameters.loss=mse", "", "does not fit texts", "'mse'", "write auto or cross_entropy"),
    (TEXT, "hyperparameters.beam=3", "", "applies to predicted texts, and classify predicts none", "3", "remove it"),
    (FORECAST, "task.intervals=[0.8, 1.0]", ".1", "must be below 1", "1.0", "write 0.95, say"),
    (FORECAST, "task.intervals=[0.0]", ".0", "must be above 0", "0.0", "write 0.8, say"),
    (FORECAST, "task.intervals=[0.95, 0.8]", "", "must rise", "[0.95, 0.8]", "sort them"),
    (REGRESS, "task.intervals=[0.8]", "", "applies to forecasts only", "[0.8] with kind regress", "remove it"),
    (WIDE, "data.id=shop", "", "must be data.wide.id, 'store'", "'shop'", "remove id, or write the same name twice"),
    (WIDE, "data.target=price", "", "must be data.wide.value, 'y'", "'price'", "remove target, or write the same name twice"),
    (WIDE, "data.wide.columns", "", "is required", None, "write `columns: store_*`, say"),
    (WIDE, "task.kind=regress", "data.wide", "applies to forecasts only", "Wide(id='store', value='y', columns='store_*') with regress", "remove it"),
    (REGRESS, "data.missing=skip", "", "leaves out windows of a series", "'skip' with regress", "write ffill, or interpolate"),
    (WEIGHTS, "task.step_weights=[1, 1]", "", "must be one number for each step of horizon, which is 1", "2", "write 1 of them, or horizon: 2"),
    (WEIGHTS, "task.horizon=2; task.step_weights=[0, 0]", "", "must not all be 0", "[0.0, 0.0]", "write 1 where a step counts"),
    (WEIGHTS, "task.horizon=2; task.step_weights=[1, -1]", ".1", "must be at least 0", "-1", "write 1, say"),
    (REGRESS, "task.step_weights=[1]", "", "applies to forecasts only", "[1.0] with kind regress", "remove it"),
    (TRANSLATE, "data.weight=w", "", "applies to values and classes", "'w' with translate", "remove it"),
    (WEIGHTS, "data.weight=y", "", "must be a column of its own", "'y', which is data.target", "remove it"),
    (WEIGHTS, "data.time=w", "data.weight", "must be a column of its own", "'w', which is data.time", "remove it"),
    (WEIGHTS, "objective.metric=minimize mean(abs(truth - forecast))", "", "user code cannot be weighted", "'mean(abs(truth - forecast))' beside data.weight", "write rmse, say, or remove data.weight"),
    (WEIGHTS, "hyperparameters.loss=mean((truth - forecast) ** 2)", "", "user code cannot be weighted", "'mean((truth - forecast) ** 2)' beside data.weight", "write auto, or remove data.weight"),
    (FORECAST, "data.split={column: part, test: 0.2}", ".column", "gives the parts itself", "test 0.2 beside column 'part'", "remove one of them"),
    (FORECAST, "data.split={column: part, group: t}", ".column", "gives the parts itself", "group t beside column 'part'", "remove one of them"),
    (FORECAST, "data.split={group: part}", ".group", "applies to independent sequences", "'part' with kind forecast", "remove it: series are cut in order of time"),
    (FORECAST, "objective={metric: 'own_classes:late'}", ".metric", "must begin with minimize or maximize", "'own_classes:late'", "write 'minimize own_classes:late'"),
    (FORECAST, "objective={metric: 'minimize rmse'}", ".metric", "knows no 'rmse'", "'rmse'", "choose from: truth, forecast"),
    (FORECAST, "objective={metric: 'minimize abs(truth - forecast)'}", ".metric", "must have one number as its value", "'abs(truth - forecast)'", "write mean(abs(truth - forecast)), say"),
    (FORECAST, "objective.metrics=[rmse, weights]; strategy.name=tpe", "", "searches by one objective", "'tpe' beside objective.metrics: [rmse, weights]", "write strategy: {name: nsga2}"),
    (FORECAST, "objective.metrics=[rmse, weights]; pruner.name=median", "", "compares metrics alone and would stop small models", "'median' beside objective.metrics: [rmse, weights]", "write pruner: {name: none}"),
    (FORECAST, "objective.metrics=[rmse, mae]", "", "must be a metric and then a cost (weights, seconds, latency)", "[rmse, mae]", "write [rmse, weights]"),
    (FORECAST, "objective.metrics=[weights, rmse]", "", "must be a metric and then a cost (weights, seconds, latency)", "[weights, rmse]", "write [rmse, weights]"),
    (FORECAST, "objective.metrics=[rmse]", "", "must be a metric and then a cost (weights, seconds, latency)", "[rmse]", "write [rmse, weights]"),
    (FORECAST, "objective.metrics=[rmse, wieght]", "", "unknown metric 'wieght'", "[rmse, wieght]", "did you mean 'weights'?"),
    (FORECAST, "objective.metrics=[accuracy, weights]", "objective.metric", "measures classes, which forecast does not predict", "'accuracy'", "write rmse, mae, mape, smape, mase, r2"),
    (FORECAST, "objective={metrics: [rmse, weights], metric: mae}", ".metric", "must be the first of metrics, rmse", "'mae'", "leave it out"),
]  # fmt: skip


@pytest.mark.parametrize("row", REFUSED, ids=[f"{row[1]}"[:60] for row in REFUSED])
def test_a_key_that_breaks_a_rule_is_refused(row):
    base, settings, key, rule, got, *remedy = row
    raw, last = with_settings(base, settings)
    error = refusal(raw)
    assert error.key == (last + key if key[:1] in ("", ".") else key)
    assert (error.where, error.got) == ("e.yaml", got)
    assert rule in error.rule
    assert error.remedy
    assert not remedy or remedy[0] in error.remedy
    assert isinstance(error, SpaceError) is str(error.key).startswith("search_space")


def test_an_error_in_a_file_of_a_space_names_that_file():
    Path("spaces").mkdir()
    Path("spaces/my.yaml").write_text("hidden_size: {type: int, low: 9, high: 2}")
    error = refusal({"name": "e", **FORECAST, "search_space": "spaces/my.yaml"})
    assert (error.where, error.key, error.rule) == (
        "spaces/my.yaml", "hidden_size", "low must be below high"
    )  # fmt: skip
    assert isinstance(error, SpaceError)


@pytest.mark.parametrize(
    ("text", "rule", "got"),
    [
        ("", "is empty", None),
        ("# a comment\n", "is empty", None),
        ("- a\n- b\n", "must be a mapping of keys to values", "a list"),
        ("hello", "must be a mapping of keys to values", "a text"),
        ("3", "must be a mapping of keys to values", "3"),
        ("a: [1\nb: {", "is not YAML: line 2, column 2", None),
        ("\tname: x", "is not YAML: line 1", None),
        ("a: *b", "undefined alias", None),
        ("a: 1\n---\nb: 2\n", "single document", None),
        ("a: !!python/object x", "tag", None),
        ("name: x\x00y", "#x0000", None),
        ("a: 1960-13-01", "holds what cannot be read: month must be in 1..12", None),
        ("[" * 5000, "must be at most 64 lists and mappings deep", "line 1"),
        ("name: a\nname: b\n", 'duplicate key "name"', None),
        ("data: {path: a, path: b}", 'duplicate key "path"', None),
        ("1: 2", "keys must be texts", "1"),
    ],
)
def test_a_file_that_is_no_mapping_of_keys_is_refused(text, rule, got):
    error = refusal(text)
    assert (error.where, error.key, error.got) == ("e.yaml", None, got)
    assert rule in error.rule


def test_a_missing_or_binary_file_or_a_folder_is_refused(folder):
    Path("latin.yaml").write_bytes("name: Zürich\n".encode("latin-1"))
    for path, rule, got in (
        ("nope.yaml", "no such experiment file", None),
        (folder, "is a folder", None),
        ("latin.yaml", "must be UTF-8 text", "byte 0xfc in line 1"),
        ("x" * 300, "cannot be read", None),
    ):
        with pytest.raises(ExperimentError) as refused:
            Experiment.load(path)
        assert rule in refused.value.rule
        assert (refused.value.where, refused.value.got) == (str(path), got)


WOA = "write `--strategy woa`, which takes that strategy's defaults"


@pytest.mark.parametrize(
    ("strategy", "overrides", "where", "key", "rule", "remedy"),
    [
        # key and value of each option
        ("pso", {"budget.trials": -1}, "--trials", "budget.trials", "must be at least 1", "write `--trials 40`, say"),
        ("pso", {"budget.timeout": "0s"}, "--timeout", "budget.timeout", "must be above 0", "write `--timeout 10m`, say"),
        ("pso", {"budget.epochs": 0}, "--set", "budget.epochs", "must be at least 1", "write `--set budget.epochs=100`, say"),
        ("pso", {"bugdet.epochs": 5}, "--set", "bugdet", "unknown key 'bugdet'", "did you mean 'budget'?"),
        ("pso", {"transform": 3}, "--set", "transform", "unknown key", "write data.transform"),
        ("pso", {"window": 3}, "--set", "window", "unknown key", "write task.window or hyperparameters.window"),
        ("pso", {"epochs": 3}, "--set", "epochs", "unknown key", "write budget.epochs"),
        ("pso", {"metric": 3}, "--set", "metric", "unknown key", "write objective.metric"),
        ("pso", {"name.x": 5}, "--set", "name.x", "name is a value, not a block", "leave out 'x'"),
        ("pso", {"a..b": 5}, "--set", None, "'a..b' is no dotted key", "write budget.epochs=50, say"),
        ("pso", {"search_space.dropout.low": 9}, "--set", "search_space.dropout", "low must be below high", "swap them?"),
        ("pso", {"search_space.pooling": ["last", "max"]}, "--set", "search_space.pooling", "must be a block of keys",
         "write `--set 'search_space.pooling={type: categorical, choices: [last, max]}'`, say"),
        ("pso", {"strategy": {"name": "wao"}}, "--strategy", "strategy.name", "unknown strategy 'wao'", "did you mean 'woa'?"),
        ("pso", {"strategy.name": "wao"}, "--set", "strategy.name", "unknown strategy 'wao'", "did you mean 'woa'?"),
        ("pso", {"strategy": "woa"}, "--set", "strategy", "must be a block of keys", WOA),
        ("pso", {"strategy": "x"}, "--set", "strategy", "must be a block of keys", "write `--set 'strategy={name: tpe}'`, say"),
        ("pso", {"pruner": "none"}, "--set", "pruner", "must be a block of keys", "write `--set 'pruner={name: none}'`, say"),
        ("pso", {"strategy.name": "woa"}, "e.yaml", "strategy.inertia", "unknown key 'inertia'", WOA),
        ("pso", {"strategy.name": "woa", "strategy.inertia": 1}, "--set", "strategy.inertia", "unknown key", "it is of pso: remove it"),
        ("qpso", {"strategy.alpha_start": 0.3}, "--set", "strategy.alpha_start", "must not be below alpha_end", "give alpha_end too"),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused_by_its_name(strategy, overrides, where, key, rule, remedy):
    options = {"name": strategy} | ({"inertia": 0.5} if strategy == "pso" else {})
    space = {"dropout": {"type": "float", "low": 0.0, "high": 0.5}}
    raw = {"name": "e", **FORECAST, "strategy": options, "search_space": space}
    option = "--set" if where == "e.yaml" else where
    error = refusal(raw, *((k, value, option) for k, value in overrides.items()))
    assert (error.where, error.key) == (where, key)
    assert rule in error.rule
    assert str(error.remedy).startswith(remedy)


def test_the_value_of_a_set_option_must_be_yaml():
    with pytest.raises(InputError) as refused:
        parse_value("[1", "--set data.features")
    assert (refused.value.where, refused.value.rule) == ("--set data.features", "must be YAML")
    assert str(refused.value.got).startswith("'[1': ")


def test_the_first_broken_rule_is_reported_and_others_counted():
    error = refusal(
        {"name": "e", **FORECAST, "budget": {"trials": -1, "epochs": -1, "retries": -1}}
    )
    assert (error.key, len(error.others)) == ("budget.trials", 2)
    assert str(error).endswith(" (and 2 more)")


def test_an_unknown_key_hides_no_rule_of_several_keys():
    space = {"hidden_size": {"type": "int", "low": 9, "high": 8, "stp": 1}}
    raw = {"name": "e", **FORECAST, "search_space": space, "nmae": "x"}
    error = refusal(raw | {"strategy": {"name": "tpe", "btach": 2}})
    found = {other.key: other.rule for other in (error, *error.others)}
    assert found["strategy.btach"] == "unknown key 'btach'"
    assert found["nmae"] == "unknown key 'nmae'"
    assert found["search_space.hidden_size.stp"] == "unknown key 'stp'"
    assert found["search_space.hidden_size"] == "low must be below high"
