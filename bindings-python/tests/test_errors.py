"""Errors."""

from __future__ import annotations

import asyncio
import pickle
from datetime import timedelta

import pytest

import whimbrel
from whimbrel import _native, errors
from whimbrel._loop import run


def test_every_kind_has_its_class() -> None:
    kinds = [(name, code, retry) for name, code, retry in _native.error_kinds()]
    assert kinds == [(kind.kind, kind.code, kind.retry) for kind in errors.CLASSES.values()]
    assert list(errors.CLASSES) == [name for name, _, _ in kinds]
    for cls in errors.CLASSES.values():
        assert getattr(whimbrel, cls.__name__) is cls and cls.__name__ in errors.__all__
        assert issubclass(cls, whimbrel.WhimbrelError) and cls.__doc__


@pytest.mark.parametrize(
    "cls, builtin",
    [
        (whimbrel.InvalidArgument, ValueError),
        (whimbrel.PayloadTooLarge, ValueError),
        (whimbrel.Unsupported, NotImplementedError),
        (whimbrel.DeliveryTimeout, TimeoutError),
        (whimbrel.NotFound, LookupError),
        (whimbrel.Unauthorized, PermissionError),
        (whimbrel.Unreachable, ConnectionError),
        (whimbrel.JournalIoError, OSError),
        (whimbrel.DiskFull, OSError),
    ],
)
def test_errors_are_the_builtins_that_fit(cls: type, builtin: type) -> None:
    assert issubclass(cls, builtin)
    error = cls("what was wrong", operation="device.send")
    assert str(error) == "what was wrong" and error.args == ("what was wrong",)


@pytest.mark.parametrize("cls", errors.CLASSES.values())
def test_errors_can_be_pickled(cls: type) -> None:
    error = cls("text", operation="a.b", retry_after=timedelta(seconds=2), details={"a": "1"}, causes=["c"])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls and str(copy) == "text"
    assert (copy.operation, copy.retry_after, copy.details, copy.causes) == ("a.b", timedelta(seconds=2), {"a": "1"}, ["c"])
    assert (copy.kind, copy.code, copy.retry) == (cls.kind, cls.code, cls.retry)  # type: ignore[attr-defined]


def test_a_panic_is_an_error_with_its_text() -> None:
    with pytest.raises(whimbrel.InternalError) as raised:
        _native.panics(False)
    assert raised.value.details["panic"] == "a panic of a test" and raised.value.code == 901

    async def main() -> None:
        with pytest.raises(whimbrel.InternalError) as raised:
            await run(_native.panics(True))
        assert "a panic of a test" in str(raised.value)

    asyncio.run(main())
    with pytest.raises(whimbrel.InternalError, match="a panic of a test"):
        _native.panics(True).wait(None)


def test_a_call_starts_once() -> None:
    call = _native.panics(True)
    with pytest.raises(whimbrel.InternalError):
        call.wait(None)
    with pytest.raises(whimbrel.Conflict):
        call.wait(None)
