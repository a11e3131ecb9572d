"""Downstream tasks, by data source, and the shipped recipes."""
