"""Steps as CUDA graphs: on a tape that stands in for the GPU, and on a GPU where there is one."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuner.training import cuda_graph, group_windows, train_group
from tuner.training.batched import Group
from tuner.training.cuda_graph import GraphedStep
from tuner.training.group_member import Member
from tuner.training.samples import Split

CPU = torch.device("cpu")


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: operations of one call, done again on the same memory.

    Recording leaves every tensor from before as it was. What a capture on a GPU refuses, or would
    do only once, is refused: numbers read from tensors, tensors made from numbers, random numbers.
    """

    refused = (
        "_local_scalar_dense", "lift_fresh", "nonzero", "masked_select",
        "uniform_", "bernoulli_", "bernoulli", "rand", "native_dropout",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.operations = []
        self.own = set()  # storages that the call makes
        self.before = {}  # contents of all others that it writes to

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (name := function.overloadpacket.__name__) in self.refused:
            raise RuntimeError(f"operation not permitted when capturing: {name}")
        schema = function._schema.arguments
        given = [*zip(schema, args, strict=False), *((a, kwargs.get(a.name)) for a in schema)]
        for argument, value in given:
            if argument.is_write:
                for tensor in tree_leaves(value):
                    self.keep(tensor)
        made = function(*args, **kwargs)
        known = {t.untyped_storage().data_ptr() for t in tensors_of([args, kwargs])}
        new = [t for t in tensors_of(made) if t.untyped_storage().data_ptr() not in known]
        self.own |= {t.untyped_storage().data_ptr() for t in new}
        if new or any(a.is_write for a in schema):  # otherwise a view
            self.operations.append((function, args, kwargs, made, bool(new)))
        return made

    def keep(self, tensor):
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        if (at := storage.data_ptr()) not in self.own:
            self.before.setdefault(at, (storage, storage.clone()))

    def rewind(self):
        for storage, content in self.before.values():
            storage.copy_(content)

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, made, is_new in self.operations:
            again = function(*args, **kwargs)
            if is_new:
                for old, new in zip(tensors_of(made), tensors_of(again), strict=True):
                    old.copy_(new)


def tensors_of(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class Stream:
    """A stream on a CPU, which notes what it waits for."""

    device = CPU

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def wait_stream(self, other):
        self.seen.append(f"{self.name} waits for {other.name}")


class Streams:
    """The current stream and that of captures, and what happens on them."""

    def __init__(self):
        self.seen = []
        self.caller, self.captures = Stream("caller", self.seen), Stream("captures", self.seen)
        self.current = self.caller

    @contextlib.contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def set(self, stream):
        self.current = stream


@pytest.fixture(autouse=True)
def streams(monkeypatch, request):
    """Streams on a CPU; on a GPU there are real ones."""
    found = Streams()
    if "a_gpu" not in request.node.name:
        monkeypatch.setattr(cuda_graph, "_stream", lambda device: found.captures)
        monkeypatch.setattr(torch.cuda, "stream", found.on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: found.current)
        monkeypatch.setattr(torch.cuda, "set_stream", found.set)
    return found


@pytest.fixture
def replays(monkeypatch, streams):
    """Steps on a CPU are captured on tapes; the list has an entry for every replay."""
    found = []

    def capture(function, stream):
        assert stream is streams.captures
        with Tape() as tape:
            function()
        tape.rewind()

        def replay():
            found.append(tape)
            tape.replay()

        return replay

    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr(cuda_graph, "_CALLS_BEFORE", 3)
    monkeypatch.setattr("tuner.training.batched.on_gpu", lambda device: True)
    return found


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch):
    monkeypatch.setattr(GraphedStep, "refused", None)


@pytest.fixture
def kernel_by_kernel(monkeypatch):
    """Return a function that trains a group on a CPU as on a GPU, without graphs."""

    def train(jobs):
        with monkeypatch.context() as patched:
            patched.setattr("tuner.training.batched.on_gpu", lambda device: True)
            patched.setattr(cuda_graph, "_CALLS_BEFORE", math.inf)
            return train_group(jobs, every)

    return train


def every(reports):
    return [True] * len(reports)


def histories(outcomes):
    return [[(e.train_loss, e.val_loss, e.metric) for e in outcome.history] for outcome in outcomes]


VARIED = {
    "widths": [{"hidden_size": 3}, {"hidden_size": 9, "normalize": "last"}, {"hidden_size": 16}],
    "layers": [{"num_layers": 2, "dropout": 0.4}, {"hidden_size": [4, 7], "dropout": 0.1}],
    "dropout": [{"dropout": 0.0}, {"dropout": 0.3}, {"dropout": 0.5, "hidden_size": 5}],
    "averages": [{"weight_averaging": 1.0}, {"weight_averaging": 3.0, "hidden_size": 4}],
    "decay": [{"weight_decay": 0.1}, {"weight_decay": 0.3, "optimizer": "adamw"}],
    "rates": [{"learning_rate": 1e-3, "schedule": "cosine"}, {"learning_rate": 0.1}],
    "loss": [{"loss": "huber"}, {"loss": "huber", "hidden_size": 3}],
}


@pytest.mark.parametrize("varied", VARIED)
def test_graphs_train_as_the_steps_that_they_replace(
    noise, make_job, replays, kernel_by_kernel, varied
):
    jobs = [
        make_job(noise, seed=at, epochs=4, batch_size=8, **own)
        for at, own in enumerate(VARIED[varied])
    ]
    graphed = train_group(jobs, every)
    n_replays = len(replays)
    plain = kernel_by_kernel(jobs)
    assert histories(graphed) == histories(plain)
    assert len({id(tape) for tape in replays}) == 1
    assert n_replays == len(replays) > 2 * 4  # some in each epoch, and none of the plain steps


@pytest.mark.parametrize(
    "fields",
    [{"quantiles": (0.1, 0.5, 0.9)}, {"step_weights": (1.0, 3.0)}],
    ids=["quantiles", "step_weights"],
)
def test_graphs_train_so_on_data_of_every_kind(
    make_ref, make_job, replays, kernel_by_kernel, monkeypatch, fields
):
    monkeypatch.setattr(group_windows, "_KEPT", 0)  # each batch is made when it is needed
    rng = np.random.default_rng(4)
    ref = make_ref(np.cumsum(rng.normal(size=(120, 2)), axis=0) / 5, horizon=2)
    if "quantiles" in fields:
        fields = {"shape": dataclasses.replace(ref.shape, **fields)}
    ref = dataclasses.replace(ref, **fields)
    own = [{"hidden_size": 3, "normalize": "standard"}, {"linear_path": True}]
    jobs = [make_job(ref, seed=at, epochs=3, batch_size=8, **o) for at, o in enumerate(own)]
    graphed = train_group(jobs, every)
    assert len(replays) > 3
    assert histories(graphed) == histories(kernel_by_kernel(jobs))


def test_steps_without_dropout_are_those_of_a_cpu(noise, make_job, replays):
    jobs = [make_job(noise, seed=at, epochs=3, batch_size=8, hidden_size=3 + at) for at in range(3)]
    graphed = train_group(jobs, every)
    assert replays
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tuner.training.batched.on_gpu", lambda device: False)
        assert histories(graphed) == histories(train_group(jobs, every))


def test_members_that_go_on_have_a_graph_of_their_own(noise, make_job, replays, kernel_by_kernel):
    jobs = [
        make_job(noise, seed=at, epochs=epochs, batch_size=8)
        for at, epochs in enumerate((6, 3, 6, 6))
    ]
    graphed = train_group(jobs, every)
    assert len({id(tape) for tape in replays}) == 2
    assert histories(graphed) == histories(kernel_by_kernel(jobs))


def test_a_step_is_captured_after_a_few_calls(replays):
    total = torch.zeros(2)
    seen = []

    def step(rate, nothing):
        seen.append(nothing)
        total.add_(rate)

    graphed = GraphedStep(step, CPU)
    for at in range(6):
        graphed(torch.full((2,), 10.0**at), None)
        assert total.tolist() == [int("1" * (at + 1))] * 2
    assert len(replays) == 3
    assert seen == [None] * 4  # three calls, and the capture


def test_arguments_are_copied_and_left_as_they_are(replays):
    given, total = torch.zeros(1), torch.zeros(1)
    graphed = GraphedStep(lambda rate: total.add_(rate.add_(1)), CPU)
    for at in range(6):
        given.fill_(at)
        graphed(given.clone() if at < 3 else given)
    assert given.tolist() == [5]
    assert total.tolist() == [1 + 2 + 3 + 4 + 5 + 6]


@pytest.mark.parametrize("refused", ["item", "made", "random"])
def test_what_cannot_be_captured_goes_on_as_it_is(replays, refused):
    total = torch.zeros(1)
    does = {
        "item": lambda: total.add_(total.sum().item() * 0 + 1),
        "made": lambda: total.add_(torch.tensor([1.0])),
        "random": lambda: total.add_(torch.rand(1) * 0 + 1),
    }
    for n in (5, 10):  # the second one in this process does not try
        graphed = GraphedStep(does[refused], CPU)
        for _ in range(5):
            graphed()
        assert total.item() == n
    assert not replays
    operation = {"item": "_local_scalar_dense", "made": "lift_fresh", "random": "rand"}[refused]
    assert GraphedStep.refused == f"operation not permitted when capturing: {operation}"


def test_a_process_that_refused_a_capture_tries_no_other(monkeypatch):
    tried = []

    def capture(function, stream):
        tried.append(1)
        raise RuntimeError("no")

    monkeypatch.setattr(cuda_graph, "capture", capture)
    for _ in range(2):
        graphed = GraphedStep(lambda: None, CPU)
        for _ in range(2 * cuda_graph._CALLS_BEFORE):
            graphed()
    assert tried == [1]


@pytest.mark.parametrize(("version", "n_captures"), [("2.12.1", 0), ("2.13.0+cu130", 1)])
def test_nothing_is_captured_where_a_failed_capture_does_harm(monkeypatch, version, n_captures):
    captured = []
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    monkeypatch.setattr(cuda_graph, "capture", lambda *_: captured.append(1) or (lambda: None))
    graphed = GraphedStep(lambda: None, CPU)
    for _ in range(2 * cuda_graph._CALLS_BEFORE):
        graphed()
    assert len(captured) == n_captures


def test_the_last_call_before_a_capture_is_on_its_stream(replays, streams):
    graphed = GraphedStep(lambda: streams.seen.append(f"on {streams.current.name}"), CPU)
    for _ in range(3):
        graphed()
    assert streams.seen == [
        "on caller", "on caller",
        "captures waits for caller", "on captures", "caller waits for captures",
    ]  # fmt: skip


def test_a_call_that_fails_there_is_waited_for(monkeypatch, streams):
    monkeypatch.setattr(cuda_graph, "_CALLS_BEFORE", 1)

    def lacking():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        GraphedStep(lacking, CPU)()
    assert streams.seen == ["captures waits for caller", "caller waits for captures"]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt(), ValueError("own")]
)
def test_a_capture_raises_what_made_it_fail(monkeypatch, streams, error):
    class Capturing:
        def __enter__(self):
            streams.current = streams.captures

        def __exit__(self, *given):
            raise RuntimeError("capture failed due to a previous error")  # the stream stays

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: Capturing())

    def failing():
        try:
            raise KeyError("handled")
        except KeyError:
            raise error from None

    with pytest.raises(type(error)) as raised:
        cuda_graph.capture(failing, streams.captures)
    assert raised.value is error
    assert streams.current is streams.caller
    with pytest.raises(RuntimeError, match="previous error"):
        cuda_graph.capture(lambda: None, streams.captures)


