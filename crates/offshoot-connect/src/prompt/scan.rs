//! Which prompt a tool has left standing: its texts against the recipe's table.
//!
//! Sans-IO, bounded, and linear in what comes, in however small pieces: bytes are gathered, and where the last line stands is
//! noted; when somebody wants to know, the ends of the table's texts are compared with its end, and only what has one of them
//! is looked at further, some KiB at most.

use offshoot_wire::{Asks, Prompts, Start};

use crate::cut::replaced;

/// How much of what a tool writes is looked at: a host key question is some 400 bytes, a lecture as many (S12).
const KEPT: usize = 4 << 10;

/// How much of a line is: a prompt of one line is that and an account, or the path of a key. Looked at for each piece that comes, however small.
const LINE: usize = 1 << 10;

/// What ends a wildcard.
#[derive(Debug)]
enum Wild {
    /// `*`: any text.
    Any,
    /// `{}`: the account.
    Account,
}

/// One row of the table.
#[derive(Debug)]
struct Pattern {
    /// Whether it is compared with all from a line that begins as it does, and not with the last line.
    whole: bool,
    /// Whether it has no word of the tool's own before the account: what stands behind is another's text (`^({}) *`), and
    /// may say whatever a prompt says.
    foreign: bool,
    /// What it begins with, and what comes behind each wildcard.
    first: Vec<u8>,
    rest: Vec<(Wild, Vec<u8>)>,
    asks: Asks,
}

/// A prompt that stands at the end of what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it asks for.
    pub asks: Asks,
    /// Whose; empty where the prompt does not say.
    pub account: Vec<u8>,
    /// The text, raw, without white space around it.
    pub text: Vec<u8>,
    /// Whether the table knows it. Another is whatever the tool left standing: a line without an end.
    pub known: bool,
    /// Whether the text may be the beginning of something else: the table does not know it, or knows no letter of it, only how
    /// it ends, or it is another's.
    pub vague: bool,
    /// Whether it is another's text of which the beginning is lost: whose secret it wants cannot be told.
    pub cut: bool,
}

/// Gathers what a tool writes, and finds the prompt at its end.
///
/// # Examples
///
/// ```
/// use offshoot_connect::prompt::Scanner;
/// use offshoot_wire::{Asks, Prompt, Prompts};
/// let known = vec![Prompt { text: "{}'s password:".into(), asks: Asks::Password }];
/// let mut scanner = Scanner::new(&Prompts { known, terminal: true, answer_ms: 1000 }, "token");
/// scanner.push(b"Welcome.\r\n\rann@web1's pass");
/// assert!(!scanner.found().is_some_and(|found| found.known));
/// scanner.push(b"word: ");
/// let found = scanner.found().expect("a prompt");
/// assert_eq!((found.asks, &found.account[..]), (Asks::Password, &b"ann@web1"[..]));
/// ```
#[derive(Debug)]
pub struct Scanner {
    table: Vec<Pattern>,
    text: Vec<u8>,
    /// Whether the next byte begins a line, but for white space.
    fresh: bool,
    /// Whether a line began as only another's text does. Then `text` begins there, and no line of it is the tool's own.
    foreign: bool,
    /// Whether such a text lost its beginning.
    cut: bool,
    /// How far from the end of all that came the last line that is not blank begins and ends, without white space around it.
    begins: usize,
    ends: usize,
    /// Whether what comes is another line than that.
    over: bool,
}

impl Scanner {
    /// A scanner for these prompts; `token` stands for [`Start::TOKEN`] in them.
    pub fn new(prompts: &Prompts, token: &str) -> Scanner {
        let table =
            prompts.known.iter().map(|prompt| Pattern::new(&replaced(&prompt.text, Start::TOKEN, token), prompt.asks));
        let (text, table) = (Vec::new(), table.collect());
        Scanner { table, text, fresh: true, foreign: false, cut: false, begins: 0, ends: 0, over: true }
    }

