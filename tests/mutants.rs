//! Planted bugs: the simulator must catch every one of them, within a bounded number of seeds.
//!
//! `cargo test --features mutants --test mutants -- --nocapture` prints the table.
#![cfg(feature = "mutants")]

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Server;
use heartwheel::engine::simulated::simulate;
use heartwheel::mutants::{Mutant, plant};

const SEEDS_MAX: u64 = 200;
const CHAOS: Duration = Duration::from_secs(10);

/// The first seed that shows the bug, and how.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    plant(Some(mutant));
    let caught = (1..=SEEDS_MAX).find_map(|seed| {
        let violation = simulate(seed, CHAOS).err()?;
        Some((seed, violation.what))
    });
    plant(None);
    caught
}

#[test]
fn every_planted_bug_is_caught() {
    // A panic of the engine is a way to be caught, and no news.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("{:<22} {:>4}  shown by", "mutant", "seed");
    for &mutant in Mutant::ALL {
        match caught(mutant) {
            Some((seed, what)) => {
                let what: String = what.chars().take(100).collect();
                println!("{:<22} {seed:>4}  {what}", format!("{mutant:?}"));
            }
            None => {
                println!("{:<22}    -  MISSED", format!("{mutant:?}"));
                missed.push(mutant);
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught in {SEEDS_MAX} seeds: {missed:?}");
}

#[test]
fn without_a_planted_bug_the_same_seeds_pass() {
    for seed in 1..=SEEDS_MAX {
        if let Err(violation) = simulate(seed, CHAOS) {
            panic!("seed {seed}: {violation}");
        }
    }
}

/// A server that has counted wrong says so, by its exit code too, and names both sides.
#[test]
fn a_server_whose_laws_are_broken_exits_with_1() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--shards", "1", "--admin", "off"]);
    command.env("HEARTWHEEL_MUTANT", "OpenedNotCounted");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken-law.log");
    let log = File::create(&file).expect("the log can be written");
    let mut server = Server::spawn_logging(command, Stdio::from(log));
    let mut client = server.connect();
    client.heartbeat();
    server.signal(libc::SIGTERM);
    let (last, code) = server.last_words();
    assert_eq!(code, Some(1), "{last:#}");
    let laws = last["laws"].as_array().expect("laws");
    let broken = laws.iter().find(|law| law["holds"] == false).expect("a broken law");
    let named = &broken["name"];
    assert_eq!(*named, "accepted = opened + rejected");
    assert_eq!((&broken["left"], &broken["right"]), (&1.into(), &0.into()));
    assert_eq!(last["shards"][0]["laws"][0], *broken, "its shard is named too");
    let told = fs::read_to_string(file).expect("the log");
    assert!(told.contains("shard 0: accepted = opened + rejected: 1 against 0"), "{told}");
}