def test_a_graph_that_lacks_memory_is_done_without(monkeypatch):
    tried = []

    def capture(function, stream):
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda_graph, "capture", capture)
    for _ in range(2):  # the next group may have the memory
        done = []
        graphed = GraphedStep(lambda done=done: done.append(1), CPU)
        for _ in range(30):
            graphed()
        assert len(done) == 30
    assert tried == [1, 1]
    assert GraphedStep.refused is None


def group_of(jobs, ref):
    members = [Member(job) for job in jobs]
    opened = Split(ref, CPU)
    for member in members:
        member.prepare(CPU, opened)
    return Group(members, CPU)


def test_the_masks_of_noise_keep_the_mean(noise, make_job):
    rates = (0.0, 0.2, 0.5)
    jobs = [make_job(noise, seed=3, hidden_size=40, num_layers=2, dropout=p) for p in rates]
    group = group_of(jobs, noise)
    masks = group._masks_of(group._noise(50), 50)
    steps = group.train_windows.steps
    assert [tuple(mask.shape) for mask in masks] == [(steps, 3, 40, 50), (3, 40, 50)]
    for mask, axis in zip(masks, (1, 0), strict=True):
        for at, rate in enumerate(rates):
            own = mask.select(axis, at)
            kept = own[own > 0]
            assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - rate)))
            assert own.mean().item() == pytest.approx(1, abs=0.1)
    again = group._masks_of(group._noise(50), 50)
    assert not torch.equal(again[1][1], masks[1][1])


