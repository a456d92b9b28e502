"""What `setup` writes into the volumes, on a first start and over those of an older stack: the script itself."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_contracts.settings import Settings, load_settings

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "compose" / "images" / "entrypoints" / "headrace-setup"
COMPOSE_PAGE = Path(__file__).parents[2] / "docs" / "compose.md"
READERS = ("broker", "nats", "worker", "scaler", "admin", "client", "s3", "grafana")
ROLES = {
    "worker": "headrace-worker",
    "admin": "headrace-admin",
    "client": "headrace-producer-default",
    "client/admin": "headrace-admin",
    "scaler": "",
}


class Volumes:
    """The volumes of `setup`, as folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*(f"credentials/{reader}" for reader in READERS), "data/s3", "models"):
            (folder / name).mkdir(parents=True)
        text = SCRIPT.read_text(encoding="utf-8")
        # Without its part as root: volumes are given to a user there.
        assert text.count('[ "$(id -u)" = 0 ]') == 1
        text = text.replace('[ "$(id -u)" = 0 ]', "false")
        for name in ("credentials", "data", "models"):
            text = text.replace(f"/{name}/", f"{folder}/{name}/")
        (folder / "setup").write_text(text, encoding="utf-8")

    def set_up(self) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "S3_", "HEADRACE_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MIN_FREE_GIB": "0",
        }
        done = subprocess.run(
            ["sh", str(self.folder / "setup")], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def settings(self, reader: str) -> Settings:
        return load_settings({"HEADRACE_CONFIG": str(self.folder / "credentials" / reader / "headrace.toml")})

    def of_s3(self) -> dict[str, tuple[str, str, str]]:
        """Reader to where it finds the S3 server, and its key."""
        found = {}
        for reader in ROLES:
            s3 = self.settings(reader).s3
            assert s3 is not None
            found[reader] = (s3.endpoint_url, s3.access_key_id, s3.secret_access_key)
        return found

    def root(self) -> tuple[str, str]:
        """The S3 server's own key, as it reads it."""
        user, password = (
            (self.folder / "credentials/s3" / f"root-{name}").read_text() for name in ("user", "password")
        )
        return user, password

    def files(self) -> dict[str, bytes]:
        paths = [path for path in (self.folder / "credentials").rglob("*") if path.is_file()]
        return {path.relative_to(self.folder / "credentials").as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def as_an_older_version_left_it(volumes: Volumes) -> tuple[str, str]:
    """Root's key in every role's settings, and nothing of users in the broker's volume."""
    credentials = volumes.folder / "credentials"
    volumes.set_up()
    user, password = volumes.root()
    broker = credentials / "broker/current"
    record = json.loads((broker / "auth.json").read_bytes())
    del record["s3"]
    (broker / "auth.json").write_text(json.dumps(record))
    for path in (*broker.glob("s3/*"), *credentials.glob("s3/*")):
        path.unlink()
    (broker / "s3").rmdir()
    for path in (*broker.rglob("headrace.toml"), *credentials.glob("*/headrace.toml")):
        kept, _, _ = path.read_text().partition("[s3]")
        of_root = f'endpoint_url = "http://s3:9000"\naccess_key_id = "{user}"\nsecret_access_key = "{password}"\n'
        path.write_text(kept + ("# Files are in S3: fill in\n" if broker in path.parents else f"[s3]\n{of_root}"))
    (credentials / "s3/user").write_text(user)
    (credentials / "s3/password").write_text(password)
    (credentials / "s3/seaweedfs.json").write_text("{}")
    return user, password


def test_every_reader_has_its_own_key_and_root_s_is_with_the_server_alone(volumes: Volumes) -> None:
    volumes.set_up()
    found = volumes.of_s3()
    assert {reader: key for reader, (_, key, _) in found.items()} == ROLES
    assert {reader: url for reader, (url, _, _) in found.items()} == {
        **dict.fromkeys(("worker", "admin", "scaler"), "http://s3:9000"),
        **dict.fromkeys(("client", "client/admin"), "http://127.0.0.1:9000"),
    }
    assert volumes.settings("client").nats.url == "nats://127.0.0.1:4222"
    holders = {path.split("/")[0] for path, content in volumes.files().items() if volumes.root()[1].encode() in content}
    assert holders == {"broker", "s3"}


def test_later_starts_change_no_file(volumes: Volumes) -> None:
    volumes.set_up()
    before = volumes.files()
    volumes.set_up()
    assert volumes.files() == before


def test_an_older_stack_gets_keys_and_its_server_keeps_its_own(volumes: Volumes) -> None:
    """Workers of before the upgrade go on with root's key until they have ended."""
    root = as_an_older_version_left_it(volumes)
    volumes.set_up()
    assert volumes.root() == root
    assert {reader: key for reader, (_, key, _) in volumes.of_s3().items()} == ROLES
    holders = {path.split("/")[0] for path, content in volumes.files().items() if root[1].encode() in content}
    assert holders == {"broker", "s3"}
    assert not {"s3/user", "s3/password", "s3/seaweedfs.json"} & volumes.files().keys()


def test_new_keys_of_the_broker_leave_the_server_its_own(volumes: Volumes) -> None:
    """The volume is removed to make new keys; a server that runs would not take another root."""
    volumes.set_up()
    root, before = volumes.root(), volumes.of_s3()
    subprocess.run(["rm", "-r", str(volumes.folder / "credentials/broker/current")], check=True)
    volumes.set_up()
    assert volumes.root() == root
    assert volumes.of_s3()["client"][2] != before["client"][2]


def test_root_s_key_can_be_changed_and_no_role_sees_it(volumes: Volumes) -> None:
    """By the command of docs/compose.md, for stacks whose clients had it."""
    volumes.set_up()
    root, before = volumes.root(), volumes.of_s3()
    [command] = re.findall(r"--entrypoint sh setup -c '(.*?)'", COMPOSE_PAGE.read_text(encoding="utf-8"))
    command = command.replace("/credentials/", f"{volumes.folder}/credentials/")
    subprocess.run(["sh", "-c", command], check=True)
    volumes.set_up()
    assert set(volumes.root()).isdisjoint(root)
    assert volumes.of_s3() == before
    users = json.loads(volumes.files()["s3/users.json"])["identities"]
    assert users[0]["credentials"] == [dict(zip(("accessKey", "secretKey"), volumes.root(), strict=True))]
