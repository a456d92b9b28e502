"""Debian packages, unpacked and not installed: nothing of the machine changes, and root is not needed."""

import shutil
import subprocess
from pathlib import Path

FETCH_DEADLINE_S = 300.0


class NotTestable(Exception):
    """What a real Engine needs is not here; the message says what."""


def unpacked(packages: tuple[str, ...], folder: Path) -> Path:
    """Where the files of these packages lie below `folder`: fetched at the first call, and kept.

    Raises:
        NotTestable: this is no Debian, or its archive cannot be reached.
    """
    root = folder / "root"
    done = folder / "packages.txt"
    if done.is_file() and done.read_text().split() == list(packages):
        return root
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotTestable(f"{program} is missing: packages come from Debian's archive")
    archives = folder / "archives"
    shutil.rmtree(folder, ignore_errors=True)
    archives.mkdir(parents=True)
    _download(packages, archives)
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", archive, root], check=True, timeout=FETCH_DEADLINE_S)
    shutil.rmtree(archives)
    done.write_text("\n".join(packages))
    return root


def _download(packages: tuple[str, ...], archives: Path) -> None:
    """As apt is set up; with lists of its own where the machine's are empty."""
    download = ["apt-get", "--quiet", "--quiet", "download", *packages]
    fetched = _apt(download, archives)
    if fetched.returncode != 0:
        for part in ("lists/partial", "cache/archives/partial"):
            (archives / part).mkdir(parents=True)
        own = ["-o", f"Dir::State::lists={archives}/lists", "-o", f"Dir::Cache={archives}/cache"]
        own += ["-o", "Debug::NoLocking=1"]
        _apt(["apt-get", "--quiet", *own, "update"], archives)
        fetched = _apt([download[0], *own, *download[1:]], archives)
    if fetched.returncode != 0:
        last = (fetched.stderr.strip().splitlines() or ["no word from apt-get"])[-1]
        raise NotTestable(f"packages cannot be fetched from Debian's archive: {last}")


def _apt(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_DEADLINE_S)
