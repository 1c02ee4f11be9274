"""`pounce completion`: what has a shell complete commands and flags."""

from collections.abc import Iterator, Mapping, Sequence

from cyclopts import App

__all__ = ["POWERSHELL", "completion"]

POWERSHELL = "powershell"


def completion(app: App, shell: str) -> str:
    """The script for a shell. `app` is the command line, with the commands and settings of plugins in it."""
    if shell != POWERSHELL:
        return app.generate_completion(prog_name="pounce", shell=shell)  # type: ignore[arg-type]
    return "\n".join(_powershell(_words(app))) + "\n"


def _words(app: App) -> Mapping[str, Sequence[str]]:
    """The flags of each command, and under the empty name the commands."""
    names = sorted(name for name in app if not name.startswith("-"))
    return {"": names} | {name: sorted(_flags(app[name])) for name in names}


def _flags(app: App) -> Iterator[str]:
    yield "--help"
    for name in app:
        if not name.startswith("-"):
            yield name
    if app.default_command is not None:
        for argument in app.assemble_argument_collection():
            yield from (name for name in argument.names if name.startswith("--"))


def _powershell(words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "Register-ArgumentCompleter -Native -CommandName pounce -ScriptBlock {"
    yield "    param($word, $line, $position)"
    yield "    $words = @{"
    for name, found in words.items():
        yield f"        '{name}' = @({', '.join(f"'{each}'" for each in found)})"
    yield "    }"
    yield "    $said = @($line.CommandElements | ForEach-Object { $_.ToString() })"
    yield "    $command = if ($said.Count -gt 1 -and $words.ContainsKey($said[1])) { $said[1] } else { '' }"
    yield '    $words[$command] | Where-Object { $_ -like "$word*" } | ForEach-Object {'
    yield "        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterName', $_)"
    yield "    }"
    yield "}"
