//! What the types of the facade promise to every program: which threads may hold them, and that errors are errors.

use std::error::Error as StdError;
use std::fmt::{Debug, Display};
use std::panic::UnwindSafe;

use offshoot::methods::{Doas, Hop, Local, Ssh, Su, Sudo};
use offshoot::*;

fn shared<T: Send + Sync + Debug + 'static>() {}
fn handle<T: Clone + Send + Sync + Debug + 'static>() {}
fn moved<T: Send + Debug + 'static>() {}
fn error<T: StdError + Display + Clone + Send + Sync + 'static>() {}
fn data<T: Clone + Eq + Send + Sync + Debug + UnwindSafe + 'static>() {}

#[test]
fn handles_may_be_cloned_and_used_from_any_thread() {
    handle::<Context>();
    handle::<Chain>();
    handle::<Here>();
    handle::<Controller>();
    handle::<Command>();
    handle::<Responder>();
    handle::<Answers>();
    handle::<Via<Ssh>>();
    handle::<Worker>();
    handle::<Builder>();
    shared::<Master>();
    shared::<Agents>();
}

#[test]
fn what_is_under_way_may_be_waited_for_by_another_thread() {
    moved::<Process>();
    moved::<Input>();
    moved::<Output>();
    moved::<Pending<Bytes>>();
    moved::<Pending<NodeInfo>>();
    moved::<Call<Vec<u8>>>();
    moved::<PendingCall<Vec<u8>>>();
    moved::<Select<Vec<u8>>>();
    moved::<Completed<Vec<u8>>>();
    // Also where the value itself belongs to one thread at a time.
    moved::<PendingCall<std::cell::Cell<u8>>>();
}

#[test]
fn errors_are_errors_that_cross_threads() {
    error::<Error>();
    error::<RemoteError>();
    error::<TargetError>();
    error::<TargetProblem>();
    error::<recipe::RecipeError>();
    error::<recipe::OptionProblem>();
}

#[test]
fn what_is_told_and_chosen_is_plain_data() {
    data::<Address>();
    data::<Event>();
    data::<ExitStatus>();
    data::<Failure>();
    data::<FailureKind>();
    data::<LostReason>();
    data::<NodeInfo>();
    data::<ContentStats>();
    data::<ChildHello>();
    data::<Stdio>();
    data::<Terminal>();
    data::<TerminalSize>();
    handle::<Target>();
    data::<WorkerLimits>();
    handle::<Finished>();
    handle::<FoundAgent>();
    handle::<Secret>();
    handle::<Hop>();
    handle::<(Doas, Local, Su, Sudo)>();
}

#[test]
fn the_source_of_an_error_is_what_it_does_not_say_itself() {
    let path = "dmw@web1:x".parse::<Target>().expect_err("no port");
    let mut source: Option<&dyn StdError> = Some(&path);
    let mut told = Vec::new();
    while let Some(error) = source {
        let text = error.to_string();
        assert!(!told.contains(&text), "{text:?} is said twice");
        assert!(!text.is_empty() && !text.ends_with('.') && !text.contains('\n'), "{text:?}");
        told.push(text);
        source = error.source();
    }
}
