//! Who may ask what (S5), and which channels a verb has.

use offshoot_wire::{Authority, Limits, Verb, channel};

/// Whether a request for `verb` that arrives by `authority` is let through to the context that is asked.
///
/// Full authority opens every verb. Without it each verb says for itself; the match has no catch-all, so that a verb
/// without a policy does not compile:
///
/// ```compile_fail,E0004
/// use offshoot_wire::Verb;
/// fn granted(verb: Verb) -> bool {
///     match verb {
///         Verb::Echo | Verb::Info | Verb::Exec | Verb::Connect | Verb::Files | Verb::Call => true,
///         Verb::Shutdown | Verb::Detach | Verb::Attach | Verb::Payload | Verb::Attend | Verb::Stream => true,
///         // Verb::Image has no policy here.
///     }
/// }
/// ```
pub fn permits(verb: Verb, authority: Authority) -> bool {
    let (by_grant, by_child) = match verb {
        Verb::Echo => (true, false),
        Verb::Info => (true, false),
        Verb::Exec => (true, false),
        Verb::Connect => (true, false),
        Verb::Files => (true, false),
        Verb::Call => (true, false),
        Verb::Shutdown => (true, false),
        Verb::Detach => (true, false),
        // A stranger's way into the tree is opened by its user at the listener, never by a frame from below.
        Verb::Attach => (false, false),
        // What a child needs to start a context of its own: served by hash or triple from what is public to the tree.
        Verb::Payload => (true, true),
        Verb::Image => (true, true),
        // Whoever started the worker looks after it, by the grant that came with its start; no other grant names this.
        Verb::Attend => (true, false),
        // One handle, which the grant names.
        Verb::Stream => (true, false),
    };
    match authority {
        Authority::Full => true,
        Authority::Granted => by_grant,
        Authority::Child => by_child,
        Authority::None => false,
    }
}

/// The channels of an exchange, one bit each: those that the requester writes and those that the asked side writes.
///
/// A channel that is not listed has no credit: one byte on it is an overrun. A verb without channels costs no memory
/// beyond its request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Written by the requester.
    pub ask: u8,
    /// Written by the context that is asked.
    pub answer: u8,
}

impl Channels {
    /// Every channel, both ways: what a relay assumes of a verb that is newer than itself.
    pub const ALL: Channels = Channels { ask: 0xff, answer: 0xff };

    /// The channels of `verb`.
    pub fn of(verb: Verb) -> Channels {
        const IN: u8 = 1 << channel::STDIN | 1 << channel::CONTROL;
        const OUT: u8 = 1 << channel::STDOUT | 1 << channel::STDERR;
        let (ask, answer) = match verb {
            Verb::Echo | Verb::Info | Verb::Shutdown | Verb::Detach | Verb::Attach => (0, 0),
            Verb::Connect => (1 << channel::CONTROL, 1 << channel::QUESTION),
            Verb::Exec | Verb::Files => (IN, OUT),
            Verb::Call => (1 << channel::STDIN, 1 << channel::STDOUT),
            Verb::Stream => (1 << channel::STDIN, 1 << channel::STDOUT),
            Verb::Payload | Verb::Image => (0, 1 << channel::STDOUT),
            Verb::Attend => (0, OUT | 1 << channel::QUESTION),
        };
        Channels { ask, answer }
    }

    /// The channels of the verb with this number.
    pub(crate) fn of_number(number: u16) -> Channels {
        Verb::from_number(number).map_or(Channels::ALL, Channels::of)
    }
}

/// Whether each `Data` frame of a channel is a message that must stay as it was sent. Bytes of other channels may be
/// joined and split on the way.
pub(crate) fn is_framed(number: u8) -> bool {
    number == channel::CONTROL || number == channel::QUESTION
}

const _: () = assert!(Limits::CHANNELS == 8, "a set of channels is one byte");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_the_matrix_of_verbs_and_authorities_is_as_stated() {
        for verb in Verb::ALL {
            assert!(permits(verb, Authority::Full), "{verb:?}");
            assert!(!permits(verb, Authority::None), "{verb:?}");
            let granted = verb != Verb::Attach;
            assert_eq!(permits(verb, Authority::Granted), granted, "{verb:?}");
            assert_eq!(permits(verb, Authority::Child), matches!(verb, Verb::Payload | Verb::Image), "{verb:?}");
        }
    }
}
