"""Benchmarks of Headrace on this machine: `python -m benchmarks`. They use the product as its users do, and no mock."""
