//! The store against a PID 1 that keeps what fits.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::fdstore::fake_store::FakeStore;
use crate::notify::fake_manager::FakeManager;

/// Long enough for what must come, and shorter than the fake PID 1 waits for a word.
const SOON: Duration = Duration::from_secs(5);

/// Something that is no connection.
fn file() -> OwnedFd {
    std::fs::File::open("/").unwrap().into()
}

/// No names.
fn none() -> Vec<String> {
    Vec::new()
}

#[tokio::test]
async fn what_was_stashed_is_held_and_known_to_be() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let a = store.stash("a", file()).await.unwrap();
    let b = store.stash("b", UnixStream::pair().unwrap().0).await.unwrap();
    store.confirm().await.unwrap();
    assert_eq!(pid1.names(), ["a", "b"]);
    assert_eq!((store.list(), store.free()), (vec!["a".to_string(), "b".to_string()], Some(8)));
    assert_eq!(pid1.told()[..2], ["FDSTORE=1\nFDNAME=a", "FDSTORE=1\nFDNAME=b\nFDPOLL=0"]);
    drop((a, b));
    assert_eq!((pid1.names(), store.free()), (none(), Some(10)));
}

#[tokio::test]
async fn the_first_that_would_not_fit_is_refused_and_comes_back() {
    for limit in [Some(4), None] {
        let pid1 = FakeStore::of(4);
        let store = pid1.client(limit);
        let mut stashed = Vec::new();
        for name in ["a", "b", "c", "d"] {
            stashed.push(store.stash(name, file()).await.unwrap());
        }
        let (thing, _peer) = UnixStream::pair().unwrap();
        let refused = store.stash("e", thing).await.unwrap_err();
        assert!(matches!(refused.error, StashError::Full { limit: 4 }), "{}", refused.error);
        refused.thing.local_addr().unwrap();
        store.confirm().await.unwrap();
        assert_eq!(pid1.names(), ["a", "b", "c", "d"], "limit {limit:?}");
        if limit.is_some() {
            assert_eq!(pid1.count("FDSTORE=1\nFDNAME=e"), 0);
        }
        drop(stashed.pop());
        stashed.push(store.stash("f", file()).await.unwrap());
        store.confirm().await.unwrap();
        assert_eq!(pid1.names(), ["a", "b", "c", "f"], "limit {limit:?}");
    }
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_told_by_the_settings_to_change() {
    for limit in [Some(10), None] {
        let pid1 = FakeStore::of(0);
        let store = pid1.client(limit);
        let error = match store.stash("a", file()).await {
            Ok(_stashed) => store.confirm().await.unwrap_err(),
            Err(refused) => refused.error,
        };
        assert!(matches!(error, StashError::NotKept { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains("FileDescriptorStoreMax=") && words.contains("NotifyAccess="), "{words}");
    }
}

#[tokio::test]
async fn strangers_who_fill_the_store_are_noticed_and_so_is_the_end_of_that() {
    let pid1 = FakeStore::of(3);
    let store = pid1.client(Some(10));
    let stashed = [store.stash("a", file()).await.unwrap(), store.stash("b", file()).await.unwrap()];
    store.confirm().await.unwrap();
    let late = [store.stash("c", file()).await.unwrap(), store.stash("d", file()).await.unwrap()];
    assert!(matches!(store.confirm().await, Err(StashError::NotKept { held: 4 })));
    pid1.limit.store(10, Ordering::SeqCst);
    drop(late);
    let again = store.stash("c", file()).await.unwrap();
    store.confirm().await.unwrap();
    assert_eq!(pid1.names(), ["a", "b", "c"]);
    drop((stashed, again));
}

#[tokio::test]
async fn many_who_confirm_at_once_share_a_canary() {
    let pid1 = FakeStore::of(100);
    let store = pid1.client(Some(100));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            let stashed = store.stash(&format!("n{number}"), file()).await.unwrap();
            store.confirm().await.unwrap();
            stashed.leave()
        });
    }
    tasks.join_all().await;
    assert_eq!(pid1.names().len(), 50);
    let rounds = pid1.count("FDSTORE=1\nFDNAME=handover.canary");
    assert!(rounds <= 2, "{rounds} canaries");
}

#[tokio::test]
async fn many_who_wait_for_the_same_failure_share_it() {
    let pid1 = FakeStore::of(0);
    let store = pid1.client(Some(100));
    let stashed = store.stash("a", file()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        tasks.spawn(async move { store.confirm().await });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_err));
    let rounds = pid1.count("FDSTORE=1\nFDNAME=handover.canary");
    assert!(rounds <= 2, "{rounds} canaries");
    pid1.limit.store(100, Ordering::SeqCst);
    drop(stashed);
    let _again = store.stash("a", file()).await.unwrap();
    store.confirm().await.unwrap();
}

