//! The application's hook: what it is told, and what it may want.

use std::cell::RefCell;
use std::rc::Rc;

use heartwheel::protocol::Protocol;
use heartwheel::protocol::frame::Frame;
use heartwheel::session::SessionId;
use heartwheel::shard::{Actions, CloseReason, Handler, Policy};

use crate::world::{PING, PONG, World, encode};

/// Repeats every message to all who have sent one, and writes down what happens.
#[derive(Default)]
struct Party {
    guests: Vec<SessionId>,
    diary: Rc<RefCell<Vec<String>>>,
}

impl Handler for Party {
    fn opened(&mut self, _: SessionId, _: &mut Actions) {
        self.diary.borrow_mut().push("opened".to_owned());
    }

    fn message(&mut self, session: SessionId, message: &[u8], actions: &mut Actions) {
        self.diary.borrow_mut().push(String::from_utf8_lossy(message).into_owned());
        if !self.guests.contains(&session) {
            self.guests.push(session);
        }
        self.letter(message, actions);
    }

    fn closed(&mut self, _: SessionId, reason: CloseReason, _: &mut Actions) {
        self.diary.borrow_mut().push(reason.name().to_owned());
    }

    fn letter(&mut self, letter: &[u8], actions: &mut Actions) {
        let message = actions.message(letter).expect("short");
        for &guest in &self.guests {
            actions.push(guest, &message);
        }
    }
}

#[test]
fn a_handler_hears_of_sessions_and_messages_and_pushes_to_them() {
    let mut world = World::new(Policy::default());
    let party = Party::default();
    let diary = Rc::clone(&party.diary);
    world.set_handler(Box::new(party));
    let first = world.connect();
    let (second, greeting) = world.connect_by(Protocol::WebSocket);
    let silent = world.connect();
    world.receive(silent, PING);
    world.receive(first, &encode(&Frame::Data(b"hello")));
    let pushed = world.sent_to(first).to_vec();
    assert_eq!((pushed[2], &pushed[11..]), (5, &b"hello"[..]), "a PUSH: {pushed:?}");
    // A masked text frame; the mask is 0.
    world.receive(second, &[&[0x81, 0x82, 0, 0, 0, 0][..], b"hi"].concat());
    assert_eq!(world.sent_to(second)[greeting..], [&[0x81, 2][..], b"hi"].concat());
    assert_eq!(world.sent_to(first).len(), 16 + 13, "both are pushed the second message");
    assert_eq!(world.sent_to(silent), PONG, "a heartbeat is none of the handler's business");

    // One receipt counts for one of the two who were sent the same message.
    let id = pushed[3..11].try_into().map(u64::from_be_bytes).expect("eight bytes") + 1;
    world.receive(first, &encode(&Frame::PushAck { id }));
    let account = world.account(id).expect("known");
    assert_eq!((account.requested, account.acknowledged, account.unconfirmed), (2, 1, 1));

    world.peer_closes(first);
    world.letter(b"bye");
    assert_eq!(world.counters().handler_pushes_refused, 1, "one of the guests has gone");
    assert_eq!(world.sent_to(second)[greeting + 4..], [&[0x81, 3][..], b"bye"].concat());
    let expected = ["opened", "opened", "opened", "hello", "hi", "peer_closed"];
    assert_eq!(*diary.borrow(), expected);
    world.check_laws();
}

/// Pushes what it hears back to whoever has said it, twice.
struct Echoes;

impl Handler for Echoes {
    fn message(&mut self, session: SessionId, message: &[u8], actions: &mut Actions) {
        let message = actions.message(message).expect("short");
        actions.push(session, &message);
        actions.push(session, &message);
    }
}

#[test]
fn a_message_that_is_still_on_its_way_to_a_session_is_not_pushed_to_it_again() {
    let mut world = World::new(Policy::default());
    world.set_handler(Box::new(Echoes));
    let one = world.connect();
    world.receive(one, PING);
    world.receive(one, &encode(&Frame::Data(b"hello")));
    let pushed = world.sent_to(one)[PONG.len()..].to_vec();
    assert_eq!((pushed.len(), pushed[2]), (3 + 8 + 5, 5), "one PUSH: {pushed:?}");
    assert_eq!(world.counters().handler_pushes_refused, 1);
    let id = pushed[3..11].try_into().map(u64::from_be_bytes).expect("eight bytes");
    world.receive(one, &encode(&Frame::PushAck { id }));
    let account = world.account(id).expect("known");
    assert_eq!((account.requested, account.acknowledged, account.pending), (1, 1, 0));
    world.check_laws();
}
