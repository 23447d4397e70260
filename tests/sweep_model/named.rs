//! Cases that have a name: the bugs of others, and the corners of the wheels.

use std::time::Duration;

use heartwheel::sweep::{AnySweeper, Progress, Strategy, Sweeper};
use heartwheel::time::{Tick, TickLength, Timestamp};

use crate::oracle::Checked;
use crate::script::{SPANS, STARTS};

const ALL: usize = usize::MAX;

/// Runs `case` with every strategy at every start, small and so large that no wheel is small.
fn everywhere(case: impl Fn(&mut Checked<AnySweeper>, u64) -> Result<(), String>) {
    for &strategy in Strategy::ALL {
        for capacity in [10, 100_000] {
            for &start in STARTS {
                let sweeper = AnySweeper::new(strategy, capacity, Tick(start));
                let mut checked = Checked::new(sweeper, Tick(start));
                if let Err(fault) = case(&mut checked, start).and_then(|()| checked.drain(3)) {
                    panic!("{strategy} for {capacity} from tick {start}: {fault}");
                }
            }
        }
    }
}

fn expect(what: &str, found: &[u32], wanted: &[u32]) -> Result<(), String> {
    let mut found = found.to_vec();
    found.sort_unstable();
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?}, not {wanted:?}")) }
}

/// netty issue 7760: a delay of `Long.MAX_VALUE` overflowed, and fired at once.
#[test]
fn a_huge_delay_does_not_fire_early() {
    everywhere(|checked, start| {
        checked.file(1, Tick(u64::MAX - 1));
        checked.file(2, Tick::NEVER);
        checked.file(3, Tick(start + u64::MAX / 2));
        checked.file(4, Tick(start + (1 << 40)));
        for ahead in [0, 1, 255, 256, 65_532, 65_536, 70_000, 140_000, 1 << 33] {
            let (_, expired) = checked.advance(Tick(start + ahead), ALL)?;
            expect("nobody", &expired, &[])?;
        }
        Ok(())
    });
}

/// netty issue 14959: a timeout cancelled in the tick that it was due in was counted off twice.
/// The sweep is stopped in the middle of that tick by a budget of 0.
#[test]
fn a_removal_within_the_tick_of_the_deadline_counts_once() {
    everywhere(|checked, start| {
        checked.file(1, Tick(start + 2));
        checked.file(2, Tick(start + 2));
        let (progress, _) = checked.advance(Tick(start + 2), 0)?;
        assert_eq!(progress, Progress::More);
        checked.remove(1);
        let (_, expired) = checked.advance(Tick(start + 2), ALL)?;
        expect("who was not removed", &expired, &[2])
    });
}

/// tokio issue 2473: resetting an item that had expired already panicked or lost it.
#[test]
fn an_overdue_session_can_be_touched_and_an_expired_one_filed_again() {
    everywhere(|checked, start| {
        checked.file(1, Tick(start + 3));
        checked.file(2, Tick(start + 3));
        checked.advance(Tick(start + 4), 0)?;
        checked.file(1, Tick(start + 9));
        let (_, expired) = checked.advance(Tick(start + 4), ALL)?;
        expect("who was not touched", &expired, &[2])?;
        checked.file(2, Tick(start + 5));
        let (_, expired) = checked.advance(Tick(start + 5), ALL)?;
        expect("who was filed again", &expired, &[2])?;
        let (_, expired) = checked.advance(Tick(start + 9), ALL)?;
        expect("who was touched", &expired, &[1])
    });
}

/// tokio issue 849: an item reset to an earlier deadline was still waited for until the later.
#[test]
fn an_earlier_deadline_is_not_slept_through() {
    everywhere(|checked, start| {
        for later in [5, 63, 300, 5_000, 65_000, 70_000, 1 << 40] {
            checked.file(1, Tick(start + later));
            checked.file(1, Tick(start + 2));
            checked.file(1, Tick(start + 3));
            let (_, expired) = checked.advance(Tick(start + 1), ALL)?;
            expect("nobody yet", &expired, &[])?;
            checked.file(1, Tick(start + 1));
            let (_, expired) = checked.advance(Tick(start + 1), ALL)?;
            expect("the one whose deadline came nearer", &expired, &[1])?;
        }
        Ok(())
    });
}

/// tokio issue 5536: after an uptime of 2^36 ms the timer wrapped, and slept forever.
#[test]
fn a_high_uptime_does_not_wrap() {
    for &strategy in Strategy::ALL {
        for start in [(1 << 36) - 9, (1 << 42) - 2, (1 << 48) - 70_000, u64::MAX - 200_000] {
            let mut checked =
                Checked::new(AnySweeper::new(strategy, 100, Tick(start)), Tick(start));
            for (index, ahead) in [0, 1, 9, 10, 63, 64, 4_096, 65_536, 70_000].iter().enumerate() {
                checked.file(index as u32, Tick(start + ahead));
            }
            for ahead in (0..80).chain((80..80_000).step_by(997)) {
                checked.advance(Tick(start + ahead), ALL).expect("as the oracle says");
            }
            checked.drain(ALL).expect("as the oracle says");
        }
    }
}

/// moka issue 524: the wheel's node of a removed entry was taken for that of its successor.
#[test]
fn a_reused_index_has_nothing_of_its_predecessor() {
    everywhere(|checked, start| {
        checked.file(7, Tick(start + 10));
        checked.remove(7);
        checked.file(7, Tick(start + 20));
        let (_, expired) = checked.advance(Tick(start + 10), ALL)?;
        expect("nobody at the old deadline", &expired, &[])?;
        checked.remove(7);
        checked.file(7, Tick(start + 12));
        checked.remove(7);
        checked.file(7, Tick(start + 12));
        let (_, expired) = checked.advance(Tick(start + 20), ALL)?;
        expect("once", &expired, &[7])
    });
}

