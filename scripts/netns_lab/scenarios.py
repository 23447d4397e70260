"""Each scenario: what is done, what the server promises, what is measured."""

import contextlib
import math
import resource
import signal
import time

from .network import DOOMED_IP
from .programs import Well, established
from .stage import TROUBLE_S, WARMUP_S, Scenario, Times

DOOMED = 1_000
# The storms: the first rate is the one wanted; where it is too much for a machine that holds both
# ends and the attacker, the next is tried. The last is promised.
STORM = (50_000, 20_000, 10_000, 5_000, 2_500)
PROBES = (10_000, 5_000, 2_500, 1_000)
SHORT = Times(interval_s=3, idle_s=6)
DEATH = Times(interval_s=10, idle_s=20)
PAUSE_S = 3 * SHORT.idle_s
CUT_S = 8
CROWD, STOP_S = 12_000, 1
RLIMIT_NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
AFTER_S = 3  # kept free at the end of the steady state, to see newcomers let in again


# What is done.

def hostile(kind, connections=200, burst=1, newcomers=False, more=()):
    """Trouble that examples/hostile makes, and maybe good clients that come meanwhile."""
    def make(stage):
        attack = stage.hostile(kind, connections, burst, more=more)
        fresh = stage.newcomers() if newcomers else None
        account = attack.account()
        return {**account, "newcomers": fresh and fresh.account()}
    return make


def until_there_is_a_place(kind, connections, burst=1, more=()):
    """Trouble that ends in time to see newcomers let in again."""
    def make(stage):
        attack = stage.hostile(kind, connections, burst, TROUBLE_S - AFTER_S, more=more)
        account = attack.account()
        return {**account, "place_after_s": stage.wait_for_a_place()}
    return make


def calm(_stage):
    time.sleep(TROUBLE_S)
    return {}


def vanish(cut):
    """A thousand clients vanish without a FIN, by `cut`."""
    def make(stage):
        lab, server = stage.lab, stage.server
        doomed = Well(lab, stage.binaries, stage.folder, DOOMED, DEATH, lab.doomed, "doomed",
                      f"{DOOMED_IP}-{DOOMED_IP}", seconds=300, rate="5k")
        doomed.wait_until_open(server, stage.connections + DOOMED)
        time.sleep(1)
        with cut(lab):
            begun = time.monotonic()
            expired, took = 0, 0.0
            while expired < DOOMED and took < DEATH.idle_s + 5:
                time.sleep(0.05)
                took = time.monotonic() - begun
                expired = server.stats()["closed"].get("expired", 0)
            known = established(lab)
            doomed.child.kill()
            doomed.child.wait()
        return {"expired": expired, "took_s": took, "established": known}
    return make


def drop(lab):
    return lab.dropping(lab.doomed, DOOMED_IP)


@contextlib.contextmanager
def pull(lab):
    lab.pull_cable()
    try:
        yield
    finally:
        lab.plug_cable()


def partition(stage):
    time.sleep(WARMUP_S + 1)
    with stage.lab.dropping(stage.lab.clients, "10.83.1.0/24"):
        time.sleep(CUT_S)
    return {}


def pause(stage):
    time.sleep(WARMUP_S + 1)
    stage.server.signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)
    stage.server.signal(signal.SIGCONT)
    return {}


def crowd_at_once(stage):
    """12,000 at a time, while the server stands still for a second: it finds all of them at once."""
    attack = stage.hostile("mute", CROWD, CROWD, TROUBLE_S - AFTER_S)
    begun = time.monotonic()
    for crowd_s in (CROWD / stage.rate, 2 * CROWD / stage.rate):
        time.sleep(max(0, begun + crowd_s - 0.2 - time.monotonic()))
        stage.server.signal(signal.SIGSTOP)
        time.sleep(STOP_S)
        stage.server.signal(signal.SIGCONT)
    account = attack.account()
    return {**account, "place_after_s": stage.wait_for_a_place()}


def no_descriptors(stage):
    """The server has no descriptor left for whoever comes, and later it has."""
    with stage.server.out_of_descriptors():
        account = stage.hostile("newcomer", 1_000, 1, TROUBLE_S - AFTER_S).account()
    return {**account, "place_after_s": stage.wait_for_a_place()}


def restart(stage):
    time.sleep(WARMUP_S + 2)
    down_s = stage.server.kill_and_restart()
    begun = time.monotonic() - down_s
    while stage.server.open() < stage.connections and time.monotonic() - begun < 60:
        time.sleep(0.1)
    return {"down_s": down_s, "back_s": time.monotonic() - begun}


