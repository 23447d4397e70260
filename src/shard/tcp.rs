//! What a session does with the bytes of the TCP protocol.
//!
//! Whole frames are parsed where they were received; only the front of an unfinished frame is
//! copied, and only as far as it has arrived.

use super::context::Context;
use super::millis;
use super::output::{BufferPool, queue_message, queue_pong, queue_static_pong};
use crate::mutants::mutant;
use crate::outgoing::Outgoing;
use crate::protocol::frame::{Frame, FrameError, Parsed, parse};
use crate::session::{CloseReason, Partial, Phase, Session, Unfinished};

/// Handles all frames that `bytes` completes, and keeps the front of an unfinished one.
///
/// # Errors
/// Why the session has to be closed.
pub(super) fn receive<C>(
    session: &mut Session<C>,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    let mut rest = bytes;
    if session.partial.is_some() {
        rest = finish_partial(session, rest, context)?;
    }
    while !rest.is_empty() {
        match parse(rest, context.policy.frame_bytes_max)? {
            Parsed::Whole(frame, frame_bytes) => {
                handle(session, &frame, context)?;
                rest = &rest[frame_bytes..];
            }
            Parsed::Partial { .. } => {
                let due = context.now + context.policy.frame_timeout;
                let kept = if mutant!(PartialFrontDropped) { &rest[1..] } else { rest };
                let unfinished = Unfinished::Bytes(kept.to_vec());
                session.partial = Some(Box::new(Partial { unfinished, due }));
                break;
            }
        }
    }
    Ok(())
}

/// Completes the unfinished frame, if the bytes suffice, and gives back what they left over.
fn finish_partial<'b, C>(
    session: &mut Session<C>,
    bytes: &'b [u8],
    context: &mut Context<'_>,
) -> Result<&'b [u8], CloseReason> {
    let Some(mut partial) = session.partial.take() else { return Ok(bytes) };
    let Unfinished::Bytes(front) = &mut partial.unfinished else { return Ok(bytes) };
    let mut rest = bytes;
    loop {
        match parse(front, context.policy.frame_bytes_max)? {
            Parsed::Whole(frame, _) => {
                handle(session, &frame, context)?;
                return Ok(rest);
            }
            Parsed::Partial { .. } if rest.is_empty() => {
                session.partial = Some(partial);
                return Ok(rest);
            }
            Parsed::Partial { wanted } => {
                let missing = (wanted - front.len()).min(rest.len());
                let (more, back) = rest.split_at(missing);
                front.extend_from_slice(more);
                rest = back;
            }
        }
    }
}

/// Does what one frame asks for.
fn handle<C>(
    session: &mut Session<C>,
    frame: &Frame<'_>,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    let first = session.phase == Phase::AwaitingHello;
    context.counters.frames_received += 1;
    session.phase = Phase::Live;
    match *frame {
        Frame::Ping(payload) => {
            context.counters.heartbeats_received +=
                u64::from(payload.is_empty() || !mutant!(HeartbeatNotCounted));
            if context.policy.log_heartbeats {
                tracing::info!(session = %context.id(), bytes = payload.len(), "heartbeat");
            }
            if payload.is_empty() {
                return queue_static_pong(session, context);
            }
            let pong = encode(&Frame::Pong(payload), context.buffers);
            queue_pong(session, pong, context)
        }
        Frame::Pong(_) => {
            context.counters.pongs_received += 1;
            Ok(())
        }
        Frame::Hello { interval_ms, .. } if first => {
            context.counters.hellos_received += 1;
            tracing::debug!(session = %context.id(), interval_ms, "HELLO");
            let welcome = Frame::Welcome {
                session: context.id().0,
                interval_ms: millis(context.policy.heartbeat_interval),
                idle_timeout_ms: session.idle_timeout_ms,
            };
            queue_message(session, encode(&welcome, context.buffers), context)
        }
        Frame::Data(message) => {
            context.counters.data_received += 1;
            tracing::debug!(session = %context.id(), bytes = message.len(), "DATA");
            if !context.policy.echo {
                return Ok(());
            }
            context.counters.data_echoed += 1;
            queue_message(session, encode(frame, context.buffers), context)
        }
        Frame::PushAck { .. } => {
            context.counters.push_acks_received += 1;
            Ok(())
        }
        Frame::Hello { .. } | Frame::Welcome { .. } | Frame::Push { .. } | Frame::GoAway { .. } => {
            Err(CloseReason::IllegalUnexpected)
        }
    }
}

fn encode(frame: &Frame<'_>, buffers: &mut BufferPool) -> Outgoing {
    buffers.write(frame.encoded_bytes(), |bytes| {
        frame.encode(bytes);
    })
}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> CloseReason {
        match error {
            FrameError::LengthZero => CloseReason::IllegalLengthZero,
            FrameError::Oversize => CloseReason::IllegalOversize,
            FrameError::KindZero => CloseReason::IllegalKindZero,
            FrameError::KindUnknown => CloseReason::IllegalKindUnknown,
            FrameError::PayloadLength => CloseReason::IllegalPayloadLength,
            FrameError::HelloVersion => CloseReason::IllegalHelloVersion,
        }
    }
}
