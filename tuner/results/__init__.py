"""The results of a search: retraining, test score, verdict, exported experiment and model."""
