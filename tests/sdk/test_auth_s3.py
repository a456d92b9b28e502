"""`headrace auth s3 init`: the files it writes, and what it leaves alone. The servers' side is in tests/security."""

import json
import re
import stat
from pathlib import Path

import msgspec
import pytest
from test_auth_init import files_of, run

from headrace_contracts.errors import SettingsError
from headrace_contracts.settings import S3Settings, load_settings
from headrace_storage.auth.folder import read_record, role_folder
from headrace_storage.auth.roles import Role
from headrace_storage.auth.s3_policies import s3_policy
from headrace_storage.auth.s3_users import USERS, read_users

URL = "http://s3.example:9000"
SECURITY_PAGE = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run("init", tmp_path, "--s3", "--tenant", "acme", "--untrusted-tenant", "stranger")
    run("s3", "init", tmp_path, "--url", URL)
    return tmp_path


def s3_of(folder: Path, role: Role, tenant: str | None = None) -> S3Settings:
    settings = load_settings({"HEADRACE_CONFIG": str(folder / role_folder(role, tenant) / "headrace.toml")}).s3
    assert settings is not None
    return settings


def test_every_role_that_uses_files_has_a_key_of_its_own(folder: Path) -> None:
    keys = {
        s3_of(folder, role, tenant).access_key_id: s3_of(folder, role, tenant).secret_access_key
        for role, tenant in [
            (Role.WORKER, None),
            (Role.ADMIN, None),
            *((role, tenant) for role in (Role.PRODUCER, Role.CONSUMER) for tenant in ("acme", "stranger")),
        ]
    }
    assert len(set(keys.values())) == len(keys) == 6
    assert s3_of(folder, Role.PRODUCER, "acme").endpoint_url == URL
    users = {user.name: user.credentials[0] for user in read_users(folder).identities}
    root = users.pop("root")
    assert {key.access_key: key.secret_key for key in users.values()} == keys
    assert (folder / "s3/root-user").read_text() == root.access_key
    assert (folder / "s3/root-password").read_text() == root.secret_key


def test_a_scaler_knows_where_files_are_and_reads_none(folder: Path) -> None:
    """Whether they are there or in the broker is for the scaler to know: it may not ask about a store that is not."""
    s3 = s3_of(folder, Role.SCALER)
    assert (s3.endpoint_url, s3.access_key_id, s3.secret_access_key) == (URL, "", "")


def test_secrets_are_in_files_that_their_owner_alone_reads(folder: Path) -> None:
    found = read_users(folder)
    secrets = [user.credentials[0].secret_key.encode() for user in found.identities]
    for path, content in files_of(folder).items():
        if any(secret in content for secret in secrets):
            assert stat.S_IMODE((folder / path).stat().st_mode) == 0o600, path
    assert not any(secret in (folder / "auth.json").read_bytes() for secret in secrets)
    assert not any(secret.decode() in repr(found) for secret in secrets)


def test_repeating_it_changes_nothing(folder: Path) -> None:
    before = files_of(folder)
    run("s3", "init", folder, "--url", URL)
    run("update", folder)
    assert files_of(folder) == before


def test_another_address_reaches_every_role_and_keys_stay(folder: Path) -> None:
    before = s3_of(folder, Role.WORKER)
    run("s3", "init", folder, "--url", "https://elsewhere.example")
    after = s3_of(folder, Role.WORKER)
    assert after == msgspec.structs.replace(before, endpoint_url="https://elsewhere.example")
    assert s3_of(folder, Role.SCALER).endpoint_url == "https://elsewhere.example"


@pytest.mark.parametrize("written", range(1, 9))
def test_after_a_break_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """The first run ends between two files, wherever that is."""
    run("init", tmp_path, "--s3", "--tenant", "acme")
    replace, replaced = Path.replace, []

    def break_off(part: Path, target: Path) -> Path:
        if len(replaced) == written:
            raise SettingsError("the process was killed")
        replaced.append(target)
        return replace(part, target)

    with monkeypatch.context() as breaking:
        breaking.setattr(Path, "replace", break_off)
        for url in (URL, "http://elsewhere:9000"):
            replaced.clear()
            with pytest.raises(SettingsError, match="killed"):
                run("s3", "init", tmp_path, "--url", url)
    made = read_users(tmp_path).identities if written > 2 else None
    run("s3", "init", tmp_path, "--url", URL)
    users = {user.name: user.credentials for user in read_users(tmp_path).identities}
    assert made is None or users == {user.name: user.credentials for user in made}
    for role, tenant in ((Role.WORKER, None), (Role.ADMIN, None), (Role.PRODUCER, "acme"), (Role.CONSUMER, "acme")):
        s3 = s3_of(tmp_path, role, tenant)
        assert s3.endpoint_url == URL
        assert users[s3.access_key_id][0].secret_key == s3.secret_access_key


