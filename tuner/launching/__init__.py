"""A search as one starts it: checked, watched, copied to MLflow, and stopped by a signal."""
