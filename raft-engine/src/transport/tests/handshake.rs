//! Who may meet whom, and how copies are caught.

use super::super::RefusedBy;
use super::{
    Book, ConnectionEvent, NOW, Purpose, Refusal, RefusalKind, Side, Violation, exchange, heartbeat, limits, pair,
};
use crate::types::{ClusterId, Identity, Incarnation, ServerId, Time};

fn meet(from: Book, to: Book) -> (Side, Side) {
    let mut dialler = Side::dial(from, 1, Purpose::Messages, limits());
    let mut acceptor = Side::accept(to, limits());
    exchange(&mut dialler, &mut acceptor);
    (dialler, acceptor)
}

/// How a side refused or was refused.
fn refusal(side: &Side) -> Option<(RefusedBy, &Refusal)> {
    side.events.iter().find_map(|event| match event {
        ConnectionEvent::Refused { by, refusal, .. } => Some((*by, refusal)),
        _ => None,
    })
}

/// Both sides report the same refusal, which `by_dialler` tells whose it is, and are done.
fn both_report(dialler: &Side, acceptor: &Side, kind: RefusalKind, by_dialler: bool) -> String {
    let (dialler_by, acceptor_by) =
        if by_dialler { (RefusedBy::Us, RefusedBy::Peer) } else { (RefusedBy::Peer, RefusedBy::Us) };
    let (by, said) = refusal(dialler).expect("the dialler reports a refusal");
    assert_eq!((by, said.kind), (dialler_by, kind));
    let (by, heard) = refusal(acceptor).expect("the acceptor reports a refusal");
    assert_eq!((by, heard), (acceptor_by, said));
    assert!(dialler.connection.is_closed() && acceptor.connection.is_closed());
    assert!(dialler.established().is_none() && acceptor.established().is_none());
    said.text.clone()
}

fn copy_detected(side: &Side) -> Option<(ServerId, Incarnation)> {
    side.events.iter().find_map(|event| match event {
        ConnectionEvent::CopyDetected { told_by, pair } => Some((*told_by, *pair)),
        _ => None,
    })
}

fn identity(id: u64) -> Identity {
    Book::new(id, 1).local.identity
}

#[test]
fn two_servers_of_one_cluster_meet() {
    let (dialler, acceptor) = meet(Book::new(2, 3), Book::new(1, 4));
    let peer = dialler.established().unwrap();
    assert_eq!((peer.id, peer.identity, peer.incarnation), (ServerId(1), identity(1), pair(1, 4)));
    assert_eq!((peer.version, peer.purpose, peer.may_remember), (1, Purpose::Messages, true));
    let peer = acceptor.established().unwrap();
    assert_eq!((peer.id, peer.identity, peer.incarnation), (ServerId(2), identity(2), pair(2, 3)));
    assert_eq!((peer.version, peer.purpose, peer.may_remember), (1, Purpose::Messages, true));
    assert_eq!(dialler.connection.deadline(), Time::NEVER);
}

#[test]
fn the_highest_common_version_is_spoken() {
    let ranged = |id, min, max| {
        let mut book = Book::new(id, 1);
        (book.local.version_min, book.local.version_max) = (min, max);
        book
    };
    for ((min, max), (other_min, other_max), spoken) in [
        ((1, 1), (1, 3), Some(1)),
        ((1, 3), (2, 5), Some(3)),
        ((4, 6), (2, 5), Some(5)),
        ((1, 2), (3, 4), None),
        ((3, 4), (1, 2), None),
    ] {
        let (dialler, acceptor) = meet(ranged(2, min, max), ranged(1, other_min, other_max));
        match spoken {
            Some(version) => {
                assert_eq!(dialler.established().unwrap().version, version);
                assert_eq!(acceptor.established().unwrap().version, version);
            }
            None => {
                let text = both_report(&dialler, &acceptor, RefusalKind::Version, false);
                assert!(text.contains(&format!("{min} to {max}")) && text.contains("upgrade"), "{text}");
            }
        }
    }
}

#[test]
fn another_cluster_is_refused_with_both_names() {
    let mut other = Book::new(2, 1);
    other.local.cluster = ClusterId::new("other").unwrap();
    let (dialler, acceptor) = meet(other, Book::new(1, 1));
    let text = both_report(&dialler, &acceptor, RefusalKind::Cluster, false);
    assert!(text.contains("\"demo\"") && text.contains("\"other\""), "{text}");
}

