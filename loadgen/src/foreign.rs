//! Servers that are not ours: what is said to them, by which rule they expire their clients, and
//! which flags make no sense with which protocol.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::cli::Cli;
use crate::protocol::Protocol;
use crate::scenario::Scenario;
use crate::stats::Stats;
use crate::target::Target;
use crate::wire::{Line, Template, Wire, WsHeartbeat};

/// Flags of single protocols.
#[derive(Clone, Debug, Args)]
pub struct Foreign {
    /// What a WebSocket sends as a heartbeat: text `ping`, which heartwheel answers by text `pong`,
    /// or a control PING, which every server has to answer [default: text]
    #[arg(long)]
    pub ws_heartbeat: Option<WsHeartbeat>,

    /// What each mqtt:// client subscribes to at QoS 0; {client} is its number [default: nothing]
    #[arg(long, value_name = "TOPIC", value_parser = Template::parse)]
    pub mqtt_topic: Option<Template>,

    /// The heartbeat of a tcp-line:// client: {seq} is its number, {client} the client's; \r, \n,
    /// \t, \0, \xHH, \\ and \{ are escapes
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::parse)]
    pub line_send: Option<Template>,

    /// The line that answers it; with {seq} it answers that heartbeat only
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::parse)]
    pub line_expect: Option<Template>,

    /// What a tcp-line:// connection begins with [default: nothing]
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::parse)]
    pub line_hello: Option<Template>,

    /// The line that opens a tcp-line:// client [default: it is open as soon as TCP says so]
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::parse)]
    pub line_welcome: Option<Template>,
}

impl Foreign {
    /// What makes no sense with the protocol that is spoken.
    ///
    /// # Errors
    /// The first thing that does not fit, with the cure.
    pub fn check(&self, cli: &Cli) -> Result<()> {
        let spoken = cli.spoken();
        let here = format!("{}://", spoken.scheme());
        for (flag, given, only) in [
            ("--ws-heartbeat", self.ws_heartbeat.is_some(), Protocol::WebSocket),
            ("--mqtt-topic", self.mqtt_topic.is_some(), Protocol::Mqtt),
            ("--line-send", self.line_send.is_some(), Protocol::TcpLine),
            ("--line-expect", self.line_expect.is_some(), Protocol::TcpLine),
            ("--line-hello", self.line_hello.is_some(), Protocol::TcpLine),
            ("--line-welcome", self.line_welcome.is_some(), Protocol::TcpLine),
            ("--no-hello", cli.no_hello, Protocol::Tcp),
            ("--negotiate", cli.negotiate, Protocol::Tcp),
        ] {
            ensure!(
                !given || only == spoken,
                "{flag} is for {}:// and means nothing to {here}: leave it out{}",
                only.scheme(),
                if only == Protocol::Tcp { ", and say -i and --idle-timeout" } else { "" }
            );
        }
        ensure!(
            spoken.is_own() || !Scenario::needs_admin(&cli.at),
            "a drain or a broadcast is asked of heartwheel's control plane, which a server behind \
             {here} has not: leave it out"
        );
        match spoken {
            Protocol::Mqtt => self.check_mqtt(cli),
            Protocol::TcpLine => self.check_lines(cli),
            Protocol::Tcp | Protocol::WebSocket => Ok(()),
        }
    }

    fn check_mqtt(&self, cli: &Cli) -> Result<()> {
        if let Some(topic) = &self.mqtt_topic {
            let name = topic.render(u32::MAX);
            ensure!(!topic.has_seq(), "--mqtt-topic has no {{seq}}: it is subscribed to once");
            ensure!(
                std::str::from_utf8(&name).is_ok_and(|name| !name.contains('\0')),
                "--mqtt-topic must be UTF-8 without \\0"
            );
        }
        mqtt_keepalive_s(cli).map(drop)
    }

    fn check_lines(&self, cli: &Cli) -> Result<()> {
        ensure!(
            self.line_send.is_some() && self.line_expect.is_some(),
            "tcp-line:// needs a request and its reply: --line-send 'PING\\r\\n' --line-expect \
             '+PONG\\r\\n'"
        );
        ensure!(cli.data == 0, "tcp-line:// knows no message but its heartbeat: leave out --data");
        for (flag, template) in
            [("--line-expect", &self.line_expect), ("--line-welcome", &self.line_welcome)]
        {
            let Some(template) = template else { continue };
            ensure!(
                template.ends_line() && !template.has_inner_line(),
                "{flag} must be one line, and end with \\n"
            );
            ensure!(
                template.is_readable(),
                "{flag}: numbers cannot be told from what follows: put something else than a digit \
                 behind {{seq}} and {{client}}"
            );
        }
        let numbered = self.line_expect.as_ref().is_some_and(Template::has_seq);
        ensure!(
            !numbered || self.line_send.as_ref().is_some_and(Template::has_seq),
            "--line-expect has {{seq}} in it, and --line-send has not: the server cannot know it"
        );
        Ok(())
    }

