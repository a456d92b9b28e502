"""The whole system on one machine without Docker: broker, registry and workers under one command."""
