"""The search: a study's journal, and the coordinator that alone writes to it."""
