//! What is kept while a frame or a fragmented message is unfinished.

use super::header::{HEADER_BYTES_MAX, Header, Opcode};
use super::utf8::TextCheck;
use super::{Event, Reader, Stop, WebSocketError, event};

/// A header of which a part has come, a frame whose payload is coming, a message that is coming in
/// fragments: whatever is unfinished. Dropped when nothing is.
#[derive(Debug, Default)]
pub struct Partial {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    frame: Option<Frame>,
    /// The payload so far of a control frame, which may come within a message.
    control: Vec<u8>,
    message: Option<Message>,
}

/// The frame whose payload is coming.
#[derive(Debug)]
struct Frame {
    header: Header,
    received_bytes: u64,
}

/// The message whose frames are coming.
#[derive(Debug)]
struct Message {
    opcode: Opcode,
    payload: Vec<u8>,
    check: TextCheck,
}

impl Partial {
    /// Whether nothing is unfinished.
    pub fn is_empty(&self) -> bool {
        self.header_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Whether a frame is unfinished, rather than a message between two of its fragments.
    pub fn is_within_frame(&self) -> bool {
        self.header_bytes > 0 || self.frame.is_some()
    }

    /// Whether a message is unfinished, be it between two of its frames.
    pub fn is_within_message(&self) -> bool {
        self.message.is_some()
    }

    /// How much of a message has come, all its fragments together, in bytes.
    pub fn message_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.payload.len())
    }

    /// The memory that it holds for payloads, in bytes.
    pub fn held_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        message + self.control.capacity()
    }

    /// Reads up to the end of the present frame. The bytes that are left over.
    pub(super) fn read<'b, E>(
        &mut self,
        reader: &Reader,
        bytes: &'b [u8],
        hear: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<&'b [u8], Stop<E>> {
        let rest = match self.frame {
            None => self.read_header(reader, bytes)?,
            Some(_) => bytes,
        };
        let rest = self.read_payload(rest)?;
        let ended = self.frame.take_if(|frame| frame.received_bytes == frame.header.payload_bytes);
        if let Some(frame) = ended {
            self.end_frame(&frame.header, hear)?;
        }
        Ok(rest)
    }

    /// Byte by byte, so that a bad header is refused at its first bad byte.
    fn read_header<'b>(
        &mut self,
        reader: &Reader,
        bytes: &'b [u8],
    ) -> Result<&'b [u8], WebSocketError> {
        let gathered_bytes = self.message.as_ref().map(|message| message.payload.len());
        for (index, byte) in bytes.iter().enumerate() {
            self.header[usize::from(self.header_bytes)] = *byte;
            self.header_bytes += 1;
            let known = &self.header[..usize::from(self.header_bytes)];
            let Some((header, _)) = Header::parse(known, reader, gathered_bytes)? else { continue };
            self.header_bytes = 0;
            self.begin_frame(header);
            return Ok(&bytes[index + 1..]);
        }
        Ok(&[])
    }

    fn begin_frame(&mut self, header: Header) {
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            let check = TextCheck::default();
            self.message = Some(Message { opcode: header.opcode, payload: Vec::new(), check });
        }
        self.frame = Some(Frame { header, received_bytes: 0 });
    }

    /// Takes what belongs to the present frame, unmasked while it is moved.
    fn read_payload<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], WebSocketError> {
        let Some(frame) = &mut self.frame else { return Ok(bytes) };
        let missing = frame.header.payload_bytes - frame.received_bytes;
        let count = bytes.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
        let (piece, rest) = bytes.split_at(count);
        let payload = match (&mut self.message, frame.header.opcode.is_control()) {
            (Some(message), false) => &mut message.payload,
            _ => &mut self.control,
        };
        let begin = payload.len();
        payload.extend_from_slice(piece);
        frame.header.unmask(&mut payload[begin..], (frame.received_bytes % 4) as usize);
        frame.received_bytes += count as u64;
        if let (Some(message), false) = (&mut self.message, frame.header.opcode.is_control())
            && message.opcode == Opcode::Text
        {
            message.check.read(&message.payload[begin..])?;
        }
        Ok(rest)
    }

    fn end_frame<E>(
        &mut self,
        header: &Header,
        hear: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        if header.opcode.is_control() {
            let payload = std::mem::take(&mut self.control);
            return hear(event(header.opcode, &payload)?).map_err(Stop::Hearer);
        }
        if !header.fin {
            return Ok(());
        }
        let Some(message) = self.message.take() else { return Ok(()) };
        if message.opcode == Opcode::Text {
            message.check.end()?;
        }
        hear(event(message.opcode, &message.payload)?).map_err(Stop::Hearer)
    }
}
