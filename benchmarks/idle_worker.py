"""A worker whose jobs do nothing; all else is as in `tuner.executors.worker`.

With `IDLE_EPOCH_S` in the environment each epoch waits for so many seconds.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tuner.executors import worker
from tuner.jobs import Epoch, Outcome, OutcomeState, PredictJob

N_EPOCHS = 20
EPOCH_S = float(os.environ.get("IDLE_EPOCH_S", "0"))


def do_nothing(job: Any, report: Callable[[Any], bool]) -> Any:
    """Answer a job at once, as if `N_EPOCHS` epochs had been trained."""
    begun, waited = time.perf_counter(), 0.0
    if isinstance(job, PredictJob):
        truth = job.data.truth_of(job.data.evaluate_samples())
        return Outcome(OutcomeState.COMPLETE, predictions=truth)
    size, dropout = job.hyperparameters["hidden_size"], job.hyperparameters["dropout"]
    best = 20 + 5 * abs(math.log(size / 40)) + 20 * abs(dropout - 0.23)  # inside the space
    history: list[Epoch] = []
    state = OutcomeState.COMPLETE
    for number in range(N_EPOCHS):
        time.sleep(EPOCH_S)
        loss = math.exp(-number / 5) + 0.0123456789
        epoch = Epoch(number, loss, 1.1 * loss, best * (1 + loss), time.time())
        history.append(epoch)
        waiting = time.perf_counter()
        go_on = report(epoch)
        waited += time.perf_counter() - waiting
        if not go_on:
            state = OutcomeState.PRUNED
            break
    return Outcome(
        state,
        objective=history[-1].metric if state is OutcomeState.COMPLETE else None,
        best_epoch=len(history) - 1,
        history=tuple(history),
        seconds=time.perf_counter() - begun - waited,
        finished_at=time.time(),
        weights={} if job.keep_weights else None,
    )


if __name__ == "__main__":
    worker.run_job = do_nothing
    worker.main(int(sys.argv[1]))
