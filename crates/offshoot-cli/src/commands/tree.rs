//! `offshoot tree`: connects to the targets and draws what has grown.

use std::sync::{Mutex, PoisonError};

use offshoot::escape::escaped;
use serde::Serialize;
use termtree::{GlyphPalette, Tree as Drawing};

use crate::args::{GlobalArgs, TreeArgs};
use crate::exit;
use crate::fault::Fault;
use crate::ground::{Facts, Ground};
use crate::interrupt::Interrupt;
use crate::options::{Look, Reach};
use crate::output::{Json, Palette, Printer as _, Stream, fault_block};
use crate::targets;
use crate::walk::{Plan, Visitor, walk};

/// Grows the tree, draws it and returns what to exit with.
///
/// # Errors
/// What is wrong before anything runs, and what breaks our own output.
pub(crate) fn tree(args: TreeArgs, global: &GlobalArgs) -> anyhow::Result<u8> {
    let look = Look::new(global);
    let reach = Reach::new(&args.reach, global)?;
    let chosen = targets::resolve(&args.targets, &args.reach.exclude)?;
    let (names, paths) = crate::tree::paths(chosen.names, &chosen.excluded, &reach)?;
    let (console, interrupt, tree) = super::connected(&reach)?;
    let plan = Plan::new(paths);
    let survey = survey(tree.root(), &plan, reach.fanout, &interrupt)?;
    tree.shutdown();
    if let Some(code) = interrupt.code() {
        return Ok(code);
    }
    let text = if args.json {
        let mut text = Vec::new();
        for (node, found) in survey.iter().enumerate() {
            if let Some(Ok(facts)) = found {
                write_record(&plan, node, facts, &mut text)?;
            }
        }
        text
    } else {
        draw(&plan, &survey, &look).into_bytes()
    };
    let mut code = 0;
    let mut written = console.write(Stream::Stdout, &text);
    for (node, found) in survey.iter().enumerate() {
        let Some(Err(fault)) = found else { continue };
        code = code.max(fault.code);
        let lost = plan.targets_below(node);
        written = written.and_then(|()| {
            if args.json {
                Json { console: &console, names: &names }.failed(&lost, fault)
            } else {
                let block = fault_block(fault, &names, &lost, &look.palettes[1]);
                console.write(Stream::Stderr, block.as_bytes())
            }
        });
    }
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::BROKEN_PIPE),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(code),
    }
}

/// What was found at each node; `None` below one that failed.
type Survey = Vec<Option<Result<Facts, Box<Fault>>>>;

fn survey<G: Ground>(root: &G, plan: &Plan<G::Hop>, fanout: usize, interrupt: &Interrupt) -> std::io::Result<Survey> {
    struct Surveyor<'a, G: Ground> {
        root: &'a G,
        plan: &'a Plan<G::Hop>,
        interrupt: &'a Interrupt,
        found: Mutex<Survey>,
    }
    impl<G: Ground> Surveyor<'_, G> {
        fn note(&self, node: usize, found: Result<Facts, Box<Fault>>) {
            self.found.lock().unwrap_or_else(PoisonError::into_inner)[node] = Some(found);
        }
    }
    impl<G: Ground> Visitor<G::Hop> for Surveyor<'_, G> {
        type Context = G;
        type Error = Box<Fault>;

        fn connect(&self, node: usize, parent: Option<&G>) -> Result<G, Box<Fault>> {
            parent.unwrap_or(self.root).connect(&self.plan.nodes[node].hop)
        }

        fn visit(&self, _: usize, _: &G) {}

        // Not before what lies below has come through its link.
        fn finished(&self, node: usize, context: &G) {
            self.note(node, context.facts());
        }

        fn failed(&self, node: usize, fault: Box<Fault>) {
            self.note(node, Err(fault));
        }

        fn release(&self, context: G) {
            context.close();
        }

        fn stopped(&self) -> bool {
            self.interrupt.code().is_some()
        }
    }
    let surveyor = Surveyor { root, plan, interrupt, found: Mutex::new(plan.nodes.iter().map(|_| None).collect()) };
    walk(plan, fanout, &surveyor)?;
    Ok(surveyor.found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Serialize)]
struct Record<'a> {
    r#type: &'static str,
    path: String,
    name: &'a str,
    user: &'a str,
    host: &'a str,
    pid: u32,
    triple: &'a str,
    latency_us: u64,
    received: u64,
    sent: u64,
}

fn write_record<H: std::fmt::Display>(
    plan: &Plan<H>,
    node: usize,
    facts: &Facts,
    text: &mut Vec<u8>,
) -> std::io::Result<()> {
    let record = Record {
        r#type: "context",
        path: path(plan, node),
        name: &facts.name,
        user: &facts.user,
        host: &facts.host,
        pid: facts.pid,
        triple: &facts.triple,
        latency_us: u64::try_from(facts.latency.as_micros()).unwrap_or(u64::MAX),
        received: facts.received,
        sent: facts.sent,
    };
    crate::output::append_record(&record, text)
}

/// The target path that leads to a node.
fn path<H: std::fmt::Display>(plan: &Plan<H>, node: usize) -> String {
    let own = plan.nodes[node].hop.to_string();
    match plan.nodes[node].parent {
        Some(parent) => format!("{}/{own}", path(plan, parent)),
        None => own,
    }
}

