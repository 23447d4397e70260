//! Where sessions come from: who is let in, whom a limit counts, and what proxies say.

use super::Shard;
use crate::mutants::{Mutant, is};
use crate::protocol::address::PeerAddress;
use crate::protocol::proxy::{Parsed, parse};
use crate::session::{CloseReason, Partial, Phase, Refusal, Session, SessionKey, Unfinished};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

impl<S: Sweeper, C> Shard<S, C> {
    /// Whether it matters from where a connection comes. To find out may cost a system call.
    pub fn needs_addresses(&self) -> bool {
        self.admission.counts_addresses() || !self.policy.proxies.is_empty()
    }

    /// Whether it matters how much memory the process has.
    pub fn watches_memory(&self) -> bool {
        self.admission.memory_bytes_max().is_some()
    }

    /// Tells how much memory the process has now, in bytes: it decides about newcomers of all
    /// shards. To be called once in a while, where [`Shard::watches_memory`].
    pub fn note_memory(&self, bytes: u64) {
        self.admission.note_memory(bytes);
    }

    /// Lets a connection in, or not: and what it has to begin with.
    pub(super) fn admit(
        &self,
        from: Option<PeerAddress>,
        now: Timestamp,
    ) -> Result<Phase, Refusal> {
        if self.is_stopping() {
            return Err(Refusal::Stopping);
        }
        if from.is_none() && self.needs_addresses() {
            return Err(Refusal::AddressUnknown);
        }
        let Some(from) = from else {
            return self.admission.enter(now).map(|()| Phase::AwaitingHello);
        };
        // Whom a proxy brings is counted where the header says from where he comes.
        if self.policy.proxies.iter().any(|network| network.contains(from)) {
            return self.admission.enter(now).map(|()| Phase::AwaitingProxy);
        }
        if !self.admission.enter_from(from) {
            return Err(Refusal::MaxPerIp);
        }
        self.admission.enter(now).inspect_err(|_| self.admission.leave_from(from))?;
        Ok(Phase::AwaitingHello)
    }

    /// Remembers for whom a session was counted, if it was.
    pub(super) fn note_counted_for(&mut self, key: SessionKey, address: PeerAddress) {
        if !self.admission.counts_addresses() {
            return;
        }
        let index = key.index as usize;
        if index >= self.counted_for.len() {
            self.counted_for.resize(index + 1, PeerAddress::NOBODY);
        }
        self.counted_for[index] = address;
    }

    /// A session has gone: it counts no more.
    pub(super) fn forget_counted_for(&mut self, key: SessionKey) {
        let Some(place) = self.counted_for.get_mut(key.index as usize) else { return };
        let address = std::mem::replace(place, PeerAddress::NOBODY);
        if address != PeerAddress::NOBODY && !is(Mutant::AddressKept) {
            self.admission.leave_from(address);
        }
    }

    /// Reads on in the header that a proxy sends. Gives what follows it, once something does.
    pub(super) fn receive_header<'b>(
        &mut self,
        key: SessionKey,
        bytes: &'b [u8],
        now: Timestamp,
    ) -> Option<&'b [u8]> {
        let due = now + self.policy.frame_timeout;
        let session = self.sessions.get_mut(key)?;
        let outcome = match gather(session, bytes, due) {
            Ok(None) => Ok(None),
            Ok(Some((source, rest))) => {
                session.phase = Phase::AwaitingHello;
                self.counters.proxy_headers_received += 1;
                self.count_for(key, source).map(|()| Some(rest))
            }
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(Some(rest)) if !rest.is_empty() => Some(rest),
            Ok(_) => {
                self.refile(key, now);
                None
            }
            Err(reason) => {
                self.close(key, reason);
                None
            }
        }
    }

    /// Counts a session for the one whom its proxy speaks for.
    fn count_for(
        &mut self,
        key: SessionKey,
        source: Option<PeerAddress>,
    ) -> Result<(), CloseReason> {
        let Some(source) = source else { return Ok(()) };
        if !self.admission.enter_from(source) {
            return Err(CloseReason::MaxPerIp);
        }
        self.note_counted_for(key, source);
        Ok(())
    }
}

/// Whom the proxy speaks for, and what follows; nothing while the header has not come whole.
type Header<'b> = Option<(Option<PeerAddress>, &'b [u8])>;

/// Joins what has come of the header before and what comes now, no further than to its end.
fn gather<'b, C>(
    session: &mut Session<C>,
    bytes: &'b [u8],
    due: Timestamp,
) -> Result<Header<'b>, CloseReason> {
    let (mut front, due) = match session.partial.take().map(|partial| *partial) {
        Some(Partial { unfinished: Unfinished::Bytes(front), due }) => (front, due),
        _ => (Vec::new(), due),
    };
    let mut rest = bytes;
    loop {
        match parse(&front).map_err(|_| CloseReason::ProxyMalformed)? {
            Parsed::Whole { source, .. } => return Ok(Some((source, rest))),
            Parsed::Partial { .. } if rest.is_empty() => {
                let unfinished = Unfinished::Bytes(front);
                session.partial = Some(Box::new(Partial { unfinished, due }));
                return Ok(None);
            }
            Parsed::Partial { wanted } => {
                let (more, back) = rest.split_at((wanted - front.len()).min(rest.len()));
                front.extend_from_slice(more);
                rest = back;
            }
        }
    }
}
