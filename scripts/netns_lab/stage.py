"""One scenario, played: a server, well-behaved clients, and the trouble in their steady state."""

import contextlib
import dataclasses
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

from .network import Lab, say
from .programs import Broken, Hostile, Server, Watch, Well

WARMUP_S, STEADY_S = 3, 12
# From all being open to a second after the steady state: the trouble covers all of it.
TROUBLE_S = WARMUP_S + STEADY_S + 1
# Beyond the well-behaved, for newcomers.
SPARE = 100
# Beyond them, for the doomed and the hostile.
ROOM = 5_000
P99_RATIO_MAX = 2
# Looks at what the server has read, after a flood.
READS_MAX = 20


@dataclasses.dataclass(frozen=True)
class Times:
    """How often the well-behaved beat, and when a silent client is given up."""

    interval_s: float = 10
    idle_s: float = 30

    def flags(self):
        return ["--heartbeat-interval", f"{self.interval_s}s", "--idle-timeout", f"{self.idle_s}s"]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What happens, what is promised, and how that is judged."""

    name: str
    promise: str
    # Makes the trouble; what it tells is judged by `kept`.
    trouble: Callable
    # Whether it was kept, and what was measured.
    kept: Callable
    # Of the attacker, a second: if the p99 of the others is more than doubled, or newcomers wait too
    # long, the next is tried.
    rates: tuple = (None,)
    flags: tuple = ()
    times: Times = Times()
    steady_s: float = STEADY_S
    # The network and the server are whole, so that the others must feel nothing.
    whole: bool = True
    # Newcomers that come meanwhile are let in within so many seconds.
    newcomers_s: float = 0
    # The server is killed: connections are lost, and come back.
    lossy: bool = False
    connect_rate: str = "20k"
    somaxconn: int = 65_535
    # The server's RLIMIT_NOFILE is as low as its clients allow.
    scarce_descriptors: bool = False
    # No more well-behaved clients than these.
    connections_max: float = math.inf
    more: tuple = ()


@dataclasses.dataclass
class Base:
    """What the others are compared with."""

    p99_us: float
    rss_bytes: int


@dataclasses.dataclass
class Found:
    """What came of a scenario."""

    stage: "Stage"
    account: dict
    # The server's counters when the trouble was over, and the kernel's since before it.
    stats: dict
    tcp: dict
    watch: Watch
    report: dict = None

    def closed(self, *reasons):
        return sum(self.stats["closed"].get(reason, 0) for reason in reasons)

    def per_s(self, name):
        return self.account[name] / self.account["seconds"]


@dataclasses.dataclass
class Outcome:
    """Of a scenario at one rate."""

    measured: str
    p99_us: float = 0
    busy_percent: float = 0
    faults: list = dataclasses.field(default_factory=list)
    # Only the bar of the p99 was missed, or the machine was too full to tell.
    too_much: str = ""
    rss_bytes: int = 0


class Stage:
    """What troubles are made on."""

    def __init__(self, lab: Lab, one: Scenario, options, rate, base, folder):
        self.lab, self.one, self.options = lab, one, options
        self.rate, self.base, self.folder = rate, base, folder
        self.connections = min(options.connections, one.connections_max)
        self.binaries = options.bin
        self.server = self.well = None

    def flags(self):
        rss_mib = math.ceil(self.base.rss_bytes / 2**20) if self.base else 0
        known = {"capacity": self.connections + SPARE, "memory_limit": f"{rss_mib + 16}MiB"}
        # No more than needed: more rings make more accept queues, which are emptied in one turn.
        return ["--max-connections", str(self.connections + ROOM), "--hello-timeout", "2s",
                "--frame-timeout", "2s", "--stall-timeout", "3s", *self.one.times.flags(),
                *(flag.format(**known) for flag in self.one.flags)]

    def descriptors(self):
        """What two rings a shard need for these clients, and no more (src/engine/layout.rs)."""
        if not self.one.scarce_descriptors:
            return None
        share = math.ceil((self.connections + SPARE) / (2 * len(os.sched_getaffinity(0))))
        skewed = share + 6 * math.isqrt(share) + 16
        return skewed + skewed // 32

    def hostile(self, kind, connections=200, burst=1, seconds=TROUBLE_S, rate=None, more=()):
        return Hostile(self.lab, self.binaries, kind, seconds, rate or self.rate, connections,
                       burst, more)

    def newcomers(self, seconds=TROUBLE_S):
        """Good clients that come meanwhile, 20 a second."""
        return self.hostile("newcomer", 1_000, 1, seconds, 20)

    def wait_for_a_place(self):
        """How long after the trouble it takes until a newcomer is let in."""
        begun = time.monotonic()
        while time.monotonic() - begun < 10:
            account = self.hostile("newcomer", 1, 1, 0.1, 1).account()
            if account["answered"]:
                return time.monotonic() - begun
        return math.inf

    def play(self):
        """The whole of it. What came of it, and what is wrong with the server's account."""
        one = self.one
        self.lab.sysctl(self.lab.server, "net.core.somaxconn", one.somaxconn)
        self.server = Server(self.lab, self.binaries, self.folder, self.flags(), self.descriptors())
        self.server.must_start()
        self.well = Well(self.lab, self.binaries, self.folder, self.connections, one.times,
                         warmup_s=WARMUP_S, seconds=one.steady_s, rate=one.connect_rate,
                         more=one.more)
        self.well.wait_until_open(self.server)
        tcp = self.server.tcp_counters()
        with Watch(self.server) as watch:
            account = one.trouble(self)
        stats = self.after_all_is_read()
        now = self.server.tcp_counters()
        tcp = {name: value - tcp.get(name, 0) for name, value in now.items()}
        found = Found(self, account, stats, tcp, watch)
        found.report = self.well.result()
        return found, self.server.stop()

    def after_all_is_read(self):
        """What the server says once a flood that has ended has left no queues behind."""
        before = None
        for _ in range(READS_MAX):
            time.sleep(0.3)  # the server publishes its counters every 100 ms
            stats = self.server.stats()
            if stats["pongs_received"] == before:
                break
            before = stats["pongs_received"]
        return stats


