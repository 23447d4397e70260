"""Table and plots of docs/ENGINES.md, from the record that scripts/compare-engines writes.

Plots are written as SVG by hand: no library is needed to make them again.
"""

import pathlib
import statistics

MEASURES = [
    ("cpu_us_per_heartbeat", "server CPU, us a heartbeat", 2),
    ("user_bytes_per_connection", "user memory, B a connection", 0),
    ("kernel_bytes_per_connection", "kernel memory, B a connection", 0),
    ("rtt_p50_us", "rtt p50, us", 0),
    ("rtt_p99_us", "rtt p99, us", 0),
    ("rtt_p999_us", "rtt p99.9, us", 0),
    ("connects_per_s", "connects a second", 0),
]
COLOURS = {"uring": "#d62728", "tokio-uring": "#e8871e", "epoll": "#1f77b4",
           "ring_echo": "#8a8a8a", "tokio_echo": "#6fb1e0", "tokio_sleep": "#7b3fa0"}
RATIOS = [
    ("cpu_us_per_heartbeat", "tokio_sleep", 0.6), ("user_bytes_per_connection", "tokio_sleep", 0.1),
    ("cpu_us_per_heartbeat", "tokio-uring", 0.75),
    ("user_bytes_per_connection", "tokio-uring", 0.125), ("cpu_us_per_heartbeat", "ring_echo", None),
]
BAR, GAP, LEFT, WIDTH = 16, 26, 190, 760


def grouped(rows):
    """The rows of each contestant, by size, both in the order of the record."""
    sizes = {}
    for row in sorted(rows, key=lambda row: int(row["repeat"])):
        sizes.setdefault(int(row["connections"]), {}).setdefault(row["contestant"], []).append(row)
    return dict(sorted(sizes.items()))


def median(rows, measure):
    return statistics.median(float(row[measure]) for row in rows)


def spread(rows, measure):
    values = [float(row[measure]) for row in rows]
    return min(values), max(values)


def table(rows):
    lines = ["median [lowest..highest] of the repeats; a * for each run in which loadgen found fault",
             "kernel memory is that of both ends, from slab caches"]
    for size, contestants in grouped(rows).items():
        lines += ["", f"{size:,} connections"]
        for measure, title, digits in MEASURES:
            lines.append(f"  {title}")
            for name, found in contestants.items():
                low, high = spread(found, measure)
                faults = "*" * sum(str(row["exit"]) != "0" for row in found)
                lines.append(f"    {name + faults:<14} {median(found, measure):>10,.{digits}f}   "
                             f"[{low:,.{digits}f}..{high:,.{digits}f}]")
        lines += ratios(contestants)
    return "\n".join(lines)


def markdown(rows):
    """A table for each size, for a page."""
    lines = []
    for size, contestants in grouped(rows).items():
        lines += ["", f"**{size:,} connections**", "",
                  "| | " + " | ".join(title for _, title, _ in MEASURES) + " |",
                  "|---|" + "--:|" * len(MEASURES)]
        for name, found in contestants.items():
            cells = []
            for measure, _, digits in MEASURES:
                low, high = spread(found, measure)
                cell = f"{median(found, measure):,.{digits}f}"
                if measure == "cpu_us_per_heartbeat":
                    cell += f" ({low:.2f} to {high:.2f})"
                cells.append(cell)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:])


def fill(page, rows):
    """Puts the tables between the page's markers."""
    text = page.read_text()
    front, rest = text.split("<!-- tables -->\n", 1)
    _, back = rest.split("<!-- end of tables -->", 1)
    page.write_text(f"{front}<!-- tables -->\n{markdown(rows)}\n<!-- end of tables -->{back}")


def ratios(contestants):
    if "uring" not in contestants:
        return []
    lines = ["  ratios of the medians"]
    for measure, other, goal in RATIOS:
        if other in contestants:
            ratio = median(contestants["uring"], measure) / median(contestants[other], measure)
            wanted = f"  (goal: at most {goal})" if goal else ""
            lines.append(f"    uring / {other:<12} {measure:<28} {ratio:.3f}{wanted}")
    return lines


def plots(rows, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for measure, title, digits in MEASURES[:2]:
        (folder / f"{measure.replace('_', '-')}.svg").write_text(plot(rows, measure, title, digits))


def plot(rows, measure, title, digits):
    """Bars by size and contestant, each with the range of its repeats."""
    sizes = grouped(rows)
    top = max(spread(found, measure)[1] for one in sizes.values() for found in one.values())
    scale = (WIDTH - LEFT - 90) / top
    parts, y = [], 44
    for size, contestants in sizes.items():
        parts.append(f'<text x="12" y="{y + 12}" class="size">{size:,} connections</text>')
        y += 22
        for name, found in contestants.items():
            value, (low, high) = median(found, measure), spread(found, measure)
            middle = y + BAR / 2
            parts.append(
                f'<text x="{LEFT - 8}" y="{y + 12}" class="name">{name}</text>'
                f'<rect x="{LEFT}" y="{y}" width="{max(value * scale, 1):.1f}" height="{BAR - 3}" '
                f'fill="{COLOURS[name]}"/>'
                f'<path d="M{LEFT + low * scale:.1f} {middle - 1}H{LEFT + high * scale:.1f}" '
                'class="range"/>'
                f'<text x="{LEFT + high * scale + 6:.1f}" y="{y + 12}">{value:,.{digits}f}</text>')
            y += BAR + 2
        y += GAP - BAR
    style = ("text{font:12px system-ui,sans-serif;fill:#222}.name{text-anchor:end}"
             ".size{font-weight:600}.title{font-size:15px;font-weight:600}.back{fill:#fff}"
             ".range{stroke:#222;stroke-width:1.5;fill:none}"
             "@media(prefers-color-scheme:dark){text{fill:#ddd}.back{fill:#14171c}"
             ".range{stroke:#eee}}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
            f'aria-label="{title}"><style>{style}</style>'
            f'<rect class="back" width="{WIDTH}" height="{y}"/>'
            f'<text x="12" y="22" class="title">{title}</text>{"".join(parts)}</svg>\n')
