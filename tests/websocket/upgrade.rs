//! The opening handshake: RFC 6455 section 4.2.1, requirement by requirement.

use heartwheel::protocol::http_upgrade::{
    ResponseError, Upgrade, read_request, read_response, request,
};

const GOOD: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn status(request: &str) -> u16 {
    match read_request(request.as_bytes()) {
        Upgrade::Accepted { .. } => 101,
        Upgrade::Refused { status, response } => {
            let text = String::from_utf8(response).expect("an answer is text");
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(text.contains("close\r\n"), "{text}");
            status
        }
        Upgrade::Incomplete => 0,
    }
}

#[test]
fn a_good_request_is_granted_and_what_follows_is_left() {
    let bytes = [GOOD.as_bytes(), &[0x81, 0x80]].concat();
    let Upgrade::Accepted { response, request_bytes, .. } = read_request(&bytes) else {
        panic!("refused")
    };
    assert_eq!(request_bytes, GOOD.len());
    let text = String::from_utf8(response).expect("an answer is text");
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
    assert!(!text.contains("Extensions"), "none is offered");
}

#[test]
fn until_it_has_ended_a_request_is_incomplete() {
    for end in 0..GOOD.len() {
        assert_eq!(read_request(&GOOD.as_bytes()[..end]), Upgrade::Incomplete, "{end}");
    }
}

#[test]
fn case_and_lists_as_http_has_them() {
    let firefox = "Connection: keep-alive, Upgrade\r\n";
    assert_eq!(status(&GOOD.replace("Connection: Upgrade\r\n", firefox)), 101);
    assert_eq!(status(&GOOD.replace("Upgrade: websocket", "UPGRADE:   WebSocket  ")), 101);
    assert_eq!(status(&GOOD.replace("Upgrade: websocket", "Upgrade: h2c, websocket")), 101);
}

#[test]
fn whatever_the_rfc_requires_is_required() {
    let cases: [(&str, &str, u16); 17] = [
        ("GET /chat", "POST /chat", 405),
        ("GET /chat", "get /chat", 405),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("HTTP/1.1", "HTTP/2.0", 400),
        ("Host: server.example.com\r\n", "", 400),
        ("Host: server.example.com\r\n", "Host: a\r\nHost: b\r\n", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket\r\n", "Upgrade: websockets\r\n", 426),
        ("Connection: Upgrade\r\n", "", 400),
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\n", 400),
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!!!!!!", 400),
        ("Origin:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin:", 400),
        ("Origin:", "Content-Length: 5\r\nOrigin:", 400),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        assert_eq!(status(&GOOD.replace(from, to)), expected, "{from:?} -> {to:?}");
    }
}

#[test]
fn refusals_carry_the_fields_that_http_asks_for() {
    let answer = |from: &str, to: &str| match read_request(GOOD.replace(from, to).as_bytes()) {
        Upgrade::Refused { response, .. } => String::from_utf8(response).expect("text"),
        other => panic!("{other:?}"),
    };
    assert!(answer("GET /", "PUT /").contains("\r\nAllow: GET\r\n"));
    let other_version = answer("Version: 13", "Version: 12");
    assert!(other_version.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{other_version}");
    assert!(other_version.contains("\r\nUpgrade: websocket\r\n"), "{other_version}");
}

#[test]
fn noise_is_refused_early_and_a_dribble_is_bounded() {
    assert_eq!(status("\u{1}\u{2}\u{3}"), 400);
    assert_eq!(status("POST "), 405, "from the method alone");
    assert_eq!(status(&GOOD.replace("Origin: ", &format!("Origin: {}", "x".repeat(9_000)))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(9_000))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(100))), 431);
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[test]
fn section_4_1_a_client_checks_the_answer() {
    let nonce = *b"0123456789abcdef";
    let Upgrade::Accepted { response, .. } = read_request(&request("x", "/", nonce)) else {
        panic!("refused")
    };
    let good = String::from_utf8(response).expect("text");
    let answer = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        read_response(good.replace(from, to).as_bytes(), nonce)
    };
    assert_eq!(answer("websocket", "WebSocket"), Ok(Some(good.len())));
    assert_eq!(answer("101 Switching Protocols", "200 OK"), Err(ResponseError::Status(200)));
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n"),
        ("Connection: Upgrade\r\n", ""),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"),
        ("Sec-WebSocket-Accept: ", "X-Accept: "),
    ] {
        assert_eq!(answer(from, to), Err(ResponseError::Unproven), "{from:?} -> {to:?}");
    }
    for unasked in ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat"]
    {
        let with = format!("{unasked}\r\nConnection: Upgrade\r\n");
        assert_eq!(answer("Connection: Upgrade\r\n", &with), Err(ResponseError::Unasked));
    }
    assert_eq!(read_response(&[0, 1, 2], nonce), Err(ResponseError::Malformed));
}

#[test]
fn section_4_2_1_optional_fields_change_nothing() {
    let granted = |to: &str| match read_request(GOOD.replace("Origin:", to).as_bytes()) {
        Upgrade::Accepted { response, .. } => String::from_utf8(response).expect("text"),
        other => panic!("{to}: {other:?}"),
    };
    let plain = granted("Origin:");
    for to in ["X-Origin:", "Sec-WebSocket-Protocol: chat\r\nOrigin:", "Cookie: a=b\r\nOrigin:"] {
        assert_eq!(granted(to), plain, "{to}");
    }
    let absolute = GOOD.replace("GET /chat", "GET http://server.example.com/chat?x=1");
    assert_eq!(status(&absolute), 101);
}

#[test]
fn section_4_2_1_the_key_is_sixteen_bytes_in_base64() {
    let keys = [
        (KEY, 101),
        (" dGhlIHNhbXBsZSBub25jZQ== ", 101),
        ("AAAAAAAAAAAAAAAAAAAAAA==", 101),
        ("", 400),
        ("AAAAAAAAAAAAAAAAAAAA", 400),
        ("AAAAAAAAAAAAAAAAAAAAAAA=", 400),
        ("AAAAAAAAAAAAAAAAAAAAAA", 400),
        ("AAAAAAAAAAAAAAAAAAAAAA=", 400),
        ("AAAAAAAAAAAAAAAAAAAA-_==", 400),
        ("AAAAAAAAAAAAAAAAAAAAAA==AAAA", 400),
    ];
    for (key, expected) in keys {
        assert_eq!(status(&GOOD.replace(KEY, key)), expected, "{key:?}");
    }
}

#[test]
fn section_9_extensions_are_not_agreed_on() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin:";
    let Upgrade::Accepted { response, .. } =
        read_request(GOOD.replace("Origin:", offer).as_bytes())
    else {
        panic!("an offer is no fault")
    };
    let text = String::from_utf8(response).expect("text").to_lowercase();
    assert!(!text.contains("sec-websocket-extensions"), "{text}");
}
