//! The questions of a login and their answers, between the context that logs in and the one that wants it to.
//!
//! Where both are the same, the answer is looked for on a thread of its own: it may come from a user. Else the question
//! goes up the exchange that asked for the connect, and the answer comes down it: a secret leaves its owner only when its
//! prompt was seen, and crosses no context but those on the way. Their links' buffers are not wiped.

use std::sync::Arc;

use bytes::Bytes;
use offshoot_connect::{Answers, Asker, Asking, Reply};
use offshoot_mux::process;
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{Answer, Failure, FailureKind, Limits, Question, channel, decode, encode};

use crate::Error;
use crate::pending::{Exchange, decoded};
use crate::shared::Shared;
use crate::state::State;

/// The requester is this process.
pub(crate) struct Here {
    path: String,
    answers: Answers,
}

impl Here {
    pub(crate) fn new(path: String, answers: Answers) -> Here {
        Here { path, answers }
    }
}

impl Asker for Here {
    fn ask(&self, question: Question, reply: Reply) {
        let (answers, path) = (self.answers.clone(), self.path.clone());
        // Without a thread the reply is dropped, which says that there is no answer.
        let _ = std::thread::Builder::new().name("offshoot-ask".into()).spawn(move || {
            reply.give(answer(&answers, &Asking::new(&question, &path, "")));
        });
    }
}

/// Looks for an answer. From here on no core dump of this process shows what it holds (S19).
fn answer(answers: &Answers, asking: &Asking<'_>) -> Option<offshoot_wire::Secret> {
    // Where the kernel does not do that, nothing else would either.
    let _ = process::set_dumpable(false);
    answers.answer(asking)
}

/// The requester is another context.
pub(crate) struct Above<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) id: ExchangeId,
}

impl Asker for Above<'_> {
    fn ask(&self, question: Question, reply: Reply) {
        let body = Bytes::from(encode(&question));
        self.shared.with(|state, now| {
            // What finds no room is not answered: the reply is dropped.
            if state.core.send(self.id, channel::QUESTION, body, now) > 0 {
                state.services.connects.await_answer(self.id, reply);
            }
        });
    }
}

impl State {
    /// An answer came for a connect that runs here.
    pub(crate) fn connect_data(&mut self, id: ExchangeId, number: u8, data: &Bytes, now: Time) {
        if number != channel::CONTROL || !self.services.connects.is_asking(id) {
            return;
        }
        self.core.consumed(id, number, data.len(), now);
        if let (Some(reply), Ok(answer)) = (self.services.connects.take_reply(id), decode::<Answer>(data)) {
            reply.give(answer.secret);
        }
    }
}

/// Waits for the answer to a connect that another context was asked for, and answers its questions meanwhile.
pub(crate) fn connected(exchange: &Exchange, answers: &Answers, path: &str, via: &str) -> Result<Bytes, Error> {
    for _ in 0..=Limits::QUESTIONS {
        let next = exchange.wait(None, |state, id, now| {
            let asked = state.asked(id)?;
            if let Some((number, data)) = asked.take(|number| number == channel::QUESTION) {
                state.core.consumed(id, number, data.len(), now);
                return Some(Ok(data));
            }
            asked.result.take().map(Err)
        });
        let data = match next {
            Ok(Ok(data)) => data,
            Ok(Err(Ok(reply))) => return Ok(reply),
            Ok(Err(Err(failure))) => return Err(exchange.error(failure)),
            Err(_) => return exchange.answer(None),
        };
        let question: Question = decoded(&data).map_err(|failure| exchange.error(failure))?;
        let secret = answer(answers, &Asking::new(&question, path, via));
        let body = Bytes::from_owner(Answer { secret }.encode());
        exchange.with(|state, id, now| state.core.send(id, channel::CONTROL, body, now));
    }
    Err(exchange.error(Failure::new(FailureKind::Denied, "it asks more questions than a login may")))
}
