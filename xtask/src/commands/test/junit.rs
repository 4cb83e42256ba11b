//! nextest's report file: what tests that passed have printed, which nextest does not show.

use std::path::Path;

use super::not_run::{self, NotRun};

/// Where nextest writes it, below the target folder; `.config/nextest.toml` asks for it.
pub(super) const PATH: &str = "nextest/default/junit.xml";

/// The lines `not run: …` of all tests in the report. A report that is not there has none.
pub(super) fn not_run(path: &Path) -> NotRun {
    let bytes = std::fs::read(path).unwrap_or_default();
    not_run::from_output(&text(&String::from_utf8_lossy(&bytes)))
}

/// The text of an XML file without its tags; those are kept apart by line ends.
fn text(xml: &str) -> String {
    let mut text = String::with_capacity(xml.len());
    for part in xml.split('<') {
        let content = part.split_once('>').map_or("", |(_, content)| content);
        text.push_str(content);
        text.push('\n');
    }
    for (entity, character) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#10;", "\n"), ("&amp;", "&")]
    {
        text = text.replace(entity, character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passing_tests_print_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let xml = "<testsuites name=\"x\"><testcase name=\"a\"><system-out>running 1 test\n\
                   not run: ssh_fish: no &lt;fish&gt; &amp; no luck\ntest a ... ok</system-out></testcase>\
                   <testcase name=\"b\"><system-out>not run: b: why</system-out></testcase></testsuites>";
        std::fs::write(file.path(), xml).unwrap();
        let found = not_run(file.path());
        assert_eq!(found["ssh_fish"], "no <fish> & no luck");
        assert_eq!(found["b"], "why");
        assert_eq!(found.len(), 2);
    }
}
