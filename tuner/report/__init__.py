"""Plots, the page of a study, and the comparison of strategies."""
