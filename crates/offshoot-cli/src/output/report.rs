//! What we say ourselves: errors in three parts, and the summary of many targets.

use std::fmt::Write as _;

use offshoot::escape::{escaped, quoted};

use super::{Palette, Verdict};
use crate::exit::TIME_WAS_UP;
use crate::fault::{Fault, Ran};
use crate::nodeset::fold;

/// The most bytes of what was received that a block shows: the last ones. JSON has them all.
const RECEIVED_MAX: usize = 600;
/// The most reasons that a summary lists.
const REASONS_MAX: usize = 8;

/// An error as a block of lines:
///
/// ```text
/// error: cannot start an agent on jump -> web1 -> sudo:root
///   stage     waiting for the start marker (10.0 s)
///   reason    nothing came any more
///   received  "Last login: Tue …\nsetting up databases config…\n"
///   hint      the login shell printed text but never ran the script; try: ssh web1 true | od -c
/// ```
pub(crate) fn fault_block(fault: &Fault, names: &[String], targets: &[usize], palette: &Palette) -> String {
    let mut block = format!("{0}error:{0:#} {1}", palette.error, escaped(fault.what.as_bytes()));
    if !fault.path.is_empty() {
        let _ = write!(block, " on {}", escaped(fault.path.as_bytes()));
    }
    block.push('\n');
    let mut part = |name: &str, text: &dyn std::fmt::Display| {
        // Writing to a String does not fail.
        let _ = writeln!(block, "  {}{name:<8}{:#}  {text}", palette.faint, palette.faint);
    };
    if names.len() > 1 && !targets.is_empty() {
        let folded = fold(&targets.iter().map(|&target| &names[target]).collect::<Vec<_>>());
        part("targets", &escaped(folded.as_bytes()));
    }
    if let Some(stage) = &fault.stage {
        let after = fault.after.map(|after| format!(" ({:.1} s)", after.as_secs_f64())).unwrap_or_default();
        part("stage", &format_args!("{}{after}", escaped(stage.as_bytes())));
    }
    if !fault.reason.is_empty() {
        part("reason", &escaped(fault.reason.as_bytes()));
    }
    if !fault.received.is_empty() {
        let (mark, tail) = tail(&fault.received);
        part("received", &format_args!("{mark}{}", quoted(tail)));
    }
    match fault.ran {
        Ran::No => {}
        Ran::Maybe => part("ran", &"the command may have run"),
        Ran::Yes => part("ran", &"the command ran"),
    }
    if !fault.hint.is_empty() {
        part("hint", &escaped(fault.hint.as_bytes()));
    }
    block
}

/// The end of what was received, and a mark when that is not all of it.
fn tail(received: &[u8]) -> (&'static str, &[u8]) {
    let mut start = received.len().saturating_sub(RECEIVED_MAX);
    if start == 0 {
        return ("", received);
    }
    while start < received.len() && received[start] & 0xc0 == 0x80 {
        start += 1;
    }
    ("[...] ", &received[start..])
}

