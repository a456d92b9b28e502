"""Workers as containers of a Docker Engine, each made after the container of its model's compose service.

container    what a worker's container is, and what one says of its worker: pure
engine       the few questions that are asked of the Engine, each with a deadline and with errors people understand
launcher     the launcher
"""
