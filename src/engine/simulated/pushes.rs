//! The oracle of pushes: who has to get what, once and in which order, and the account of it.
//!
//! When a push is taken the shard answers; when it goes out is seen on the wire. Between the two a
//! push to a single session keeps its place in the queue. A broadcast comes to each session at a
//! time of its own, so only that it comes is known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::peer::{Delivery, OwedPush, Question};
use super::world::World;
use crate::engine::uring::Connection;
use crate::limits::{BROADCASTS_TRACKED_MAX, PUSH_TRACKED_FOR, PUSHES_PER_TURN_MAX};
use crate::protocol::Protocol;
use crate::shard::{Counters, PushAccount, PushDrop, PushRefused, Shard};
use crate::sweep::AnySweeper;
use crate::time::Timestamp;

/// Turns of the loop after the end of its time in which a broadcast must have come to all, beside
/// those that it takes to hand out all that is on its way: there are so many pushes in a turn.
const OVER_TURNS: usize = 2;

/// A push, and whom it has to reach.
#[derive(Debug)]
pub(super) struct Push {
    tcp: Vec<u8>,
    websocket: Vec<u8>,
    /// The only one whom it is for.
    peer: Option<usize>,
    spread: Duration,
    /// The shard had taken it by then.
    taken_at: Option<Timestamp>,
    /// Whom a broadcast may reach, and whether it must.
    due: BTreeMap<usize, bool>,
    got: BTreeSet<usize>,
    over_turns: usize,
    over_turns_max: usize,
}

impl Push {
    pub(super) fn new(id: u64, message: &[u8], peer: Option<usize>, spread: Duration) -> Push {
        let mut tcp = (message.len() as u16 + 9).to_be_bytes().to_vec();
        tcp.push(5);
        tcp.extend(id.to_be_bytes());
        tcp.extend(message);
        let mut websocket = vec![if std::str::from_utf8(message).is_ok() { 0x81 } else { 0x82 }];
        match message.len() {
            length @ ..=125 => websocket.push(length as u8),
            length => {
                websocket.push(126);
                websocket.extend((length as u16).to_be_bytes());
            }
        }
        websocket.extend(message);
        let (due, got) = (BTreeMap::new(), BTreeSet::new());
        Push {
            tcp,
            websocket,
            peer,
            spread,
            taken_at: None,
            due,
            got,
            over_turns: 0,
            over_turns_max: OVER_TURNS,
        }
    }

    /// The longer of its two forms.
    pub(super) fn len(&self) -> usize {
        self.tcp.len()
    }

    fn bytes(&self, protocol: Protocol) -> &[u8] {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::WebSocket => &self.websocket,
        }
    }
}

/// All pushes of a world, and what the counters have to show of them.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    pub(super) last_id: u64,
    pub(super) active: BTreeMap<u64, Push>,
    /// Of the broadcasts among them.
    pub(super) broadcast_bytes: usize,
    /// Broadcasts whose account the shard keeps, the oldest first.
    kept: VecDeque<u64>,
    /// When the pushes were taken whose account the shard keeps.
    accounts: BTreeMap<u64, Timestamp>,
    singles: u64,
    /// Sessions that a broadcast has come to, as far as it shows, and at most.
    shown: u64,
    shown_max: u64,
    refused: u64,
    queue_full: u64,
    written: u64,
    acknowledged: u64,
    receipts: u64,
    strays: u64,
}

/// The id that a frame says it is the push of: in a WebSocket's it is written by the text.
fn push_id(bytes: &[u8], protocol: Protocol) -> Option<u64> {
    match (protocol, bytes) {
        (Protocol::Tcp, [_, _, 5, id @ ..]) => {
            id.first_chunk::<8>().map(|id| u64::from_be_bytes(*id))
        }
        (
            Protocol::WebSocket,
            [0x81 | 0x82, 126, _, _, text @ ..] | [0x81 | 0x82, _, text @ ..],
        ) => {
            let digits = std::str::from_utf8(text.get(..8)?).ok()?;
            u64::from_str_radix(digits, 16).ok()
        }
        _ => None,
    }
}

