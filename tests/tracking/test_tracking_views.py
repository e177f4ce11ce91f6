"""Views of an experiment's runs, in links and as MLflow saves them."""

import json
import urllib.parse
from types import SimpleNamespace

from tuner.tracking.links import save_view, studies_view, study_view, trials_view

SERVER = "http://127.0.0.1:5000/"


def query(link):
    page, _, text = link.partition("?")
    return page, dict(urllib.parse.parse_qsl(text, keep_blank_values=True))


def test_a_plain_link_carries_every_facet_of_the_ui(make_record):
    record = make_record()
    page, facets = query(study_view(record, "abc").link(SERVER, "7"))
    assert page == "http://127.0.0.1:5000/#/experiments/7/runs"
    common = {
        "workflowType": "machine_learning",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": "W10=",
    }
    best_first = {"orderByKey": "metrics.`objective`", "orderByAsc": "true"}
    trained = "tags.role = 'trial' and tags.repeat_of IS NULL"
    of_study = f"tags.`mlflow.parentRunId` = 'abc' and {trained}"
    assert facets == common | best_first | {"searchFilter": of_study, "compareRunsMode": "CHART"}
    _, facets = query(trials_view(record).link(SERVER, "7"))
    assert facets == common | best_first | {"searchFilter": trained}
    _, facets = query(studies_view(record).link(SERVER, "7"))
    nested = {"orderByKey": "attributes.start_time", "orderByAsc": "false", "searchFilter": ""}
    assert facets == common | nested


def test_the_best_are_first_also_where_more_is_better(make_record):
    record = make_record(
        experiment={
            "task": {"kind": "classify"},
            "data": {"path": "a.csv", "id": "name", "target": "y"},
            "objective": {"metric": "accuracy"},
        }
    )
    assert record.experiment.objective.direction == "maximize"
    for view in (trials_view(record), study_view(record, "abc")):
        assert not view.ascending
        assert json.loads(json.loads(view.as_saved(record.created))["state"])["orderByAsc"] is False


def test_a_saved_view_has_the_searched_columns_and_axes(make_record):
    record = make_record()
    view = study_view(record, "abc")
    _, facets = query(view.link(SERVER, "7", saved=[view.tag]))
    assert facets == {
        "workflowType": "machine_learning",
        "viewStateShareKey": "tuner-abc",
        "compareRunsMode": "CHART",
    }
    saved = json.loads(view.as_saved(record.created))
    assert view.tag == "mlflow.sharedViewState.tuner-abc"
    assert (saved["name"], saved["createdAt"]) == ("s1", 1_699_999_200_000)
    state = json.loads(saved["state"])
    assert state["searchFilter"] == view.search
    assert state["selectedColumns"] == ["metrics.`objective`", "params.`hidden_size`"]
    (chart,), (section,) = state["compareRunCharts"], state["compareRunSections"]
    assert chart["type"] == "PARALLEL"
    assert (chart["selectedParams"], chart["selectedMetrics"]) == (["hidden_size"], ["objective"])
    assert chart["metricSectionId"] == section["uuid"]


def test_a_view_of_a_wide_search_space_fits_into_a_tag(make_record):
    many = {
        name: {"type": "float", "low": 0.1, "high": 0.2}
        for name in ("learning_rate", "dropout", "weight_decay", "gradient_clip")
    }
    record = make_record(experiment={"search_space": many})
    wide = record.experiment.search_space
    for i in range(60):
        wide[f"a_hyperparameter_with_a_long_name_{i}"] = wide["dropout"]
    assert len(study_view(record, "f" * 32).as_saved(record.created)) < 5000


def test_who_may_only_read_gets_links_without_saved_views(make_record):
    class Client:
        def set_experiment_tag(self, *_):
            raise PermissionError

    record, experiment = make_record(), SimpleNamespace(experiment_id="7", tags={})
    view = trials_view(record)
    assert not save_view(Client(), experiment, view, record.created)
    experiment.tags[view.tag] = view.as_saved(record.created)
    assert save_view(Client(), experiment, view, record.created), "somebody else has saved it"


def test_a_study_of_one_configuration_has_its_trials_as_an_axis(make_record):
    record = make_record(experiment={"search_space": {}})
    assert study_view(record, "abc").axes == ("trial",)
