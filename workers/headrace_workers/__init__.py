"""Workers: pull jobs, run them in engine processes, store what they make, settle.

The supervisor (asyncio, no torch) owns broker, store, leases and deadlines; an engine process owns the device and may
be killed at any time. `engines/` know neither broker nor store.
"""
