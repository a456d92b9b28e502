"""Everything durable: JetStream topology, jobs, results, events, the registry, heartbeats, and blobs.

The only package that imports `nats` and `minio`. It moves bytes and enforces the broker-side rules; what to run and
when to give up is decided by its callers.
"""
