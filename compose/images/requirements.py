"""Prints what extras of pyproject.toml require, a line each, for `pip install --requirement`.

usage: requirements.py EXTRA ...     the base and these extras
       requirements.py --build       what builds the wheel
"""

import sys
import tomllib
from collections.abc import Iterator

OWN = "headrace["


def required_by(extras: list[str], known: dict[str, list[str]]) -> Iterator[str]:
    """Requirements of extras; an extra that names others of ours stands for theirs."""
    for extra in extras:
        for requirement in known[extra]:
            if requirement.startswith(OWN):
                yield from required_by(requirement.removeprefix(OWN).rstrip("]").split(","), known)
            else:
                yield requirement


def main(arguments: list[str]) -> None:
    """Print, sorted, each once."""
    with open("pyproject.toml", "rb") as file:  # noqa: PTH123 - runs in an image that has nothing else
        project = tomllib.load(file)
    if arguments == ["--build"]:
        lines = project["build-system"]["requires"]
    else:
        known = project["project"]["optional-dependencies"]
        lines = [*project["project"]["dependencies"], *required_by(arguments, known)]
    sys.stdout.write("".join(f"{line}\n" for line in sorted(set(lines))))


if __name__ == "__main__":
    main(sys.argv[1:])
