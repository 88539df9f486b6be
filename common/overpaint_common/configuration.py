"""Where settings come from: the environment and one TOML file; what is wrong there is told by its place."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, TomlConfigSettingsSource

if TYPE_CHECKING:
    from overpaint_common.settings import Settings

PREFIX = "OVERPAINT_"
FILE_VARIABLE = "OVERPAINT_CONFIG"
"""Names the TOML file; without it none is read."""
TESTS_PREFIX = "OVERPAINT_TEST_"
"""What the project's own tests set for their processes."""
PROGRAMS = "overpaint.settings"
"""Group of entry points: the settings class of each program, so that each knows the keys of the others."""
MASK = "***"

Origin = Literal["argument", "environment", "file", "default"]

_CREDENTIALS = re.compile(r"(?<=://)(?<!s3://)(?<!file://)[^\s'\"\[]*@")
_SHOWN_LENGTH = 80


class FileSource(TomlConfigSettingsSource):
    """The values of one TOML file. Empty text counts as unset; a relative path counts from the file's folder."""

    @property
    def file(self) -> Path | None:
        return self.toml_file_path if isinstance(self.toml_file_path, Path) else None

    def __call__(self) -> dict[str, Any]:
        return {name: self._rooted(name, value) for name, value in super().__call__().items() if value != ""}

    def _rooted(self, name: str, value: Any) -> Any:
        field = self.settings_cls.model_fields.get(name)
        if field is None or self.file is None or not isinstance(value, str) or Path not in _parts(field.annotation):
            return value
        return self.file.absolute().parent / value


def file_source(settings: type[BaseSettings]) -> tuple[FileSource, str]:
    """The source of the file that OVERPAINT_CONFIG names, and why it cannot be read: empty text if it can.

    A file that cannot be read gives no values, and so does none.
    """
    named = os.environ.get(FILE_VARIABLE)
    if not named:
        return FileSource(settings, None), ""
    path = Path(named)
    try:
        path = path.expanduser()
        if not stat.S_ISREG(path.stat().st_mode):
            problem = "is no regular file; name a TOML file, or unset it"
        else:
            return FileSource(settings, path), ""
    except OSError as error:
        problem = f"{error.strerror}; name a TOML file that this user may read, or unset it"
    except RuntimeError as error:
        problem = f"{error}; write the whole path"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"is not TOML: {error}; mend it there"
    return FileSource(settings, None), f"{FILE_VARIABLE}: {path}: {problem}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one class of settings is given, and by what."""

    settings: type[BaseSettings]
    arguments: frozenset[str]
    environment: Mapping[str, Any]
    file: FileSource
    unreadable: str
    """Why the file cannot be read, or empty text."""

    @classmethod
    def of(cls, settings: type[BaseSettings], arguments: Iterable[str] = ()) -> Self:
        """Look at the environment and the file; raises nothing."""
        file, unreadable = file_source(settings)
        return cls(settings, frozenset(arguments), EnvSettingsSource(settings)(), file, unreadable)

    def origin(self, name: str) -> Origin:
        """What a field's value comes from, by the order in which they count."""
        if name in self.arguments:
            return "argument"
        if name in self.environment:
            return "environment"
        return "file" if name in self.file() else "default"

    def value(self, name: str) -> Any:
        """What the environment or else the file gives a field, not checked; None where neither does."""
        return self.environment.get(name, self.file().get(name))

    def place(self, name: str) -> str:
        """Where to mend the value: `slots in /etc/overpaint.toml`, or `OVERPAINT_SLOTS`."""
        return f"{name} in {self.file.file}" if self.origin(name) == "file" else variable(name)

    def problems(self, error: ValidationError | None = None) -> list[str]:
        """All that is wrong, one message for each: the file, its keys, and what `error` says of the values."""
        found = [self.unreadable] if self.unreadable else []
        found += self._unknown_keys()
        for detail in error.errors(include_url=False) if error else ():
            name = str(detail["loc"][0])
            # What is given nowhere may stand in the file that cannot be read.
            if not (self.unreadable and self.origin(name) == "default"):
                message = f"{self.place(name)}: {_wrong(self.settings.model_fields[name], detail)}"
                found.append(_CREDENTIALS.sub(f"{MASK}@", message))
        return found

    def _unknown_keys(self) -> Iterator[str]:
        unknown = [key for key in self.file.toml_data if key.lower() not in self.settings.model_fields]
        known = known_names() if unknown else frozenset()
        for key in (key for key in unknown if key.lower() not in known):
            if key == "models":
                remedy = "the models stand in a file of their own, which the key `registry` names"
            elif isinstance(self.file.toml_data[key], dict):
                remedy = "write the keys of all programs at the top of the file, in no table"
            else:
                remedy = _nearest(key.lower(), known) or "remove it, or see docs/settings.md for the keys there are"
            yield f"{key} in {self.file.file}: no program has this setting; {remedy}"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name}".upper()


