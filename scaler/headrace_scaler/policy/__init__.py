"""Decides how many workers each model should have: values in, values out; no clock, no broker, no process."""
