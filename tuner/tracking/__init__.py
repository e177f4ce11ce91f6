"""Tracking: MLflow is a copy of the journal, made beside the search and replayable at any time."""

from tuner.tracking.explaining import explain
from tuner.tracking.links import StudyLinks, find_links, has_study
from tuner.tracking.state import SyncState
from tuner.tracking.store import only_copier, open_store
from tuner.tracking.sync import SyncCount, sync_study
from tuner.tracking.tracker import MlflowTracker, NullTracker, Tracker, experiment_file
from tuner.tracking.ui import start_ui
from tuner.tracking.uris import tracking_uri

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "StudyLinks",
    "SyncCount",
    "SyncState",
    "Tracker",
    "experiment_file",
    "explain",
    "find_links",
    "has_study",
    "only_copier",
    "open_store",
    "start_ui",
    "sync_study",
    "tracking_uri",
]
