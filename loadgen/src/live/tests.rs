//! What is drawn of which state, on which terminal: contents, not colours.

use std::time::Duration;

use heartwheel::time::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::model::{Card, Look, Model};
use super::panes::Theme;
use super::screen;
use super::watch::{Counters, Says, Seen};
use crate::detail::{Detail, Glimpse};
use crate::host::process::ProcessSample;
use crate::report::Law;
use crate::run::Baseline;
use crate::scenario::{Event, Kind};
use crate::series::{BUCKETS, Buckets};
use crate::slo;
use crate::stats::Snapshot;

const MIB: u64 = 1 << 20;

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn card() -> Card {
    let idle = ProcessSample { cpu: Duration::ZERO, rss_bytes: 10 * MIB };
    Card {
        target: "tcp://127.0.0.1:7400".to_owned(),
        wanted: 20_000,
        connect_rate_per_s: 5_000,
        tick: s(0.1),
        asks_server: true,
        slos: ["rtt.p99<50ms", "expiry.false==0", "connections.failed.reset==0", "push.missing==0"]
            .map(|text| slo::parse(text).unwrap())
            .to_vec(),
        baseline: Baseline { server: Some(idle), generator: idle, ..Baseline::default() },
        ..Card::default()
    }
}

fn look(at_s: f64) -> Look {
    let process = |cores: f64| {
        Some(ProcessSample { cpu: s(at_s.floor() * cores), rss_bytes: 10 * MIB + 20_000 * 100 })
    };
    let says = Says {
        counters: Counters { open: 19_998, closed: [("expired".to_owned(), 150)].into() },
        laws: vec![Law { name: "a = b".to_owned(), holds: true, left: 1.into(), right: 1.into() }],
    };
    Look {
        start: Timestamp::from_nanos(7),
        at: s(at_s),
        phase: "holding",
        span: Some((s(5.0), s(35.0))),
        steady_at: (at_s >= 5.0).then_some(s(5.0)),
        paused: false,
        snapshot: Snapshot {
            opened: 20_000,
            sent: (at_s * 2_000.0) as u64,
            acked: (at_s * 2_000.0) as u64,
            interval_ms: 10_000,
            idle_timeout_ms: 15_000,
            ..Snapshot::default()
        },
        detail: Detail::default(),
        rtt: [0; BUCKETS],
        seen: Seen {
            at: s(at_s.floor()),
            server: process(0.5),
            generator: process(0.25),
            kernel: None,
            says: Some(says),
            silence: None,
        },
        events: Vec::new(),
        planned: 0,
    }
}

/// A run of which there was a look each quarter of a second, up to `until_s`.
fn run(until_s: f64, change: impl Fn(f64, &mut Look)) -> Model {
    run_with(card(), until_s, change)
}