def test_masks_do_not_depend_on_the_other_members(noise, make_job):
    def masks_of(place, *sizes):
        jobs = [
            make_job(noise, seed=at, hidden_size=list(size), dropout=0.4)
            for at, size in enumerate(sizes)
        ]
        own = dataclasses.replace(jobs[place], seed=7)
        group = group_of([*jobs[:place], own, *jobs[place + 1 :]], noise)
        group._noise(6)
        first, last = group._masks_of(group._noise(6), 6)
        places = [at[place].flatten().tolist() for at in group._places(6)]
        n_own = 6 * (4 * group.train_windows.steps + 3)
        assert {*places[0], *places[1]} == set(range(n_own))  # each number once
        return first[:, place, :4], last[place, :3]

    narrow, wide = masks_of(0, (4, 3), (2, 2)), masks_of(2, (9, 8), (5, 12), (4, 3))
    for a, b in zip(narrow, wide, strict=True):
        assert torch.equal(a, b)
        assert 0 < (a == 0).float().mean() < 1
    other = masks_of(0, (4, 3), (4, 3))
    group = group_of([make_job(noise, seed=at, dropout=0.4) for at in range(2)], noise)
    (last,) = group._masks_of(group._noise(6), 6)
    assert torch.equal(other[0], narrow[0])
    assert not torch.equal(last[0], last[1])  # each has its own