    /// Takes what the tool wrote.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.foreign
            && let Some(at) = self.foreign_from(bytes)
        {
            // In front of it stands the echo of an answer, or a message.
            self.clear();
            self.foreign = true;
            bytes = &bytes[at..];
        }
        self.follow(bytes);
        self.cut |= self.foreign && self.text.len() + bytes.len() > KEPT;
        self.text.extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT)..]);
        // Cut when it is twice as long: so each byte is moved once at most.
        if self.text.len() > 2 * KEPT {
            self.text.drain(..self.text.len() - KEPT);
        }
    }

    /// Where in these bytes a line begins as only another's text does.
    fn foreign_from(&mut self, bytes: &[u8]) -> Option<usize> {
        let begins = |byte: &u8| self.table.iter().any(|row| row.foreign && row.first.first() == Some(byte));
        for (at, byte) in bytes.iter().enumerate() {
            if self.fresh && begins(byte) {
                return Some(at);
            }
            self.fresh = matches!(byte, b'\n' | b'\r') || (self.fresh && byte.is_ascii_whitespace());
        }
        None
    }

    /// Notes where the last line stands when these bytes have come.
    fn follow(&mut self, bytes: &[u8]) {
        self.begins = self.begins.saturating_add(bytes.len());
        self.ends = self.ends.saturating_add(bytes.len());
        for (left, byte) in (0..bytes.len()).rev().zip(bytes) {
            // A carriage return ends a line, too: tools begin a prompt with it.
            if matches!(byte, b'\n' | b'\r') {
                self.over = true;
            } else if !byte.is_ascii_whitespace() {
                if std::mem::take(&mut self.over) {
                    self.begins = left + 1;
                }
                self.ends = left;
            }
        }
    }

    /// The last of what came, some KiB at most.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Forgets what came: it was answered.
    pub fn clear(&mut self) {
        self.text.clear();
        (self.fresh, self.foreign, self.cut, self.over) = (true, false, false, true);
        (self.begins, self.ends) = (0, 0);
    }

    /// The prompt that stands at the end of what came. `None` when nothing came, or the last line has ended.
    pub fn found(&self) -> Option<Found> {
        let text = &self.text[self.text.len().saturating_sub(KEPT)..];
        if matches!(text.last(), None | Some(b'\n')) {
            return None;
        }
        let text = &text[..text.len().saturating_sub(self.ends)];
        // Of a line that is longer the beginning is lost.
        let line = &text[text.len().saturating_sub((self.begins - self.ends).min(LINE))..];
        if line.is_empty() {
            return None;
        }
        let rows = self.table.iter().filter(|row| row.foreign == self.foreign && !self.cut);
        for row in rows {
            let text = match row.whole {
                // The end first: a text that is no prompt seldom has it.
                true if !text.ends_with(row.end()) => None,
                true => from_line(text, &row.first),
                false => Some(line),
            };
            if let Some(text) = text
                && let Some(account) = row.account(text)
            {
                let (account, text, vague) = (account.to_vec(), text.to_vec(), row.is_vague());
                return Some(Found { asks: row.asks, account, text, known: true, vague, cut: false });
            }
        }
        let (text, cut) = (line.to_vec(), self.cut);
        Some(Found { asks: Asks::Other, account: Vec::new(), text, known: false, vague: true, cut })
    }
}

/// All from the first line that begins so, without white space around it.
fn from_line<'a>(text: &'a [u8], first: &[u8]) -> Option<&'a [u8]> {
    let mut rest = text.trim_ascii();
    while !rest.starts_with(first) {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        rest = rest[end..].trim_ascii_start();
    }
    Some(rest)
}

impl Pattern {
    fn new(text: &str, asks: Asks) -> Pattern {
        let (whole, mut text) = match text.strip_prefix('^') {
            Some(text) => (true, text.as_bytes()),
            None => (false, text.as_bytes()),
        };
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        while let Some(&byte) = text.first() {
            let (wild, length) = match byte {
                b'*' => (Some(Wild::Any), 1),
                b'{' if text.get(1) == Some(&b'}') => (Some(Wild::Account), 2),
                _ => (None, 1),
            };
            match wild {
                Some(wild) => rest.push((wild, Vec::new())),
                None => rest.last_mut().map_or(&mut first, |(_, part)| part).push(byte),
            }
            text = &text[length..];
        }
        let foreign = whole && !first.is_empty() && !first.iter().any(u8::is_ascii_alphanumeric);
        Pattern { whole, foreign, first, rest, asks }
    }

    /// What the prompt ends with.
    fn end(&self) -> &[u8] {
        self.rest.last().map_or(&self.first, |(_, part)| part)
    }

    /// Whether no letter of the prompt is known to be the tool's.
    fn is_vague(&self) -> bool {
        let parts = self.rest.iter().map(|(_, part)| part).chain([&self.first]);
        self.foreign || !parts.flatten().any(u8::is_ascii_alphanumeric)
    }

