"""The back end's client, for asyncio."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, AsyncIterator, List, Mapping, Optional, Tuple, Type, TypedDict

from . import _log, _native
from ._convert import Buffer, StrPath, dumped, of_unix_ms, options
from ._loop import Opening, next_of, run
from .events import EventReader, EventsOptions, events_call
from .message import CommandFields, _Word, with_json
from .registry import Registry

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "CommandOutcome",
    "FeedbackBatch",
    "FeedbackReader",
    "FeedbackRecord",
    "ServiceClient",
    "ServiceOptions",
    "Tracked",
]


class CommandOutcome(_Word):
    """How a command ended."""

    COMPLETED = "completed"
    """The device completed it."""
    REJECTED = "rejected"
    """The device rejected it."""
    EXPIRED = "expired"
    """Its time to live ended first."""
    DELIVERY_COUNT_EXCEEDED = "delivery-count-exceeded"
    """It was delivered as often as the hub allows."""
    PURGED = "purged"
    """The device's queue was purged."""


class ServiceOptions(TypedDict, total=False):
    """Options of `ServiceClient.connect`. What is not given, or is None, has its default in the core."""

    events_connection_string: Optional[str]
    """Connection string of the Event Hubs endpoint to read events from, where that is not the hub's own."""
    server: Optional[str]
    """Where to connect with AMQP instead of what the connection string says, such as ``amqp://127.0.0.1:5672``."""
    http_server: Optional[str]
    """The same for HTTP, such as ``http://127.0.0.1:8080``."""
    websocket: Optional[bool]
    """AMQP over WebSockets."""
    proxy: Optional[str]
    """HTTP proxy to go through."""
    ca_file: Optional[StrPath]
    """File of certificates to trust, PEM, instead of the system's."""
    ca_pem: Optional[str]
    """The same as text."""
    allow_unencrypted: Optional[bool]
    """Allows a server without TLS that is not this machine."""
    connect_timeout: Optional[timedelta]
    """How long connecting may take."""
    send_timeout: Optional[timedelta]
    """How long `send` waits for the hub."""
    backoff: Optional[Tuple[timedelta, timedelta]]
    """The shortest and the longest time between attempts to connect."""
    token_lifetime: Optional[timedelta]
    """How long a token made from the shared key is good."""
    recent_outcomes: Optional[int]
    """Outcomes remembered for commands that are asked about late."""


class BaseTracked:
    """What tracked commands of the asyncio and of the blocking client have in common."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Tracked) -> None:
        self._native = native

    @property
    def device_id(self) -> str:
        """The device it is for."""
        return self._native.device_id

    @property
    def message_id(self) -> str:
        """Its message id. With it `ServiceClient.tracked` follows it again after a restart."""
        return self._native.message_id

    def __repr__(self) -> str:
        return f"Tracked(device_id={self.device_id!r}, message_id={self.message_id!r})"


class Tracked(BaseTracked):
    """A command the hub has taken in. Dropping it changes nothing for the command."""

    __slots__ = ()

    async def outcome(self) -> CommandOutcome:
        """Waits until the command has ended. Any number may wait, any number of times, over lost connections; cancelling
        changes nothing.

        :raises NotFound: When the hub knows of no such command, or not any more.
        :raises Closed: When the client is closed.
        """
        return CommandOutcome(await run(self._native.outcome()))


@dataclass(frozen=True)
class FeedbackRecord:
    """What the hub says about a command that has ended."""

    message_id: str
    """Message id of the command."""
    device_id: str
    """The device it was for."""
    generation: str
    """Generation of that device when the command was sent."""
    outcome: Optional[CommandOutcome]
    """How it ended; None for a word that is not known here."""
    ended_at: Optional[datetime]
    """When, in UTC."""

    @classmethod
    def _of_native(cls, document: Mapping[str, Any]) -> FeedbackRecord:
        outcome = document["outcome"]
        return cls(
            document["message_id"],
            document["device_id"],
            document["generation"],
            None if outcome is None else CommandOutcome(outcome),
            of_unix_ms(document["ended_at_ms"]),
        )


class BaseFeedbackBatch:
    """What feedback of the asyncio and of the blocking client has in common."""

    __slots__ = ("_enqueued_at", "_native", "_records")

    def __init__(self, native: _native.FeedbackBatch) -> None:
        self._native = native
        records, enqueued_at_ms = native.told()
        self._records = [FeedbackRecord._of_native(record) for record in records]
        self._enqueued_at = of_unix_ms(enqueued_at_ms)

    @property
    def records(self) -> List[FeedbackRecord]:
        """The records, oldest first."""
        return self._records

    @property
    def enqueued_at(self) -> Optional[datetime]:
        """When the newest record was made, by the hub's clock; in UTC."""
        return self._enqueued_at

    def __repr__(self) -> str:
        return f"FeedbackBatch(records={self.records!r})"


