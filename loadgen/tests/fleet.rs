//! `scripts/fleet`: the recipes as a user runs them, with network namespaces as hosts, and the pods
//! of the Kubernetes job as processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

#[path = "generator/files.rs"]
mod files;
mod rogue;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use files::{Folder, again_while_void};
use rogue::{Manners, serve};
use serde_json::{Value, json};

/// Several generators at once are enough for a small machine.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scripts/fleet").join(name)
}

fn is_there(program: &str, flag: &str) -> bool {
    let run = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

#[test]
fn namespaces_play_a_plan_as_hosts_do() {
    let bin = Path::new(env!("CARGO_BIN_EXE_loadgen")).parent().unwrap();
    let root = rustix::process::geteuid().is_root();
    let makes_namespaces = is_there("unshare", "--version")
        && Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|it| it.success());
    let has = root && makes_namespaces && is_there("ip", "-V") && is_there("python3", "--version");
    if !has || !bin.join("heartwheel").exists() {
        eprintln!("NOT TESTED: needs root, ip, unshare, python3 and `cargo build`");
        return;
    }
    let folder = Folder::new();
    let _turn = turn();
    let mut command = Command::new(script("try-in-namespaces"));
    command.args(["-c", "300", "--connect-rate", "300", "--hosts", "2", "--bin"]).arg(bin);
    command.arg("--out").arg(folder.path());
    let is_void = |output: &Output| String::from_utf8_lossy(&output.stdout).contains("exit 101");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut names = Vec::new();
    let output = again_while_void(is_void, || {
        let child = command.spawn().unwrap();
        names.push(format!("hwf-{}-", child.id()));
        child.wait_with_output().unwrap()
    });
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{out} {err}");
    assert!(out.contains("equal    silenced and silent by the plan: 15, 15"), "{out}");
    assert!(out.contains("equal    opened here and by the server: 300, 300"), "{out}");
    assert!(!out.contains("UNEQUAL"), "{out}");
    for left in ["report.json", "report.html", "log.hdr", "part-2.json", "part-2.hdr"] {
        assert!(folder.path().join(left).exists(), "{left}");
    }
    let list = Command::new("ip").arg("netns").output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(!names.iter().any(|name| list.contains(name)), "nothing is left behind: {list}");
}

fn manifest() -> Value {
    serde_norway::from_str(&fs::read_to_string(script("job.yaml")).unwrap()).unwrap()
}

#[test]
fn the_job_is_an_indexed_job_whose_numbers_agree() {
    let job = manifest();
    assert_eq!((&job["apiVersion"], &job["kind"]), (&json!("batch/v1"), &json!("Job")));
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(spec["parallelism"], spec["completions"], "a part that waits misses the start");
    assert_eq!(spec["backoffLimit"], 0);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Never");
    let environment = pod["containers"][0]["env"].as_array().unwrap();
    let parts = environment.iter().find(|variable| variable["name"] == "PARTS").unwrap();
    assert_eq!(parts["value"], spec["completions"].to_string());
}

#[test]
fn the_pods_of_the_job_play_their_parts() {
    let job = manifest();
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let words: Vec<&str> = ["command", "args"]
        .iter()
        .flat_map(|name| container[name].as_array().unwrap())
        .map(|word| word.as_str().unwrap())
        .collect();
    let parts = job["spec"]["completions"].as_u64().unwrap();
    let folder = Folder::new();
    let _turn = turn();
    let bin = Path::new(env!("CARGO_BIN_EXE_loadgen"));
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let play = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let address = serve(Manners::GOOD);
        let pods: Vec<_> = (0..parts)
            .map(|index| {
                let log = fs::File::create(folder.path().join(format!("pod-{index}"))).unwrap();
                // A pod's log is both of its outputs.
                Command::new(words[0])
                    .args(&words[1..])
                    .env("PATH", &path)
                    .env("TMPDIR", folder.path())
                    .env("JOB_COMPLETION_INDEX", index.to_string())
                    .env("PARTS", parts.to_string())
                    .env("START_AT", (now + 3).to_string())
                    .env("FLAGS", format!("--target tcp://{address} -c 40 --silent 10% -d 1s"))
                    .stdout(log.try_clone().unwrap())
                    .stderr(log)
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut pod in pods {
            assert!(pod.wait().unwrap().success());
        }
    };
    let gather = |parts: u64| {
        let mut command = Command::new(script("gather-from-job"));
        command.args(["--parts", &parts.to_string(), "--logs", "cat pod-$INDEX", "--bin"]).arg(bin);
        command.current_dir(folder.path()).output().unwrap()
    };
    let is_void = |output: &Output| output.status.code() == Some(101);
    let output = again_while_void(is_void, || {
        play();
        gather(parts)
    });
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{out} {err}");
    assert!(out.contains("PASSED: 40 of 40 clients open, 4 of 4 silent ones expired"), "{out}");
    assert!(folder.path().join("fleet/log.hdr").exists());
    let output = gather(parts + 1);
    assert_eq!(output.status.code(), Some(1));
}
