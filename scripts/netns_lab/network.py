"""Three network namespaces: the server's, the clients', and one for clients whose cable is pulled.

    clients  hw0 ---- hw0  server  hw1 ---- hw0  doomed
"""

import contextlib
import os
import shlex
import subprocess
import sys

SERVER_IP = "10.83.0.1"
PORT = 740
TARGET = f"tcp://{SERVER_IP}:{PORT}"
# Many addresses, so that ports in TIME_WAIT never run short.
WELL_IPS = "10.83.1.1-10.83.1.16"
HOSTILE_IPS = "10.83.2.1-10.83.2.32"
NEWCOMER_IPS = "10.83.3.1-10.83.3.4"
DOOMED_IP = "10.85.0.2"
# Nobody has these: what is sent there comes to the clients' namespace, which drops it.
NOBODYS_IPS = "10.84.0.1-10.84.255.254"


class Absent(Exception):
    """Something that the lab needs."""


def run(*words, check=True):
    outcome = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if check and outcome.returncode != 0:
        raise Absent(f"{shlex.join(map(str, words))}: {outcome.stderr.strip()}")
    return outcome.stdout


def addresses(span):
    """All addresses of A-B, which differ in their last number only."""
    first, last = span.split("-")
    front, start = first.rsplit(".", 1)
    return [f"{front}.{number}" for number in range(int(start), int(last.rsplit(".", 1)[1]) + 1)]


class Lab:
    """The namespaces; gone at the end, with all that was started in them."""

    def __init__(self):
        self.server, self.clients, self.doomed = (f"hw-{os.getpid()}-{end}" for end in "scd")
        self.children = []

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill_all()
        for namespace in (self.server, self.clients, self.doomed):
            run("ip", "netns", "del", namespace, check=False)

    def build(self):
        for namespace in (self.server, self.clients, self.doomed):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        self.cable("hw0", self.clients)
        self.cable("hw1", self.doomed)
        spans = map(addresses, (WELL_IPS, HOSTILE_IPS, NEWCOMER_IPS))
        of_clients = ["10.83.0.2", *(address for span in spans for address in span)]
        self.give(self.server, "hw0", [f"{SERVER_IP}/16"])
        self.give(self.clients, "hw0", [f"{address}/16" for address in of_clients])
        self.give(self.server, "hw1", ["10.85.0.1/24"])
        self.give(self.doomed, "hw0", [f"{DOOMED_IP}/24"])
        run("ip", "-n", self.server, "route", "add", "10.84.0.0/16", "via", "10.83.0.2")
        run("ip", "-n", self.doomed, "route", "add", "default", "via", "10.85.0.1")
        self.sysctl(self.server, "net.core.somaxconn", 65_535)
        self.sysctl(self.server, "net.ipv4.tcp_syncookies", 1)
        for namespace in (self.clients, self.doomed):
            self.sysctl(namespace, "net.ipv4.ip_local_port_range", "1024 65535")
            self.sysctl(namespace, "net.ipv4.ip_forward", 0)
            # Those who close without end must not use the ports up.
            self.sysctl(namespace, "net.ipv4.tcp_max_tw_buckets", 20_000)

    def cable(self, name, namespace):
        run("ip", "link", "add", name, "netns", self.server, "type", "veth",
            "peer", "name", "hw0", "netns", namespace)

    def give(self, namespace, device, all_addresses):
        run("ip", "-n", namespace, "link", "set", device, "up")
        for address in all_addresses:
            run("ip", "-n", namespace, "address", "add", address, "dev", device)

    def sysctl(self, namespace, name, value):
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", f"{name}={value}")

    def start(self, namespace, *words, **pipes):
        # `ip netns exec` becomes the program itself: it is our own child.
        command = ["ip", "netns", "exec", namespace, *map(str, words)]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, **pipes)
        self.children.append(child)
        return child

    def kill_all(self):
        """Ends whatever a scenario has left behind."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        self.children.clear()

    @contextlib.contextmanager
    def dropping(self, namespace, addresses_there):
        """Nothing from or to these addresses of a namespace passes, and nobody is told."""
        nft = ("ip", "netns", "exec", namespace, "nft")
        run(*nft, "add table ip hw; add chain ip hw out { type filter hook output priority 0; }; "
            "add chain ip hw in { type filter hook input priority 0; }; "
            f"add rule ip hw out ip saddr {addresses_there} drop; "
            f"add rule ip hw in ip daddr {addresses_there} drop")
        try:
            yield
        finally:
            run(*nft, "delete table ip hw")

    def pull_cable(self):
        """The doomed's end of their cable is down, and so the server's."""
        run("ip", "-n", self.doomed, "link", "set", "hw0", "down")

    def plug_cable(self):
        run("ip", "-n", self.doomed, "link", "set", "hw0", "up")
        run("ip", "-n", self.doomed, "route", "replace", "default", "via", "10.85.0.1")


def say(text):
    """Progress, beside the table that goes to standard output."""
    print(text, file=sys.stderr, flush=True)
