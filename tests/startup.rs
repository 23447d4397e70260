//! What a user sees when the server cannot start: one clear line that names the cure.
#![expect(unsafe_code, reason = "a seccomp filter is installed between fork and exec")]

mod common;

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use common::Server;

fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.arg("serve").args(flags);
    command
}

/// The one line on standard error; nothing may have been printed on standard output.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(output.stdout.is_empty(), "no ready line: {}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    text
}

#[test]
fn flags_that_cannot_work_are_refused_with_the_cure() {
    let cases: [(&[&str], &str); 14] = [
        (&["--sweep", "magic"], "block-wheel"),
        (&["--engine", "windows"], "uring"),
        (&["--heartbeat-interval", "90s", "--idle-timeout", "60s"], "three intervals"),
        (&["--idle-timeout", "50ms", "--heartbeat-interval", "10ms"], "tick"),
        (&["--tick", "10us"], "at least"),
        (&["--server-ping", "--heartbeat-interval", "60s", "--idle-timeout", "60200ms"], "PONG"),
        (&["--listen", "127.0.0.1:7400"], "tcp://"),
        (&["--listen", "tcp://localhost"], "IP address"),
        (&["--keepalive", "1h"], "IDLE,INTERVAL,COUNT"),
        (&["--admin", "0.0.0.0:7480"], "--admin-public"),
        (&["--admin", "nowhere"], "unix:PATH"),
        (&["--shards", "0"], "1 to 256"),
        (&["--max-frame", "0"], "at least 1"),
        (&["--config", "/nonexistent.toml"], "No such file"),
    ];
    for (flags, cure) in cases {
        let output = serve(flags).output().expect("it runs");
        let text = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert!(text.contains(cure), "{flags:?}: {text}");
    }
}

/// What clients may ask for, and who is let in.
#[test]
fn a_policy_that_contradicts_itself_is_refused_with_the_cure() {
    let short = std::env::temp_dir().join(format!("heartwheel-short-{}", std::process::id()));
    std::fs::write(&short, "a key of this test\nshort\n").expect("written");
    let empty = short.with_extension("empty");
    std::fs::write(&empty, "\n\n").expect("written");
    let (short_path, empty_path) = (short.to_str().expect("plain"), empty.to_str().expect("plain"));
    let cases: [(&[&str], &str); 18] = [
        (&["--heartbeat-min", "5s", "--heartbeat-max", "4s"], "above --heartbeat-max"),
        (&["--heartbeat-min", "0s"], "1ms"),
        (&["--heartbeat-min", "31s"], "between"),
        (&["--heartbeat-max", "29s"], "between"),
        (&["--heartbeat-max", "1000h", "--timeout-factor", "2"], "lower one"),
        (&["--heartbeat-max", "500000000000y", "--timeout-factor", "1000"], "lower one"),
        (&["--timeout-factor", "1"], "3 is usual"),
        (&["--timeout-factor", "0.5"], "3 is usual"),
        (&["--timeout-factor", "nan"], "3 is usual"),
        (&["--max-per-ip", "0"], "leave the flag away"),
        (&["--accept-rate", "0"], "leave the flag away"),
        (&["--accept-burst", "5"], "--accept-rate"),
        (&["--proxy-from", "10.0.0.1/8"], "bits are set"),
        (&["--proxy-from", "10.0.0.0/33"], "too long"),
        (&["--proxy-from", "proxy.example"], "10.0.0.0/8"),
        (&["--auth-key", "/nonexistent"], "cannot be read"),
        (&["--auth-key", short_path], "key 2"),
        (&["--auth-key", empty_path], "openssl rand"),
    ];
    for (flags, cure) in cases {
        let output = serve(flags).output().expect("it runs");
        let text = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert!(text.contains(cure), "{flags:?}: {text}");
    }
    std::fs::remove_file(short).expect("removed");
    std::fs::remove_file(empty).expect("removed");
    let low = ["--memory-limit", "1MiB", "--listen", "tcp://127.0.0.1:0", "--admin", "off"];
    let output = serve(&low).output().expect("it runs");
    let text = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("allow more"), "{text}");
}

#[test]
fn tables_that_are_too_small_name_what_made_them_so() {
    for slots in ["8", "100"] {
        let flags = ["--ring-slots", slots, "--max-connections", "1m", "--shards", "1"];
        let output = serve(&flags).output().expect("it runs");
        let text = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("--ring-slots {slots}")), "{text}");
    }
}

