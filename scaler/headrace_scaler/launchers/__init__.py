"""Start and stop workers: one port, and an adapter for each place where workers can run."""