/// Wheels that compare slots and not ticks fire such timers a revolution early, or several.
#[test]
fn deadlines_beyond_a_revolution_wait_for_their_own() {
    everywhere(|checked, start| {
        let spans = SPANS.iter().filter(|&&span| span < 700_000);
        for (index, ahead) in spans.clone().enumerate() {
            checked.file(index as u32, Tick(start + ahead));
        }
        for (index, &ahead) in spans.enumerate() {
            if ahead > 0 {
                checked.advance(Tick(start + ahead - 1), ALL)?;
            }
            let (_, expired) = checked.advance(Tick(start + ahead), ALL)?;
            expect("exactly at its tick", &expired, &[index as u32])?;
        }
        Ok(())
    });
}

/// A machine that was suspended, or a loop that hung: time goes on by more than a revolution.
#[test]
fn a_stall_of_more_than_a_revolution_finds_everybody_once() {
    everywhere(|checked, start| {
        for index in 0..300 {
            checked.file(index, Tick(start + u64::from(index) * 331));
        }
        let (_, expired) = checked.advance(Tick(start + 50_000), ALL)?;
        expect("those who are due", &expired, &(0..=151).collect::<Vec<_>>())?;
        let (_, expired) = checked.advance(Tick(start + 1_000_000), ALL)?;
        expect("the rest", &expired, &(152..300).collect::<Vec<_>>())
    });
}

/// What an expiry callback could do elsewhere: here it is done to a sweep that is half through.
#[test]
fn a_sweep_that_is_half_through_can_be_changed() {
    everywhere(|checked, start| {
        (0..200).for_each(|index| checked.file(index, Tick(start + 5)));
        let (progress, first) = checked.advance(Tick(start + 6), 60)?;
        assert_eq!((progress, first.len()), (Progress::More, 60));
        let left: Vec<u32> = (0..200).filter(|index| !first.contains(index)).collect();
        checked.remove(left[0]);
        checked.file(left[1], Tick(start + 100_000));
        checked.file(left[2], Tick(start + 7));
        checked.file(first[0], Tick(start));
        checked.file(first[1], Tick(start + 6));
        checked.file(first[2], Tick(start + 8));
        let mut rest = checked.advance(Tick(start + 6), ALL)?.1;
        assert_eq!(rest.len(), 200 - 60 - 3 + 2);
        rest.extend(checked.advance(Tick(start + 8), ALL)?.1);
        assert!(rest.contains(&left[2]) && rest.contains(&first[2]) && !rest.contains(&left[1]));
        Ok(())
    });
}

/// A deadline that has passed when it is filed comes out of the next advance, for the same tick.
#[test]
fn what_is_overdue_when_it_is_filed_is_reported_at_once() {
    everywhere(|checked, start| {
        checked.advance(Tick(start + 1_000), ALL)?;
        for deadline in [start + 1_000, start + 999, start, 0] {
            checked.file(1, Tick(deadline));
            let (_, expired) = checked.advance(Tick(start + 1_000), ALL)?;
            expect("the overdue one", &expired, &[1])?;
        }
        Ok(())
    });
}

/// Seen from the clock: never before the timeout, and less than a tick after it.
#[test]
fn expiry_is_never_early_and_less_than_a_tick_late_at_any_phase() {
    let tick = TickLength::new(Duration::from_nanos(16));
    for &strategy in Strategy::ALL {
        let mut sweeper = AnySweeper::new(strategy, 64, Tick(0));
        let timeouts_ns = [0, 1, 15, 16, 17, 255, 256, 300];
        for phase in 0..400 {
            let now = Timestamp::from_nanos(10_000 + phase * 1_001);
            sweeper.advance(tick.current(now), ALL, &mut Vec::new());
            let due = timeouts_ns.map(|nanos| now + Duration::from_nanos(nanos));
            for (index, &due) in due.iter().enumerate() {
                sweeper.insert(index as u32, tick.deadline(due));
            }
            for nanos in 0..400 {
                let now = now + Duration::from_nanos(nanos);
                let mut expired = Vec::new();
                sweeper.advance(tick.current(now), ALL, &mut expired);
                for index in expired {
                    let due = due[index as usize];
                    assert!(now >= due, "{strategy}: early at phase {phase}");
                    assert!(now.since(due) < tick.as_duration(), "{strategy}: late at {phase}");
                }
            }
            assert!(sweeper.is_empty(), "{strategy}: lost at phase {phase}");
        }
    }
}

/// Where most blocks are due tick after tick, `block-wheel` scans straight through: into that
/// mode and out again, with budgets, touches and removals in between.
#[test]
fn a_crowd_is_swept_as_well_as_a_few() {
    for &strategy in Strategy::ALL {
        for budget in [ALL, 700] {
            let mut checked = Checked::new(AnySweeper::new(strategy, 0, Tick(9)), Tick(9));
            let mut random = 1_u32;
            for tick in 10..60 {
                for index in 0..4_500 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    match random >> 28 {
                        0 => checked.remove(index),
                        1..12 => {
                            let ahead = if tick < 40 { random >> 27 & 1 } else { random >> 22 };
                            checked.file(index, Tick(tick + u64::from(ahead)));
                        }
                        _ => {}
                    }
                    if index % 1_500 == 0 {
                        checked.advance(Tick(tick), budget).expect("as the oracle says");
                    }
                }
            }
            checked.drain(999).expect("as the oracle says");
        }
    }
}
