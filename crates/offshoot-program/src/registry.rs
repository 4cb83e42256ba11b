//! The remote functions of this program, by name.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

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
    run: Run,
    fallible: bool,
}

impl Function {
    /// A function by the path of its module and its own name.
    pub const fn new(name: &'static str, run: Run) -> Function {
        Function { name, run, fallible: false }
    }
}

impl Function {
    /// The same, for one that returns a `Result`.
    pub const fn fallible(self, fallible: bool) -> Function {
        Function { fallible, ..self }
    }
}

/// What a worker of this program runs.
pub(crate) struct Registry;

impl Calls for Registry {
    fn call(&self, call: &Invocation) -> Result<Vec<u8>, Failure> {
        let Some(function) = find(&call.function) else {
            return Err(unknown(&call.function));
        };
        let here = Here::of(call);
        watch_panics();
        PANIC.replace(Some(String::new()));
        let result = panic::catch_unwind(AssertUnwindSafe(|| (function.run)(&here, call)));
        let place = PANIC.take().unwrap_or_default();
        result.unwrap_or_else(|payload| {
            let message = format!("{} panicked{place}: {}", function.name, text(&*payload));
            Err(Failure::new(FailureKind::Remote(RemoteFailure::Panic), message).ran(Ran::Executed))
        })
    }

    fn is_error(&self, function: &str, value: &[u8]) -> bool {
        // An `Err` is the second variant.
        handover::encoded(value).is_some_and(|value| value.first() == Some(&1))
            && find(function).is_some_and(|function| function.fallible)
    }
}

fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

fn unknown(name: &str) -> Failure {
    let message = format!("no function {name} is among the {} that are registered there", FUNCTIONS.len());
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
