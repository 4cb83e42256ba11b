//! Recipes: a way to obtain a link, as plain data.
//!
//! A connection method compiles its options to a recipe; the connect engine of whatever context is asked runs it. So a
//! new method needs no new agent.

use serde::Serialize;

use crate::reader::{Decode, Reader, read_fields};
use crate::{Asks, AuthFailure, ContentRef, HostKeyFailure};

/// How the tool is started and what it yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Start {
    /// The context starts a copy of its own image, on the same machine, as the same user.
    Local,
    /// A tool is started with pipes, and what it leads to is a shell that runs the probe.
    ///
    /// `argv[0]` is looked up in `PATH`. An argument that is exactly [`Start::PROBE`] is replaced by the probe, the
    /// one-line script that the bootstrap starts with, in the form for any login shell; [`Start::SCRIPT`],
    /// [`Start::ROOT_SCRIPT`] and [`Start::PLAIN_SCRIPT`] stand for it as an argument of `sh -c`, and [`Start::TOKEN`] anywhere in an argument for
    /// a word that nobody can guess.
    Shell {
        /// The tool and its arguments.
        argv: Vec<String>,
        /// Environment for the tool alone.
        env: Vec<(String, String)>,
    },
    /// The context starts a worker: a process that runs the user's functions, from an image of the user's program.
    Worker {
        /// The program's identity; an image of another is refused.
        program: [u8; 32],
        /// The image for a context that is no copy of the program; it asks for it above.
        image: Option<ContentRef>,
    },
}

impl Decode for Start {
    fn read(from: &mut Reader<'_>) -> Start {
        match from.variant(3) {
            0 => Start::Local,
            1 => Start::Shell { argv: from.recipe_list(), env: from.recipe_list() },
            _ => Start::Worker { program: Decode::read(from), image: Decode::read(from) },
        }
    }
}

impl Start {
    /// The argument that stands for the probe.
    pub const PROBE: &'static str = "\u{1}probe";
    /// The argument that stands for the probe as a script for `sh -c`, which gives the environment that the recipe set
    /// for the tool its former values.
    pub const SCRIPT: &'static str = "\u{1}script";
    /// As [`Start::SCRIPT`], for a shell of root on the same machine: it may take the image of the context's own local contexts
    /// where that is open, so that no agent need be sent.
    pub const ROOT_SCRIPT: &'static str = "\u{1}root";
    /// As [`Start::SCRIPT`], without a character that a second shell on the way would act upon once it is escaped as
    /// sudo does it: no `$`.
    pub const PLAIN_SCRIPT: &'static str = "\u{1}plain";
    /// What stands, within an argument or a prompt, for a word made of this connect's nonce: 22 letters,
    /// digits, `_` and `-`.
    pub const TOKEN: &'static str = "\u{1}token";
}

/// A text that a tool prints when it fails, and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// The tool's text; each line of the tool's output is searched for it. `*` stands for any text.
    pub text: String,
    /// What it means for the error's kind.
    pub means: Meaning,
    /// What to tell the user to do next.
    pub advice: String,
}

read_fields!(Hint { text = Reader::message, means, advice = Reader::message });

/// What a tool's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Meaning {
    /// A login problem.
    Auth(AuthFailure),
    /// A host key problem.
    HostKey(HostKeyFailure),
    /// The target cannot be reached: name, route, port, or the tool itself.
    Unreachable,
    /// The tool was called wrongly or is too old.
    Usage,
}

impl Decode for Meaning {
    fn read(from: &mut Reader<'_>) -> Meaning {
        match from.variant(4) {
            0 => Meaning::Auth(Decode::read(from)),
            1 => Meaning::HostKey(Decode::read(from)),
            2 => Meaning::Unreachable,
            _ => Meaning::Usage,
        }
    }
}

/// A prompt that a tool may show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// Its text, without white space at either end: `*` stands for any text, `{}` for the account. It is compared with
    /// the last line that the tool wrote; when it begins with `^`, with all from the first line that begins as it does, of
    /// what the tool wrote since it was last answered. One that has no letter before its account (`^({}) *`) introduces the
    /// text of somebody else: from such a line on no other kind of prompt is looked for.
    pub text: String,
    /// What it asks for.
    pub asks: Asks,
}

read_fields!(Prompt { text = Reader::message, asks });

/// The prompts of a tool that may ask before it leads to a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompts {
    /// The known ones, first match wins. Another text that the tool leaves standing, with echo off, is
    /// [`Asks::Other`].
    pub known: Vec<Prompt>,
    /// Whether it asks on its controlling terminal; else it asks on its error output and reads its input. Either way it is
    /// answered only while it is the program that was started, by its name, and has started none itself; but for the method
    /// `ssh`, which leads to another machine.
    pub terminal: bool,
    /// How long an answer may take, in milliseconds.
    pub answer_ms: u32,
}

read_fields!(Prompts { known = Reader::recipe_list, terminal, answer_ms });

/// A way to obtain a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recipe {
    /// The method's name: `local`, `ssh`, …
    pub method: String,
    /// What it connects to, as the user wrote it: for the context's name.
    pub target: String,
    /// How it starts.
    pub start: Start,
    /// The tool's known failures, first match wins.
    pub hints: Vec<Hint>,
    /// The target's triple, when the user or an earlier connect told it: saves a round trip.
    pub triple: Option<String>,
    /// How long the whole connect may take, in milliseconds.
    pub deadline_ms: u32,
    /// How long a stage may be silent, in milliseconds.
    pub stage_ms: u32,
    /// What the tool may ask. Without it the tool gets no terminal, and has nobody to ask.
    pub prompts: Option<Prompts>,
}

read_fields!(Recipe {
    method = Reader::name,
    target = Reader::target,
    start,
    hints = Reader::recipe_list,
    triple = Reader::maybe_name,
    deadline_ms,
    stage_ms,
    prompts,
});

impl Recipe {
    /// A recipe with the default deadlines: 30 s in all, 10 s for each silent stage.
    pub fn new(method: impl Into<String>, target: impl Into<String>, start: Start) -> Recipe {
        Recipe {
            method: method.into(),
            target: target.into(),
            start,
            hints: Vec::new(),
            triple: None,
            deadline_ms: 30_000,
            stage_ms: 10_000,
            prompts: None,
        }
    }

    /// The default name of the context it leads to: `method:target`, or the method alone.
    pub fn default_name(&self) -> String {
        if self.target.is_empty() { self.method.clone() } else { format!("{}:{}", self.method, self.target) }
    }
}
