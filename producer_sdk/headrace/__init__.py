"""Headrace for people who submit jobs."""
