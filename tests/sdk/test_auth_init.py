"""`headrace auth init`: what it writes, and what it leaves alone."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli.auth import auth
from headrace_contracts.errors import HeadraceError, SettingsError
from headrace_contracts.settings import load_settings
from headrace_storage.auth.folder import read_record
from headrace_storage.auth.roles import Role, Tenant, permissions_of


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(auth, [str(argument) for argument in arguments])
    if isinstance(done.exception, HeadraceError):
        raise done.exception
    return done


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    run("init", folder, "--tenant", "acme")
    before = files_of(folder)
    with pytest.raises(SettingsError, match=r"already nats\.conf.*--force"):
        run("init", folder, "--tenant", "other")
    assert files_of(folder) == before
    run("init", folder, "--tenant", "acme", "--force")
    after = files_of(folder)
    assert after.keys() == before.keys()
    assert after["worker/worker.nk"] != before["worker/worker.nk"]
    assert stat.S_IMODE((folder / "worker" / "worker.nk").stat().st_mode) == 0o600


def test_one_file_in_the_way_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "scaler").mkdir()
    (tmp_path / "scaler" / "scaler.nk").write_text("mine")
    with pytest.raises(SettingsError, match=r"scaler/scaler\.nk"):
        run("init", tmp_path)
    assert files_of(tmp_path) == {"scaler/scaler.nk": b"mine"}


def test_a_roles_folder_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    run("init", tmp_path / "broker", "--tls")
    moved = (tmp_path / "broker" / "worker").rename(tmp_path / "elsewhere")
    nats = load_settings({"HEADRACE_CONFIG": str(moved / "headrace.toml")}).nats
    assert nats.url == "tls://127.0.0.1:4222"
    assert nats.inbox_prefix == "_INBOX_worker"
    assert (nats.nkey, nats.ca) == (str(moved / "worker.nk"), str(moved / "ca.pem"))
    assert Path(nats.nkey).is_file()
    assert Path(nats.ca).is_file()


def test_the_configuration_holds_no_secret_and_the_output_neither(tmp_path: Path) -> None:
    said = run("init", tmp_path, "--tenant", "acme", "--untrusted-tenant", "stranger", "--tls").output
    shown = said + (tmp_path / "nats.conf").read_text() + (tmp_path / "auth.json").read_text()
    for path in [*tmp_path.rglob("*.nk"), *tmp_path.rglob("*.key")]:
        assert path.read_text().splitlines()[-2 if path.suffix == ".key" else 0] not in shown
    for line in (
        'sync_interval: "always"',
        'listen: "127.0.0.1:4222"',
        "max_file_store:",
        "max_memory_store:",
        "max_payload:",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--listen", "4222"), "ADDRESS:PORT"),
        (("--listen", "0.0.0.0:4222"), "--host"),
        (("--listen", "[::]:4222"), "--host"),
        (("--tenant", "a.b"), "tenant 'a.b' is not valid"),
        (("--tenant", "a", "--untrusted-tenant", "a"), "named twice"),
        (("--tls-ca", "CERT"), "--tls-cert and --tls-key"),
        (("--tls", "--tls-cert", "CERT", "--tls-key", "CERT"), "either --tls"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "CERT").write_text("")
    given = [str(tmp_path / option) if option == "CERT" else option for option in options]
    with pytest.raises(HeadraceError, match=sentence):
        run("init", tmp_path / "broker", *given)
    assert not (tmp_path / "broker").exists()


def test_a_tenant_is_added_without_new_keys_for_others(tmp_path: Path) -> None:
    run("init", tmp_path, "--tenant", "acme")
    before = files_of(tmp_path)
    run("add-tenant", tmp_path, "late", "--untrusted")
    after = files_of(tmp_path)
    changed = {path for path in before if after[path] != before[path]}
    assert changed == {"nats.conf", "auth.json"}
    assert {path.split("/")[1] for path in after.keys() - before.keys()} == {"late"}
    assert [tenant.name for tenant in read_record(tmp_path).plan.untrusted] == ["late"]
    with pytest.raises(SettingsError, match="'late' is there already"):
        run("add-tenant", tmp_path, "late")


def test_a_configuration_changed_by_hand_is_kept(tmp_path: Path) -> None:
    run("init", tmp_path)
    with (tmp_path / "nats.conf").open("a") as conf:
        conf.write("# mine\n")
    with pytest.raises(SettingsError, match="changed by hand"):
        run("add-tenant", tmp_path, "late")


def test_with_s3_no_tenant_has_the_brokers_object_store(tmp_path: Path) -> None:
    run("init", tmp_path, "--s3")
    assert "OBJ_" not in (tmp_path / "nats.conf").read_text()
    with_store = permissions_of(Role.PRODUCER, Tenant("acme"))
    without = permissions_of(Role.PRODUCER, Tenant("acme"), jetstream_blobs=False)
    assert {subject for subject in with_store.publish if subject not in without.publish} == {
        *(f"$JS.API.{verb}.OBJ_headrace" for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")),
        "$O.headrace.C.*",
        "$O.headrace.M.*",
    }


def test_an_upgrade_writes_the_configuration_anew_and_keeps_every_key(tmp_path: Path) -> None:
    run("init", tmp_path, "--tenant", "acme")
    before = files_of(tmp_path)
    assert "is as this version wants it" in run("update", tmp_path).output
    assert files_of(tmp_path) == before
    # As an older version would have written it.
    (tmp_path / "nats.conf").write_text("listen: 127.0.0.1:1\n")
    said = run("update", tmp_path).output
    assert "next: restart nats-server" in said
    assert files_of(tmp_path) == before


def test_a_folder_that_is_none_of_ours_cannot_be_updated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="was not made by `headrace auth init`"):
        run("update", tmp_path)
    assert files_of(tmp_path) == {}
