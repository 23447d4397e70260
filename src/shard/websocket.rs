//! What a session does with the bytes of a WebSocket: first the upgrade, then messages.

use std::time::Duration;

use super::closing::End;
use super::context::Context;
use super::output::{BufferPool, queue_message, queue_pong, queue_static_pong};
use super::terms::{Adjustment, Terms, adjustment};
use crate::limits::{MESSAGE_PROGRESS_BYTES, PING_PAYLOAD_BYTES_MAX};
use crate::outgoing::Outgoing;
use crate::protocol::http_upgrade::{Upgrade, add_field, read_request, refusal};
use crate::protocol::websocket::{
    Event, HEADER_BYTES_MAX, Opcode, Partial as Decoding, Reader, Role, Stop, TEXT_PING,
    WebSocketError, close_code, decode, encode_header,
};
use crate::session::{CloseReason, Partial, Phase, Session, Unfinished};

/// Handles all that `bytes` complete, and keeps what is unfinished.
///
/// # Errors
/// Why, and how, the session has to end.
pub(super) fn receive<C>(
    session: &mut Session<C>,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Result<(), End> {
    match session.phase {
        Phase::AwaitingHello => upgrade(session, bytes, context),
        _ => read_messages(session, bytes, context),
    }
}

/// Reads on in the request; what follows it in the same bytes is WebSocket already.
fn upgrade<C>(
    session: &mut Session<C>,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Result<(), End> {
    let due = context.now + context.policy.frame_timeout;
    let (gathered, due) = match session.partial.take().map(|partial| *partial) {
        Some(Partial { unfinished: Unfinished::Bytes(mut front), due }) => {
            front.extend_from_slice(bytes);
            (Some(front), due)
        }
        _ => (None, due),
    };
    let request = gathered.as_deref().unwrap_or(bytes);
    match read_request(request) {
        Upgrade::Incomplete => {
            let unfinished = Unfinished::Bytes(gathered.unwrap_or_else(|| bytes.to_vec()));
            session.partial = Some(Box::new(Partial { unfinished, due }));
            Ok(())
        }
        Upgrade::Accepted { mut response, request_bytes, asked } => {
            if let Some(auth) = &context.policy.auth
                && let Err(reason) = auth.admit(asked.token, context.now)
            {
                let refusal = refusal(401, reason.name());
                return Err(End::Part(reason, raw(&refusal, context.buffers)));
            }
            context.counters.upgrades += 1;
            session.phase = Phase::Live;
            let Terms { interval_ms, idle_timeout_ms } =
                context.policy.agree(session, asked.heartbeat_ms);
            add_field(&mut response, "Heartbeat-Interval-Ms", interval_ms);
            add_field(&mut response, "Idle-Timeout-Ms", idle_timeout_ms);
            queue_message(session, raw(&response, context.buffers), context)?;
            session.takes_adjust = asked.adjust;
            if asked.adjust {
                greet(session, Terms { interval_ms, idle_timeout_ms }, context)?;
            }
            read_messages(session, &request[request_bytes..], context)
        }
        Upgrade::Refused { status, response } => {
            let reason = match status {
                405 => CloseReason::HttpMethod,
                426 => CloseReason::HttpUpgradeRequired,
                431 => CloseReason::HttpHeaderTooLarge,
                _ => CloseReason::HttpBadRequest,
            };
            Err(End::Part(reason, raw(&response, context.buffers)))
        }
    }
}

fn read_messages<C>(
    session: &mut Session<C>,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Result<(), End> {
    let reader = Reader { role: Role::Server, message_bytes_max: context.policy.frame_bytes_max };
    let (mut decoding, begun_due) = take_decoding(session);
    let progress_before = progress(decoding.as_deref());
    let within_message = decoding.as_ref().is_some_and(|decoding| decoding.is_within_message());
    let mut has_ended = false;
    let outcome = decode(&reader, &mut decoding, bytes, |event| {
        // A control frame within a message ends nothing but itself.
        has_ended |= !within_message || matches!(event, Event::Text(_) | Event::Binary(_));
        handle(session, event, context)
    });
    match outcome {
        Ok(()) => {}
        Err(Stop::Hearer(end)) => return Err(end),
        Err(Stop::Fault(error)) => {
            let farewell = close_frame(error.close_code(), "", context.buffers);
            return Err(End::Part(error.into(), farewell));
        }
    }
    if let Some(decoding) = decoding {
        // What was begun after something else had ended has all its time, and a large message has
        // it anew while it makes progress.
        let going_on = !has_ended && progress(Some(&decoding)) == progress_before;
        let due = begun_due.filter(|_| going_on);
        let due = due.unwrap_or(context.now + context.policy.frame_timeout);
        let unfinished = Unfinished::Message(decoding);
        session.partial = Some(Box::new(Partial { unfinished, due }));
    }
    Ok(())
}

/// How far an unfinished message has come, in steps of [`MESSAGE_PROGRESS_BYTES`].
fn progress(decoding: Option<&Decoding>) -> usize {
    decoding.map_or(0, |decoding| decoding.message_bytes() / MESSAGE_PROGRESS_BYTES)
}

fn take_decoding<C>(
    session: &mut Session<C>,
) -> (Option<Box<Decoding>>, Option<crate::time::Timestamp>) {
    match session.partial.take().map(|partial| *partial) {
        Some(Partial { unfinished: Unfinished::Message(decoding), due }) => {
            (Some(decoding), Some(due))
        }
        _ => (None, None),
    }
}

/// Does what one message or control frame asks for.
fn handle<C>(
    session: &mut Session<C>,
    event: Event<'_>,
    context: &mut Context<'_>,
) -> Result<(), End> {
    context.counters.frames_received += 1;
    let outcome = match event {
        Event::Text(TEXT_PING) => {
            note_heartbeat(TEXT_PING.len(), context);
            queue_static_pong(session, context).and_then(|()| flatten(session, context))
        }
        Event::Ping(payload) => {
            note_heartbeat(payload.len(), context);
            let pong = frame(Opcode::Pong, payload, context.buffers);
            queue_pong(session, pong, context).and_then(|()| flatten(session, context))
        }
        Event::Pong(_) => {
            context.counters.pongs_received += 1;
            Ok(())
        }
        Event::Text(message) => data(session, Opcode::Text, message, context),
        Event::Binary(message) => data(session, Opcode::Binary, message, context),
        Event::Close { code, .. } => {
            let farewell = match code {
                Some(code) => close_frame(code, "", context.buffers),
                None => frame(Opcode::Close, &[], context.buffers),
            };
            return Err(End::Part(CloseReason::PeerClosed, farewell));
        }
    };
    outcome.map_err(|reason| match reason {
        CloseReason::PingFlood => {
            End::Part(reason, close_frame(close_code::POLICY_VIOLATION, "", context.buffers))
        }
        _ => End::Close(reason),
    })
}

/// Tells a client its terms in a message: a page in a browser cannot see the fields of the upgrade.
fn greet<C>(
    session: &mut Session<C>,
    terms: Terms,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    let planned = context.calendar.as_mut().and_then(|calendar| {
        calendar.plan(context.now, Duration::from_millis(terms.interval_ms.into()))
    });
    context.counters.adjusts_sent += 1;
    let next_in_ms = planned.map_or(terms.interval_ms, |next_in| next_in.as_millis() as u32);
    tell(session, Adjustment { terms, next_in_ms }, context)
}

/// Tells a client another time for its next heartbeat, if too many are to come with it.
fn flatten<C>(session: &mut Session<C>, context: &mut Context<'_>) -> Result<(), CloseReason> {
    adjustment(session, context).map_or(Ok(()), |adjustment| tell(session, adjustment, context))
}

fn tell<C>(
    session: &mut Session<C>,
    Adjustment { terms, next_in_ms }: Adjustment,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    let Terms { interval_ms, idle_timeout_ms } = terms;
    let text = format!(
        "{{\"adjust\":{{\"interval_ms\":{interval_ms},\"idle_timeout_ms\":{idle_timeout_ms},\
         \"next_in_ms\":{next_in_ms}}}}}"
    );
    queue_message(session, frame(Opcode::Text, text.as_bytes(), context.buffers), context)
}

fn note_heartbeat(bytes: usize, context: &mut Context<'_>) {
    context.counters.heartbeats_received += 1;
    if context.policy.log_heartbeats {
        tracing::info!(session = %context.id(), bytes, "heartbeat");
    }
}

fn data<C>(
    session: &mut Session<C>,
    opcode: Opcode,
    message: &[u8],
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    context.counters.data_received += 1;
    tracing::debug!(session = %context.id(), bytes = message.len(), "message");
    context.hand_over(message);
    if !context.policy.echo {
        return Ok(());
    }
    context.counters.data_echoed += 1;
    queue_message(session, frame(opcode, message, context.buffers), context)
}

/// A whole frame, as a server sends it.
fn frame(opcode: Opcode, payload: &[u8], buffers: &mut BufferPool) -> Outgoing {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_bytes = encode_header(opcode, payload.len() as u64, None, &mut header);
    buffers.write(header_bytes + payload.len(), |bytes| {
        bytes[..header_bytes].copy_from_slice(&header[..header_bytes]);
        bytes[header_bytes..].copy_from_slice(payload);
    })
}

/// The good-bye with this code, and in words; they are cut to what a control frame holds.
pub(super) fn close_frame(code: u16, reason: &str, buffers: &mut BufferPool) -> Outgoing {
    let mut payload = [0; PING_PAYLOAD_BYTES_MAX];
    let most = reason.len().min(PING_PAYLOAD_BYTES_MAX - 2);
    let reason_bytes = (0..=most).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason_bytes].copy_from_slice(&reason.as_bytes()[..reason_bytes]);
    frame(Opcode::Close, &payload[..2 + reason_bytes], buffers)
}

fn raw(bytes: &[u8], buffers: &mut BufferPool) -> Outgoing {
    buffers.write(bytes.len(), |out| out.copy_from_slice(bytes))
}

impl From<WebSocketError> for CloseReason {
    fn from(error: WebSocketError) -> CloseReason {
        match error {
            WebSocketError::ReservedBits => CloseReason::WsReservedBits,
            WebSocketError::UnknownOpcode => CloseReason::WsUnknownOpcode,
            WebSocketError::Unmasked | WebSocketError::Masked => CloseReason::WsUnmasked,
            WebSocketError::ControlFragmented => CloseReason::WsControlFragmented,
            WebSocketError::ControlTooLong => CloseReason::WsControlTooLong,
            WebSocketError::ContinuationWithoutStart => CloseReason::WsContinuationWithoutStart,
            WebSocketError::MessageWithinMessage => CloseReason::WsMessageWithinMessage,
            WebSocketError::LengthEncoding => CloseReason::WsLengthEncoding,
            WebSocketError::TooBig => CloseReason::WsTooBig,
            WebSocketError::BadUtf8 => CloseReason::WsBadUtf8,
            WebSocketError::CloseLength => CloseReason::WsCloseLength,
            WebSocketError::CloseCode => CloseReason::WsCloseCode,
        }
    }
}