# How it is judged: each gives whether it was kept, and what was measured.

def both(*judges):
    def judge(found):
        verdicts = [one(found) for one in judges]
        return all(kept for kept, _ in verdicts), ", ".join(text for _, text in verdicts if text)
    return judge


def closed_for(*reasons):
    def judge(found):
        count = found.closed(*reasons)
        return count > 0, f"{count:,} closed as {' or '.join(reasons)}"
    return judge


def lived(least_ms, most_ms):
    """How long those lived whom the server closed; and nobody has been left open for longer."""
    def judge(found):
        times = found.account["lived_ms"] or {"min": math.nan, "max": math.nan}
        oldest_ms = (found.account["still_open_ms"] or {"max": 0})["max"]
        kept = least_ms <= times["min"] and max(times["max"], oldest_ms) <= most_ms
        left = f", one is open after {oldest_ms:,.0f}" if oldest_ms > most_ms else ""
        return kept, f"after {times['min']:,.0f} to {times['max']:,.0f} ms{left}"
    return judge


def silent(found):
    count = found.account["bytes_received"]
    return count == 0, "" if count == 0 else f"{count:,} bytes answered"


def nobody_ended(found):
    count = found.account["ended_by_server"]
    return count == 0, "none closed" if count == 0 else f"{count:,} closed"


def rate_of(name, what):
    return lambda found: (found.account[name] > 0, f"{found.per_s(name):,.0f} {what}/s")


def accounted(found):
    """The server has accepted whoever was connected, but for those whom a full queue turned away."""
    fresh = (found.account["newcomers"] or {"connected": 0})["connected"]
    accepted = found.stats["accepted"] - found.stage.connections - fresh
    lost = found.account["connected"] - accepted
    overflows = found.tcp["ListenOverflows"]
    kept = -found.account["waiting"] <= lost <= overflows
    return kept, f"{accepted:,} accepted, {overflows:,} overflows"


def unseen(found):
    """Half-open connections do not reach the server."""
    fresh = found.account["newcomers"]["connected"]
    accepted = found.stats["accepted"] - found.stage.connections - fresh
    return accepted == 0, f"{accepted:,} reached the server"


def all_let_in(most_s):
    def judge(found):
        account = found.account
        slowest_ms = (account["answer_ms"] or {"max": math.inf})["max"]
        kept = account["answered"] == account["connected"] and slowest_ms <= 1e3 * most_s \
            and not account["waiting"] and found.tcp["ListenOverflows"] > 0
        return kept, (f"{found.tcp['ListenOverflows']:,} overflows, {account['answered']:,} of "
                      f"{account['connected'] + account['waiting']:,} let in, "
                      f"within {slowest_ms:,.0f} ms")
    return judge


def place_again(most_s):
    def judge(found):
        took = found.account["place_after_s"]
        return took <= most_s, f"newcomers let in again after {took:.1f} s"
    return judge


def refused(*reasons):
    def judge(found):
        by_reason = found.stats["rejected"]
        count = sum(by_reason.get(reason, 0) for reason in reasons)
        return count > 0, f"{count:,} refused ({' or '.join(reasons)})"
    return judge


def answered_byte_by_byte(found):
    sent, received = found.account["bytes_sent"], found.account["bytes_received"]
    # Each of the 500 may have begun another one.
    kept = sent > 0 and sent // 3 - 500 <= received // 3 <= sent // 3
    kept = kept and not found.account["waiting"]
    return kept, f"{received // 3:,} heartbeats answered ({sent:,} bytes were sent)"


def queues_bounded(most_bytes):
    def judge(found):
        peak = found.watch.send_queue_bytes
        return 0 < peak <= most_bytes, f"{peak / 2**10:,.0f} KiB queued at most"
    return judge


def pongs_read(found):
    count = found.stats["pongs_received"]
    return count >= found.account["bytes_sent"] // 3, f"{count / found.account['seconds']:,.0f} PONGs/s"


def cookies(found):
    count = found.tcp["SyncookiesSent"]
    return count > 0, f"{count:,} cookies"


def table_never_full(found):
    """So few are accepted in a turn that those who are refused have left the table in the next."""
    engine, rejected = found.stats["engine"], found.stats["rejected"]
    count = rejected.get("ring_full", 0)
    return count == 0, (f"{count:,} refused by a full table, "
                        f"{engine['accepts_paused']:,} pauses of accepting")


def ran_out(found):
    """Newcomers wait in the accept queue; nobody is accepted to be dropped."""
    account, pauses = found.account, found.stats["engine"]["accepts_paused"]
    came = account["connected"]
    kept = pauses > 0 and came > 0 and not account["answered"] and not account["ended_by_server"]
    return kept, f"{pauses:,} pauses of accepting, {account['waiting']:,} of {came:,} newcomers waited"


