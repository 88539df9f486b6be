"""Settings: where they come from, what counts first, and that all mistakes are told at once and no secret ever."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from overpaint_common.configuration import FILE_VARIABLE, masked_url, programs, unknown_variables
from overpaint_common.errors import SettingsError
from overpaint_common.settings import AccessSettings, Settings
from overpaint_worker.settings import KeeperSettings, WorkerSettings

SECRET = "hunter2hunter2hunter2hunter2hunter2hunter2hu"
"""Base64 of more than 24 bytes, so that it can be any of the secrets."""


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OVERPAINT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


def write(patch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    """A settings file that counts from now on."""
    file = folder / "overpaint.toml"
    file.write_text(text)
    patch.setenv(FILE_VARIABLE, str(file))
    return file


def lines(kind: type[Settings], **given: Any) -> list[str]:
    """What is said of settings that are wrong, one mistake a line."""
    with pytest.raises(SettingsError) as raised:
        kind.load(**given)
    first, *more = str(raised.value).splitlines()
    assert not more or first.startswith(f"{len(more)} things are wrong")
    return [line.strip() for line in more] or [first]


def starting(found: Iterable[str], place: str) -> str:
    """The one line that names this place."""
    (line,) = [line for line in found if line.startswith(f"{place}: ")]
    return line


BASE = 'ledger = "s3://my-ledger/"\nread = ["s3://photos/"]\nwrite = ["s3://pictures/"]\n'


def test_arguments_count_before_the_environment_and_that_before_the_file(
    patch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given one setting in all places, another in two, another in the file, when they are read, then the first wins."""
    write(patch, tmp_path, BASE + "slots = 2\ngrace = 20\nlease = 200")
    patch.setenv("OVERPAINT_SLOTS", "3")
    patch.setenv("OVERPAINT_GRACE", "30")

    settings = WorkerSettings.load(slots=4)

    assert (settings.slots, settings.grace, settings.lease, settings.load_limit) == (4, 30, 200, 1800)


