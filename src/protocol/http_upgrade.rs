//! The opening handshake of a WebSocket: RFC 6455 section 4, by RFC 9110 and 9112.
//!
//! Invariant: nothing is accepted that the RFC tells to refuse, and whatever is refused gets an
//! answer that says why, by status: 400 a malformed request or key, 405 another method than GET,
//! 426 no upgrade, or another version than 13; 431 a header over the limit.
//! Cost: a few allocations per connection; nothing is kept once it is a WebSocket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Request, Response, Status};

use crate::limits::{UPGRADE_HEADER_BYTES_MAX, UPGRADE_HEADERS_MAX};

/// What the key is hashed with (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade<'b> {
    /// The header has not ended yet.
    Incomplete,
    /// A request that is granted.
    Accepted {
        /// The answer to send; what is sent after it is WebSocket.
        response: Vec<u8>,
        /// The length of the request: the bytes behind it are WebSocket already.
        request_bytes: usize,
        /// What the client asks for beside.
        asked: Asked<'b>,
    },
    /// A request that is not granted: send the answer and close.
    Refused {
        /// The status.
        status: u16,
        /// The answer.
        response: Vec<u8>,
    },
}

/// What a client asks for beside the upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'b> {
    /// The heartbeat interval that it would like (`?heartbeat=30s`), in milliseconds; 0 leaves it
    /// to the server.
    pub heartbeat_ms: u32,
    /// Whether it wants to be told its terms by messages (`?adjust=1`), now and whenever they
    /// change.
    pub adjust: bool,
    /// What it brings to prove itself (`Authorization: Bearer …`, or `?token=…`); may be empty.
    pub token: &'b [u8],
}

/// Reads a client's request; `bytes` are all that have come so far.
pub fn read_request(bytes: &[u8]) -> Upgrade<'_> {
    let mut headers = [EMPTY_HEADER; UPGRADE_HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(request_bytes)) if request_bytes <= UPGRADE_HEADER_BYTES_MAX => {
            match check(&request).and_then(|key| Ok((key, asked(&request)?))) {
                Ok((key, asked)) => {
                    Upgrade::Accepted { response: accept(key), request_bytes, asked }
                }
                Err((status, why)) => refuse(status, why),
            }
        }
        Ok(Status::Partial) if bytes.len() < UPGRADE_HEADER_BYTES_MAX => {
            // A method that is known to be wrong need not be waited for.
            match request.method {
                Some(method) if method != "GET" => refuse(405, "only GET can be upgraded"),
                _ => Upgrade::Incomplete,
            }
        }
        Ok(_) => refuse(431, "the header is too large"),
        Err(httparse::Error::TooManyHeaders) => refuse(431, "too many header fields"),
        Err(httparse::Error::Version) => refuse(400, "HTTP/1.1 is needed"),
        Err(_) => refuse(400, "this is no HTTP request"),
    }
}

/// The client's key, if the request is all that section 4.2.1 asks for.
fn check<'b>(request: &Request<'_, 'b>) -> Result<&'b [u8], (u16, &'static str)> {
    if request.method != Some("GET") {
        return Err((405, "only GET can be upgraded"));
    }
    if request.version != Some(1) {
        return Err((400, "HTTP/1.1 is needed"));
    }
    if values(request, "host").count() != 1 {
        return Err((400, "exactly one Host is needed"));
    }
    if values(request, "content-length").any(|length| length != b"0")
        || values(request, "transfer-encoding").next().is_some()
    {
        return Err((400, "an upgrade has no body"));
    }
    if !has_token(request, "upgrade", "websocket") {
        return Err((426, "this is a WebSocket server: Upgrade: websocket is needed"));
    }
    if !has_token(request, "connection", "upgrade") {
        return Err((400, "Connection: Upgrade is needed"));
    }
    let mut versions = values(request, "sec-websocket-version");
    if versions.next() != Some(b"13") || versions.next().is_some() {
        return Err((426, "Sec-WebSocket-Version: 13 is needed"));
    }
    let mut keys = values(request, "sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(key),
        _ => Err((400, "exactly one Sec-WebSocket-Key of 16 bytes in base64 is needed")),
    }
}

/// What stands in the query, and in Authorization.
fn asked<'b>(request: &Request<'_, 'b>) -> Result<Asked<'b>, (u16, &'static str)> {
    let mut asked = Asked::default();
    let query = request.path.and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "heartbeat" => {
                asked.heartbeat_ms = heartbeat_ms(value)
                    .ok_or((400, "heartbeat is a duration, like 30s or 1500ms"))?;
            }
            "adjust" => match value {
                "1" => asked.adjust = true,
                "0" => asked.adjust = false,
                _ => return Err((400, "adjust is 0 or 1")),
            },
            "token" => asked.token = value.as_bytes(),
            _ => {}
        }
    }
    let mut authorizations = values(request, "authorization");
    if let Some(authorization) = authorizations.next() {
        let bearer = authorization
            .split_first_chunk::<7>()
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        // Another scheme proves nothing, and is malformed where something has to be proven.
        asked.token = bearer.map_or(authorization, |(_, token)| token.trim_ascii());
    }
    Ok(asked)
}

