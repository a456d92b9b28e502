"""Runs the policy against made-up traffic and made-up workers on a clock of its own: days in seconds, from one seed.

The entry is `headrace_scaler.simulation.run.simulate`. The policy is the real one and is called as the scaler calls it,
every tick and at once when a job arrives for a model that has no worker. Workers are made up: cold start, service time.
"""
