"""ServerConfig: every setting of the server, once.

The dataclass is the single schema: its field metadata feeds validation, the flags of the command line, files,
environment and the documentation. Its fields are in `settings`, in a file for each kind, and it has them all: who sets
or reads one needs no second level of names. Add a setting by adding a field there; nothing else lists them. What no
field can say of itself, which is what settings have to do with each other, is in `config_checks`.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pounce.config_checks import EXTENSIONS, check_together
from pounce.errors import ConfigError
from pounce.options import Option, options_of, secret_from, unknown_setting
from pounce.settings.answers import AnswerSettings
from pounce.settings.application import WORKER_TIMEOUT, ApplicationSettings
from pounce.settings.limits import LimitSettings
from pounce.settings.network import NetworkSettings
from pounce.settings.observation import ObservationSettings
from pounce.spelling import did_you_mean

__all__ = ["EXTENSIONS", "WORKER_TIMEOUT", "ServerConfig", "describe", "setting_of_bind"]


# The order of settings is that of these classes from the last to the first. What is written out below would be compiled
# with every name in it, at each start.
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ServerConfig(ObservationSettings, AnswerSettings, LimitSettings, NetworkSettings, ApplicationSettings):
    """All settings of one server; immutable, checked when it is built.

    Durations are seconds, sizes are bytes. Raises `ConfigError` naming the field, the value and the allowed
    range when a value has the wrong type or lies outside.
    """

    def __repr__(self) -> str:
        shown = (f"{item.name}={getattr(self, item.name)!r}" for item in OPTIONS if not item.secret)
        return f"ServerConfig({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, ServerConfig) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, item.name) for item in OPTIONS)

    def resolve_workers(self) -> int:
        """The number of workers: `workers`, or as many as there are CPUs to use for 0."""
        from pounce.cpus import usable_cpus

        return self.workers or usable_cpus()

    def secret(self, name: str) -> str | None:
        """The value of a secret setting, or what is in the file that the setting `NAME_file` names; None for neither.

        Raises `ConfigError` where that cannot be read.
        """
        value: str | None = getattr(self, name)
        path = getattr(self, f"{name}_file")
        return value if path is None else secret_from(f"{name}_file", path)

    def to_iic_dict(self) -> dict[str, Any]:
        """The settings that JSON can hold, by name: all but functions and other objects. Secrets are among them."""
        return {item.name: value for item in OPTIONS if (value := _as_json(getattr(self, item.name))) is not _NOT_JSON}

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_iic_dict())

    @classmethod
    def from_iic_dict(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """A configuration from `to_iic_dict()`, also that of another version: names that do not exist are passed over.

        Raises `ConfigError`.
        """
        known = {item.name for item in OPTIONS}
        return cls.of({name: value for name, value in settings.items() if name in known})

    @classmethod
    def from_json(cls, text: str) -> ServerConfig:
        """The same from text. Raises `ConfigError`."""
        try:
            settings = json.loads(text)
        except ValueError as exc:
            raise ConfigError(f"the configuration is not JSON: {exc}") from exc
        if not isinstance(settings, dict):
            raise ConfigError("the configuration must be an object of JSON")
        return cls.from_iic_dict(settings)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """The same as `of()`."""
        return cls.of(settings)

    @property
    def uses_tls(self) -> bool:
        """Whether there is a certificate."""
        return self.ssl_certfile is not None or self.ssl_self_signed

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """A configuration from settings by name, or by a second spelling that a name has; also from arguments of
        `uvicorn.run()`, with what they mean there.

        Raises `ConfigError` also for a name that does not exist.
        """
        given: dict[str, str] = {}
        values: dict[str, Any] = {}
        for spelling, value in settings.items():
            own = _NAMES.get(spelling)
            for name, meant in ({own: value} if own else _of_uvicorn(spelling, value)).items():
                if (other := given.setdefault(name, spelling)) != spelling:
                    raise ConfigError(f"{other} and {spelling} are two spellings of one setting", hint="Give one.")
                values[name] = meant
        try:
            return cls(**values)
        except ConfigError:
            understood = _understood(values, given)
            if understood is None:
                raise
        return cls(**understood)

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {item.name: getattr(self, item.name) for item in OPTIONS}
        return (ServerConfig.of, (settings,))

    def __post_init__(self) -> None:
        for item in OPTIONS:
            value = getattr(self, item.name)
            if value is not _DEFAULTS[item.name]:
                object.__setattr__(self, item.name, item.checked(value))
        check_together(self)


def _of_uvicorn(spelling: str, value: Any) -> Mapping[str, Any]:
    """The settings that this argument of uvicorn means. Raises `ConfigError`, also for what is none."""
    from pounce.uvicorn_arguments import in_our_words

    settings = in_our_words(spelling, value)
    if settings is None:
        raise unknown_setting(spelling, _NAMES)
    return settings


def _understood(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any] | None:
    """The settings with their values as uvicorn has them where they are none of ours; None where all are.

    `given` has the spelling of each. Raises `ConfigError`, by that spelling, for what is neither.
    """
    from pounce.uvicorn_arguments import in_our_words

    items = {item.name: item for item in OPTIONS}
    found: dict[str, Any] = {}
    other = False
    for name, value in values.items():
        settings = {name: value}
        try:
            items[name].checked(value)
        except ConfigError as exc:
            other = True
            hint = None
            try:
                meaning = in_our_words(given[name], value)
                if meaning is not None:
                    for meant, each in meaning.items():
                        items[meant].checked(each)
            except ConfigError as without:
                meaning, hint = None, without.hint
            if meaning is None:
                raise items[name].refused(value, given[name], hint) from exc
            settings = meaning
        found |= settings
    return found if other else None


_NOT_JSON = object()


def _as_json(value: Any) -> Any:
    """The value made of what JSON has, `_NOT_JSON` where it cannot be."""
    if isinstance(value, Mapping):
        value = {name: _as_json(each) for name, each in value.items()}
        return _NOT_JSON if any(each is _NOT_JSON for each in value.values()) else value
    if isinstance(value, tuple | list):
        value = [_as_json(each) for each in value]
        return _NOT_JSON if any(each is _NOT_JSON for each in value) else value
    return value if value is None or isinstance(value, bool | int | float | str) else _NOT_JSON


def describe() -> tuple[Option, ...]:
    """Every setting in the order of the class: what the command line and the reference page are made from."""
    return OPTIONS


def setting_of_bind(name: str, others: Iterable[str]) -> Option:
    """The setting of the server that a bind may have its own of, by its name or a second spelling of that.

    `others` are what else the bind takes. Raises `ConfigError`.
    """
    items = {spelling: item for item in OPTIONS for spelling in (item.name, *item.also)}
    item = items.get(name)
    if item is None:
        known = [*others, *(spelling for spelling, each in items.items() if each.per_bind)]
        hint = did_you_mean(name, known) or f"It takes {', '.join(others)}, and settings of connections."
        raise ConfigError(f"{name!r} is not an option of this bind", hint=hint)
    if not item.per_bind:
        raise ConfigError(f"{name} is a setting of the whole server, of which a bind cannot have its own")
    return item


OPTIONS = options_of(ServerConfig)
_NAMES = {spelling: item.name for item in OPTIONS for spelling in (item.name, *item.also)}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ServerConfig)}
_DEFAULTS |= {
    item.name: dataclasses.MISSING
    for item in OPTIONS
    if (default := _DEFAULTS[item.name]) is not dataclasses.MISSING and item.checked(default) is not default
}
"""Those that are as they will be once they are checked, which need not be done again."""