def undisturbed(found):
    longest_s = found.report["rtt_us"]["max"] / 1e6
    return longest_s <= STOP_S + 2, f"longest round trip {longest_s:.1f} s"


def memory_bounded(found):
    """Those within may send a frame almost to its end; beyond that nothing grows."""
    within = found.account["connected"] - found.stats["rejected"].get("memory_limit", 0)
    grown = found.watch.rss_bytes - found.stage.base.rss_bytes
    most = within * 128 * 2**10 + 16 * 2**20
    return grown <= most, f"{within:,} hoarders within took {grown / 2**20:,.0f} MiB"


def expired(found):
    account = found.account
    late_ms = found.stats["expiry_lateness_ms"]["max"]
    kept = account["expired"] == DOOMED and late_ms <= 1_100 and found.stats["expired_early"] == 0
    there = account["established"] == found.stats["open"]
    return kept and there, (f"{account['expired']:,} expired, the last {account['took_s']:.1f} s "
                            f"after the cut, at most {late_ms:,.0f} ms late")


def healed(found):
    after_s = found.report["rtt_us"]["max"] / 1e6 - CUT_S
    return after_s <= 8, f"the last answer {max(after_s, 0):.1f} s after the healing at most"


def went_on(found):
    expired_ones = found.closed("expired")
    after_s = found.report["rtt_us"]["max"] / 1e6 - PAUSE_S
    kept = expired_ones == 0 and after_s <= 10
    return kept, f"{expired_ones:,} expired, the last answer {max(after_s, 0):.1f} s after it"


def came_back(found):
    account, report, wanted = found.account, found.report, found.stage.connections
    reconnect, at_end = report["reconnect"], report["connections"]["open_at_end"]
    kept = reconnect["reopened"] == reconnect["lost"] >= wanted and reconnect["away"] == 0 \
        and at_end == wanted and found.closed("expired") == 0 and account["back_s"] <= 20
    return kept, (f"ready again after {account['down_s']:.1f} s, {at_end:,} of {wanted:,} back "
                  f"after {account['back_s']:.1f} s, {found.closed('expired'):,} expired")


BASE = Scenario("calm", "no trouble: what the others are compared with", calm,
                lambda _: (True, ""), whole=False)
CALM_AGAIN = Scenario("calm-again", "the same at the end: had the machine changed?", calm,
                      lambda _: (True, ""))

ILLEGAL = "closed from its header, without an answer, within 1 s"

