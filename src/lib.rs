//! heartwheel
pub mod limits;
pub mod outgoing;
pub mod protocol;
pub mod ring;
pub mod sweep;
pub mod time;
