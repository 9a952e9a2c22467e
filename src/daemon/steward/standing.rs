//! How this process stands, for whoever asks.

use super::Steward;
use crate::upgrade::Standing;
use crate::upgrade::channel::AsyncChannel;
use crate::upgrade::message::Answer;

impl Steward {
    /// Tells it. Who does not listen misses nothing that matters.
    pub(super) fn tell_standing(&self, curious: &AsyncChannel) {
        let _ = curious.send(&Answer::Standing(self.standing()), &[]);
    }

    fn standing(&self) -> Standing {
        Standing {
            in_flight: self.drain.in_flight() as u64,
            under_way: self.means.predecessor.under_way(),
            most_draining: self.means.options.max_draining as u64,
            draining: self.elders.iter().map(|elder| elder.now()).collect(),
            last_upgrade: self.means.vault.record().last_upgrade,
            ..Standing::new(self.generation, std::process::id().cast_signed())
        }
    }
}
