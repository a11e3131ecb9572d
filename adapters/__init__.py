"""Families: each says what is prunable, how its models are built and how its tickets move."""
