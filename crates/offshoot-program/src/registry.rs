//! The remote functions of this program, by name.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{LazyLock, Once};

use linkme::distributed_slice;
use offshoot_node::{Calls, Invocation, handover};
use offshoot_wire::{Failure, FailureKind, Ran, RemoteFailure};

use crate::Here;

/// All remote functions that are linked into this program.
#[distributed_slice]
pub static FUNCTIONS: [Function];

/// Decodes the arguments, runs the function, encodes its value.
type Run = fn(&Here, &Invocation) -> Result<Vec<u8>, Failure>;

/// A remote function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    name: &'static str,
    place: &'static str,
    run: Run,
    fallible: bool,
}

impl Function {
    /// A function by the name that calls have: its path and, behind an `@`, what tells its crate from others of that name;
    /// and the place in the sources where it is marked.
    pub const fn new(name: &'static str, place: &'static str, run: Run) -> Function {
        Function { name, place, run, fallible: false }
    }

    /// The same, for one that returns a `Result`.
    pub const fn fallible(self, fallible: bool) -> Function {
        Function { fallible, ..self }
    }
}

/// What a worker of this program runs.
pub(crate) struct Registry;

impl Calls for Registry {
    fn call(&self, call: &Invocation) -> Result<Vec<u8>, Failure> {
        let function = find(&call.function)?;
        let here = Here::of(call);
        watch_panics();
        PANIC.replace(Some(String::new()));
        let result = panic::catch_unwind(AssertUnwindSafe(|| (function.run)(&here, call)));
        let place = PANIC.take().unwrap_or_default();
        result.unwrap_or_else(|payload| {
            let message = format!("{} panicked{place}: {}", path(function.name), text(&*payload));
            // What was thrown may throw again when it is dropped.
            if let Err(again) = panic::catch_unwind(AssertUnwindSafe(move || drop(payload))) {
                std::mem::forget(again);
            }
            Err(Failure::new(FailureKind::Remote(RemoteFailure::Panic), message).ran(Ran::Executed))
        })
    }

    fn is_error(&self, function: &str, value: &[u8]) -> bool {
        // An `Err` is the second variant.
        handover::encoded(value).is_some_and(|value| value.first() == Some(&1))
            && find(function).is_ok_and(|function| function.fallible)
    }
}

/// The path of a function by the name that its calls have.
pub(crate) fn path(name: &str) -> &str {
    name.split_once('@').map_or(name, |(path, _)| path)
}

fn find(name: &str) -> Result<&'static Function, Failure> {
    static BY_NAME: LazyLock<Vec<&'static Function>> = LazyLock::new(|| by_name(&FUNCTIONS));
    find_among(&BY_NAME, name)
}

fn by_name(functions: &[Function]) -> Vec<&Function> {
    let mut list: Vec<&Function> = functions.iter().collect();
    list.sort_unstable_by_key(|function| (function.name, function.place));
    list
}

/// Finds one in a list [by name](by_name).
fn find_among<'a>(list: &[&'a Function], name: &str) -> Result<&'a Function, Failure> {
    match &list[list.partition_point(|function| function.name < name)..] {
        // Nobody can say which of them is meant.
        [first, second, ..] if second.name == name => Err(ambiguous(first, second)),
        [function, ..] if function.name == name => Ok(function),
        _ => Err(unknown(name, list.len())),
    }
}

fn ambiguous(first: &Function, second: &Function) -> Failure {
    let (path, first, second) = (path(first.name), first.place, second.place);
    let message = format!("two functions of the program are called {path}: at {first} and at {second}");
    Failure::new(FailureKind::Unsupported, message).hint("give one of them another name")
}

fn unknown(name: &str, of: usize) -> Failure {
    let name = path(name);
    let message = format!("no function {name} is among the {of} that are registered there");
    let of = name.split("::").next().unwrap_or(name);
    let hint =
        format!("a crate that nothing names is left out, with its functions: say `use {of} as _;` in the program");
    Failure::new(FailureKind::Unsupported, message).hint(hint)
}

thread_local! {
    /// Where the function of this thread panicked; `None` while none runs.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes the place of a panic, which its payload does not have. The hook before it still reports.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            PANIC.with_borrow_mut(|place| {
                if let (Some(place), Some(location)) = (place, info.location()) {
                    *place = format!(" at {location}");
                }
            });
            before(info);
        }));
    });
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let string = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&str>().copied().or_else(string).unwrap_or("a value that is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(_: &Here, _: &Invocation) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }

    const LIBRARY: Function = Function::new("errands::fetch@1.0.0", "src/lib.rs:3", run);
    const PROGRAM: Function = Function::new("errands::fetch@1.0.0:bin", "src/main.rs:4", run);
    const NEWER: Function = Function::new("errands::fetch@2.0.0", "src/lib.rs:3", run);
    const ONE: Function = Function::new("errands::twin@1.0.0", "src/one.rs:5", run);
    const OTHER: Function = Function::new("errands::twin@1.0.0", "src/other.rs:6", run);
    const ALL: [Function; 5] = [OTHER, PROGRAM, NEWER, ONE, LIBRARY];

    #[test]
    fn a_function_is_found_by_its_path_and_its_crate() {
        let list = by_name(&ALL);
        for known in [LIBRARY, PROGRAM, NEWER] {
            let found = find_among(&list, known.name).expect("it is there");
            assert_eq!((found.name, found.place), (known.name, known.place));
        }
        for name in ["", "a", "errands::fetch", "errands::fetch@1.0.1", "errands::fetch@2.0.0:bin", "z"] {
            let failure = find_among(&list, name).expect_err("there is none");
            assert_eq!((&failure.kind, failure.ran), (&FailureKind::Unsupported, Ran::NotSent), "{failure:?}");
            assert!(failure.message.contains("among the 5") && !failure.message.contains('@'), "{failure:?}");
        }
    }

    #[test]
    fn two_functions_of_one_name_are_refused_with_the_places_of_both() {
        let failure = find_among(&by_name(&ALL), ONE.name).expect_err("it is not known which");
        assert_eq!((&failure.kind, failure.ran), (&FailureKind::Unsupported, Ran::NotSent), "{failure:?}");
        for part in ["errands::twin: ", "src/one.rs:5", "src/other.rs:6"] {
            assert!(failure.message.contains(part), "{failure:?}");
        }
        assert_eq!(failure.hint, "give one of them another name");
    }
}
