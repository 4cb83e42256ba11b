//! What the command line means: flags, environment and terminals, resolved once.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use offshoot::Responder;

use crate::answer::Answers;
use crate::args::{ColorWhen, GlobalArgs, OutputArgs, ReachArgs};
use crate::output::{Console, Grouped, Json, Live, Palette, Printer, Raw};

/// Our surroundings, as far as output depends on them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Whether stdout and stderr are terminals.
    pub(crate) terminals: [bool; 2],
    /// The colours of stdout and stderr.
    pub(crate) palettes: [Palette; 2],
    /// Whether the terminal, or whoever reads, expects UTF-8.
    pub(crate) unicode: bool,
    pub(crate) quiet: bool,
}

impl Look {
    pub(crate) fn new(global: &GlobalArgs) -> Look {
        let terminals = [std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let wanted = terminals.map(|terminal| match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => terminal && variable("NO_COLOR").is_empty() && variable("TERM") != "dumb",
        });
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable).into_iter().find(|value| !value.is_empty());
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Look { terminals, palettes: wanted.map(Palette::new), unicode, quiet: global.quiet }
    }
}

/// The form of output that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Live,
    Grouped,
    Json,
    Raw,
}

impl Form {
    pub(crate) fn of(args: &OutputArgs) -> Form {
        match args {
            OutputArgs { group: true, .. } => Form::Grouped,
            OutputArgs { json: true, .. } => Form::Json,
            OutputArgs { raw: true, .. } => Form::Raw,
            _ => Form::Live,
        }
    }

    pub(crate) fn printer<'a>(self, console: &'a Console, names: &'a [String], look: &Look) -> Box<dyn Printer + 'a> {
        let Look { palettes, terminals, quiet, .. } = *look;
        match self {
            Form::Live => Box::new(Live { console, names, palettes, aligned: terminals, quiet }),
            Form::Grouped => Box::new(Grouped::new(console, names, palettes, quiet)),
            Form::Json => Box::new(Json { console, names }),
            Form::Raw => Box::new(Raw { console, names, palette: palettes[1], quiet }),
        }
    }
}

/// How targets are reached.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) fanout: usize,
    pub(crate) connect_timeout: Option<Duration>,
    /// Absolute, since the one who reads it may run in another folder.
    pub(crate) ssh_config: Option<PathBuf>,
    pub(crate) ssh_options: Vec<String>,
    pub(crate) agents: Option<PathBuf>,
    /// Who gives the secrets of this run.
    pub(crate) answers: Arc<Answers>,
    /// The same, for connects; `None` when there is nobody.
    pub(crate) responder: Option<Responder>,
}

impl Reach {
    /// # Errors
    /// A file or folder that is not there, or has a name that cannot be passed on.
    pub(crate) fn new(args: &ReachArgs, global: &GlobalArgs) -> anyhow::Result<Reach> {
        let ssh_config = match &args.ssh_config {
            // ssh's own word for "no file at all".
            Some(path) if path.as_os_str() == "none" => Some(path.clone()),
            Some(path) => {
                let whole = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
                if whole.to_str().is_none() {
                    bail!("the path of {} is not UTF-8", path.display());
                }
                Some(whole)
            }
            None => None,
        };
        let answers = Arc::new(Answers::new(args.password_fd, args.password_command.clone(), !args.no_ask)?);
        Ok(Reach {
            responder: answers.responder(),
            answers,
            fanout: usize::from(args.fanout),
            connect_timeout: args.connect_timeout,
            ssh_config,
            ssh_options: args.ssh_option.clone(),
            agents: agents(global)?,
        })
    }
}

/// The folder of agents that was named.
///
/// # Errors
/// When it is no folder: a wrong path would otherwise show only once a foreign machine is reached.
pub(crate) fn agents(global: &GlobalArgs) -> anyhow::Result<Option<PathBuf>> {
    if let Some(folder) = &global.agents
        && !folder.is_dir()
    {
        bail!("{} is no folder of agents", folder.display());
    }
    Ok(global.agents.clone())
}
