"""Progress: what people and programs see of a search while it runs, and of its result."""