    /// How the server is spoken to; `interval_ms` is what HELLO asks for.
    ///
    /// What it makes is kept for as long as the process runs; `scripts/sanitize` knows it by this
    /// name.
    #[inline(never)]
    pub fn wire(&self, cli: &Cli, target: &Target, interval_ms: u32) -> Result<Wire> {
        Ok(match target.protocol {
            Protocol::Tcp => Wire::tcp(!cli.no_hello, interval_ms),
            Protocol::WebSocket => {
                let heartbeat = self.ws_heartbeat.unwrap_or(WsHeartbeat::Text);
                Wire::websocket(&target.authority, &target.path, heartbeat, cli.seed)
            }
            Protocol::Mqtt => Wire::mqtt(cli.seed, mqtt_keepalive_s(cli)?, self.mqtt_topic.clone()),
            Protocol::TcpLine => match (self.line_send.clone(), self.line_expect.clone()) {
                (Some(send), Some(expect)) => {
                    let (hello, welcome) = (self.line_hello.clone(), self.line_welcome.clone());
                    Wire::line(Line { hello, welcome, send, expect })
                }
                _ => bail!("tcp-line:// needs --line-send and --line-expect"),
            },
        })
    }
}

/// After which silence the server expires a client, where the command line tells: MQTT's rule
/// follows from the keepalive.
pub fn idle_timeout(cli: &Cli) -> Option<Duration> {
    let of_keepalive = |keepalive_s: u16| Duration::from_millis(u64::from(keepalive_s) * 1_500);
    match cli.spoken() {
        Protocol::Mqtt => mqtt_keepalive_s(cli).ok().map(of_keepalive),
        _ => cli.idle_timeout,
    }
}

/// What should be known of a run against such a server.
pub fn notes(cli: &Cli, stats: &Stats) -> Vec<String> {
    let text = cli.foreign.ws_heartbeat.unwrap_or(WsHeartbeat::Text) == WsHeartbeat::Text;
    let unanswered = cli.target.is_some() && stats.sent > 0 && stats.acked == 0;
    match (cli.spoken(), mqtt_keepalive_s(cli)) {
        (Protocol::Mqtt, Ok(keepalive_s)) => {
            vec![format!("the clients' keepalive is {keepalive_s} s")]
        }
        (Protocol::WebSocket, _) if text && unanswered => vec![
            "no text `ping` was answered by `pong`: perhaps this server knows only control PINGs \
             (--ws-heartbeat control)"
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}

/// MQTT's keepalive in whole seconds: by `--idle-timeout`, which is one and a half of it, or else
/// as short as `-i` with its jitter allows.
fn mqtt_keepalive_s(cli: &Cli) -> Result<u16> {
    let interval = cli.interval.unwrap_or_default().mul_f64(1.0 + cli.jitter);
    let keepalive_s = match cli.idle_timeout {
        None => interval.as_nanos().div_ceil(1_000_000_000).max(1),
        Some(timeout) => {
            let (three, rest) = (timeout.as_millis() * 2 / 3_000, timeout.as_millis() * 2 % 3_000);
            ensure!(
                rest == 0 && three > 0,
                "with mqtt:// --idle-timeout is one and a half times a keepalive of whole seconds: \
                 say {:?} or {:?}",
                Duration::from_millis(three.max(1) as u64 * 1_500),
                Duration::from_millis(three.max(1) as u64 * 1_500 + 1_500),
            );
            three
        }
    };
    ensure!(
        keepalive_s <= u128::from(u16::MAX),
        "MQTT's keepalive is at most 65535s: lower -i or --idle-timeout"
    );
    ensure!(
        interval.as_nanos() <= keepalive_s * 1_000_000_000,
        "-i with its jitter must not exceed the keepalive, {keepalive_s}s: lower it, or raise \
         --idle-timeout"
    );
    Ok(keepalive_s as u16)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The server's rule, in milliseconds.
    fn rule(flags: &str) -> Result<u128> {
        let words = format!("loadgen --target mqtt://127.0.0.1:7 {flags}");
        let cli = Cli::try_parse_from(words.split_whitespace())?;
        cli.check()?;
        Ok(idle_timeout(&cli).map_or(0, |timeout| timeout.as_millis()))
    }

    #[test]
    fn mqtts_rule_is_one_and_a_half_keepalives_of_whole_seconds() {
        for (flags, expected) in [
            ("-i 9s", 15_000),
            ("-i 9s --jitter 0%", 13_500),
            ("-i 100ms", 1_500),
            ("-i 2s --idle-timeout 12s", 12_000),
            ("-i 2s --idle-timeout 13500ms", 13_500),
            ("-i 2s --idle-timeout 12s --silent 1%", 12_000),
        ] {
            assert_eq!(rule(flags).ok(), Some(expected), "{flags}: {:?}", rule(flags));
        }
        for (flags, cure) in [
            ("-i 2s --idle-timeout 10s", "say 9s or 10.5s"),
            ("-i 100ms --idle-timeout 1s", "say 1.5s or 3s"),
            ("-i 8s --idle-timeout 12s", "lower it"),
            ("-i 20h", "65535s"),
            ("", "needs -i"),
        ] {
            let error = format!("{:#}", rule(flags).unwrap_err());
            assert!(error.contains(cure), "{flags}: {error}");
        }
    }
}
