"""Open external studies have threads: an owner has few, and all owners together too."""

import collections
import contextlib
import threading
from pathlib import Path

import pytest
from helpers.external_service import running_external
from helpers.gates import Gate
from helpers.threads import in_thread, wait_until

from tuner.coordination.ask_tell import AskTell
from tuner.service.external_limits import FILES, most_open
from tuner.service.settings import Limits, Settings

MOST = 3


@pytest.fixture(params=["of an owner", "of all"])
def client(request, tmp_path, monkeypatch):
    limits = Limits(studies_open=MOST) if request.param == "of an owner" else Limits()
    if request.param == "of all":
        monkeypatch.setattr("tuner.service.external_limits.MOST_OPEN", MOST)
    root = tmp_path / "root"
    with running_external(root, settings=Settings(root=root, limits=limits)) as client:
        yield client


def names_of(client):
    return sorted(study.name for study in client.service.external._open)


def threads_of_studies():
    return sum(thread.name.startswith("ask ") for thread in threading.enumerate())


def test_the_study_idle_longest_is_closed_for_another(client):
    for name in "abcd":
        client.create(name)
    trials = {name: client.trials(name)[0] for name in "abc"}
    assert client.tell(trials["a"], 1.0, "a").status_code == 200
    client.trials("d")
    wait_until(lambda: names_of(client) == ["a", "c", "d"])
    assert client.tell(trials["b"], 1.0, "b").status_code == 200  # it opens again


def test_a_thousand_ended_studies_are_not_all_open(client):
    for n in range(12):
        client.create(f"s{n}")
        assert client.http.post(f"/v1/studies/s{n}/cancel").status_code == 202
        assert client.tell({"number": 0, "lease": "x"}, 1.0, f"s{n}").status_code == 404
        assert client.service.external.n_open <= 2 * MOST
    wait_until(lambda: threads_of_studies() == client.service.external.n_open == MOST)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
def test_a_study_that_is_closed_has_no_open_file(client):
    root = client.service.settings.root
    for n in range(12):
        client.create(f"s{n}")
        client.trials(f"s{n}")
    wait_until(lambda: threads_of_studies() == client.service.external.n_open == MOST)
    names = names_of(client)
    assert files_of_studies(root) == dict.fromkeys(names, FILES)


def test_a_study_that_opens_again_goes_on_with_its_events(client):
    client.create("a")
    [trial] = client.trials("a")
    log, n_events = client.service.events.of("local", "a"), len(client.events("a"))
    for name in "bcd":
        client.create(name)
        client.trials(name)
    wait_until(lambda: "a" not in names_of(client))
    assert log._file is None
    position = log.end
    assert client.tell(trial, 1.0, "a").status_code == 200
    assert [event["event"] for event in client.events("a")[n_events:]] == ["finished"]
    assert log.position(position) == position
    assert log.end > position
    assert not log.closed  # its streams go on


def test_studies_take_a_quarter_of_the_files_at_most():
    for files in (256, 1024, 4096):
        assert most_open(files) * FILES == files // 4
    assert most_open(1 << 20) == 1000


def test_where_no_open_study_is_idle_another_is_refused(client):
    for name in "abcd":
        client.create(name, strategy={"name": "pso", "population": 2})
    for name in "abc":
        client.trials(name, n=2)
    asked = [in_thread(lambda name=name: client.ask(name, wait_s=20)) for name in "abc"]
    every = client.service.external._open
    wait_until(lambda: all(each._waiting for each in every.values()))
    refused = client.ask("d")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["detail"] == "3 external studies are open, the limit; try again"
    assert names_of(client) == ["a", "b", "c"]
    client.service.external.stop()
    assert {answer().status_code for answer in asked} == {503}


def test_studies_that_cannot_close_are_limited_too(client, monkeypatch):
    with Gate(monkeypatch, AskTell, "report") as journal:  # stands for a journal that stalls
        reported = []
        for n in range(2 * MOST):
            client.create(f"s{n}")
            lease = {"number": 0, "lease": "x"}
            report = lambda name=f"s{n}", lease=lease: client.report(lease, 0, [1.0], name)  # noqa: E731
            reported.append(in_thread(report))
            wait_until(lambda n=n: client.service.external.n_open == n + 1)
        journal.reached()
        client.create("last")
        wait_until(lambda: all(e.is_idle or e.is_closing for e in opened(client)))
        assert client.ask("last").status_code == 429
        assert client.service.external.n_open == 2 * MOST
    assert {answer().status_code for answer in reported} == {404}


def opened(client):
    return list(client.service.external._open.values())


def files_of_studies(root):
    """Return how many files of each study this process has open."""
    found = collections.Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the folder itself is gone
            path = descriptor.readlink()
            if path.is_relative_to(root) and path.parent.name == "local":
                found[path.stem] += 1
    return found
