"""Values of Python as the native module takes them, shared by the asyncio and the blocking clients."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from .errors import InvalidArgument

if sys.version_info >= (3, 12):
    from collections.abc import Buffer as Buffer
else:
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        from typing_extensions import Buffer as Buffer
    else:
        Buffer = Union[bytes, bytearray, memoryview]

StrPath = Union[str, "os.PathLike[str]"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_ZERO = timedelta(0)


def ms(operation: str, name: str, value: Any) -> int:
    """A `timedelta` in milliseconds, rounded up: a time that is not zero does not become zero."""
    if not isinstance(value, timedelta):
        raise invalid(operation, name, "is no timedelta")
    if value < _ZERO:
        raise invalid(operation, name, "is negative")
    # In whole numbers: the longest timedelta has no room for rounding.
    return value.days * 86_400_000 + value.seconds * 1_000 - (-value.microseconds // 1_000)


def maybe_ms(operation: str, name: str, value: Any) -> Optional[int]:
    """As `ms`, where there is a value."""
    return None if value is None else ms(operation, name, value)


def unix_ms(operation: str, name: str, value: Any) -> int:
    """A `datetime` as milliseconds since 1970."""
    if not isinstance(value, datetime):
        raise invalid(operation, name, "is no datetime")
    if value.utcoffset() is None:
        raise invalid(operation, name, "has no time zone: use for example datetime.now(timezone.utc)")
    return (value - _EPOCH) // _MILLISECOND


def of_unix_ms(value: Optional[int]) -> Optional[datetime]:
    """A `datetime` in UTC; the nearest there is for times beyond what it can hold."""
    if value is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        bound = datetime.min if value < 0 else datetime.max
        return bound.replace(tzinfo=timezone.utc)


def dumped(operation: str, value: Any) -> bytes:
    """A value as JSON in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise invalid(operation, "the value", "holds half of a surrogate pair, which is no text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(operation, "the value", f"is nothing that JSON can hold: {error}") from error


def options(operation: str, given: Mapping[str, Any]) -> str:
    """Options as JSON: what is None is left out, times are milliseconds, pairs of times are two options."""
    told: Dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in _PAIRS:
            names = _PAIRS[name]
            if not isinstance(value, (tuple, list)) or len(value) != len(names):
                raise invalid(operation, name, "is no pair of timedeltas")
            for part, time in zip(names, value):
                told[f"{part}_ms"] = ms(operation, name, time)
        elif name in _TIMES:
            told[f"{name}_ms"] = ms(operation, name, value)
        elif name in _PATHS:
            told[name] = path_text(operation, name, value)
        else:
            told[name] = _text(operation, name, value)
    try:
        return json.dumps(told)
    except (TypeError, ValueError, RecursionError):
        raise InvalidArgument(f"{operation}: an option is of a type that cannot be used", operation=operation) from None


def path_text(operation: str, name: str, value: Any) -> str:
    """A path as text."""
    try:
        path = os.fspath(value)
    except TypeError:
        raise invalid(operation, name, "is no path") from None
    if not isinstance(path, str):
        raise invalid(operation, name, "is a path of bytes; use str or pathlib")
    _text(operation, name, path)
    return path


def _text(operation: str, name: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(operation, name, "holds half of a surrogate pair, which is no text") from None
    return value


def invalid(operation: str, name: str, what: str) -> InvalidArgument:
    """The error that says that what was given as `name` cannot be used."""
    return InvalidArgument(f"{operation}: {name} {what}", operation=operation)


_PAIRS: Dict[str, Tuple[str, str]] = {
    "backoff": ("backoff_min", "backoff_max"),
    "ownership": ("ownership_renew", "ownership_lasts"),
}
_TIMES = frozenset(
    (
        "close_deadline",
        "connect_timeout",
        "expires_in",
        "keep_alive",
        "outbox_max_age",
        "poll_interval",
        "send_timeout",
        "sync_interval",
        "token_lifetime",
    )
)
_PATHS = frozenset(("ca_file", "client_certificate", "client_key", "outbox"))