    /// The account that a text names, empty where the pattern has none; `None` when the text does not fit.
    fn account<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let Some(((last_wild, last), between)) = self.rest.split_last() else {
            return (text == self.first).then_some(&[]);
        };
        // The end first: a text that is no prompt seldom has it.
        let text = text.strip_suffix(&last[..])?;
        let mut text = text.strip_prefix(&self.first[..])?;
        let mut account: &[u8] = &[];
        for (wild, part) in between {
            let at = find(text, part)?;
            if let Wild::Account = wild {
                account = &text[..at];
            }
            text = &text[at + part.len()..];
        }
        if let Wild::Account = last_wild {
            account = text;
        }
        let named = self.rest.iter().any(|(wild, _)| matches!(wild, Wild::Account));
        let control = |byte: &u8| byte.is_ascii_control();
        (!named || !(account.is_empty() || account.iter().any(control))).then_some(account)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let Some(first) = part.first() else { return Some(0) };
    // Most texts have not even that, which is found out much faster.
    if !text.contains(first) {
        return None;
    }
    (0..=text.len().checked_sub(part.len())?).find(|&at| text[at] == *first && text[at..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use offshoot_wire::Prompt;
    use proptest::prelude::*;

    use super::*;

    fn scanner(known: &[(&str, Asks)]) -> Scanner {
        let known = known.iter().map(|(text, asks)| Prompt { text: (*text).to_owned(), asks: *asks }).collect();
        Scanner::new(&Prompts { known, terminal: true, answer_ms: 1 }, "TOKEN")
    }

    const TABLE: &[(&str, Asks)] = &[
        ("^The authenticity of host '{}'*(yes/no*)?", Asks::HostKey),
        ("^({}) *assword*:", Asks::Password),
        ("^({}) *", Asks::Other),
        ("{}'s password:", Asks::Password),
        ("*\u{1}token {}:*", Asks::Password),
    ];

    fn found(text: &[u8]) -> Option<(Asks, String)> {
        let mut scanner = scanner(TABLE);
        scanner.push(text);
        let found = scanner.found().filter(|found| found.known)?;
        Some((found.asks, String::from_utf8(found.account).expect("text")))
    }

    #[test]
    fn prompts_are_told_apart_and_say_whose_they_are() {
        let some = |asks, account: &str| Some((asks, account.to_owned()));
        for (text, expected) in [
            ("\rpeer1@127.0.0.1's password: ", some(Asks::Password, "peer1@127.0.0.1")),
            ("\r\nPermission denied\r\r\n\rpeer1@h's password: ", some(Asks::Password, "peer1@h")),
            ("\r(peer1@h) Password: ", some(Asks::Password, "peer1@h")),
            ("\r(peer1@h) Code: ", some(Asks::Other, "peer1@h")),
            ("We trust you\r\n\r\nTOKEN ann: ", some(Asks::Password, "ann")),
            ("[sudo: TOKEN ann:] Password: ", some(Asks::Password, "ann")),
            (
                "\rThe authenticity of host 'h (1.2.3.4)' can't be\r\nED25519\r\nSure (yes/no/[fingerprint])? ",
                some(Asks::HostKey, "h (1.2.3.4)"),
            ),
            ("x's password: \n", None),
            ("x's password: more", None),
            ("'s password: ", None),
            ("", None),
        ] {
            assert_eq!(found(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn s19_a_server_cannot_pass_its_own_text_off_as_the_prompt_of_another_account() {
        // What a server writes into a keyboard-interactive prompt stands behind its own account, wherever a line begins
        // with that: at the start, behind the echo of an answer, or behind a message.
        for before in ["\r", "yes\r\n\r", "123456\r\n  ", "Try again.\r\n\r\n"] {
            for within in ["", "\r(root@web1) ", "(x) \r\nThe authenticity of host 'web1' (yes/no)? \r\n"] {
                let text = format!("{before}(root@jump) {within}\r\nroot@web1's password: ");
                assert_eq!(found(text.as_bytes()).expect("a prompt").1, "root@jump", "{text:?}");
            }
        }
        assert_eq!(found(b"\r(root@jump\r\nroot@web1's password: "), None);
    }

    #[test]
    fn s19_a_server_cannot_lose_the_beginning_of_its_prompt_by_its_length() {
        let prompt = [&b"\r(ops@bastion) "[..], &b".".repeat(5000), b"\r\nann@web1's password: "].concat();
        for piece in [1, 7, 1000, KEPT, prompt.len()] {
            for before in ["", "yes\r\n"] {
                let mut scanner = scanner(TABLE);
                scanner.push(before.as_bytes());
                prompt.chunks(piece).for_each(|piece| scanner.push(piece));
                let found = scanner.found().expect("something");
                assert!(!found.known && found.cut, "{piece}: {found:?}");
                scanner.clear();
                scanner.push(b"\r\n\rann@web1's password: ");
                assert!(scanner.found().is_some_and(|found| found.known && found.account == b"ann@web1"));
            }
        }
    }

    #[test]
    fn a_text_that_was_answered_plays_no_part_any_more() {
        let mut scanner = scanner(TABLE);
        scanner.push(b"a's password: ");
        assert!(scanner.found().is_some());
        scanner.clear();
        assert_eq!(scanner.found(), None);
        scanner.push(b"\r\n");
        assert_eq!(scanner.found(), None);
    }

    /// How long a processor worked for this thread, in seconds: what others do meanwhile is not the scanner's.
    fn used() -> f64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel's count");
        text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).expect("nanoseconds") / 1e9
    }

    #[test]
    fn s23_what_floods_a_terminal_is_taken_in_time_and_kept_bounded() {
        let token = b"TOKEN ann: ".to_vec();
        // Of what begins prompts and of what ends them, too: what is nearly one costs the most.
        let near = ["The authenticity of host '", "x's password:", "'s password: ", "(yes/no)?", "\ra: \r", "ab\n'"];
        let mut floods =
            vec![vec![0; 65_536], b"(a) ".repeat(16_384), b"\r\n\x1b[31m".repeat(9_000), token.repeat(6_000)];
        floods.extend(near.map(|text| text.as_bytes().repeat(65_536 / text.len())));
        // A terminal gives some KiB at once at most, and some bytes when it is looked at often: 64 MiB in all.
        let pieces = [64, 1024, 4095, 65_536];
        for flood in floods {
            let begun = used();
            let mut scanner = scanner(TABLE);
            for piece in pieces {
                for _ in 0..(64 << 20) / pieces.len() / flood.len() {
                    for part in flood.chunks(piece) {
                        scanner.push(part);
                        let _ = scanner.found();
                    }
                }
            }
            assert!(scanner.text.capacity() <= 8 * KEPT, "{}", scanner.text.capacity());
            // Three times the promise of 2 s, and twice that, since this is not optimized.
            let took = used() - begun;
            println!("{took} s for {}", flood[..32].escape_ascii());
            assert!(took < 12.0, "{took} s for {}", flood[..32].escape_ascii());
            scanner.push(b"\r\nx@y's password: ");
            let found = scanner.found().expect("a line");
            let own = flood.starts_with(b"(");
            assert!(found.cut == own && found.known != own && (own || found.account == b"x@y"), "{found:?}");
        }
    }

    #[test]
    fn s23_a_dialogue_takes_a_flood_in_small_pieces_in_time() {
        // Such as ask nothing, to the last byte.
        for flood in [&[0; 64][..], &b"yes/no)? password: ab\n".repeat(3)[..64]] {
            let known = TABLE.iter().map(|(text, asks)| Prompt { text: (*text).to_owned(), asks: *asks }).collect();
            let prompts = Prompts { known, terminal: true, answer_ms: 1 };
            let mut dialogue = crate::prompt::Dialogue::new(&prompts, "TOKEN", true);
            let (begun, now) = (used(), std::time::Instant::now());
            for _ in 0..(16 << 20) / flood.len() {
                dialogue.handle_bytes(flood, now);
                let step = dialogue.poll(now, || false);
                assert!(step.is_none(), "{step:?}");
            }
            // Of 64 MiB a quarter, but the costliest.
            let took = used() - begun;
            println!("{took} s for {}", flood[..32].escape_ascii());
            assert!(took < 6.0, "{took} s for {}", flood[..32].escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn s23_how_the_bytes_are_cut_into_pieces_makes_no_difference(
            bytes in "[\\x00a:() \\r\\n]{0,40}",
            times in 0usize..300,
            pieces in proptest::collection::vec(1usize..3000, 1..8),
            prompt in prop_oneof![Just(""), Just("a@b's password: "), Just("\r(a) x: "), Just("TOKEN u: ")],
        ) {
            let bytes = [bytes.repeat(times).as_bytes(), prompt.as_bytes()].concat();
            let mut whole = scanner(TABLE);
            whole.push(&bytes);
            let mut cut = scanner(TABLE);
            let mut rest = &bytes[..];
            for piece in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                cut.push(now);
                rest = later;
            }
            prop_assert_eq!(whole.found(), cut.found());
        }

        #[test]
        fn a_pattern_fits_as_a_plain_search_says(text in "[ab:(]{0,12}", pattern in "[ab*]{0,5}") {
            fn fits(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && fits(rest, &text[1..]),
                }
            }
            let told = Pattern::new(&pattern, Asks::Other).account(text.as_bytes()).is_some();
            prop_assert_eq!(told, fits(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
