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
    handle::<Group>();
    handle::<Each<Command>>();
    handle::<RemoteFile>();
    shared::<Master>();
    shared::<Agents>();
    shared::<Images>();
    handle::<Image>();
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
    error::<ImageMissing>();
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
    let path = "ann@web1:x".parse::<Target>().expect_err("no port");
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

/// The methods that users see of a type, from the blocks of the sources that begin with one of these lines.
fn methods(folder: &str, blocks: &[&str]) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("src");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("a source");
        let (mut inside, mut hidden) = (false, false);
        for line in text.lines() {
            match line {
                "}" => inside = false,
                line if blocks.contains(&line) => inside = true,
                line if line.trim_start().starts_with("#[doc(hidden)]") => hidden = true,
                line => {
                    if let Some(method) = line.strip_prefix("    pub fn ").filter(|_| inside) {
                        let name = method.split(['(', '<']).next().unwrap_or_default();
                        if !std::mem::take(&mut hidden) {
                            found.push(name.to_owned());
                        }
                    } else if line.starts_with("    fn ") || line.starts_with("    pub(crate) fn ") {
                        hidden = false;
                    }
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_group_takes_every_verb_that_a_context_takes() {
    let group = methods("offshoot-program", &["impl Group {"]);
    // What a context is, not what it does: told by each of the group.
    let tells = ["address", "hello", "name", "path", "stages"];
    let verbs = methods("offshoot-node", &["impl Context {"]);
    assert!(verbs.len() > 20 && tells.iter().all(|told| verbs.iter().any(|verb| verb == told)), "{verbs:?}");
    let missing: Vec<_> = verbs.iter().filter(|verb| !tells.contains(&&***verb) && !group.contains(verb)).collect();
    assert!(missing.is_empty(), "a group does not take {missing:?}");

    let each = methods("offshoot-program", &["impl Each<Command> {"]);
    let options = methods("offshoot-node", &["impl Command {"]);
    assert!(options.len() > 15, "{options:?}");
    assert_eq!(each, options, "a command of a group has other options than one");

    // Remote functions: what waits, what does not, and what nobody waits for.
    let call = methods("offshoot-program", &["impl<T> Call<T> {"]);
    for way in ["on", "start", "detached"] {
        assert!(call.iter().any(|verb| verb == way), "{call:?}");
        assert!(call.contains(&format!("{way}_each")), "a group is not called by `{way}`: {call:?}");
    }
}
