//! What the attribute makes of functions wherever they stand, and whatever their types are called.

use log::LevelFilter;
use offshoot::{Chain, Context, FailureKind, Ran};

use crate::functions::{note, notes};
use crate::logs::keep;
use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("the_types_of_a_function_mean_what_they_mean_where_it_stands", places),
    ("a_function_within_another_is_the_one_that_is_called", nested),
    ("two_functions_of_one_name_are_refused_with_the_places_of_both", twins),
    ("what_a_function_returns_is_an_error_by_its_type_and_not_by_its_name", outcomes),
    ("a_function_that_a_macro_writes_is_one_like_others", written),
    ("a_function_is_called_through_another_name_of_the_crate", another_name),
];

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Config(u8);

/// As long as a list in a signature.
pub(crate) const NAME: usize = 3;

mod inner {
    use super::Config as Outer;

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Config(pub(super) u16);

    pub(super) mod deeper {
        #[offshoot::remote]
        pub(in crate::marked) fn sum(
            outer: super::super::Config,
            middle: Option<super::Config>,
            list: [u8; super::super::NAME],
        ) -> (super::Outer, u16) {
            (super::super::Config(outer.0 + list[2]), middle.map_or(0, |middle| middle.0))
        }
    }

    #[offshoot::remote]
    pub(super) fn own(this: self::Config, list: [u8; super::NAME]) -> Result<super::Config, String> {
        if this.0 == 0 { Err("nothing".into()) } else { Ok(super::Config(list[0])) }
    }
}

/// Names that the expansion could have, too, and patterns that are no names.
#[offshoot::remote]
fn run(arg1: u8, (a, b): (u8, u8), here: u8, value: u8, [c, _]: [u8; 2], result: u8, place0: u8) -> Vec<u8> {
    vec![arg1, a, b, here, value, c, result, place0]
}

fn places() {
    let master = master();
    let context = local(&master);
    let back = inner::deeper::sum::on(&context, Config(1), Some(inner::Config(500)), [0, 0, 9]).expect("a value");
    assert_eq!(back, (Config(10), 500));
    assert_eq!(inner::own::on(&context, inner::Config(1), [7, 0, 0]).expect("it ran"), Ok(Config(7)));
    assert_eq!(inner::own::on(&context, inner::Config(0), [7, 0, 0]).expect("it ran"), Err("nothing".into()));
    assert_eq!(run::on(&context, 1, (2, 3), 4, 5, [6, 0], 7, 8).expect("a value"), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Not the one that is marked.
fn place() -> String {
    "the module".into()
}

fn nested() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Local {
        One(u8),
    }

    #[offshoot::remote]
    fn within_another(local: Local) -> Local {
        let Local::One(number) = local;
        Local::One(number + 1)
    }

    let master = master();
    let context = local(&master);
    assert_eq!(within_another::on(&context, Local::One(1)).expect("a value"), Local::One(2));
    assert_eq!((in_a_block(&context), place()), ("a block".into(), "the module".into()));
}

fn in_a_block(context: &Context) -> String {
    #[offshoot::remote]
    fn place() -> String {
        "a block".into()
    }
    place::on(context).expect("a value")
}

fn one(context: &Context) -> Result<u8, offshoot::Error> {
    #[offshoot::remote]
    fn twin() -> u8 {
        1
    }
    twin::on(context)
}

fn other(context: &Context) -> Result<u8, offshoot::Error> {
    #[offshoot::remote]
    fn twin() -> u8 {
        2
    }
    twin::on(context)
}

fn twins() {
    let master = master();
    let context = local(&master);
    for result in [one(&context), other(&context)] {
        let error = result.expect_err("nobody knows which is meant");
        assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
        let at: Vec<&str> = error.message().split("marked.rs:").skip(1).collect();
        assert!(error.message().contains("::marked::twin: ") && at.len() == 2 && at[0] != at[1], "{error}");
        assert!(error.hint().contains("another name"), "{error}");
    }
}

mod called {
    /// A result under another name.
    pub(super) type Outcome = std::result::Result<u8, String>;

    /// What is called a result and is none.
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub(super) enum Result<T, E> {
        First(T),
        Second(E),
    }
}

#[offshoot::remote]
fn outcome(fails: bool) -> called::Outcome {
    if fails { Err("it did not work".into()) } else { Ok(1) }
}

#[offshoot::remote]
fn second() -> called::Result<u8, u8> {
    called::Result::Second(2)
}

#[offshoot::remote]
fn first() -> called::Result<u8, u8> {
    called::Result::First(1)
}

fn outcomes() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    let chain = Chain::new();
    let note = |number| note::call(number, 0, vec![]).serial(&chain).start(&context);
    // The worker stops at it, which has the calls behind it long before the master knows.
    let stops = outcome::call(true).serial(&chain).start(&context);
    let behind = note(1);
    assert_eq!(stops.wait().expect("it ran"), Err("it did not work".into()));
    assert_eq!(behind.wait().expect_err("it is behind an error").kind(), &FailureKind::Cancelled);
    assert_eq!(note(2).wait().expect_err("it is behind an error").kind(), &FailureKind::Cancelled);
    chain.reset();
    let goes_on = outcome::call(false).serial(&chain).start(&context);
    note(3).wait().expect("it ran").expect("a value");
    goes_on.wait().expect("it ran").expect("a value");
    for (call, value) in [(second::call(), called::Result::Second(2)), (first::call(), called::Result::First(1))] {
        let none = call.serial(&chain).start(&context);
        note(4).wait().expect("it ran").expect("a value");
        assert_eq!(none.wait().expect("a value"), value);
        note(5).wait().expect("it ran").expect("a value");
    }
    assert_eq!(notes::on(&context).expect("a value"), [3, 4, 5, 4, 5]);

    second::call().detached(&context);
    outcome::call(false).detached(&context);
    outcome::call(true).detached(&context);
    within("it is not told", || !kept.texts("detached").is_empty());
    // Those before it were looked at by the same thread.
    let told = kept.texts("detached");
    assert!(told.len() == 1 && told[0].contains("::marked::outcome, detached on"), "{told:?}");
}

mod framework {
    pub(super) use offshoot as cluster;
}

#[offshoot::remote(crate = self::framework::cluster)]
fn by_another_name(text: String) -> Result<String, framework::cluster::Error> {
    Ok(text + "!")
}

macro_rules! marked {
    ($name:ident, $krate:path) => {
        #[offshoot::remote(crate = $krate)]
        fn $name(argument: u8) -> u8 {
            argument + 1
        }
    };
}

marked!(of_a_macro, crate::marked::framework::cluster);

fn another_name() {
    let master = master();
    let context = local(&master);
    assert_eq!(by_another_name::on(&context, "so".into()).expect("it ran"), Ok("so!".into()));
    assert_eq!(of_a_macro::on(&context, 1).expect("a value"), 2);
}

macro_rules! function {
    ($name:ident, $here:ty, $number:ty, $returned:ty) => {
        #[offshoot::remote]
        fn $name(here: $here, number: $number) -> $returned {
            match here.is_cancelled() || number == 0 {
                true => Err(std::io::Error::other("nothing")),
                false => Ok(number + 1),
            }
        }
    };
}

function!(one_more, &offshoot::Here, u32, std::io::Result<u32>);

fn written() {
    let master = master();
    let context = local(&master);
    assert_eq!(one_more::on(&context, 1).expect("it ran").expect("a number"), 2);
    let error: offshoot::RemoteError = one_more::on(&context, 0).expect("it ran").expect_err("nothing");
    assert!(error.to_string().contains("nothing"), "{error}");
}
