"""Compiles the C tests in every way users may, and runs them against a real hub. Started by `cargo xtask test --part c`.

The last line is `N passed, N failed`. Needs nothing but Python, gcc and, for its part, valgrind.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from hub import Hub

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE.parent / "include" / "whimbrel.h"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Werror=implicit-function-declaration" , "-O1", "-g"]
LANGUAGES = {"C11": ["gcc", "-std=c11", *STRICT], "C++17": ["g++", "-x", "c++", "-std=c++17"] + [flag for flag in STRICT if "implicit" not in flag]}
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
SYSTEM = ["-lpthread", "-ldl", "-lm"]
# Not a call on which a test depends, but a limit for one that hangs.
LIMIT = 300


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=pathlib.Path, required=True, help="folder with libwhimbrel.so and libwhimbrel.a, with test hooks")
    parser.add_argument("--whimbrel", required=True, help="the command whimbrel")
    parser.add_argument("--only", help="runs the tests whose name holds this")
    given = parser.parse_args()
    results = Results(given.only)
    with tempfile.TemporaryDirectory(prefix="whimbrel-c-") as folder:
        tests(given, pathlib.Path(folder), results)
    print(f"{results.passed} passed, {results.failed} failed")
    sys.exit(1 if results.failed else 0)


def tests(given, folder, results):
    results.test("every function of the header is called", every_function_is_called)
    results.test("the header documents everything", everything_is_documented)
    built = {}
    for language, compiler in LANGUAGES.items():
        for linked, link in {"shared": shared(given), "static": static(given)}.items():
            for name in ("calls", "misuse"):
                program = folder / f"{name}-{language}-{linked}"
                test = f"{name} compiles as {language}, {linked}"
                if results.test(test, build, compiler, name, program, link):
                    built[name, language, linked] = [str(program)]
    for name in ("calls", "misuse"):
        program = folder / f"{name}-sanitized"
        if results.test(f"{name} compiles with sanitizers", build, [*LANGUAGES["C11"], *SANITIZED], name, program, static(given)):
            built[name, "C11", "with AddressSanitizer and UndefinedBehaviorSanitizer"] = [str(program)]
        if (name, "C11", "static") in built:
            memcheck = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]
            suppressions = HERE / "valgrind.supp"
            memcheck += [f"--suppressions={suppressions}"] if suppressions.exists() else []
            built[name, "C11", "under valgrind"] = [*memcheck, *built[name, "C11", "static"]]
    readme = folder / "readme"
    has_readme = results.test("the first example of README.md compiles", build_readme, folder, readme, shared(given))
    with Hub(given.whimbrel, folder / "hub") as hub:
        if has_readme:
            (folder / "readme-outbox").mkdir()
            results.test("the first example of README.md", run_readme, hub, readme, folder / "readme-outbox")
        for number, ((name, language, how), command) in enumerate(built.items()):
            outbox = folder / f"run-{number}"
            outbox.mkdir()
            if name == "misuse":
                results.test(f"{name}, {language}, {how}", run, [*command, outbox])
            elif results.wants(f"{name}, {language}, {how}"):
                device = f"device-{number}"
                connection_string = hub.add(device)
                for command_number in range(6):
                    hub.command(device, command_number)
                results.test(f"{name}, {language}, {how}", run, [*command, connection_string, hub.server, outbox])


def every_function_is_called():
    """Calls, in a program that also runs them; a function that is only named is linked and not called."""
    text = "".join((HERE / name).read_text() for name in ("calls.c", "misuse.c", "check.h"))
    missing = [name for name in functions() if not re.search(rf"\b{name}\s*\(", text)]
    assert not missing, f"not called: {', '.join(missing)}"


def everything_is_documented():
    """What a function, type, member or macro is, stands right before it."""
    lines = HEADER.read_text().splitlines()
    wanted = re.compile(r"^(enum|struct|typedef (?!enum|struct|int32_t)|#define (?!WHIMBREL_H$)|(const )?\w+ \*?whimbrel_\w+\()|^    \w.*[;,]$")
    bare = []
    for before, line in zip(lines, lines[1:]):
        is_continued = before.rstrip().endswith("\\") or line.startswith("     ")
        if wanted.match(line) and not before.strip().endswith("*/") and not is_continued:
            bare.append(line)
    bare = [line for line in bare if not re.match(r"^(typedef struct (\w+) \2;|struct \w+;)", line)]
    assert not bare, "not documented: " + "; ".join(bare[:20])


def functions():
    names = re.findall(r"^(?:const )?\w+ \*?(whimbrel_\w+)\(", HEADER.read_text(), re.MULTILINE)
    assert len(names) > 60, f"only {len(names)} functions were found in the header"
    return names


def shared(given):
    return [f"-L{given.library}", "-lwhimbrel", f"-Wl,-rpath,{given.library}", *SYSTEM]


def static(given):
    return [str(given.library / "libwhimbrel.a"), *SYSTEM]


def build(compiler, name, program, link):
    # The language is for the source, not for the library behind it.
    source = [str(HERE / f"{name}.c")] + (["-x", "none"] if "-x" in compiler else [])
    run([*compiler, f"-I{HEADER.parent}", *source, "-o", program, *link])


def build_readme(folder, program, link):
    example = re.search(r"```c\n(.*?)```", (HERE.parent / "README.md").read_text(), re.DOTALL)
    (folder / "readme.c").write_text(example.group(1))
    run([*LANGUAGES["C11"], f"-I{HEADER.parent}", folder / "readme.c", "-o", program, *link])


def run_readme(hub, program, outbox):
    said = run([program, hub.add("readme"), outbox, hub.server])
    assert said.startswith("follow it by its id: "), said
    (event,) = hub.events("readme")
    assert event["body"] == {"json": {"t": 21.5}}, event


def run(command):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-6000:]}"
    return done.stdout


class Results:
    def __init__(self, only):
        self.passed = self.failed = 0
        self._only = only

    def wants(self, name):
        return self._only is None or self._only in name

    def test(self, name, work, *arguments):
        # What others need is built in any case.
        if not self.wants(name) and work not in (build, build_readme):
            return False
        started = time.monotonic()
        try:
            work(*arguments)
        except (AssertionError, subprocess.TimeoutExpired) as problem:
            self.failed += 1
            print(f"failed: {name}\n{problem}", flush=True)
            return False
        self.passed += 1
        print(f"ok: {name} ({time.monotonic() - started:.1f} s)", flush=True)
        return True


if __name__ == "__main__":
    main()
