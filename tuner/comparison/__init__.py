"""Strategies compared: what their searches came to at equal budgets, and what of it is real."""
