"""Worker modules that stand in for `tuner.executors.worker`."""
