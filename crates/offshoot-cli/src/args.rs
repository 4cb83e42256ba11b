//! The command line as it is written: clap's view, nothing resolved. [`crate::options`] makes sense of it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
A TARGET is a path of hops, left to right: web1, ann@web1:2222, jump/web1/sudo:root, local.
A hop without a method is reached by ssh, from the hop before it. Sets and lists:
  web[01-32]  db[1-3]x[1-2]  web1,web2  jump/web[1-9]  @hosts.txt  - (names on stdin)

Examples:
  offshoot exec local -- id                          nothing to set up: this machine
  offshoot exec web[01-32] -- uptime                 thirty-two hosts side by side
  offshoot exec jump/web[1-9] -b -- uname -r         behind a bastion; the same answers once
  offshoot exec @hosts.txt -x web3 -- sh -c 'df -h | tail -1'
  offshoot exec web1/sudo:postgres -- psql -c 'select 1'   asks for passwords, once for each account
  tar c . | offshoot exec web1,web2 -- tar x -C /srv
  offshoot shell jump/web1                           your terminal there; ~. leaves
  offshoot run check.sh web[1-9] -- --verbose        a local script, nothing copied
  offshoot tree jump/web[1-9]                        names, users, hosts, latency
  offshoot doctor jump/web1                          how the login went, what is there

Exit codes: the command's own for one target, the largest for many; 124 its time was up;
125 our own failure; 126, 127 it cannot be started, is not there; 128+n signal n; 255 the link
was lost; 130 Ctrl-C.";

/// Run commands on trees of hosts and accounts, over the login you already have.
#[derive(Parser, Debug)]
#[command(name = "offshoot", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Exec(ExecArgs),
    Shell(ShellArgs),
    Run(RunArgs),
    Tree(TreeArgs),
    Doctor(DoctorArgs),
    Agents(AgentsArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Command {
    /// Whether it grows a tree, and so may run for long.
    pub(crate) fn runs(&self) -> bool {
        matches!(self, Command::Exec(_) | Command::Shell(_) | Command::Run(_) | Command::Tree(_) | Command::Doctor(_))
    }
}

/// Options that every command takes.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "General options")]
pub(crate) struct GlobalArgs {
    /// Say more of what is done: -v, -vv, -vvv; OFFSHOOT_LOG selects by module
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say less: no summary, no warnings; errors stay
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// When to use colours (NO_COLOR is honoured)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorWhen,
    /// A folder of agents, as `cargo xtask agents` builds them
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) agents: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ColorWhen {
    #[default]
    Auto,
    Always,
    Never,
}

/// How targets are chosen and reached.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connecting")]
pub(crate) struct ReachArgs {
    /// Leave these targets out (sets, lists, @files as for TARGET)
    #[arg(short = 'x', long, value_name = "SET")]
    pub(crate) exclude: Vec<String>,
    /// How many targets are worked on at once
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) fanout: u16,
    /// How long each connect may take: 10, 1.5s, 2m  [default: 30s]
    #[arg(short = 't', long, value_name = "TIME", value_parser = some_time)]
    pub(crate) connect_timeout: Option<Duration>,
    /// The ssh_config for the ssh that this machine runs, the first of each path; those behind it use their own machine's
    #[arg(short = 'F', value_name = "FILE")]
    pub(crate) ssh_config: Option<PathBuf>,
    /// An option for the ssh of every hop, as in `ssh -o`; may be repeated. For one hop alone: in an ssh_config
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub(crate) ssh_option: Vec<String>,
    /// Take passwords and passphrases from this descriptor: one line, for all accounts
    #[arg(long, value_name = "N", conflicts_with = "password_command", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) password_fd: Option<i32>,
    /// Take each account's password or passphrase from this shell command: its first line; OFFSHOOT_ACCOUNT says whose,
    /// OFFSHOOT_PATH where, OFFSHOOT_ASKS which of both
    #[arg(long, value_name = "CMD")]
    pub(crate) password_command: Option<OsString>,
    /// Never ask at the terminal
    #[arg(long)]
    pub(crate) no_ask: bool,
}