SCENARIOS = [
    Scenario("byte-at-a-time", "500 clients send byte by byte: all heartbeats answered, none closed",
             hostile("byte-at-a-time", 500), both(answered_byte_by_byte, nobody_ended), PROBES),
    Scenario("half-a-frame", "closed 2 s after (--frame-timeout), never earlier, at most 1 s later",
             hostile("half-a-frame", 2_000), both(closed_for("frame_timeout"), lived(2_000, 3_000)),
             (1_000,), ("--hello-timeout", "20s")),
    Scenario("mute", "closed 2 s after (--hello-timeout), never earlier, at most 1 s later",
             hostile("mute", 2_000), both(closed_for("hello_timeout"), lived(2_000, 3_000)),
             (1_000,)),
    Scenario("oversize", ILLEGAL, hostile("oversize"),
             both(closed_for("illegal_oversize"), lived(0, 1_000), silent,
                  rate_of("connected", "frames")), PROBES, ("--max-frame", "1000")),
    Scenario("zero", ILLEGAL, hostile("zero"),
             both(closed_for("illegal_length_zero"), lived(0, 1_000), silent,
                  rate_of("connected", "frames")), PROBES),
    Scenario("garbage", "64 random bytes: closed from the header, or as a frame that is not "
             "completed within 2 s (at most 1 s later)", hostile("garbage", 2_000),
             both(closed_for("illegal_kind_unknown", "illegal_payload_length", "frame_timeout",
                             "illegal_unexpected", "illegal_hello_version", "illegal_kind_zero"),
                  lived(0, 3_000), silent, rate_of("connected", "connections")), PROBES),
    Scenario("http-probe", ILLEGAL, hostile("http-probe"),
             both(closed_for("illegal_oversize", "illegal_kind_unknown"), lived(0, 1_000), silent,
                  rate_of("connected", "requests")), PROBES),
    Scenario("port-scan", "half-open probes of all ports: none reaches the server; at 2,500/s newcomers "
             "let in within 3 s", hostile("port-scan", newcomers=True),
             both(rate_of("syns", "SYNs"), unseen), STORM, newcomers_s=3),
    Scenario("connect-close", "each connection accounted for; at 2,500/s newcomers let in within 3 s",
             hostile("connect-close", 1_000, newcomers=True),
             both(rate_of("connected", "connections"), accounted), STORM, newcomers_s=3),
    Scenario("reset-storm", "each connection accounted for; at 2,500/s newcomers let in within 3 s",
             hostile("reset-storm", 1_000, newcomers=True),
             both(rate_of("connected", "resets"), accounted), STORM, newcomers_s=3),
    Scenario("never-read", "at most --send-queue (64 KiB) kept for each of 20, then closed",
             hostile("never-read", 20),
             both(closed_for("send_queue_full", "stall_timeout"), queues_bounded(20 * 64 * 2**10)),
             (4_000, 2_000), ("--echo", "--send-queue", "64KiB", "--max-frame", "8KiB")),
    Scenario("ping-flood", "400 PINGs at a time: closed at more than 16 without an answer, within 1 s",
             hostile("ping-flood", 50),
             both(closed_for("ping_flood"), lived(0, 1_000), rate_of("bytes_sent", "bytes")),
             (2_000_000, 1_000_000, 400_000, 100_000)),
    Scenario("pong-flood", "legal: all read, none closed",
             hostile("pong-flood", 50), both(pongs_read, nobody_ended),
             (2_000_000, 1_000_000, 400_000, 100_000)),
    Scenario("silent-death", f"{DOOMED:,} vanish without FIN (nft drop): all expired, never early, "
             "at most a tick and 1 s late", vanish(drop), expired, times=DEATH, steady_s=26),
    Scenario("link-down", f"the cable of {DOOMED:,} is pulled: all expired, never early, at most a "
             "tick and 1 s late", vanish(pull), expired, times=DEATH, steady_s=26),
    Scenario("partition", f"{CUT_S} s without a network: nobody lost, all answered within {CUT_S} s of "
             "the healing (TCP's own backoff)", partition, healed, whole=False, steady_s=30),
    Scenario("pause", f"SIGSTOP for {PAUSE_S} s, three timeouts: nobody expired, all answered within "
             "10 s", pause, went_on, times=SHORT, whole=False, steady_s=PAUSE_S + 14),
    Scenario("restart", "SIGKILL and start: all back within 20 s of the kill, nobody expired",
             restart, came_back, whole=False, lossy=True, steady_s=30,
             more=("--reconnect", "exp:100ms..4s,full-jitter")),
    Scenario("table-full", "newcomers refused at --max-connections, and let in again within 2 s",
             until_there_is_a_place("mute", 2_000),
             both(refused("max_connections"), place_again(2)), PROBES[1:],
             ("--max-connections", "{capacity}")),
    Scenario("descriptors", f"{CROWD:,} at once on rings whose tables (RLIMIT_NOFILE) are nearly full: "
             "none is accepted to be dropped by a full table; they are let in again within 8 s (SYNs "
             "sent again); the others are answered within 2 s", crowd_at_once,
             both(table_never_full, refused("max_connections"), undisturbed, place_again(8)),
             (3_000,), ("--rings-per-shard", "2"), whole=False, scarce_descriptors=True),
    Scenario("no-descriptors", "--engine epoll, and RLIMIT_NOFILE falls to what is open: newcomers wait, "
             "none is accepted to be dropped; let in again within 2 s of its rise", no_descriptors,
             both(ran_out, place_again(2)), (200,), ("--engine", "epoll"),
             connections_max=RLIMIT_NOFILE - 2_000),
    Scenario("accept-queue", "300 at once on accept queues of 8: all let in, within 16 s (SYNs sent "
             "again)", hostile("newcomer", 2_000, 300), all_let_in(16), (150,), somaxconn=8, connect_rate="4k"),
    Scenario("syn-flood", "SYN cookies: none reaches the server; at 2,500/s newcomers let in within 3 s",
             hostile("syn-flood", newcomers=True),
             both(rate_of("syns", "SYNs"), cookies, unseen), STORM, newcomers_s=3),
    Scenario("memory-limit", "newcomers refused above --memory-limit, those within bounded by "
             "twice --max-frame, let in again within 5 s", until_there_is_a_place("hoard", 1_000),
             both(refused("memory_limit"), memory_bounded, place_again(5)), (100,),
             ("--frame-timeout", "60s", "--hello-timeout", "60s",
              "--memory-limit", "{memory_limit}")),
]
