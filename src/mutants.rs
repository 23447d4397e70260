//! Planted bugs, to see that the simulator finds them. Without the feature `mutants` there are
//! none, and [`is`] is a constant.

use std::cell::Cell;

/// A bug that can be planted.
#[expect(missing_docs, reason = "their names say what they do")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    OneTickEarly,
    OneTickLate,
    HeardUntilIgnored,
    RearmForgotten,
    CloseWithoutCancel,
    CloseWithoutWaiting,
    BufferNotReturned,
    StarvedForgotten,
    AcceptNotRearmed,
    StopLeavesSessions,
    OpenedNotCounted,
    RestLost,
    PongCountedTwice,
    FloodOffByOne,
    FrontDropped,
    HelloTimeoutMissed,
    FrameTimeoutMissed,
    StallTimeoutMissed,
    WrongReason,
    ReadAgainForgotten,
    ReleaseForgotten,
    RefileForgotten,
    StaleGeneration,
    HeartbeatNotCounted,
    ExpiredForgotten,
    MaskIgnored,
    LengthLimitMissed,
    FullTableNotPaused,
    SlotNotFreed,
    FullBufferForgotten,
    EndForgotten,
    WakeNotRearmed,
    TwoSends,
    FloodBoundMissed,
    CancelNotNoted,
    PushAckTwice,
    PushLostAtClose,
    BroadcastSkipsNeighbour,
    BroadcastToNewcomers,
    QueueBoundMissed,
    TermsIgnored,
    DeadlineShared,
    AskedTwice,
    PingIsActivity,
    ExpiredUnasked,
    MessageTimeRenewed,
    ContinuationDropped,
    DrainAtOnce,
    GoawayForgotten,
    RetryAtOnce,
    StarvedLast,
    AskedBeforePause,
    HeldUpCounted,
    TokenNotTaken,
    MemoryLimitMissed,
    PlaceKept,
    AddressKept,
    PlaceNotCounted,
}

impl Mutant {
    /// All of them.
    pub const ALL: &[Mutant] = &[
        Mutant::OneTickEarly,
        Mutant::OneTickLate,
        Mutant::HeardUntilIgnored,
        Mutant::RearmForgotten,
        Mutant::CloseWithoutCancel,
        Mutant::CloseWithoutWaiting,
        Mutant::BufferNotReturned,
        Mutant::StarvedForgotten,
        Mutant::AcceptNotRearmed,
        Mutant::StopLeavesSessions,
        Mutant::OpenedNotCounted,
        Mutant::RestLost,
        Mutant::PongCountedTwice,
        Mutant::FloodOffByOne,
        Mutant::FrontDropped,
        Mutant::HelloTimeoutMissed,
        Mutant::FrameTimeoutMissed,
        Mutant::StallTimeoutMissed,
        Mutant::WrongReason,
        Mutant::ReadAgainForgotten,
        Mutant::ReleaseForgotten,
        Mutant::RefileForgotten,
        Mutant::StaleGeneration,
        Mutant::HeartbeatNotCounted,
        Mutant::ExpiredForgotten,
        Mutant::MaskIgnored,
        Mutant::LengthLimitMissed,
        Mutant::FullTableNotPaused,
        Mutant::SlotNotFreed,
        Mutant::FullBufferForgotten,
        Mutant::EndForgotten,
        Mutant::WakeNotRearmed,
        Mutant::TwoSends,
        Mutant::FloodBoundMissed,
        Mutant::CancelNotNoted,
        Mutant::PushAckTwice,
        Mutant::PushLostAtClose,
        Mutant::BroadcastSkipsNeighbour,
        Mutant::BroadcastToNewcomers,
        Mutant::QueueBoundMissed,
        Mutant::TermsIgnored,
        Mutant::DeadlineShared,
        Mutant::AskedTwice,
        Mutant::PingIsActivity,
        Mutant::ExpiredUnasked,
        Mutant::MessageTimeRenewed,
        Mutant::ContinuationDropped,
        Mutant::DrainAtOnce,
        Mutant::GoawayForgotten,
        Mutant::RetryAtOnce,
        Mutant::StarvedLast,
        Mutant::AskedBeforePause,
        Mutant::HeldUpCounted,
        Mutant::TokenNotTaken,
        Mutant::MemoryLimitMissed,
        Mutant::PlaceKept,
        Mutant::AddressKept,
        Mutant::PlaceNotCounted,
    ];
}

/// A server built with the feature plants the bug of this name, in each of its threads.
#[cfg(feature = "mutants")]
const VARIABLE: &str = "HEARTWHEEL_MUTANT";

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = Cell::new(of_environment());
}

#[cfg(not(feature = "mutants"))]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

#[cfg(feature = "mutants")]
fn of_environment() -> Option<Mutant> {
    let name = std::env::var(VARIABLE).ok()?;
    let named = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    Some(*named.unwrap_or_else(|| panic!("{VARIABLE}={name}: no such mutant")))
}

/// Plants a bug in this thread, or none.
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted.
#[cfg(feature = "mutants")]
pub fn is(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_mutant: Mutant) -> bool {
    false
}
