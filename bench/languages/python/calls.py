"""What one call across the border costs without I/O, and the longest the native half keeps a thread in one call.

The interpreter's lock is held for at most as long as a native call takes of its thread; calls that wait let go of it, so this is
an upper bound. It is looked at from outside, call by call, while messages are sent as in the other programs.
"""

import asyncio
import json
import statistics
import sys
import time

import whimbrel

from common import arguments
from whimbrel_common import CONNECTION_STRING, LONG, connected, options


async def main():
    given = arguments()
    line = {"nanoseconds": await costs(given), "native_calls": await native_calls(given)}
    json.dump(line, sys.stdout)
    print()


async def costs(given):
    """Nanoseconds of a call, the median of nine series."""
    nowhere = {"server": "mqtt://127.0.0.1:9", "outbox_in_memory": True, "close_deadline": LONG * 0, "overflow": "drop-oldest"}
    async with whimbrel.DeviceClient.open(CONNECTION_STRING, **nowhere) as device:
        receipt = await device.send(given.body)

        def refused():
            try:
                device.send("no bytes").send(None)
            except whimbrel.InvalidArgument:
                pass

        pending = []

        def begun():
            # Up to where it would wait: the message has been taken in.
            coroutine = device.send(given.body)
            coroutine.send(None)
            pending.append(coroutine)

        async def forgotten():
            # Closing them cancels the waiting, not the messages.
            for coroutine in pending:
                coroutine.close()
            pending.clear()
            await asyncio.sleep(0.05)

        found = {}
        for name, call, count in (
            ("message_id", lambda: receipt.message_id, 20_000),
            ("receipt_state", receipt.state, 5_000),
            ("account", device.account, 2_000),
            ("refused_send", refused, 2_000),
            ("send_in_memory", begun, 500),
        ):
            series = []
            for _ in range(9):
                start = time.perf_counter_ns()
                for _ in range(count):
                    call()
                series.append((time.perf_counter_ns() - start) / count)
                await forgotten()
            found[name] = round(statistics.median(series))
        return found


async def native_calls(given):
    """Microseconds of thread time in native calls, by name."""
    taken = {}
    depth = []
    clock = time.thread_time_ns

    def look(frame, event, function):
        if event == "c_call":
            depth.append(clock())
        elif event in ("c_return", "c_exception") and depth:
            ns = clock() - depth.pop()
            owner = type(getattr(function, "__self__", None))
            if owner.__module__ in ("whimbrel._native", "_native", "builtins") and owner.__name__ in NATIVE:
                taken.setdefault(f"{owner.__name__}.{function.__name__}", []).append(ns)

    drains = taken["Port.drain"] = []

    async with whimbrel.DeviceClient.open(CONNECTION_STRING, **options(given)) as device:
        await connected(device)

        async def work():
            left = given.messages // 4

            async def sender():
                nonlocal left
                while left > 0:
                    left -= 1
                    await device.send(given.body)

            await asyncio.gather(*(sender() for _ in range(given.concurrency)))
            for _ in range(0, given.messages // 4, given.batch):
                await device.send_many([given.body] * given.batch)

        sys.setprofile(look)
        await work()
        sys.setprofile(None)
        # The loop calls this one itself, where nothing looks, and it calls the loop, which would be slowed down by who looks.
        loop = asyncio.get_running_loop()
        port = loop._whimbrel_port

        def drain():
            start = clock()
            port.drain()
            drains.append(clock() - start)

        loop.add_reader(port.fileno(), drain)
        await work()
        loop.add_reader(port.fileno(), port.drain)
        await device.flush(LONG)
    return {name: figures(taken[name]) for name in sorted(taken)}


def figures(nanoseconds):
    ordered = sorted(nanoseconds)
    at = lambda part: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1e3, 1)
    over = sum(ns > LIMIT for ns in ordered)
    return {"calls": len(ordered), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1), "over_50_us": over}


NATIVE = {"Device", "Port", "Batch", "Call", "Started", "Receipt", "Receipts"}
LIMIT = 50_000

asyncio.run(main())
