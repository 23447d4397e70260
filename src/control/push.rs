//! The routes by which messages are pushed, and by which one learns what became of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::{Map, Value, json};

use super::ServerHandle;
use super::http::{Refused, Server, ask, ask_shard, gone, parse_id};
use crate::engine::Command;
use crate::limits::{PUSH_BYTES_MAX, SPREAD_MAX};
use crate::shard::{PushAccount, PushDrop, PushMessage, PushRefused};
use crate::units::Span;

type Answer = Result<(StatusCode, Json<Value>), Refused>;

/// `POST /sessions/{id}/push`: the body goes to one session.
pub(super) async fn one(
    State(server): Server,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let id = parse_id(&id)?;
    let message = message(&server, body)?;
    let push_id = message.id();
    let key = id.key();
    let account = ask(&server, id, |reply| Command::Push { key, message, reply }).await?;
    let account = account.map_err(|refused| match refused {
        PushRefused::Gone => gone(id),
        other => Refused(StatusCode::CONFLICT, other.to_string()),
    })?;
    Ok((StatusCode::ACCEPTED, tell(push_id, &account)))
}

/// `POST /broadcast?spread=5s`: the body goes to every session that is open now.
pub(super) async fn broadcast(
    State(server): Server,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let spread = parse_spread(query.as_deref())?.unwrap_or_default();
    let message = message(&server, body)?;
    let push_id = message.id();
    let mut sum = PushAccount::default();
    for shard in &server.shards {
        let message = message.clone();
        let begun = ask_shard(shard, |reply| Command::Broadcast { message, spread, reply }).await?;
        let account =
            begun.map_err(|refused| Refused(StatusCode::TOO_MANY_REQUESTS, refused.to_string()))?;
        sum.add(&account);
    }
    Ok((StatusCode::ACCEPTED, tell(push_id, &sum)))
}

/// `POST /drain?spread=10s`: accepts nobody any more, sends everybody away, and ends the server.
pub(super) async fn drain(State(server): Server, RawQuery(query): RawQuery) -> Answer {
    let spread = parse_spread(query.as_deref())?.unwrap_or_default();
    let timeout = server.drain_timeout;
    if spread > timeout {
        let reason = format!("--drain-timeout is {timeout:?}: a drain cannot be spread over more");
        return Err(Refused(StatusCode::BAD_REQUEST, reason));
    }
    server.begin_draining();
    let mut draining = 0;
    for shard in &server.shards {
        let command = |reply| Command::Drain { spread, timeout, reply: Some(reply) };
        draining += ask_shard(shard, command).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "draining": draining }))))
}

/// `GET /pushes/{id}`: what has become of a push by now.
pub(super) async fn account(State(server): Server, Path(id): Path<String>) -> Answer {
    let id: u64 = id
        .parse()
        .map_err(|_| Refused(StatusCode::BAD_REQUEST, "a push's id is a number".to_owned()))?;
    let mut sum = None;
    for shard in &server.shards {
        if let Some(part) = ask_shard(shard, |reply| Command::PushAccount { id, reply }).await? {
            sum.get_or_insert_with(PushAccount::default).add(&part);
        }
    }
    let sum = sum.ok_or_else(|| {
        Refused(StatusCode::NOT_FOUND, format!("push {id} is unknown, or forgotten"))
    })?;
    Ok((StatusCode::OK, tell(id, &sum)))
}

fn message(
    server: &ServerHandle,
    body: Result<Bytes, BytesRejection>,
) -> Result<PushMessage, Refused> {
    let too_long = || {
        server.push_bodies_refused.fetch_add(1, Ordering::Relaxed);
        let reason = format!("{PUSH_BYTES_MAX} bytes are the most that can be pushed");
        Refused(StatusCode::PAYLOAD_TOO_LARGE, reason)
    };
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_long(),
        status => Refused(status, rejection.body_text()),
    })?;
    let id = server.next_push.fetch_add(1, Ordering::Relaxed);
    PushMessage::new(id, &body).map_err(|_| too_long())
}

/// The `spread` of a query, which may say nothing else.
pub(super) fn parse_spread(query: Option<&str>) -> Result<Option<Duration>, Refused> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let span = query.strip_prefix("spread=").and_then(|text| text.parse::<Span>().ok());
    match span {
        Some(Span(spread)) if spread <= SPREAD_MAX => Ok(Some(spread)),
        _ => {
            let reason = format!("write it like ?spread=5s, {SPREAD_MAX:?} at most");
            Err(Refused(StatusCode::BAD_REQUEST, reason))
        }
    }
}

fn tell(push_id: u64, account: &PushAccount) -> Json<Value> {
    let dropped: Map<String, Value> = PushDrop::ALL
        .iter()
        .map(|reason| (reason.name().to_owned(), account.dropped[*reason as usize].into()))
        .filter(|(_, count): &(String, Value)| count != 0)
        .collect();
    Json(json!({
        "push_id": push_id,
        "requested": account.requested,
        "acknowledged": account.acknowledged,
        "unconfirmed": account.unconfirmed,
        "pending": account.pending,
        "dropped": dropped,
    }))
}
