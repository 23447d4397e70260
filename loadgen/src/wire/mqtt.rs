//! MQTT 3.1.1 (OASIS standard, 2014) as a client speaks it that keeps its connection alive, and
//! perhaps listens to a topic: CONNECT, SUBSCRIBE, PINGREQ, DISCONNECT, and what answers them.
//!
//! Everything is at QoS 0, so nothing that comes has to be acknowledged or remembered.

use heartwheel::outgoing::Outgoing;

use super::{Illegal, Incoming, Reading, Template};
use crate::limits::PARTIAL_BYTES_MAX;
use crate::plan::mix;
use crate::scenario;

/// Section 3.12.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// Section 3.14.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Section 3.3: `data`, published to the topic `loadgen`.
pub const DATA_PACKET: [u8; 15] = *b"\x30\x0d\x00\x07loadgendata";

/// Sections 3.1, 3.2, 3.3, 3.8, 3.9 and 3.13, with the flags that they must have.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xd0;

/// Of the only SUBSCRIBE that there is on a connection.
const PACKET_ID: [u8; 2] = [0, 1];

/// How clients are known to the server, and what they listen to.
#[derive(Debug)]
pub struct Mqtt {
    seed: u64,
    keepalive_s: u16,
    topic: Option<Template>,
}

/// A packet that is there whole.
struct Packet<'b> {
    /// With its flags.
    kind: u8,
    body: &'b [u8],
    /// Its length, the header included.
    bytes: usize,
}

impl Mqtt {
    /// A server may expire its clients after 1.5 times `keepalive_s` (section 3.1.2.10).
    pub fn new(seed: u64, keepalive_s: u16, topic: Option<Template>) -> Mqtt {
        Mqtt { seed, keepalive_s, topic }
    }

    /// CONNECT, and SUBSCRIBE behind it: nobody has to wait for CONNACK (section 3.1.4).
    pub fn greeting(&self, client: u32) -> Outgoing {
        let id = self.client_id(client);
        let keepalive_s = self.keepalive_s.to_be_bytes();
        // A clean session, and neither a will nor a name with a password.
        let front = [b"\x00\x04MQTT\x04\x02", &keepalive_s[..]].concat();
        let mut bytes = packet(CONNECT, &[&front, &text_length(id.as_bytes()), id.as_bytes()]);
        if let Some(topic) = &self.topic {
            let topic = topic.render(client);
            let body = [&PACKET_ID[..], &text_length(&topic), &topic, &[0]];
            bytes.extend(packet(SUBSCRIBE, &body));
        }
        Outgoing::shared(bytes.into())
    }

    /// Unique, and of the letters and the length that every server must take (section 3.1.3.1).
    fn client_id(&self, client: u32) -> String {
        format!("lg{:012x}{client:08x}", mix(self.seed) >> 16)
    }

    pub fn read(
        &self,
        reading: Reading,
        bytes: &[u8],
        out: &mut Vec<Incoming>,
    ) -> Result<usize, Illegal> {
        let (mut taken, mut opening) = (0, reading.opening);
        while let Some(packet) = parse(&bytes[taken..])? {
            taken += packet.bytes;
            match self.meaning(&packet, opening)? {
                Some(Incoming::Refused(reason)) => {
                    out.push(Incoming::Refused(reason));
                    return Ok(bytes.len());
                }
                Some(incoming) => {
                    opening &= !matches!(incoming, Incoming::Upgraded);
                    out.push(incoming);
                }
                // CONNACK, and SUBACK is still to come.
                None => {}
            }
        }
        Ok(taken)
    }

    fn meaning(&self, packet: &Packet<'_>, opening: bool) -> Result<Option<Incoming>, Illegal> {
        Ok(match (packet.kind, packet.body) {
            (CONNACK, &[0, 0]) if opening && self.topic.is_none() => Some(Incoming::Upgraded),
            (CONNACK, &[0, 0]) if opening => None,
            (CONNACK, &[0, code]) if opening => Some(Incoming::Refused(refusal(code))),
            (SUBACK, [id @ .., 0]) if opening && self.topic.is_some() && *id == PACKET_ID => {
                Some(Incoming::Upgraded)
            }
            (SUBACK, [id @ .., 0x80]) if opening && self.topic.is_some() && *id == PACKET_ID => {
                Some(Incoming::Refused("SUBACK: the topic is refused"))
            }
            (PINGRESP, []) => Some(Incoming::Pong),
            // It may be retained, and there is nothing behind the topic but the message.
            (PUBLISH | 0x31, body) if self.topic.is_some() => {
                Some(Incoming::Push { event: scenario::event_of(message(body)?), receipt: None })
            }
            _ => return Err(Illegal),
        })
    }
}

