//! Frames as a client sends them, and a reader that collects what the codec says of bytes.

use heartwheel::protocol::websocket::{Event, Partial, Reader, Role, Stop, WebSocketError, decode};

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Heard {
        match event {
            Event::Text(text) => Heard::Text(text.to_vec()),
            Event::Binary(bytes) => Heard::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Heard::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Heard::Pong(bytes.to_vec()),
            Event::Close { code, reason } => Heard::Close(code, reason.to_vec()),
        }
    }
}

pub const SERVER: Reader = Reader { role: Role::Server, message_bytes_max: 1 << 20 };

/// A session's reading side.
pub struct Ear {
    pub reader: Reader,
    pub partial: Option<Box<Partial>>,
    pub heard: Vec<Heard>,
    pub closed: bool,
}

impl Ear {
    pub fn new(reader: Reader) -> Ear {
        Ear { reader, partial: None, heard: Vec::new(), closed: false }
    }

    pub fn read(&mut self, bytes: &[u8]) -> Result<(), WebSocketError> {
        let heard = &mut self.heard;
        let outcome = decode(&self.reader, &mut self.partial, bytes, |event| {
            heard.push(event.into());
            if matches!(event, Event::Close { .. }) { Err(()) } else { Ok(()) }
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(Stop::Fault(error)) => Err(error),
            Err(Stop::Hearer(())) => {
                self.closed = true;
                Ok(())
            }
        }
    }

    /// Reads all bytes, cut at these places.
    pub fn read_split(&mut self, bytes: &[u8], cuts: &[usize]) -> Result<(), WebSocketError> {
        let mut begin = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let end = cut.clamp(begin, bytes.len());
            if !self.closed {
                self.read(&bytes[begin..end])?;
            }
            begin = end;
        }
        Ok(())
    }
}

/// A client's frame: `first` is the byte of FIN and opcode.
pub fn frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    // The naive way, byte by byte: the oracle of the vectorised one.
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
    bytes
}

pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