/// How a command runs and how its output is shown.
#[derive(Args, Debug)]
#[command(next_help_heading = "Running")]
pub(crate) struct OutputArgs {
    /// How long the command may run on each target; then it is ended, with all it started
    #[arg(short = 'u', long, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,
    /// Gather the output: targets that say the same are shown once. Beyond 1 GiB in all, those that said the most are ended
    #[arg(short = 'b', long, conflicts_with_all = ["json", "raw"])]
    pub(crate) group: bool,
    /// One JSON record a line: start, stdout, stderr, exit, error, done
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,
    /// The targets' bytes as they are: no names, nothing escaped
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Run a command on all targets, side by side.
///
/// Output comes live, each line after its target's name; error output goes to stderr. Our stdin goes to every target,
/// unless it is a terminal. No shell reads the command: where you want one, write -- sh -c '...'
#[derive(Args, Debug)]
#[command(override_usage = "offshoot exec [OPTIONS] TARGET... -- CMD [ARG]...")]
pub(crate) struct ExecArgs {
    /// Where to run it
    #[arg(value_name = "TARGET", required = true)]
    pub(crate) targets: Vec<String>,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<OsString>,
    /// Give the command no stdin
    #[arg(short = 'n', long, help_heading = "Running")]
    pub(crate) no_stdin: bool,
    /// Give the command a terminal there, as `offshoot shell` does: one target, raw output, ~. leaves
    #[arg(short = 'T', long, help_heading = "Running", conflicts_with_all = ["group", "json", "no_stdin"])]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Open the login shell of a target on your terminal, or run a command there.
///
/// What the target shows reaches your terminal as it is: only here are its bytes not escaped. All keys go there, Ctrl-C
/// and Ctrl-Z too. At the beginning of a line, ~. leaves a session that is stuck, ~^Z stops offshoot itself while the
/// session stays, ~? lists these, and ~~ is one ~. When stdin is no terminal the shell gets none either and reads stdin
/// as a pipe. The exit code is the shell's own; 255 when the link was lost or left.
#[derive(Args, Debug)]
#[command(override_usage = "offshoot shell [OPTIONS] TARGET [-- CMD [ARG]...]")]
pub(crate) struct ShellArgs {
    /// Where
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// A command instead of the login shell
    #[arg(value_name = "CMD", last = true)]
    pub(crate) command: Vec<OsString>,
    /// The escape character: one character, ^X, or none
    #[arg(short = 'e', long, value_name = "CHAR", default_value = "~", value_parser = escape)]
    pub(crate) escape: Escape,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// The escape character of a terminal session, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Escape(pub(crate) Option<u8>);

fn escape(text: &str) -> Result<Escape, String> {
    crate::keys::escape(text).map(Escape)
}

/// Run a local script on all targets; nothing is copied to them.
///
/// The script goes to its interpreter there: the one of its #! line, or sh. The script's own stdin is empty.
#[derive(Args, Debug)]
#[command(override_usage = "offshoot run [OPTIONS] SCRIPT TARGET... [-- ARG...]")]
pub(crate) struct RunArgs {
    /// The script; - reads it from stdin
    #[arg(value_name = "SCRIPT")]
    pub(crate) script: PathBuf,
    /// Where to run it
    #[arg(value_name = "TARGET", required = true)]
    pub(crate) targets: Vec<String>,
    /// The script's arguments
    #[arg(value_name = "ARG", last = true)]
    pub(crate) args: Vec<OsString>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Connect to all targets and draw the tree: names, users, hosts, pids, latency, bytes.
#[derive(Args, Debug)]
#[command(override_usage = "offshoot tree [OPTIONS] TARGET...")]
pub(crate) struct TreeArgs {
    /// Where to connect to
    #[arg(value_name = "TARGET", required = true)]
    pub(crate) targets: Vec<String>,
    /// One JSON record a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Connect to a target and say how that went: each stage with its time, what is there, what would fail.
///
/// Each hop of the path has its own part. It looks for folders where programs may run by making a file there and
/// removing it at once. The exit code is 0 when the target was reached, whatever there is to say about it.
#[derive(Args, Debug)]
#[command(override_usage = "offshoot doctor [OPTIONS] TARGET")]
pub(crate) struct DoctorArgs {
    /// Where
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// One JSON record a line: one for each hop, and one for an error
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// List the agents at hand: triple, hash, size, where from.
#[derive(Args, Debug)]
pub(crate) struct AgentsArgs {
    /// One JSON record a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print a completion script for a shell.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page of offshoot, or of one of its commands.
#[derive(Args, Debug)]
#[command(hide = true)]
pub(crate) struct ManArgs {
    /// Which command
    pub(crate) command: Option<String>,
}

/// `10`, `1.5s`, `250ms`, `2m`, `1h`; a number alone is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 10, 1.5s, 250ms, 2m or 1h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * scale;
    // Thirty days in milliseconds still fit the 32 bits that a recipe has for its deadline.
    if seconds > 30.0 * 86_400.0 {
        return Err("expected at most 30d".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// As [`time`], but not nothing.
fn some_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        time if time < Duration::from_millis(1) => Err("expected at least 1ms".into()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, ms) in [("10", 10_000), ("1.5s", 1500), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000), ("0", 0)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1", "1x", "1.2.3", "1e3", "inf", "nan", "31d", "999999999999999999999999"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(some_time("0").is_err());
    }

    #[test]
    fn what_follows_the_dashes_is_the_commands() {
        let cli = Cli::parse_from(["offshoot", "exec", "a", "-b", "b", "--", "ls", "-b", "--", "-x"]);
        let Command::Exec(exec) = cli.command else { panic!("expected exec") };
        assert_eq!(exec.targets, ["a", "b"]);
        assert!(exec.output.group);
        assert_eq!(exec.command, ["ls", "-b", "--", "-x"]);
    }

    #[test]
    fn a_lone_dash_is_a_target() {
        let cli = Cli::parse_from(["offshoot", "exec", "-", "--", "ls"]);
        let Command::Exec(exec) = cli.command else { panic!("expected exec") };
        assert_eq!(exec.targets, ["-"]);
    }

    #[test]
    fn the_page_for_users_says_how_many_targets_are_worked_on_at_once() {
        let cli = Cli::parse_from(["offshoot", "tree", "a"]);
        let Command::Tree(tree) = cli.command else { panic!("expected tree") };
        crate::usage::assert_says("targets worked on at once", &tree.reach.fanout.to_string());
    }
}
