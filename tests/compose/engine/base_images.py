"""The Python image that Dockerfiles start from, where no registry can be reached: out of Debian's own archive.

It does what `python:3.N-slim-bookworm` does for a Dockerfile: the same Debian, the same Python, `python` and `pip` on
the path. It also brings what a machine without the public internet has set up for pip, so that Dockerfiles need to
know nothing of it.
"""

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from .client import CommandFailed, Docker
from .debian import NotTestable, unpacked

PULL_DEADLINE_S = 120.0
ROOT_DEADLINE_S = 600.0
# Debian bookworm's Python.
DEBIAN_PYTHON = "python:3.11-slim-bookworm"
INCLUDED = "python3,python3-venv,python3-pip,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MARK = "headrace.stand-in"


def is_there(docker: Docker, image: str) -> bool:
    """Whether the Engine has the image, or can pull it."""
    if docker.has_image(image):
        return True
    try:
        docker("pull", "--quiet", image, timeout_s=PULL_DEADLINE_S)
    except (CommandFailed, subprocess.TimeoutExpired):
        return False
    return True


def provide_python(docker: Docker, image: str, tools: Path) -> None:
    """Make sure that `image` is there.

    Raises:
        NotTestable: it is not there, and cannot be made.
    """
    if is_there(docker, image):
        return
    if image != DEBIAN_PYTHON:
        raise NotTestable(f"{image} cannot be pulled, and only {DEBIAN_PYTHON} can be made out of Debian's archive")
    plain = "headrace-debian-python:bookworm"
    if not docker.has_image(plain):
        docker(
            "import", "--change", "ENV LANG=C.UTF-8", "--change", 'CMD ["python3"]', _root(tools), plain, timeout_s=300
        )
    folder = tools / "python-image"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_context(folder, plain)
    docker.build(image, folder, timeout_s=300)


def _root(tools: Path) -> Path:
    """A tar file of a Debian with Python; made once, since it takes a minute."""
    kept = tools / "debian-python.tar"
    if kept.is_file():
        return kept
    if os.geteuid() != 0:
        raise NotTestable("no registry can be reached, and only root can make an image of Debian")
    packages = unpacked(("debootstrap",), tools / "debootstrap")
    folder = tools / "debian-python"
    shutil.rmtree(folder, ignore_errors=True)
    command = [packages / "usr/sbin/debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", folder]
    environment = {**os.environ, "DEBOOTSTRAP_DIR": str(packages / "usr/share/debootstrap")}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ROOT_DEADLINE_S)
    if made.returncode != 0:
        raise NotTestable(f"debootstrap failed: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
    # As in the official image: pip installs where Python looks, and `python` is a command.
    for guard in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        guard.unlink()
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for archive in folder.glob("var/cache/apt/archives/*.deb"):
        archive.unlink()
    part = kept.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        tar.add(folder, arcname=".")
    part.rename(kept)
    shutil.rmtree(folder)
    return kept


def _write_context(folder: Path, base: str) -> None:
    """A Dockerfile that adds this machine's certificates and pip's settings to `base`."""
    lines = [f"FROM {base}", f"LABEL {MARK}=python"]
    if CERTIFICATES.is_file():
        shutil.copy(CERTIFICATES, folder / "certificates.crt")
        lines += [f"COPY certificates.crt {CERTIFICATES}", f"ENV SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES}"]
    config = configparser.ConfigParser(interpolation=None)
    config["global"] = {}
    for number, (option, value) in enumerate(_pip_settings().items()):
        paths = [Path(word.removeprefix("file://")) for word in value.split()]
        local = [path for path in paths if path.is_absolute()]
        # A whole index on the disk stands beside the public one, and is too large to take along.
        if (option in ("extra-index-url", "index-url") and local) or option == "cert":
            continue
        for index, path in enumerate(local):
            if path.is_dir():
                shutil.copytree(path, folder / f"pip-{number}-{index}")
                lines.append(f"COPY pip-{number}-{index} {path}")
            elif path.is_file():
                shutil.copy(path, folder / f"pip-{number}-{index}")
                lines.append(f"COPY pip-{number}-{index} {path}")
        config["global"][option] = value
    with (folder / "pip.conf").open("w") as file:
        config.write(file)
    lines.append("COPY pip.conf /etc/pip.conf")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")


def _pip_settings() -> dict[str, str]:
    """What `pip config list` says, the environment's word last, as pip has it."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    settings: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rsplit(".", 1)[-1]] = value.strip("'\"").replace("\\n", " ")
    return settings
