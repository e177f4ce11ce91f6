"""What a tracker and `open_store` say of an MLflow that fails them, and for how long they wait."""

import base64
import sqlite3
import time

import pytest
import requests
import urllib3
from helpers.gateway import Gateway
from sqlalchemy.exc import OperationalError

from tuner.errors import InputError
from tuner.tracking import MlflowTracker, explain, open_store, tracker

CHECK = "check MLFLOW_TRACKING_URI"
CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


@pytest.fixture
def gateway(monkeypatch):
    """A server that is in use, and behind which nobody answers."""
    gateway = Gateway("http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url)
    yield gateway
    gateway.close()


def let_end(gateway, *trackers):
    """Have no thread of these set MLflow's variables while the next test runs."""
    gateway.answer_again()
    for left in trackers:
        left._thread.join(60)
        assert not left._thread.is_alive()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, f"the MLflow server at {{url}} refuses the credentials (401); {CREDENTIALS}"),
        (403, "the MLflow server at {url} does not let this user do that (403); ask who runs it"),
        (404, "no MLflow server at {url}: nothing of MLflow's is there (404); " + CHECK),
        (429, "the MLflow server at {url} answers with error 429"),
        (500, "the MLflow server at {url} answers with error 500"),
        (503, "the MLflow server at {url} answers with error 503"),
        (302, "the MLflow server at {url} answers with error 302"),
        (200, "no MLflow server at {url}: something else answers; " + CHECK),
        (None, "the MLflow server at {url} does not answer (Remote end closed connection)"),
    ],
)
def test_a_server_that_fails_costs_one_warning_that_says_how(
    gateway, make_record, wait_for, capfd, status, text
):
    gateway.status = status
    told = []
    failing = MlflowTracker(make_record, "tuner sync s1", told.append)
    wait_for(lambda: told)
    for _ in range(3):
        failing.wake()
    assert not failing.close(done=True)
    later = "the search continues, and `tuner sync s1` completes the copy later"
    assert told == [f"{text.format(url=gateway.url)}; {later}"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_whether_a_server_is_there_is_known_in_seven_seconds(gateway):
    gateway.silent = True
    begun = time.monotonic()
    with pytest.raises(Exception, match="timed out") as caught:
        open_store()
    assert 6 < time.monotonic() - begun < 20
    assert explain(caught.value) == (
        f"the MLflow server at {gateway.url} does not answer (timed out)"
    )


def test_a_user_may_have_another_patience_with_a_server(gateway, monkeypatch):
    gateway.silent = True
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    begun = time.monotonic()
    with pytest.raises(Exception, match="timed out"):
        open_store()
    assert 1 <= time.monotonic() - begun < 15


def test_closing_waits_for_a_silent_server_as_long_as_it_should(
    gateway, make_record, monkeypatch, capfd
):
    assert 3 <= tracker._SHORT_S <= 10
    assert tracker._LONG_S <= 60
    gateway.silent = True
    slow = f"the MLflow server at {gateway.url} takes too long to answer"
    monkeypatch.setattr(tracker, "_SHORT_S", 0.3)
    trackers = []
    for done, timeout_s, at_least_s in ((False, 30, 0.3), (True, 1, 1)):
        told = []
        hanging = MlflowTracker(make_record, "tuner sync s1", told.append)
        trackers.append(hanging)
        begun = time.monotonic()
        assert not hanging.close(done=done, timeout_s=timeout_s)
        assert at_least_s <= time.monotonic() - begun < at_least_s + 10
        assert told == [f"{slow}; `tuner sync s1` completes the copy"]
    let_end(gateway, *trackers)
    assert capfd.readouterr() == ("", "")


def test_closing_does_not_wait_long_for_a_server_that_has_failed(
    gateway, make_record, monkeypatch, wait_for
):
    monkeypatch.setattr(tracker, "_SHORT_S", 0.3)
    gateway.status = 500
    told = []
    failing = MlflowTracker(make_record, "tuner sync s1", told.append)
    wait_for(lambda: told)
    gateway.silent = True
    begun = time.monotonic()
    assert not failing.close(done=True)
    assert time.monotonic() - begun < 10
    assert len(told) == 1
    let_end(gateway, failing)


def test_an_attempt_that_timed_out_is_not_repeated(gateway, make_record, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gateway.silent = True
    told = []
    hanging = MlflowTracker(make_record, "tuner sync s1", told.append)
    begun = time.monotonic()
    assert not hanging.close(done=True)
    assert time.monotonic() - begun < 9  # twice would be ten
    assert told == [
        f"the MLflow server at {gateway.url} does not answer (timed out); `tuner sync s1` "
        "completes the copy"
    ]


def test_what_cannot_be_warned_of_ends_nothing(gateway, make_record):
    def broken(text):
        raise BrokenPipeError

    failing = MlflowTracker(make_record, "tuner sync s1", broken)
    assert not failing.close(done=True)


def test_a_password_is_in_no_message(gateway, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url.replace("://", "://ann:secret@"))
    gateway.authorization = "Basic another"
    with pytest.raises(Exception, match="401") as caught:
        open_store()
    assert explain(caught.value) == (
        f"the MLflow server at {gateway.url} refuses the credentials (401); {CREDENTIALS}"
    )


@pytest.mark.parametrize(
    ("settings", "authorization"),
    [
        (
            {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "secret"},
            f"Basic {base64.b64encode(b'ann:secret').decode()}",
        ),
        (
            {"MLFLOW_TRACKING_URI": "http://ann:secret@{netloc}"},
            f"Basic {base64.b64encode(b'ann:secret').decode()}",
        ),
        ({"MLFLOW_TRACKING_TOKEN": "a-token"}, "Bearer a-token"),
    ],
    ids=["password", "uri", "token"],
)
def test_credentials_of_the_environment_reach_the_server(
    gateway, monkeypatch, settings, authorization
):
    gateway.authorization = authorization
    with pytest.raises(Exception, match="401"):
        open_store()
    for name, value in settings.items():
        monkeypatch.setenv(name, value.format(netloc=gateway.url.removeprefix("http://")))
    with pytest.raises(Exception, match="Remote end closed"):  # it was let through, to nobody
        open_store()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("file: key: rule"), "file: key: rule"),
        (OperationalError("INSERT", {"a": 1}, sqlite3.OperationalError("disk I/O error")),
         "the MLflow store mlflow.db: disk I/O error"),
        (PermissionError(13, "Permission denied", "/data/mlartifacts"),
         "MLflow: /data/mlartifacts: Permission denied"),
        (ValueError("something\n  new."), "the MLflow store mlflow.db: something new"),
        (ValueError("x" * 999), f"the MLflow store mlflow.db: {'x' * 300}"),
    ],
)  # fmt: skip
def test_what_a_database_or_a_folder_says_is_one_line(error, text):
    assert explain(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            requests.HTTPError("507 Server Error: Insufficient Storage for url: http://x/a"),
            "{store} answers with error 507",
        ),
        (
            urllib3.exceptions.MaxRetryError(
                None,
                "/api",
                urllib3.exceptions.SSLError(
                    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
                    "certificate (_ssl.c:1006)"
                ),
            ),
            "{store} does not answer (certificate verify failed: self-signed certificate)",
        ),
        (
            urllib3.exceptions.MaxRetryError(
                None,
                "/api",
                OSError("x: Failed to resolve 'x' ([Errno -2] Name or service not known)"),
            ),
            "{store} does not answer (Name or service not known)",
        ),
        (
            urllib3.exceptions.MaxRetryError(
                None,
                "/api",
                urllib3.exceptions.ProtocolError(
                    "Connection aborted.", ConnectionResetError(104, "Connection reset by peer")
                ),
            ),
            "{store} does not answer (Connection reset by peer)",
        ),
        (ValueError("not at http://ann:secret@x/y"), "{store}: not at http://x/y"),
    ],
)
def test_what_a_server_or_the_way_to_it_says_is_one_line(monkeypatch, error, text):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@mlflow.example.org/base/")
    assert explain(error) == text.format(
        store="the MLflow server at https://mlflow.example.org/base"
    )
