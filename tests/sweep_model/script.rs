//! Scripts: what is done to a sweeper, as data, so that a failing one can be shrunk and printed.

use heartwheel::sweep::Sweeper;
use heartwheel::time::Tick;
use proptest::prelude::*;
use proptest::sample::select;

use crate::oracle::Checked;

/// The numbers of ticks at which something wraps in one of the wheels, each with its neighbours;
/// none, less than a tick in effect (0 and the past), and the far end of time.
pub const SPANS: &[u64] = &[
    0,
    1,
    2,
    15,
    63,
    64,
    65,
    255,
    256,
    257,
    640,
    1_023,
    1_024,
    1_025,
    2_560,
    4_095,
    4_096,
    4_097,
    10_240,
    65_532,
    65_533,
    65_534,
    65_535,
    65_536,
    65_537,
    655_330,
    655_360,
    1 << 24,
    1 << 32,
    u64::MAX / 2,
    u64::MAX - 1,
];

/// Ticks that a sweeper starts at: zero, and just below where counters of 8, 16 and 32 bits wrap.
pub const STARTS: &[u64] =
    &[0, 1, (1 << 8) - 3, (1 << 16) - 5, (1 << 16) - 1, (1 << 32) - 7, (1 << 32) + 1, 1 << 62];

/// When a deadline is, seen from the present.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Ago(u64),
    Ahead(u64),
    Never,
}

impl When {
    fn from(self, now: Tick) -> Tick {
        match self {
            When::Ago(ticks) => Tick(now.0.saturating_sub(ticks)),
            When::Ahead(ticks) => Tick(now.0.saturating_add(ticks)),
            When::Never => Tick::NEVER,
        }
    }
}

/// One step of a script.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Insert the index, or touch it if it is filed: so indices are reused.
    File(u32, When),
    /// The same for many neighbours: a mass connect, or a synchronised heartbeat.
    FileMany {
        first: u32,
        count: u32,
        when: When,
    },
    Remove(u32),
    RemoveMany {
        first: u32,
        count: u32,
    },
    /// Advance by so many ticks, once. What the budget leaves stays, and the next steps happen to
    /// it while it is half swept: that is what an expiry callback could do in other designs.
    Advance {
        ticks: u64,
        budget: usize,
    },
}

/// Runs `script`, then drains.
///
/// # Errors
/// The first answer that is against the contract.
pub fn run<S: Sweeper>(sweeper: S, start: Tick, script: &[Step]) -> Result<(), String> {
    let mut checked = Checked::new(sweeper, start);
    follow(&mut checked, script)?;
    checked.drain(17)
}

/// Runs a script of [`modest`], and then for as long as its longest timeout.
///
/// # Errors
/// As [`run`].
pub fn run_modest<S: Sweeper>(sweeper: S, start: Tick, script: &[Step]) -> Result<(), String> {
    let mut checked = Checked::new(sweeper, start);
    follow(&mut checked, script)?;
    let now = Tick(checked.now().0 + MODEST_TICKS);
    checked.advance(now, usize::MAX)?;
    if checked.is_empty() { Ok(()) } else { Err("not empty at the end".into()) }
}

fn follow<S: Sweeper>(checked: &mut Checked<S>, script: &[Step]) -> Result<(), String> {
    for &step in script {
        match step {
            Step::File(index, when) => checked.file(index, when.from(checked.now())),
            Step::FileMany { first, count, when } => {
                let deadline = when.from(checked.now());
                (first..first + count).for_each(|index| checked.file(index, deadline));
            }
            Step::Remove(index) => checked.remove(index),
            Step::RemoveMany { first, count } => {
                (first..first + count).for_each(|index| checked.remove(index));
            }
            Step::Advance { ticks, budget } => {
                checked.advance(Tick(checked.now().0.saturating_add(ticks)), budget)?;
            }
        }
    }
    Ok(())
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        6 => (0..40u64).prop_map(When::Ahead),
        4 => (0..3_000u64).prop_map(When::Ahead),
        4 => select(SPANS).prop_map(When::Ahead),
        1 => (1..300u64).prop_map(When::Ago),
        1 => Just(When::Never),
    ]
}

/// Indices on both sides of block boundaries, mostly few, so that they meet again.
fn index() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..20u32, 2 => 50..140u32, 1 => 0..1_000u32]
}

fn ticks() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0u64),
        10 => Just(1u64),
        6 => 2..40u64,
        2 => 40..3_000u64,
        2 => select(&SPANS[..26]),
    ]
}

fn budget() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(usize::MAX), 2 => 0..4usize, 1 => 4..100usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (index(), when()).prop_map(|(index, when)| Step::File(index, when)),
        1 => (index(), 1..200u32, when())
            .prop_map(|(first, count, when)| Step::FileMany { first, count, when }),
        3 => index().prop_map(Step::Remove),
        1 => (index(), 1..100u32).prop_map(|(first, count)| Step::RemoveMany { first, count }),
        7 => (ticks(), budget()).prop_map(|(ticks, budget)| Step::Advance { ticks, budget }),
    ]
}

/// Any start and any script.
pub fn script() -> impl Strategy<Value = (Tick, Vec<Step>)> {
    (select(STARTS).prop_map(Tick), prop::collection::vec(step(), 1..120))
}

/// The longest timeout of a modest script.
const MODEST_TICKS: u64 = 3_000;

/// Scripts for those whose contract is narrower: deadlines lie ahead, and not far.
pub fn modest(has_budget: bool) -> impl Strategy<Value = Vec<Step>> {
    let when = || prop_oneof![2 => 1..40u64, 1 => 1..MODEST_TICKS].prop_map(When::Ahead);
    let budget = if has_budget { budget().boxed() } else { Just(usize::MAX).boxed() };
    modest_steps(when().boxed(), budget)
}

/// The same with one timeout for all.
pub fn modest_with_timeout(ticks: u64) -> impl Strategy<Value = Vec<Step>> {
    modest_steps(Just(When::Ahead(ticks)).boxed(), budget().boxed())
}

fn modest_steps(
    when: BoxedStrategy<When>,
    budget: BoxedStrategy<usize>,
) -> impl Strategy<Value = Vec<Step>> {
    let file_many = (index(), 1..200u32, when.clone());
    let step = prop_oneof![
        10 => (index(), when).prop_map(|(index, when)| Step::File(index, when)),
        1 => file_many.prop_map(|(first, count, when)| Step::FileMany { first, count, when }),
        3 => index().prop_map(Step::Remove),
        7 => (1..60u64, budget).prop_map(|(ticks, budget)| Step::Advance { ticks, budget }),
    ];
    prop::collection::vec(step, 1..120)
}
