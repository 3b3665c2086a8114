"""How results come back to an event loop: one port for each loop, watched by it."""

from __future__ import annotations

import asyncio
import weakref
from asyncio import CancelledError, get_running_loop
from typing import Any, Callable, Coroutine, Generator, Generic, Optional, Protocol, Tuple, Type, TypeVar
from types import TracebackType

from . import _native

_ATTRIBUTE = "_whimbrel_port"
# For loops that take no attributes.
_PORTS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _native.Port] = weakref.WeakKeyDictionary()


def port_of(loop: asyncio.AbstractEventLoop) -> _native.Port:
    """The port of a loop, opened when it is first asked for. It goes with the loop."""
    port = getattr(loop, _ATTRIBUTE, None) or _PORTS.get(loop)
    return open_port(loop) if port is None else port


def open_port(loop: asyncio.AbstractEventLoop, *, watched: bool = True) -> _native.Port:
    """Opens a port for a loop. `watched` False, for tests: as if the loop could not watch sockets."""
    port = _watched_port(loop) if watched else None
    if port is None:
        port = _called_port(loop)
    try:
        setattr(loop, _ATTRIBUTE, port)
    except AttributeError:
        _PORTS[loop] = port
    return port


def _watched_port(loop: asyncio.AbstractEventLoop) -> Optional[_native.Port]:
    try:
        port = _native.Port(None)
        loop.add_reader(port.fileno(), port.drain)
    except (NotImplementedError, AttributeError):
        return None
    return port


def _called_port(loop: asyncio.AbstractEventLoop) -> _native.Port:
    weak_loop = weakref.ref(loop)

    def drain() -> None:
        if weak_port().drain():
            loop = weak_loop()
            if loop is not None:
                loop.call_soon(drain)

    def wake() -> None:
        loop = weak_loop()
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(drain)
            except RuntimeError:
                # It was closed meanwhile, and nobody waits any more.
                pass

    port = _native.Port(wake)
    weak_port: Callable[[], Any] = weakref.ref(port)
    return port


async def run(call: _native.Call, *, stop: bool = True) -> Any:
    """Starts a call and awaits its result. Cancelling stops the waiting, and with it the call, unless `stop` is False: then
    the call goes on by itself."""
    loop = get_running_loop()
    future = loop.create_future()
    started = call.start(port_of(loop), future)
    try:
        return await future
    except CancelledError:
        if stop:
            started.cancel()
        raise


class Stream(Protocol):
    """A stream of the native module."""

    def take(self) -> Optional[Tuple[Any]]: ...
    def ready(self) -> _native.Call: ...
    def pass_on(self) -> None: ...
    def close(self) -> _native.Call: ...


async def next_of(stream: Stream) -> Any:
    """The next item of a stream, None at its end. It is taken in the step of the task that returns it, so a cancelled task
    takes none with it."""
    while True:
        taken = stream.take()
        if taken is not None:
            return taken[0]
        try:
            await run(stream.ready())
        except CancelledError:
            # The news may have been for this task; another one has to look.
            stream.pass_on()
            raise


class Closable(Protocol):
    """Something to be closed."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Opening(Coroutine[Any, Any, C], Generic[C]):
    """Something that is being opened: to be awaited, or to be used with ``async with``, which closes it at the end."""

    __slots__ = ("_coroutine", "_opened")

    def __init__(self, coroutine: Coroutine[Any, Any, C]) -> None:
        self._coroutine = coroutine
        self._opened: Optional[C] = None

    def __await__(self) -> Generator[Any, Any, C]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """As a coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As a coroutine."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As a coroutine: gives up opening."""
        self._coroutine.close()

    async def __aenter__(self) -> C:
        self._opened = await self._coroutine
        return self._opened

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        if self._opened is not None:
            await self._opened.close()