def test_one_file_serves_all_programs(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given a file with a worker's keys, wrong ones among them, when a producer reads it, then it passes over them."""
    write(patch, tmp_path, BASE + "slots = 0")

    assert Settings.load().ledger == "s3://my-ledger/"
    assert AccessSettings.load().read == ("s3://photos/",)
    assert KeeperSettings.load().lease == 30
    assert len(lines(WorkerSettings)) == 1


def test_no_file_is_read_that_no_variable_names(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given files of likely names in the working directory, when settings are read, then they do not count."""
    for name in ("overpaint.toml", ".env", "settings.toml", "pyproject.toml"):
        (tmp_path / name).write_text('ledger = "s3://my-ledger/"\nOVERPAINT_LEDGER="s3://my-ledger/"')
    patch.chdir(tmp_path)

    (line,) = lines(Settings)

    assert line.startswith("OVERPAINT_LEDGER: required; set it, as in s3://my-ledger/ (`overpaint up` prints")


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ('webhooks = ["a.example.com", "b.example.com"]', "webhooks", ("a.example.com", "b.example.com")),
        ('webhooks = "a.example.com, b.example.com"', "webhooks", ("a.example.com", "b.example.com")),
        ("devices = [0, 1]", "devices", "0,1"),
        ("devices = 2", "devices", "2"),
        ('devices = ["0", "1"]', "devices", "0,1"),
        ('slots = "4"', "slots", 4),
        ("SLOTS = 4", "slots", 4),
        ("keeper = false", "keeper", False),
        ('s3_region = ""', "s3_region", None),
    ],
)
def test_how_values_may_be_written_in_the_file(
    patch: pytest.MonkeyPatch, tmp_path: Path, written: str, name: str, value: object
) -> None:
    """Given one spelling of a value, when the file is read, then the setting has it."""
    write(patch, tmp_path, BASE + written)

    settings = WorkerSettings.load(webhook_secret=f"whsec_{SECRET}")

    assert getattr(settings, name) == value


def test_an_empty_variable_leaves_the_file_its_say(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given an empty variable, when there is a key in the file, then the key counts."""
    write(patch, tmp_path, BASE + "slots = 2")
    patch.setenv("OVERPAINT_SLOTS", "")

    assert WorkerSettings.load().slots == 2


def test_a_relative_path_counts_from_the_files_folder(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given a path in a file elsewhere, when it is read, then it lies beside the file; in a variable it is as given."""
    folder = tmp_path / "etc"
    folder.mkdir()
    write(patch, folder, BASE + 'compile_cache = "kernels"')
    patch.chdir(tmp_path)
    patch.setenv(FILE_VARIABLE, "etc/overpaint.toml")

    assert WorkerSettings.load().compile_cache == folder / "kernels"
    patch.setenv("OVERPAINT_COMPILE_CACHE", "kernels")
    assert WorkerSettings.load().compile_cache == Path("kernels")


def test_all_mistakes_are_told_at_once_each_by_its_place(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given mistakes of every kind in both places, when a worker reads them, then each is a line with value and remedy.

    Those among them that used to be found one after the other, because a later step looked: an allowlist that covers
    the ledger, a registry that cannot be read, devices named twice, an S3 address that is none.
    """
    (tmp_path / "models.toml").write_text('[models.a]\npath = "nowhere"\n[models.b]\npath = "nowhere-else"')
    file = write(
        patch,
        tmp_path,
        """
        ledger = "s3://my-ledger/books/"
        read = ["s3://photos/", "s3://my-ledger/", "ftp://x"]
        write = "s3://my-ledger/books/out/"
        webhooks = ["hooks.example.com"]
        registry = "models.toml"
        grace = -1
        compilation = "on"
        keeper = "perhaps"
        s3_endpoint_url = "localhost:9000"
        slot = 3
        """,
    )
    patch.setenv("OVERPAINT_SLOTS", "many")
    patch.setenv("OVERPAINT_DEVICES", "0,0")
    patch.setenv("OVERPAINT_LEASE", "601")
    patch.setenv("OVERPAINT_STEP_LIMIT", "inf")

    found = lines(WorkerSettings)

    expected = {
        f"slot in {file}": "did you mean slots?",
        f"s3_endpoint_url in {file}": "write https://host or http://host:port",
        f"read in {file}": "'ftp://x' is not understood; write s3://bucket/key",
        f"write in {file}": "s3://my-ledger/books/out/ and the ledger s3://my-ledger/books/ overlap; move one",
        "OVERPAINT_WEBHOOK_SECRET": "required once OVERPAINT_WEBHOOKS names a receiver; make one with",
        f"registry in {file}": f"{tmp_path}/nowhere holds no model_index.json",
        f"grace in {file}": "(given: -1); give a number, 0 or more",
        f"compilation in {file}": "(given: 'on'); give off, default or graphs",
        f"keeper in {file}": "(given: 'perhaps'); give true or false",
        "OVERPAINT_SLOTS": "(given: 'many'); give a whole number, 1 to 256",
        "OVERPAINT_DEVICES": "devices '0,0': name each device once",
        "OVERPAINT_LEASE": "(given: '601'); give a number, 1 to 600",
        "OVERPAINT_STEP_LIMIT": "(given: 'inf'); give a number, more than 0",
    }
    assert {place: part in starting(found, place) for place, part in expected.items()} == dict.fromkeys(expected, True)
    assert len(found) == len(expected)
    assert "nowhere-else holds no" in starting(found, f"registry in {file}")


def test_both_allowlists_are_held_apart_from_the_ledger(tmp_path: Path) -> None:
    """Given prefixes above, at and below the ledger, when they are read, then both lists tell theirs."""
    ledger = f"{tmp_path.as_uri()}/ledger/"

    found = lines(AccessSettings, ledger=ledger, read=tmp_path.as_uri(), write=f"{ledger}x/,s3://elsewhere/")

    assert f"{tmp_path.as_uri()}/ and the ledger" in starting(found, "OVERPAINT_READ")
    assert "elsewhere" not in starting(found, "OVERPAINT_WRITE")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory; name a TOML file"),
        ("", "is no regular file; name a TOML file"),
        (b"slots = ", "is not TOML: Invalid value"),
        ("s3_region = 'é'".encode("latin-1"), "is not TOML"),
    ],
    ids=["missing", "a folder", "broken", "not UTF-8"],
)
def test_a_file_that_cannot_be_read_hides_no_other_mistake(
    patch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | str | None, says: str
) -> None:
    """Given such a file and a wrong variable, when they are read, then both are told.

    The ledger, which is nowhere, may stand in the file, and is not asked for.
    """
    file = tmp_path / "o.toml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.mkdir()
    patch.setenv(FILE_VARIABLE, str(file))
    patch.setenv("OVERPAINT_SLOTS", "0")

    broken, wrong = lines(WorkerSettings)

    assert broken.startswith(f"{FILE_VARIABLE}: {file}: ")
    assert says in broken
    assert wrong.startswith("OVERPAINT_SLOTS: ")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/prod", "redis://127.0.0.1:6379/0/1", "redis.internal:6379"])
def test_a_redis_url_names_its_database_by_number(patch: pytest.MonkeyPatch, url: str) -> None:
    patch.setenv("OVERPAINT_LEDGER", "s3://my-ledger/")
    patch.setenv("OVERPAINT_REDIS_URL", url)

    (wrong,) = lines(Settings)

    assert wrong.startswith("OVERPAINT_REDIS_URL: not a Redis URL, or its database is no number; write redis://")


def test_a_home_that_nobody_has_is_a_mistake_like_others(patch: pytest.MonkeyPatch) -> None:
    patch.setenv(FILE_VARIABLE, "~nobody-of-that-name/overpaint.toml")
    patch.setenv("OVERPAINT_SLOTS", "0")

    broken, wrong = lines(WorkerSettings)

    assert broken.startswith(f"{FILE_VARIABLE}: ~nobody-of-that-name/overpaint.toml: ")
    assert "write the whole path" in broken
    assert wrong.startswith("OVERPAINT_SLOTS: ")


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("ledgr = 1", "did you mean ledger?"),
        ("max_source_byte = 1", "did you mean max_source_bytes?"),
        ("volume = 11", "remove it"),
        ("[worker]\nslots = 1", "write the keys of all programs at the top of the file"),
        ('[models.a]\npath = "x"', "a file of their own, which the key `registry` names"),
    ],
)
def test_a_key_that_no_program_has_is_a_mistake(
    patch: pytest.MonkeyPatch, tmp_path: Path, written: str, says: str
) -> None:
    """Given an unknown key, when any program reads the file, then it is told with what was likely meant."""
    file = write(patch, tmp_path, BASE + written)

    for kind in (Settings, WorkerSettings):
        (line,) = lines(kind)
        assert line.startswith(f"{written.split()[0].strip('[]').split('.')[0]} in {file}: ")
        assert says in line


