//! Those programs that every tree has.

use super::{list, upgrade_again_and_again};

on_every_systemd_with_programs! {
    fn pythons_server_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::PYTHON);
    }

    fn nginx_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::NGINX);
    }

    fn nginx_with_reuseport_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::NGINX_WITH_REUSEPORT);
    }
}
