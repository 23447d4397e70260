//! WebSocket frames: how the bytes are split changes neither what is heard nor whether they are
//! refused, and nothing is held beyond what has arrived.

use heartwheel::protocol::websocket::{Event, Partial, Reader, Role, Stop, decode};

use crate::{cuts_and_message, parts};

const MESSAGE_BYTES_MAX: usize = 4_096;

/// Reads the message behind the cuts whole and in parts, in both roles.
pub fn check(bytes: &[u8]) {
    let (cuts, message) = cuts_and_message(bytes);
    for role in [Role::Server, Role::Client] {
        let reader = Reader { role, message_bytes_max: MESSAGE_BYTES_MAX };
        let whole = read(&reader, std::iter::once(message));
        assert_eq!(whole, read(&reader, parts(cuts, message)));
        assert_eq!(whole, read(&reader, message.chunks(1)));
    }
}

/// What was heard, and the fault at the end, if there was one.
fn read<'a>(reader: &Reader, parts: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, String) {
    let mut partial: Option<Box<Partial>> = None;
    let mut heard = Vec::new();
    let mut arrived = 0;
    for part in parts {
        arrived += part.len();
        let outcome = decode(reader, &mut partial, part, |event| {
            heard.push(format!("{event:?}"));
            if matches!(event, Event::Close { .. }) { Err(()) } else { Ok(()) }
        });
        let held = partial.as_ref().map_or(0, |partial| partial.held_bytes());
        // What a growing buffer reserves at the most.
        assert!(held <= 2 * arrived + 16, "{held} bytes are held of {arrived} that have come");
        match outcome {
            Ok(()) => {}
            Err(Stop::Fault(error)) => return (heard, format!("{error:?}")),
            Err(Stop::Hearer(())) => return (heard, "closed".to_owned()),
        }
    }
    (heard, String::new())
}
