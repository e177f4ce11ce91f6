"""MLflow's limits: what is at one is stored whole, what is beyond is cut or divided by us.

MLflow's own cutting is switched off, in the client and in the server, so that it would refuse.
"""

import dataclasses
import re

import pytest
from helpers.mlflow_runs import Spy, runs_of, sync
from helpers.mlflow_server import MlflowServer
from helpers.postgresql import running_server, schema_of_its_own

from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.tracking import SyncCount, open_store
from tuner.tracking import layout as limits

SLOW = pytest.mark.slow
NO_CUTTING = {"MLFLOW_TRUNCATE_LONG_VALUES": "false"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    mlflow_server = MlflowServer(tmp_path_factory.mktemp("server"), settings=NO_CUTTING)
    yield mlflow_server.start().url
    mlflow_server.kill()


@pytest.fixture(scope="module")
def database():
    with running_server() as postgresql, schema_of_its_own(postgresql.url) as url:
        yield url


@pytest.fixture(params=["SQLite", *(pytest.param(s, marks=SLOW) for s in ("HTTP", "PostgreSQL"))])
def store(request, monkeypatch):
    for name, value in NO_CUTTING.items():
        monkeypatch.setenv(name, value)
    if request.param != "SQLite":
        uri = request.getfixturevalue("server" if request.param == "HTTP" else "database")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return Requests(open_store())


class Requests(Spy):
    """A client that counts what each request writes."""

    def __init__(self, client):
        super().__init__(client)
        self.batches = []

    def __getattr__(self, name):
        call = super().__getattr__(name)
        if name != "log_batch":
            return call

        def log_batch(run_id, *, metrics, params, tags):
            # As the REST API writes it, but for the spaces: every character not ASCII is escaped.
            from mlflow.protos.service_pb2 import LogBatch
            from mlflow.utils.proto_json_utils import message_to_json

            entities = {"metrics": metrics, "params": params, "tags": tags}
            message = LogBatch(
                run_id=run_id, **{k: [e.to_proto() for e in v] for k, v in entities.items()}
            )
            counts = len(metrics), len(params), len(tags)
            self.batches.append((*counts, len(message_to_json(message))))
            # Past the client, which would divide a batch that is too large.
            self.client._tracking_client.store.log_batch(run_id, **entities)

        return log_batch


def test_the_limits_are_those_of_the_mlflow_in_use():
    from mlflow.store.tracking.dbmodels import models
    from mlflow.utils import validation

    assert limits.MAX_PARAM == validation.MAX_PARAM_VAL_LENGTH
    assert limits.MAX_TAG == validation.MAX_TAG_VAL_LENGTH
    assert limits._MAX_KEY == validation.MAX_ENTITY_KEY_LENGTH
    assert limits._MAX_TEXTS == validation.MAX_PARAMS_TAGS_PER_BATCH
    assert limits._MAX_ENTITIES == validation.MAX_ENTITIES_PER_BATCH
    assert limits._MAX_ENTITIES == validation.MAX_METRICS_PER_BATCH
    assert limits._MAX_BYTES < validation.MAX_BATCH_LOG_REQUEST_SIZE
    assert models.SqlRun.__table__.columns["name"].type.length == limits._MAX_RUN_NAME
    for table in (models.SqlParam, models.SqlTag, models.SqlMetric):
        assert table.__table__.columns["key"].type.length == limits._MAX_KEY


def test_texts_at_a_limit_are_stored_whole(store, make_record, make_trial):
    trial = make_trial(
        0,
        OutcomeState.FAILED,
        params={"hidden_size": 8, "a": "ü" * 6000, "b": "ü" * 6001, "c" * 250: 1, "d" * 251: 2},
        reason="🙂" * 8001,
    )
    other = make_trial(1, OutcomeState.FAILED, reason="🙂" * 8000)
    record = make_record(trial, other, name="n" * 251)
    sync(store, record)
    parent, runs = runs_of(store.client, record)
    assert parent.info.run_name == "n" * 249 + "…"
    shown = runs["0"].data.params
    assert (shown["a"], shown["b"]) == ("ü" * 6000, "ü" * 5999 + "…")
    assert (shown["c" * 250], shown["d" * 250]) == ("1", "2")
    assert runs["0"].data.tags["failure_reason"] == "🙂" * 7999 + "…"
    assert runs["1"].data.tags["failure_reason"] == "🙂" * 8000
    whole = dataclasses.replace(record, id=record.id[::-1], name="n" * 250)
    sync(store, whole)
    assert runs_of(store.client, whole)[0].info.run_name == "n" * 250
    assert sync(store, record) == sync(store, whole) == SyncCount(unchanged=2)


def test_run_names_use_allowed_characters_and_stay_distinct(store, make_record, make_trial):
    odd = ["", ".", "..", "/", "a/b", "a_b", "a:b", "a\\b", "a\n", "é 1", "\ud800", "x" * 260]
    odd += ["x" * 261, "\0"]
    params = {name: f"{i}\0\udfff" for i, name in enumerate(odd)}
    record = make_record(make_trial(0, OutcomeState.FAILED, params=params, reason="a\0b\ud800c"))
    sync(store, record)
    run = runs_of(store.client, record)[1]["0"]
    found = {v: k for k, v in run.data.params.items() if v.endswith("??")}
    assert found == {
        "0??": "_",
        "1??": "_ 2",
        "2??": "_.",
        "3??": "_ 3",
        "4??": "a_b",
        "5??": "a_b 2",
        "6??": "a_b 3",
        "7??": "a_b 4",
        "8??": "a_",
        "9??": "é 1",
        "10??": "_ 4",
        "11??": "x" * 250,
        "12??": "x" * 242 + " 2",
        "13??": "_ 5",
    }
    assert run.data.tags["failure_reason"] == "a?b?c"
    assert sync(store, record) == SyncCount(unchanged=1)


@pytest.mark.parametrize("n_params", [100, 101, 201])
def test_params_are_divided_among_requests(store, make_record, make_trial, n_params):
    n_own = len(make_record().experiment.configuration({})) + len(("trial", "study", "strategy"))
    params = {f"p{i}": i for i in range(n_params - n_own)}
    record = make_record(make_trial(0, params=params, epochs=3))
    sync(store, record, running=True)
    run = runs_of(store.client, record)[1]["0"]
    assert len(run.data.params) == n_params
    assert {k: int(v) for k, v in run.data.params.items() if re.match(r"p\d", k)} == params
    needed = -(-n_params // 100)
    ours = store.batches[:needed]  # then the study's own
    assert [n for _, n, *_ in ours] == [100] * (needed - 1) + [n_params - 100 * (needed - 1)]
    of_study = 1 + len(record.baselines)  # the best so far, and every plain prediction
    assert sum(n for n, *_ in store.batches) == 3 * 3 + 2 + of_study  # objective, seconds


@pytest.mark.parametrize("n_points", [1000, 1001, 2001])
def test_points_are_divided_among_requests(store, make_record, make_trial, n_points):
    trial = make_trial(0, OutcomeState.PRUNED)
    n_epochs, rest = divmod(n_points, 3)  # what is left are scores of folds
    history = tuple(
        Epoch(e, 1.0, 2.0, 3.0, 1.7e9 + e, e, 4.0 if e < rest else None) for e in range(n_epochs)
    )
    outcome = Outcome(OutcomeState.PRUNED, history=history, finished_at=1.7e9 + n_epochs)
    record = make_record(dataclasses.replace(trial, outcome=outcome))
    sync(store, record)
    run_id = runs_of(store.client, record)[1]["0"].info.run_id
    keys = ["train_loss", "val_loss", "rmse", *(["fold_score"] if rest else [])]
    found = [len(store.client.get_metric_history(run_id, key)) for key in keys]
    assert sum(found) == n_points
    assert sum(n for n, *_ in store.batches) == n_points + len(record.baselines)
    for n_metrics, n_params, n_tags, _ in store.batches:
        assert n_metrics + n_params + n_tags <= 1000
    assert len(store.batches) <= 2 + -(-n_points // 1000)  # one is the study's


def test_no_request_is_larger_than_a_megabyte(store, make_record, make_trial):
    params = {f"p{i}": "🙂" * 6000 for i in range(50)}  # twelve bytes each where JSON is ASCII
    record = make_record(make_trial(0, params=params, epochs=500))
    sync(store, record)
    assert max(size for *_, size in store.batches) <= 1_000_000
    assert len(store.batches) >= 5
    run = runs_of(store.client, record)[1]["0"]
    assert all(run.data.params[key] == value for key, value in params.items())
    assert len(store.client.get_metric_history(run.info.run_id, "rmse")) == 500
    assert sync(store, record) == SyncCount(unchanged=1)


def test_a_search_space_longer_than_a_param_is_cut(store, make_record):
    domain = {"type": "categorical", "choices": list(range(1, 2001))}
    record = make_record(experiment={"search_space": {"batch_size": domain}})
    sync(store, record)
    shown = runs_of(store.client, record)[0].data.params["search_space.batch_size"]
    assert (len(shown), shown[-1]) == (6000, "…")
    assert sync(store, record) == SyncCount()


def test_an_experiment_may_have_the_longest_allowed_name(store, make_record, make_trial):
    record = make_record(make_trial(0), experiment={"name": "e" * 100})
    sync(store, record)
    assert set(runs_of(store.client, record)[1]) == {"0"}