#[test]
fn an_address_that_leads_to_another_server_is_refused() {
    let (dialler, acceptor) = meet(Book::new(2, 1), Book::new(3, 1));
    let text = both_report(&dialler, &acceptor, RefusalKind::WrongServer, false);
    assert!(text.contains("this is server 3, not server 1"), "{text}");
}

#[test]
fn two_servers_with_one_id_refuse_each_other() {
    let (dialler, acceptor) = meet(Book::new(1, 1), Book::new(1, 1));
    both_report(&dialler, &acceptor, RefusalKind::SameServer, false);
}

#[test]
fn an_id_bound_to_another_identity_is_refused_by_whichever_side_knows() {
    // Server 2's directory was wiped: server 1 knows another identity for it.
    let mut knows = Book::new(1, 1);
    knows.bound.insert(ServerId(2), Identity([0xee; 16]));
    let (dialler, acceptor) = meet(Book::new(2, 1), knows);
    let text = both_report(&dialler, &acceptor, RefusalKind::IdentityBound, false);
    assert!(text.contains("new id"), "the remedy: {text}");

    let mut knows = Book::new(2, 1);
    knows.bound.insert(ServerId(1), Identity([0xee; 16]));
    let (dialler, acceptor) = meet(knows, Book::new(1, 1));
    both_report(&dialler, &acceptor, RefusalKind::IdentityBound, true);
}

#[test]
fn a_pair_handed_back_is_replaced_by_a_higher_one_once_it_is_confirmed() {
    let from = Book::new(2, 5).remembering(identity(1), pair(1, 7));
    let to = Book::new(1, 7).remembering(identity(2), pair(2, 3));
    let (dialler, acceptor) = meet(from, to);
    assert!(acceptor.established().unwrap().may_remember, "5 in place of 3, which 2 confirmed");
    assert!(!dialler.established().unwrap().may_remember, "7 is what is remembered already");
}

#[test]
fn a_dialler_whose_history_lacks_the_pair_handed_back_is_a_copy() {
    // Server 2 was met as incarnation 6. A copy of its directory, taken at 5, is opened as another 6.
    let mut copy = Book::new(2, 6);
    copy.local.incarnation.nonce = 99;
    let to = Book::new(1, 1).remembering(identity(2), pair(2, 6));
    let (dialler, acceptor) = meet(copy, to);
    assert_eq!(copy_detected(&dialler), Some((ServerId(1), pair(2, 6))));
    let (by, refusal) = refusal(&acceptor).unwrap();
    assert_eq!((by, refusal.kind), (RefusedBy::Us, RefusalKind::Copy));
    assert!(dialler.established().is_none() && acceptor.established().is_none());
    assert!(dialler.connection.is_closed() && acceptor.connection.is_closed());
}

#[test]
fn a_copy_that_has_overtaken_the_original_in_number_is_still_found() {
    let mut copy = Book::new(2, 9);
    copy.history.iter_mut().filter(|pair| pair.number > 5).for_each(|pair| pair.nonce += 500);
    let to = Book::new(1, 1).remembering(identity(2), pair(2, 6));
    let (dialler, _) = meet(copy, to);
    assert_eq!(copy_detected(&dialler), Some((ServerId(1), pair(2, 6))));
}

#[test]
fn an_acceptor_whose_history_lacks_the_pair_handed_back_is_a_copy() {
    let from = Book::new(2, 1).remembering(identity(1), pair(1, 8));
    let (dialler, acceptor) = meet(from, Book::new(1, 4));
    assert_eq!(copy_detected(&acceptor), Some((ServerId(2), pair(1, 8))));
    let (by, refusal) = refusal(&dialler).unwrap();
    assert_eq!((by, refusal.kind), (RefusedBy::Us, RefusalKind::Copy));
    assert!(dialler.established().is_none() && acceptor.established().is_none());
}

#[test]
fn a_pair_older_than_the_oldest_kept_proves_nothing_and_stays() {
    let mut from = Book::new(2, 2000);
    from.history.drain(..900);
    let to = Book::new(1, 1).remembering(identity(2), pair(2, 3));
    let (dialler, acceptor) = meet(from, to);
    assert!(dialler.established().is_some());
    assert!(!acceptor.established().unwrap().may_remember);
}