def programs() -> dict[str, type[Settings]]:
    """The settings class of each program that is installed here, by its name."""
    return {point.name: point.load() for point in entry_points(group=PROGRAMS)}


def known_names() -> frozenset[str]:
    """The settings of all programs."""
    return frozenset(name for settings in programs().values() for name in settings.model_fields)


def unknown_variables() -> list[str]:
    """A message for each variable in the environment that looks like a setting and is none, such as OVERPAINT_SLOT."""
    looks = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    known = known_names() | {FILE_VARIABLE.removeprefix(PREFIX).lower()} if looks else frozenset()
    messages = []
    for name in looks:
        setting = name.upper().removeprefix(PREFIX).lower()
        if setting not in known and not name.startswith(TESTS_PREFIX):
            # Without the prefix, which all have in common.
            near = _nearest(setting, known, variable)
            messages.append(f"{name}: no program has this setting; {near or 'unset it, or check its spelling'}")
    return messages


def told(problems: list[str]) -> str:
    """One message as it is; several below each other, each on a line of its own."""
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} things are wrong with the settings:" + "".join(f"\n  {problem}" for problem in problems)


def masked_url(url: str) -> str:
    """The URL with *** for its password, whether that stands before the host or in the query."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    # A lone user name is most likely a password that lacks its colon.
    netloc = f"{user if colon else ''}{colon}{MASK}{at}{host}" if at else host
    query = parts.query
    if "password" in query:
        pairs = [(name, MASK if "password" in name else value) for name, value in parse_qsl(query)]
        query = urlencode(pairs, safe="*/:")
    return parts._replace(netloc=netloc, query=query).geturl()


def is_secret(field: FieldInfo) -> bool:
    """Whether a value of it is never to be shown."""
    return SecretStr in _parts(field.annotation)


def values(field: FieldInfo) -> str:
    """What a field takes: `whole number, 1 to 256`, or its choices between backticks."""
    parts = _parts(field.annotation)
    choices = [f"`{part}`" for part in parts if isinstance(part, str)]
    if bool in parts:
        choices = ["`true`", "`false`"]
    if choices:
        return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    for kind, word in ((int, "whole number"), (float, "number"), (Path, "path"), (tuple, "list"), (dict, "table")):
        if kind in parts:
            return ", ".join(filter(None, (word, _span(field))))
    return "text"


def _span(field: FieldInfo) -> str:
    # Numbers that may also be None keep their constraints inside the union.
    limits: Mapping[str, Any] = {
        limit: getattr(constraint, limit)
        for constraint in field.metadata
        for limit in ("ge", "gt", "le", "multiple_of")
        if getattr(constraint, limit, None) is not None
    }
    match limits:
        case {"ge": low, "le": high}:
            span = f"{low} to {high}"
        case {"ge": low}:
            span = f"{low} or more"
        case {"gt": low}:
            span = f"more than {low}"
        case _:
            span = ""
    return f"{span}, multiple of {limits['multiple_of']}" if "multiple_of" in limits else span


def _parts(annotation: Any) -> list[Any]:
    """The types that an annotation is made of, and the choices of its literals."""
    origin = get_origin(annotation)
    if origin is Literal:
        return list(get_args(annotation))
    return [annotation, origin, *(part for each in get_args(annotation) for part in _parts(each))]


def _wrong(field: FieldInfo, detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            example = f", as in {field.examples[0]}" if field.examples else ""
            return f"required; set it{example} (`overpaint up` prints the settings of a local stack)"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
    given = MASK if is_secret(field) else _given(detail["input"])
    wanted = values(field).replace("`", "")
    article = "a " if wanted.startswith(("whole", "number", "path", "list", "table")) else ""
    return f"{detail['msg']} (given: {given}); give {article}{wanted}"


def _given(value: object) -> str:
    if not isinstance(value, str | int | float):
        return f"a {'table' if isinstance(value, dict) else type(value).__name__}"
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:60]}... ({len(text)} characters)"


def _nearest(name: str, known: Iterable[str], spelled: Callable[[str], str] = str) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {spelled(near[0])}?" if near else ""