#[test]
fn help_lists_the_strategies_and_the_engines() {
    let output = serve(&["--help"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for strategy in heartwheel::sweep::Strategy::ALL {
        assert!(text.contains(&strategy.to_string()), "{strategy} in {text}");
    }
    for engine in heartwheel::engine::EngineKind::ALL {
        assert!(text.contains(engine.name()), "{} in {text}", engine.name());
    }
}

/// Every strategy carries a server: a silent session goes, the talkative stays.
#[test]
fn every_strategy_can_be_chosen() {
    for strategy in heartwheel::sweep::Strategy::ALL {
        let name = strategy.to_string();
        let times = ["--idle-timeout", "400ms", "--heartbeat-interval", "100ms", "--sweep", &name];
        let server = Server::start(&times);
        assert_eq!(server.ready["sweep"], name);
        let mut silent = server.connect();
        let mut talkative = server.connect();
        silent.heartbeat();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(700) {
            talkative.heartbeat();
        }
        assert_eq!(silent.receive_to_end(), b"", "{name}");
        talkative.heartbeat();
        let counters = server.stop();
        assert_eq!(common::count(&counters, &["closed", "expired"]), 1, "{name}");
    }
}

#[test]
fn a_file_sets_flags_and_the_command_line_wins() {
    let path = std::env::temp_dir().join(format!("heartwheel-{}.toml", std::process::id()));
    let file = path.to_str().expect("a plain path");
    std::fs::write(&path, "max-connections = \"2k\"\nshards = 2\nsweep = \"map-scan\"\n")
        .expect("written");
    let server = Server::start(&["--config", file]);
    assert_eq!(server.ready["capacity"], 2_000);
    assert_eq!(server.ready["sweep"], "map-scan");
    assert_eq!(server.ready["shards"], 1, "the command line says 1");
    drop(server);
    std::fs::write(&path, "max-conections = 5\n").expect("written");
    let output = serve(&["--config", file]).output().expect("it runs");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("max-conections"), "an unknown key is named: {text}");
}

#[test]
fn an_address_in_use_is_named() {
    let server = Server::start(&[]);
    let url = format!("tcp://{}", server.address);
    let output = serve(&["--listen", &url, "--admin", "off"]).output().expect("it runs");
    let text = complaint(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("in use") && text.contains(&server.address.to_string()), "{text}");
}

#[test]
fn too_low_a_descriptor_limit_is_named() {
    for (limit, connections) in [(256, "10m"), (100, "5k"), (20, "10")] {
        let mut command = serve(&["--listen", "tcp://127.0.0.1:0", "--admin", "off"]);
        command.args(["--max-connections", connections]);
        // SAFETY: setrlimit is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let output = command.output().expect("it runs");
        let text = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{limit}: {text}");
        assert!(text.contains("RLIMIT_NOFILE") && text.contains("ulimit"), "{limit}: {text}");
    }
}

#[test]
fn a_forbidden_io_uring_is_named_with_its_sysctl() {
    let forbidden = without_io_uring(libc::EPERM as u32).output().expect("it runs");
    let text = complaint(&forbidden);
    assert_eq!(forbidden.status.code(), Some(1));
    assert!(text.contains("kernel.io_uring_disabled") && text.contains("seccomp"), "{text}");
    assert!(text.contains("--engine epoll") && text.contains("--engine auto"), "{text}");
    let missing = without_io_uring(libc::ENOSYS as u32).output().expect("it runs");
    let text = complaint(&missing);
    assert!(text.contains("CONFIG_IO_URING") && text.contains("6.1"), "{text}");
}

/// As with `sysctl -w kernel.io_uring_disabled=2`, but for this one process: the kernel's answer is
/// the same EPERM, and a mount namespace shows it the sysctl's value.
#[test]
fn the_value_of_the_sysctl_is_told() {
    let shown = std::env::temp_dir().join(format!("io_uring_disabled-{}", std::process::id()));
    std::fs::write(&shown, "2\n").expect("written");
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" /proc/sys/kernel/io_uring_disabled && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&shown);
    command.arg(env!("CARGO_BIN_EXE_heartwheel")).args(["serve", "--listen", "tcp://127.0.0.1:0"]);
    command.args(["--admin", "off"]);
    forbid_io_uring(&mut command, libc::EPERM as u32);
    let output = command.output().expect("unshare runs");
    std::fs::remove_file(&shown).expect("removed");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !rustix::process::geteuid().is_root() && !text.contains("io_uring") {
        eprintln!("NOT TESTED: a mount namespace needs root: {text}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("kernel.io_uring_disabled=2"), "{text}");
}

#[test]
fn where_io_uring_is_forbidden_epoll_serves_if_asked_and_auto_by_itself() {
    for engine in ["epoll", "auto"] {
        let mut command = without_io_uring(libc::EPERM as u32);
        command.args(["--engine", engine, "--admin", "127.0.0.1:0", "--shards", "1"]);
        let server = Server::spawn(command);
        assert_eq!(server.ready["engine"], "epoll");
        server.connect().heartbeat();
        server.stop();
    }
}

#[test]
fn the_doctor_tries_io_uring_and_sees_the_filter() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.args(["doctor", "-c", "100", "--json"]);
    forbid_io_uring(&mut command, libc::EPERM as u32);
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["verdict"], "NOT ENOUGH: seccomp, io_uring");
}

/// A server whose `io_uring_setup` fails with `errno`, as under a container's seccomp filter.
fn without_io_uring(errno: u32) -> Command {
    let mut command = serve(&["--listen", "tcp://127.0.0.1:0", "--admin", "off"]);
    forbid_io_uring(&mut command, errno);
    command
}

/// Has `io_uring_setup` fail with `errno` for this command and all that it starts.
fn forbid_io_uring(command: &mut Command, errno: u32) {
    // SAFETY: prctl is async-signal-safe, and the filter lives on the stack until it is copied.
    unsafe {
        command.pre_exec(move || {
            let instruction =
                |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
            let mut filter = [
                instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
                instruction(
                    libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                    0,
                    1,
                    libc::SYS_io_uring_setup as u32,
                ),
                instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
                instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
            ];
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            let installed = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0;
            if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}
