"""Tables and plots of docs/SWEEP.md, from the record that scripts/bench-sweep writes.

Plots are written as SVG by hand: no library is needed to make them again.
"""

import math
import os
import re
import statistics

# What tells one scenario from another.
SCENARIO = ["sessions", "timeout", "gap_min", "gap_max", "expiring_ppm", "phase", "order", "cache",
            "budget"]
REFERENCE = dict(sessions="1000000", timeout="240", gap_min="61", gap_max="80",
                 expiring_ppm="100", phase="uniform", order="random", cache="hot", budget="0")
TOTAL = "total_ns_per_session_second"

# One colour for a family: scans grey, trees and lists brown and green, wheels blue, peers violet.
COLOURS = {
    "map-scan": "#555555", "dense-scan": "#999999", "binary-heap": "#b5651d", "btree": "#d4a05a",
    "lru-list": "#2e8b57", "eager-wheel": "#1f77b4", "lazy-wheel": "#6fb1e0",
    "hierarchical-wheel": "#17becf", "block-wheel": "#d62728", "nexus-wheel": "#7b3fa0",
    "nexus-queue": "#b07cc6", "delay-queue": "#c71585", "hash-wheel": "#dda0dd",
    "tokio-sleep": "#ff69b4",
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 460, 70, 150, 44, 52


class Group:
    """All repeats of one contender in one scenario."""

    def __init__(self, rows):
        self.rows = rows

    def median(self, column):
        return statistics.median(float(row[column]) for row in self.rows)

    def spread(self, column):
        """Half the distance of the extremes, in percent of the median."""
        values = [float(row[column]) for row in self.rows]
        median = statistics.median(values)
        return (max(values) - min(values)) / 2 / median * 100 if median else 0.0


def select(rows, **scenario):
    """The groups by contender, in the order of the record."""
    wanted = {**REFERENCE, **scenario}
    groups = {}
    for row in rows:
        if row["series"] != "mass" and all(row[key] == wanted[key] for key in SCENARIO):
            groups.setdefault(row["contender"], []).append(row)
    return {name: Group(found) for name, found in groups.items()}


def select_mass(rows, budget):
    groups = {}
    for row in rows:
        if row["series"] == "mass" and row["budget"] == budget:
            groups.setdefault(row["contender"], []).append(row)
    return {name: Group(found) for name, found in groups.items()}


def figure(value):
    """Three digits that matter."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def is_peer(name):
    return name in ("nexus-wheel", "nexus-queue", "delay-queue", "hash-wheel", "tokio-sleep")


def table(groups):
    """The columns of every scenario."""
    if not groups:
        return ["(not measured)"]
    best = groups["block-wheel"].median(TOTAL)
    lines = [
        "| | touch ns | tick us p50 | p99 | max | visited a tick | late, ticks | B/session "
        "| total ns per session and second | ± | of block-wheel |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, group in sorted(groups.items(), key=lambda item: item[1].median(TOTAL)):
        columns = ["touch_ns", "tick_us_p50", "tick_us_p99", "tick_us_max"]
        cells = [figure(group.median(column)) for column in columns]
        visited = "-" if is_peer(name) else figure(group.median("visited_per_tick"))
        cells += [visited, figure(group.median("lateness_max_ticks")),
                  figure(group.median("bytes_per_session")), figure(group.median(TOTAL)),
                  f"{group.spread(TOTAL):.0f} %", f"{group.median(TOTAL) / best:.3g}x"]
        shown = f"**{name}**" if name == "block-wheel" else name
        lines.append(f"| {shown} | " + " | ".join(cells) + " |")
    return lines


def matrix(rows, scenarios):
    """Totals only: a column for each scenario."""
    found = [(title, select(rows, **scenario)) for title, scenario in scenarios]
    names = list(dict.fromkeys(name for _, groups in found for name in groups if "/" not in name))
    lines = ["| | " + " | ".join(title for title, _ in found) + " |",
             "|---|" + "--:|" * len(found)]
    for name in names:
        cells = []
        for _, groups in found:
            totals = {other: group.median(TOTAL) for other, group in groups.items()
                      if "/" not in other}
            cell = figure(totals[name]) if name in totals else ""
            if name in totals and totals[name] == min(totals.values()):
                cell = f"**{cell}**"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def mass_table(rows):
    lines = ["| | ns a session | calls of 4,096 | longest call us | visited |",
             "|---|--:|--:|--:|--:|"]
    at_once, in_turns = select_mass(rows, "0"), select_mass(rows, "4096")
    for name, group in sorted(at_once.items(), key=lambda item: item[1].median("tick_us_mean")):
        sessions = group.median("sessions")
        cells = [figure(group.median("tick_us_mean") * 1e3 / sessions)]
        turns = in_turns.get(name)
        cells += [figure(turns.median("calls")), figure(turns.median("call_us_max"))] \
            if turns else ["", ""]
        cells.append("-" if is_peer(name) else figure(group.median("visited_per_tick")))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def instruction_table(counts):
    lines = ["| | instructions a touch | a tick |", "|---|--:|--:|"]
    for row in counts:
        lines.append(f"| {row['contender']} | {row['per_touch']} "
                     f"| {float(row['per_tick']):,.0f} |")
    return lines


def provenance(rows):
    about = {(row["date"], row["commit"], row["kernel"], row["cpu"]) for row in rows}
    loads = [float(row["load"]) for row in rows]
    lines = [f"- {date}, commit `{commit}`, Linux {kernel}, {cpu}"
             for date, commit, kernel, cpu in sorted(about)]
    lines.append(f"- load of the machine at the start of each scenario: {min(loads):.2f} to "
                 f"{max(loads):.2f}")
    lines.append(f"- {len(rows)} runs; every one of them gave the right answer, or there would be "
                 "no line for it")
    return lines


def axis(values):
    low, high = min(values), max(values)
    return math.floor(math.log10(low) + 1e-9), max(math.ceil(math.log10(high) - 1e-9),
                                                  math.floor(math.log10(low)) + 1)


def plot(title, x_label, y_label, lines, path):
    """`lines`: name -> [(x, y)], drawn on logarithmic axes with the names at their right ends."""
    points = [point for line in lines.values() for point in line if point[1] > 0]
    (x_low, x_high), (y_low, y_high) = axis([x for x, _ in points]), axis([y for _, y in points])
    x_of = lambda x: LEFT + (math.log10(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
    y_of = lambda y: HEIGHT - BOTTOM - (math.log10(y) - y_low) / (y_high - y_low) \
        * (HEIGHT - TOP - BOTTOM)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{title}</text>']
    for power in range(x_low, x_high + 1):
        x = x_of(10 ** power)
        svg.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" '
                   'stroke="#e4e4e4"/>')
        svg.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                   f'{tick_label(power)}</text>')
    for power in range(y_low, y_high + 1):
        y = y_of(10 ** power)
        svg.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" '
                   'stroke="#e4e4e4"/>')
        svg.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                   f'{tick_label(power)}</text>')
    svg.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
               f'{x_label}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    svg.append(f'<text x="18" y="{middle}" text-anchor="middle" '
               f'transform="rotate(-90 18 {middle})">{y_label}</text>')
    ends = []
    for name, line in lines.items():
        line = [(x_of(x), y_of(y)) for x, y in sorted(line) if y > 0]
        colour, width = COLOURS.get(name, "#000000"), 3 if name == "block-wheel" else 1.6
        dash = ' stroke-dasharray="5 3"' if is_peer(name) else ""
        path_data = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        svg.append(f'<polyline points="{path_data}" fill="none" stroke="{colour}" '
                   f'stroke-width="{width}"{dash}/>')
        svg += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width}" fill="{colour}"/>'
                for x, y in line]
        ends.append([line[-1][1], line[-1][0], name, colour])
    # Names may not lie on each other: from top to bottom each is pushed below the last.
    ends.sort()
    lowest = TOP - 14.0
    for end in ends:
        end.append(max(end[0], lowest + 14))
        lowest = end[4]
    for y, x, name, colour, text_y in ends:
        text_x = WIDTH - RIGHT + 14
        svg.append(f'<line x1="{x + 3:.1f}" y1="{y:.1f}" x2="{text_x - 3}" y2="{text_y:.1f}" '
                   f'stroke="{colour}" stroke-width="0.6"/>')
        weight = ' font-weight="bold"' if name == "block-wheel" else ""
        svg.append(f'<text x="{text_x}" y="{text_y + 4:.1f}" fill="{colour}"{weight}>{name}</text>')
    svg.append("</svg>")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write("\n".join(svg) + "\n")


def tick_label(power):
    names = {-4: "0.0001", -3: "0.001", -2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1k",
             4: "10k", 5: "100k", 6: "1M", 7: "10M", 8: "100M"}
    return names.get(power, f"1e{power}")


def lines_over(rows, scenarios, column):
    lines = {}
    for x, scenario in scenarios:
        for name, group in select(rows, **scenario).items():
            if "/" not in name:
                lines.setdefault(name, []).append((x, group.median(column)))
    return lines


SESSIONS = [(1_000, dict(sessions="1000", expiring_ppm="1000")), (10_000, dict(sessions="10000")),
            (100_000, dict(sessions="100000")), (1_000_000, {}),
            (10_000_000, dict(sessions="10000000"))]
TIMEOUTS = [(16, dict(timeout="16", gap_min="4", gap_max="5")), (240, {}),
            (4_096, dict(timeout="4096", gap_min="1040", gap_max="1365", expiring_ppm="10")),
            (65_000, dict(timeout="65000", gap_min="16500", gap_max="21600", expiring_ppm="1"))]
EXPIRING = dict(timeout="60", gap_min="15", gap_max="20", expiring_ppm="10000")
MATRICES = {
    "sessions": [("1k", SESSIONS[0][1]), ("10k", SESSIONS[1][1]), ("100k", SESSIONS[2][1]),
                 ("1M", {}), ("10M", SESSIONS[4][1])],
    "timeout": [("16", TIMEOUTS[0][1]), ("240", {}), ("4,096", TIMEOUTS[2][1]),
                ("65,000", TIMEOUTS[3][1])],
    "gap": [("1.1", dict(gap_min="180", gap_max="218")), ("2", dict(gap_min="90", gap_max="120")),
            ("3", {}), ("10", dict(gap_min="18", gap_max="24"))],
    "other": [("nobody expires", dict(expiring_ppm="0")), ("0.01 %", {}), ("1 %", EXPIRING),
              ("in step", dict(phase="synchronised")),
              ("mass connect", dict(phase="connect", expiring_ppm="0")),
              ("sequential", dict(order="sequential")), ("evicted", dict(cache="evicted"))],
}


def render(rows, counts, document, plots):
    tables = {"reference": table(select(rows)), "evicted": table(select(rows, cache="evicted")),
              "nobody": table(select(rows, expiring_ppm="0")), "mass": mass_table(rows),
              "instructions": instruction_table(counts), "provenance": provenance(rows)}
    tables |= {name: matrix(rows, scenarios) for name, scenarios in MATRICES.items()}
    with open(document) as file:
        text = file.read()
    for name, lines in tables.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        body = "\n".join(lines)
        text = re.sub(pattern, lambda found: f"{found[1]}{body}\n{found[2]}", text, flags=re.S)
    with open(document, "w") as file:
        file.write(text)
    plot("Touch and sweep together", "sessions", "ns per session and second",
         lines_over(rows, SESSIONS, TOTAL), os.path.join(plots, "total-by-sessions.svg"))
    plot("One tick's sweep, mean", "sessions", "us",
         lines_over(rows, SESSIONS, "tick_us_mean"), os.path.join(plots, "tick-by-sessions.svg"))
    plot("One touch", "sessions", "ns",
         lines_over(rows, SESSIONS, "touch_ns"), os.path.join(plots, "touch-by-sessions.svg"))
    plot("Touch and sweep together, 1M sessions", "ticks to a timeout",
         "ns per session and second",
         lines_over(rows, TIMEOUTS, TOTAL), os.path.join(plots, "total-by-timeout.svg"))
