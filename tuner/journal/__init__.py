"""The journal: the durable record of studies, with one writer."""
