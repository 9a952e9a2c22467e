//! Programs that write different versions of a session's state: forward, and back again.

use super::Keeper;
use crate::gate::soon;

on_every_systemd! {
    fn an_older_program_goes_on_with_what_it_can_read(systemd) {
        let keeper = Keeper::boot(systemd, "Environment=KEEPER_STATE=1:1\n");
        let sessions = keeper.sessions(5, 5);
        let change: [&dyn Fn(); 3] =
            [&|| _ = keeper.upgrade(), &|| keeper.systemctl("restart"), &|| keeper.kill()];
        for change in change {
            for version in ["2:1", "1:1"] {
                keeper.drop_in(&format!("Environment=KEEPER_STATE={version}\n"));
                change();
                sessions.pass_each(2);
            }
        }
        sessions.stop().assert_nothing_lost();
        keeper.assert_calm();
    }

    fn an_older_program_refuses_what_it_cannot_read(systemd) {
        let keeper = Keeper::boot(systemd, "Environment=KEEPER_STATE=3:3\n");
        let mut talks = [keeper.talk().served(), keeper.talk_unix().served()];
        let (old, stored) = (keeper.main_pid(), keeper.stored());
        keeper.drop_in("Environment=KEEPER_STATE=2:1\n");
        // Sessions stay with who can read them, and new ones begin with the older program.
        let new = keeper.upgrade();
        let mut later: Vec<_> = (0..4).map(|_| keeper.talk().served()).collect();
        assert!(later.iter_mut().all(|talk| talk.pid() == new));
        for talk in &mut talks {
            assert_eq!((talk.ask("GET a"), talk.pid()), ("value 1".to_owned(), old));
        }
        // One that ends is not taken for another.
        let [first, mut second] = talks;
        assert_eq!(second.ask("QUIT"), "bye");
        soon("it is forgotten", || keeper.stored() == stored + 3);
        // A start is without those that stayed.
        for change in [&(|| keeper.kill()) as &dyn Fn(), &|| keeper.systemctl("restart")] {
            change();
            for talk in &mut later {
                assert_eq!(talk.ask("GET a"), "value 1");
                assert_ne!(talk.pid(), old);
            }
        }
        assert_eq!(first.end(), "");
        keeper.assert_calm();
    }
}