def test_a_batch_of_all_samples_is_captured(noise, make_job, replays):
    train_group([make_job(noise, seed=at, epochs=6, batch_size=1000) for at in range(3)], every)
    assert len(replays) == 3


ON_A_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NOT TESTED ON A GPU: there is none here"
)


@ON_A_GPU
@pytest.mark.parametrize("kept", [2**24, 0])
def test_a_gpu_replays_the_steps_of_a_group(noise, make_job, monkeypatch, kept):
    monkeypatch.setattr(group_windows, "_KEPT", kept)
    own = [{"hidden_size": 3}, {"dropout": 0.3}, {"weight_averaging": 1.0}]
    jobs = [
        make_job(noise, seed=at, epochs=10 - 4 * at, batch_size=8, device="cuda", **options)
        for at, options in enumerate(own)
    ]
    replayed = []
    capture = cuda_graph.capture

    def counted(function, stream):
        replay = capture(function, stream)
        return lambda: replayed.append(replay()) or None

    monkeypatch.setattr(cuda_graph, "capture", counted)
    graphed = train_group(jobs, every)
    assert len(replayed) > 10
    assert GraphedStep.refused is None
    monkeypatch.setattr(cuda_graph, "_CALLS_BEFORE", math.inf)
    plain = train_group(jobs, every)
    for ours, theirs in zip(histories(graphed), histories(plain), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, rel=1e-3)


@ON_A_GPU
def test_a_gpu_works_on_after_a_failed_capture(noise, make_job):
    total = torch.zeros(1, device="cuda")
    failing = GraphedStep(lambda: total.add_(total.sum().item() * 0 + 1), total.device)
    for _ in range(cuda_graph._CALLS_BEFORE + 2):
        failing()
    assert total.item() == cuda_graph._CALLS_BEFORE + 2
    assert GraphedStep.refused is not None
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()
    torch.rand(3, device="cuda")
    jobs = [make_job(noise, seed=at, dropout=0.3, device="cuda") for at in range(3)]
    assert all(outcome.state == "complete" for outcome in train_group(jobs, every))
