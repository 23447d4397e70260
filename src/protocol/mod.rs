//! Pure codecs over byte slices: they see bytes and give back meaning, and own nothing.

pub mod address;
pub mod frame;
pub mod http_upgrade;
pub mod proxy;
pub mod ticket;
pub mod websocket;

/// What a listener speaks, and all that it has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Frames of our own on TCP.
    Tcp,
    /// RFC 6455.
    WebSocket,
}

impl Protocol {
    /// Both of them.
    pub const ALL: [Protocol; 2] = [Protocol::Tcp, Protocol::WebSocket];

    /// The scheme of its URLs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::WebSocket => "ws",
        }
    }
}