#[tokio::test]
async fn a_dropped_connection_reaches_its_peer_while_another_process_has_it() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(SOON)).unwrap();
    let stashed = store.stash("a", listener.accept().unwrap().0).await.unwrap();
    let kept_elsewhere = stashed.try_clone().unwrap();
    stashed.end();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(pid1.names(), none());
    drop(kept_elsewhere);
    let left = store.stash("b", file()).await.unwrap().leave();
    drop(left);
    assert_eq!((pid1.names(), store.list()), (vec!["b".to_string()], vec!["b".to_string()]));
    store.forget("b").await.unwrap();
    assert_eq!((pid1.names(), store.list()), (none(), none()));
}

#[test]
fn what_is_dropped_without_a_runtime_ends_all_the_same() {
    let pid1 = FakeStore::of(10);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let (store, stashed) = runtime.block_on(async {
        let store = pid1.client(Some(10));
        let stashed = store.stash("a", ours).await.unwrap();
        (store, stashed)
    });
    drop(runtime);
    drop(stashed);
    peer.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!((pid1.names(), store.list()), (none(), none()));
}

#[test]
fn what_is_dropped_in_a_pause_without_a_runtime_is_removed_when_the_pause_ends() {
    let pid1 = FakeStore::of(10);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = pid1.client(Some(10));
    let stashed = runtime.block_on(store.stash("a", file())).unwrap();
    let pause = store.pause();
    drop(stashed);
    assert_eq!(pid1.names(), ["a"]);
    drop(pause);
    assert_eq!(pid1.names(), none());
}

#[tokio::test]
async fn removals_that_pid_1_has_no_room_for_are_sent_before_the_name_is_used_again() {
    let manager = FakeManager::at_abstract_name();
    let bounds = Bounds { limit: Some(10), open_files: 1024, others: 0, other_bytes: 0 };
    let store = Store::new(Notifier::to(&manager.address).unwrap(), bounds);
    let stashed = store.stash("a", file()).await.unwrap();
    let queued = manager.fill(&Notifier::to(&manager.address).unwrap());
    drop(stashed);
    assert_eq!(store.list(), ["a"]);
    let (again, ()) = tokio::join!(store.stash("a", file()), async {
        assert_eq!(manager.receive().0, "FDSTORE=1\nFDNAME=a");
        (0..queued).for_each(|_| assert_eq!(manager.receive().0, "READY=1"));
    });
    let _again = again.unwrap();
    assert_eq!(manager.receive().0, "FDSTOREREMOVE=1\nFDNAME=a");
    assert_eq!(manager.receive().0, "FDSTORE=1\nFDNAME=a");
    assert!(manager.try_receive().is_none());
}

#[tokio::test]
async fn a_task_sends_the_removals_that_nobody_waits_for() {
    let manager = FakeManager::at_abstract_name();
    let bounds = Bounds { limit: Some(10), open_files: 1024, others: 0, other_bytes: 0 };
    let store = Store::new(Notifier::to(&manager.address).unwrap(), bounds);
    let stashed = [store.stash("a", file()).await.unwrap(), store.stash("b", file()).await.unwrap()];
    manager.fill(&Notifier::to(&manager.address).unwrap());
    drop(stashed);
    drop(store);
    let removed = tokio::task::spawn_blocking(move || {
        std::iter::repeat_with(|| manager.receive().0)
            .filter(|text| text.starts_with("FDSTOREREMOVE"))
            .take(2)
            .count()
    });
    assert_eq!(removed.await.unwrap(), 2);
}

#[tokio::test]
async fn after_a_hand_over_nothing_is_sent_and_the_successor_is_told_what_ends() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let a = store.stash("a", ours).await.unwrap();
    store.confirm().await.unwrap();
    let b = store.stash("b", file()).await.unwrap();
    let pause = store.pause();
    drop(b);
    pause.handed_over();
    let told = pid1.names().len() + pid1.told().len();
    drop(a);
    peer.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    assert!(matches!(store.stash("c", file()).await.unwrap_err().error, StashError::Silent));
    assert!(matches!(store.forget("a").await, Err(StashError::Silent)));
    assert_eq!(tokio::time::timeout(SOON, store.ended()).await.unwrap(), ["b", "a"]);
    // Our own barrier, of `names`, is all that has come.
    assert_eq!(pid1.names().len() + pid1.told().len(), told + 1);
}

