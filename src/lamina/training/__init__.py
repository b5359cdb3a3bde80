"""Training: what `compile` resolves, the compiled steps, and the loops over data."""