fn run_with(card: Card, until_s: f64, change: impl Fn(f64, &mut Look)) -> Model {
    let mut model = Model::new(card);
    for quarter in 0..=(until_s * 4.0) as u32 {
        let at_s = f64::from(quarter) / 4.0;
        let mut look = look(at_s);
        change(at_s, &mut look);
        model.take(look);
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let shown = model.shown().unwrap();
    terminal.draw(|frame| screen::draw(frame, &shown, &Theme::plain())).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
}

/// The row that begins with `label`, wherever its pane is, has these words behind it in order.
#[track_caller]
fn expect(picture: &str, label: &str, words: &[&str]) {
    let found = picture.lines().filter_map(|line| line.split_once(&format!(" {label} ")));
    let holds = found.into_iter().any(|(_, mut rest)| {
        words.iter().all(|word| {
            let place = rest.find(word);
            rest = place.map_or("", |place| &rest[place + word.len()..]);
            place.is_some()
        })
    });
    assert!(holds, "{label}: {words:?} is not in\n{picture}");
}

const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

#[test]
fn connecting_shows_how_far_it_is_and_who_failed_why() {
    let model = run(2.0, |at_s, look| {
        look.phase = "connecting";
        look.span = None;
        look.snapshot.opened = (at_s * 4_000.0) as u64;
        look.snapshot.failed = 2_000;
        look.detail.failed = [("connection refused", 1_500), ("timed out", 500)].into();
    });
    for (width, height) in SIZES {
        let picture = drawn(&model, width, height);
        expect(&picture, "connecting", &["50 %"]);
        expect(&picture, "wanted", &["20,000"]);
        expect(&picture, "open", &["8,000", "server 19,998"]);
        expect(&picture, "connects/s", &["4,000", "plan 5,000"]);
        expect(&picture, "failed", &["2,000"]);
        assert!(picture.contains("1,500 connection refused"), "{picture}");
    }
    let wide = drawn(&model, 120, 40);
    assert!(wide.contains("500 timed out"), "{wide}");
}

#[test]
fn a_pause_is_told_wherever_one_looks() {
    let model = run(1.0, |_, look| (look.phase, look.paused) = ("connecting", true));
    let picture = drawn(&model, 80, 24);
    assert!(picture.lines().nth(1).is_some_and(|line| line.contains("PAUSED")), "{picture}");
    assert!(picture.contains("p go on"), "{picture}");
}

#[test]
fn the_steady_state_shows_rates_against_the_plan_and_what_it_costs() {
    let rtt = Buckets::default();
    (0..99).for_each(|_| rtt.record(Duration::from_millis(2)));
    rtt.record(Duration::from_millis(70));
    let model = run(20.0, |at_s, look| {
        look.snapshot.to_silence = 200;
        look.snapshot.silenced = 150;
        look.snapshot.expired = 150;
        look.snapshot.late_max_us = 106_000;
        if at_s > 19.5 {
            rtt.add_to(&mut look.rtt);
        }
    });
    for (width, height) in SIZES {
        let picture = drawn(&model, width, height);
        expect(&picture, "holding", &["15.0 s of 30.0 s"]);
        expect(&picture, "due/s", &["2,000", "plan 1,995"]);
        expect(&picture, "answered/s", &["2,000"]);
        expect(&picture, "interval", &["10 s", "timeout 15 s"]);
        // Known within 12 %.
        expect(&picture, "now", &["2.0 ms", "2.0 ms", "73.7 ms", "73.7 ms"]);
        expect(&picture, "silenced", &["200"]);
        expect(&picture, "expired", &["150", "server 150"]);
        expect(&picture, "late", &["106 ms", "at most"]);
        expect(&picture, "FALSE", &["0"]);
        expect(&picture, "MISSED", &["0"]);
        expect(&picture, "server", &["0.50", "11.9 MiB", "100"]);
        expect(&picture, "loadgen", &["0.25", "11.9 MiB", "100"]);
        assert!(picture.contains("1 of 1 laws hold"), "{picture}");
        assert!(picture.contains("q end") && picture.contains("s storm 10 %"), "{picture}");
    }
}

#[test]
fn who_should_have_been_expired_and_was_not_is_missed_once_the_time_is_up() {
    let missing = |_: f64, look: &mut Look| {
        look.span = Some((s(5.0), s(65.0)));
        (look.snapshot.to_silence, look.snapshot.silenced, look.snapshot.expired) = (200, 150, 150);
    };
    expect(&drawn(&run(21.0, missing), 80, 24), "MISSED", &[" 0"]);
    expect(&drawn(&run(21.5, missing), 80, 24), "MISSED", &["50"]);
    let falsely = |_: f64, look: &mut Look| look.snapshot.false_expiries = 3;
    expect(&drawn(&run(6.0, falsely), 80, 24), "FALSE", &["3"]);
}

#[test]
fn slos_stand_as_they_are_known() {
    let known = |at_s, look: &mut Look| {
        let rtt = Buckets::default();
        (0..at_s as u32).for_each(|_| rtt.record(Duration::from_millis(80)));
        rtt.add_to(&mut look.rtt);
        look.snapshot.failed = 1;
        look.detail.failed = [("timed out", 1)].into();
    };
    let picture = drawn(&run(30.0, known), 120, 40);
    assert!(picture.contains("✗   81.9 ms  rtt.p99<50ms"), "{picture}");
    assert!(picture.contains("✓         0  expiry.false==0"), "{picture}");
    assert!(picture.contains("✓         0  connections.failed.res"), "{picture}");
    assert!(picture.contains("·         ?  push.missing==0"), "{picture}");
    let early = drawn(&run(3.0, known), 120, 40);
    assert!(early.contains("·         ?  rtt.p99<50ms"), "{early}");
    // Where there is room for two, that which does not hold is one of them.
    let picture = drawn(&run(30.0, known), 80, 24);
    assert!(
        picture.contains("✗   81.9 ms  rtt.p99<50ms") && picture.contains("and 3 more"),
        "{picture}"
    );
}

#[test]
fn events_are_told_before_and_after_they_have_come() {
    let storm = Event { at: s(10.0), kind: Kind::Storm(0.5) };
    let drain = Event { at: s(25.0), kind: Kind::Drain(Some(s(10.0))) };
    let by_key = Event { at: s(12.0), kind: Kind::Storm(0.1) };
    let planned = |at_s: f64, look: &mut Look| {
        look.planned = 2;
        look.events = vec![storm, drain];
        if at_s >= 17.0 {
            look.events.push(by_key);
            let (last_affected, last_recovered) = (Timestamp::ZERO, Timestamp::ZERO);
            let storm = Glimpse {
                affected: 9_900,
                last_affected,
                to_recover: 9_900,
                recovered: 7_000,
                last_recovered,
            };
            let nothing = Glimpse::default();
            look.detail.events = vec![storm, nothing, Glimpse { affected: 1_980, ..nothing }];
        }
    };
    let before = drawn(&run(3.0, planned), 120, 40);
    expect(&before, "at 10.0 s", &["storm of 50 %"]);
    let soon = drawn(&run(8.0, planned), 80, 24);
    expect(&soon, "in 7.0 s", &["storm of 50 %"]);
    let after = drawn(&run(20.0, planned), 120, 40);
    expect(&after, "10.0 s", &["storm of 50 %", "9,900 killed, 7,000 back"]);
    expect(&after, "12.0 s", &["storm of 10 % (key)", "1,980 killed, 0 back"]);
    expect(&after, "in 10.0 s", &["drain over 10 s"]);
    let little = drawn(&run(20.0, planned), 80, 24);
    expect(&little, "12.0 s", &["storm of 10 % (key)"]);
    expect(&little, "in 10.0 s", &["drain over 10 s"]);
}

#[test]
fn the_last_minute_is_plotted() {
    let steady = drawn(&run(90.0, |_, _| {}), 120, 40);
    assert!(steady.contains("████████████████"), "{steady}");
    assert!(steady.contains("at most 2,000"), "{steady}");
    let begun = drawn(&run(10.0, |_, _| {}), 80, 24);
    let plot = begun.lines().find(|line| line.contains(" heartbeats/s ")).unwrap();
    let bars = plot.chars().filter(|&letter| letter == '█').count();
    assert!((6..=12).contains(&bars), "a sixth of the minute has passed: {plot}");
}

#[test]
fn messages_are_seen_and_go() {
    let mut model = run(6.0, |_, _| {});
    model.note("a drain needs --target-admin".to_owned());
    let picture = drawn(&model, 80, 24);
    let last = picture.lines().last().unwrap();
    assert!(last.contains("q end") && last.contains("a drain needs"), "{picture}");
    model.take(look(20.0));
    let picture = drawn(&model, 80, 24);
    assert!(!picture.contains("a drain needs"), "{picture}");
    let wide = drawn(&model, 120, 40);
    expect(&wide, "0:06", &["a drain needs --target-admin"]);
}

#[test]
fn a_server_that_does_not_tell_is_no_reason_to_show_nothing() {
    let card = Card { asks_server: false, ..card() };
    let untold = |_: f64, look: &mut Look| {
        (look.seen.says, look.seen.server) = (None, None);
    };
    let picture = drawn(&run_with(card, 8.0, untold), 80, 24);
    assert!(!picture.contains("laws") && !picture.contains("server 1"), "{picture}");
    expect(&picture, "server", &["-", "-", "-"]);
    let silent = |_: f64, look: &mut Look| {
        (look.seen.says, look.seen.silence) = (None, Some("refused".to_owned()));
    };
    let picture = drawn(&run(8.0, silent), 80, 24);
    assert!(picture.contains("no answer from the control plane"), "{picture}");
    assert!(picture.contains("server silent"), "{picture}");
    assert!(drawn(&run(8.0, silent), 120, 40).contains("0:00  refused"));
}

#[test]
fn at_80_by_24_every_pane_is_there() {
    let picture = drawn(&run(20.0, |_, _| {}), 80, 24);
    for title in [
        "connections",
        "heartbeats",
        "round trip",
        "expiry",
        "cost",
        "SLOs",
        "last minute",
        "events",
    ] {
        assert!(picture.contains(&format!("─ {title} ─")), "{title} is not in\n{picture}");
    }
}

#[test]
fn where_there_is_little_room_the_oracle_is_still_there() {
    for (width, height) in [(60, 24), (80, 16)] {
        let picture = drawn(&run(20.0, |_, _| {}), width, height);
        for label in ["open", "answered/s", "FALSE", "MISSED"] {
            expect(&picture, label, &["0"]);
        }
    }
}

#[test]
fn any_size_will_do() {
    let model = run(20.0, |_, _| {});
    for width in (1..=200).step_by(7) {
        for height in (1..=70).step_by(3) {
            let picture = drawn(&model, width, height);
            let small = width < 10 || height < 2;
            assert!(small || picture.contains("holding"), "{width}x{height}\n{picture}");
        }
    }
}
