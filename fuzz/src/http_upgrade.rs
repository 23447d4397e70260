//! The upgrade: a request that is accepted is incomplete until its last byte, one that is refused
//! stays refused, and the client's side accepts what the server's side answers.

use heartwheel::protocol::http_upgrade::{Upgrade, read_request, read_response, request};

/// Reads `bytes` as a request, as a response, and as the nonce of a request of our own.
pub fn check(bytes: &[u8]) {
    match read_request(bytes) {
        Upgrade::Accepted { request_bytes, .. } => {
            assert!(request_bytes <= bytes.len());
            for end in 0..request_bytes {
                let front = read_request(&bytes[..end]);
                assert!(matches!(front, Upgrade::Incomplete), "accepted, but not at {end}");
            }
        }
        Upgrade::Refused { status, response } => {
            assert!((400..=499).contains(&status));
            assert!(response.starts_with(format!("HTTP/1.1 {status}").as_bytes()));
            let longer = [bytes, b"\r\n\r\n"].concat();
            let still = read_request(&longer);
            assert!(matches!(still, Upgrade::Refused { .. }), "refused, then not");
        }
        Upgrade::Incomplete => {}
    }
    let mut nonce = [0; 16];
    let known = bytes.len().min(nonce.len());
    nonce[..known].copy_from_slice(&bytes[..known]);
    if let Ok(Some(response_bytes)) = read_response(bytes, nonce) {
        assert!(response_bytes <= bytes.len());
    }
    let ours = request("host:1", "/", nonce);
    let Upgrade::Accepted { response, request_bytes, .. } = read_request(&ours) else {
        panic!("our own request is refused");
    };
    assert_eq!(request_bytes, ours.len());
    assert_eq!(read_response(&response, nonce), Ok(Some(response.len())));
}
