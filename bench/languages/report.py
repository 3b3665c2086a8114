"""What a run comes down to: the table on the terminal, the page with its charts, the budgets."""

import statistics

from charts import bars, number
from subjects import BUDGETS, SUBJECTS

LANGUAGES = {"python": "Python", "node": "Node", "c": "C", "kotlin": "Kotlin", "swift": "Swift"}


def runs(lines, key):
    return [line for line in lines if line["kind"] == "run" and line["subject"] == key]


def rates(lines, key):
    return [line["rate"] for line in runs(lines, key)]


def median(lines, key):
    found = rates(lines, key)
    return statistics.median(found) if found else None


def ratio(lines, key, peer):
    """The median of the ratios within the rounds: both had the same minute of the machine."""
    mine = {line["round"]: line["rate"] for line in runs(lines, key)}
    theirs = {line["round"]: line["rate"] for line in runs(lines, peer)}
    both = [mine[round_] / theirs[round_] for round_ in mine if round_ in theirs]
    return statistics.median(both) if both else None


def table(lines):
    """For the terminal."""
    out = [f"{'subject':44} {'worst':>10} {'median':>10} {'best':>10} {'CPU µs':>8} {'RSS MiB':>8} {'lag p50/p99/max ms':>20}"]
    for subject in SUBJECTS:
        found = runs(lines, subject.key)
        if found:
            values = sorted(rates(lines, subject.key))
            name = f"{LANGUAGES[subject.language]}: {subject.name.replace('`', '')}"
            out.append(
                f"{name:44} {values[0]:>10,.0f} {statistics.median(values):>10,.0f} {values[-1]:>10,.0f} {cpu(found):>8.1f} "
                f"{rss(found):>8.0f} {lag(found) or '-':>20}"
            )
    for budget in BUDGETS:
        reached = result(lines, budget)
        if reached:
            out.append(f"{'met   ' if reached[0] else 'MISSED'} {budget.text.replace('`', '')}: {reached[1]}")
    return "\n".join(out)


def cpu(found):
    return statistics.median(line["cpu_us_per_message"] for line in found)


def rss(found):
    return statistics.median(line["peak_rss_kib"] for line in found) / 1024


def lag(found):
    lags = [line["lag_us"] for line in found if line["lag_us"]]
    if not lags:
        return None
    return " / ".join(f"{statistics.median(lag[part] for lag in lags) / 1e3:.1f}" for part in ("p50", "p99", "max"))


def result(lines, budget):
    """Whether it was reached, and what was; None when it was not measured."""
    if budget.rate is not None:
        rate = median(lines, budget.subject)
        return None if rate is None else (rate >= budget.rate, f"{number(rate)}/s")
    times = ratio(lines, budget.subject, budget.peer)
    return None if times is None else (times >= budget.times, f"{times:.2f} times")


def missed(lines):
    found = [(budget, result(lines, budget)) for budget in BUDGETS]
    return [f"{budget.text}: {reached[1]}" for budget, reached in found if reached and not reached[0]] + [
        f"{text}: {reached}" for text, good, reached in other_budgets(lines) if not good
    ]


def other_budgets(lines):
    """Those that are no rates: text, whether it is met, what was measured."""
    for line in lines:
        if line["kind"] == "calls" and line["language"] == "python":
            # What the machine interrupts counts for the thread, so it is one call in a hundred that is looked at, and the longest told.
            worst = max(line["native_calls"].values(), key=lambda call: call["p99"])
            longest = max(call["max"] for call in line["native_calls"].values())
            text = "Python: no native call keeps its thread for more than 50 µs (99 of 100 calls of the slowest; the longest of all)"
            yield text, worst["p99"] <= 50, f"{worst['p99']:g} µs; {longest:g} µs"
        if line["kind"] == "size" and line["package"].startswith("whimbrel") and line["what"] in ("wheel", "platform package"):
            text = f"{LANGUAGES[line['language']]}: {line['what']} below 4 MB"
            yield text, line["packed"] < 4e6, f"{line['packed'] / 1e6:.2f} MB"


