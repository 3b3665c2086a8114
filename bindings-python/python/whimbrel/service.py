"""The back end's client, for asyncio."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypedDict,
    Union,
)

from . import _log, _native
from ._convert import Buffer, StrPath, dumped, invalid, of_unix_ms, options, path_text, unix_ms
from ._loop import Opening, next_of, run
from .device import Said
from .identity import DeviceIdentity, ModuleIdentity
from .message import CommandFields, _Word, with_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "CommandOutcome",
    "Event",
    "EventReader",
    "EventsOptions",
    "FeedbackBatch",
    "FeedbackReader",
    "FeedbackRecord",
    "FileCheckpoints",
    "HubCheckpoints",
    "MemoryCheckpoints",
    "Position",
    "Registry",
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


class Position:
    """Where a reader begins in partitions it has no checkpoint for."""

    __slots__ = ("_setting",)

    BEGINNING: Position
    """With the oldest event that is kept."""
    END: Position
    """With the first event stored after the reader was opened."""

    def __init__(self, setting: Any) -> None:
        self._setting = setting

    @classmethod
    def sequence(cls, number: int) -> Position:
        """With the event of this sequence number, or the first one after it."""
        return cls({"sequence": number})

    @classmethod
    def offset(cls, text: str) -> Position:
        """With the event at this offset, as `Event.offset` gave it."""
        return cls({"offset": text})

    @classmethod
    def time(cls, at: datetime) -> Position:
        """With the first event stored at this time or later, by the hub's clock."""
        return cls({"time_ms": unix_ms("service.events", "position", at)})

    def __repr__(self) -> str:
        return f"Position({self._setting!r})"

    def __eq__(self, other: object) -> bool:
        return self._setting == other._setting if isinstance(other, Position) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self._setting))


Position.BEGINNING = Position("beginning")
Position.END = Position("end")


class FileCheckpoints:
    """Checkpoints and ownership of partitions in a folder of this machine, for readers on this machine."""

    __slots__ = ("folder",)

    def __init__(self, folder: StrPath) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"FileCheckpoints({os.fspath(self.folder)!r})"


class HubCheckpoints:
    """Checkpoints and ownership of partitions at the hub itself, for readers anywhere. Of a Whimbrel hub only."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HubCheckpoints()"


class MemoryCheckpoints:
    """Checkpoints and ownership of partitions in memory, for readers of this process that share this object."""

    __slots__ = ("_native",)

    def __init__(self) -> None:
        self._native = _native.Memory()

    def __repr__(self) -> str:
        return "MemoryCheckpoints()"


Checkpoints = Union[FileCheckpoints, HubCheckpoints, MemoryCheckpoints]


class EventsOptions(TypedDict, total=False):
    """Options of `ServiceClient.events`. What is not given, or is None, has its default in the core."""

    group: Optional[str]
    """The consumer group."""
    position: Optional[Union[Position, str]]
    """Where to begin in partitions without a checkpoint; ``beginning`` and ``end`` may be said as text."""
    checkpoints: Optional[Checkpoints]
    """Begins behind the checkpoints in this store, and makes `Event.checkpoint` possible. All readers of a group that have
    the same store share the partitions, unless `partitions` are chosen."""
    partitions: Optional[Sequence[int]]
    """Reads these partitions only, and shares them with nobody."""
    prefetch: Optional[int]
    """Events of a partition that are fetched before they are asked for."""
    ownership: Optional[Tuple[timedelta, timedelta]]
    """How often a reader says that it still has its partitions, and how long others believe it."""


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


class BaseEvent(Said):
    """What events of the asyncio and of the blocking client have in common."""

    __slots__ = ()

    @property
    def device_id(self) -> str:
        """The device that sent it, as the hub knows it; empty when the hub does not say."""
        return self._said("device_id")  # type: ignore[no-any-return]

    @property
    def module_id(self) -> Optional[str]:
        """The module that sent it."""
        return self._said("module_id")  # type: ignore[no-any-return]

    @property
    def generation(self) -> Optional[str]:
        """The generation of the device that sent it: another one is another device of the same name."""
        return self._said("generation")  # type: ignore[no-any-return]

    @property
    def auth_method(self) -> Optional[str]:
        """How the sender proved itself, as JSON."""
        return self._said("auth_method")  # type: ignore[no-any-return]

    @property
    def source(self) -> Optional[str]:
        """What kind of event it is; ``Telemetry`` for messages of devices."""
        return self._said("source")  # type: ignore[no-any-return]

    @property
    def partition(self) -> int:
        """Its partition."""
        return self._said("partition")  # type: ignore[no-any-return]

    @property
    def sequence(self) -> int:
        """Its number in the partition; each is one higher than the one before."""
        return self._said("sequence")  # type: ignore[no-any-return]

    @property
    def offset(self) -> str:
        """Its offset in the partition, for `Position.offset`."""
        return self._said("offset")  # type: ignore[no-any-return]

    @property
    def enqueued_at(self) -> datetime:
        """When it was stored, by the hub's clock; in UTC."""
        return of_unix_ms(self._said("enqueued_at_ms"))  # type: ignore[return-value]

    @property
    def message_schema(self) -> Optional[str]:
        """Schema of the content."""
        return self._said("message_schema")  # type: ignore[no-any-return]

    @property
    def output_name(self) -> Optional[str]:
        """Output of a module."""
        return self._said("output_name")  # type: ignore[no-any-return]

    @property
    def interface_id(self) -> Optional[str]:
        """Interface id of a security message."""
        return self._said("interface_id")  # type: ignore[no-any-return]

    @property
    def component(self) -> Optional[str]:
        """Component the message belongs to."""
        return self._said("component")  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Event(device_id={self.device_id!r}, partition={self.partition}, sequence={self.sequence})"


