"""Tracking: MLflow is a copy of the journal, made beside the search and replayable at any time."""

from tuner.tracking.state import SyncState
from tuner.tracking.store import explain, only_copier, open_store, tracking_uri
from tuner.tracking.sync import SyncCount, sync_study
from tuner.tracking.tracker import MlflowTracker, NullTracker, Tracker, experiment_file
from tuner.tracking.ui import runs_link, start_ui

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "SyncCount",
    "SyncState",
    "Tracker",
    "experiment_file",
    "explain",
    "only_copier",
    "open_store",
    "runs_link",
    "start_ui",
    "sync_study",
    "tracking_uri",
]