def test_a_variable_that_no_program_has_is_named(patch: pytest.MonkeyPatch) -> None:
    """Given variables that look like settings, when they are looked through, then only those that are none are told."""
    for name in ("SLOTS", "LEDGER", "CONFIG", "TEST_ANYTHING"):
        patch.setenv(f"OVERPAINT_{name}", "1")
    patch.setenv("overpaint_grace", "1")
    patch.setenv("OVERPAINT_SLOT", "1")
    patch.setenv("OVERPAINT_DEVICE", "0")
    patch.setenv("OVERPAINT_SERVICE_PORT_HTTP", "tcp://10.0.0.1:80")

    assert unknown_variables() == [
        "OVERPAINT_DEVICE: no program has this setting; did you mean OVERPAINT_DEVICES?",
        "OVERPAINT_SERVICE_PORT_HTTP: no program has this setting; unset it, or check its spelling",
        "OVERPAINT_SLOT: no program has this setting; did you mean OVERPAINT_SLOTS?",
    ]


def test_a_missing_setting_is_told_with_the_variable_that_was_likely_meant(patch: pytest.MonkeyPatch) -> None:
    """Given a required setting under a wrong name, when it is missed, then the wrong name is told besides."""
    patch.setenv("OVERPAINT_LEGDER", "s3://my-ledger/")

    assert starting(lines(Settings), "OVERPAINT_LEGDER").endswith("did you mean OVERPAINT_LEDGER?")


def test_every_program_has_its_settings_registered() -> None:
    """Given the entry points, when they are loaded, then each program's class is there."""
    assert programs() == {"producer": Settings, "keeper": KeeperSettings, "worker": WorkerSettings}


def test_every_setting_has_a_meaning() -> None:
    """Given the fields of all programs, when their docstrings are looked for, then each has one that fits a table."""
    for kind in programs().values():
        for name, field in kind.model_fields.items():
            assert field.description, name
            assert "|" not in field.description, name


WITH_SECRETS = {
    "redis_url": f"rediss://me:{SECRET}@127.0.0.1:1/0?ssl_password={SECRET}",
    "webhooks": "hooks.example.com",
    "webhook_secret": f"whsec_{SECRET}",
    "submit_secret": SECRET,
}


