"""Says when a model's queue needs somebody: the conditions, when they count, and how it is told once."""
