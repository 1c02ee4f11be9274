"""Errors: whose fault it is, what it is called, and where it is explained."""

import pickle

import pytest

import pounce
from pounce import BadRequest, BindError, LimitError, ParseError, RequestTimeoutError, SupervisorError
from pounce import errors as all_errors

KINDS = {
    "POUNCE_PARSE_BAD_HOST": ParseError, "POUNCE_LIMIT_CONNECTIONS": LimitError,
    "POUNCE_TIMEOUT_REQUEST_BODY": RequestTimeoutError, "POUNCE_WS_VERSION": BadRequest, None: ParseError,
}  # fmt: skip


@pytest.mark.parametrize("code", KINDS)
def test_the_type_of_a_bad_request_is_what_its_code_says(code: str | None) -> None:
    error = BadRequest("no", status=413, code=code, hint="why", position=3)
    again = pickle.loads(pickle.dumps(error))
    for each in (error, again):
        assert type(each) is KINDS[code]
        assert (each.message, each.status, each.status_code, each.hint) == ("no", 413, 413, "why")
    assert error.position == 3


def test_a_kind_that_is_named_stays_what_it_is() -> None:
    assert type(LimitError("no")) is LimitError
    assert type(LimitError("no", code="POUNCE_PARSE_BAD_HOST")) is LimitError
    assert LimitError("no").code == "POUNCE_LIMIT_E"


def test_every_error_says_where_it_is_explained() -> None:
    assert BindError("no", code="POUNCE_BIND_IN_USE").doc == "docs/errors.md#pounce_bind_in_use"


def test_errors_of_workers_and_reloads_are_of_the_supervisor() -> None:
    assert issubclass(pounce.WorkerError, SupervisorError)
    assert issubclass(pounce.ReloadError, SupervisorError)


@pytest.mark.parametrize("name", [name for name in all_errors.__all__ if name[0].isupper()])
def test_every_error_is_a_name_of_the_package(name: str) -> None:
    assert getattr(pounce, name) is getattr(all_errors, name)
