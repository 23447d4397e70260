"""The server, the well-behaved clients, the hostile ones, and who watches them."""

import contextlib
import http.client
import json
import os
import pathlib
import resource
import shlex
import signal
import socket
import subprocess
import threading
import time

from .network import (HOSTILE_IPS, NEWCOMER_IPS, NOBODYS_IPS, PORT, TARGET, WELL_IPS)

PATIENCE_S = 60


class Broken(Exception):
    """A promise that was not kept, so that the scenario cannot go on."""


class Server:
    """A server in its namespace; its admin socket is a Unix socket, which namespaces do not divide."""

    def __init__(self, lab, binaries, folder, flags, descriptors=None):
        self.lab, self.admin = lab, f"{folder}/admin"
        self.command = [binaries / "heartwheel", "serve", "--listen", TARGET,
                        "--admin", f"unix:{self.admin}", *flags]
        if descriptors:
            self.command = ["prlimit", f"--nofile={descriptors}", *self.command]
        self.log = open(f"{folder}/server.log", "a+")
        self.child = None

    def start(self):
        self.child = self.lab.start(self.lab.server, *self.command, stdout=subprocess.PIPE,
                                    stderr=self.log)
        return bool(self.child.stdout.readline())

    def must_start(self):
        if not self.start():
            self.log.seek(0)
            raise Broken(f"{shlex.join(map(str, self.command))}: {self.log.read().strip()[-300:]}")

    def kill_and_restart(self):
        """SIGKILL, and again until it has started. How long that took."""
        begun = time.monotonic()
        self.child.kill()
        self.child.wait()
        while not self.start():
            self.child.wait()
            if time.monotonic() - begun > PATIENCE_S:
                raise Broken(f"it did not start again within {PATIENCE_S} s")
            time.sleep(0.1)
        return time.monotonic() - begun

    def stop(self):
        """SIGTERM. What of its account is wrong."""
        self.child.send_signal(signal.SIGCONT)
        self.child.terminate()
        try:
            text, _ = self.child.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return ["the server did not end"]
        if self.child.returncode != 0:
            return [f"the server ended with {self.child.returncode}"]
        return broken_laws(json.loads(text.splitlines()[-1]))

    def stats(self):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(self.admin)
        connection.request("GET", "/stats")
        return json.load(connection.getresponse())["counters"]

    def open(self):
        return self.stats()["open"]

    def rss_bytes(self):
        pages = int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @contextlib.contextmanager
    def out_of_descriptors(self):
        """For a while it may have no more descriptors (RLIMIT_NOFILE) than are open."""
        pid = self.child.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        is_open = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (is_open, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    def tcp_counters(self):
        """Those of its namespace (netstat -s)."""
        lines = pathlib.Path(f"/proc/{self.child.pid}/net/netstat").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines[:2])
        return dict(zip(names, map(int, values)))

    def signal(self, number):
        self.child.send_signal(number)


def broken_laws(document):
    laws = [law for law in document["laws"] if not law["holds"]]
    return [f"law: {law['name']} ({law['left']} against {law['right']})" for law in laws]


class Well:
    """Clients that do as they should."""

    def __init__(self, lab, binaries, folder, connections, times, namespace=None, name="well",
                 source_ips=WELL_IPS, warmup_s=0, seconds=10, rate="20k", more=()):
        self.report, self.connections = f"{folder}/{name}.json", connections
        self.child = lab.start(
            namespace or lab.clients, binaries / "loadgen", "--target", TARGET, "-c", connections,
            "--connect-rate", rate, "-i", f"{times.interval_s}s",
            "--idle-timeout", f"{times.idle_s}s", "--warmup", f"{warmup_s}s", "-d", f"{seconds}s",
            "--source-ips", source_ips, "--no-live", "-o", self.report, *more,
            stdout=subprocess.DEVNULL, stderr=open(f"{folder}/{name}.log", "w"))

    def wait_until_open(self, server, wanted=None):
        wanted, begun = wanted or self.connections, time.monotonic()
        while (found := server.open()) < wanted:
            if time.monotonic() - begun > PATIENCE_S or self.child.poll() is not None:
                raise Broken(f"{found:,} of {wanted:,} were open after "
                             f"{time.monotonic() - begun:.0f} s")
            time.sleep(0.05)

    def result(self):
        try:
            self.child.wait(300)
        except subprocess.TimeoutExpired:
            raise Broken("loadgen did not end") from None
        try:
            return json.load(open(self.report))
        except (OSError, ValueError):
            raise Broken(f"loadgen has left no report (exit {self.child.returncode})") from None


class Hostile:
    """examples/hostile, at work."""

    def __init__(self, lab, binaries, kind, seconds, rate, connections=200, burst=1, more=()):
        source_ips = {"newcomer": NEWCOMER_IPS, "syn-flood": NOBODYS_IPS}.get(kind, HOSTILE_IPS)
        self.seconds = seconds
        self.child = lab.start(
            lab.clients, binaries / "examples/hostile", TARGET, kind, "--seconds", seconds,
            "--rate", rate, "-c", connections, "--burst", burst, "--from", source_ips, *more,
            stdout=subprocess.PIPE)

    def account(self):
        try:
            text, _ = self.child.communicate(timeout=self.seconds + PATIENCE_S)
            return json.loads(text)
        except (subprocess.TimeoutExpired, ValueError):
            raise Broken(f"{self.child.args} failed") from None


class Watch:
    """Looks at server and machine while something goes on; a context manager."""

    def __init__(self, server):
        self.server, self.over = server, threading.Event()
        self.rss_bytes = self.send_queue_bytes = 0
        self.thread = threading.Thread(target=self.look_on, daemon=True)

    def __enter__(self):
        self.began = cpu_times()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        busy, total = (now - then for now, then in zip(cpu_times(), self.began))
        self.busy_percent = 100 * busy / max(total, 1)

    def look_on(self):
        while not self.over.wait(0.25):
            try:
                self.rss_bytes = max(self.rss_bytes, self.server.rss_bytes())
                queued = self.server.stats()["send_queue_bytes"]
                self.send_queue_bytes = max(self.send_queue_bytes, queued)
            except (OSError, ValueError, KeyError, IndexError):
                pass  # it stands still, or is being started again


def cpu_times():
    """Of all cores since boot: busy, and in all."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    times = list(map(int, fields))
    return sum(times) - times[3] - times[4], sum(times)


def established(lab):
    """What the kernel says of the server's connections."""
    listing = subprocess.run(
        ["ip", "netns", "exec", lab.server, "ss", "-Htn", "state", "established",
         f"sport = :{PORT}"], capture_output=True, text=True)
    return listing.stdout.count("\n")
