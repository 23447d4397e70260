//! Planted bugs: a simulator that finds nothing proves nothing, so it must be seen to find these.
//!
//! `mutant!(Name)` is where a bug is planted. Without the feature `mutants` it is the constant
//! `false`, and nothing of it is left in the program. `tests/mutants.rs` runs each.

/// Declares the mutants, each with what is wrong with it.
macro_rules! mutants {
    ($($name:ident = $what:literal,)+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant { $(#[doc = $what] $name,)+ }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// What is wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Mutant::$name => $what,)+ }
            }
        }
    };
}

mutants! {
    OneTickEarly = "sweeps run a tick ahead of time",
    OneTickLate = "sweeps run a tick behind time",
    RefileForgotten = "activity does not move the deadline",
    StaleGeneration = "a key of a former session leads to its successor",
    HeartbeatNotCounted = "a heartbeat with a payload is not counted",
    PongCountedTwice = "an answered heartbeat counts twice",
    PartialFrontDropped = "the front of an unfinished frame is dropped",
    HelloTimeoutMissed = "who never says anything stays",
    FrameTimeoutMissed = "half a frame may wait for ever",
    StallTimeoutMissed = "who never reads stays",
    WrongReason = "a reset is counted as a close",
    FloodBoundOffByOne = "one heartbeat fewer may wait than is allowed",
    FloodBoundMissed = "any number of heartbeats may wait",
    ShortSendRestLost = "what a short send leaves over is lost",
    TwoSends = "a send begins while another is in flight",
    StopLeavesSessions = "a stop closes every other session only",
    ExpiredForgotten = "of those who expire together one is forgotten",
    MaskIgnored = "some frames are not unmasked",
    LengthLimitMissed = "a length over the limit is accepted",
    CloseWithoutCancel = "a slot is closed while its receive is armed",
    CloseWithoutWaiting = "a slot is closed while a send is in flight",
    CloseTwice = "a slot is closed again while the close is on its way",
    BufferNotReturned = "a receive buffer is never given back",
    StarvedForgotten = "a receive that found no buffer is not armed again",
    ReceiveNotRearmed = "a multishot that has ended is not armed again",
    AcceptNotRearmed = "an accept that has ended is not armed again",
    FullTableNotPaused = "accepting goes on at once when descriptors have run out",
    SlotNotFreed = "a closed slot still counts as taken",
    ExpireBeforeDraining = "the sweep comes before what has arrived is read",
    ReadAgainForgotten = "what arrives during a receive is not read",
    FullBufferForgotten = "what did not fit the buffer is not read",
    EndForgotten = "the end behind the last bytes is not read",
    WakeNotRearmed = "the bell is heard once only",
}

/// Whether this bug is planted in the present thread.
#[cfg(feature = "mutants")]
pub fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Whether this bug is planted: never without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_planted(_: Mutant) -> bool {
    false
}

/// Plants one bug, or none, in the present thread.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether the bug of this name is planted.
macro_rules! mutant {
    ($name:ident) => {
        crate::mutants::is_planted(crate::mutants::Mutant::$name)
    };
}

pub(crate) use mutant;