def write(lines, folder):
    """The page and its charts in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for language, name in LANGUAGES.items():
        rows, lags = [], []
        for subject in SUBJECTS:
            found = runs(lines, subject.key)
            if subject.language != language or not found:
                continue
            label = subject.name.replace("`", "")
            values = rates(lines, subject.key)
            rows.append((label, statistics.median(values), min(values), max(values), subject.ours))
            late = [line["lag_us"]["p99"] / 1e3 for line in found if line["lag_us"]]
            if late:
                lags.append((label, statistics.median(late), min(late), max(late), subject.ours))
        size = lines[0]["bytes"]
        if not rows:
            continue
        files[f"{language}-rate.svg"] = bars(f"{name}: messages of {size} B per second, QoS 1, all acknowledged", rows, "/s")
        if lags:
            files[f"{language}-lag.svg"] = bars(f"{name}: lateness of the event loop at full rate, p99", lags, "ms")
        imports = [line for line in lines if line["kind"] == "import" and line["language"] == language]
        if imports:
            rows = [(line["package"], line["seconds"] * 1e3, None, None, line["package"] == "whimbrel") for line in imports]
            files[f"{language}-import.svg"] = bars(f"{name}: import in a fresh process", rows, "ms")
    files["languages.md"] = page(lines)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def page(lines):
    environment, machine = lines[0], lines[0]["machine"]
    loads = [line["load"][0] for line in lines if line["kind"] == "run"]
    out = [
        "# The languages beside their peers",
        "",
        "Generated by `cargo xtask bench languages --docs docs/performance`; do not edit.",
        "",
        f"One device sends messages of {environment['bytes']} B with QoS 1 to a server on the same machine that acknowledges at once; the "
        "clock runs from the first send until the last acknowledgement. Ours are on the disk and synced before `send` returns; no peer "
        "syncs anything. Each subject is a process of its own, all take turns in each round, and a ratio is the median of the "
        "ratios within the rounds.",
        "",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, {machine['system']}. "
        f"{environment['rounds']} rounds, begun {environment['began'][:16].replace('T', ' ')} UTC at commit {environment['commit']}, "
        f"load {min(loads):.1f} to {max(loads):.1f} meanwhile, of which the subjects themselves make up to about 2. Absolute figures belong "
        "to this machine and hour, ratios say more.",
        "",
    ]
    if environment["quick"]:
        out += ["**A quick run, to see that it runs: these figures compare nothing.**", ""]
    out += budgets(lines)
    for language, name in LANGUAGES.items():
        out += section(lines, language, name)
    out += lag_notes()
    return "\n".join(out).rstrip() + "\n"


def budgets(lines):
    rows = [(budget.text, result(lines, budget)) for budget in BUDGETS]
    rows = [(text, *reached) for text, reached in rows if reached] + list(other_budgets(lines))
    out = ["## Budgets", "", "| budget | measured | |", "| --- | --- | --- |"]
    return out + [f"| {text} | {reached} | {'met' if good else '**missed**'} |" for text, good, reached in rows] + [""]


def section(lines, language, name):
    subjects = [subject for subject in SUBJECTS if subject.language == language and runs(lines, subject.key)]
    if not subjects:
        return []
    ours = [subject for subject in subjects if subject.ours]
    versions = {runs(lines, subject.key)[0]["runtime"] for subject in subjects}
    out = [f"## {name}", "", ", ".join(sorted(versions)) + ".", "", f"![Messages per second]({language}-rate.svg)", ""]
    out += [
        "| subject | version | kept in | at a time | worst/s | median/s | best/s | CPU µs per message | peak RSS MiB | lag p50 / p99 / max ms |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for subject in subjects:
        found, values = runs(lines, subject.key), rates(lines, subject.key)
        cells = [subject.name, found[0]["version"], subject.keeps, f"{subject.concurrency:,}"]
        if "many" in subject.key:
            cells[3] = f"{subject.batch} in a call"
        cells += [number(min(values)), number(statistics.median(values)), number(max(values))]
        cells += [f"{cpu(found):.1f}", f"{rss(found):.0f}", lag(found) or "no loop"]
        out.append("| " + " | ".join(cells) + " |")
    out.append("")
    if len(ours) < len(subjects):
        out += beside_peers(lines, subjects)
    if any(lag(runs(lines, subject.key)) for subject in subjects):
        out += [f"![Lateness of the event loop]({language}-lag.svg)", ""]
    calls = next((line for line in lines if line["kind"] == "calls" and line["language"] == language), None)
    if calls:
        out += ["One call across the border, no I/O: " + ", ".join(
            f"{WORDS[name]} {cost:,} ns" for name, cost in calls["nanoseconds"].items()) + ".", ""]
    if calls and calls.get("native_calls"):
        what = "time of the thread" if language == "python" else "time on the clock"
        out += [f"Single native calls while messages are sent at full rate, {what} in µs:", ""]
        out += ["| call | calls | p50 | p99 | p99.9 | longest | over 50 µs |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for call, figures in calls["native_calls"].items():
            cells = [f"{figures[part]:g}" for part in ("p50", "p99", "p999", "max")]
            out.append(f"| `{call}` | {figures['calls']:,} | {' | '.join(cells)} | {figures['over_50_us']:,} |")
        out.append("")
    imports = [line for line in lines if line["kind"] == "import" and line["language"] == language]
    sizes = [line for line in lines if line["kind"] == "size" and line["language"] == language]
    if imports:
        out += [f"![Import in a fresh process]({language}-import.svg)", ""]
        out += ["| import | median ms | worst ms |", "| --- | ---: | ---: |"]
        out += [f"| {line['package']} | {line['seconds'] * 1e3:.1f} | {line['worst'] * 1e3:.1f} |" for line in imports] + [""]
    if sizes:
        out += ["| size | packed MB | unpacked MB |", "| --- | ---: | ---: |"]
        out += [f"| {line['package']} ({line['what']}) | {line['packed'] / 1e6:.2f} | {line['unpacked'] / 1e6:.2f} |" for line in sizes]
        out.append("")
    return out


def beside_peers(lines, subjects):
    ours = [subject for subject in subjects if subject.ours]
    out = ["Times as many messages as each peer in the same round, and in brackets how many times more processor time the peer's process "
            "takes for a message:", "", "| | " + " | ".join(subject.name for subject in subjects if not subject.ours) + " |"]
    out.append("| --- |" + " ---: |" * (len(subjects) - len(ours)))
    for subject in ours:
        cells = []
        for peer in (peer for peer in subjects if not peer.ours):
            cost = cpu(runs(lines, peer.key)) / cpu(runs(lines, subject.key))
            cells.append(f"{ratio(lines, subject.key, peer.key):.2f} ({cost:.1f})")
        out.append(f"| {subject.name} | " + " | ".join(cells) + " |")
    return [*out, ""]


def lag_notes():
    return [
        "## How it is measured",
        "",
        "- Lateness: a timer of 1 ms in the program's own event loop tells how late it is called; timers of both languages are exact to "
        "1 ms. Programs without an event loop of their own have none.",
        "- Native calls: in Python the processor time of the calling thread, which is an upper bound for how long the interpreter's lock "
        "is held, for calls let go of it while they work; it includes interrupts of the machine and the cost of looking. Node tells no "
        "processor time of a thread, so the clock on the wall is used, which includes what other processes take.",
        "- Sizes are those of the builds that were measured; a platform package is the native half compressed.",
        "- CPU is that of the client's process with all its threads.",
        "- Peers keep as many messages under way as is best for them; their programs are in `bench/languages/`.",
    ]


WORDS = {
    "version": "the version",
    "accept_in_memory": "taking a message into an outbox in memory",
    "message_id": "`receipt.message_id`",
    "receipt_state": "`receipt.state()`",
    "account": "`account()`",
    "refused_send": "a `send` that is refused",
    "send_in_memory": "a `send` into an outbox in memory until it would wait",
    "whole_send": "a `send` into an outbox in memory until it has its receipt",
}
