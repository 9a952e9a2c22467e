//! What was passed is taken once, by name and kind.

use super::*;
use crate::activation::{Kind, Role, Transport};

fn tcp() -> OwnedFd {
    TcpListener::bind("127.0.0.1:0").unwrap().into()
}

fn udp() -> OwnedFd {
    UdpSocket::bind("127.0.0.1:0").unwrap().into()
}

fn directory() -> OwnedFd {
    std::fs::File::open("/").unwrap().into()
}

fn named(fds: Vec<(&str, OwnedFd)>) -> Inherited {
    let (names, fds) = fds.into_iter().map(|(name, fd)| (name.to_string(), fd)).unzip();
    Inherited::new(Origin::Manager, fds, Some(names)).unwrap()
}

#[test]
fn a_name_is_taken_once_and_then_it_is_known_to_be_taken() {
    let mut inherited = named(vec![("web", tcp()), ("admin", tcp())]);
    let web = inherited.take("web").unwrap();
    assert_eq!((web.name(), web.kind()), ("web", Kind::Socket(Transport::Tcp, Role::Listening)));
    assert!(matches!(inherited.take("web"), Err(TakeError::AlreadyTaken { .. })));
    assert!(matches!(inherited.tcp_listener("web"), Err(TakeError::AlreadyTaken { .. })));
    assert_eq!(inherited.names().collect::<Vec<_>>(), ["admin"]);
}

#[test]
fn a_name_that_is_not_there_is_answered_with_those_that_are() {
    let mut inherited = named(vec![("web.socket", directory())]);
    assert_eq!(
        inherited.take("web").unwrap_err().to_string(),
        "nothing named \"web\" was passed (LISTEN_PID names this process); what is there: \
         \"web.socket\" (directory). A .socket unit names its sockets with FileDescriptorName="
    );
    let mut many = named((0..30).map(|_| ("stored", directory())).collect());
    let error = many.take("web").unwrap_err().to_string();
    assert!(error.matches("stored").count() == 8 && error.contains("and 22 more"), "{error}");
}

#[test]
fn several_of_one_name_come_in_the_order_of_arrival_and_never_one_by_chance() {
    let mut inherited = named(vec![("web", tcp()), ("stored", directory()), ("web", tcp())]);
    let order: Vec<_> = inherited.leftover().filter_map(Passed::address).collect();
    assert!(matches!(inherited.take("web"), Err(TakeError::Several { count: 2, .. })));
    assert!(matches!(inherited.tcp_listener("web"), Err(TakeError::Several { count: 2, .. })));
    assert_eq!(inherited.names().collect::<Vec<_>>(), ["web", "stored"]);
    let all = inherited.tcp_listeners("web").unwrap();
    assert_eq!(all.iter().map(|web| web.local_addr().unwrap().to_string()).collect::<Vec<_>>(), order);
    assert_eq!(inherited.take_all("stored").len(), 1);
    assert!(inherited.take_all("stored").is_empty());
    assert_eq!(inherited.leftover().count(), 0);
}

#[test]
fn the_kind_decides_where_tcp_and_udp_share_a_name() {
    let mut inherited = named(vec![("dns", udp()), ("dns", tcp())]);
    assert!(matches!(inherited.take("dns"), Err(TakeError::Several { .. })));
    inherited.tcp_listener("dns").unwrap();
    inherited.udp_socket("dns").unwrap();
}

#[test]
fn a_wrong_kind_is_an_error_that_holds_the_descriptor() {
    let mut inherited = named(vec![("web", udp()), ("web", directory())]);
    for _ in 0..2 {
        let error = inherited.tcp_listeners("web").unwrap_err();
        let TakeError::Convert(error) = error else { panic!("{error}") };
        assert_eq!(error.into_passed().name(), "web");
    }
    assert!(matches!(inherited.tcp_listeners("web"), Err(TakeError::AlreadyTaken { .. })));
}

#[test]
fn without_names_the_first_of_the_kind_is_taken_whatever_it_is_called() {
    let fds = vec![udp(), tcp(), tcp()];
    let mut inherited = Inherited::new(Origin::Development, fds, None).unwrap();
    let first = inherited.leftover().nth(1).and_then(Passed::address).unwrap();
    assert_eq!(inherited.tcp_listener("web").unwrap().local_addr().unwrap().to_string(), first);
    inherited.tcp_listener("admin").unwrap();
    assert!(matches!(inherited.tcp_listener("third"), Err(TakeError::NotPassed { .. })));
    assert!(matches!(inherited.take("web"), Err(TakeError::NotPassed { .. })));
    assert_eq!(inherited.take("unknown").unwrap().kind().to_string(), "UDP socket");
}

#[test]
fn reserved_names_are_for_handover_alone() {
    let mut inherited = named(vec![("handover.link", tcp()), ("handover", directory())]);
    assert_eq!(inherited.names().collect::<Vec<_>>(), ["handover"]);
    assert_eq!(inherited.leftover().count(), 1);
    assert!(inherited.take("handover.link").is_err() && inherited.take_all("handover.link").is_empty());
    assert!(inherited.may_bind());
    assert_eq!(inherited.take_reserved("handover.link").len(), 1);
    assert!(inherited.take_reserved("handover.link").is_empty());
}

#[test]
fn what_has_a_name_of_handovers_and_another_kind_stays() {
    let mut inherited = named(vec![("handover.link", directory()), ("handover.link", tcp())]);
    assert_eq!(inherited.take_reserved_as("handover.link", Kind::Directory).len(), 1);
    assert!(inherited.take_reserved_as("handover.link", Kind::Directory).is_empty());
    assert_eq!(inherited.all().count(), 1);
}

#[test]
fn a_connection_that_pid_1_held_is_handovers_own_too_and_is_taken_by_the_beginning_of_its_name() {
    let fds = ["ho.1", "home", "handover.state", "ho.zz"].map(|name| (name, directory()));
    let mut inherited = named(fds.into());
    assert_eq!(inherited.names().collect::<Vec<_>>(), ["home"]);
    assert_eq!(inherited.all().count(), 4);
    let connections = inherited.take_reserved_prefix("ho.");
    assert_eq!(connections.iter().map(Passed::name).collect::<Vec<_>>(), ["ho.1", "ho.zz"]);
    assert!(inherited.take_reserved_prefix("ho.").is_empty());
    assert_eq!(inherited.take_reserved("handover.state").len(), 1);
}

#[test]
fn nothing_is_a_state_and_no_error() {
    let origin = Origin::ForAnother { variable: "LISTEN_PID", value: "1".into() };
    let mut nothing = Inherited::new(origin, Vec::new(), None).unwrap();
    let error = nothing.tcp_listener("web").unwrap_err().to_string();
    assert!(error.contains("(LISTEN_PID=1 names another process); what is there: nothing."), "{error}");
}
