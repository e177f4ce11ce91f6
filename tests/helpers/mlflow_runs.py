"""How the tests sync, and read back what MLflow then says."""

from __future__ import annotations

from tuner.tracking import SyncState, sync_study

PARENT = "mlflow.parentRunId"


def sync(client, record, state=None, *, running=False, artifacts=None, **options):
    state = SyncState() if state is None else state
    return sync_study(client, record, state, running=running, artifacts=artifacts or {}, **options)


def runs_of(client, record):
    """Return the study's run and its trials' runs by name, as MLflow has them."""
    experiment = client.get_experiment_by_name(record.experiment.name)
    found = list(client.search_runs([experiment.experiment_id], max_results=5000))
    found = [r for r in found if r.data.tags["study_id"] == record.id]
    (parent,) = [r for r in found if PARENT not in r.data.tags]
    children = [r for r in found if r.data.tags.get(PARENT) == parent.info.run_id]
    assert len(children) + 1 == len(found)
    names = [r.info.run_name.removeprefix("trial ").partition(" of ")[0] for r in children]
    by_name = dict(zip(names, children, strict=True))
    assert len(by_name) == len(children), "two runs for one trial"
    return parent, by_name


def writes_of_sync(client, record, **options):
    """Sync, knowing nothing of what is there; return what was written."""
    spy = Spy(client)
    sync(spy, record, **options)
    return spy.writes


def snapshot(client, record):
    """Return everything that MLflow says about a study."""
    parent, children = runs_of(client, record)
    return {
        run.info.run_id: (
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            run.data.tags,
            {
                key: [
                    (m.step, m.timestamp, str(m.value))
                    for m in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            },
        )
        for run in [parent, *children.values()]
    }


class Spy:
    """An MLflow client that counts what is written, and can die before or after a call."""

    WRITES = (
        "create_run",
        "log_batch",
        "log_inputs",
        "set_terminated",
        "update_run",
        "log_artifact",
        "delete_run",
        "set_tag",
        "delete_tag",
        "create_experiment",
    )

    def __init__(self, client, die_at=None, after=True):
        self.client, self.writes, self.die_at, self.after = client, [], die_at, after

    @property
    def _tracking_client(self):
        return self  # and its own store, through which batches go

    @property
    def store(self):
        return self

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if name not in self.WRITES:
            return method

        def call(*args, **kwargs):
            self.writes.append(name)
            dies = len(self.writes) - 1 == self.die_at
            if dies and not self.after:
                raise ConnectionError("gone")
            result = method(*args, **kwargs)
            if dies:
                raise ConnectionError("gone")
            return result

        return call