def told(**values: Any) -> str:
    """Everything that a worker's settings say of these values, in whatever way."""
    try:
        settings = WorkerSettings(**{"ledger": "s3://my-ledger/", "read": "s3://a-a/", "write": "s3://a-b/"} | values)
    except ValueError as error:
        said = f"{error!r} {error}"
        with pytest.raises(SettingsError) as raised:
            WorkerSettings.load(**values)
        return f"{said} {raised.value!r} {raised.value}"
    dumps = (settings.model_dump(), settings.model_dump_json(), settings.shown())
    return f"{settings!r} {settings} {dumps!r}"


@pytest.mark.parametrize("changes", [{}, {"slots": "0"}], ids=["right", "wrong"])
@pytest.mark.parametrize("source", ["argument", "environment", "file"])
def test_right_secrets_are_never_shown(
    patch: pytest.MonkeyPatch, tmp_path: Path, source: str, changes: dict[str, str]
) -> None:
    """Given every secret set, when the settings are printed, be the rest right or not, then none is there."""
    given = WITH_SECRETS | changes
    if source == "environment":
        for name, value in given.items():
            patch.setenv(f"OVERPAINT_{name.upper()}", value)
    if source == "file":
        write(patch, tmp_path, "\n".join(f'{name} = "{value}"' for name, value in given.items()))

    assert "hunter2" not in told(**(given if source == "argument" else {}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"redis_url": f"reds://me:{SECRET}@host:6379/0"},
        {"redis_url": f"redis://me:{SECRET}/@host:6379/0"},
        {"redis_url": f"redis://:12/{SECRET}@host:6379/0"},
        {"redis_url": f"redis://:12#{SECRET}@host:6379/0"},
        {"redis_url": f"redis://:12?{SECRET}@host:6379/0"},
        {"redis_url": f"{SECRET}"},
        {"webhook_secret": SECRET, "webhooks": "*"},
        {"webhook_secret": f"whsec_{SECRET},{SECRET}", "webhooks": "*"},
        {"webhooks": f"https://me:{SECRET}@hooks.example.com/{SECRET}"},
        {"s3_endpoint_url": f"https://key:{SECRET}@host"},
        {"read": f"https://me:{SECRET}@host/"},
        {"read": f"https://me:{SECRET}/{SECRET}@host/"},
    ],
)
def test_wrong_secrets_are_not_repeated(patch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    """Given a secret in a place where it is a mistake, when the mistake is told, then the secret is not."""
    for name, value in ({"ledger": "s3://my-ledger/", "read": "s3://a-a/", "write": "s3://a-b/"} | wrong).items():
        patch.setenv(f"OVERPAINT_{name.upper()}", value)

    found = lines(WorkerSettings)

    assert all(line.startswith(tuple(f"OVERPAINT_{name.upper()}: " for name in wrong)) for line in found)
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    "written",
    [f'webhook_secrt = "{SECRET}"', f'submit_secret = ["{SECRET}"]', f'redis_url = {{ password = "{SECRET}" }}'],
)
def test_secrets_in_a_wrong_shape_are_not_repeated(patch: pytest.MonkeyPatch, tmp_path: Path, written: str) -> None:
    """Given a secret under a wrong key or of a wrong type, when the file is read, then the mistake is told without."""
    write(patch, tmp_path, BASE + written)

    (line,) = lines(WorkerSettings)

    assert line.startswith(written.split()[0])
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://me:hunter2@host:6379/0", "rediss://me:***@host:6379/0"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://hunter2@host/2", "redis://***@host/2"),
        ("redis://host/0?password=hunter2&db=3", "redis://host/0?password=***&db=3"),
        ("rediss://a:p%40ss@[::1]:6379/0?ssl_cert_reqs=none", "rediss://a:***@[::1]:6379/0?ssl_cert_reqs=none"),
        ("unix://me:hunter2@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock?db=1"),
    ],
)
def test_a_redis_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """Given a URL that redis-py takes, when it is masked, then what it connects to is still there, the password not."""
    with Redis.from_url(url) as client:
        password = client.connection_pool.connection_kwargs.get("password")
    assert masked_url(url) == shown
    assert not password or password not in masked_url(url)
    assert "hunter2" not in masked_url(url)


def test_a_secret_survives_being_masked() -> None:
    """Given secrets, when they are read, then those who need them get them whole."""
    settings = WorkerSettings.load(ledger="s3://my-ledger/", read="s3://a-a/", write="s3://a-b/", **WITH_SECRETS)

    assert settings.redis_url.get_secret_value() == WITH_SECRETS["redis_url"]
    assert settings.webhook_keys == (base64.b64decode(SECRET),)