class FeedbackBatch(BaseFeedbackBatch):
    """Some feedback records, locked for this reader. To be settled before the lock ends; dropping it abandons it."""

    __slots__ = ()

    async def complete(self) -> None:
        """Removes the records from the queue. Cancelling stops the waiting, not the settling.

        :raises LockLost: When the connection it came on has ended; the hub delivers the records again.
        :raises Conflict: When it was settled before.
        """
        await run(self._native.settle(True), stop=False)

    async def abandon(self) -> None:
        """Gives the records back; the hub delivers them again, a limited number of times. As `complete` otherwise."""
        await run(self._native.settle(False), stop=False)


class FeedbackReader(AsyncIterator[FeedbackBatch]):
    """Takes feedback from the hub's queue, a batch at a time. Reconnects by itself. The queue is one for the hub: of several
    readers, in whatever process, each gets a part of it. It ends when it or the client is closed."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Feedbacks) -> None:
        self._native = native

    async def next(self) -> Optional[FeedbackBatch]:
        """The next batch; waits for it. None at the end. Cancelling loses nothing.

        :raises WhimbrelError: What will not pass by itself, such as `Unauthorized`; the reader goes on trying.
        """
        batch = await next_of(self._native)
        return None if batch is None else FeedbackBatch(batch)

    def __aiter__(self) -> FeedbackReader:
        return self

    async def __anext__(self) -> FeedbackBatch:
        batch = await self.next()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def close(self) -> None:
        """Stops reading. Batches that were not settled go back to the queue."""
        await run(self._native.close(), stop=False)

    async def __aenter__(self) -> FeedbackReader:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        await self.close()


def open_service(connection_string: str, given: Mapping[str, Any]) -> _native.Call:
    """The call that makes a service client."""
    unknown = given.keys() - ServiceOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"ServiceClient.connect() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    _log.start()
    return _native.Service.connect(connection_string, options("service.connect", given))


def send_call(native: _native.Service, device_id: str, body: Buffer, fields: CommandFields) -> _native.Call:
    """The call that sends a command."""
    unknown = fields.keys() - CommandFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"send() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    get = fields.get
    settings = options("service.send", {"expires_in": get("expires_in"), "feedback": get("feedback")})
    message = (
        None,
        get("properties"),
        get("message_id"),
        get("correlation_id"),
        get("user_id"),
        get("content_type"),
        get("content_encoding"),
        *(None,) * 7,
    )
    return native.send(device_id, body, message, settings)


class BaseServiceClient:
    """What the asyncio and the blocking client have in common."""

    __slots__ = ("__weakref__", "_closed", "_native")

    def __init__(self, native: _native.Service) -> None:
        self._native = native
        self._closed = False

    def __repr__(self) -> str:
        return f"<whimbrel service client, {'closed' if self._closed else 'open'}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if not getattr(self, "_closed", True):
            _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)


class ServiceClient(BaseServiceClient):
    """A back end's connection to its hub. Safe to share between tasks, threads and event loops. It connects when something
    needs a connection, and again when one is lost::

        async with whimbrel.ServiceClient.connect(connection_string) as service:
            tracked = await service.send("thermostat-1", b"reboot")
            print(await tracked.outcome())

    To be closed, or used with ``async with``, which closes it.
    """

    __slots__ = ()

    @staticmethod
    def connect(connection_string: str, **options: Unpack[ServiceOptions]) -> Opening[ServiceClient]:
        """Checks the options and reads the files they name. The result is awaited, or used with ``async with``.

        :param connection_string: ``HostName=…;SharedAccessKeyName=…;SharedAccessKey=…``.
        :param options: See `ServiceOptions`.
        :raises InvalidArgument: Naming the option.
        """

        async def connected() -> ServiceClient:
            return ServiceClient(await run(open_service(connection_string, options)))

        return Opening(connected())

    async def send(self, device_id: str, body: Buffer, **fields: Unpack[CommandFields]) -> Tracked:
        """Sends a command to a device; returns when the hub has stored it in the device's queue. Cancelling before it was
        sent leaves nothing behind; afterwards the hub may have it.

        :param body: Anything with the buffer protocol, C-contiguous; copied. A `str` is refused.
        :param expires_in: Time to live in the device's queue; rounded up to milliseconds.
        :param feedback: Which feedback the hub is to keep for readers of `feedback`.
        :param fields: and the others: see `CommandFields`.
        :raises InvalidArgument, PayloadTooLarge: For what cannot be sent.
        :raises NotFound: When there is no such device, or it is disabled.
        :raises QueueFull, Throttled: Later it may go.
        :raises Unauthorized: For a policy that may not send commands.
        :raises DeliveryTimeout: When the hub has not answered in time; it may have the command.
        :raises Closed: When the client is closed.
        """
        return Tracked(await run(send_call(self._native, device_id, body, fields)))

    async def send_json(self, device_id: str, value: Any, **fields: Unpack[CommandFields]) -> Tracked:
        """`send` with `value` as JSON in UTF-8, which `content_type` and `content_encoding` say unless they are given.

        :raises InvalidArgument: For what JSON cannot hold, such as NaN.
        """
        return await self.send(device_id, dumped("service.send", value), **with_json(fields))

    def tracked(self, device_id: str, message_id: str) -> Tracked:
        """Follows a command that was sent before, also by another process, by its message id.

        :raises InvalidArgument: For a device id that cannot be one.
        :raises Closed: When the client is closed.
        """
        return Tracked(self._native.tracked(device_id, message_id))

    def feedback(self) -> FeedbackReader:
        """Reads the feedback the hub keeps for commands that asked for it.

        :raises Closed: When the client is closed.
        """
        return FeedbackReader(self._native.feedback())

    def events(self, **options: Unpack[EventsOptions]) -> Opening[EventReader]:
        """Reads events. The result is awaited, or used with ``async with``; once it is open, events stored from then on are
        seen. Cancelling leaves nothing behind.

        :param options: See `EventsOptions`.
        :raises InvalidArgument: For settings that cannot be.
        :raises NotFound: For a partition there is not.
        :raises Unauthorized, Unreachable, ProtocolError, Closed: As elsewhere, and what the checkpoint store says.
        """

        async def opened() -> EventReader:
            name, native = await run(events_call(self._native, options))
            return EventReader(native, name)

        return Opening(opened())

    @property
    def registry(self) -> Registry:
        """Creates, changes and deletes device and module identities."""
        return Registry(self._native.registry())

    async def close(self) -> None:
        """Closes the client: what waits ends with `Closed`, readers give up their partitions and end, connections are closed.
        Cancelling stops the waiting, not the closing."""
        self._closed = True
        await run(self._native.close(), stop=False)

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        await self.close()
