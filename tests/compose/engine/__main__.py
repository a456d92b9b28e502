"""`python -m engine up FOLDER [IMAGE ...]`: an Engine with these images, until Ctrl-C; prints its DOCKER_HOST."""

import signal
import sys
from pathlib import Path

from .base_images import DEBIAN_PYTHON, provide_python
from .debian import NotTestable
from .server import running
from .stand_ins import provide

ENDS = {signal.SIGINT, signal.SIGTERM}
TOOLS = Path(sys.prefix) / "tools" / "engine"


def main(folder: Path, images: list[str]) -> None:
    """Bring it up, and wait."""
    try:
        with running(TOOLS, folder.resolve()) as docker:
            provide_python(docker, DEBIAN_PYTHON, TOOLS)
            missing = [image for image in images if not provide(docker, image, TOOLS)]
            print(f"export DOCKER_HOST={docker.host}", *(f"# not available: {image}" for image in missing), sep="\n")
            sys.stdout.flush()
            # Not before: the daemon would inherit it.
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
            signal.sigwait(ENDS)
    except NotTestable as error:
        sys.exit(f"no Docker Engine: {error}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "up":
        sys.exit(__doc__)
    main(Path(sys.argv[2]), sys.argv[3:])