#[test]
fn a_replay_of_an_older_incarnation_is_refused() {
    // What server 2 said in incarnation 3, when 1 remembered its incarnation 2.
    let mut from = Side::dial(Book::new(2, 3), 1, Purpose::Messages, limits());
    let mut to = Side::accept(Book::new(1, 1).remembering(identity(2), pair(2, 2)), limits());
    let hello = from.take_bytes();
    to.receive(hello.clone());
    from.receive(to.take_bytes());
    let confirm = from.take_bytes();

    // Said again after 1 met incarnation 4.
    let mut to = Side::accept(Book::new(1, 1).remembering(identity(2), pair(2, 4)), limits());
    to.receive(hello);
    to.receive(confirm);
    let (by, refusal) = refusal(&to).unwrap();
    assert_eq!((by, refusal.kind), (RefusedBy::Us, RefusalKind::StaleIncarnation));
    assert!(to.established().is_none());
}

#[test]
fn nothing_to_look_for_cannot_be_lacking() {
    let mut from = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    let mut to = Side::accept(Book::new(1, 1).remembering(identity(2), pair(2, 9)), limits());
    let hello = from.take_bytes();
    to.receive(hello.clone());
    from.receive(to.take_bytes());
    let confirm_of_a_copy = from.take_bytes();

    let mut to = Side::accept(Book::new(1, 1), limits());
    to.receive(hello);
    to.receive(confirm_of_a_copy);
    assert!(matches!(to.violation(), Some(Violation::Value { field: "holds", .. })));
}

#[test]
fn messages_out_of_turn_end_a_handshake() {
    let dial = || Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    let accept = || Side::accept(Book::new(1, 1), limits());
    // A Hello to a dialler.
    let (mut left, mut right) = (dial(), dial());
    left.receive(right.take_bytes());
    assert!(matches!(left.violation(), Some(Violation::OutOfTurn { .. })));
    // A Hello said twice.
    let (mut left, mut right) = (dial(), accept());
    let hello = left.take_bytes();
    right.receive(hello.clone());
    right.receive(hello);
    assert!(matches!(right.violation(), Some(Violation::OutOfTurn { .. })));
    // A message before the end.
    let (mut left, _) = super::open(Purpose::Messages, limits());
    left.send(&heartbeat(1));
    let mut right = accept();
    right.receive(left.take_bytes());
    assert!(matches!(right.violation(), Some(Violation::OutOfTurn { .. })));
    assert!(right.messages().is_empty());
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let mut acceptor = Side::accept(Book::new(1, 1), limits());
    assert_eq!(acceptor.connection.deadline(), NOW + limits().handshake_timeout);
    let mut dialler = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    let hello = dialler.take_bytes();
    acceptor.receive(hello.slice(..hello.len() - 1));
    let deadline = NOW + limits().handshake_timeout;
    assert_eq!(acceptor.connection.deadline(), deadline, "a slow drip moves no deadline");
    acceptor.connection.expire(Time(deadline.0 - 1), &mut acceptor.events);
    assert!(acceptor.events.is_empty());
    acceptor.connection.expire(deadline, &mut acceptor.events);
    assert_eq!(acceptor.violation(), Some(&Violation::HandshakeTooSlow));
    assert_eq!(acceptor.connection.deadline(), Time::NEVER);
}

#[test]
fn an_acceptor_can_say_why_it_ends_an_open_connection() {
    let (mut dialler, mut acceptor) = super::open(Purpose::Messages, limits());
    acceptor.connection.refuse(&Refusal::new(RefusalKind::Stopped, "the log failed"));
    exchange(&mut dialler, &mut acceptor);
    let (by, refusal) = refusal(&dialler).unwrap();
    assert_eq!((by, refusal.kind, refusal.text.as_str()), (RefusedBy::Peer, RefusalKind::Stopped, "the log failed"));
    assert!(dialler.connection.is_closed() && acceptor.connection.is_closed());
}

#[test]
fn a_reason_of_a_later_version_is_still_reported() {
    let unknown = RefusalKind::from_number(4711);
    assert_eq!((unknown, unknown.number()), (RefusalKind::Other(4711), 4711));
    let mut acceptor = Side::accept(Book::new(1, 1), limits());
    let mut dialler = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    acceptor.connection.refuse(&Refusal::new(unknown, "new words"));
    exchange(&mut dialler, &mut acceptor);
    assert_eq!(refusal(&dialler).unwrap().1, &Refusal::new(unknown, "new words"));
}
