//! The routes of the control plane.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::oneshot;

use super::{ServerHandle, ShardHandle, metrics, push};
use crate::engine::{Command, EngineReport};
use crate::limits::{ADMIN_ANSWER_TIMEOUT, ADMIN_BODY_BYTES_MAX};
use crate::report;
use crate::session::SessionId;

pub(super) type Server = State<Arc<ServerHandle>>;

/// All routes.
pub(super) fn router(server: Arc<ServerHandle>, routes: Option<Router>) -> Router {
    let own = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .route("/stats", get(stats))
        .route("/sessions/{id}", get(inspect).delete(kick))
        .route("/sessions/{id}/push", post(push::one))
        .route("/broadcast", post(push::broadcast))
        .route("/drain", post(push::drain))
        .route("/pushes/{id}", get(push::account))
        .with_state(server);
    own.merge(routes.unwrap_or_default()).layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
}

/// A refusal: its status, and why, as JSON.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

async fn ready(State(server): Server) -> (StatusCode, &'static str) {
    match server.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn render_metrics(State(server): Server) -> impl IntoResponse {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let refused = server.push_bodies_refused.load(Ordering::Relaxed);
    (format, metrics::render(&reports(&server), refused))
}

async fn stats(State(server): Server) -> impl IntoResponse {
    let reports = reports(&server);
    let mut stats = report::stats(server.engine, &server.sweep, &reports);
    let refused = server.push_bodies_refused.load(Ordering::Relaxed);
    stats["control"] = json!({ "push_bodies_refused": refused });
    Json(stats)
}

fn reports(server: &ServerHandle) -> Vec<EngineReport> {
    server.shards.iter().map(|shard| shard.status.read()).collect()
}

async fn inspect(
    State(server): Server,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Refused> {
    let id = parse_id(&id)?;
    let view = ask(&server, id, |reply| Command::Inspect { key: id.key(), reply }).await?;
    view.map(|view| Json(json!({ "id": id.to_string(), "shard": id.shard(), "session": view })))
        .ok_or_else(|| gone(id))
}

async fn kick(State(server): Server, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    let id = parse_id(&id)?;
    match ask(&server, id, |reply| Command::Kick { key: id.key(), reply }).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(gone(id)),
    }
}

/// Sends a command to the shard that `id` names, and waits for its answer.
pub(super) async fn ask<T>(
    server: &ServerHandle,
    id: SessionId,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Refused> {
    let shard = server.shards.get(usize::from(id.shard())).ok_or_else(|| gone(id))?;
    ask_shard(shard, command).await
}

/// Sends a command to a shard, and waits for its answer.
pub(super) async fn ask_shard<T>(
    shard: &ShardHandle,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Refused> {
    let (reply, answer) = oneshot::channel();
    shard.mail.send(command(reply));
    match tokio::time::timeout(ADMIN_ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "the shard is gone".into())),
        Err(_) => Err(Refused(StatusCode::GATEWAY_TIMEOUT, "the shard did not answer".into())),
    }
}

pub(super) fn gone(id: SessionId) -> Refused {
    Refused(StatusCode::NOT_FOUND, format!("there is no session {id}"))
}

/// Sixteen hexadecimal digits, as all our outputs have them.
pub(super) fn parse_id(text: &str) -> Result<SessionId, Refused> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits).map(SessionId).ok_or_else(|| {
        let reason = "a session's id is 16 hexadecimal digits".to_owned();
        Refused(StatusCode::BAD_REQUEST, reason)
    })
}
