"""Tracking: MLflow is a copy of the journal, made beside the search and replayable at any time."""

from tuner.tracking.links import StudyLinks, explain, find_links, has_study
from tuner.tracking.store import only_copier, open_store, tracking_uri
from tuner.tracking.sync import SyncCount, SyncState, sync_study
from tuner.tracking.tracker import MlflowTracker, TrackingObserver, experiment_file
from tuner.tracking.ui import start_ui

__all__ = [
    "MlflowTracker",
    "StudyLinks",
    "SyncCount",
    "SyncState",
    "TrackingObserver",
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
