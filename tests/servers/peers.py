"""Servers that others wrote, as scripts/test-servers and scripts/eviction-table start them.

Each is a context manager with `port` and `pid`; at the end of its block it is stopped by its pid.
Nothing is installed unless it is asked for, and then packages by apt and npm only.
"""

import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
READY_WITHIN_S = 20
DESCRIPTORS = 20_000

# What is needed, by which command it is found, and what installs it.
TOOLS = {
    "mosquitto": "apt-get install mosquitto",
    "nginx": "apt-get install nginx-light",
    "redis-server": "apt-get install redis-server",
    "node": "apt-get install nodejs npm",
    "ws": "npm install ws@8",
}


def program(name, profile):
    """One of ours."""
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return str(pathlib.Path(target) / profile / name)


def which(tool):
    return shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Toolbox:
    """What is there, in a folder of its own that goes away with it."""

    def __init__(self, work, install):
        self.work = pathlib.Path(work)
        if install:
            self.install()

    def install(self):
        wanted = [cure.split()[2] for tool, cure in TOOLS.items()
                  if cure.startswith("apt-get") and not which(tool)]
        if wanted and os.geteuid() == 0 and which("apt-get"):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 300,
                     "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
            subprocess.run(["apt-get", "-qq", "update"], **quiet)
            subprocess.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *wanted],
                           **quiet)
        if which("npm") and not self.has("ws"):
            subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund",
                            "--no-package-lock", "ws@8"], cwd=self.work, timeout=120,
                           stdout=subprocess.DEVNULL)

    def has(self, tool):
        if tool != "ws":
            return which(tool) is not None
        if not which("node"):
            return False
        asked = subprocess.run(["node", "-e", "require.resolve('ws')"], cwd=self.work,
                               capture_output=True)
        return asked.returncode == 0

    def absent(self, tools):
        """What of these is not there, and how to get it."""
        return [f"{tool} is absent: {TOOLS[tool]}, or --install" for tool in tools
                if not self.has(tool)]


def free_port():
    """Below the range that clients are given ports of, if this user may listen there."""
    for _ in range(100):
        port = random.randrange(500, 1000) if os.geteuid() == 0 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise SystemExit("no free port on 127.0.0.1")


class Peer:
    """A server that runs."""

    def __init__(self, command, port=None, cwd=None):
        self.log = open(pathlib.Path(cwd) / "log", "a+") if cwd else subprocess.DEVNULL
        self.child = subprocess.Popen([str(word) for word in command], cwd=cwd, text=True,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=self.log)
        self.port = port
        self.pid = self.child.pid
        self.last_words = ""

    def __enter__(self):
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and self.child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.child.args[0]} did not get ready: {self.complaint()}")

    def complaint(self):
        if self.log == subprocess.DEVNULL:
            return ""
        self.log.seek(0)
        return self.log.read()[-1000:]

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.last_words, _ = self.child.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()


class Announcing(Peer):
    """One that says in a line of JSON where it listens."""

    def wait_until_ready(self):
        readable, _, _ = select.select([self.child.stdout], [], [], READY_WITHIN_S)
        line = self.child.stdout.readline() if readable else ""
        if not line:
            raise SystemExit(f"{self.child.args[0]} did not get ready: {self.complaint()}")
        self.ready = json.loads(line)
        self.port = self.ready.get("port")


def folder(toolbox, name):
    path = toolbox.work / name
    path.mkdir(exist_ok=True)
    return path


def mosquitto(toolbox, more=""):
    port, work = free_port(), folder(toolbox, "mosquitto")
    user = "user root\n" if os.geteuid() == 0 else ""
    (work / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        f"log_dest none\nset_tcp_nodelay true\n{user}{more}")
    return Peer([which("mosquitto"), "-c", work / "mosquitto.conf"], port, work)


def redis(toolbox, timeout_s):
    port, work = free_port(), folder(toolbox, "redis")
    return Peer([which("redis-server"), "--port", port, "--bind", "127.0.0.1",
                 # Clients come from all over 127.0.0.0/8.
                 "--protected-mode", "no", "--save", "", "--appendonly", "no", "--timeout", timeout_s, "--tcp-keepalive", 0,
                 "--logfile", work / "redis.log"], port, work)


def ws(toolbox, interval_ms, answer="pong"):
    return Announcing(["node", ROOT / "tests/servers/ws.mjs", interval_ms, answer],
                      cwd=toolbox.work)


def nginx(toolbox, timeout_s, upstream):
    """Idle connections are closed after `timeout_s`: of HTTP by keepalive_timeout, and WebSockets
    to `upstream` by proxy_read_timeout."""
    port, work = free_port(), folder(toolbox, "nginx")
    user = "user root;" if os.geteuid() == 0 else ""
    (work / "nginx.conf").write_text(f"""
daemon off; {user}
pid {work}/pid; error_log stderr warn;
worker_processes 1; worker_rlimit_nofile {DESCRIPTORS};
events {{ worker_connections {DESCRIPTORS - 100}; }}
http {{
    access_log off;
    client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_timeout {timeout_s}s; keepalive_requests 1000000;
        location / {{ return 204; }}
        location /ws {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout {timeout_s}s;
        }}
    }}
}}
""")
    return Peer([which("nginx"), "-p", work, "-c", work / "nginx.conf"], port, work)


def heartwheel(program, listen, idle_timeout, interval, connections, *more):
    """Where it listens stands in `ready`."""
    return Announcing([program, "serve", "--listen", listen, "--admin", "off",
                       "--max-connections", connections, "--idle-timeout", idle_timeout,
                       "--heartbeat-interval", interval, *more])