/// Why a server does not take a client (table 3.1).
fn refusal(code: u8) -> &'static str {
    match code {
        1 => "CONNACK 1: another protocol version is wanted",
        2 => "CONNACK 2: the client id is refused",
        3 => "CONNACK 3: the server is unavailable",
        4 => "CONNACK 4: a user name and a password are wanted",
        5 => "CONNACK 5: not authorized",
        _ => "CONNACK with a code that has no meaning",
    }
}

/// What follows the topic's name at the front of a PUBLISH at QoS 0 (section 3.3).
fn message(body: &[u8]) -> Result<&[u8], Illegal> {
    let (length, rest) = body.split_first_chunk().ok_or(Illegal)?;
    let (name, message) =
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Illegal)?;
    let name = std::str::from_utf8(name).map_err(|_| Illegal)?;
    match name.is_empty() || name.contains(['+', '#', '\0']) {
        true => Err(Illegal),
        false => Ok(message),
    }
}

/// The packet at the front of `bytes`; `None` if it is not there whole.
fn parse(bytes: &[u8]) -> Result<Option<Packet<'_>>, Illegal> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0;
    for (place, &byte) in rest.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let front = 2 + place;
            if front + length > PARTIAL_BYTES_MAX {
                return Err(Illegal);
            }
            let body = bytes.get(front..front + length);
            return Ok(body.map(|body| Packet { kind, body, bytes: front + length }));
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(Illegal) }
}