/// `3 of 40 failed: web[3,7] (connection refused), web9 (status 1)`; `None` when all is well, when the run was cut short, or
/// with a single target: what ended there has spoken for itself, unless its time was up.
pub(crate) fn summary(verdict: &Verdict, names: &[String]) -> Option<String> {
    if let (1, false, [(target, reason)]) = (verdict.targets, verdict.interrupted, &verdict.failed[..])
        && reason == TIME_WAS_UP
    {
        return Some(format!("{TIME_WAS_UP}: what ran on {} was ended\n", escaped(names[*target].as_bytes())));
    }
    if verdict.targets < 2 || verdict.failed.is_empty() || verdict.interrupted {
        return None;
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (target, reason) in &verdict.failed {
        let name = names[*target].as_str();
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, targets)) => targets.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let mut line = format!("{} of {} failed: ", verdict.failed.len(), verdict.targets);
    for (index, (reason, targets)) in reasons.iter().take(REASONS_MAX).enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(line, "{comma}{} ({})", escaped(fold(targets).as_bytes()), escaped(reason.as_bytes()));
    }
    if reasons.len() > REASONS_MAX {
        let rest: usize = reasons[REASONS_MAX..].iter().map(|(_, targets)| targets.len()).sum();
        let _ = write!(line, ", and {rest} more for other reasons");
    }
    line.push('\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_error_has_three_parts() {
        let fault = Fault {
            what: "cannot start an agent".into(),
            path: "jump -> web1 -> sudo:root".into(),
            stage: Some("waiting for the start marker".into()),
            after: Some(Duration::from_secs(10)),
            received: b"Last login: Tue\nsetting up \x1b[2J".to_vec(),
            hint: "try: ssh web1 true | od -c".into(),
            ..Fault::default()
        };
        assert_eq!(
            fault_block(&fault, &["web1".into()], &[0], &Palette::default()),
            concat!(
                "error: cannot start an agent on jump -> web1 -> sudo:root\n",
                "  stage     waiting for the start marker (10.0 s)\n",
                "  received  \"Last login: Tue\\nsetting up \\x1b[2J\"\n",
                "  hint      try: ssh web1 true | od -c\n",
            )
        );
    }

    #[test]
    fn a_fault_of_many_targets_names_them_folded() {
        let names: Vec<String> = (1..=5).map(|n| format!("jump/web{n}")).collect();
        let fault = Fault { what: "no route".into(), ran: Ran::Maybe, ..Fault::default() };
        assert_eq!(
            fault_block(&fault, &names, &[0, 1, 2, 4], &Palette::default()),
            "error: no route\n  targets   jump/web[1-3,5]\n  ran       the command may have run\n"
        );
    }

    #[test]
    fn a_long_text_is_shown_from_its_end() {
        let fault = Fault { what: "x".into(), received: vec![b'a'; 5000], ..Fault::default() };
        let block = fault_block(&fault, &[], &[], &Palette::default());
        assert!(block.contains("[...] \"aaa") && block.len() < 700, "{block}");
    }

    #[test]
    fn the_summary_groups_targets_by_reason() {
        let names: Vec<String> = (1..=9).map(|n| format!("web{n}")).collect();
        let failed = vec![
            (2, "connection refused".to_owned()),
            (6, "connection refused".to_owned()),
            (8, "status 1".to_owned()),
        ];
        let verdict = Verdict { targets: 9, failed, code: 125, interrupted: false };
        assert_eq!(
            summary(&verdict, &names).as_deref(),
            Some("3 of 9 failed: web[3,7] (connection refused), web9 (status 1)\n")
        );
        assert_eq!(summary(&Verdict { targets: 9, ..Verdict::default() }, &names), None);
        assert_eq!(summary(&Verdict { targets: 1, ..verdict }, &names), None);
    }

    #[test]
    fn a_single_target_whose_time_was_up_is_told_of() {
        let verdict =
            |reason: &str| Verdict { targets: 1, failed: vec![(0, reason.to_owned())], code: 124, interrupted: false };
        let names = ["web\u{1b}1".to_owned()];
        assert_eq!(
            summary(&verdict(TIME_WAS_UP), &names).as_deref(),
            Some("timed out: what ran on web\\x1b1 was ended\n")
        );
        assert_eq!(summary(&verdict("status 124"), &names), None);
        assert_eq!(summary(&Verdict { interrupted: true, ..verdict(TIME_WAS_UP) }, &names), None);
    }

    #[test]
    fn a_summary_of_a_hundred_reasons_stays_one_line_of_a_bearable_length() {
        let names: Vec<String> = (0..100).map(|n| format!("web{n}")).collect();
        let failed = (0..100).map(|n| (n, format!("status {}", n + 1))).collect();
        let line = summary(&Verdict { targets: 100, failed, code: 100, interrupted: false }, &names).expect("a line");
        assert!(line.ends_with("web7 (status 8), and 92 more for other reasons\n"), "{line}");
    }
}
