"""A study's events over HTTP: a real server, clients that vanish, wait, or read too slowly."""

import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import requests
import uvicorn

from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.events import EventLogs
from tuner.service.guard import Condition
from tuner.service.records import hold_records
from tuner.service.routes import events as module
from tuner.service.settings import Limits, Settings
from tuner.service.studies import Facts, Kind, State, Studies

FACTS = Facts("sales", "tpe", 0, "rmse", "minimize", 40)
DONE = {"event": "ended", "time": 2.0, "state": "done", "reason": None, "exit_status": 0}
LINES = "application/x-ndjson"


def note(n, size=0):
    return {"event": "note", "time": 1.0, "text": f"{n} {'x' * size}"}


class Server:
    """The application on a port of loopback, in a thread."""

    def __init__(self, root, records, streams):
        self.logs, self.studies = EventLogs(root / "events"), Studies(records)
        self.study = self.studies.add("local", "s", Kind.SEARCH, {}, FACTS)
        self.log = self.logs.of("local", "s")
        self.condition = Condition()
        service = SimpleNamespace(studies=self.studies, events=self.logs)
        settings = Settings(root=root, limits=Limits(streams=streams))
        app = make_app(service, Access(limits=settings.limits), settings, condition=self.condition)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def get(self, path="/v1/studies/s/events", **headers):
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.get(url, headers=headers, stream=True, timeout=20)

    def end(self, state=State.DONE, event=DONE):
        self.studies.change(self.study, state)
        if event:
            self.log.append(event)

    def stop(self):
        self.logs.end_streams()
        self.server.should_exit = True
        self.thread.join(20)
        self.logs.close()


@pytest.fixture
def records(tmp_path):
    with hold_records(tmp_path, None, print) as records:
        yield records


@pytest.fixture
def server(tmp_path, records):
    server = Server(tmp_path, records, streams=40)
    yield server
    server.stop()


def frames(response):
    """The events of an answer, each with its id and its name."""
    found = []
    for frame in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if line[0] != ":")
        if fields:
            event = json.loads(fields["data"])
            assert list(fields) == ["event", "data", "id"]
            assert event["event"] == fields["event"]
            found.append((int(fields["id"]), event))
    return found


def test_a_stream_has_all_events_and_ends_after_ended(server):
    ids = [server.log.append(note(n)) for n in range(3)]
    with server.get() as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        ids.append(server.log.append(note(3)))
        server.end()
        assert frames(response) == [
            *((id_, note(n)) for n, id_ in enumerate(ids)),
            (server.log.end, DONE),
        ]


def test_a_stream_goes_on_from_any_id(server):
    ids = [0, *(server.log.append(note(n)) for n in range(4))]
    server.end()
    for n, after in enumerate(ids):
        path = f"/v1/studies/s/events?after={after}"
        resumed = frames(server.get(**{"Last-Event-ID": str(after)}))
        assert resumed == frames(server.get(path))
        assert [e for _, e in resumed] == [*map(note, range(n, 4)), DONE]
    both = server.get(f"/v1/studies/s/events?after={ids[1]}", **{"Last-Event-ID": str(ids[3])})
    assert frames(both)[0] == (ids[4], note(3))  # a browser that connects again keeps the URL


def test_an_id_of_another_log_is_the_beginning(server):
    server.log.append(note(0))
    server.end()
    for after in (1, server.log.end + 1, (1 << 63) - 1):
        assert frames(server.get(f"/v1/studies/s/events?after={after}"))[0][1] == note(0)


def test_a_client_with_all_events_is_told_not_to_return(server):
    server.log.append(note(0))
    server.end()
    assert server.get(**{"Last-Event-ID": str(server.log.end)}).status_code == 204


def test_lines_are_the_bytes_of_the_log(server):
    first = server.log.append(note(0))
    server.log.append(note(1, 100_000))
    server.end()
    whole = server.log.path.read_bytes()
    response = server.get(Accept=LINES)
    assert (response.headers["content-type"], response.content) == (LINES, whole)
    assert server.get(f"/v1/studies/s/events?after={first}", Accept=LINES).content == whole[first:]


@pytest.mark.parametrize("after", ["-1", "x", "1.5", str(1 << 63), ""])
def test_what_is_no_id_is_refused_in_one_line(server, after):
    for response in (
        server.get(f"/v1/studies/s/events?after={after}"),
        server.get(**{"Last-Event-ID": after or "y"}),
    ):
        assert response.status_code == 422
        detail = response.json()["detail"]
        assert "\n" not in detail
        assert "after" in detail or "last-event-id" in detail


def test_a_study_that_does_not_exist_has_no_stream(server):
    assert server.get("/v1/studies/t/events").status_code == 404


