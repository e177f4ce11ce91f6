"""Threads of long requests: an owner has few, and none is held by a request that waits."""

import threading

import anyio
import pytest

from tuner.service.threads import OwnerThreads


class Calls:
    """Calls that end when they are released, and who makes them."""

    def __init__(self):
        self.begun, self.released, self.running = threading.Semaphore(0), threading.Event(), []

    def __call__(self, owner):
        self.running.append(owner)
        self.begun.release()
        assert self.released.wait(30)
        return owner


async def begun(calls, n):
    for _ in range(n):
        await anyio.to_thread.run_sync(calls.begun.acquire, limiter=anyio.CapacityLimiter(1))


@pytest.fixture(params=["asyncio"])
def anyio_backend(request):
    return request.param


@pytest.mark.anyio
async def test_an_owner_with_many_requests_holds_few_threads():
    threads, calls = OwnerThreads(of_all=3, of_one=2), Calls()
    ended = []

    async def run(owner):
        ended.append(await threads.run(owner, lambda: calls(owner)))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(run, "ana")
        await begun(calls, 2)
        assert threads._all.borrowed_tokens == 2
        group.start_soon(run, "ben")
        await begun(calls, 1)
        assert sorted(calls.running) == ["ana", "ana", "ben"]
        calls.released.set()
    assert sorted(ended) == [*["ana"] * 20, "ben"]


@pytest.mark.anyio
async def test_a_request_that_leaves_gives_its_turn_up():
    threads, calls = OwnerThreads(of_all=3, of_one=1), Calls()
    async with anyio.create_task_group() as group:
        group.start_soon(threads.run, "ana", lambda: calls("first"))
        await begun(calls, 1)
        with anyio.move_on_after(0):
            await threads.run("ana", lambda: calls("left"))
        calls.released.set()
        assert await threads.run("ana", lambda: calls("last")) == "last"
    assert calls.running == ["first", "last"]
