"""Reading events, for asyncio, and where reading begins."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, AsyncIterator, Mapping, Optional, Sequence, Tuple, Type, TypedDict, Union

from . import _native
from ._convert import StrPath, invalid, of_unix_ms, options, path_text, unix_ms
from ._loop import next_of, run
from .device import Said

__all__ = [
    "Checkpoints",
    "Event",
    "EventReader",
    "EventsOptions",
    "FileCheckpoints",
    "HubCheckpoints",
    "MemoryCheckpoints",
    "Position",
]


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
