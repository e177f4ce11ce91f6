"""What the routes of external studies say: of used spaces, budgets, steps, and what they lack."""

import dataclasses
import json

import pytest
from helpers.external_service import running_external
from helpers.threads import in_thread, wait_until

FEW = {"kind": {"type": "categorical", "choices": ["a", "b", "c"]}}
ONLY = "the space has only 3 configurations, and all were tried"


@pytest.fixture
def client(tmp_path):
    with running_external(tmp_path / "root") as client:
        yield client


def get(client, path="", name="s"):
    return client.http.get(f"/v1/studies/{name}{path}")


def extend(client, trials):
    return client.http.post("/v1/studies/s/extend", json={"trials": trials})


def try_all(client, name="s"):
    while (answer := client.ask(name)).status_code == 200:
        client.tell(answer.json()["trials"][0], 1.0, name=name)
    return answer


def test_a_space_that_is_used_is_no_used_budget(client):
    client.create(space=FEW, trials=5)
    assert get(client).json()["exhausted"] is None
    for answer in (try_all(client), client.ask()):
        assert (answer.status_code, answer.json()["detail"]) == (410, f"study 's' is done: {ONLY}")
    shown = get(client).json()
    assert (shown["state"], shown["trained"], shown["exhausted"]) == ("done", 3, ONLY)
    refused = extend(client, 9)
    rule = f"study 's' cannot be extended: {ONLY}"
    assert (refused.status_code, refused.json()["detail"]) == (409, rule)
    assert get(client).json() == shown
    page = client.http.get("/page/view?study=s").text
    assert "The space has only 3 configurations" in page
    assert "/extend" not in page


def test_an_ask_that_waits_is_told_that_the_space_is_used(client):
    client.create(space=FEW, trials=5)
    first, *others = client.trials(n=3)
    for trial in others:
        client.tell(trial, 1.0)
    asked = in_thread(lambda: client.ask(wait_s=20))
    study = client.service.studies.get("local", "s")
    wait_until(lambda: client.service.external._open[study]._waiting)
    client.tell(first, 1.0)
    answer = asked()
    assert (answer.status_code, ONLY in answer.json()["detail"]) == (410, True)


def test_a_budget_of_the_whole_space_is_not_extended(client):
    client.create(space=FEW, trials=3)
    assert ONLY in try_all(client).json()["detail"]
    assert get(client).json()["exhausted"] == ONLY
    assert "/extend" not in client.http.get("/page/view?study=s").text
    refused = extend(client, 9)
    assert (refused.status_code, ONLY in refused.json()["detail"]) == (409, True)


def test_a_larger_budget_that_was_not_used_is_no_used_space(client):
    client.create(trials=1)
    try_all(client)
    studies, study = client.service.studies, client.service.studies.get("local", "s")
    facts = dataclasses.replace(study.facts, trials=5)
    studies.respecify(study, study.spec | {"trials": 5}, facts)
    assert get(client).json()["exhausted"] is None
    assert extend(client, 9).status_code == 202
    assert len(client.trials()) == 1


def test_an_external_study_has_no_test_to_open_again(client):
    client.create(trials=4)
    again = {"trials": 5, "reopen_test": True}
    refused = client.http.post("/v1/studies/s/extend", json=again)
    assert (refused.status_code, refused.json()["key"]) == (422, "reopen_test")
    detail = "reopen_test: an external study has no test; leave it out, got true"
    assert refused.json()["detail"] == detail
    assert get(client).json()["trials"] == 4
    again["reopen_test"] = False
    assert client.http.post("/v1/studies/s/extend", json=again).status_code == 202


def test_a_space_may_be_tried_again_where_repeats_count(client):
    client.create(space=FEW, trials=4, distinct=False)
    assert "its budget is used" in try_all(client).json()["detail"]
    assert extend(client, 5).status_code == 202
    assert len(client.trials()) == 1


def test_another_budget_names_the_extension(client):
    client.create(trials=4)
    refused = client.create(trials=6)
    detail = "study 's' was created with trials=4, got 6; put it back, extend the study, or give"
    assert (refused.status_code, detail in refused.json()["detail"]) == (409, True)


def test_the_page_extends_a_study_that_is_done(client):
    client.create(trials=1)
    assert "/extend" not in client.http.get("/page/view?study=s").text
    client.tell(client.trials()[0], 1.0)
    assert 'data-post="v1/studies/s/extend"' in client.http.get("/page/view?study=s").text


def test_a_lease_is_renewed_without_values(client):
    client.create()
    [trial] = client.trials()
    answer = client.post("/s/trials/0/report", lease=trial["lease"])
    assert (answer.status_code, answer.json()["prune"]) == (200, False)


def test_events_of_steps_have_no_losses(client):
    client.create()
    [trial] = client.trials()
    client.report(trial, 0, [0.5, 0.25])
    steps = [event for event in client.events() if event["event"] == "epoch"]
    for event in steps:
        del event["time"]
    of_it = {"event": "epoch", "role": "trial", "trial": 0}
    assert steps == [of_it | {"epoch": 1, "value": 0.5}, of_it | {"epoch": 2, "value": 0.25}]


@pytest.mark.parametrize("path", ["model", "predict", "report", "record", "summary"])
def test_there_is_no_model_to_wait_for(path, client):
    client.create()
    answer = get(client, f"/{path}")
    if path == "predict":
        answer = client.http.post("/v1/studies/s/predict", json={})
    assert (answer.status_code, "Retry-After" in answer.headers) == (409, False)
    assert "study 's' is external: its models train elsewhere" in answer.json()["detail"]


def test_the_answer_says_which_budget_was_taken(client):
    answer = client.create(trials=None)
    assert answer.json()["trials"] == client.service.settings.limits.trials
    created = client.http.get("/openapi.json").json()["components"]["schemas"]["Created"]
    assert "the owner's limit" in json.dumps(created)
