//! Replies to heartbeats without a payload: static memory, as many as one session may have
//! waiting, so that a burst is answered by one send that allocates nothing.

use crate::limits::PENDING_PONGS_MAX;
use crate::protocol::Protocol;
use crate::protocol::frame;
use crate::protocol::websocket;

static TCP: [u8; frame::PONG.len() * PENDING_PONGS_MAX as usize] = repeat(&frame::PONG);
static WEBSOCKET: [u8; websocket::TEXT_PONG.len() * PENDING_PONGS_MAX as usize] =
    repeat(&websocket::TEXT_PONG);

const _: () = assert!(
    TCP.len() <= u8::MAX as usize && WEBSOCKET.len() <= u8::MAX as usize,
    "`Sending::Pongs::skip` is a u8"
);

const fn repeat<const N: usize>(pong: &[u8]) -> [u8; N] {
    let mut pongs = [0; N];
    let mut at = 0;
    while at < N {
        pongs[at] = pong[at % pong.len()];
        at += 1;
    }
    pongs
}

/// `count` replies, but for the first `skip` bytes of them.
pub(super) fn pongs(protocol: Protocol, count: u8, skip: usize) -> &'static [u8] {
    let count = usize::from(count);
    match protocol {
        Protocol::Tcp => &TCP[skip..count * frame::PONG.len()],
        Protocol::WebSocket => &WEBSOCKET[skip..count * websocket::TEXT_PONG.len()],
    }
}