impl World {
    /// Whether a send is a push. It is expected from now on, or wrong.
    pub(super) fn is_push(&mut self, peer: usize, bytes: &[u8]) -> bool {
        let protocol = self.peers[peer].protocol();
        let Some(id) = push_id(bytes, protocol) else { return false };
        let Some(push) = self.pushes.active.get_mut(&id) else { return false };
        if push.bytes(protocol) != bytes {
            return false;
        }
        let (length, is_single) = (push.len(), push.peer.is_some());
        let is_answered = push.taken_at.is_some();
        let client = &mut self.peers[peer];
        let newcomer = is_answered && !push.due.contains_key(&peer);
        let owed = client.owed_pushes.front().copied();
        let is_first = push.got.insert(peer);
        let wrong = match push.peer {
            _ if !is_first => Some("twice"),
            _ if !client.first_done => Some("before it has said anything"),
            Some(other) if other != peer => Some("although it is for another"),
            None if newcomer => Some("although it came later"),
            Some(_) if is_answered && owed.is_none_or(|owed| owed.id != id) => {
                Some("before others that were to come first")
            }
            Some(_) if owed.is_some_and(|owed| owed.id == id && owed.behind > client.taken) => {
                Some("before what was to come first")
            }
            _ => None,
        };
        if is_single {
            client.owed_push_bytes = client.owed_push_bytes.saturating_sub(length);
            if is_answered {
                client.owed_pushes.pop_front();
                self.pushes.active.remove(&id);
            }
        }
        self.pushes.shown += u64::from(!is_single);
        client.expect_first(bytes);
        client.questions.push_back((client.taken + bytes.len() as u64, Question::Push(id)));
        // What takes its time may be forgotten before it is sent.
        if !is_answered || self.pushes.accounts.contains_key(&id) {
            client.deliveries.push_back(Delivery { id, written: false, acknowledged: false });
        }
        if let Some(wrong) = wrong {
            let behaviour = client.behaviour;
            self.violate(format!("{behaviour:?}, {peer}, is pushed {id} {wrong}"));
        }
        true
    }

    /// Whether what is sent now, and is owed anyway, overtakes a push.
    pub(super) fn overtakes_push(&self, peer: usize) -> bool {
        let client = &self.peers[peer];
        let owed = client.owed_pushes.front();
        client.is_heard() && owed.is_some_and(|owed| owed.behind <= client.taken)
    }

    /// The engine knows that a push was written to the end.
    pub(super) fn push_written(&mut self, peer: usize, id: u64) {
        self.exercise("push written");
        self.pushes.written += 1;
        let client = &mut self.peers[peer];
        let acknowledges = client.acknowledges;
        let at = client.deliveries.iter().position(|delivery| delivery.id == id);
        let Some(at) = at else { return };
        client.deliveries[at].written = true;
        let is_done = client.deliveries[at].acknowledged;
        if is_done || !acknowledges {
            client.deliveries.remove(at);
        }
        if is_done {
            self.pushes.acknowledged += 1;
            self.exercise("receipt before the end of the send");
        }
    }

    /// The engine is told of a receipt.
    pub(super) fn receipt(&mut self, peer: usize, id: u64) {
        self.pushes.receipts += 1;
        let client = &mut self.peers[peer];
        let mut deliveries = client.deliveries.iter();
        let at = deliveries.position(|delivery| delivery.id == id && !delivery.acknowledged);
        match at {
            Some(at) if client.deliveries[at].written => {
                client.deliveries.remove(at);
                self.pushes.acknowledged += 1;
                self.exercise("push acknowledged");
            }
            Some(at) => client.deliveries[at].acknowledged = true,
            None => {
                self.pushes.strays += 1;
                self.exercise("stray receipt");
            }
        }
    }

    /// The shard keeps accounts for a time only; which of those that are so old it has forgotten,
    /// it has in the last sweep, after all receipts of that turn.
    pub(super) fn forget_old_accounts(&mut self, shard: &Shard<AnySweeper, Connection>) {
        let now = self.now();
        let accounts = self.pushes.accounts.iter();
        let old = accounts.take_while(|(_, taken_at)| **taken_at + PUSH_TRACKED_FOR <= now);
        let forgotten: Vec<u64> =
            old.map(|(&id, _)| id).filter(|&id| shard.push_account(id).is_none()).collect();
        for id in forgotten {
            self.forget_account(id);
            self.exercise("account of a push too old");
        }
    }

