"""Tracking: MLflow is a copy of the journal, made beside the search and replayable at any time."""

from tuner.tracking.store import (
    explain,
    explained,
    local_store_in,
    only_copier,
    open_store,
    tracking_uri,
)
from tuner.tracking.sync import SyncCount, SyncState, sync_study
from tuner.tracking.tracker import MlflowTracker, TrackingObserver, experiment_file
from tuner.tracking.ui import StudyLinks, find_links, has_study, start_ui

__all__ = [
    "MlflowTracker",
    "StudyLinks",
    "SyncCount",
    "SyncState",
    "TrackingObserver",
    "experiment_file",
    "explain",
    "explained",
    "find_links",
    "has_study",
    "local_store_in",
    "only_copier",
    "open_store",
    "start_ui",
    "sync_study",
    "tracking_uri",
]
