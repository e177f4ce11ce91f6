"""What a search came to: the winner, its test score, the exported experiment."""