    /// The shard keeps the account of the last broadcasts only: no receipt counts for others.
    fn forget_account(&mut self, id: u64) {
        self.pushes.accounts.remove(&id);
        self.pushes.kept.retain(|kept| *kept != id);
        for at in 0..self.live.len() {
            let peer = self.live[at];
            self.peers[peer].deliveries.retain(|delivery| delivery.id != id);
        }
        self.exercise("account of a push forgotten");
    }

    /// The shard has answered to a push to one session.
    pub(super) fn push_answered(
        &mut self,
        id: u64,
        peer: usize,
        answer: Result<&PushAccount, PushRefused>,
    ) {
        let client = &self.peers[peer];
        // A kick of the same turn may have come before it or after it.
        let is_sure = client.is_exact() && !client.kicked && !self.stopping;
        let shown = self.pushes.active.get(&id).is_some_and(|push| !push.got.is_empty());
        let (live, behind) = (client.is_live(), client.expected_end);
        let outlives = client.given_up_at.is_none();
        let now = self.now();
        let is_wrong = match answer {
            Ok(account) => {
                self.pushes.singles += 1;
                self.pushes.accounts.insert(id, now);
                let is_full = account.dropped[PushDrop::SendQueueFull as usize] > 0;
                self.pushes.queue_full += u64::from(is_full);
                if is_full {
                    self.exercise("push dropped, the queue was full");
                }
                let sum = account.acknowledged
                    + account.unconfirmed
                    + account.pending
                    + account.dropped.iter().sum::<u64>();
                let is_balanced = account.requested == 1 && sum == 1;
                if !is_balanced {
                    self.violate(format!("the account of push {id} is {account:?}"));
                }
                if !is_full && !shown && outlives {
                    if let Some(push) = self.pushes.active.get_mut(&id) {
                        push.taken_at = Some(now);
                    }
                    self.peers[peer].owed_pushes.push_back(OwedPush { id, behind });
                    self.exercise("push queued");
                } else {
                    self.forget_push(id, peer);
                }
                is_sure && (is_full || !live && !shown)
            }
            Err(_) => {
                self.pushes.refused += 1;
                self.exercise("push refused");
                self.forget_push(id, peer);
                is_sure && (live || shown)
            }
        };
        if is_wrong {
            let behaviour = self.peers[peer].behaviour;
            let told = format!("a push to {behaviour:?}, {peer}, is answered by {answer:?}");
            self.violate(told);
        }
    }

    fn forget_push(&mut self, id: u64, peer: usize) {
        if let Some(push) = self.pushes.active.remove(&id)
            && push.got.is_empty()
        {
            let waiting = self.peers[peer].owed_push_bytes;
            self.peers[peer].owed_push_bytes = waiting.saturating_sub(push.len());
        }
    }

    /// The shard has answered to a broadcast.
    pub(super) fn broadcast_answered(
        &mut self,
        id: u64,
        answer: Result<&PushAccount, PushRefused>,
    ) {
        let on_their_way = self.pushes.active.values();
        let on_their_way = on_their_way.filter(|push| push.peer.is_none()).count();
        if let Err(refused) = answer {
            self.pushes.refused += 1;
            self.exercise("broadcast refused");
            if refused != PushRefused::TooMany || on_their_way <= BROADCASTS_TRACKED_MAX {
                self.violate(format!("broadcast {id} is refused: {refused}"));
            }
            self.end_broadcast(id);
            return;
        }
        self.exercise("broadcast");
        self.pushes.kept.push_back(id);
        if self.pushes.kept.len() > BROADCASTS_TRACKED_MAX
            && let Some(oldest) = self.pushes.kept.pop_front()
        {
            self.forget_account(oldest);
        }
        let now = self.now();
        self.pushes.accounts.insert(id, now);
        let with_session = self.live.iter().copied().filter(|&id| {
            let client = &self.peers[id];
            client.place.is_some() && client.key.is_some() && client.given_up_at.is_none()
        });
        let due: BTreeMap<_, _> = with_session.map(|id| (id, self.peers[id].is_live())).collect();
        self.pushes.shown_max += due.len() as u64;
        let broadcasts = self.pushes.active.values().filter(|push| push.peer.is_none());
        let on_their_way = due.len() + broadcasts.map(|push| push.due.len()).sum::<usize>();
        let Some(push) = self.pushes.active.get_mut(&id) else { return };
        push.over_turns_max += on_their_way / PUSHES_PER_TURN_MAX as usize;
        push.due = due;
        push.taken_at = Some(now);
    }