class Event(BaseEvent):
    """A message of a device, as it was stored."""

    __slots__ = ()

    async def checkpoint(self) -> None:
        """Stores that this event, and all before it in its partition, were dealt with: readers of the group begin behind it.
        Every few events or seconds is often enough. Cancelling stops the waiting; it may be stored or not.

        :raises Unsupported: For a reader without a checkpoint store.
        :raises Conflict: When another reader has the partition now: it gets this event again.
        """
        await run(self._native.checkpoint())


class EventReader(AsyncIterator[Event]):
    """A stream of events, in order within each partition. Reconnects by itself and goes on behind the last event it handed
    out, without a gap. It ends when it or the client is closed."""

    __slots__ = ("_name", "_native")

    def __init__(self, native: _native.Events, name: str) -> None:
        self._native = native
        self._name = name

    @property
    def name(self) -> str:
        """What this reader is called among those that share partitions; random."""
        return self._name

    async def next(self) -> Optional[Event]:
        """The next event; waits for it. None at the end. Cancelling loses nothing.

        :raises WhimbrelError: What will not pass by itself, such as `Unauthorized`, `NotFound` for the consumer group,
            `ProtocolError` for an event that cannot be read and is passed over. The reader goes on.
        """
        event = await next_of(self._native)
        return None if event is None else Event(event)

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        event = await next_of(self._native)
        if event is None:
            raise StopAsyncIteration
        return Event(event)

    async def close(self) -> None:
        """Stops reading and gives up its partitions, so that others take over at once."""
        await run(self._native.close(), stop=False)

    async def __aenter__(self) -> EventReader:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        await self.close()


def document_of(identity: Union[str, DeviceIdentity, ModuleIdentity]) -> str:
    """The document of an identity, or of a new device with this id, as text."""
    document = {"deviceId": identity} if isinstance(identity, str) else identity.document
    return dumped("registry", document).decode()