#[tokio::test]
async fn a_hand_over_that_is_given_up_lets_everybody_speak_again() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let a = store.stash("a", file()).await.unwrap();
    let pause = store.pause();
    drop(a);
    assert_eq!(pid1.names(), ["a"]);
    let (b, ()) = tokio::join!(store.stash("b", file()), async {
        tokio::task::yield_now().await;
        assert_eq!(pid1.names(), ["a"]);
        drop(pause);
    });
    let _b = b.unwrap();
    store.confirm().await.unwrap();
    assert_eq!(pid1.names(), ["b"]);
}

#[tokio::test]
async fn who_leaves_ends_nothing() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let a = store.stash("a", ours).await.unwrap();
    store.confirm().await.unwrap();
    store.leave();
    drop(a);
    assert_eq!(pid1.names(), ["a"]);
    peer.set_nonblocking(true).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn more_than_one_message_carries_share_a_name_and_go_together() {
    for limit in [Some(1000), None] {
        let pid1 = FakeStore::of(1000);
        let store = pid1.client(limit);
        let fd = file();
        store.stash_all("same", &vec![fd.as_fd(); 600]).await.unwrap();
        store.confirm().await.unwrap();
        assert_eq!((pid1.names().len(), pid1.count("FDSTORE=1\nFDNAME=same")), (600, 3));
        store.forget("same").await.unwrap();
        assert_eq!(pid1.names(), none());
    }
}

#[tokio::test]
async fn a_name_is_one_things_own_and_not_handovers() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let a = store.stash("a", file()).await.unwrap();
    let refused = async |name: &str| store.stash(name, file()).await.unwrap_err().error;
    assert!(matches!(refused("a").await, StashError::Taken { .. }));
    assert!(matches!(refused("ho.1").await, StashError::Reserved { .. }));
    assert!(matches!(refused("handover.state").await, StashError::Reserved { .. }));
    assert!(matches!(refused("a:b").await, StashError::Name(_)));
    assert!(matches!(refused("a\nREADY=1").await, StashError::Name(_)));
    let own = store.stash_own("ho.1", file()).await.unwrap();
    assert_eq!(store.list(), ["a"]);
    drop((a, own));
}

#[tokio::test]
async fn a_socket_that_listens_is_left_to_its_unit() {
    let pid1 = FakeStore::of(10);
    let store = pid1.client(Some(10));
    let refused = store.stash("web", TcpListener::bind("127.0.0.1:0").unwrap()).await.unwrap_err();
    assert!(matches!(refused.error, StashError::Listening { .. }));
    assert!(refused.error.to_string().contains("listening TCP socket: leave it to a .socket unit"));
    assert_eq!(pid1.names(), none());
}

#[tokio::test]
async fn what_came_out_of_the_store_is_counted_and_ends_as_what_was_stashed() {
    let pid1 = FakeStore::of(10);
    let before = pid1.client(Some(10));
    drop(before.stash("a", file()).await.unwrap().leave());
    let store = pid1.client(Some(2));
    store.holds("a");
    store.holds("foreign");
    assert!(matches!(store.stash("b", file()).await.unwrap_err().error, StashError::Full { limit: 2 }));
    let adopted = store.adopt("a", file());
    assert_eq!((adopted.name(), store.shared.books().held()), ("a", 2));
    drop(adopted);
    assert_eq!((pid1.names(), store.list()), (none(), vec!["foreign".to_string()]));
}

#[tokio::test]
async fn a_future_that_is_dropped_has_stored_nothing_and_counts_nothing() {
    let manager = FakeManager::at_abstract_name();
    let bounds = Bounds { limit: Some(10), open_files: 1024, others: 0, other_bytes: 0 };
    let store = Store::new(Notifier::to(&manager.address).unwrap(), bounds);
    manager.fill(&Notifier::to(&manager.address).unwrap());
    tokio::select! {
        biased;
        _ = store.stash("a", file()) => panic!("there was room"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!((store.list(), store.free()), (none(), Some(10)));
}

#[tokio::test]
async fn without_a_manager_nothing_is_stored_and_nothing_is_silent_about_it() {
    let bounds = Bounds { limit: None, open_files: 1024, others: 0, other_bytes: 0 };
    let store = Store::new(Notifier::none(), bounds);
    assert!(matches!(store.stash("a", file()).await.unwrap_err().error, StashError::NoManager));
    store.confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pid_1_that_does_not_answer_is_not_waited_for_without_end() {
    let manager = FakeManager::at_abstract_name();
    let bounds = Bounds { limit: Some(10), open_files: 1024, others: 0, other_bytes: 0 };
    let store = Store::new(Notifier::to(&manager.address).unwrap(), bounds);
    let _a = store.stash("a", file()).await.unwrap();
    let error = store.confirm().await.unwrap_err();
    assert!(matches!(error, StashError::Notify(_)), "{error}");
}
