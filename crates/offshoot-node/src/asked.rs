//! What came of an exchange that this node asked, until its threads have taken it.
//!
//! Must not know what the exchange is about. Touched under the node's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use offshoot_route::LinkId;
use offshoot_wire::{EndReason, Failure, FailureKind, Limits, Ran, RemoteFailure};

use crate::pieces;
use crate::shared::Ticket;

/// An exchange that this node asked, as its waiting threads see it. Small: many calls may be under way.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// What its channels brought; most calls have none.
    channels: Option<Box<Channels>>,
    /// Whether it has ended. After that nothing comes any more.
    pub(crate) done: bool,
    /// How it ended, until somebody has taken that.
    pub(crate) result: Option<Result<Bytes, Failure>>,
    /// The link towards the context that was asked.
    link: Option<LinkId>,
    /// Whom to wake when something happens to it; some of them may wait no longer.
    pub(crate) waiting: Vec<Ticket>,
}

#[derive(Debug, Default)]
struct Channels {
    /// What came and was not yet read.
    inbox: VecDeque<(u8, Bytes)>,
    /// Those that ended.
    ended: Vec<(u8, EndReason)>,
    /// Those that the other side no longer reads.
    stopped: Vec<u8>,
}

impl Asked {
    pub(crate) fn new(link: Option<LinkId>) -> Asked {
        Asked { link, ..Asked::default() }
    }

    /// The link towards the context that was asked.
    pub(crate) fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Has `ticket` completed when something happens to it. Those whose waiter has gone, as at its deadline, are forgotten
    /// whenever the list would grow: so it is at most twice as long as there are waiters, however often they come.
    pub(crate) fn wake_at_change(&mut self, ticket: &Ticket) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|ticket| Arc::strong_count(ticket) > 1);
        }
        self.waiting.push(Arc::clone(ticket));
    }

    /// Takes the first of what came on a channel that `wanted` names.
    pub(crate) fn take(&mut self, wanted: impl Fn(u8) -> bool) -> Option<(u8, Bytes)> {
        let inbox = &mut self.channels.as_mut()?.inbox;
        let place = inbox.iter().position(|(from, _)| wanted(*from))?;
        inbox.remove(place)
    }

    /// Throws away what came on a channel.
    pub(crate) fn discard(&mut self, channel: u8) {
        if let Some(channels) = &mut self.channels {
            channels.inbox.retain(|(from, _)| *from != channel);
        }
    }

    /// Whether the other side no longer reads a channel.
    pub(crate) fn is_stopped(&self, channel: u8) -> bool {
        self.channels.as_ref().is_some_and(|channels| channels.stopped.contains(&channel))
    }

    fn channels(&mut self) -> &mut Channels {
        self.channels.get_or_insert_default()
    }

    /// Something came on a channel.
    pub(crate) fn came(&mut self, channel: u8, data: Bytes) {
        let inbox = &mut self.channels().inbox;
        if inbox.len() >= pieces::APART {
            // Among as many as there are channels is the last of each that is used now; another begins a new piece.
            let mut latest = inbox.iter_mut().rev().take(Limits::CHANNELS.into());
            if latest.find(|(from, _)| *from == channel).is_some_and(|(_, last)| pieces::join(last, &data)) {
                return;
            }
        }
        inbox.push_back((channel, data));
    }

    /// A channel ended.
    pub(crate) fn ended(&mut self, channel: u8, reason: EndReason) {
        self.channels().ended.push((channel, reason));
    }

    /// The other side no longer reads a channel.
    pub(crate) fn stopped(&mut self, channel: u8) {
        self.channels().stopped.push(channel);
    }

    /// Whether a channel has ended; an error when what came on it is not all there was.
    pub(crate) fn end(&self, channel: u8) -> Option<Result<(), Failure>> {
        let ended = &self.channels.as_ref()?.ended;
        let (_, reason) = ended.iter().find(|(from, _)| *from == channel)?;
        Some(match reason {
            EndReason::Done => Ok(()),
            EndReason::Failed(why) => {
                let message = format!("the output was cut short there: {why}");
                Err(Failure::new(FailureKind::Remote(RemoteFailure::Error), message).ran(Ran::MaybeExecuted))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_who_waits_again_and_again_has_one_place() {
        let mut asked = Asked::default();
        let (stays, mut most): (Ticket, _) = (Arc::default(), 0);
        asked.wake_at_change(&stays);
        for _ in 0..10_000 {
            asked.wake_at_change(&Arc::default());
            most = most.max(asked.waiting.len());
        }
        assert!(most <= 16, "{most} places for one waiter at a time");
        assert!(asked.waiting.iter().any(|ticket| Arc::ptr_eq(ticket, &stays)), "who waits is forgotten");
    }

    #[test]
    fn s12_what_comes_byte_by_byte_and_is_not_read_takes_no_place_for_each() {
        let mut asked = Asked::default();
        let sent: Vec<(u8, u8)> = (0..100_000u32).map(|at| ((at % 7 % 3) as u8, (at % 251) as u8)).collect();
        for (channel, byte) in &sent {
            asked.came(*channel, Bytes::copy_from_slice(&[*byte]));
        }
        let pieces = &asked.channels().inbox;
        assert!(pieces.len() <= pieces::APART + 100, "{} pieces", pieces.len());
        assert!(pieces.iter().all(|(_, piece)| piece.len() <= 4096));
        for channel in 0..3 {
            let mut read = Vec::new();
            while let Some((from, piece)) = asked.take(|from| from == channel) {
                assert_eq!(from, channel);
                read.extend_from_slice(&piece);
            }
            let of: Vec<u8> = sent.iter().filter(|(to, _)| *to == channel).map(|(_, byte)| *byte).collect();
            assert!(read == of, "channel {channel} is not what was sent");
        }
        assert_eq!(asked.take(|_| true), None);
    }

    #[test]
    fn an_output_that_failed_there_is_no_plain_end() {
        let mut asked = Asked::default();
        asked.channels().ended = vec![(1, EndReason::Done), (2, EndReason::Failed("torn tape".into()))];
        assert_eq!(asked.end(1), Some(Ok(())));
        assert_eq!(asked.end(3), None);
        let failure = asked.end(2).expect("an end").expect_err("not a plain one");
        assert_eq!(failure.message, "the output was cut short there: torn tape");
    }
}