/// A duration in whole milliseconds, rounded up.
fn heartbeat_ms(text: &str) -> Option<u32> {
    let duration = humantime::parse_duration(text).ok()?;
    Some(u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX))
}

/// Whether this is the base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

fn values<'r, 'b>(
    request: &'r Request<'_, 'b>,
    name: &'static str,
) -> impl Iterator<Item = &'b [u8]> + use<'r, 'b> {
    values_in(request.headers, name)
}

fn values_in<'r, 'b>(
    headers: &'r [httparse::Header<'b>],
    name: &'static str,
) -> impl Iterator<Item = &'b [u8]> + use<'r, 'b> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

fn has_token(request: &Request<'_, '_>, name: &'static str, token: &str) -> bool {
    has_token_in(request.headers, name, token)
}

/// Whether one of the comma-separated values of a field is `token`, in whatever case.
fn has_token_in(headers: &[httparse::Header<'_>], name: &'static str, token: &str) -> bool {
    values_in(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What proves that a server has understood `key` (section 4.2.2).
fn accept_value(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.digest().bytes())
}

fn accept(key: &[u8]) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_value(key)
    )
    .into_bytes()
}

/// Adds a field to an answer, at its end.
pub fn add_field(response: &mut Vec<u8>, name: &str, value: u32) {
    response.truncate(response.len() - 2);
    response.extend_from_slice(format!("{name}: {value}\r\n\r\n").as_bytes());
}

fn refuse(status: u16, why: &str) -> Upgrade<'static> {
    Upgrade::Refused { status, response: refusal(status, why) }
}

/// The answer that refuses a request with this status.
pub fn refusal(status: u16, why: &str) -> Vec<u8> {
    let (phrase, more) = match status {
        401 => ("Unauthorized", "WWW-Authenticate: Bearer\r\n"),
        405 => ("Method Not Allowed", "Allow: GET\r\n"),
        426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        431 => ("Request Header Fields Too Large", ""),
        _ => ("Bad Request", ""),
    };
    let connection = if status == 426 { "Upgrade, close" } else { "close" };
    let length = why.len() + 1;
    format!(
        "HTTP/1.1 {status} {phrase}\r\nConnection: {connection}\r\n{more}\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{why}\n"
    )
    .into_bytes()
}

/// A client's request for `path` on `host`, with a key made of 16 random bytes (section 4.1).
pub fn request(host: &str, path: &str, nonce: [u8; 16]) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        STANDARD.encode(nonce)
    )
    .into_bytes()
}

/// Why a client does not take a server's answer for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not HTTP, or too long.
    #[error("the answer is no HTTP response")]
    Malformed,
    /// Another status than 101.
    #[error("the server answers with status {0}")]
    Status(u16),
    /// Upgrade, Connection or Sec-WebSocket-Accept are missing or wrong.
    #[error("the answer does not prove that the server speaks WebSocket")]
    Unproven,
    /// An extension or a subprotocol that was not asked for.
    #[error("the server chooses what was not offered")]
    Unasked,
}

/// Reads a server's answer to [`request`]: the length of its header when it is there whole.
///
/// # Errors
/// If it is not the answer that section 4.1 asks for.
pub fn read_response(bytes: &[u8], nonce: [u8; 16]) -> Result<Option<usize>, ResponseError> {
    let mut headers = [EMPTY_HEADER; UPGRADE_HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let header_bytes = match response.parse(bytes) {
        Ok(Status::Complete(header_bytes)) => header_bytes,
        Ok(Status::Partial) if bytes.len() < UPGRADE_HEADER_BYTES_MAX => return Ok(None),
        _ => return Err(ResponseError::Malformed),
    };
    match response.code {
        Some(101) => {}
        code => return Err(ResponseError::Status(code.unwrap_or(0))),
    }
    let headers = &*response.headers;
    let mut accepts = values_in(headers, "sec-websocket-accept");
    let expected = accept_value(STANDARD.encode(nonce).as_bytes());
    let proven = accepts.next() == Some(expected.as_bytes())
        && accepts.next().is_none()
        && has_token_in(headers, "upgrade", "websocket")
        && has_token_in(headers, "connection", "upgrade");
    if !proven {
        return Err(ResponseError::Unproven);
    }
    let unasked = ["sec-websocket-extensions", "sec-websocket-protocol"];
    if unasked.iter().any(|name| values_in(headers, name).next().is_some()) {
        return Err(ResponseError::Unasked);
    }
    Ok(Some(header_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_section_1_3() {
        assert_eq!(accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn client_and_server_agree() {
        let nonce = *b"0123456789abcdef";
        let request = request("localhost", "/", nonce);
        let Upgrade::Accepted { response, request_bytes, .. } = read_request(&request) else {
            panic!("refused")
        };
        assert_eq!(request_bytes, request.len());
        assert_eq!(read_response(&response, nonce), Ok(Some(response.len())));
        assert_eq!(read_response(&response, [7; 16]), Err(ResponseError::Unproven));
    }
}
