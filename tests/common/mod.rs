//! Starting a server as a user would, and talking to it byte by byte.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Runs every case on every engine: a difference between them is a defect. With `and_by_receive:`
/// on the ring engine's other way of waiting too.
#[allow(unused_macros, reason = "each test program uses a part of it")]
macro_rules! on_every_engine {
    (and_by_receive: $($case:ident,)+) => {
        on_every_engine! { $($case,)+ }
        mod uring_by_receive {
            $(#[test] fn $case() { super::$case("uring --arming receive"); })+
        }
    };
    ($($case:ident,)+) => {
        mod uring { $(#[test] fn $case() { super::$case("uring"); })+ }
        mod tokio_uring { $(#[test] fn $case() { super::$case("tokio-uring"); })+ }
        mod epoll { $(#[test] fn $case() { super::$case("epoll"); })+ }
    };
}
#[allow(unused_imports, reason = "each test program uses a part of it")]
pub(crate) use on_every_engine;

/// A heartbeat and its reply.
pub const PING: &[u8] = &[0, 1, 3];
pub const PONG: &[u8] = &[0, 1, 4];

/// Nothing on loopback takes so long: whoever waits for it longer waits in vain.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub ready: Value,
    pub address: SocketAddr,
}

impl Server {
    /// Starts `heartwheel serve` on a free port with these flags beside.
    pub fn start(flags: &[&str]) -> Server {
        Server::start_on("uring", flags)
    }

    /// The same, on this engine, whose name may be followed by flags of its own.
    pub fn start_on(engine: &str, flags: &[&str]) -> Server {
        let (engine, tuning) = engine.split_once(' ').unwrap_or((engine, ""));
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
        command
            .args(["serve", "--listen", "tcp://127.0.0.1:0", "--shards", "1"])
            .args(["--admin", "127.0.0.1:0", "--engine", engine])
            .args(tuning.split_whitespace())
            .args(flags);
        let server = Server::spawn(command);
        assert_eq!(server.ready["engine"], engine);
        server
    }

    /// Starts it as `command` says, and waits for its ready line.
    pub fn spawn(command: Command) -> Server {
        Server::spawn_logging(command, Stdio::null())
    }

    /// The same, and its log goes there.
    pub fn spawn_logging(mut command: Command, log: Stdio) -> Server {
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the server starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the ready line");
        let ready: Value = serde_json::from_str(&line).expect("the ready line is JSON");
        assert_eq!(ready["ready"], true);
        let url = ready["listen"][0].as_str().expect("an address");
        let (_, address) = url.split_once("://").expect("a URL");
        let address = address.parse().expect("parses");
        Server { child, stdout, ready, address }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Client { stream }
    }

    /// Whether a newcomer gets an answer.
    pub fn try_heartbeat(&self) -> bool {
        let mut client = self.connect();
        let timeout = Some(Duration::from_millis(500));
        client.stream.set_read_timeout(timeout).expect("a timeout can be set");
        let mut reply = [0; 3];
        client.stream.write_all(PING).is_ok() && client.stream.read_exact(&mut reply).is_ok()
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
        rustix::process::kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// Stops the server by SIGTERM: it must exit with 0, all laws holding. Gives its counters.
    pub fn stop(self) -> Value {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits for a server that was told to stop: as `stop`.
    pub fn wait(mut self) -> Value {
        let (last, code) = self.last_words();
        for law in last["laws"].as_array().expect("laws") {
            assert_eq!(law["holds"], true, "{law} in {last:#}");
        }
        assert_eq!(code, Some(0));
        last["counters"].clone()
    }

    /// The final line of a server that was told to stop, and its exit code.
    pub fn last_words(&mut self) -> (Value, Option<i32>) {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).expect("the final line");
        let last = serde_json::from_str(&text).expect("the final line is JSON");
        (last, self.child.wait().expect("it ends").code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client on a blocking socket.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Exactly so many bytes.
    pub fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    pub fn heartbeat(&mut self) {
        self.send(PING);
        assert_eq!(self.receive(3), PONG);
    }

    /// Everything until the server closes. A reset counts as a close: it is what a close becomes
    /// when bytes were left unread.
    pub fn receive_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the server should have closed: {error}"),
        }
    }

    /// Resets the connection instead of closing it.
    pub fn reset(self) {
        let socket = socket2::Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("linger can be set");
    }
}

/// A request to the control plane: the status, and the body as JSON (null if it is none).
pub fn admin(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let address = server.ready["admin"].as_str().expect("an admin address");
    let mut stream = TcpStream::connect(address).expect("the control plane accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    // A body that is refused may not be read to its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status = status.unwrap_or_else(|| panic!("a status line: {answer:?}"));
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A counter by its path, 0 if it is absent.
pub fn count(counters: &Value, path: &[&str]) -> u64 {
    path.iter().fold(counters, |value, key| &value[key]).as_u64().unwrap_or(0)
}
