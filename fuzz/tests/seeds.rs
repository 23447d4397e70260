//! The committed seeds, through the same checks as the fuzzer's inputs.

use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let files = std::fs::read_dir(&folder).expect("there are seeds");
    let mut count = 0;
    for file in files {
        let path = file.expect("readable").path();
        let bytes = std::fs::read(&path).expect("readable");
        println!("{}", path.display());
        check(&bytes);
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn tcp_frames() {
    run("tcp_frames", heartwheel_fuzz::tcp_frames::check);
}

#[test]
fn http_upgrade() {
    run("http_upgrade", heartwheel_fuzz::http_upgrade::check);
}

#[test]
fn websocket() {
    run("websocket", heartwheel_fuzz::websocket::check);
}

#[test]
fn shard() {
    run("shard", heartwheel_fuzz::shard::check);
}

#[test]
fn service() {
    run("service", heartwheel_fuzz::service::check);
}

#[test]
fn proxy() {
    run("proxy", heartwheel_fuzz::proxy::check);
}

#[test]
fn tickets() {
    run("tickets", heartwheel_fuzz::tickets::check);
}
