//! Listening sockets that a service manager has opened before we started (`sd_listen_fds(3)`), and
//! keeps open after we have ended: whoever connects in between waits in their queues, and a restart
//! loses nobody.
//!
//! Several on one address must be SO_REUSEPORT ones (`ReusePort=yes` in a `.socket` unit): the
//! kernel then spreads connections over them, as over our own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::{SockRef, Socket};

use super::{Listen, ListenError, Listener, SocketOptions, join_listeners, prepare};
use crate::limits::LISTEN_BACKLOG;

/// What was inherited and is not in use yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, OwnedFd)>,
}

impl Inherited {
    /// Takes what LISTEN_FDS names, if LISTEN_PID is this process.
    ///
    /// # Errors
    /// If one of them is no TCP socket that listens.
    pub fn from_env() -> io::Result<Inherited> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            if let Some(listener) = passed.take_tcp_listener(index)? {
                sockets.push((listener.local_addr()?, listener.into()));
            }
        }
        Ok(Inherited { sockets })
    }

    /// Those on this address, made ready for what is accepted from them.
    fn take(&mut self, address: SocketAddr, options: &SocketOptions) -> io::Result<Vec<OwnedFd>> {
        let is_there = |(bound, _): &mut (SocketAddr, OwnedFd)| *bound == address;
        let taken = self.sockets.extract_if(.., is_there);
        taken
            .map(|(_, socket)| {
                let socket = Socket::from(socket);
                prepare(&socket, options)?;
                // A service manager's queue may be short; listening again only makes it longer.
                socket.listen(LISTEN_BACKLOG)?;
                Ok(OwnedFd::from(socket))
            })
            .collect()
    }

    /// Deals those on the address of `listen` out to the groups, so that each gets one at least.
    /// Whether there were any: if not, nothing is done.
    ///
    /// # Errors
    /// If there are fewer than groups and more cannot be opened beside them.
    pub fn deal_out(
        &mut self,
        listen: Listen,
        options: &SocketOptions,
        groups: &mut [Vec<Listener>],
    ) -> Result<bool, ListenError> {
        let Listen { protocol, address } = listen;
        let taken =
            self.take(address, options).map_err(|source| ListenError::Other { address, source })?;
        let (inherited, needed) = (taken.len(), groups.len());
        if inherited == 0 {
            return Ok(false);
        }
        for (number, socket) in taken.into_iter().enumerate() {
            groups[number % needed].push(Listener { protocol, socket });
        }
        for group in groups.iter_mut().skip(inherited) {
            let socket = join_listeners(address, options).map_err(|source| {
                ListenError::TooFewInherited { address, inherited, needed, source }
            })?;
            group.push(Listener { protocol, socket });
        }
        Ok(true)
    }

    /// Makes sure that none is left over: whom the kernel gave to it would wait for ever.
    ///
    /// # Errors
    /// The first that no `--listen` names.
    pub fn finish(self) -> Result<(), ListenError> {
        match self.sockets.first() {
            Some(&(address, _)) => Err(ListenError::Unasked { address }),
            None => Ok(()),
        }
    }
}

/// Whether a listener is one of those on this address.
pub fn listens_on(listener: &Listener, address: SocketAddr) -> bool {
    let bound = SockRef::from(&listener.socket).local_addr();
    bound.ok().and_then(|bound| bound.as_socket()) == Some(address)
}
