"""Training: the model, its samples and the loop, run by a worker on one job at a time.

Nothing here knows of a search; a job comes in, an outcome goes out.
"""

from tuner.training.model import Model
from tuner.training.predict import predict
from tuner.training.trainer import Report, run_job, train, warm_up

__all__ = ["Model", "Report", "predict", "run_job", "train", "warm_up"]
