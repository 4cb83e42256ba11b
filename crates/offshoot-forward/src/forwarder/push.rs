//! Pushes: contents that run ahead of the want.

use offshoot_wire::Address;

use super::{Forwarder, Found};
use crate::sorted::Sorted;
use crate::{Config, ContentHash, Event, OfferId, PushId, Refusal};

pub(super) struct Push {
    pub(super) hash: ContentHash,
    /// The content is not here yet.
    coming: bool,
    /// This context is itself a target.
    own: bool,
    /// How many offers are not answered.
    open: usize,
    failed: Vec<(Address, Refusal)>,
}

pub(super) struct Offer {
    push: PushId,
    targets: Vec<Address>,
}

impl<X: Copy + Ord, L: Copy + Ord> Forwarder<X, L> {
    /// Has a content brought to these contexts, this one or below it, once per link. At the root its owner begins it; in
    /// the other contexts an offer from above does. Ends with [`Event::Pushed`].
    ///
    /// # Errors
    /// [`Refusal::Busy`] when [`Config::pushes`] are under way, [`Refusal::Unknown`] when nobody serves the content.
    pub fn push(&mut self, hash: ContentHash, mut targets: Vec<Address>) -> Result<PushId, Refusal> {
        if self.pushes.len() >= self.config.pushes {
            return Err(Refusal::Busy);
        }
        let coming = match self.want(hash) {
            Found::Here => false,
            Found::Coming | Found::Asked => true,
            Found::Nowhere => return Err(Refusal::Unknown),
        };
        let push = PushId(self.name());
        targets.sort_unstable();
        targets.dedup();
        let mut own = false;
        let mut failed = Vec::new();
        let mut below: Sorted<u32, Vec<Address>> = Sorted::new();
        for target in targets {
            match self.own.next_hop(&target) {
                Some(child) => below.or_insert_with(child, Vec::new).push(target),
                None if target == self.own => own = true,
                None => failed.push((target, Refusal::NoRoute)),
            }
        }
        let mut open = 0;
        for (child, targets) in below.into_iter() {
            for targets in targets.chunks(Config::OFFER_TARGETS) {
                let offer = OfferId(self.name());
                let targets = targets.to_vec();
                self.offers.insert(offer, Offer { push, targets: targets.clone() });
                self.events.push_back(Event::Offer { offer, child, hash, targets });
                open += 1;
            }
        }
        self.pushes.insert(push, Push { hash, coming, own, open, failed });
        self.admit();
        self.push_settled(push);
        Ok(push)
    }

    /// A child has answered an offer: with those of its targets that do not have the content, or with why it, and so all of
    /// them, do not.
    pub fn offered(&mut self, offer: OfferId, answer: Result<Vec<(Address, Refusal)>, Refusal>) {
        let Some(Offer { push, targets }) = self.offers.remove(&offer) else { return };
        let Some(under_way) = self.pushes.get_mut(&push) else { return };
        under_way.open -= 1;
        match answer {
            Err(refusal) => under_way.failed.extend(targets.into_iter().map(|target| (target, refusal.clone()))),
            // The child may say what it likes, of its own targets.
            Ok(failed) => under_way.failed.extend(targets.into_iter().filter_map(|target| {
                let why = failed.iter().find(|(of, _)| *of == target);
                why.map(|(_, refusal)| (target, refusal.clone()))
            })),
        }
        self.push_settled(push);
        self.admit();
    }

    /// Nobody waits for the end of a push any more. The owner cancels its offers.
    pub fn give_up_push(&mut self, push: PushId) {
        let Some(Push { hash, .. }) = self.pushes.remove(&push) else { return };
        self.offers.retain(|_, offer| offer.push != push);
        self.tidy(&hash);
        self.admit();
    }

    /// A content is here, or does not come.
    pub(super) fn pushes_settled(&mut self, hash: &ContentHash, refusal: Option<&Refusal>) {
        let own = &self.own;
        let mut settled = Vec::new();
        for (id, push) in self.pushes.iter_mut().filter(|(_, push)| push.hash == *hash && push.coming) {
            push.coming = false;
            if let Some(refusal) = refusal
                && push.own
            {
                push.failed.push((own.clone(), refusal.clone()));
            }
            settled.push(*id);
        }
        for push in settled {
            self.push_settled(push);
        }
    }

    fn push_settled(&mut self, push: PushId) {
        let Some(under_way) = self.pushes.get(&push) else { return };
        if !under_way.coming && under_way.open == 0 {
            let Some(Push { hash, failed, .. }) = self.pushes.remove(&push) else { return };
            self.events.push_back(Event::Pushed { push, failed });
            self.tidy(&hash);
        }
    }
}
