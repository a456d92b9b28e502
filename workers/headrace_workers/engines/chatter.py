"""Keeps the model libraries quiet: stderr of an engine process is for what went wrong."""


def silence_transformers() -> None:
    """Only errors, no progress bars, from transformers."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def silence_diffusers() -> None:
    """Only errors, no progress bars, from diffusers and the transformers below it."""
    from diffusers.utils import logging

    silence_transformers()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
