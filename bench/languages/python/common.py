"""What the programs of this folder share: the command line, the figures, the line that tells them."""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import platform
import resource
import sys
import time

TOPIC = "devices/bench/messages/events/"


def arguments():
    """The command line, the same for every subject; a subject ignores what it has no use for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=256)
    parser.add_argument("--concurrency", type=int, default=1_000, help="sends under way at a time, or threads")
    parser.add_argument("--batch", type=int, default=512, help="messages in each call that takes many")
    parser.add_argument("--outbox", help="folder for the outbox, on the disk to measure")
    parser.add_argument("--ca", help="certificate to trust")
    given = parser.parse_args()
    given.body = b"x" * given.bytes
    return given


class Measurement:
    """Figures between its beginning and its end."""

    def __init__(self):
        self.lag = None

    def begin(self):
        self._cpu = time.process_time()
        self._own = time.thread_time()
        self._start = time.perf_counter()

    def end(self):
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = time.process_time() - self._cpu
        self.own_cpu_seconds = time.thread_time() - self._own

    @contextlib.asynccontextmanager
    async def running(self):
        """Everything inside counts; a timer meanwhile looks how late the event loop is."""
        await asyncio.sleep(0.05)
        samples = []
        self.begin()
        loop = asyncio.get_running_loop()

        def look(due):
            now = loop.time()
            samples.append(now - due)
            state[0] = loop.call_at(now + EVERY, look, now + EVERY)

        due = loop.time() + EVERY
        state = [loop.call_at(due, look, due)]
        try:
            yield
        finally:
            state[0].cancel()
        self.end()
        self.lag = quantiles(samples)

    def tell(self, messages, version):
        """Prints the line."""
        line = {
            "messages": messages,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            # Of the thread the program itself runs on.
            "own_cpu_seconds": self.own_cpu_seconds,
            "peak_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "lag_us": self.lag,
            "version": version,
            "runtime": f"{platform.python_implementation()} {platform.python_version()}",
        }
        json.dump(line, sys.stdout)
        print(flush=True)


def quantiles(samples):
    """Of seconds, in whole microseconds."""
    if not samples:
        return None
    ordered = sorted(samples)
    at = lambda part: round(1e6 * ordered[min(len(ordered) - 1, int(part * len(ordered)))])
    return {"p50": at(0.5), "p99": at(0.99), "max": round(1e6 * ordered[-1]), "samples": len(ordered)}


def version(package):
    return importlib.metadata.version(package)


# How often the timer looks, in seconds. The loop's own timers are exact to a millisecond.
EVERY = 0.001
