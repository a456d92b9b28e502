"""What every Headrace process agrees on: jobs, results, events, errors, models, names and their encodings.

Imports the standard library and msgspec only; holds values and rules, and does no I/O (but reading settings files).
"""