fn packet(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut length = body.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = vec![kind];
    loop {
        let (low, rest) = ((length & 0x7f) as u8, length >> 7);
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        length = rest;
        if length == 0 {
            break;
        }
    }
    body.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// In front of text (section 1.5.3); ours is short.
fn text_length(text: &[u8]) -> [u8; 2] {
    (text.len() as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rumqttc::{
        ConnAck, Connect, ConnectReturnCode, Packet as Theirs, Publish, QoS, SubAck, Subscribe,
        SubscribeReasonCode,
    };

    use super::super::tests::{expect_the_same_at_every_split, read};
    use super::super::{Buffers, Wire};
    use super::*;

    fn wire(topic: Option<&str>) -> Wire {
        Wire::mqtt(7, 8, topic.map(|topic| Template::parse(topic).unwrap()))
    }

    /// What another implementation reads in our bytes.
    fn theirs(bytes: &[u8]) -> Vec<Theirs> {
        let mut bytes = BytesMut::from(bytes);
        let mut packets = Vec::new();
        while !bytes.is_empty() {
            packets.push(Theirs::read(&mut bytes, 1_000).unwrap());
        }
        packets
    }

    /// What another implementation writes.
    fn written(packets: &[Theirs]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, 1 << 20).unwrap();
        }
        bytes.to_vec()
    }

    fn accepted() -> Theirs {
        Theirs::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))
    }

    fn subscribed(code: SubscribeReasonCode) -> Theirs {
        Theirs::SubAck(SubAck::new(1, vec![code]))
    }

    fn published(payload: &[u8]) -> Theirs {
        Theirs::Publish(Publish::new("a/b", QoS::AtMostOnce, payload))
    }

    #[test]
    fn another_implementation_reads_what_we_say() {
        let buffers = &mut Buffers::default();
        let mut connect = Connect::new(Mqtt::new(7, 8, None).client_id(3));
        connect.keep_alive = 8;
        let greeting = wire(None).greeting(3, buffers).unwrap();
        assert_eq!(theirs(greeting.as_bytes()), [Theirs::Connect(connect.clone())]);

        let listening = wire(Some("a/{client}/#"));
        let mut subscribe = Subscribe::new("a/3/#", QoS::AtMostOnce);
        subscribe.pkid = 1;
        let greeting = listening.greeting(3, buffers).unwrap();
        let expected = [Theirs::Connect(connect), Theirs::Subscribe(subscribe)];
        assert_eq!(theirs(greeting.as_bytes()), expected);

        let rest = [
            listening.heartbeat(3, 1, buffers),
            listening.data(0).unwrap(),
            listening.farewell().unwrap(),
        ];
        let bytes: Vec<u8> = rest.iter().flat_map(|message| message.as_bytes()).copied().collect();
        let publish = Publish::new("loadgen", QoS::AtMostOnce, "data");
        assert_eq!(theirs(&bytes), [Theirs::PingReq, Theirs::Publish(publish), Theirs::Disconnect]);
    }

    #[test]
    fn client_ids_are_unique_and_follow_from_the_seed() {
        let id = |seed, client| Mqtt::new(seed, 8, None).client_id(client);
        assert_eq!(id(1, 5), id(1, 5));
        assert!(id(1, 5) != id(1, 6) && id(1, 5) != id(2, 5));
        let longest = id(u64::MAX, u32::MAX);
        assert!(longest.len() <= 23 && longest.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn we_read_what_another_implementation_says() {
        let bytes = written(&[accepted(), Theirs::PingResp, Theirs::PingResp]);
        let (out, taken) = read(wire(None), true, &bytes).unwrap();
        let [Incoming::Upgraded, Incoming::Pong, Incoming::Pong] = out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(taken, bytes.len());
        expect_the_same_at_every_split(wire(None), true, &bytes);

        let topic = subscribed(SubscribeReasonCode::Success(QoS::AtMostOnce));
        // Long enough for a length of two bytes.
        let long = [&b"push 0002"[..], &[b'x'; 300]].concat();
        let packets = [
            accepted(),
            published(b"hi"),
            topic,
            published(&long),
            Theirs::PingResp,
            published(b""),
        ];
        let bytes = written(&packets);
        let (out, taken) = read(wire(Some("a/#")), true, &bytes).unwrap();
        let [
            Incoming::Push { event: None, receipt: None },
            Incoming::Upgraded,
            Incoming::Push { event: Some(2), receipt: None },
            Incoming::Pong,
            Incoming::Push { event: None, receipt: None },
        ] = out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(taken, bytes.len());
        expect_the_same_at_every_split(wire(Some("a/#")), true, &bytes);
    }

    #[test]
    fn a_refusal_has_its_reason() {
        for (code, expected) in [
            (ConnectReturnCode::RefusedProtocolVersion, "protocol version"),
            (ConnectReturnCode::BadClientId, "client id"),
            (ConnectReturnCode::ServiceUnavailable, "unavailable"),
            (ConnectReturnCode::BadUserNamePassword, "password"),
            (ConnectReturnCode::NotAuthorized, "not authorized"),
        ] {
            let bytes = written(&[Theirs::ConnAck(ConnAck::new(code, false))]);
            let (out, _) = read(wire(None), true, &bytes).unwrap();
            let [Incoming::Refused(reason)] = out[..] else { panic!("{out:?}") };
            assert!(reason.contains(expected), "{code:?}: {reason}");
        }
        let bytes = written(&[accepted(), subscribed(SubscribeReasonCode::Failure)]);
        let (out, _) = read(wire(Some("a")), true, &bytes).unwrap();
        assert!(matches!(out[..], [Incoming::Refused("SUBACK: the topic is refused")]), "{out:?}");
        assert!(matches!(
            read(wire(None), true, &[0x20, 2, 0, 9]).unwrap().0[..],
            [Incoming::Refused("CONNACK with a code that has no meaning")]
        ));
    }

    #[test]
    fn what_no_server_says_is_illegal() {
        let topic = wire(Some("a"));
        for (wire, opening, bytes) in [
            // Twice, out of turn, with a session that was not asked for.
            (wire(None), false, &[0x20, 2, 0, 0][..]),
            (wire(None), true, &[0x90, 3, 0, 1, 0]),
            (wire(None), true, &[0x20, 2, 1, 0]),
            (topic, false, &[0x90, 3, 0, 1, 0]),
            // Another packet id, more than was asked for, another length.
            (topic, true, &[0x90, 3, 0, 2, 0]),
            (topic, true, &[0x90, 3, 0, 1, 1]),
            (topic, true, &[0x90, 4, 0, 1, 0, 0]),
            (topic, true, &[0x20, 1, 0]),
            (topic, false, &[0xd0, 1, 0]),
            // Flags that must not be, a message at QoS 1, a topic that is none.
            (topic, false, &[0xd1, 0]),
            (topic, false, &[0x32, 5, 0, 1, b'a', 0, 1]),
            (topic, false, &[0x30, 2, 0, 0]),
            (topic, false, &[0x30, 3, 0, 1, b'#']),
            (topic, false, &[0x30, 3, 0, 1, 0xff]),
            (topic, false, &[0x30, 3, 0, 2, b'a']),
            (wire(None), false, &[0x30, 3, 0, 1, b'a']),
            // What only clients say, and what means nothing.
            (topic, true, &[0x10, 0]),
            (topic, false, &[0xc0, 0]),
            (topic, false, &[0x00, 0]),
            // Lengths: of five bytes, and beyond what is kept.
            (topic, false, &[0x30, 0xff, 0xff, 0xff, 0xff]),
            (topic, false, &[0x30, 0xff, 0xff, 0x7f]),
        ] {
            assert!(read(wire, opening, bytes).is_err(), "{bytes:02x?}");
        }
    }
}
