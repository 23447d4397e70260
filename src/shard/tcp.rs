//! What a session does with the bytes of the TCP protocol.
//!
//! Whole frames are parsed where they were received; only the front of an unfinished frame is
//! copied, and only as far as it has arrived.

use super::context::Context;
use super::output::{BufferPool, queue_message, queue_pong, queue_static_pong};
use super::terms::{Adjustment, Terms, adjustment};
use crate::limits::TICKET_BYTES_MAX;
use crate::mutants::{Mutant, is};
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
        match parse(rest, frame_bytes_max(session, context))? {
            Parsed::Whole(frame, frame_bytes) => {
                handle(session, &frame, context)?;
                rest = &rest[frame_bytes..];
            }
            Parsed::Partial { .. } => {
                let due = context.now + context.policy.frame_timeout;
                let unfinished = Unfinished::Bytes(rest.to_vec());
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
    if is(Mutant::FrontDropped) {
        front.clear();
    }
    loop {
        match parse(front, frame_bytes_max(session, context))? {
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

/// The longest frame that is taken. Whoever has not been let in yet can only send a HELLO, and is
/// not to have us keep more than that.
fn frame_bytes_max<C>(session: &Session<C>, context: &Context<'_>) -> usize {
    let max = context.policy.frame_bytes_max;
    match session.phase {
        Phase::AwaitingHello if context.policy.auth.is_some() => max.min(HELLO_BYTES_MAX),
        _ => max,
    }
}

/// The length of a HELLO with the longest ticket.
const HELLO_BYTES_MAX: usize = 6 + TICKET_BYTES_MAX;

/// Whether the first frame lets a client in, where it takes more than to connect.
fn check_first(frame: &Frame<'_>, context: &Context<'_>) -> Result<(), CloseReason> {
    let Some(auth) = &context.policy.auth else { return Ok(()) };
    match frame {
        Frame::Hello { token, .. } => auth.admit(token, context.now),
        _ => Err(CloseReason::AuthMissing),
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
    if first {
        check_first(frame, context)?;
    }
    session.phase = Phase::Live;
    match *frame {
        Frame::Ping(payload) => {
            let counted = payload.is_empty() || !is(Mutant::HeartbeatNotCounted);
            context.counters.heartbeats_received += u64::from(counted);
            if context.policy.log_heartbeats {
                tracing::info!(session = %context.id(), bytes = payload.len(), "heartbeat");
            }
            if payload.is_empty() {
                queue_static_pong(session, context)?;
            } else {
                let pong = encode(&Frame::Pong(payload), context.buffers);
                queue_pong(session, pong, context)?;
            }
            flatten(session, context)
        }
        Frame::Pong(_) => {
            context.counters.pongs_received += 1;
            Ok(())
        }
        Frame::Hello { interval_ms, .. } if first => {
            context.counters.hellos_received += 1;
            tracing::debug!(session = %context.id(), interval_ms, "HELLO");
            let Terms { interval_ms, idle_timeout_ms } = context.policy.agree(session, interval_ms);
            session.takes_adjust = true;
            let welcome = Frame::Welcome { session: context.id().0, interval_ms, idle_timeout_ms };
            queue_message(session, encode(&welcome, context.buffers), context)?;
            flatten(session, context)
        }
        Frame::Data(message) => {
            context.counters.data_received += 1;
            tracing::debug!(session = %context.id(), bytes = message.len(), "DATA");
            context.hand_over(message);
            if !context.policy.echo {
                return Ok(());
            }
            context.counters.data_echoed += 1;
            queue_message(session, encode(frame, context.buffers), context)
        }
        Frame::PushAck { id } => {
            context.push_acknowledged(id, session.sending);
            Ok(())
        }
        Frame::Hello { .. }
        | Frame::Welcome { .. }
        | Frame::Push { .. }
        | Frame::GoAway { .. }
        | Frame::Adjust { .. } => Err(CloseReason::IllegalUnexpected),
    }
}

/// Tells a client another time for its next heartbeat, if too many are to come with it.
fn flatten<C>(session: &mut Session<C>, context: &mut Context<'_>) -> Result<(), CloseReason> {
    let Some(Adjustment { terms, next_in_ms }) = adjustment(session, context) else {
        return Ok(());
    };
    let Terms { interval_ms, idle_timeout_ms } = terms;
    let adjust = Frame::Adjust { interval_ms, idle_timeout_ms, next_in_ms };
    queue_message(session, encode(&adjust, context.buffers), context)
}

pub(super) fn encode(frame: &Frame<'_>, buffers: &mut BufferPool) -> Outgoing {
    buffers.write(frame.encoded_bytes(), |bytes| {
        frame.encode(bytes);
    })
}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> CloseReason {
        match error {
            FrameError::LengthZero if is(Mutant::WrongReason) => CloseReason::IllegalOversize,
            FrameError::LengthZero => CloseReason::IllegalLengthZero,
            FrameError::Oversize => CloseReason::IllegalOversize,
            FrameError::KindZero => CloseReason::IllegalKindZero,
            FrameError::KindUnknown => CloseReason::IllegalKindUnknown,
            FrameError::PayloadLength => CloseReason::IllegalPayloadLength,
            FrameError::HelloVersion => CloseReason::IllegalHelloVersion,
        }
    }
}
