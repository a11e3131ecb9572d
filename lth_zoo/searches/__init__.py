"""The jobs of finders that make masks by other means than scoring a trained network."""
