//! What this generator speaks: more than its own server does.

/// A protocol, by the scheme of its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// heartwheel's length-prefixed frames over TCP.
    Tcp,
    /// RFC 6455.
    WebSocket,
    /// MQTT 3.1.1 over TCP.
    Mqtt,
    /// Lines over TCP, given as templates.
    TcpLine,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 4] =
        [Protocol::Tcp, Protocol::WebSocket, Protocol::Mqtt, Protocol::TcpLine];

    /// The scheme of its targets, and its name in a report.
    pub const fn scheme(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::WebSocket => "ws",
            Protocol::Mqtt => "mqtt",
            Protocol::TcpLine => "tcp-line",
        }
    }

    /// The port that everybody knows, where there is one.
    pub const fn port(self) -> Option<u16> {
        match self {
            Protocol::WebSocket => Some(80),
            Protocol::Mqtt => Some(1_883),
            Protocol::Tcp | Protocol::TcpLine => None,
        }
    }

    /// Whether heartwheel speaks it too, so that it can be started here.
    pub const fn is_own(self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::WebSocket)
    }
}
