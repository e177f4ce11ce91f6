"""Why a training ends without a score."""

__all__ = ["TrainingError"]


class TrainingError(Exception):
    """This job cannot come to a score; the text is the reason that its outcome gives."""