def judge(found, faults_of_server):
    """The promise of the scenario, and what is promised to the others in each."""
    one, base, report = found.stage.one, found.stage.base, found.report
    kept, measured = one.kept(found)
    p99_us = report["rtt_us"]["p99"] or 0
    if dropped := report["kernel"]["softnet_drops"]:
        # Between two namespaces they wait in netdev_max_backlog, as on loopback.
        measured += f", {dropped:,} packets dropped by this host"
    outcome = Outcome(measured, p99_us, found.watch.busy_percent, list(faults_of_server),
                      rss_bytes=found.watch.rss_bytes)
    if not kept:
        outcome.faults.append("the promise")
    if report["verdict"] == "void":
        outcome.too_much = "the machine was too full: " + "; ".join(report["reasons"])
    elif not one.lossy:
        closed = sum(report["connections"]["closed_by_server"].values())
        counts = ((report["expiry"]["false"], "false expiries"), (closed, "closed"),
                  (report["heartbeats"]["missing"], "heartbeats without an answer"))
        outcome.faults += [f"{count:,} {what}" for count, what in counts if count]
        outcome.faults += report["reasons"]
    if one.newcomers_s:
        served, text = newcomers(found.account["newcomers"], one.newcomers_s)
        outcome.measured += ", " + text
        if not served:
            outcome.too_much = outcome.too_much or "newcomers waited too long"
    limit_us = P99_RATIO_MAX * base.p99_us if one.whole and base else math.inf
    if p99_us > limit_us:
        ratio = p99_us / base.p99_us
        outcome.too_much = outcome.too_much or f"p99 {ratio:.1f} times that of the calm"
    if found.stage.options.lax:
        outcome.too_much = ""
    return outcome


def newcomers(account, most_s):
    """Whether all who came were answered in time, and how many were."""
    slowest_ms = (account["answer_ms"] or {"max": math.inf})["max"]
    tried = account["connected"] + account["failed"] + account["waiting"]
    served = 0 < tried == account["answered"] and slowest_ms <= 1e3 * most_s
    return served, (f"{account['answered']:,} of {tried:,} newcomers let in, within "
                    f"{slowest_ms:,.0f} ms")


def play(lab, one, options, rate, base):
    """A scenario at one rate."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.callback(lab.kill_all)
        stage = Stage(lab, one, options, rate, base, folder)
        try:
            return judge(*stage.play())
        except (Broken, OSError) as broken:
            if options.keep:
                keep = pathlib.Path(options.keep) / one.name
                keep.mkdir(parents=True, exist_ok=True)
                for log in pathlib.Path(folder).glob("*.log"):
                    (keep / log.name).write_text(log.read_text())
            return Outcome("", faults=[str(broken) or repr(broken)])


def play_at_all_rates(lab, one, options, base):
    """From the highest rate down to the one that leaves the others undisturbed."""
    steps = []
    for rate in one.rates:
        outcome = play(lab, one, options, rate, base)
        steps.append(outcome)
        verdict = "; ".join(outcome.faults) or outcome.too_much or "kept"
        at = f" at {rate:,}/s" if rate else ""
        say(f"      {one.name}{at}: {outcome.measured}; p99 {outcome.p99_us / 1e3:.1f} ms, "
            f"CPU {outcome.busy_percent:.0f} %: {verdict}")
        if outcome.faults or not outcome.too_much:
            break
    last = steps[-1]
    if last.too_much and not last.faults:
        last.faults.append(last.too_much)
    before = [f"{step.measured} (p99 {step.p99_us / 1e3:.1f} ms, CPU {step.busy_percent:.0f} %)"
              for step in steps[:-1]]
    last.measured = "; then ".join([*before, last.measured])
    return last
