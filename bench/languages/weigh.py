"""What is measured once, beside the rounds: calls across the border, import times, sizes."""

import gzip
import pathlib
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
IMPORTS = {
    "python": {"whimbrel": "whimbrel", "azure-iot-device": "azure.iot.device", "awscrt": "awscrt.mqtt5", "gmqtt": "gmqtt"},
    "node": {"whimbrel": "whimbrel", "mqtt": "mqtt", "aws-crt": "aws-crt"},
}


def everything(given, server):
    """The lines of it."""
    yield from calls(given, server)
    yield from imports(given)
    yield from sizes(given)


def calls(given, server):
    # Late, for it imports this module.
    from run import run

    programs = {
        "python": [given.python, str(HERE / "python" / "calls.py")],
        "node": [given.node, str(HERE / "node" / "calls.mjs")],
        "kotlin": [given.java, "-cp", given.classpath, "CallsKt"],
    }
    if given.swift:
        programs["swift"] = [*shlex.split(given.swift_entry), str(given.swift / "whimbrel-bench-calls")]
    for language, program in programs.items():
        with server(given.server) as (listening, _), tempfile.TemporaryDirectory(dir=given.dir) as folder:
            command = [*program, *listening, "--outbox", folder]
            command += ["--messages", str(20_000 if given.quick else 200_000), "--bytes", str(given.bytes)]
            yield {"kind": "calls", "language": language, **run(command, given.modules)}
    # No thread of the program is in the library's hands: there is no interpreter's lock, and no loop to be late.
    command = [str(given.c / "calls"), "--port", "0", "--bytes", str(given.bytes)]
    yield {"kind": "calls", "language": "c", "nanoseconds": run(command, given.modules), "native_calls": {}}


def imports(given):
    """Seconds of importing a package in a fresh process, without the start of the process."""
    count = 3 if given.quick else 10
    python = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    node = (
        "const r = require('module').createRequire(process.argv[1] + '/package.json');"
        "const t = performance.now(); r('{}'); console.log((performance.now() - t) / 1e3); process.exit(0)"
    )
    for language, packages in IMPORTS.items():
        times = {name: [] for name in packages}
        for _ in range(count):
            for name, module in packages.items():
                command = [given.python, "-c", python.format(module)]
                if language == "node":
                    command = [given.node, "--no-warnings", "-e", node.format(module), str(given.modules)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                times[name].append(float(done.stdout.split()[-1]))
        for name, seconds in times.items():
            median = statistics.median(seconds)
            yield {"kind": "import", "language": language, "package": name, "seconds": median, "worst": max(seconds)}


def sizes(given):
    """Bytes as downloaded, and as they lie on the disk."""
    if given.wheel:
        yield size("python", "whimbrel", given.wheel.stat().st_size, unzipped(given.wheel), "wheel")
    peer = wheel_of(given.python, "awscrt")
    if peer:
        with tempfile.TemporaryDirectory() as folder:
            command = [given.python, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "-d", folder]
            if subprocess.run([*command, peer], stdout=sys.stderr).returncode == 0:
                for file in pathlib.Path(folder).iterdir():
                    yield size("python", peer, file.stat().st_size, unzipped(file), "wheel")
    modules = given.modules / "node_modules"
    ours = (modules / "whimbrel").resolve()
    native = ours / "whimbrel.node"
    if native.exists():
        packed = len(gzip.compress(native.read_bytes()))
        yield size("node", "whimbrel, native half", packed, native.stat().st_size, "platform package")
        shell = [ours / "dist", ours / "types", ours / "package.json"]
        yield size("node", "whimbrel, shell", tarred(shell), sum(map(on_disk, shell)), "package")
    for name in ("aws-crt", "mqtt"):
        if (modules / name).exists():
            yield size("node", name, tarred([modules / name]), on_disk(modules / name), "package")


def size(language, package, packed, unpacked, what):
    return {"kind": "size", "language": language, "package": package, "packed": packed, "unpacked": unpacked, "what": what}


def wheel_of(python, package):
    show = f"import importlib.metadata as m; print('{package}==' + m.version('{package}'))"
    return subprocess.run([python, "-c", show], capture_output=True, text=True).stdout.strip()


def unzipped(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def on_disk(path):
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def tarred(paths):
    """Bytes of a .tgz of these, as npm would make one."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path in paths:
                archive.add(path, path.name)
        return file.tell()
