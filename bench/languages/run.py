"""Measures the device client of each language beside its peers, against a server that acknowledges at once.

Started by `cargo xtask bench languages`, which builds everything and says where it is. Every subject is a process of its own and
has a server of its own; in each round all of them have their turn, so that a slow minute of the machine is one for all.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import shlex
import socket
import subprocess
import sys
import tempfile

import report
import weigh
from subjects import SUBJECTS

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def main():
    given = arguments()
    environment = {
        "machine": machine(),
        "began": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output("git", "-C", ROOT, "rev-parse", "--short", "HEAD"),
        "bytes": given.bytes,
        "rounds": given.rounds,
        "quick": given.quick,
    }
    given.results.parent.mkdir(parents=True, exist_ok=True)
    results = given.results.open("w")

    def keep(line):
        json.dump(line, results)
        results.write("\n")
        results.flush()
        return line

    lines = [keep({"kind": "environment", **environment})]
    wanted = [subject for subject in SUBJECTS if not given.only or subject.key in given.only]
    wanted = [subject for subject in wanted if given.swift or subject.language != "swift"]
    for round_ in range(given.rounds):
        # Nobody always comes after the same one.
        for subject in random.Random(round_).sample(wanted, len(wanted)):
            line = keep({"kind": "run", "round": round_, **measure(given, subject)})
            lines.append(line)
            say(f"round {round_ + 1}: {subject.language} {subject.name}: {line['rate']:,.0f}/s")
    if not given.only:
        lines += [keep(line) for line in weigh.everything(given, server)]
    lines.append(keep({"kind": "end", "load": os.getloadavg()}))
    results.close()
    say(f"results: {given.results}")
    print(report.table(lines))
    if given.docs:
        for file in report.write(lines, given.docs):
            say(f"wrote {file}")
    missed = report.missed(lines)
    for text in missed:
        say(f"budget missed: {text}")
    if given.strict and missed:
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the program whimbrel-bench")
    parser.add_argument("--python", required=True, help="Python with whimbrel and its peers")
    parser.add_argument("--python-paho", required=True, help="Python with paho-mqtt 2")
    parser.add_argument("--node", required=True, help="node")
    parser.add_argument("--modules", required=True, type=pathlib.Path, help="folder whose node_modules has whimbrel and its peers")
    parser.add_argument("--c", required=True, type=pathlib.Path, help="folder with the programs in C")
    parser.add_argument("--java", required=True, help="java")
    parser.add_argument("--classpath", required=True, help="class path of bench/languages/kotlin")
    parser.add_argument("--swift", type=pathlib.Path, help="folder with the programs in Swift; without it they are left out")
    parser.add_argument("--swift-entry", default="", help="what a program in Swift is put behind to run")
    parser.add_argument("--wheel", type=pathlib.Path, help="the wheel of whimbrel, to be weighed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=256, help="bytes of a body")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth: to see that it runs, not to compare")
    parser.add_argument("--strict", action="store_true", help="fails when a budget is missed")
    parser.add_argument("--only", nargs="*", default=[], metavar="SUBJECT", help="; ".join(subject.key for subject in SUBJECTS))
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "target", help="folder on the disk to measure")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "target" / "bench-languages.jsonl")
    parser.add_argument("--docs", type=pathlib.Path, help="folder for the report and its charts, such as docs/performance")
    given = parser.parse_args()
    if given.quick:
        given.rounds = 1
    if given.only and given.docs:
        parser.error("a report about some of them only would be taken for one about all")
    return given


def measure(given, subject):
    """One run of one subject."""
    messages = subject.messages // 10 if given.quick else subject.messages
    with server(given.server, subject.tls) as (listening, counts), tempfile.TemporaryDirectory(dir=given.dir) as folder:
        command = [*start(given, subject), *listening]
        command += ["--messages", str(messages), "--bytes", str(given.bytes), "--concurrency", str(subject.concurrency)]
        command += ["--batch", str(subject.batch), "--outbox", folder]
        line = run(command, given.modules)
        counted = counts()
    # Sent twice would be work that does not count, and not at all would be worse.
    if counted["publishes"] != messages:
        sys.exit(f"{subject.key}: the server has counted {counted['publishes']} publishes of {messages} messages")
    return {
        "subject": subject.key,
        **line,
        "rate": line["messages"] / line["seconds"],
        "cpu_us_per_message": 1e6 * line["cpu_seconds"] / line["messages"],
        "server_cpu_seconds": counted["cpu_seconds"],
        "load": os.getloadavg(),
        "command": [pathlib.Path(part).name if pathlib.Path(part).is_absolute() else part for part in command if part != given.classpath],
    }


def start(given, subject):
    """How its program is started."""
    if subject.language == "c":
        return [str(given.c / subject.program)]
    if subject.language == "kotlin":
        return [given.java, "-cp", given.classpath, subject.program]
    if subject.language == "swift":
        return [*shlex.split(given.swift_entry), str(given.swift / subject.program)]
    interpreter = {"python": given.python, "node": given.node}[subject.language]
    if subject.environment == "paho":
        interpreter = given.python_paho
    return [interpreter, str(HERE / subject.language / subject.program)]


def run(command, modules):
    """Runs a program whose last line is its result."""
    environment = {**os.environ, "BENCH_MODULES": str(modules), "NODE_NO_WARNINGS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class server:
    """`whimbrel-bench null-server`: its part of a command line, and what it has counted."""

    def __init__(self, program, tls=False):
        self._tls = tls
        command = [program, "null-server"]
        host = "127.0.0.1"
        if tls:
            # azure-iot-device knows port 8883 and no other; on Linux all of 127.0.0.0/8 is this machine.
            host = free_address()
            self._folder = tempfile.TemporaryDirectory()
            certificate = str(pathlib.Path(self._folder.name) / "certificate.pem")
            command += ["--listen", f"{host}:8883", "--tls", certificate]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = self._line()["port"]
        self._listening = ["--host", host, "--port", str(port)] + (["--ca", certificate] if tls else [])

    def __enter__(self):
        return self._listening, self.counts

    def __exit__(self, *_):
        self._process.communicate(timeout=30)
        if self._tls:
            self._folder.cleanup()

    def counts(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self):
        return json.loads(self._process.stdout.readline())


def free_address():
    for _ in range(20):
        address = f"127.{random.randint(2, 250)}.{random.randint(0, 250)}.{random.randint(2, 250)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, 8883))
                return address
            except OSError:
                pass
    sys.exit("port 8883 is not free on any loopback address")


def machine():
    """What the figures belong to, without a name."""
    cpu = next((line.split(":")[1].strip() for line in read("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next((int(line.split()[1]) for line in read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 20), 1),
        "system": f"{os.uname().sysname} {os.uname().release.split('-')[0]}",
        "load_at_start": os.getloadavg(),
    }


def read(file):
    try:
        return pathlib.Path(file).read_text().splitlines()
    except OSError:
        return []


def output(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def say(text):
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    main()