/// The drawing: the tree on the left, what is known of each context in columns.
fn draw<H: std::fmt::Display>(plan: &Plan<H>, survey: &Survey, look: &Look) -> String {
    let mut drawing = Drawing::new("offshoot".to_owned()).with_glyphs(glyphs(look.unicode));
    // As termtree prints: a node, then its children, in order.
    let mut order = Vec::new();
    for &root in plan.roots() {
        drawing.push(branch(plan, root, look.unicode, &mut order));
    }
    let drawing = drawing.to_string();
    let lines: Vec<&str> = drawing.lines().collect();
    let mut rows = vec![Row::default()];
    rows.extend(order.iter().map(|&node| Row::of(survey[node].as_ref())));
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let tree_width = width(&mut lines.iter().map(|line| line.chars().count()));
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| width(&mut rows.iter().filter(|row| !row.failed).map(|row| row.cells[column].chars().count())))
        .collect();
    let mut text = String::new();
    for (line, row) in lines.iter().zip(&rows) {
        let style: &Palette = &look.palettes[0];
        let mut shown = format!("{line:tree_width$}");
        if row.failed {
            shown += &format!("  {0}{1}{0:#}", style.error_name, row.cells[0]);
        } else {
            for (column, (cell, width)) in row.cells.iter().zip(&widths).enumerate() {
                // Numbers to the right, words to the left.
                shown += &if column == 0 { format!("  {cell:width$}") } else { format!("  {cell:>width$}") };
            }
        }
        text += shown.trim_end();
        text.push('\n');
    }
    text
}

const COLUMNS: usize = 4;

#[derive(Default)]
struct Row {
    cells: [String; COLUMNS],
    failed: bool,
}

impl Row {
    fn of(found: Option<&Result<Facts, Box<Fault>>>) -> Row {
        match found {
            Some(Ok(facts)) => {
                let place = format!("{}@{}", facts.user, facts.host);
                let cells = [
                    escaped(place.as_bytes()).to_string(),
                    format!("pid {}", facts.pid),
                    format!("{:.1} ms", facts.latency.as_secs_f64() * 1000.0),
                    format!("{} up, {} down", bytes(facts.received), bytes(facts.sent)),
                ];
                Row { cells, failed: false }
            }
            Some(Err(fault)) => {
                let cells = [escaped(fault.brief.as_bytes()).to_string(), String::new(), String::new(), String::new()];
                Row { cells, failed: true }
            }
            None => Row { cells: ["not reached".into(), String::new(), String::new(), String::new()], failed: true },
        }
    }
}

fn branch<H: std::fmt::Display>(plan: &Plan<H>, node: usize, unicode: bool, order: &mut Vec<usize>) -> Drawing<String> {
    order.push(node);
    let name = plan.nodes[node].hop.to_string();
    let mut drawing = Drawing::new(escaped(name.as_bytes()).to_string()).with_glyphs(glyphs(unicode));
    for &child in &plan.nodes[node].children {
        drawing.push(branch(plan, child, unicode, order));
    }
    drawing
}

fn glyphs(unicode: bool) -> GlyphPalette {
    if unicode {
        return GlyphPalette::new();
    }
    GlyphPalette {
        middle_item: "|",
        last_item: "`",
        item_indent: "-- ",
        middle_skip: "|",
        last_skip: " ",
        skip_indent: "   ",
    }
}

/// `312 B`, `4.0 KiB`, `1.5 MiB`.
fn bytes(count: u64) -> String {
    let mut amount = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn look(unicode: bool) -> Look {
        Look { terminals: [false; 2], palettes: Default::default(), unicode, quiet: false }
    }

    fn facts(host: &str, pid: u32, ms: u64) -> Option<Result<Facts, Box<Fault>>> {
        let latency = Duration::from_millis(ms);
        Some(Ok(Facts { user: "ann".into(), host: host.into(), pid, latency, received: 4096, ..Facts::default() }))
    }

    #[test]
    fn the_tree_is_drawn_with_columns_beside_it() {
        let plan = Plan::new(["jump/web1", "jump/web2/sudo", "local"].map(|path| path.split('/').collect::<Vec<_>>()));
        let refused = Box::new(Fault { brief: "refused\u{7}".into(), ..Fault::default() });
        let survey =
            vec![facts("jump\u{1b}", 7, 1), facts("web1", 12345, 120), Some(Err(refused)), None, facts("here", 9, 0)];
        assert_eq!(
            draw(&plan, &survey, &look(true)),
            concat!(
                "offshoot\n",
                "├── jump          ann@jump\\x1b      pid 7    1.0 ms  4.0 KiB up, 0 B down\n",
                "│   ├── web1      ann@web1      pid 12345  120.0 ms  4.0 KiB up, 0 B down\n",
                "│   └── web2      refused\\x07\n",
                "│       └── sudo  not reached\n",
                "└── local         ann@here          pid 9    0.0 ms  4.0 KiB up, 0 B down\n",
            )
        );
        assert!(draw(&plan, &survey, &look(false)).is_ascii());
    }
}
