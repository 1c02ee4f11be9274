"""The command line as a tree of commands, for the parsing library (cyclopts)."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Group, Parameter

from pounce.config import ServerConfig
from pounce.errors import ConfigError, PluginError
from pounce.options import Option
from pounce.plugin import Command
from pounce.registry import BUILT_IN_COMMANDS as BUILT_IN
from pounce.registry import Registry
from pounce.spelling import did_you_mean
from pounce_cli.errors import UsageError
from pounce_cli.flags import (
    HELP,
    Given,
    flags,
    package_of,
    plugin_flags,
    plugin_options,
    serving,
    shown_default,
    spellings,
    switched_off_by,
    value_name,
)
from pounce_cli.foreign import COMMANDS, about_flag, about_flag_of_command
from pounce_cli.helps import GROUPS, HELPS
from pounce_cli.second_spellings import COMMANDS as OF_SERVER
from pounce_cli.tools import TOOLS, separated

__all__ = ["command_tree", "run"]

def run(
    words: Sequence[str],
    *,
    discover: Callable[[], Registry] | None = None,
    serve: Callable[[Given], None] | None = None,
) -> int:
    """Run what `words` name and return the exit code. Raises `UsageError` when they cannot be understood.

    `discover` finds the plugins whose commands there are, and `serve` does what `pounce serve` says.
    """
    words = separated([*words])
    if words[:1] and words[0] in OF_SERVER and "-h" in words:
        from pounce_cli.short_help import short_help

        print(short_help(words[0]), end="")
        return 0
    options = (*flags(), *(plugin_flags(words[1:]) if words[:1] and words[0] in OF_SERVER else ()))
    # The description of every flag takes the library longer than most commands their work.
    app = command_tree(options, serve, discover, only=words[0] if words and words[0] in BUILT_IN else None)
    commands: Mapping[str, Command] = {}
    skipped: list[str] = []
    if not words or words[0] in HELP or not (words[0].startswith("-") or words[0] in BUILT_IN):
        # Plugins take time to import, so only where one may be asked for.
        registry = (discover or _installed)()
        commands = registry.commands
        skipped = [f"plugin {entry.name} is skipped: {entry.skipped}" for entry in registry.loaded if entry.skipped]
        _add_commands(app, commands, words[0] if words else HELP[0])
    try:
        code: int = app(words, result_action="print_non_int_return_int_as_exit_code")
    except cyclopts.CycloptsError as exc:
        raise _usage_error(exc, words, [*BUILT_IN, *commands], skipped) from exc
    return code


def _serve(given: Given) -> None:
    from pounce_cli.serve import serve

    serve(given)


def _installed() -> Registry:
    return Registry.discover(ServerConfig())


def _all_installed() -> Registry:
    """Also where they contradict one another: what is installed has to be seen then more than ever."""
    return Registry.discover(ServerConfig(), lenient=True)


def command_tree(
    options: Sequence[Option],
    serve: Callable[[Given], None] | None = None,
    discover: Callable[[], Registry] | None = None,
    *,
    only: str | None = None,
) -> App:
    """The commands, but for those of plugins, with a flag for each of `options` where settings are taken.

    With `only`, that one command.
    """
    app = App(
        name="pounce",
        help="ASGI server for free-threaded Python.",
        version=lambda: f"pounce {version('pounce-core')}\npounce-cli {version('pounce-cli')}",
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    settings = functools.cache(lambda: _setting_parameters(options))

    def config() -> App:
        config = App(name="config", help=HELPS["config"], group=GROUPS["config"])
        show = _show_command(options, settings())
        config.command(show, name="show", help="Show every setting, and where its value comes from.")
        config.command(_schema_command, name="schema", help="Print the JSON Schema of pounce.toml, for editors.")
        config.command(_template_command, name="init", help="Write a pounce.toml with every setting, as comments.")
        return config

    if only in (None, "config"):
        app.command(config())
    commands: dict[str, Callable[[], Callable[..., Any]]] = {
        "serve": lambda: _serve_command(serve or _serve, options, settings()),
        "check": lambda: _check_command(options, settings()),
        "doctor": lambda: _doctor_command(options, settings()),
        "plugins": lambda: _plugins_command(discover or _all_installed),
        "init": lambda: _init_command,
        "status": lambda: _status_command,
        "top": lambda: _top_command,
        "workers": lambda: _workers_command,
        "reload": lambda: _control_command("reload"),
        "stop": lambda: _control_command("stop"),
        "completion": lambda: _completion_command,
    }
    for name in (*commands, *TOOLS):
        if only in (None, name):
            command = TOOLS[name] if name in TOOLS else commands[name]()
            app.command(command, name=name, help=HELPS[name], group=GROUPS[name])
    app.register_install_completion_command(help="Install completion for this shell.")
    return app


def _serve_command(
    serve: Callable[[Given], None], options: Sequence[Option], settings: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    def command(
        target: str | None = None, /, app: str | None = None, static: str | None = None, **written: Any
    ) -> None:
        apps = tuple(name for name in (target, app) if name is not None)
        serve(serving(static, _given(options, written, apps)))

    return _with_parameters(command, [*_app_parameters(), *settings])


def _check_command(options: Sequence[Option], settings: Sequence[inspect.Parameter]) -> Callable[..., None]:
    def command(
        target: str | None = None,
        /,
        app: str | None = None,
        static: str | None = None,
        sockets: bool | None = None,
        as_json: bool | None = None,
        **written: Any,
    ) -> None:
        from pounce_cli.check import check

        apps = tuple(name for name in (target, app) if name is not None)
        check(serving(static, _given(options, written, apps)), sockets=bool(sockets), as_json=bool(as_json))

    help = "Open the sockets too, and close them again."
    own = [
        _parameter("sockets", Annotated[bool | None, Parameter(name="--sockets", negative=(), help=help)]),
        _parameter("as_json", Annotated[bool | None, Parameter(name="--json", negative=(), help="Print JSON.")]),
    ]
    return _with_parameters(command, [*_app_parameters(), *own, *settings])


def _doctor_command(options: Sequence[Option], settings: Sequence[inspect.Parameter]) -> Callable[..., int]:
    def command(
        target: str | None = None,
        /,
        app: str | None = None,
        static: str | None = None,
        as_json: bool | None = None,
        **written: Any,
    ) -> int:
        from pounce_cli.doctor import Machine, doctor
        from pounce_cli.sources import config_of, find, naming_places

        given = serving(static, _given(options, written))
        found = find(given)
        named = target or app or (str(found.app.value) if found.app is not None else None)
        config = config_of(given, found)
        with naming_places(found.settings):
            return doctor(config, Machine(app=named), as_json=bool(as_json))

    own = [_parameter("as_json", Annotated[bool | None, Parameter(name="--json", negative=(), help="Print JSON.")])]
    return _with_parameters(command, [*_app_parameters(), *own, *settings])


def _show_command(options: Sequence[Option], settings: Sequence[inspect.Parameter]) -> Callable[..., None]:
    def command(**written: Any) -> None:
        from pounce_cli.config import show_config

        as_json, origin = written.pop("as_json", None), written.pop("origin", None)
        show_config(_given(options, written), as_json=bool(as_json), origin=origin)

    as_json = Parameter(name="--json", negative=(), help="Print JSON.", show_default=False)
    origin = Parameter(
        name="--origin", negative="--no-origin", help="With the place of each value; for TOML the default.",
        show_default=False,
    )  # fmt: skip
    own = [
        _parameter("as_json", Annotated[bool | None, as_json]),
        _parameter("origin", Annotated[bool | None, origin]),
    ]
    return _with_parameters(command, [*own, *settings])


def _schema_command() -> None:
    import json

    from pounce_cli.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def _template_command(
    *,
    force: Annotated[bool, Parameter(name="--force", negative=(), help="Also over one that is there.")] = False,
    to_stdout: Annotated[bool, Parameter(name="--print", negative=(), help="Print it instead.")] = False,
) -> None:
    from pounce_cli.template import template, write_template

    print(template() if to_stdout else write_template(force=force), end="" if to_stdout else "\n")


def _given(options: Sequence[Option], written: dict[str, Any], apps: tuple[str, ...] = ()) -> Given:
    tables, config, profile, env_files = (written.pop(name, None) for name in ("set", "config", "profile", "env_file"))
    names = {_identifier(item): item.name for item in options}
    settings = {names[name]: value for name, value in written.items()}
    return Given(apps, settings, tables or (), config or None, profile, env_files or ())


def _with_parameters[R](command: Callable[..., R], parameters: Sequence[inspect.Parameter]) -> Callable[..., R]:
    function: Any = command
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _plugins_command(discover: Callable[[], Registry]) -> Callable[..., None]:
    as_json = Parameter(name="--json", negative=(), help="Print JSON.", show_default=False)

    def command(*, as_json: Annotated[bool, as_json] = False) -> None:
        from pounce_cli.plugins import show_plugins

        show_plugins(discover(), as_json=as_json)

    return command


def _init_command(
    folder: Annotated[str | None, Parameter(name="FOLDER", help="That of an application to make; . is this.")] = None,
    /,
    *,
    plugin: Annotated[
        str | None, Parameter(name="--plugin", help="Make a plugin of this name instead.", metavar="NAME")
    ] = None,
    kind: Annotated[
        Literal["wire", "datagram", "upgrade", "switch", "parser", "responder", "middleware", "observer", "command"],
        Parameter(name="--kind", help="What the plugin brings."),
    ] = "wire",
    docker: Annotated[bool, Parameter(name="--docker", negative=(), help="With a Dockerfile.")] = False,
) -> None:
    from pathlib import Path

    if plugin is not None:
        from pounce_cli.init import init_plugin

        print(init_plugin(plugin, kind, Path.cwd()).name)
        return
    if folder is None:
        raise UsageError("neither a folder nor --plugin is given", hint="For example: pounce init hello")
    from pounce_cli.new_project import init_project

    for path in init_project(folder, Path.cwd(), docker=docker):
        print(path.relative_to(Path.cwd()))
    go = "" if folder == "." else f"cd {folder}; "
    print(f"\nNext: {go}pounce serve --reload\nTest: {go}python -m pytest")


def _completion_command(
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], Parameter(name="SHELL", help="Which one.")], /
) -> None:
    from pounce_cli.completion import completion

    app = command_tree((*flags(), *plugin_options(lambda plugin: True)))
    _add_commands(app, _installed().commands, HELP[0])
    print(completion(app, shell), end="")


_CONTROL = Parameter(
    name="--control-socket",
    help="The control socket of the server; else that of environment or configuration file, or of the only one.",
    metavar="PATH",
)
_CONFIG = Parameter(
    name="--config",
    help="Configuration file; without it pounce.toml or pyproject.toml in the current folder.",
    show_default=False,
    metavar="FILE",
)

_CONFIGS = Parameter(
    name="--config",
    help=f"{_CONFIG.help} May be repeated: a later one counts above an earlier.",
    negative=(),
    show_default=False,
    metavar="FILE",
)
_PROFILE = Parameter(
    name="--profile",
    help="Use the table profiles.NAME of the configuration file too, above the rest of it.",
    show_default=False,
    metavar="NAME",
)
_ENV_FILES = Parameter(
    name="--env-file",
    help="Set the variables of this file, but for those that are set. May be repeated.",
    negative=(),
    show_default=False,
    metavar="FILE",
)


def _status_command(
    *,
    control_socket: Annotated[str | None, _CONTROL] = None,
    config: Annotated[str | None, _CONFIG] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.", show_default=False)] = False,
) -> int:
    from pounce_cli import control

    return control.status(control.socket_of(control_socket, config), as_json=as_json)


def _top_command(
    *,
    control_socket: Annotated[str | None, _CONTROL] = None,
    config: Annotated[str | None, _CONFIG] = None,
    interval: Annotated[float, Parameter(name="--interval", help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, Parameter(name="--once", negative=(), help="Look once, over one interval.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.", show_default=False)] = False,
) -> None:
    from pounce_cli import control
    from pounce_cli.top import top

    if not 0.1 <= interval <= 3600:
        raise ConfigError(f"--interval must be between 0.1 and 3600 seconds (got {interval:g})")
    top(control.socket_of(control_socket, config), interval=interval, once=once, as_json=as_json)


_BY = Parameter(name="BY", help="How many: +1, -2.", allow_leading_hyphen=True)


def _workers_command(
    by: Annotated[str, _BY],
    /,
    *,
    control_socket: Annotated[str | None, _CONTROL] = None,
    config: Annotated[str | None, _CONFIG] = None,
) -> None:
    from pounce_cli import control

    if re.fullmatch(r"[+-][1-9]\d{0,2}", by) is None:
        raise ConfigError(f"workers takes how many more or fewer, such as +1 or -1 (got {by!r})")
    control.resize(control.socket_of(control_socket, config), int(by))


def _control_command(name: str) -> Callable[..., None]:
    def command(
        *, control_socket: Annotated[str | None, _CONTROL] = None, config: Annotated[str | None, _CONFIG] = None
    ) -> None:
        from pounce_cli import control

        getattr(control, name)(control.socket_of(control_socket, config))

    return command


def _app_parameters() -> list[inspect.Parameter]:
    group = Group("Application", sort_key=0)
    target = Parameter(name="APP", help="The application, for example main:app.", show_default=False)
    app = Parameter(name="--app", help="The same, as an option.", group=group, show_default=False, metavar="APP")
    static = Parameter(
        name="--static",
        help="Serve the files of this folder at /, with the application behind them, or without one.",
        group=group,
        show_default=False,
        metavar="DIR",
    )
    return [
        _parameter("target", Annotated[str | None, target], inspect.Parameter.POSITIONAL_ONLY),
        _parameter("app", Annotated[str | None, app]),
        _parameter("static", Annotated[str | None, static]),
    ]


def _setting_parameters(options: Sequence[Option]) -> list[inspect.Parameter]:
    groups: dict[str, Group] = {}
    for item in options:
        title = _title(item)
        groups.setdefault(title, Group(title, sort_key=99 if item.group == "plugins" else len(groups)))
    here = Parameter(group=groups["Application"])
    table = Parameter(
        name="--set",
        help="A setting of a plugin, as its own flag would give it; may be repeated.",
        group=groups["Plugins"],
        negative=(),
        show_default=False,
        metavar="NAME.field=value",
    )
    return [
        _parameter("config", Annotated[tuple[str, ...] | None, _CONFIGS, here]),
        _parameter("profile", Annotated[str | None, _PROFILE, here]),
        _parameter("env_file", Annotated[tuple[str, ...] | None, _ENV_FILES, here]),
        _parameter("set", Annotated[tuple[str, ...] | None, table]),
        *(_parameter(_identifier(item), Annotated[_type(item), _flag(item, groups[_title(item)])]) for item in options),
    ]


def _title(item: Option) -> str:
    plugin = item.name.rpartition(".")[0]
    if plugin:
        return f"Plugin {plugin}"
    return {"tls": "TLS", "http3": "HTTP/3", "websocket": "WebSocket"}.get(item.group, item.group.capitalize())


def _identifier(item: Option) -> str:
    """The name of the parameter for a setting, which neither `config` nor `set` can be."""
    return "setting_" + re.sub(r"\W", "_", item.name)


def _type(item: Option) -> Any:
    # With None, which those have that are not given: where pydantic is imported, the library has it look at them all.
    if item.kind is bool:
        return bool | None
    if item.kind in (tuple, dict):
        return tuple[str, ...] | None
    return Literal[item.choices] | None if item.choices else str | None


def _flag(item: Option, group: Group) -> Parameter:
    default = shown_default(item)
    return Parameter(
        name=spellings(item),
        negative=switched_off_by(item) if item.kind is bool else (),
        help=f"{item.help} (beta)" if item.beta else item.help,
        group=group,
        metavar=None if item.kind is bool else value_name(item),
        show_default=False if default is None else lambda _: default,
        # Values are converted later, by the same code that reads them from elsewhere.
        converter=None if item.kind in (bool, tuple, dict) else lambda _, tokens: _as_written(item, tokens[0].value),
    )


def _as_written(item: Option, value: str) -> str:
    """The value itself, and a choice in its own spelling: some validators know no other."""
    return value.lower() if value.lower() in item.choices else value


def _parameter(name: str, annotation: Any, kind: Any = inspect.Parameter.KEYWORD_ONLY) -> inspect.Parameter:
    return inspect.Parameter(name, kind, default=None, annotation=annotation)


def _add_commands(app: App, commands: Mapping[str, Command], first: str) -> None:
    """Add the commands of plugins as far as the line needs them: the one it begins with, all for the list of them."""
    for command in commands.values():
        if first == command.name:
            app.command(_loaded(command), name=command.name)
        elif first in HELP:
            try:
                app.command(_loaded(command), name=command.name)
            except PluginError as exc:
                app.command(App(help=str(exc)), name=command.name)


def _loaded(command: Command) -> Callable[..., Any]:
    try:
        return command.load()
    except Exception as exc:
        raise PluginError(f"command {command.name} cannot be loaded: {type(exc).__name__}: {exc}") from exc


def _usage_error(
    error: cyclopts.CycloptsError, words: Sequence[str], commands: Sequence[str], skipped: Sequence[str]
) -> UsageError:
    """The library's error in our words: what was written, and what could have been meant."""
    of_server = words[:1] and words[0] in OF_SERVER
    match error:
        case cyclopts.UnknownCommandError(unused_tokens=[word, *_]):
            return UsageError(f"there is no command {word!r}", hint=_command_hint(word, words, commands, skipped))
        case cyclopts.UnknownOptionError(token=token):
            flag = token.keyword or token.value
            names = [name for argument in error.argument_collection for name in argument.names]
            name = flag.partition("=")[0]
            command = " ".join(words[: 1 + (words[0] == "config")])
            hint = about_flag_of_command(command, name, names) if words[0] in BUILT_IN else None
            hint = hint or (about_flag(*_with_value(flag, words)) if of_server else None)
            hint = hint or package_of(flag, names) or did_you_mean(name, names)
            return UsageError(f"there is no option {flag}", hint=hint)
        case cyclopts.CoercionError(token=token) if token is not None and error.target_type is bool:
            return UsageError(f"{token.keyword} must be true or false (got {token.value!r})")
        case cyclopts.RepeatArgumentError(token=token):
            return UsageError(f"{token.keyword} is given more than once")
        case cyclopts.MissingArgumentError(argument=argument) if argument is not None:
            name = error.keyword or argument.name
            return UsageError(f"{name} needs a value", hint=argument.parameter.help)
        case cyclopts.UnusedCliTokensError(unused_tokens=[word, *_]):
            return UsageError(
                f"{word!r} is one argument too many", hint="The application is named once; flags begin with --."
            )
    return UsageError(str(error))


def _with_value(flag: str, words: Sequence[str]) -> tuple[str, str]:
    """The word that has this flag, and the one behind it, as they were written."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag or word.startswith(f"{flag}="):
            return word, following
    return flag, ""


def _command_hint(word: str, words: Sequence[str], commands: Sequence[str], skipped: Sequence[str]) -> str:
    if ":" in word and not word.startswith("-"):
        return f"To serve an application: pounce serve {word}"
    flag = word.partition("=")[0]
    if any(flag in (*spellings(item), *switched_off_by(item)) for item in flags()):
        return f"It is a flag of a command, and comes after it: pounce serve main:app {word}"
    hint = about_flag(*_with_value(word, words)) if word.startswith("-") else COMMANDS.get(word)
    hint = hint or did_you_mean(word, commands) or f"Commands: {', '.join(commands)}."
    return " ".join([hint, *(f"Note: {reason}." for reason in skipped)])
