"""Data preparation: read, checked, split, transformed and scaled once, before the search.

Only the reference to prepared arrays is imported here, for it is all that a worker needs;
`tuner.data.prepared` and the modules behind it are imported by those who prepare.
"""

from tuner.data.reference import DataRef, PairsRef, SequencesRef, SeriesRef, Shape

__all__ = ["DataRef", "PairsRef", "SequencesRef", "SeriesRef", "Shape"]