def test_an_upgrade_writes_what_keys_may_do_anew(folder: Path) -> None:
    before = files_of(folder)
    # As an older version would have written it.
    older = json.loads(before[USERS])
    older["policies"][0]["content"] = older["policies"][0]["content"].replace("s3:GetObject", "s3:*")
    (folder / USERS).write_text(json.dumps(older))
    assert "then: headrace auth s3 apply" in run("update", folder).output
    assert files_of(folder) == before
    assert "s3 apply" not in run("update", folder).output


def test_a_late_tenant_has_a_key_and_no_other_key_changes(folder: Path) -> None:
    before = {user.name: user for user in read_users(folder).identities}
    said = run("add-tenant", folder, "late").output
    assert "headrace auth s3 apply" in said
    after = {user.name: user for user in read_users(folder).identities}
    assert after.keys() - before.keys() == {"headrace-producer-late", "headrace-consumer-late"}
    assert {name: after[name] for name in before} == before
    assert s3_of(folder, Role.PRODUCER, "late").access_key_id == "headrace-producer-late"


def test_a_key_that_was_taken_back_is_replaced(folder: Path) -> None:
    before = s3_of(folder, Role.WORKER)
    users = read_users(folder)
    left = tuple(user for user in users.identities if user.name != before.access_key_id)
    (folder / USERS).write_bytes(msgspec.json.encode(msgspec.structs.replace(users, identities=left)))
    run("s3", "init", folder, "--url", URL)
    after = s3_of(folder, Role.WORKER)
    assert after.access_key_id == before.access_key_id
    assert after.secret_access_key != before.secret_access_key
    assert after.secret_access_key in (folder / USERS).read_text()


def test_what_an_operator_wrote_is_not_replaced(tmp_path: Path) -> None:
    run("init", tmp_path, "--s3")
    with (tmp_path / "worker" / "headrace.toml").open("a") as file:
        file.write('\n[s3]\nendpoint_url = "http://mine:9000"\naccess_key_id = "me"\nsecret_access_key = "mine"\n')
    before = files_of(tmp_path)
    with pytest.raises(SettingsError, match=r"worker/headrace\.toml has an \[s3\] of its own: remove it"):
        run("s3", "init", tmp_path, "--url", URL)
    assert files_of(tmp_path) == before


def test_settings_that_an_operator_added_stay(folder: Path) -> None:
    path = folder / "worker" / "headrace.toml"
    path.write_text("[metrics]\nport = 9464\n\n" + path.read_text())
    run("s3", "init", folder, "--url", "http://elsewhere:9000")
    assert load_settings({"HEADRACE_CONFIG": str(path)}).metrics.port == 9464
    assert s3_of(folder, Role.WORKER).endpoint_url == "http://elsewhere:9000"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--url", "s3.example:9000"), "must look like http://host:9000"),
        (("--url", "http://s3.example/bucket"), "must look like http://host:9000"),
        (("--url", URL, "--bucket", "all*"), r"bucket 'all\*' must be"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    run("init", tmp_path, "--s3")
    before = files_of(tmp_path)
    with pytest.raises(SettingsError, match=sentence):
        run("s3", "init", tmp_path, *options)
    assert files_of(tmp_path) == before


def test_files_are_in_one_place(tmp_path: Path) -> None:
    run("init", tmp_path)
    with pytest.raises(SettingsError, match="is for files in the broker: make one with `headrace auth init --s3`"):
        run("s3", "init", tmp_path, "--url", URL)
    assert read_record(tmp_path).s3 is None
    with pytest.raises(SettingsError, match="`headrace auth s3 init`"):
        run("s3", "apply", tmp_path)


def test_the_page_shows_what_a_producer_may_do() -> None:
    found = re.search(r"^```json\n(.*?)^```$", SECURITY_PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == json.loads(msgspec.json.encode(s3_policy(Role.PRODUCER, "acme", "headrace")))
