"""Table and plots of docs/CAPACITY.md, from the record that scripts/capacity-curve writes."""

import os
import statistics

import sweep_render

MEASURES = [
    ("cpu_us_per_heartbeat", "server CPU, us a heartbeat", 1),
    ("user_bytes_per_connection", "server memory, B a connection", 0),
    ("kernel_bytes_per_connection", "kernel memory (both ends), B a connection", 0),
    ("rtt_p50_us", "rtt p50, us", 0),
    ("rtt_p99_us", "rtt p99, us", 0),
    ("rtt_p999_us", "rtt p99.9, us", 0),
]
PLOTTED = ["cpu_us_per_heartbeat", "user_bytes_per_connection", "rtt_p999_us"]
COLOURS = {"uring": "#d62728", "tokio_sleep": "#7b3fa0"}


def points(rows):
    """The rows of each contestant and size that were measured."""
    found = {}
    for row in rows:
        if row["cpu_us_per_heartbeat"] not in ("", None):
            found.setdefault((row["contestant"], int(row["connections"])), []).append(row)
    return found


def median(rows, measure):
    values = [float(row[measure]) for row in rows if row[measure] not in ("", None)]
    return statistics.median(values) if values else None


def lines(rows):
    """A list of cells for each contestant and size."""
    for (contestant, size), group in sorted(points(rows).items(), key=lambda item: item[0][::-1]):
        values = [median(group, measure) for measure, _, _ in MEASURES]
        cells = ["-" if value is None else f"{value:,.{digits}f}"
                 for value, (_, _, digits) in zip(values, MEASURES)]
        faults = "*" * sum(str(row["exit"]) != "0" for row in group)
        yield [f"{size:,}", contestant + faults, *cells]


def table(rows):
    titles = ["connections", "server", *(title for _, title, _ in MEASURES)]
    text = [titles, *lines(rows)]
    widths = [max(len(line[column]) for line in text) for column in range(len(titles))]
    note = "medians; a * for each run in which loadgen found fault"
    return "\n".join([note, *("  ".join(cell.rjust(width) for cell, width in zip(line, widths))
                              for line in text)])


def fill(page, rows):
    """Puts the table between the page's markers."""
    titles = ["connections", "server", *(title for _, title, _ in MEASURES)]
    body = ["| " + " | ".join(titles) + " |", "|--:|---|" + "--:|" * len(MEASURES)]
    body += ["| " + " | ".join(line) + " |" for line in lines(rows)]
    front, rest = page.read_text().split("<!-- curve -->\n", 1)
    _, back = rest.split("<!-- end of curve -->", 1)
    page.write_text(f"{front}<!-- curve -->\n" + "\n".join(body) + f"\n<!-- end of curve -->{back}")


def plots(rows, folder):
    sweep_render.COLOURS.update(COLOURS)
    titles = {measure: title for measure, title, _ in MEASURES}
    for measure in PLOTTED:
        drawn = {}
        for (contestant, size), group in points(rows).items():
            drawn.setdefault(contestant, []).append((size, median(group, measure)))
        what, _, unit = titles[measure].rpartition(", ")
        path = os.path.join(folder, measure.replace("_", "-") + ".svg")
        sweep_render.plot(what, "connections", unit, drawn, path)