    fn end_broadcast(&mut self, id: u64) {
        if let Some(push) = self.pushes.active.remove(&id) {
            self.pushes.broadcast_bytes -= push.len();
        }
    }

    /// After a turn in which everything was heard: who has not got what he has to get.
    pub(super) fn judge_broadcasts(&mut self) {
        let mut ended = Vec::new();
        let mut missed = None;
        for (&id, push) in &mut self.pushes.active {
            let (None, Some(taken_at)) = (push.peer, push.taken_at) else { continue };
            if self.turn_now < taken_at + push.spread {
                continue;
            }
            push.over_turns += 1;
            if push.over_turns <= push.over_turns_max {
                continue;
            }
            let got = &push.got;
            push.due.retain(|peer, must| {
                let client = &self.peers[*peer];
                // What waits for one who is parted from still goes out.
                if got.contains(peer) || client.given_up_at.is_some() || client.place.is_none() {
                    return false;
                }
                if client.sends_in_flight > 0 {
                    return true;
                }
                let is_sure = client.is_live() && client.is_exact() && !client.kicked;
                if *must && is_sure && !self.stopping {
                    missed = Some((id, *peer));
                }
                false
            });
            if push.due.is_empty() {
                ended.push(id);
            }
        }
        if let Some((id, peer)) = missed {
            let behaviour = self.peers[peer].behaviour;
            self.violate(format!("broadcast {id} has not come to {behaviour:?}, {peer}"));
        }
        for id in ended {
            self.end_broadcast(id);
        }
    }

    /// Forgets what waited for one whose connection has gone.
    pub(super) fn forget_owed_pushes(&mut self, peer: usize) {
        for owed in std::mem::take(&mut self.peers[peer].owed_pushes) {
            self.pushes.active.remove(&owed.id);
            self.exercise("push dropped, the session was closed");
        }
        self.peers[peer].owed_push_bytes = 0;
    }

    /// Holds the counters against the tally.
    pub(super) fn judge_push_counters(&mut self, counters: &Counters) {
        let pushes = &self.pushes;
        let exact = [
            ("pushes_acknowledged", counters.pushes_acknowledged, pushes.acknowledged, true),
            (
                "pushes_unconfirmed",
                counters.pushes_unconfirmed + counters.pushes_acknowledged,
                pushes.written,
                false,
            ),
            ("pushes_refused", counters.pushes_refused, pushes.refused, false),
            ("push_acks_received", counters.push_acks_received, pushes.receipts, true),
            ("push_acks_stray", counters.push_acks_stray, pushes.strays, true),
        ];
        let mut wrong = exact.into_iter().find_map(|(name, counted, right, of_heard)| {
            // Who is being sent away is heard no more, which does not show.
            let is_right = counted == right || of_heard && self.stopping && counted < right;
            (!is_right).then(|| format!("{name} is {counted}, and ought to be {right}"))
        });
        let dropped: u64 = counters.pushes_dropped.iter().sum();
        let sum = counters.pushes_acknowledged
            + counters.pushes_unconfirmed
            + counters.pushes_pending
            + dropped;
        let requested = counters.pushes_requested;
        if requested != sum {
            wrong = Some(format!("{requested} pushes were requested, and {sum} are accounted for"));
        }
        let (low, high) =
            (pushes.singles + pushes.shown, pushes.singles + pushes.shown + pushes.shown_max);
        if !(low..=high).contains(&requested) {
            wrong = Some(format!("pushes_requested is {requested}: {low} to {high} are right"));
        }
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }

    /// Whether a push waits for somebody who reads.
    pub(super) fn waits_for_push(&self, peer: usize) -> bool {
        let client = &self.peers[peer];
        client.is_live() && client.is_exact() && !client.dead && !client.owed_pushes.is_empty()
    }
}
