//! Why sessions end, and why connections never become sessions. Each is counted.

/// Declares an enum whose values have names for counters and reports.
macro_rules! named {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in counters and reports.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

named! {
    /// Why a session was closed.
    CloseReason {
        /// The peer closed, or closed its sending side.
        PeerClosed = "peer_closed",
        /// The peer reset the connection, or TCP gave it up.
        PeerReset = "peer_reset",
        /// Silent for the idle timeout.
        Expired = "expired",
        /// No complete first frame within the hello timeout.
        HelloTimeout = "hello_timeout",
        /// A frame was begun and not completed within the frame timeout.
        FrameTimeout = "frame_timeout",
        /// The peer did not read for the stall timeout.
        StallTimeout = "stall_timeout",
        /// A frame of length 0.
        IllegalLengthZero = "illegal_length_zero",
        /// A frame of kind 0.
        IllegalKindZero = "illegal_kind_zero",
        /// A frame of an unknown kind.
        IllegalKindUnknown = "illegal_kind_unknown",
        /// A frame over `--max-frame`.
        IllegalOversize = "illegal_oversize",
        /// A payload that is too short or too long for its kind.
        IllegalPayloadLength = "illegal_payload_length",
        /// A HELLO of another version.
        IllegalHelloVersion = "illegal_hello_version",
        /// A frame that only servers send, or a HELLO that was not the first frame.
        IllegalUnexpected = "illegal_unexpected",
        /// No upgrade request, or one that is malformed.
        HttpBadRequest = "http_bad_request",
        /// An upgrade request with another method than GET.
        HttpMethod = "http_method",
        /// An HTTP request that is no upgrade, or one for another version of WebSocket.
        HttpUpgradeRequired = "http_upgrade_required",
        /// An upgrade request over the limit.
        HttpHeaderTooLarge = "http_header_too_large",
        /// A WebSocket frame with reserved bits set.
        WsReservedBits = "ws_reserved_bits",
        /// A frame with an opcode that means nothing.
        WsUnknownOpcode = "ws_unknown_opcode",
        /// A frame that is not masked.
        WsUnmasked = "ws_unmasked",
        /// A control frame in fragments.
        WsControlFragmented = "ws_control_fragmented",
        /// A control frame over 125 bytes.
        WsControlTooLong = "ws_control_too_long",
        /// A continuation of nothing.
        WsContinuationWithoutStart = "ws_continuation_without_start",
        /// A message that began before the last one had ended.
        WsMessageWithinMessage = "ws_message_within_message",
        /// A length that is not encoded minimally.
        WsLengthEncoding = "ws_length_encoding",
        /// A message over `--max-frame`.
        WsTooBig = "ws_too_big",
        /// Text, or the reason of a close, that is not UTF-8.
        WsBadUtf8 = "ws_bad_utf8",
        /// A close with half a code.
        WsCloseLength = "ws_close_length",
        /// A close with a code that must not be sent.
        WsCloseCode = "ws_close_code",
        /// More heartbeats than replies may wait.
        PingFlood = "ping_flood",
        /// More bytes waited for the client than `--send-queue` allows.
        SendQueueFull = "send_queue_full",
        /// Closed by way of the control plane.
        Kicked = "kicked",
        /// The server is stopping.
        ServerStopping = "server_stopping",
        /// Nothing to be let in by, where `--auth-key` asks for a ticket.
        AuthMissing = "auth_missing",
        /// A token that has not the form of a ticket.
        AuthMalformed = "auth_malformed",
        /// A ticket that was made with none of the keys.
        AuthForged = "auth_forged",
        /// A ticket whose time is over.
        AuthExpired = "auth_expired",
        /// A ticket for one use that was used before.
        AuthReplayed = "auth_replayed",
        /// A ticket for one use, when no more of them can be remembered.
        AuthSpentFull = "auth_spent_full",
        /// No PROXY header, or a malformed one, from a peer that must send one.
        ProxyMalformed = "proxy_malformed",
        /// The proxy speaks for an address that has `--max-per-ip` sessions already.
        MaxPerIp = "max_per_ip",
    }
}

named! {
    /// Why a push never reached the kernel.
    PushDrop {
        /// The session was closed before all of it was written.
        SessionClosed = "session_closed",
        /// So much waited for the client already that it did not fit into `--send-queue`.
        SendQueueFull = "send_queue_full",
    }
}

named! {
    /// Why an accepted connection did not become a session.
    Refusal {
        /// `--max-connections` are open.
        MaxConnections = "max_connections",
        /// The table of the ring that accepted it was full.
        RingFull = "ring_full",
        /// The server is stopping.
        Stopping = "stopping",
        /// `--max-per-ip` sessions of its address are open.
        MaxPerIp = "max_per_ip",
        /// More came than `--accept-rate` allows.
        AcceptRate = "accept_rate",
        /// The process has more memory than `--memory-limit`.
        MemoryLimit = "memory_limit",
        /// The kernel did not tell from where it came, and a limit depends on that.
        AddressUnknown = "address_unknown",
    }
}