def test_a_resumed_study_is_waited_for(server):
    server.log.append(note(0))
    server.end()
    server.studies.change(server.study, State.QUEUED)
    with server.get(**{"Last-Event-ID": str(server.log.end)}) as response:
        assert response.status_code == 200
        server.log.append(note(1))
        server.end()
        assert [e for _, e in frames(response)] == [note(1), DONE]


def test_an_event_that_a_dying_service_left_out_is_added_once(server, monkeypatch):
    monkeypatch.setattr(module, "_ENDING_S", 0.1)
    server.log.append(note(0))
    server.studies.change(server.study, State.FAILED, "no worker can be started")
    with_reasons = [server.get() for _ in range(8)]
    ended = {"state": "failed", "reason": "no worker can be started", "exit_status": 1}
    for response in with_reasons:
        first, last = (event for _, event in frames(response))
        assert (first, last | {"time": 2.0}) == (note(0), DONE | ended)
    assert len(server.log.lines()) == 2


def test_the_end_of_a_cancelled_study_says_so_without_an_event(server, monkeypatch):
    monkeypatch.setattr(module, "_ENDING_S", 0.1)
    server.studies.change(server.study, State.CANCELLED)
    ((_, last),) = frames(server.get())
    cancelled = {"state": "interrupted", "reason": "cancelled", "exit_status": 130}
    assert last | {"time": 2.0} == DONE | cancelled


def test_a_quiet_stream_is_kept_alive(server, monkeypatch):
    monkeypatch.setattr(module, "_QUIET_S", 0.05)
    for accept, ping in (("text/event-stream", b": ping\n\n"), (LINES, b"\n")):
        with server.get(Accept=accept) as response:
            assert response.raw.read(len(ping)) == ping


def open_stream(port):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"GET /v1/studies/s/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    return int(head.split()[1]), sock


@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_vanish_free_their_places_at_once(server, reset):
    opened = [open_stream(server.port) for _ in range(41)]
    assert [status for status, _ in opened] == [200] * 40 + [429]
    for _, sock in opened:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    deadline = time.monotonic() + 1
    while server.log._waiting and time.monotonic() < deadline:
        time.sleep(0.005)
    again = [open_stream(server.port) for _ in range(40)]
    assert [status for status, _ in again] == [200] * 40
    for _, sock in again:
        sock.close()


def test_a_slow_reader_holds_up_nobody(server):
    with server.get() as slow:
        for n in range(200):
            server.log.append(note(n, 100_000))  # 20 MB: more than buffers hold
        began = time.monotonic()
        with server.get(Accept=LINES) as quick:
            server.end()
            assert quick.content.count(b"\n") == 201
        assert time.monotonic() - began < 5
        assert len(frames(slow)) == 201


def test_a_server_that_stops_ends_all_streams_in_a_second(server):
    kinds = ("text/event-stream", LINES)
    responses = [server.get(Accept=kinds[n % 2]) for n in range(40)]
    server.log.append(note(0))
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 1
    assert not server.thread.is_alive()
    for response in responses:
        assert b'"ended"' not in response.content


def test_streams_end_with_the_condition_of_the_service(server):
    responses = [server.get(), server.get(Accept=LINES)]
    loop = server.log._loop
    loop.call_soon_threadsafe(lambda: server.condition.end_requests(streams_only=True))
    assert [response.content for response in responses] == [b"", b""]


def test_events_reach_clients_within_a_quarter_of_a_second(server):
    """Also where they come quickly, and many clients wait."""
    responses, late = [server.get(Accept=LINES) for _ in range(40)], []

    def read(response):
        for line in response.iter_lines(chunk_size=None):
            event = json.loads(line)
            if event["event"] == "note":
                late.append(time.time() - event["time"])

    threads = [threading.Thread(target=read, args=(response,)) for response in responses]
    for thread in threads:
        thread.start()
    for n in range(100):
        server.log.append(note(n) | {"time": time.time()})
        time.sleep(0.005)
    server.end()
    for thread in threads:
        thread.join()
    assert len(late) == 4000
    assert sorted(late)[int(0.99 * len(late))] < 0.25


def test_a_removed_study_ends_its_streams(server):
    with server.get() as response:
        server.log.append(note(0))
        server.logs.remove("local", "s")
        assert response.status_code == 200
        assert len(frames(response)) <= 1


def test_the_loop_is_free_while_an_old_log_is_read(server, monkeypatch):
    """What is far from the end is read in a thread."""
    threads = []
    real = type(server.log).read

    def read(self, after):
        threads.append(threading.current_thread() is server.thread)
        return real(self, after)

    for n in range(20):
        server.log.append(note(n, 20_000))
    server.end()
    monkeypatch.setattr(type(server.log), "read", read)
    assert len(frames(server.get())) == 21
    assert False in threads