class Registry:
    """Creates, reads, changes and deletes identities.

    Every change is conditional: an identity that was read carries its etag, and changing it fails with `Conflict` when
    somebody else did meanwhile. Every call may also raise `InvalidArgument`, `Unauthorized`, `Throttled`, `Unreachable`,
    `Closed`. Cancelling stops the waiting; the hub may have done it.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Registry) -> None:
        self._native = native

    async def create(self, device: Union[str, DeviceIdentity]) -> DeviceIdentity:
        """Creates a device: by its id, with keys the hub makes, or as the identity says.

        :raises Conflict: When it exists.
        """
        return DeviceIdentity._of_native(await run(self._native.create(document_of(device))))

    async def get(self, id: str) -> DeviceIdentity:
        """A device.

        :raises NotFound: When there is none.
        """
        return DeviceIdentity._of_native(await run(self._native.get(id)))

    async def update(self, device: DeviceIdentity) -> DeviceIdentity:
        """Changes a device to what the identity says, if its etag is still the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        return DeviceIdentity._of_native(await run(self._native.update(document_of(device))))

    async def delete(self, id: str, etag: Optional[str] = None) -> None:
        """Deletes a device with its commands and modules; its events stay. With an etag, only while it is the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        await run(self._native.delete(id, etag))

    async def list(self, limit: int = 1000) -> List[DeviceIdentity]:
        """Up to `limit` devices, at most 1000, in no particular order. For more, `query`."""
        return [DeviceIdentity._of_native(text) for text in await run(self._native.list(limit))]

    async def query(self, sql: str, page_size: int = 100) -> AsyncIterator[Dict[str, Any]]:
        """The documents of the devices that a query finds, such as ``SELECT * FROM devices``; `page_size` are fetched at a
        time.

        :raises InvalidArgument: For a query the hub does not understand.
        """
        continuation: Optional[str] = None
        while True:
            documents, continuation = await run(self._native.query(sql, page_size, continuation))
            for text in documents:
                yield json.loads(text)
            if continuation is None:
                return

    async def create_module(self, module: ModuleIdentity) -> ModuleIdentity:
        """Creates a module of a device, with keys the hub makes unless the identity says otherwise.

        :raises Conflict: When it exists.
        :raises NotFound: When there is no such device.
        """
        return ModuleIdentity._of_native(await run(self._native.create_module(document_of(module))))

    async def get_module(self, device_id: str, id: str) -> ModuleIdentity:
        """A module of a device.

        :raises NotFound: When there is none.
        """
        return ModuleIdentity._of_native(await run(self._native.get_module(device_id, id)))

    async def update_module(self, module: ModuleIdentity) -> ModuleIdentity:
        """Changes a module, if its etag is still the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        return ModuleIdentity._of_native(await run(self._native.update_module(document_of(module))))

    async def delete_module(self, device_id: str, id: str, etag: Optional[str] = None) -> None:
        """Deletes a module. With an etag, only while it is the current one.

        :raises Conflict: When it is not.
        :raises NotFound: When there is none.
        """
        await run(self._native.delete_module(device_id, id, etag))

    async def modules(self, device_id: str) -> List[ModuleIdentity]:
        """The modules of a device.

        :raises NotFound: When there is no such device.
        """
        return [ModuleIdentity._of_native(text) for text in await run(self._native.modules(device_id))]

    async def purge_commands(self, id: str) -> int:
        """Ends all commands in the queue of a device as purged; how many.

        :raises NotFound: When there is no such device.
        """
        return await run(self._native.purge_commands(id))  # type: ignore[no-any-return]

    def connection_string(self, identity: Union[DeviceIdentity, ModuleIdentity]) -> Optional[str]:
        """The connection string of a device or module: with its first key, or ``x509=true``. None when it has no way to prove
        itself, or the hub has not said its keys."""
        return connection_string(self._native, identity)


def connection_string(registry: _native.Registry, identity: Union[DeviceIdentity, ModuleIdentity]) -> Optional[str]:
    """The connection string of an identity."""
    if isinstance(identity, ModuleIdentity):
        return registry.module_connection_string(document_of(identity))
    return registry.connection_string(document_of(identity))


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


def events_call(native: _native.Service, given: Mapping[str, Any]) -> _native.Call:
    """The call that opens a reader of events."""
    unknown = given.keys() - EventsOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"events() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    operation = "service.events"
    told = dict(given)
    store = told.pop("checkpoints", None)
    position = told.pop("position", None)
    if position is not None:
        told["from"] = position._setting if isinstance(position, Position) else position
    if told.get("partitions") is not None:
        try:
            told["partitions"] = list(told["partitions"])
        except TypeError:
            raise invalid(operation, "partitions", "is no sequence of numbers") from None
    checkpoints: Any = None
    if isinstance(store, FileCheckpoints):
        checkpoints = path_text(operation, "checkpoints", store.folder)
    elif isinstance(store, HubCheckpoints):
        checkpoints = True
    elif isinstance(store, MemoryCheckpoints):
        checkpoints = store._native
    elif store is not None:
        raise invalid(operation, "checkpoints", "is no checkpoint store")
    return native.events(options(operation, told), checkpoints)


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
