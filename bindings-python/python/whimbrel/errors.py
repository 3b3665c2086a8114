"""The exceptions: one class for each kind of error, the same kinds in every language.

Each class is also the builtin exception that fits, where there is one, so ``except ConnectionError`` and
``except whimbrel.Unreachable`` both work. The table of all kinds, with what they mean: ``docs/errors.md``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type

__all__ = [
    "Cancelled",
    "Closed",
    "Conflict",
    "DeliveryTimeout",
    "DiskFull",
    "Expired",
    "InUse",
    "InternalError",
    "InvalidArgument",
    "JournalCorrupt",
    "JournalIoError",
    "JournalVersion",
    "LockLost",
    "NotFound",
    "OutboxFull",
    "PayloadTooLarge",
    "ProtocolError",
    "QueueFull",
    "Rejected",
    "Throttled",
    "Unauthorized",
    "Unreachable",
    "Unsupported",
    "WhimbrelError",
]


class WhimbrelError(Exception):
    """What every error of this package is.

    Its text is one line that says what was wrong and, where there is one, what to do. It never holds a payload, a key or a
    token.
    """

    kind: str = ""
    """The name of the kind, such as ``OUTBOX_FULL``; the same in every language."""
    code: int = 0
    """The number of the kind; the same in every language, and never reused."""
    retry: str = "never"
    """Whether repeating the call can help: ``never``, ``later``, ``wait again``, ``after reopen`` or ``caller's choice``."""

    message: str
    """The text, complete, on one line."""
    operation: str
    """The call that failed, such as ``device.send``."""
    retry_after: Optional[timedelta]
    """How long the other side asked to wait, where it did."""
    details: Dict[str, str]
    """More about it, by name."""
    causes: List[str]
    """What caused it, nearest first."""

    def __init__(
        self,
        message: str = "",
        *,
        operation: str = "",
        retry_after: Optional[timedelta] = None,
        details: Optional[Mapping[str, str]] = None,
        causes: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.retry_after = retry_after
        self.details = dict(details or {})
        self.causes = list(causes)

    def __reduce__(self) -> Any:
        return _rebuilt, (type(self), self.message, self.operation, self.retry_after, self.details, self.causes)

    def __str__(self) -> str:
        return self.message

    @classmethod
    def _of_native(
        cls, message: str, operation: str, retry_after: Optional[float], details: Dict[str, str], causes: List[str]
    ) -> WhimbrelError:
        wait = None if retry_after is None else timedelta(seconds=retry_after)
        return cls(message, operation=operation, retry_after=wait, details=details, causes=causes)


def _rebuilt(
    cls: Type[WhimbrelError],
    message: str,
    operation: str,
    retry_after: Optional[timedelta],
    details: Dict[str, str],
    causes: List[str],
) -> WhimbrelError:
    return cls(message, operation=operation, retry_after=retry_after, details=details, causes=causes)


class InvalidArgument(WhimbrelError, ValueError):
    """An option or argument cannot be used; the text says which and why."""

    kind = "INVALID_ARGUMENT"
    code = 101


class PayloadTooLarge(WhimbrelError, ValueError):
    """The message is over the size limit of its direction."""

    kind = "PAYLOAD_TOO_LARGE"
    code = 102


class Unsupported(WhimbrelError, NotImplementedError):
    """The protocol or build in use cannot do this."""

    kind = "UNSUPPORTED"
    code = 103


class Closed(WhimbrelError):
    """The client was closed before the call, or was opened before the process forked."""

    kind = "CLOSED"
    code = 201


class InUse(WhimbrelError):
    """Another process, or another client of this one, has this directory open."""

    kind = "IN_USE"
    code = 202
    retry = "later"


class Cancelled(WhimbrelError):
    """The caller stopped waiting. In asyncio this is ``asyncio.CancelledError`` instead."""

    kind = "CANCELLED"
    code = 203
    retry = "caller's choice"


class OutboxFull(WhimbrelError):
    """The outbox is at its bound and its overflow policy is to refuse."""

    kind = "OUTBOX_FULL"
    code = 301
    retry = "later"


class Expired(WhimbrelError):
    """The time to live ended first."""

    kind = "EXPIRED"
    code = 302


class Rejected(WhimbrelError):
    """The other side refused this for good."""

    kind = "REJECTED"
    code = 303


class Conflict(WhimbrelError):
    """It exists already, was settled already, or changed meanwhile."""

    kind = "CONFLICT"
    code = 304


class DeliveryTimeout(WhimbrelError, TimeoutError):
    """The deadline passed; the message is still kept and delivery goes on."""

    kind = "TIMEOUT"
    code = 305
    retry = "wait again"


class NotFound(WhimbrelError, LookupError):
    """There is no such device, message or partition."""

    kind = "NOT_FOUND"
    code = 306


class QueueFull(WhimbrelError):
    """The device's queue of commands is at its bound; wait until some are settled, or purge it."""

    kind = "QUEUE_FULL"
    code = 307
    retry = "later"


class LockLost(WhimbrelError):
    """The lock on the command has ended; the hub delivers it again, or has ended it."""

    kind = "LOCK_LOST"
    code = 308


class Unauthorized(WhimbrelError, PermissionError):
    """The credentials are wrong, expired, or do not allow this."""

    kind = "UNAUTHORIZED"
    code = 401


class Unreachable(WhimbrelError, ConnectionError):
    """The other side could not be reached, or the connection was lost."""

    kind = "UNREACHABLE"
    code = 402
    retry = "later"


class ProtocolError(WhimbrelError):
    """The other side broke the protocol; the text names the rule."""

    kind = "PROTOCOL"
    code = 403


class Throttled(WhimbrelError):
    """The other side asked to slow down; ``retry_after`` says for how long, where it said so."""

    kind = "THROTTLED"
    code = 404
    retry = "later"


class JournalIoError(WhimbrelError, OSError):
    """The disk refused a write or a sync; nothing more is accepted until the journal is opened again."""

    kind = "JOURNAL_IO"
    code = 501
    retry = "after reopen"


class JournalCorrupt(WhimbrelError):
    """The journal cannot be read at all; single damaged records never cause this."""

    kind = "JOURNAL_CORRUPT"
    code = 502


class JournalVersion(WhimbrelError):
    """The journal was written by a newer version."""

    kind = "JOURNAL_VERSION"
    code = 503


class DiskFull(WhimbrelError, OSError):
    """There is no space left on the disk; nothing was stored, and it works again when space returns."""

    kind = "DISK_FULL"
    code = 504
    retry = "later"


class InternalError(WhimbrelError):
    """A defect in Whimbrel; please report it with the text."""

    kind = "INTERNAL"
    code = 901


CLASSES: Dict[str, Type[WhimbrelError]] = {
    cls.kind: cls
    for cls in (
        InvalidArgument,
        PayloadTooLarge,
        Unsupported,
        Closed,
        InUse,
        Cancelled,
        OutboxFull,
        Expired,
        Rejected,
        Conflict,
        DeliveryTimeout,
        NotFound,
        QueueFull,
        LockLost,
        Unauthorized,
        Unreachable,
        ProtocolError,
        Throttled,
        JournalIoError,
        JournalCorrupt,
        JournalVersion,
        DiskFull,
        InternalError,
    )
}
"""The class of each kind, by its name."""
