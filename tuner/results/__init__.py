"""The results of a search: winner, test score, verdict, exported experiment and model."""
