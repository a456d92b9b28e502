"""A real Docker Engine for the tests of compose/, with the images that the stack starts from.

Read `server.py` for the Engine, `base_images.py` and `stand_ins.py` for images where no registry can be reached.
`python -m engine` in tests/compose prepares both and prints the DOCKER_HOST to export.
"""
