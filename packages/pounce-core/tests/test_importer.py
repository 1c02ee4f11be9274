"""From `module:attribute` to an application, and what is said when that fails."""

import re
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce import AppImportError, ServerConfig
from pounce.importer import import_app, import_object

CODE = """
class Nested:
    @staticmethod
    async def app(scope, receive, send): ...

class Application:
    async def __call__(self, scope, receive, send): ...

async def app(scope, receive, send): ...
def create(): return app
def broken(): raise RuntimeError("no luck")
def nothing(): return None
async def made_later(): return app
number = 3

class Old:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
"""

ENDINGS = [
    ("SystemExit(0)", "SystemExit: 0"),
    ("SystemExit()", "SystemExit"),
    ("SystemExit('no database')", "SystemExit: no database"),
    ("KeyboardInterrupt", "KeyboardInterrupt"),
    ("GeneratorExit", "GeneratorExit"),
    ("__import__('asyncio').CancelledError", "CancelledError"),
]
"""What ends a program when an application raises it."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pounce_sample_app.py").write_text(CODE)
    (tmp_path / "pounce_sample_raises.py").write_text("raise RuntimeError('at import')")
    (tmp_path / "pounce_sample_needs.py").write_text("import pounce_sample_not_installed")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("pounce_sample")]:
        del sys.modules[name]


def found(folder: Path, path: str, **settings: object) -> object:
    return import_app(path, ServerConfig.of({"app_dir": str(folder), **settings}))[0]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pounce_sample_app:app", "app"),
        ("pounce_sample_app:Nested.app", "app"),
        ("pounce_sample_app:create()", "app"),
    ],
)
def test_application_is_found(folder: Path, path: str, name: str) -> None:
    assert getattr(found(folder, path), "__name__", None) == name


def test_class_that_is_called_is_an_application(folder: Path) -> None:
    assert type(found(folder, "pounce_sample_app:Application()")).__name__ == "Application"


def test_factory_is_called_when_the_setting_says_so(folder: Path) -> None:
    assert getattr(found(folder, "pounce_sample_app:create", factory=True), "__name__", None) == "app"


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("pounce_sample_app", "POUNCE_APP_PATH", "does not name an application"),
        ("pounce_sample_app:", "POUNCE_APP_PATH", "does not name an application"),
        (":app", "POUNCE_APP_PATH", "does not name an application"),
        ("", "POUNCE_APP_PATH", "does not name an application"),
        ("pounce_sample_missing:app", "POUNCE_APP_MODULE_NOT_FOUND", "no module 'pounce_sample_missing'"),
        ("pounce_sample_app.sub:app", "POUNCE_APP_MODULE_NOT_FOUND", "pounce_sample_app.sub"),
        ("pounce_sample_needs:app", "POUNCE_APP_MODULE_NOT_FOUND", "needs the module 'pounce_sample_not_installed'"),
        ("pounce_sample_raises:app", "POUNCE_APP_IMPORT_FAILED", "RuntimeError: at import"),
        ("pounce_sample_app:ap", "POUNCE_APP_ATTRIBUTE_NOT_FOUND", "no attribute 'ap'"),
        ("pounce_sample_app:Nested.nope", "POUNCE_APP_ATTRIBUTE_NOT_FOUND", "no attribute 'Nested.nope'"),
        ("pounce_sample_app:number", "POUNCE_APP_NOT_CALLABLE", "is a int"),
        ("pounce_sample_app:Application", "POUNCE_APP_NOT_CALLABLE", "is a class"),
        ("pounce_sample_app:Old", "POUNCE_APP_NOT_ASGI", "ASGI 2"),
        ("pounce_sample_app:create", "POUNCE_APP_NOT_ASGI", "a factory"),
        ("pounce_sample_app:broken()", "POUNCE_APP_FACTORY_FAILED", "RuntimeError: no luck"),
        ("pounce_sample_app:nothing()", "POUNCE_APP_NOT_CALLABLE", "not callable"),
        ("pounce_sample_app:app()", "POUNCE_APP_FACTORY_FAILED", "is an application already"),
        ("pounce_sample_app:()", "POUNCE_APP_ATTRIBUTE_NOT_FOUND", "no attribute"),
    ],
)
def test_failure_has_a_code_and_says_what_is_wrong(folder: Path, path: str, code: str, words: str) -> None:
    with pytest.raises(AppImportError) as caught:
        found(folder, path)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("attribute", "hint"),
    [
        ('create("x")', 'app = create("x") in pounce_sample_raises, and name pounce_sample_raises:app'),
        ("create(1)", "app = create(1) in pounce_sample_raises"),
        ("create('a:b')", "app = create('a:b') in pounce_sample_raises"),
        ("create().app", "app = create().app in pounce_sample_raises"),
        ("create( )", "Write pounce_sample_raises:create()."),
        ("create()()", "app = create()() in pounce_sample_raises"),
    ],
)
def test_call_that_is_more_than_a_name_is_told_what_to_write_and_nothing_is_imported(
    folder: Path, attribute: str, hint: str
) -> None:
    with pytest.raises(AppImportError, match="does not name an application: ") as caught:
        found(folder, f"pounce_sample_raises:{attribute}")
    assert caught.value.code == "POUNCE_APP_PATH"
    assert hint in (caught.value.hint or "")


def test_object_that_is_named_by_a_call_is_told_that_nothing_is_called(folder: Path) -> None:
    with pytest.raises(AppImportError, match="nothing is called here") as caught:
        import_object("pounce_sample_app:create()", ServerConfig(app_dir=str(folder)), "middleware")
    assert "Write pounce_sample_app:create, " in (caught.value.hint or "")


@pytest.fixture
def handlers_of_a_server() -> Iterator[None]:
    """While these handle signals, none of them raises KeyboardInterrupt."""

    def on_signal(number: int, frame: object) -> None: ...

    on_signal.__module__ = "pounce.server"
    before = signal.signal(signal.SIGINT, on_signal)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handlers_of_a_server")
@pytest.mark.parametrize(("raised", "said"), ENDINGS)
def test_what_ends_a_program_is_an_error_of_the_import_with_its_place(folder: Path, raised: str, said: str) -> None:
    path = folder / "pounce_sample_ends.py"
    path.write_text(f"\ndef check():\n    raise {raised}\n\ncheck()")
    with pytest.raises(AppImportError) as caught:
        found(folder, "pounce_sample_ends:app")
    assert (caught.value.code, caught.value.exit_code) == ("POUNCE_APP_IMPORT_FAILED", 4)
    assert str(caught.value) == f"pounce_sample_ends could not be imported: {said} ({path}:3)"
    assert "__main__" in (caught.value.hint or "")


@pytest.mark.usefixtures("handlers_of_a_server")
@pytest.mark.parametrize(("raised", "said"), ENDINGS)
def test_what_ends_a_program_is_an_error_of_the_factory_with_its_place(folder: Path, raised: str, said: str) -> None:
    path = folder / "pounce_sample_ends.py"
    path.write_text(f"def create():\n    raise {raised}")
    with pytest.raises(AppImportError) as caught:
        found(folder, "pounce_sample_ends:create()")
    assert (caught.value.code, caught.value.exit_code) == ("POUNCE_APP_FACTORY_FAILED", 4)
    assert str(caught.value) == f"the factory pounce_sample_ends:create() failed: {said} ({path}:2)"


def test_place_is_that_of_the_application_where_a_library_raises(folder: Path) -> None:
    path = folder / "pounce_sample_ends.py"
    path.write_text("import argparse, json\n\njson.loads('{')")
    with pytest.raises(AppImportError, match=re.escape(f"({path}:3)")):
        found(folder, "pounce_sample_ends:app")


def test_interrupt_of_the_program_around_the_server_goes_through(folder: Path) -> None:
    (folder / "pounce_sample_ends.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    # A shell has what it runs in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            found(folder, "pounce_sample_ends:app")
    finally:
        signal.signal(signal.SIGINT, before)


def test_hint_names_what_the_module_has(folder: Path) -> None:
    with pytest.raises(AppImportError) as caught:
        found(folder, "pounce_sample_app:ap")
    assert "app" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("main.py:app", "Write main:app:"),
        ("main.py", "Write main:app:"),
        ("./main.py:site.app", "Write main:site.app:"),
        ("app/main.py:app", "Write app.main:app:"),
        ("app/main:create()", "Write app.main:create():"),
        ("./app/main.py", "Write app.main:app:"),
        ("../other/main.py:app", "Write main:app with --app-dir ../other:"),
        ("/srv/my-site/main.py:app", "Write main:app with --app-dir /srv/my-site:"),
        ("/main.py:app", "Write main:app with --app-dir /:"),
        ("pounce_sample_ap:app", "Did you mean pounce_sample_app:app?"),
        ("pounce_sample_ap.sub:app()", "Did you mean pounce_sample_app.sub:app()?"),
        ("pounce_sample_below:app", "It is in the folder {folder}/src: give that with --app-dir."),
        ("pounce_sample_package.main:app", "It is in the folder {folder}/src: give that with --app-dir."),
        ("nothing_like_it:app", "Start in the folder of the application, or give it with --app-dir."),
    ],
)
def test_hint_names_what_may_have_been_meant(folder: Path, path: str, hint: str) -> None:
    (folder / "src" / "pounce_sample_package").mkdir(parents=True)
    (folder / "src" / "pounce_sample_package" / "__init__.py").touch()
    (folder / "src" / "pounce_sample_below.py").touch()
    with pytest.raises(AppImportError) as caught:
        found(folder, path)
    assert (caught.value.hint or "").startswith(hint.format(folder=folder))


def test_module_is_not_imported_where_its_file_was_named(folder: Path) -> None:
    with pytest.raises(AppImportError) as caught:
        found(folder, "pounce_sample_raises.py:app")
    assert caught.value.code == "POUNCE_APP_PATH"


def test_hint_names_a_folder_that_is_not_there(folder: Path) -> None:
    with pytest.raises(AppImportError) as caught:
        found(folder / "missing", "pounce_sample_app:app")
    assert f"The folder {folder}/missing (app_dir) cannot be read." == caught.value.hint


def test_factory_that_would_have_to_be_awaited_is_told_so(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AppImportError, match="is an async function") as caught:
            found(folder, "pounce_sample_app:made_later()")
        with pytest.raises(AppImportError, match="is an async function"):
            found(folder, "pounce_sample_app:made_later", factory=True)
    assert caught.value.code == "POUNCE_APP_FACTORY_FAILED"
    assert "Make it def" in (caught.value.hint or "")


def test_module_that_switches_the_gil_on_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    (folder / "pounce_sample_gil.py").write_text(
        "import sys\nsys._is_gil_enabled = lambda: True\nasync def app(*a): ..."
    )
    config = ServerConfig(app_dir=str(folder))
    assert import_app("pounce_sample_gil:app", config)[1] == "pounce_sample_gil"
    assert import_app("pounce_sample_app:app", config)[1] is None


def test_empty_app_dir_leaves_the_path_alone(folder: Path) -> None:
    before = list(sys.path)
    with pytest.raises(AppImportError):
        import_app("pounce_sample_app:app", ServerConfig(app_dir=""))
    assert sys.path == before
