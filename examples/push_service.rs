//! A push service with topics, built on the library.
//!
//! A client subscribes by a message `subscribe TOPIC` (DATA, or of a WebSocket); whoever posts to
//! `/topics/TOPIC` on the control plane's address publishes to all its subscribers, on all shards:
//!
//! ```text
//! cargo run --example push_service -- --listen ws://127.0.0.1:7401 --admin 127.0.0.1:7480
//! curl --data 'it rains' 127.0.0.1:7480/topics/weather
//! ```
//!
//! It takes the flags of `heartwheel serve`, and prints the same lines.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use clap::Parser;
use heartwheel::cli::ServeArgs;
use heartwheel::config::Config;
use heartwheel::server::{self, Application, Publisher};
use heartwheel::session::SessionId;
use heartwheel::shard::{Actions, CloseReason, Handler};

/// Topics that one session may subscribe to; more are ignored.
const TOPICS_PER_SESSION_MAX: usize = 16;
/// The longest name of a topic, in bytes.
const TOPIC_BYTES_MAX: usize = 64;

/// The subscribers of one shard.
#[derive(Default)]
struct Topics {
    subscribers: HashMap<String, HashSet<u64>>,
    /// What each session has subscribed to, so that nothing of it remains when it goes.
    subscriptions: HashMap<u64, Vec<String>>,
}

impl Handler for Topics {
    fn message(&mut self, session: SessionId, message: &[u8], _: &mut Actions) {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let Some(topic) = text.strip_prefix("subscribe ") else { return };
        let topics = self.subscriptions.entry(session.0).or_default();
        let known = topics.iter().any(|other| other == topic);
        if topic.len() > TOPIC_BYTES_MAX || topics.len() >= TOPICS_PER_SESSION_MAX || known {
            return;
        }
        topics.push(topic.to_owned());
        self.subscribers.entry(topic.to_owned()).or_default().insert(session.0);
    }

    fn closed(&mut self, session: SessionId, _: CloseReason, _: &mut Actions) {
        for topic in self.subscriptions.remove(&session.0).unwrap_or_default() {
            if let Some(subscribers) = self.subscribers.get_mut(&topic) {
                subscribers.remove(&session.0);
                if subscribers.is_empty() {
                    self.subscribers.remove(&topic);
                }
            }
        }
    }

    /// A letter is the topic, a zero byte, and the message.
    fn letter(&mut self, letter: &[u8], actions: &mut Actions) {
        let Some(end) = letter.iter().position(|&byte| byte == 0) else { return };
        let topic = std::str::from_utf8(&letter[..end]).unwrap_or_default();
        let Some(subscribers) = self.subscribers.get(topic) else { return };
        // Whoever publishes has been told if the message is too long.
        let Ok(message) = actions.message(&letter[end + 1..]) else { return };
        for &session in subscribers {
            actions.push(SessionId(session), &message);
        }
    }
}

async fn publish(
    State(publisher): State<Publisher>,
    Path(topic): Path<String>,
    message: Bytes,
) -> StatusCode {
    if message.len() > heartwheel::limits::PUSH_BYTES_MAX {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    publisher.publish(&[topic.as_bytes(), &[0], &message].concat());
    StatusCode::ACCEPTED
}

/// The flags of `heartwheel serve`.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

fn main() -> anyhow::Result<()> {
    let config = Config::load(Flags::parse().serve)?;
    let application = Application {
        handlers: Arc::new(|_shard| Box::new(Topics::default())),
        routes: |publisher| {
            axum::Router::new().route("/topics/{topic}", post(publish)).with_state(publisher)
        },
    };
    let last = server::run_with(&config, Some(application), |ready| {
        println!("{}", serde_json::to_string(ready).unwrap_or_default());
    })?;
    println!("{}", serde_json::to_string(&last)?);
    Ok(())
}
